//! Lists that grow from ask to ask: the messages of a conversation. An event that asks with a list that
//! begins like one before holds the number of that ask and what is new; so a conversation of 200 turns
//! stores each message, and each reference to it, once.
//!
//! Invariant: only events are short. A state has its lists whole, and whoever reads events from
//! version 1 makes them whole with [`Lists::complete`].

use serde::{Deserialize, Serialize};

use crate::Version;
use crate::event::{Event, Fact, StepAsked};
use crate::value::{Part, Request, Slot};

/// Lists shorter than this are written whole, and not kept.
const KEPT_MIN_ITEMS: usize = 8;

/// Lists that are kept: conversations side by side.
const KEPT_MAX: usize = 4;

/// A list that was asked with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Asked {
    version: Version,
    part: String,
    items: Vec<Slot>,
}

/// The lists that were asked with lately, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lists(Vec<Asked>);

impl Lists {
    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes note of what an ask brings. One that goes on from another takes its place.
    pub(crate) fn note(&mut self, version: Version, request: &Request) {
        for (name, part) in &request.parts {
            let Part::Many(items) = part else { continue };
            if items.len() < KEPT_MIN_ITEMS {
                continue;
            }
            self.0.retain(|kept| {
                kept.part != *name || common(&kept.items, items) < kept.items.len().min(KEPT_MIN_ITEMS)
            });
            if self.0.len() >= KEPT_MAX {
                self.0.remove(0);
            }
            self.0.push(Asked { version, part: name.clone(), items: items.clone() });
        }
    }

    /// A request as an event holds it: each list without what a kept one begins with.
    pub(crate) fn shortened(&self, request: &Request) -> Request {
        let short = |name: &String, part: &Part| {
            let Part::Many(items) = part else { return part.clone() };
            let alike = self.0.iter().filter(|kept| kept.part == *name);
            let best = alike.map(|kept| (common(&kept.items, items), kept)).max_by_key(|(first, _)| *first);
            match best {
                Some((first, kept)) if first >= KEPT_MIN_ITEMS => {
                    Part::Grown { before: kept.version, first: first as u64, more: items[first..].to_vec() }
                }
                _ => part.clone(),
            }
        };
        Request {
            parts: request.parts.iter().map(|(name, part)| (name.clone(), short(name, part))).collect(),
        }
    }

    /// Whether all that the lists of a request go on from is kept.
    ///
    /// # Errors
    /// What is not there, in words.
    pub(crate) fn has(&self, request: &Request) -> Result<(), String> {
        for (name, part) in &request.parts {
            if let Part::Grown { before, first, .. } = part {
                self.begin(name, *before, *first).ok_or_else(|| {
                    format!("`{name}` goes on from {first} items of version {before}, which are not there")
                })?;
            }
        }
        Ok(())
    }

    fn begin(&self, name: &str, before: Version, first: u64) -> Option<&[Slot]> {
        let kept = self.0.iter().find(|kept| kept.version == before && kept.part == name)?;
        kept.items.get(..usize::try_from(first).ok()?)
    }

    /// A request with its lists whole; what goes on from a list that is not kept stays as it is.
    pub(crate) fn whole(&self, request: &Request) -> Request {
        let whole = |name: &String, part: &Part| match part {
            Part::Grown { before, first, more } => match self.begin(name, *before, *first) {
                Some(begin) => Part::Many(begin.iter().chain(more).cloned().collect()),
                None => part.clone(),
            },
            Part::One(_) | Part::Many(_) => part.clone(),
        };
        Request {
            parts: request.parts.iter().map(|(name, part)| (name.clone(), whole(name, part))).collect(),
        }
    }

    /// Makes the lists of an event whole. Events are shown from version 1 on, in order; what goes on from
    /// one that was not shown stays as it is.
    pub fn complete(&mut self, event: &mut Event) {
        let Fact::StepAsked(asked) = &mut event.fact else { return };
        if asked.request.parts.values().any(|part| matches!(part, Part::Grown { .. })) {
            asked.request = self.whole(&asked.request);
        }
        self.note(event.version, &asked.request);
    }
}

/// How many items two lists begin with in common.
fn common(a: &[Slot], b: &[Slot]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl StepAsked {
    /// The ask as an event holds it.
    pub(crate) fn shortened(&self, lists: &Lists) -> StepAsked {
        StepAsked { request: lists.shortened(&self.request), ..self.clone() }
    }
}
