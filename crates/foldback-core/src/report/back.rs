//! Logs that went back: a workflow that was reopened at an earlier version goes on from the state that
//! was there. What lies between stands in the log, and was paid for; the state does not know it.

use crate::Micros;
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
    let mut lasting = Lasting::default();
    events.iter().for_each(|event| lasting.read(event));
    lasting.ms()
}

/// How long a log goes on, told while it is read event by event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lasting {
    /// The time of the first event, once there is one.
    pub first: Option<Micros>,
    last: Micros,
    passed: Micros,
}

impl Lasting {
    /// Reads the next event.
    pub fn read(&mut self, event: &Event) {
        let clock = event.clock();
        if self.first.is_some() && !matches!(event.fact, Fact::WorkflowForked(_)) {
            // Where the clock was set back, the time between two events is not known.
            self.passed = self.passed.saturating_add(clock.saturating_sub(self.last).max(0));
        }
        self.first.get_or_insert(event.timestamp);
        self.last = clock;
    }

    /// How long, in ms.
    pub fn ms(&self) -> u64 {
        u64::try_from(self.passed).unwrap_or(0) / 1_000
    }
}
