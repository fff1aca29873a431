//! Logs that went back: a workflow that was reopened at an earlier version goes on from the state that
//! was there. What lies between stands in the log, and was paid for; the state does not know it.

use crate::event::Event;

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
