//! Stimuli and commits: a word to a workflow becomes events, the events a commit; what the commit
//! became decides what may leave.

use std::cmp::Reverse;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foldback_core::{Divergence, Illegal, Key, Run, Status, Stimulus, Timing, Turn, WorkflowState, limits};
use foldback_store::{Appended, Commit, CommitError, StoreError};

use super::{Engine, Message, ReplyTo};
use crate::command::{Accepted, Answer, Refusal};
use crate::ids;
use crate::live::Live;
use crate::load;

impl Engine {
    pub(super) fn say(&mut self, id: &Arc<str>, stimulus: Stimulus, actor: &str) {
        if let Err(illegal) = self.say_with(id, stimulus, actor, With::default()) {
            self.drop_broken(id, &illegal);
        }
    }

    /// The program asked for what the law forbids, or panicked. Nothing of that was written: the
    /// memory is dropped, and the workflow parks with one event that says why.
    pub(super) fn drop_broken(&mut self, id: &Arc<str>, illegal: &Illegal) {
        self.live.remove(id);
        let state = match load::state_at(&*self.around.store, id, None) {
            Ok(Some(state)) if state.end.is_none() => state,
            _ => return self.tell_watchers(id, Status::Quarantined, Some(illegal.to_string())),
        };
        let asked = illegal.to_string();
        let divergence = Divergence { key: Key::root(), recorded: "a log that obeys the law".into(), asked };
        self.hold(id, state, Box::new(Parking(divergence)), Status::Running);
        if self.say_with(id, Stimulus::Continue, "engine", With::default()).is_err() {
            self.live.remove(id);
            self.tell_watchers(id, Status::Quarantined, Some(illegal.to_string()));
        }
    }

    pub(super) fn say_with(
        &mut self,
        id: &Arc<str>,
        stimulus: Stimulus,
        actor: &str,
        with: With,
    ) -> Result<(), Illegal> {
        let Some(live) = self.live.get_mut(id) else {
            return Ok(());
        };
        let timing = Timing {
            now: ids::now(),
            actor: Arc::from(actor),
            may_start: !self.is_winding_down && self.in_flight.len() < limits::IN_FLIGHT_MAX,
        };
        let source = &mut self.ids;
        let now = timing.now;
        let mut next_id = || source.next(now);
        let observed = self.around.observer.is_some();
        let kinds = &self.around.kinds;
        // A person's code runs in here. Its panic costs its workflow, not the process.
        let said =
            catch_unwind(AssertUnwindSafe(|| live.say(stimulus, &timing, &mut next_id, kinds, observed)));
        let mut advanced = said.unwrap_or_else(|panic| Err(panicked(live, &*panic)))?;
        let incarnation = live.incarnation;
        for (due, key) in advanced.alarms.drain(..) {
            self.alarms.push(Reverse((due, id.clone(), key)));
        }
        for key in advanced.pending.drain(..) {
            self.pending.push_back((id.clone(), key));
        }
        match advanced.commit.take() {
            Some(mut commit) => {
                commit.definitions = with.definitions;
                let status = live.state.status();
                let answer = with.answer.map(|from| (from, Ok(Accepted { status, attached: false })));
                if let Some((ReplyTo::Inbox(command), answer)) = &answer {
                    commit.consumed.push((command.clone(), serde_json::to_value(answer).unwrap_or_default()));
                }
                self.queue(id.clone(), incarnation, commit, answer);
            }
            None => {
                if let Some(from) = with.answer {
                    let status = live.state.status();
                    self.reply(id, from, Ok(Accepted { status, attached: false }));
                }
            }
        }
        for dispatch in advanced.ready {
            self.dispatch(id, dispatch);
        }
        if advanced.is_cut {
            return self.say_with(id, Stimulus::Continue, "engine", With::default());
        }
        Ok(())
    }

    pub(super) fn queue(
        &mut self,
        workflow_id: Arc<str>,
        incarnation: u64,
        mut commit: Commit,
        answer: Option<(ReplyTo, Answer)>,
    ) {
        commit.shard = self.shard;
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
        live.head = Some((last.last, last.hash));
        let (ready, events) = live.committed();
        if let Some(observer) = &self.around.observer
            && !events.is_empty()
        {
            observer.committed(id, &events);
        }
        for dispatch in ready {
            self.dispatch(id, dispatch);
        }
        self.snapshot_if_due(id);
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
                    self.live.remove(id);
                    if let Err(refusal) = self.take_up(id) {
                        self.tell_watchers(id, Status::Quarantined, Some(refusal.message));
                    }
                    self.rest_if_done(id);
                }
            }
        }
        if let Some((ReplyTo::Caller(reply), _)) = answer {
            let refusal = Refusal::new("the store did not take the command", "try again");
            drop(reply.send(Err(refusal)));
        }
    }
}

/// The run of a workflow whose program broke: it asks to be parked, and nothing else.
struct Parking(Divergence);

impl Run for Parking {
    fn turn(&mut self, _state: &WorkflowState) -> Turn {
        Turn::Diverged(self.0.clone())
    }
}

fn panicked(live: &Live, panic: &(dyn std::any::Any + Send)) -> Illegal {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    let reason = format!("the program panicked: {}", text.unwrap_or_else(|| "without a word".into()));
    Illegal { version: live.state.version + 1, event_type: "turn".into(), reason }
}

/// What else rides in the commit of a stimulus.
#[derive(Default)]
pub(super) struct With {
    pub definitions: Vec<foldback_store::Definition>,
    pub answer: Option<ReplyTo>,
}
