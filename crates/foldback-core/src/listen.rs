//! Signals: what people and other workflows say to this one, and what listens for it.
//!
//! A signal that comes early is kept until something listens; each is taken once, and those of a name in
//! the order in which they came. What a listener does not accept is refused by a fact that says why, and
//! the wait goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decide::{Stimulus, after, turn_of};
use crate::event::Fact;
use crate::key::Key;
use crate::program::{Ask, Run, Turn};
use crate::state::{Entry, EntryBody, WorkflowState};
use crate::step::Failure;
use crate::value::Slot;
use crate::{Micros, Version, limits};

mod fate;

pub use fate::Fate;

/// A signal that nothing has taken yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its name: the type of the event.
    pub name: Arc<str>,
    /// Its data.
    pub data: Slot,
    /// The workflow whose event it is, where a person did not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Arc<str>>,
    /// The failure that it reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl Signal {
    /// Its slots, to be filled.
    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        std::iter::once(&mut self.data).chain(self.error.iter_mut().flat_map(Failure::slots_mut))
    }

    fn is_at_hand(&self) -> bool {
        let mut slots = std::iter::once(&self.data).chain(self.error.iter().flat_map(Failure::slots));
        slots.all(|slot| slot.value().is_some())
    }
}

impl EntryBody {
    /// The failure that came as the answer to a wait for signals, where one did.
    pub fn failed_answer(&self) -> Option<&Failure> {
        match self {
            EntryBody::Listening { heard: Some(heard), .. } => {
                heard.iter().find_map(|signal| signal.error.as_ref())
            }
            EntryBody::Listening { .. }
            | EntryBody::Step(_)
            | EntryBody::Timer { .. }
            | EntryBody::Started { .. }
            | EntryBody::Decided { .. }
            | EntryBody::Finished { .. } => None,
        }
    }
}

/// What use a workflow has for an event of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heed {
    /// None: nothing that listens means it.
    None,
    /// It would be taken now, or refused with a reason.
    Now,
    /// It is one of several that are waited for, and is kept until the others have come.
    Later,
}

/// What use a workflow has for a signal, were it said now. The state is left as it is.
pub fn heed(state: &WorkflowState, run: &mut dyn Run, signal: Stimulus, now: Micros) -> Heed {
    let after = after(state, signal, now);
    let came = after.version;
    let mut turns = vec![turn_of(&after, &mut |state| run.turn(state))];
    // What takes something back, or looks for an outcome, may listen too.
    let undos: Vec<_> = after.undos_under_way().cloned().collect();
    turns.extend(undos.iter().map(|undo| turn_of(&after, &mut |state| run.undo(state, undo))));
    let looked_for = after.reconciling.iter();
    turns.extend(looked_for.map(|key| turn_of(&after, &mut |state| run.reconcile(state, key))));
    let asks = turns.iter().flat_map(|turn| match turn {
        Turn::Asks(asks) => asks.as_slice(),
        Turn::Waits | Turn::Ends(_) | Turn::Diverged(_) => &[],
    });
    let mut asks = asks.filter(|ask| match ask {
        Ask::Take { signals, .. } => signals.contains(&came),
        Ask::Refuse { signal, .. } => *signal == came,
        _ => false,
    });
    match asks.next() {
        Some(_) => Heed::Now,
        None if run.keeps(&after, came) => Heed::Later,
        None => Heed::None,
    }
}

impl WorkflowState {
    /// The names of what it listens for, in order; none once it has ended.
    pub fn listens_for(&self) -> Vec<Arc<str>> {
        if self.end.is_some() {
            return Vec::new();
        }
        let names: BTreeSet<&Arc<str>> = self.listeners().flat_map(|(_, names, _)| names).collect();
        names.into_iter().cloned().collect()
    }

    /// Calls `visit` with the slots of kept signals of the names that it listens for.
    pub fn visit_awaited_signals(&mut self, visit: &mut dyn FnMut(&mut Slot)) {
        if self.signals.is_empty() {
            return;
        }
        let names = self.listens_for();
        let awaited = self.signals.values_mut().filter(|signal| names.contains(&signal.name));
        awaited.flat_map(Signal::slots_mut).for_each(visit);
    }

    /// Whether a kept signal of a name that it listens for is not at hand: its data has to be brought before
    /// the program can take it.
    pub fn lacks_signals(&self) -> bool {
        if self.signals.values().all(Signal::is_at_hand) {
            return false;
        }
        let names = self.listens_for();
        self.signals.values().any(|signal| !signal.is_at_hand() && names.contains(&signal.name))
    }

    /// Whether a further signal with so many bytes of data can be kept.
    pub fn may_keep(&self, bytes: u64) -> bool {
        let kept: u64 = self.signals.values().map(|signal| signal.data.bytes()).sum();
        self.signals.len() < limits::SIGNALS_KEPT_MAX
            && kept.saturating_add(bytes) <= limits::SIGNALS_KEPT_MAX_BYTES
    }

    /// What listens: the key, the names of the signals that it waits for, and what more is known of it.
    pub fn listeners(&self) -> impl Iterator<Item = (&Key, &[Arc<str>], &Slot)> {
        self.open.iter().filter_map(|key| match self.entries.get(key).map(|entry| &entry.body) {
            Some(EntryBody::Listening { names, wants, heard: None }) => Some((key, names.as_slice(), wants)),
            _ => None,
        })
    }

    /// Whether a fact of this kind may follow.
    pub(crate) fn admits_signal(&self, fact: &Fact) -> Result<(), String> {
        let is_listening = |key: &Key| match self.entries.get(key) {
            Some(Entry { body: EntryBody::Listening { heard: None, .. }, .. }) => Ok(()),
            _ => Err(format!("`{key}` does not listen")),
        };
        let is_there = |version: &Version| match self.signals.contains_key(version) {
            true => Ok(()),
            false => Err(format!("no signal of version {version} is waiting")),
        };
        match fact {
            Fact::SignalReceived(signal) if signal.name.is_empty() => Err("a signal has a name".into()),
            Fact::SignalReceived(_) => Ok(()),
            Fact::SignalTaken { key, signals, .. } => {
                is_listening(key)?;
                signals.iter().try_for_each(is_there)
            }
            Fact::SignalRefused { key, signal, .. } => {
                is_listening(key)?;
                is_there(signal)
            }
            _ => Err("this is no signal".into()),
        }
    }
}
