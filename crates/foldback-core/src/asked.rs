//! Requests and their hashes, and steps that a folded log holds open.
//!
//! The hash of a request stands beside it in the log, and a log may come from a file that somebody edited.
//! So whoever performs, audits, verifies or imports computes the hash again ([`Requests`]), and what a log
//! owes is performed only once its program has asked for the same ([`unasked`]). What a program asks for
//! while it is under way needs no such look.
//!
//! Nothing here reads a log. The fold neither computes nor compares a hash: a log that was written stays
//! readable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::decide::advance;
use crate::event::{Event, EventId, Fact, StepAsked, TaskKind, Undo};
use crate::hash::Hash;
use crate::key::Key;
use crate::lists::Shown;
use crate::program::{Divergence, Program, request_hash};
use crate::state::{EntryBody, Step, WorkflowState};
use crate::value::{Part, Request, Slot};
use crate::{Stimulus, Timing, limits};

/// How a request compares with the hash beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashed {
    /// It is the request that was hashed.
    Same,
    /// It is another request.
    Other,
    /// A part of it is not at hand: it was erased.
    NotAtHand,
    /// It is longer than [`limits::REQUEST_MAX_BYTES`].
    TooLong,
}

/// Compares a request, its lists whole and its values at hand, with a hash.
pub fn hashed(kind: &str, request: &Request, secrets: &BTreeMap<String, String>, hash: &Hash) -> Hashed {
    let is_at_hand = |slot: &Slot| slot.value().is_some();
    let is_short = request.parts.values().any(|part| matches!(part, Part::Grown { .. }));
    if is_short || !request.slots().all(is_at_hand) {
        return Hashed::NotAtHand;
    }
    let json = request.to_json();
    let is_it = |asked: &Value| request_hash(kind, asked, secrets) == *hash;
    // A request that is no object is the one part `value`.
    let bare = json.as_object().filter(|parts| parts.len() == 1).and_then(|parts| parts.get("value"));
    match is_it(&json) || bare.is_some_and(is_it) {
        true => Hashed::Same,
        false => Hashed::Other,
    }
}

/// The requests of a log, compared with their hashes. Give it each event in order, from version 1.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    shown: Shown,
}

impl Requests {
    /// Compares the request of an event; `None` where it asks for nothing. `bring` brings a value that is
    /// not at hand, and leaves one that was erased as it is.
    pub fn see<E>(
        &mut self,
        event: &Event,
        bring: &mut dyn FnMut(&mut Slot) -> Result<(), E>,
    ) -> Result<Option<Hashed>, E> {
        let Fact::StepAsked(_) = &event.fact else { return Ok(None) };
        let mut event = event.clone();
        self.shown.complete(&mut event);
        let Fact::StepAsked(asked) = &mut event.fact else { return Ok(None) };
        // A few references may ask for any number of bytes.
        let bytes = |slot: &Slot| match slot {
            Slot::Inline(_) => limits::INLINE_MAX_BYTES as u64,
            Slot::Stored(stored) => stored.bytes,
        };
        if asked.request.slots().map(bytes).fold(0, u64::saturating_add) > limits::REQUEST_MAX_BYTES {
            return Ok(Some(Hashed::TooLong));
        }
        for slot in asked.request.slots_mut() {
            bring(slot)?;
        }
        Ok(Some(hashed(&asked.kind, &asked.request, &asked.secrets, &asked.request_hash)))
    }
}

/// Those of `found`, the steps that were found open in a log, which may begin and are not what `program` asks
/// for when it is asked once more: each with what the log says and what the program says. The state's values
/// are at hand.
///
/// The program is asked from the state as it is, but for these steps. Where another branch has changed
/// `$context` since, or has failed, it may now ask for another request, or for none: whoever has the log asks
/// again from the state before the step was asked for, with [`asks_for`].
pub fn unasked(state: &WorkflowState, found: &BTreeSet<Key>, program: &dyn Program) -> Vec<Divergence> {
    let open: Vec<(&Key, &Step)> = to_begin(state).filter(|(key, _)| found.contains(*key)).collect();
    if open.is_empty() {
        return Vec::new();
    }
    let mut before = state.clone();
    open.iter().for_each(|(key, _)| before.meet_again(key));
    let asks = asks(before, program);
    open.into_iter().filter_map(|(key, step)| parting(key, step, asks.get(key), false)).collect()
}

