//! Attempts: started when the log allows it, begun again when they are due, landed once. And rest:
//! when nothing moves a workflow but a person.

use std::collections::hash_map::Entry::Vacant;
use std::sync::Arc;

use foldback_core::step::error_type;
use foldback_core::{
    Effect, EntryBody, Failure, Key, Micros, Outcome, Owed, Recovery, Status, StepStatus, Stimulus,
    WorkflowState, limits, step,
};
use tokio::sync::oneshot;

use super::alarms::Wait;
use super::{Engine, Flight, ROUND};
use crate::asked;
use crate::kind::Call;
use crate::live::Dispatch;
use crate::load::LoadError;
use crate::machine::{Attempt, Clocks};
use crate::session::Rest;

impl Engine {
    pub(super) fn dispatch(&mut self, id: &Arc<str>, Dispatch { key, attempt }: Dispatch) {
        let Some(live) = self.live.get(id) else {
            return;
        };
        let Some(step) = live.state.step(&key) else {
            return;
        };
        if step.status != StepStatus::Running || step.attempts != attempt {
            return;
        }
        if step.is_given_up {
            // Given up between its start and the word that the start is on disk: this one was not sent.
            // What a process sent that died before may have happened all the same.
            let title = "It was given up before it was sent";
            let outcome = match step.interruptions > 0 || step.unknowns > 0 {
                true => {
                    Outcome::Unknown { reason: format!("{title} again; what was sent before is unknown") }
                }
                false => {
                    let error = Failure::new(error_type::RUNTIME, 409, title, "nothing happened");
                    Outcome::Failed { error, retry_after_ms: None, usage: None }
                }
            };
            self.say(id, Stimulus::Report { key, attempt, outcome, latency_ms: 0 }, "engine");
            return;
        }
        let is_write = step.effect == Effect::Write;
        if is_write && let Err(gone) = self.around.store.still_there() {
            self.failure = Some(gone);
            return;
        }
        let Vacant(place) = self.in_flight.entry((id.clone(), key.clone(), attempt)) else {
            return;
        };
        let (stop, stopped) = oneshot::channel();
        let kind = self.around.kinds.get(&step.kind);
        let files = kind.as_ref().map_or(0, |kind| kind.files());
        self.flights += 1;
        self.files += files;
        let flight = self.flights;
        place.insert(Flight { number: flight, files, stop });
        *self.flying.entry(id.clone()).or_insert(0) += 1;
        let progress = match &self.around.observer {
            // What is to be redacted may come cut in pieces that no rule finds: where there are rules,
            // nothing of it is shown before the whole was redacted.
            Some(observer) if live.redaction.is_empty() => {
                let (observer, id, key) = (observer.clone(), id.clone(), key.clone());
                Arc::new(move |text: &str| observer.progress(&id, &key, text)) as crate::Progress
            }
            Some(_) | None => Arc::new(|_: &str| {}) as crate::Progress,
        };
        let usual_ms = kind.as_ref().map_or(limits::STEP_TIMEOUT_MS, |kind| kind.timeout_ms());
        let call = Call {
            workflow_id: id.clone(),
            attempt,
            attempt_id: step::attempt_id(self.around.store.identity(), id, &key, attempt),
            variant: step.variant,
            request: step.request.to_json(),
            secrets: step.secrets.clone(),
            effect: step.effect,
            idempotency_key: is_write
                .then(|| step::idempotency_key(id, &key, &step.request_hash, step.generation)),
            tokens_left: live.state.tokens_left(&key),
            timeout_ms: step.timeout_ms.unwrap_or(usual_ms.min(limits::STEP_TIMEOUT_MS)),
            rejected: step.rejected.as_ref().map(|slot| {
                ((*slot.get()).clone(), step.error.as_ref().map(Failure::plain).unwrap_or_default())
            }),
            progress,
            key,
        };
        let attempt = Attempt { kind, kind_name: step.kind.clone(), call, stop: stopped, flight };
        self.around.machine.start(attempt, self.to_self.clone());
    }

