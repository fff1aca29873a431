//! What became of one signal: told by the events behind it alone, and by nothing that a state holds, which
//! forgets what was taken.
//!
//! Where a workflow goes back, its state is the earlier one, and beside it the signals that nothing had taken.
//! One that came after that version and was taken is in neither: it is lost, though it stands in the log.

use crate::Version;
use crate::event::{Event, Fact};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It is kept for whatever may listen.
    Kept,
    /// It was taken, or refused.
    Heard,
    /// It was taken, and what took it was gone back over.
    Lost,
}

/// What became of a signal.
#[derive(Clone, Debug)]
pub struct Fate {
    came: Version,
    /// Where it stood from a version on, in order.
    stands: Vec<(Version, Stand)>,
}

impl Fate {
    /// Of the signal that came at this version.
    pub fn of(came: Version) -> Fate {
        Fate { came, stands: vec![(came, Stand::Kept)] }
    }

    /// Reads the next event behind the signal.
    pub fn read(&mut self, event: &Event) {
        let stand = match &event.fact {
            Fact::SignalTaken { signals, .. } if signals.contains(&self.came) => Stand::Heard,
            Fact::SignalRefused { signal, .. } if *signal == self.came => Stand::Heard,
            fact => match (fact.goes_back_to(), self.stand()) {
                // What nothing had taken is not left behind.
                (None, stand) | (Some(_), stand @ Stand::Kept) => stand,
                (Some(earlier), Stand::Heard | Stand::Lost) => self.stand_at(earlier).unwrap_or(Stand::Lost),
            },
        };
        if stand != self.stand() {
            self.stands.push((event.version, stand));
        }
    }

    /// Whether it was taken, and then left behind: nothing will hear it again.
    pub fn is_lost(&self) -> bool {
        self.stand() == Stand::Lost
    }

    fn stand(&self) -> Stand {
        self.stands.last().map_or(Stand::Kept, |(_, stand)| *stand)
    }

    /// Where it stood at a version; `None` before it came.
    fn stand_at(&self, version: Version) -> Option<Stand> {
        self.stands.iter().rev().find(|(from, _)| *from <= version).map(|(_, stand)| *stand)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::EventId;
    use crate::key::Key;

    #[test]
    fn what_becomes_of_a_signal_as_a_table() {
        let taken = |signal| Fact::SignalTaken { key: Key::from("l"), signals: vec![signal] };
        let refused = |signal| Fact::SignalRefused { key: Key::from("l"), signal, reason: String::new() };
        let back = |to| Fact::WorkflowReopened {
            reason: String::new(),
            again: Vec::new(),
            back_to: Some(to),
            changes: None,
        };
        let on = || Fact::WorkflowCancelled { reason: String::new() };
        // It came at version 10.
        for (facts, is_lost) in [
            (vec![], false),
            (vec![taken(10)], false),
            (vec![back(5)], false),
            (vec![taken(9), back(5)], false),
            (vec![taken(10), back(11)], false),
            (vec![taken(10), back(10)], false),
            (vec![taken(10), back(9)], true),
            (vec![refused(10), back(9)], true),
            (vec![back(5), taken(10)], false),
            (vec![back(5), taken(10), back(11)], false),
            (vec![back(5), taken(10), back(5)], true),
            (vec![taken(10), on(), back(9), on(), back(2)], true),
            // Back to where it was still kept, or still heard, though that was left behind since.
            (vec![taken(10), on(), back(9), back(10)], false),
            (vec![taken(10), on(), back(9), back(12)], false),
            (vec![taken(10), on(), back(9), on(), back(13)], true),
        ] {
            let mut fate = Fate::of(10);
            for (at, fact) in facts.iter().enumerate() {
                fate.read(&Event {
                    id: EventId([0; 16]),
                    version: 11 + at as Version,
                    timestamp: 0,
                    clock: None,
                    causation_id: None,
                    correlation_id: None,
                    actor: Arc::from("engine"),
                    fact: fact.clone(),
                });
            }
            assert_eq!(fate.is_lost(), is_lost, "{facts:?}");
        }
    }
}
