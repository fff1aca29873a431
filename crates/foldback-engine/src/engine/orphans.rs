//! Orphans: what an attempt left running when its engine died.
//!
//! Invariants: an attempt that is not performed here is judged, and another one is begun in place of
//! one whose end nobody knows, only once its kind has looked for what is left of it and ended that.
//! What cannot be ended holds its workflow up. Nothing here knows what a process is: a kind that
//! leaves nothing behind is not asked to look.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldback_core::{Key, Owed, Stimulus, step};

use super::{Engine, ReplyTo};
use crate::command::Refusal;
use crate::kind::Remains;
use crate::machine::Look;

/// The looks of one engine, by workflow, step and attempt.
#[derive(Default)]
pub(super) struct Looks(HashMap<Arc<str>, BTreeMap<(Key, u32), State>>);

enum State {
    /// It is being looked for; then each of these goes on.
    UnderWay(Vec<Then>),
    /// It was looked for. What still runs stays here, and holds its workflow up.
    Done(Remains),
}

/// What goes on once it has been looked for.
enum Then {
    /// What a state owes.
    Owed(Owed),
    /// A person's answer that the step did not happen.
    Didnt { actor: Arc<str>, from: ReplyTo },
}

impl Looks {
    /// Forgets what was found in a workflow: who takes it up again looks again.
    pub(super) fn forget(&mut self, id: &Arc<str>) {
        if let Some(of_it) = self.0.get_mut(id) {
            of_it.retain(|_, state| matches!(state, State::UnderWay(_)));
            if of_it.is_empty() {
                self.0.remove(id);
            }
        }
    }

    /// Whether something of a workflow is being looked for.
    pub(super) fn are_under_way(&self, id: &Arc<str>) -> bool {
        self.of(id).any(|(_, state)| matches!(state, State::UnderWay(_)))
    }

    /// The steps of a workflow that an earlier attempt holds up, each with the words for it.
    pub(super) fn held_up(&self, id: &Arc<str>) -> Vec<(Key, String)> {
        let held = self.of(id).filter_map(|((key, attempt), state)| match state {
            State::Done(Remains::Running { found }) => {
                Some((key.clone(), format!("attempt {attempt} of `{key}` {found}")))
            }
            State::Done(Remains::Nothing { .. } | Remains::Ended { .. }) | State::UnderWay(_) => None,
        });
        held.collect()
    }

    fn of(&self, id: &Arc<str>) -> impl Iterator<Item = (&(Key, u32), &State)> {
        self.0.get(id).into_iter().flatten()
    }
}

impl Engine {
    /// The stimulus as it may be said: at once, or once what is left of the attempt before was looked
    /// for. `None` while that is under way, and where it cannot be ended.
    pub(super) fn once_looked(&mut self, id: &Arc<str>, stimulus: Stimulus) -> Option<Stimulus> {
        let (key, attempt) = match &stimulus {
            Stimulus::Lost { key, attempt, .. } => (key.clone(), *attempt),
            Stimulus::Begin { key } => (key.clone(), self.in_doubt(id, key)?),
            _ => return Some(stimulus),
        };
        if attempt == 0 {
            return Some(stimulus);
        }
        let owed = match &stimulus {
            Stimulus::Lost { .. } => Owed::Attempt(key.clone(), attempt),
            _ => match self.live.get(id).and_then(|live| live.state.waits_until(&key)) {
                Some((due, _)) => Owed::Retry(key.clone(), due),
                None => Owed::Start(key.clone()),
            },
        };
        let remains = self.remains(id, &key, attempt, || Then::Owed(owed))?;
        match (stimulus, remains) {
            (_, Remains::Running { .. }) => None,
            (Stimulus::Lost { key, attempt, .. }, Remains::Nothing { found } | Remains::Ended { found }) => {
                let found = Some(found).filter(|found| !found.is_empty());
                Some(Stimulus::Lost { key, attempt, found })
            }
            (stimulus, Remains::Nothing { .. } | Remains::Ended { .. }) => Some(stimulus),
        }
    }

    /// The attempt of a step that is to begin another one though nobody saw the end of this; 0 where
    /// there is none. `None` where there is no such step any more.
    fn in_doubt(&self, id: &Arc<str>, key: &Key) -> Option<u32> {
        let step = self.live.get(id)?.state.step(key)?;
        Some(if step.unknowns > 0 { step.attempts } else { 0 })
    }

