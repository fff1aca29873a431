//! Logs that went back: a workflow that was reopened at an earlier version goes on from the state that
//! was there. What lies between stands in the log, and was paid for; the state does not know it.

use crate::event::{Event, Fact};
use crate::{Micros, Version};

/// The reopenings of a log that went back, in their order: which events the state at a version has taken. A
/// later one may go back to what an earlier one left behind, which then counts again.
#[derive(Clone, Debug, Default)]
pub struct Backs(Vec<(Version, Version)>);

impl Backs {
    /// Reads the next event; what was read before is known.
    pub fn read(&mut self, event: &Event) {
        let is_new = self.0.last().is_none_or(|(at, _)| *at < event.version);
        if let Some(version) = event.fact.goes_back_to().filter(|_| is_new) {
            self.0.push((event.version, version.min(event.version.saturating_sub(1))));
        }
    }

    /// Whether there is one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the state at a version has taken an event.
    pub fn has_taken(&self, mut state: Version, event: Version) -> bool {
        loop {
            let before = self.0.partition_point(|(at, _)| *at <= state);
            match before.checked_sub(1).map(|last| self.0[last]) {
                Some((at, back_to)) if event < at => state = back_to,
                Some(_) | None => return event <= state,
            }
        }
    }

    /// The versions to which those behind a version go back.
    pub(super) fn behind(&self, version: Version) -> impl Iterator<Item = Version> {
        let begin = self.0.partition_point(|(at, _)| *at <= version);
        self.0[begin..].iter().map(|(_, back_to)| *back_to)
    }
}

/// The events that the state behind them has taken: without those that a later reopening left behind.
pub fn effective(events: &[Event]) -> Vec<&Event> {
    let mut backs = Backs::default();
    events.iter().for_each(|event| backs.read(event));
    let last = events.last().map_or(0, |event| event.version);
    events.iter().filter(|event| backs.has_taken(last, event.version)).collect()
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

#[cfg(test)]
mod tests {
    use super::Backs;

    #[test]
    fn a_reopening_may_go_back_to_what_another_left_behind() {
        let backs = Backs(vec![(50, 12), (93, 16), (120, 60)]);
        let taken = |state| (1..=125).filter(|event| backs.has_taken(state, *event)).collect::<Vec<_>>();
        assert_eq!(taken(49), (1..=49).collect::<Vec<_>>());
        assert_eq!(taken(92), (1..=12).chain(50..=92).collect::<Vec<_>>());
        assert_eq!(taken(95), (1..=16).chain(93..=95).collect::<Vec<_>>());
        assert_eq!(taken(125), (1..=12).chain(50..=60).chain(120..=125).collect::<Vec<_>>());
    }
}
