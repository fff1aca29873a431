//! Signals: what people and other workflows say to this one, and what listens for it.
//!
//! A signal that comes early is kept until something listens; each is taken once, and those of a name in
//! the order in which they came. What a listener does not accept is refused by a fact that says why, and
//! the wait goes on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Version;
use crate::event::Fact;
use crate::key::Key;
use crate::state::{Entry, EntryBody, WorkflowState};
use crate::value::Slot;

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
}

impl WorkflowState {
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