    /// Says whether a person's answer that a step did not happen may be taken now. `None`: it is looked
    /// for what is left of its attempt, and then the answer is heard again.
    pub(super) fn may_not_have_happened(
        &mut self,
        id: &Arc<str>,
        key: &Key,
        (actor, from): (&str, &ReplyTo),
    ) -> Option<Result<(), Refusal>> {
        let attempt = self.live.get(id).and_then(|live| live.state.step(key)).map(|step| step.attempts);
        let attempt = attempt.unwrap_or_default();
        let again = || Then::Didnt { actor: Arc::from(actor), from: from.clone() };
        Some(match self.remains(id, key, attempt, again)? {
            Remains::Nothing { .. } => Ok(()),
            Remains::Ended { found } => Err(Refusal::new(
                format!("attempt {attempt} of `{key}` was still under way: {found}"),
                "look once more whether it happened, then answer again",
            )),
            Remains::Running { found } => Err(Refusal::new(
                format!("attempt {attempt} of `{key}` {found}"),
                "end it, look whether it happened, then answer again",
            )),
        })
    }

    /// What is left of an attempt that another engine began. `None` while it is being looked for; then
    /// `then` goes on.
    fn remains(
        &mut self,
        id: &Arc<str>,
        key: &Key,
        attempt: u32,
        then: impl FnOnce() -> Then,
    ) -> Option<Remains> {
        let nothing = || Remains::Nothing { found: String::new() };
        let Some(step) = self.live.get(id).and_then(|live| live.state.step(key)) else {
            return Some(nothing());
        };
        let kind = self.around.kinds.get(&step.kind);
        match self.looks.0.entry(id.clone()).or_default().entry((key.clone(), attempt)) {
            Entry::Occupied(mut known) => match known.get_mut() {
                State::UnderWay(waiting) => {
                    waiting.push(then());
                    None
                }
                State::Done(remains @ Remains::Running { .. }) => Some(remains.clone()),
                State::Done(remains) => {
                    let remains = remains.clone();
                    known.remove();
                    Some(remains)
                }
            },
            Entry::Vacant(place) => {
                let attempt_id = step::attempt_id(self.around.store.identity(), id, key, attempt);
                let Some(looking) = kind.and_then(|kind| kind.end_orphans(&attempt_id)) else {
                    return Some(nothing());
                };
                place.insert(State::UnderWay(vec![then()]));
                let look = Look { workflow_id: id.clone(), key: key.clone(), attempt, looking };
                self.around.machine.look(look, self.to_self.clone());
                None
            }
        }
    }

    /// Goes on with what waited for a look. All of it hears of this one finding: who said that a step did not
    /// happen said so before what was left of it was ended, however many they were.
    pub(super) fn looked(&mut self, id: &Arc<str>, key: &Key, attempt: u32, remains: Remains) {
        let place = (key.clone(), attempt);
        let of_it = self.looks.0.entry(id.clone()).or_default();
        let Some(State::UnderWay(waiting)) = of_it.remove(&place) else { return };
        let mut is_taken_later = matches!(remains, Remains::Running { .. });
        for then in waiting {
            self.found(id, &place, &remains);
            match then {
                Then::Owed(owed) => {
                    is_taken_later = true;
                    self.pending.push_back((id.clone(), owed));
                }
                Then::Didnt { actor, from } => {
                    let outcome = self.resolve(id, key.clone(), None, &actor, &from);
                    self.answered(id, outcome, from);
                }
            }
        }
        match is_taken_later {
            true => self.found(id, &place, &remains),
            // Who answers after this looks anew.
            false => drop(self.looks.0.get_mut(id).and_then(|of_it| of_it.remove(&place))),
        }
        if !self.live.contains_key(id) {
            self.looks.forget(id);
        }
        self.rest_if_done(id);
    }

    /// Keeps what was found of an attempt for whoever asks next.
    fn found(&mut self, id: &Arc<str>, place: &(Key, u32), remains: &Remains) {
        let of_it = self.looks.0.entry(id.clone()).or_default();
        of_it.insert(place.clone(), State::Done(remains.clone()));
    }
}
