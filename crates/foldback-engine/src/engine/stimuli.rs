//! Stimuli and commits: a word to a workflow becomes events, the events a commit; what the commit
//! became decides what may leave.

use std::sync::Arc;

use foldback_core::text::shell_word;
use foldback_core::{Illegal, Owed, Status, Stimulus, Timing};
use foldback_store::{Appended, Commit, CommitError, StoreError};

use super::{Engine, Message, ReplyTo};
use crate::command::{Accepted, Answer, Refusal};
use crate::load;

impl Engine {
    /// Says a word that nobody is owed an answer for. One that may not stand (a doubled alarm, a
    /// late report) means nothing.
    pub(super) fn say(&mut self, id: &Arc<str>, stimulus: Stimulus, actor: &str) {
        let _means_nothing = self.say_with(id, stimulus, actor, With::default());
    }

    /// Says a word, and queues what it led to.
    ///
    /// # Errors
    /// The word may not stand here; the workflow is as it was.
    pub(super) fn say_with(
        &mut self,
        id: &Arc<str>,
        stimulus: Stimulus,
        actor: &str,
        with: With,
    ) -> Result<(), Illegal> {
        let room = self.room();
        let clocks = self.clocks();
        let Some(live) = self.live.get_mut(id) else {
            return Ok(());
        };
        // The one way in: nothing is judged, and so nothing is written, before this.
        let stimulus = live.redaction.stimulus(stimulus);
        let timing = Timing { now: clocks.wall, actor: Arc::from(actor), room };
        let source = &mut self.ids;
        let now = timing.now;
        let mut next_id = || source.next(now);
        let observed = self.around.observer.is_some();
        let before = live.waiting();
        let came = live.state.version + 1;
        let mut advanced = live.say(stimulus, &timing, &mut next_id, &self.around.kinds, observed)?;
        self.promised = self.promised + live.waiting() - before;
        let incarnation = live.incarnation;
        for (wait, key) in advanced.alarms.drain(..) {
            self.alarms.set(id, key, wait, clocks);
        }
        let left_behind = std::mem::take(&mut advanced.owed);
        for key in advanced.pending.drain(..) {
            self.pending.push_back((id.clone(), Owed::Start(key)));
        }
        match advanced.commit.take() {
            Some(mut commit) => {
                commit.definitions = with.definitions;
                let status = live.state.status();
                let refused = advanced.refused.iter().find(|(signal, _)| *signal == came);
                let accepted = match refused {
                    Some((_, reason)) => Err(not_accepted(id, reason)),
                    None => Ok(Accepted { status, attached: false, version: None }),
                };
                let answer = with.answer.map(|from| (from, accepted));
                if let Some((ReplyTo::Inbox(command), answer)) = &answer {
                    commit.consumed.push((command.clone(), serde_json::to_value(answer).unwrap_or_default()));
                }
                self.queue(id.clone(), incarnation, commit, answer);
            }
            None => {
                if let Some(from) = with.answer {
                    let status = live.state.status();
                    self.reply(id, from, Ok(Accepted { status, attached: false, version: None }));
                }
            }
        }
        self.owe(id, left_behind);
        for dispatch in advanced.ready {
            self.dispatch(id, dispatch);
        }
        if advanced.is_cut {
            // Goes on when this batch is on disk: a turn of a million facts must not fill the
            // memory, nor keep the others waiting.
            self.cut.insert(id.clone());
        } else {
            self.bring_signals(id);
        }
        Ok(())
    }

    /// Brings kept signals that are listened for since this turn, and lets the program take them.
    fn bring_signals(&mut self, id: &Arc<str>) {
        let Some(live) = self.live.get_mut(id).filter(|live| live.state.lacks_signals()) else { return };
        let brought = load::bring_signals(&*self.around.store, &mut live.state);
        if self.unless_unreadable(id, brought, "a signal that it listens for").is_some() {
            self.say(id, Stimulus::Continue, "engine");
        }
    }

    pub(super) fn queue(
        &mut self,
        workflow_id: Arc<str>,
        incarnation: u64,
        mut commit: Commit,
        answer: Option<(ReplyTo, Answer)>,
    ) {
        commit.shard = self.shard;
        commit.sends.iter_mut().for_each(|command| command.shard = self.shard);
        commit.epoch = self.ownership.epoch;
        self.under_way += 1;
        let to = self.to_self.clone();
        self.around.store.commit(
            commit,
            Box::new(move |result| {
                // The loop may have ended over a failure; then nobody is owed this.
                let _gone = to.send(Message::Committed { workflow_id, incarnation, result, answer });
            }),
        );
    }

