//! Reopening: which facts led to the end, so that the walk meets their places anew.
//!
//! A failure stands in the state at the step that failed, and on its way outward at each block that
//! did not catch it, each branch that kept it and each limit that ran out. One that a handler or a
//! further try answered is no reason for the end, and stays.

use foldback_core::{EntryBody, Key, StepStatus, WorkflowState};

use super::tries::{CAUGHT, RETRY};

/// The keys to forget, in the order of their names.
pub(super) fn failures(state: &WorkflowState) -> Vec<Key> {
    let late: Vec<Key> = state.entries.keys().filter_map(|key| ran_out(state, key)).collect();
    let is_over = |key: &Key| late.iter().any(|scope| key == scope || key.is_inside(scope));
    let failed = state.entries.iter().filter(|(key, entry)| match &entry.body {
        EntryBody::Step(step) => match step.status {
            StepStatus::Failed => true,
            StepStatus::Cancelled => is_over(key),
            StepStatus::Pending
            | StepStatus::Running
            | StepStatus::Backoff
            | StepStatus::Completed
            | StepStatus::Held
            | StepStatus::Unknown => false,
        },
        EntryBody::Timer { .. } => ran_out(state, key).is_some(),
        EntryBody::Started { .. } => is_mark(key, "!catch") || is_mark(key, "!failed"),
        EntryBody::Decided { chosen } => is_mark(key, "!catch") && ![CAUGHT, RETRY].contains(&&**chosen),
        EntryBody::Listening { .. } => entry.body.failed_answer().is_some(),
        EntryBody::Finished { .. } => false,
    });
    failed.map(|(key, _)| key.clone()).filter(|key| !is_answered(state, key)).collect()
}

fn is_mark(key: &Key, mark: &str) -> bool {
    key.as_str().ends_with(mark)
}

/// The task whose limit this is, if it has run out.
fn ran_out(state: &WorkflowState, timer: &Key) -> Option<Key> {
    let limits = |body: &EntryBody| matches!(body, EntryBody::Timer { limits: true, fired: true, .. });
    state.entries.get(timer).filter(|entry| limits(&entry.body)).map(|_| timer.unmarked())
}

/// Whether a block around this place has caught what failed in it, or tries again. What takes a step
/// back is in no block of the flow: one around the step answers nothing there.
fn is_answered(state: &WorkflowState, key: &Key) -> bool {
    let text = key.as_str();
    let beside = key.undone().map_or(0, |step| step.as_str().len());
    text.match_indices('/').filter(|(at, _)| *at >= beside).any(|(at, _)| {
        let catch = Key::new(format!("{}!catch", &text[..at]));
        matches!(state.entries.get(&catch).map(|entry| &entry.body),
            Some(EntryBody::Decided { chosen }) if [CAUGHT, RETRY].contains(&&**chosen))
    })
}
