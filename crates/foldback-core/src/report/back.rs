//! Logs that went back: a workflow that was reopened at an earlier version goes on from the state that
//! was there. What lies between stands in the log, and was paid for; the state does not know it.

use crate::event::{Event, Fact};

/// The events without those that a later reopening left behind.
pub fn effective(events: &[Event]) -> Vec<&Event> {
    let mut kept: Vec<&Event> = Vec::with_capacity(events.len());
    for event in events {
        if let Some(version) = event.fact.goes_back_to() {
            kept.truncate(kept.partition_point(|earlier| earlier.version <= version));
        }
        kept.push(event);
    }
    kept
}

/// How long a log went on, in ms: from its first event to its last, without the time that lay between
/// the cut of a fork and its begin.
pub fn lasted_ms(events: &[Event]) -> u64 {
    // Where the clock was set back, the time between two events is not known.
    let passed = events
        .windows(2)
        .filter(|pair| !matches!(pair[1].fact, Fact::WorkflowForked(_)))
        .map(|pair| pair[1].clock().saturating_sub(pair[0].clock()).max(0))
        .fold(0, i64::saturating_add);
    u64::try_from(passed).unwrap_or(0) / 1_000
}