    /// Tells an attempt that was given up to stop. Its report is still owed: it makes room, and says
    /// nothing. A `write` goes on to its end: whether it happened must be known.
    pub(super) fn stop(&mut self, id: &Arc<str>, Dispatch { key, attempt }: Dispatch) {
        let step = self.live.get(id).and_then(|live| live.state.step(&key));
        if step.is_some_and(|step| !step.status.is_settled()) {
            return;
        }
        if let Some(flight) = self.in_flight.get_mut(&(id.clone(), key, attempt)) {
            // Told once; the place stays taken until the report. One that has ended is told in vain.
            let _ended = std::mem::replace(&mut flight.stop, oneshot::channel().0).send(());
        }
    }

    pub(super) fn landed(&mut self, id: &Arc<str>, key: &Key, attempt: u32) {
        let Some(flight) = self.in_flight.remove(&(id.clone(), key.clone(), attempt)) else { return };
        self.files -= flight.files;
        if let Some(count) = self.flying.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.flying.remove(id);
            }
        }
    }

    /// Lets go of attempts that ran ahead of a commit which was then refused: of a workflow that is
    /// folded anew, the log does not know them. What they answer belongs to a request that was
    /// never asked, and the same key may soon be asked for another.
    pub(super) fn disown(&mut self, id: &Arc<str>, folded: &WorkflowState) {
        if !self.flying.contains_key(id) {
            return;
        }
        let is_known =
            |key: &Key, attempt: u32| folded.step(key).is_some_and(|step| step.attempts >= attempt);
        let unknown: Vec<(Key, u32)> = self
            .in_flight
            .keys()
            .filter(|(of, key, attempt)| of == id && !is_known(key, *attempt))
            .map(|(_, key, attempt)| (key.clone(), *attempt))
            .collect();
        for (key, attempt) in unknown {
            self.landed(id, &key, attempt);
        }
    }

    pub(super) fn fire_due(&mut self) {
        if self.is_winding_down || self.alarms.next().is_none() {
            return;
        }
        let steady = self.clocks().steady;
        while let Some((id, key, due)) = self.alarms.ringing(steady) {
            if !self.live.contains_key(&id) {
                self.wake(&id);
            }
            self.ring(&id, &key, due);
            self.alarms.answered(&id, &key, due);
        }
    }

    /// The moment came at which a wait was due, if it still waits.
    fn ring(&mut self, id: &Arc<str>, key: &Key, due: Micros) {
        let Some(live) = self.live.get(id) else {
            return;
        };
        match live.state.entries.get(key).map(|e| &e.body) {
            Some(EntryBody::Step(step)) if step.status == StepStatus::Backoff && step.due == Some(due) => {
                self.pending.push_back((id.clone(), Owed::Retry(key.clone(), due)));
            }
            Some(EntryBody::Timer { due: set, fired: false, .. })
                if *set == due && live.state.may_move(key) && live.state.pause.is_none() =>
            {
                self.say(id, Stimulus::TimerDue { key: key.clone() }, "engine");
            }
            // Superseded meanwhile.
            _ => {}
        }
    }

    /// When the wait at a key is over, by the steady clock; `None` where nothing waits there.
    pub(super) fn rings_at(
        &self,
        id: &Arc<str>,
        state: &WorkflowState,
        key: &Key,
        clocks: Clocks,
    ) -> Option<Micros> {
        let (due, delay) = state.waits_until(key)?;
        Some(self.alarms.moment(id, key, Wait { due, delay }, clocks))
    }

    /// How many more attempts may start: those in flight and those that wait for their commit
    /// take room.
    pub(super) fn room(&self) -> usize {
        let taken = self.in_flight.len() + self.promised;
        if self.is_winding_down || self.starts_nothing {
            0
        } else {
            limits::IN_FLIGHT_MAX.saturating_sub(taken).min(self.room_for_files())
        }
    }

    /// How many more attempts this process may open files for, whatever their kind. One runs at least:
    /// what it lacks then is put off.
    fn room_for_files(&self) -> usize {
        let free = self.around.machine.files().saturating_sub(self.files);
        let room = (free / self.around.kinds.files().max(1)).saturating_sub(self.promised);
        if self.in_flight.is_empty() && self.promised == 0 { room.max(1) } else { room }
    }

    /// Begins what waits for room: steps that were pending, retries that are due, and attempts
    /// that nobody performs any more.
    pub(super) fn fill_room(&mut self) {
        // Not so many at once that messages would wait: an outcome that is taken needs no room.
        for _ in 0..ROUND {
            if self.room() == 0 {
                return;
            }
            let Some((id, owed)) = self.pending.pop_front() else {
                return;
            };
            // A step is held against the log that led to it, which may be on its way to the disk.
            if self.live.get(&id).is_some_and(|live| !live.unasked().is_empty() && !live.is_settled()) {
                self.pending.push_back((id, owed));
                continue;
            }
            if !self.is_still_owed(&id, &owed) || !self.is_asked(&id, &owed) {
                self.rest_if_done(&id);
                continue;
            }
            let stimulus = match owed {
                Owed::Start(key) => match self.word(&id, &key) {
                    Some(stimulus) => {
                        // The word may be to another step, whose outcome came first: this one waits on.
                        if stimulus.key() != Some(&key) {
                            self.pending.push_front((id.clone(), Owed::Start(key)));
                        }
                        stimulus
                    }
                    None => continue,
                },
                Owed::Retry(key, _) => Stimulus::Begin { key },
                Owed::Attempt(key, attempt) if self.is_here(&id, &key, attempt) => continue,
                Owed::Attempt(key, attempt) => Stimulus::Lost { key, attempt, found: None },
                Owed::Timer(key, _) => Stimulus::TimerDue { key },
                Owed::Undo(scope) => match self.next_undo(&id, &scope) {
                    Some(stimulus) => stimulus,
                    None => continue,
                },
            };
            if let Some(stimulus) = self.once_looked(&id, stimulus) {
                self.say(&id, stimulus, "engine");
            }
            self.rest_if_done(&id);
        }
    }

    /// Whether a step still waits for what was owed to it. The same may lie here twice, as a pause ends while it
    /// waits for room: what the first one led to is not begun again by the second, least of all a delay skipped.
    fn is_still_owed(&self, id: &Arc<str>, owed: &Owed) -> bool {
        let Some(live) = self.live.get(id) else { return false };
        let status = |key: &Key| live.state.step(key).map(|step| step.status);
        match owed {
            Owed::Start(key) => status(key) == Some(StepStatus::Pending),
            Owed::Retry(key, due) => {
                status(key) == Some(StepStatus::Backoff)
                    && live.state.waits_until(key).is_some_and(|(set, _)| set == *due)
            }
            // What these lead to is judged by the number of the attempt, or by the state alone.
            Owed::Attempt(..) | Owed::Timer(..) | Owed::Undo(_) => true,
        }
    }

    /// Whether the program has asked for what would be performed now: in this life, or once more since the
    /// log was folded. Where it asks for something else, it parts from its log, and nothing is performed.
    pub(super) fn is_asked(&mut self, id: &Arc<str>, owed: &Owed) -> bool {
        let (Owed::Start(key) | Owed::Retry(key, _) | Owed::Attempt(key, _)) = owed else { return true };
        let Some(live) = self.live.get(id).filter(|live| live.is_unasked(key)) else { return true };
        // Of a write that was lost it is told; only what is sent again has to be asked for.
        let step = live.state.step(key);
        let is_told = matches!(owed, Owed::Attempt(..))
            && step
                .is_some_and(|step| step.effect == Effect::Write && step.recovery != Some(Recovery::Retry));
        if is_told || !live.state.may_move(key) {
            return true;
        }
        let definition = live.state.definition;
        let program = match self.program_of(id, &definition) {
            Ok(program) => program,
            Err(refusal) => {
                self.goes_no_further(id, refusal.message);
                return false;
            }
        };
        let Some(live) = self.live.get_mut(id) else { return false };
        match asked::parted(&*self.around.store, &live.state, live.unasked(), &*program) {
            Ok(parted) => live.asked(parted),
            Err(LoadError::Store(error)) => {
                self.failure = Some(error);
                return false;
            }
            Err(error @ (LoadError::Quarantined { .. } | LoadError::Erased { .. })) => {
                self.goes_no_further(id, format!("what `{key}` was asked from cannot be read: {error}"));
                return false;
            }
        }
        if !live.is_unasked(key) {
            return true;
        }
        self.say(id, Stimulus::Continue, "engine");
        // Where it has ended by that, nothing is sent any more; of a write under way it is told.
        self.live.get(id).is_some_and(|live| !live.state.may_move(key))
    }

    /// Lets go of a workflow that cannot be gone on with here, and tells who waits for it why.
    fn goes_no_further(&mut self, id: &Arc<str>, reason: String) {
        let status = self.live.get(id).map_or(Status::Running, |live| live.state.status());
        self.forget(id);
        self.tell_watchers(id, status, Some(reason));
    }

    /// Whether an attempt is performed here, or is going to be once its commit is on disk: also where the
    /// memory of its workflow was dropped, or it was paused meanwhile.
    fn is_here(&self, id: &Arc<str>, key: &Key, attempt: u32) -> bool {
        self.in_flight.contains_key(&(id.clone(), key.clone(), attempt))
            || self.live.get(id).is_some_and(|live| live.is_waiting(key, attempt))
    }

    /// The word to a step that is asked for. Where what was recorded for it cannot be read, its
    /// workflow goes no further here, and who waits for it is told why.
    fn word(&mut self, id: &Arc<str>, key: &Key) -> Option<Stimulus> {
        let live = self.live.get_mut(id)?;
        let word = live.word(key, &self.around.store);
        self.unless_unreadable(id, word, &format!("what was recorded for `{key}`"))
    }

    /// What was read; where it could not be, its workflow goes no further here.
    pub(super) fn unless_unreadable<T>(
        &mut self,
        id: &Arc<str>,
        read: Result<T, LoadError>,
        what: &str,
    ) -> Option<T> {
        match read {
            Ok(found) => Some(found),
            Err(LoadError::Store(error)) => {
                self.failure = Some(error);
                None
            }
            Err(error @ (LoadError::Quarantined { .. } | LoadError::Erased { .. })) => {
                self.goes_no_further(id, format!("{what} cannot be read: {error}"));
                None
            }
        }
    }

    /// The word by which a compensation goes on, once all that came before is on disk: it is read there.
    fn next_undo(&mut self, id: &Arc<str>, scope: &Key) -> Option<Stimulus> {
        let live = self.live.get(id).filter(|live| live.is_settled())?;
        if !live.state.owes().contains(&Owed::Undo(scope.clone())) {
            return None;
        }
        let next = live.next_undo(scope, &*self.around.store);
        self.unless_unreadable(id, next, "what was armed")
    }

    /// Drops a workflow's memory, with what waited in it.
    pub(super) fn forget(&mut self, id: &Arc<str>) {
        if let Some(live) = self.live.remove(id) {
            self.promised -= live.waiting();
        }
        self.cut.remove(id);
        self.looks.forget(id);
    }

    /// Tells those who wait, and forgets the workflow, once nothing moves it but a person.
    pub(super) fn rest_if_done(&mut self, id: &Arc<str>) {
        let Some(live) = self.live.get(id) else {
            return;
        };
        let status = live.state.status();
        let held_up = self.looks.held_up(id);
        // One that waits for a person alone rests; one that waits for a moment goes on by itself.
        let moves = match status {
            _ if !held_up.is_empty() => false,
            Status::Waiting => live.state.moves_by_time(),
            Status::Compensating => true,
            status => status == Status::Running,
        };
        if moves && status == Status::Waiting && self.falls_asleep(id) {
            return;
        }
        let clocks = self.clocks();
        let Some(live) = self.live.get(id) else {
            return;
        };
        let is_held_up = |key: &Key| held_up.iter().any(|(held, _)| held == key);
        let is_owed = |owed: &Owed| match owed {
            // That a write of an ended workflow has no known outcome must be said.
            Owed::Attempt(key, _) | Owed::Start(key) | Owed::Retry(key, _) => !is_held_up(key),
            Owed::Undo(_) => true,
            // A later moment is the next session's; what is due fires, whatever else is unknown.
            Owed::Timer(key, _) => self.rings_at(id, &live.state, key, clocks) <= Some(clocks.steady),
        };
        if moves
            || live.state.owes().iter().any(is_owed)
            || !live.is_settled()
            || self.flying.contains_key(id)
            || self.looks.are_under_way(id)
        {
            return;
        }
        let reason = held_up.into_iter().next().map(|(_, reason)| reason);
        self.forget(id);
        self.tell_watchers(id, status, reason);
    }

    pub(super) fn tell_watchers(&mut self, id: &Arc<str>, status: Status, reason: Option<String>) {
        for watcher in self.watchers.remove(id).unwrap_or_default() {
            let _gone = watcher.send(Rest { workflow_id: id.clone(), status, reason: reason.clone() });
        }
    }
}
