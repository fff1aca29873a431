//! What each step was asked, what it answered, and what was decided: one row a step, in the
//! order in which they were asked. Visits, tries and iterations have keys of their own and so
//! rows of their own.
//!
//! Never looks at a state: a row is made of what the log says about its key, so rows of scopes
//! that the state forgot long ago are here too.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{Moment, Rows, Tokens};
use crate::event::{Event, Fact, Verdict};
use crate::step::{Effect, Failure};
use crate::{Key, Version};

/// Where a step stands, in the words that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportedStatus {
    /// Asked for; no attempt has begun.
    Pending,
    /// An attempt has begun, or the next one is due.
    Running,
    /// Did what was asked.
    Completed,
    /// Failed for good.
    Failed,
    /// Given up: the program wanted it no more (`cancelled` says why), or its workflow ended before
    /// it began, or before its next attempt.
    Cancelled,
    /// Nobody knows whether it happened.
    Unknown,
    /// Its outcome was taken from another workflow.
    Reused,
}

impl ReportedStatus {
    /// The word that scripts rely on.
    pub fn as_str(self) -> &'static str {
        match self {
            ReportedStatus::Pending => "pending",
            ReportedStatus::Running => "running",
            ReportedStatus::Completed => "completed",
            ReportedStatus::Failed => "failed",
            ReportedStatus::Cancelled => "cancelled",
            ReportedStatus::Unknown => "unknown",
            ReportedStatus::Reused => "reused",
        }
    }
}

/// An attempt that did not end its step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptReport {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The version that says so.
    pub version: Version,
    /// Why it failed.
    pub error: Failure,
    /// The answer that was rejected, where that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Arc<Value>>,
    /// How long it was waited before the next one, in ms.
    pub delay_ms: u64,
    /// Which variant of the request it was: 0, or the place of a fallback, from 1.
    pub variant: u32,
}

/// Where an outcome was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReusedFrom {
    /// In whose log.
    pub workflow: Arc<str>,
    /// At which version.
    pub version: Version,
}

/// A part of a step that a person changed, in a fork or in a workflow that was reopened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edited {
    /// `request` or `output`.
    pub what: &'static str,
    /// The value that stood there before, where the log says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<Arc<Value>>,
}

/// What the log says about one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Its name.
    pub key: Key,
    /// Which step kind performs it; `set` and `compute` for what the program computes itself, `listen` for
    /// a wait for signals.
    pub kind: Arc<str>,
    /// What it does to the world.
    pub effect: Effect,
    /// Where it stands.
    pub status: ReportedStatus,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts whose process died under them, or that were cut off: what they used is in none of the
    /// figures.
    pub lost_attempts: u32,
    /// What it was asked: the request as recorded.
    pub input: Arc<Value>,
    /// What it answered.
    pub output: Arc<Value>,
    /// Why it failed, or why its last attempt did.
    pub error: Option<Failure>,
    /// Why the program gave it up. A `write` that was under way has an outcome all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
    /// The version of its ask.
    pub asked_version: Version,
    /// The version with which its first attempt began.
    pub started_version: Option<Version>,
    /// The version with which it completed or failed.
    pub ended_version: Option<Version>,
    /// From the begin of the first attempt to its end, delays included, in ms.
    pub duration_ms: Option<u64>,
    /// Tokens of all attempts.
    pub tokens: Tokens,
    /// The cost of all attempts; `None` where something was used and no price is known.
    pub micro_usd: Option<u64>,
    /// Whether an attempt used something whose price is not known: the cost is at least this.
    pub is_unpriced: bool,
    /// When it was asked.
    pub asked_at: Moment,
    /// How long the last attempt took, in ms, as its performer saw it.
    pub latency_ms: Option<u64>,
    /// The model that answered, as it calls itself.
    pub model: Option<String>,
    /// Which variant of the request was tried last: 0, or the place of a fallback, from 1.
    pub variant: u32,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// The place in what the model wrote from which the answer was taken, where it was not the text itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_in: Option<String>,
    /// Whether tokens of an attempt are estimated, since its provider did not tell them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_estimated: bool,
    /// When the next attempt is due, while it backs off.
    pub due: Option<Moment>,
    /// Where its outcome was taken from, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reused: Option<ReusedFrom>,
    /// Why it waits for a person, as a `write` of a fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// What became of it, as a `write` whose outcome could not be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<Verdict>,
    /// Attempts that did not end it.
    pub failed_attempts: Vec<AttemptReport>,
    /// What the task made of the output, where it shaped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shaped: Option<Arc<Value>>,
    /// A part that a person changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited: Option<Edited>,
    /// Who gave the output, where it is no performer: of a `listen` that is over `signal`, or `default` where its
    /// time ran out; of a step whose outcome was unknown `person`, where one said that it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<&'static str>,
}

/// A recorded choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecisionReport {
    /// The version that records it.
    pub version: Version,
    /// Its name.
    pub key: Key,
    /// What was chosen.
    pub chosen: String,
    /// Out of what.
    pub options: Vec<String>,
    /// The values that decided it.
    pub because: Arc<Value>,
}

/// The decisions of a log, in order.
pub fn decisions<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<DecisionReport> {
    let report = |event: &Event| {
        let Fact::DecisionMade(made) = &event.fact else { return None };
        Some(DecisionReport {
            version: event.version,
            key: made.key.clone(),
            chosen: made.chosen.clone(),
            options: made.options.clone(),
            because: made.because.get(),
        })
    };
    events.into_iter().filter_map(report).collect()
}

/// The steps of a log, in the order of their asks. Values computed by the program (`set`, `compute`) and
/// waits for signals (`listen`) stand among them.
pub fn steps<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<StepReport> {
    let mut rows = Rows::default();
    events.into_iter().for_each(|event| rows.read(event));
    rows.finish()
}