/// Whether a program that is started from this state asks for a step as another state holds it. A program that
/// was put in the place of the one that asked (`is_another`) may say otherwise what becomes of it in doubt, and
/// how it is taken back: what was recorded holds.
pub fn asks_for(
    before: WorkflowState,
    program: &dyn Program,
    key: &Key,
    step: &Step,
    is_another: bool,
) -> bool {
    let asks = asks(before, program);
    let asked = asks.get(key);
    parting(key, step, asked, is_another).is_none()
}

/// Steps that may be sent, again or for the first time.
fn to_begin(state: &WorkflowState) -> impl Iterator<Item = (&Key, &Step)> {
    let open = state.open.iter().filter_map(|key| Some((key, state.step(key)?)));
    open.filter(|(key, step)| state.may_move(key) && !step.is_given_up)
}

/// Where the request of a step is not the one whose hash stands beside it.
fn not_hashed(key: &Key, step: &Step) -> Option<Divergence> {
    let (recorded, asked) = match hashed(&step.kind, &step.request, &step.secrets, &step.request_hash) {
        Hashed::Same => return None,
        Hashed::Other => {
            let recorded = format!("a request of `{key}` with the hash {}", step.request_hash);
            (recorded, "another request stands beside that hash")
        }
        Hashed::NotAtHand | Hashed::TooLong => (format!("a request of `{key}`"), "not checkable: erased"),
    };
    Some(Divergence { key: key.clone(), recorded, asked: asked.to_owned() })
}

/// Where a step that the log holds open and what its program asks for are not the same.
fn parting(key: &Key, step: &Step, asked: Option<&StepAsked>, is_another: bool) -> Option<Divergence> {
    if let Some(parting) = not_hashed(key, step) {
        return Some(parting);
    }
    let kind = &step.kind;
    let parted = |recorded: String, asked: String| Some(Divergence { key: key.clone(), recorded, asked });
    let recorded = format!("`{kind}` step `{key}` with the request {}", step.request_hash);
    match asked {
        None => parted(recorded, "the program does not ask for it".into()),
        Some(asked) if asked.request_hash != step.request_hash => {
            parted(recorded, format!("the program asks for the request {}", asked.request_hash))
        }
        Some(asked) if (&asked.kind, asked.effect) != (kind, step.effect) => {
            parted(recorded, format!("the program asks for a `{}` step with another effect", asked.kind))
        }
        Some(asked) if !is_another && step.recovery != asked.recovery => parted(
            format!("`{kind}` step `{key}` with the recovery {:?}", step.recovery),
            format!("the program asks for the recovery {:?}", asked.recovery),
        ),
        Some(asked) if !is_another && !is_same_undo(step.undo.as_deref(), asked.undo.as_deref()) => parted(
            format!("`{kind}` step `{key}` with an undo"),
            "the program takes it back in another way".to_owned(),
        ),
        Some(_) => None,
    }
}

/// Whether two steps are taken back in the same way: by the same handler, which is given the same where both
/// values are at hand.
pub(crate) fn is_same_undo(one: Option<&Undo>, other: Option<&Undo>) -> bool {
    match (one, other) {
        (Some(Undo::By { handler, given }), Some(Undo::By { handler: by, given: also })) => {
            let values = given.value().zip(also.value());
            handler == by && values.is_none_or(|(given, also)| given == also)
        }
        (one, other) => one == other,
    }
}

/// The steps that a program asks for from a state on, until it waits.
fn asks(mut state: WorkflowState, program: &dyn Program) -> BTreeMap<Key, StepAsked> {
    // A pause, and what is used up, keep nothing from being asked for.
    state.pause = None;
    state.budgets.clear();
    state.turn_events = 0;
    let mut run = program.start(&state);
    let timing = Timing { now: state.now, actor: Arc::from("engine"), room: 0 };
    let mut asked = BTreeMap::new();
    loop {
        let batch = advance(&mut state, &mut *run, Stimulus::Continue, &timing, &mut || EventId([0; 16]))
            .unwrap_or_default();
        for event in batch.events {
            if let Fact::StepAsked(ask) = event.fact {
                asked.entry(ask.key.clone()).or_insert(*ask);
            }
        }
        if !batch.is_cut {
            return asked;
        }
    }
}

impl WorkflowState {
    /// Makes this the state before a step was asked for, as far as this step goes.
    fn meet_again(&mut self, key: &Key) {
        let (_, visit) = key.unmarked().visited();
        match self.entries.get_mut(key) {
            // Its input was recorded before, or the visit before it is known no more: the place has begun.
            Some(entry) if entry.input.is_some() || visit > 1 => {
                entry.body = EntryBody::begun(TaskKind::Shape);
                self.open.remove(key);
            }
            Some(_) | None => self.forget(key),
        }
    }
}
