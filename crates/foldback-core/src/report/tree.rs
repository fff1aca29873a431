//! A log as a tree: scopes nest by the path of their keys, with steps, decisions and timers as
//! leaves, in the order in which they came.
//!
//! A scope that the log never names (an iteration, a try) is there all the same as soon as
//! something inside it is. What a scope used is the sum of what lies in it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::grow::Growing;
use super::steps::Edited;
use super::{Ahead, AttemptReport, Moment, ReportedStatus, ReusedFrom, StepReport, Tokens, effective};
use crate::event::{Event, TaskKind, Verdict};
use crate::step::{Effect, Failure};
use crate::{Key, Version};

/// A scope or a leaf.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TreeNode {
    /// Its key.
    pub key: Key,
    /// What of the key its parent does not say: `fetch`, `[3]`, `!2`.
    pub label: String,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// Where it stands.
    pub status: ReportedStatus,
    /// The version of the first fact about it.
    pub version: Version,
    /// From its begin to its end, in ms; `None` while it lasts.
    pub duration_ms: Option<u64>,
    /// Tokens used, with all that lies in it.
    pub tokens: Tokens,
    /// The cost as far as prices are known, with all that lies in it.
    pub micro_usd: u64,
    /// What lies in it, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<TreeNode>,
    /// What lies in it and is only counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// Names that left `$context` when it ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_context: Vec<String>,
}

/// Nodes between the first and the last ones of a scope that are only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The number of children that stand before them.
    pub after: usize,
    /// Their number, without what lies in them.
    pub nodes: u64,
    /// Those of them that failed, or hold something that did.
    pub failed: u64,
    /// Tokens used by them.
    pub tokens: Tokens,
    /// Their cost, as far as prices are known.
    pub micro_usd: u64,
}

/// The items that a loop runs over.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Over {
    /// Their number.
    pub count: usize,
    /// The first ones.
    pub first: Vec<Value>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
#[allow(clippy::large_enum_variant)] // most nodes are steps
pub enum What {
    /// A task with others inside.
    Scope {
        /// Which kind of task, where the log says so.
        task: Option<TaskKind>,
        /// Of a loop: what it runs over.
        #[serde(skip_serializing_if = "Option::is_none")]
        over: Option<Over>,
    },
    /// A step, or a value that the program computed.
    Step {
        /// Which step kind.
        kind: Arc<str>,
        /// What it does to the world.
        effect: Effect,
        /// Attempts begun.
        attempts: u32,
        /// Attempts whose process died under them.
        lost_attempts: u32,
        /// The model that answered.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// Which variant of the request was tried last: 0, or the place of a fallback, from 1.
        variant: u32,
        /// Why the model stopped.
        #[serde(skip_serializing_if = "Option::is_none")]
        finish_reason: Option<String>,
        /// The place in what the model wrote from which the answer was taken, where it was not the text itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        found_in: Option<String>,
        /// Whether tokens are estimated.
        #[serde(skip_serializing_if = "is_false")]
        is_estimated: bool,
        /// Whether something was used whose price is not known, so that the cost is at least this.
        #[serde(skip_serializing_if = "is_false")]
        is_unpriced: bool,
        /// Why it failed, or why its last attempt did.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
        /// When the next attempt is due.
        #[serde(skip_serializing_if = "Option::is_none")]
        due: Option<Moment>,
        /// Where its outcome was taken from, if it was.
        #[serde(skip_serializing_if = "Option::is_none")]
        reused: Option<ReusedFrom>,
        /// Why it waits for a person, as a `write` of a fork.
        #[serde(skip_serializing_if = "Option::is_none")]
        held: Option<String>,
        /// What became of it, as a `write` whose outcome could not be taken.
        #[serde(skip_serializing_if = "Option::is_none")]
        settled: Option<Verdict>,
        /// Attempts that did not end it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        failed_attempts: Vec<AttemptReport>,
        /// A part that a person changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        edited: Option<Edited>,
    },
    /// A choice.
    Decision {
        /// What was chosen.
        chosen: String,
        /// Out of what.
        options: Vec<String>,
        /// The values that decided it.
        because: Arc<Value>,
    },
    /// A wait for a moment.
    Timer {
        /// The moment.
        due: Moment,
    },
    /// A wait for signals.
    Listen {
        /// Their names.
        names: Vec<Arc<str>>,
        /// `signal`, or `default` where its time ran out; `None` while it lasts.
        #[serde(skip_serializing_if = "Option::is_none")]
        answered: Option<&'static str>,
    },
    /// A domain event that the workflow recorded.
    Event {
        /// Its type.
        event_type: Arc<str>,
    },
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl What {
    pub(super) fn of_step(report: StepReport) -> What {
        What::Step {
            kind: report.kind,
            effect: report.effect,
            attempts: report.attempts,
            lost_attempts: report.lost_attempts,
            model: report.model,
            variant: report.variant,
            finish_reason: report.finish_reason,
            found_in: report.found_in,
            is_estimated: report.is_estimated,
            is_unpriced: report.is_unpriced,
            error: report.error,
            due: report.due,
            reused: report.reused,
            held: report.held,
            settled: report.settled,
            failed_attempts: report.failed_attempts,
            edited: report.edited,
        }
    }
}

/// The tree of a log: what stands at the top, in order.
///
/// What a reopening left behind has no place in it: it shows what the workflow went on from.
pub fn tree(events: &[Event]) -> Vec<TreeNode> {
    let mut growing = Growing::new(usize::MAX, &Ahead::default());
    effective(events).into_iter().for_each(|event| growing.read(event));
    growing.finish().nodes
}
