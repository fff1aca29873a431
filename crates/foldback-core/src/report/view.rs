//! The state as people and scripts read it: where a workflow stands, what it holds and what it
//! waits for. The state itself is the program's; this is its outside.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{LedgerEffect, Moment, Standing, ledger, null};
use crate::event::{Event, Fact};
use crate::state::{End, EntryBody, Spent, StepStatus, WorkflowState};
use crate::step::{Effect, Failure};
use crate::{Key, Status, Version};

/// A workflow's state, from outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateView {
    /// Its id.
    pub workflow_id: Arc<str>,
    /// The version of the last event folded.
    pub version: Version,
    /// Where it stands.
    pub status: Status,
    /// Its input.
    pub input: Arc<Value>,
    /// `$context`.
    pub context: Arc<Value>,
    /// What it gave; `null` until it completed.
    pub output: Arc<Value>,
    /// Steps that are not settled and will go on by themselves.
    pub pending: Vec<PendingView>,
    /// What it waits for: moments, and people.
    pub waits: Vec<WaitView>,
    /// Undos that are armed, newest first.
    pub undos: Vec<UndoView>,
    /// What it has used.
    pub spent: Spent,
    /// What a person calls its definition.
    pub definition: Arc<str>,
    /// The time of the last event folded.
    pub at: Moment,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// A step that is not settled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PendingView {
    /// Its name.
    pub key: Key,
    /// Which step kind performs it.
    pub kind: Arc<str>,
    /// What it does to the world.
    pub effect: Effect,
    /// `pending`, `running` or `backoff`.
    pub status: StepStatus,
    /// Attempts begun.
    pub attempts: u32,
    /// When its next attempt is due, while it backs off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Moment>,
    /// Whether the program gave it up and only its outcome is waited for.
    #[serde(rename = "given_up", skip_serializing_if = "is_not")]
    pub is_given_up: bool,
}

fn is_not(flag: &bool) -> bool {
    !*flag
}

/// Something that only a moment or a person can move.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WaitView {
    /// The timer or the step.
    pub key: Key,
    /// `timer`, `timeout` (nobody waits for it, but it may cut a task off), `outcome` (a person
    /// has to say what happened), or `decision` (a person has to say what becomes of a `write` of a
    /// fork), or `signal`.
    #[serde(rename = "for")]
    pub wants: &'static str,
    /// When the moment comes; of a signal, when the time for it runs out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Moment>,
    /// Names of the signals that are waited for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Arc<str>>,
    /// How they are joined, and what an answer must look like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Arc<Value>>,
}

impl WaitView {
    fn of(key: &Key, wants: &'static str, due: Option<Moment>) -> WaitView {
        WaitView { key: key.clone(), wants, due, signals: Vec::new(), details: None }
    }
}

/// An undo that is armed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UndoView {
    /// The version that armed it.
    pub version: Version,
    /// The step that it undoes; `None` where only the state is known.
    pub key: Option<Key>,
    /// What takes it back is given this, beside the output.
    pub undo: Arc<Value>,
    /// What the step answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<Value>>,
}

/// The state as people read it. Of the undos it knows the newest only; see [`undos`].
pub fn state_view(state: &WorkflowState) -> StateView {
    let (mut pending, mut waits) = (Vec::new(), Vec::new());
    for key in &state.open {
        let Some(entry) = state.entries.get(key) else {
            continue;
        };
        match &entry.body {
            EntryBody::Step(step) => match step.status {
                // An ended workflow starts nothing more.
                StepStatus::Pending | StepStatus::Backoff if !state.may_move(key) => {}
                StepStatus::Pending | StepStatus::Running | StepStatus::Backoff => {
                    pending.push(PendingView {
                        key: key.clone(),
                        kind: step.kind.clone(),
                        effect: step.effect,
                        status: step.status,
                        attempts: step.attempts,
                        due: step.due.map(Moment),
                        is_given_up: step.is_given_up,
                    })
                }
                StepStatus::Unknown => waits.push(WaitView::of(key, "outcome", None)),
                StepStatus::Held => waits.push(WaitView::of(key, "decision", None)),
                StepStatus::Completed | StepStatus::Failed | StepStatus::Cancelled => {}
            },
            EntryBody::Timer { due, fired: false, limits, .. } if state.may_move(key) => {
                let wants = if *limits { "timeout" } else { "timer" };
                waits.push(WaitView::of(key, wants, Some(Moment(*due))));
            }
            EntryBody::Listening { names, wants, heard: None } if state.may_move(key) => {
                waits.push(WaitView {
                    key: key.clone(),
                    wants: "signal",
                    due: state.deadline(key).map(Moment),
                    signals: names.clone(),
                    details: Some(wants.get()),
                })
            }
            EntryBody::Timer { .. }
            | EntryBody::Listening { .. }
            | EntryBody::Started { .. }
            | EntryBody::Decided { .. }
            | EntryBody::Finished { .. } => {}
        }
    }
    let (output, error) = match &state.end {
        Some(End::Completed { output }) => (output.get(), None),
        Some(End::Failed { error }) => (null(), Some(error.plain())),
        Some(End::Cancelled { .. } | End::Parked { .. }) | None => (null(), None),
    };
    StateView {
        workflow_id: state.workflow_id.clone(),
        version: state.version,
        status: state.status(),
        input: state.input.get(),
        context: state.context.get(),
        output,
        pending,
        waits,
        undos: state
            .newest_undo
            .map(|version| UndoView { version, key: None, undo: null(), output: None })
            .into_iter()
            .collect(),
        spent: state.spent.clone(),
        definition: state.name.clone(),
        at: Moment(state.now),
        error,
    }
}

/// The undos that are armed at the end of a log, newest first.
pub fn undos<'a>(workflow_id: &str, events: impl IntoIterator<Item = &'a Event> + Clone) -> Vec<UndoView> {
    undos_of(&ledger(workflow_id, events.clone()), events)
}

/// The undos that a ledger calls armed, newest first, from the events that armed them.
pub fn undos_of<'a>(effects: &[LedgerEffect], events: impl IntoIterator<Item = &'a Event>) -> Vec<UndoView> {
    let is_armed = |standing| matches!(standing, Standing::Armed | Standing::Undoing | Standing::Stuck);
    let armed: BTreeSet<Version> =
        effects.iter().filter(|effect| is_armed(effect.standing)).filter_map(|effect| effect.armed).collect();
    let view = |event: &Event| {
        let Fact::UndoArmed(undo) = &event.fact else { return None };
        armed.contains(&event.version).then(|| UndoView {
            version: event.version,
            key: Some(undo.key.clone()),
            undo: undo.undo.get(),
            output: undo.output.as_ref().map(|output| output.get()),
        })
    };
    let mut undos: Vec<UndoView> = events.into_iter().filter_map(view).collect();
    undos.reverse();
    undos
}