    pub(super) fn committed(
        &mut self,
        id: &Arc<str>,
        incarnation: u64,
        result: Result<Vec<Appended>, CommitError>,
        answer: Option<(ReplyTo, Answer)>,
    ) {
        self.under_way -= 1;
        let appended = match result {
            Ok(appended) => appended,
            Err(error) => return self.refused(id, incarnation, error, answer),
        };
        if let Some((ReplyTo::Caller(reply), answer)) = answer {
            drop(reply.send(answer));
        }
        let (Some(last), Some(live)) = (appended.first(), self.live.get_mut(id)) else {
            return;
        };
        if live.incarnation != incarnation {
            return;
        }
        let before = live.waiting();
        let (ready, events) = live.committed();
        let snapshot = live.snapshot(last.hash);
        let stopped = live.stopped();
        self.promised = self.promised + live.waiting() - before;
        let is_settled = live.is_settled();
        if let Some(observer) = &self.around.observer
            && !events.is_empty()
        {
            observer.committed(id, &events);
        }
        for attempt in stopped {
            self.stop(id, attempt);
        }
        for dispatch in ready {
            self.dispatch(id, dispatch);
        }
        if let Some(snapshot) = snapshot {
            let commit = Commit { snapshots: vec![snapshot], ..Commit::default() };
            self.queue(id.clone(), 0, commit, None);
        }
        if is_settled {
            self.owe_undos(id);
        }
        // A loop that ends, or that may begin nothing, leaves the rest of the turn to whoever resumes it.
        let goes_on = !self.is_winding_down && !self.starts_nothing;
        if is_settled && goes_on && self.cut.remove(id) {
            self.say(id, Stimulus::Continue, "engine");
        }
        self.rest_if_done(id);
    }

    /// A commit was not written. The memory that ran ahead of it is dropped and folded anew.
    pub(super) fn refused(
        &mut self,
        id: &Arc<str>,
        incarnation: u64,
        error: CommitError,
        answer: Option<(ReplyTo, Answer)>,
    ) {
        match error {
            CommitError::Failed(error) => self.failure = Some(error),
            CommitError::StaleEpoch { .. } => {
                self.failure = Some(StoreError {
                    message: "another process took over this store".into(),
                    hint: Some("its lock was lost; run the command again".into()),
                    is_input: false,
                });
            }
            CommitError::Conflict { .. }
            | CommitError::IdTaken { .. }
            | CommitError::CommandAnswered { .. }
            | CommitError::CheckpointMoved { .. } => {
                // What was queued behind the first refusal is refused too: by then the workflow
                // has been folded anew, and that memory stays.
                if self.live.get(id).is_some_and(|live| live.incarnation == incarnation) {
                    self.forget(id);
                    if let Err(refusal) = self.take_up(id) {
                        let status = match refusal.is_quarantined {
                            true => Status::Quarantined,
                            false => self.stored_status(id).unwrap_or(Status::Running),
                        };
                        self.tell_watchers(id, status, Some(refusal.message));
                    }
                    self.rest_if_done(id);
                }
            }
        }
        match answer {
            Some((ReplyTo::Caller(reply), _)) => {
                let refusal = Refusal::new("the store did not take the command", "try again");
                drop(reply.send(Err(refusal)));
            }
            // Its row is still open: it is taken up again.
            Some((ReplyTo::Inbox(command), _)) => drop(self.taken.remove(&command)),
            Some((ReplyTo::Nobody, _)) | None => {}
        }
    }
}

fn not_accepted(id: &str, reason: &str) -> Refusal {
    Refusal::new(
        format!("`{id}` does not take this answer: {reason}"),
        format!(
            "it still waits; `foldback show {id}` says what an answer must look like",
            id = shell_word(id)
        ),
    )
}

/// What else rides in the commit of a stimulus.
#[derive(Default)]
pub(super) struct With {
    pub definitions: Vec<foldback_store::Definition>,
    pub answer: Option<ReplyTo>,
}
