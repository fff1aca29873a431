//! Lists that grow from ask to ask: the messages of a conversation. An event that asks with a list that
//! begins like one before holds the number of that ask and what is new; so a conversation of 200 turns
//! stores each message, and each reference to it, once.
//!
//! Invariant: only events are short. A state has its lists whole, and whoever reads events from
//! version 1 makes them whole with [`Shown::complete`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Fact, StepAsked};
use crate::value::{Part, Request, Slot};
use crate::{Version, limits};

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
                Some((first, kept))
                    if first >= KEPT_MIN_ITEMS && items.len() <= limits::GROWN_LIST_MAX_ITEMS =>
                {
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
            if let Part::Grown { before, first, more } = part {
                let most = limits::GROWN_LIST_MAX_ITEMS;
                if first.saturating_add(more.len() as u64) > most as u64 {
                    return Err(format!("`{name}` goes on from another list and has more than {most} items"));
                }
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
}

/// Lists for a reader of events: every one that was shown, so that a log that goes back is read right.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    parts: BTreeMap<(Version, String), Part>,
}

impl Shown {
    /// For who begins to read behind a version: the lists that the state has there.
    pub fn from(lists: &Lists) -> Shown {
        let kept =
            lists.0.iter().map(|kept| ((kept.version, kept.part.clone()), Part::Many(kept.items.clone())));
        Shown { parts: kept.collect() }
    }

    /// Makes the lists of an event whole. Events are shown in order; what goes on from a list that was
    /// not shown stays as it is.
    pub fn complete(&mut self, event: &mut Event) {
        let Fact::StepAsked(asked) = &mut event.fact else { return };
        for (name, part) in &mut asked.request.parts {
            let is_kept = match part {
                Part::One(_) => false,
                Part::Many(items) => items.len() >= KEPT_MIN_ITEMS,
                Part::Grown { .. } => true,
            };
            if !is_kept {
                continue;
            }
            self.parts.insert((event.version, name.clone()), part.clone());
            if let Some(items) = self.whole(event.version, name) {
                *part = Part::Many(items);
            }
        }
    }

    /// A list, followed back to where it began.
    fn whole(&self, version: Version, name: &str) -> Option<Vec<Slot>> {
        let mut behind: Vec<&[Slot]> = Vec::new();
        let (mut at, mut most) = (version, usize::MAX);
        loop {
            match self.parts.get(&(at, name.to_owned()))? {
                Part::One(_) => return None,
                Part::Many(items) => {
                    behind.push(items.get(..most.min(items.len()))?);
                    break;
                }
                Part::Grown { before, first, more } => {
                    let first = usize::try_from(*first).ok()?;
                    // Of what is behind the begin, as much as is wanted.
                    behind.push(&more[..most.saturating_sub(first).min(more.len())]);
                    // A list goes on from an earlier one, or a forged log would never end.
                    if *before >= at {
                        return None;
                    }
                    (at, most) = (*before, most.min(first));
                }
            }
        }
        Some(behind.into_iter().rev().flatten().cloned().collect())
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
