//! An engine in your own process: what the command line does, as functions of the same names.
//!
//! It holds no state of its own: each call speaks to the store as a process would, so that several
//! engines, and the command line beside them, get on with each other on one file.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use foldback_connectors::{Config, registry};
use foldback_core::cut::Wish;
use foldback_core::event::Raised;
use foldback_core::plan::Plan;
use foldback_core::report::{Comparison, LedgerEffect, Past, StateView, diff, ledger, state_view};
use foldback_core::state::End;
use foldback_core::{Failure, Program, Status, Version, WorkflowState};
use foldback_engine::{
    BranchError, Branching, Command, Followed, LoadError, Programs, Refusal, Registry, Rest, Session,
    SessionError, Start, Verified, events_of, next_fork_id, prepare_fork, prepare_retry, state_seen,
    verify_own,
};
use foldback_store::{Store, StoreError};
use serde_json::Value;

use crate::programs::Definitions;

/// An engine on a store.
pub struct Engine {
    store: Arc<dyn Store>,
    kinds: Registry,
    programs: Arc<Definitions>,
    runtime: tokio::runtime::Runtime,
}

/// Where a workflow came to rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The workflow.
    pub workflow_id: Arc<str>,
    /// Where it stands.
    pub status: Status,
    /// Its last version.
    pub version: Version,
    /// What it gave, where it completed.
    pub output: Option<Arc<Value>>,
    /// Why it failed, where it did.
    pub error: Option<Failure>,
}

/// A signal to a workflow; see [`Engine::deliver`].
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    name: Arc<str>,
    data: Value,
    event_id: Option<Arc<str>>,
    error: Option<Failure>,
}

impl Signal {
    /// A signal of this name, without data.
    pub fn new(name: &str) -> Signal {
        Signal { name: Arc::from(name), data: Value::Null, event_id: None, error: None }
    }

    /// Its data.
    pub fn data(self, data: Value) -> Signal {
        Signal { data, ..self }
    }

    /// The sender's id for it, such as the id of a webhook's event: a workflow hears it once, however often it
    /// is delivered, by whichever process and after whichever restart.
    pub fn event_id(self, event_id: &str) -> Signal {
        Signal { event_id: Some(Arc::from(event_id)), ..self }
    }

    /// The wait that takes this signal fails with this error, and a `catch` may act.
    pub fn failed(self, error: Failure) -> Signal {
        Signal { error: Some(error), ..self }
    }
}

/// What is changed by a fork or a retry.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The version that is shared at most; the end, or for a retry the failure, when `None`.
    pub at: Option<Version>,
    /// Edits, what becomes of writes, what runs again.
    pub wish: Wish,
    /// Another definition from there on.
    pub definition: Option<Followed>,
    /// Why, for the log of a retry.
    pub reason: String,
}

/// A fork that was made.
#[derive(Clone, Debug)]
pub struct Forked {
    /// What was planned.
    pub plan: Plan,
    /// Where it came to rest.
    pub outcome: Outcome,
}

/// What can go wrong, told to a person.
#[derive(Debug)]
pub enum Error {
    /// It cannot be done so.
    Refused(Refusal),
    /// A log cannot be read.
    Load(LoadError),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(refusal) => write!(f, "{} (hint: {})", refusal.message, refusal.hint),
            Error::Load(error) => error.fmt(f),
            Error::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        Error::Store(error)
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Error {
        Error::Load(error)
    }
}

impl From<BranchError> for Error {
    fn from(error: BranchError) -> Error {
        match error {
            BranchError::Refused(refusal) => Error::Refused(refusal),
            BranchError::Load(error) => Error::Load(error),
        }
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Error {
        match error {
            SessionError::Store(error) => Error::Store(error),
            SessionError::Refused(refusal) => Error::Refused(refusal),
        }
    }
}

impl Engine {
    /// An engine on a store (`sqlite:PATH`, or `memory:`), with the step kinds of this crate and the
    /// programs that are given.
    ///
    /// ```
    /// use foldback::code::{Code, Ctx, Ended};
    /// use foldback::library::{Change, Engine};
    /// use foldback::programs::{Definitions, start_code};
    /// use serde_json::{Value, json};
    ///
    /// async fn double(mut ctx: Ctx, input: Value) -> Ended {
    ///     Ok(ctx.compute("twice", || json!(input.as_i64().unwrap_or(0) * 2)))
    /// }
    ///
    /// let programs = Definitions::default().with_code("double", "1", Code::new(double));
    /// let engine = Engine::open("memory:", programs)?;
    /// let run = engine.run(start_code("double", "1", "d", json!(21)))?;
    /// assert_eq!(run.output.as_deref(), Some(&json!(42)));
    /// assert_eq!(engine.state_at("d", Some(1))?.version, 1);
    /// let fork = engine.fork("d", Change { at: Some(1), ..Change::default() })?;
    /// assert_eq!(fork.outcome.output, run.output);
    /// assert!(engine.diff("d", "d~1")?.is_same);
    /// assert_eq!(engine.verify("d~1")?.parting, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The file is no store, or cannot be opened.
    pub fn open(url: &str, programs: Definitions) -> Result<Engine, Error> {
        Engine::with(foldback_store::open(url)?, registry(&Config::default()), programs)
    }

    /// An engine on a store that is open already, with step kinds of your own.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn with(store: Arc<dyn Store>, kinds: Registry, programs: Definitions) -> Result<Engine, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let no_thread = |e: std::io::Error| {
            Error::Store(StoreError { message: e.to_string(), hint: None, is_input: false })
        };
        Ok(Engine { store, kinds, programs: Arc::new(programs), runtime: runtime.map_err(no_thread)? })
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Starts a workflow, or attaches to the one that was started alike, and follows it to its rest.
    ///
    /// # Errors
    /// The id is taken by another one, the definition cannot be run here, or the store failed.
    pub fn run(&self, start: Start) -> Result<Outcome, Error> {
        self.drive(Command::Start(start))
    }

    /// Says a command, and follows its workflow to its rest.
    ///
    /// # Errors
    /// It was refused, or the store failed.
    pub fn drive(&self, command: Command) -> Result<Outcome, Error> {
        let session = Session {
            store: self.store.clone(),
            kinds: self.kinds.clone(),
            programs: self.programs.clone(),
            pool: self.runtime.handle().clone(),
            observer: None,
            actor: Arc::from("library"),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let id = command.workflow_id().clone();
        let rest = session.drive(vec![command])?.pop();
        self.outcome(&id, rest)
    }

    fn outcome(&self, id: &Arc<str>, rest: Option<Rest>) -> Result<Outcome, Error> {
        let state = self.state(id, None)?;
        let (output, error) = match &state.end {
            Some(End::Completed { output }) => (Some(output.get()), None),
            Some(End::Failed { error }) => (None, Some(error.plain())),
            Some(End::Cancelled { .. } | End::Parked { .. }) | None => (None, None),
        };
        let status = rest.map(|rest| rest.status).filter(|status| *status == Status::Quarantined);
        let status = status.unwrap_or(state.status());
        Ok(Outcome { workflow_id: id.clone(), status, version: state.version, output, error })
    }

    fn state(&self, id: &str, at: Option<Version>) -> Result<WorkflowState, Error> {
        let state = state_seen(&*self.store, id, at)?;
        let state = state.ok_or_else(|| Error::Refused(Refusal::unknown_workflow(id)))?;
        match at {
            Some(version) if state.version != version => Err(Error::Refused(Refusal::new(
                format!("version {version} of `{id}` is out of range"),
                format!("its log holds versions 1 to {}", state.version),
            ))),
            Some(_) | None => Ok(state),
        }
    }

    /// The state at a version, or the newest.
    ///
    /// # Errors
    /// There is no such workflow or version, or its log is broken.
    pub fn state_at(&self, id: &str, version: Option<Version>) -> Result<StateView, Error> {
        if version == Some(0) {
            return Err(Error::Refused(Refusal::new("version 0 is out of range", "versions begin with 1")));
        }
        Ok(state_view(&self.state(id, version)?))
    }

    /// Reopens a workflow that failed or was parked, and follows it to its rest: from the step that
    /// failed; where something is changed, from before what that touches; where it was taken back, from
    /// before what was taken back.
    ///
    /// # Errors
    /// It has not failed, or the change has no place in it.
    pub fn retry(&self, id: &str, change: Change) -> Result<Outcome, Error> {
        let Change { at, wish, definition, reason } = change;
        let goes_back = at.is_some()
            || definition.is_some()
            || !wish.edits.is_empty()
            || !wish.rerun.is_empty()
            || self.store.workflow(id)?.is_some_and(|row| row.status == Status::Compensated.as_str());
        if !goes_back {
            return self.drive(Command::Retry { workflow_id: Arc::from(id), reason, back: None });
        }
        let branching = branching(id, at, wish, definition);
        self.drive(prepare_retry(&*self.store, &*self.programs, &branching)?.retry(&reason))
    }

    /// Ends a workflow, and follows what is taken back of it to its rest.
    ///
    /// # Errors
    /// There is none, or it has ended.
    pub fn cancel(&self, id: &str, reason: &str) -> Result<Outcome, Error> {
        self.drive(Command::Cancel { workflow_id: Arc::from(id), reason: reason.to_owned() })
    }

    /// Takes back what a workflow did that has ended: what was armed after the version `range.1`, and not
    /// after `range.0`.
    ///
    /// # Errors
    /// It has not ended, or nothing that it did can be taken back.
    pub fn compensate(
        &self,
        id: &str,
        range: (Option<Version>, Option<Version>),
        reason: &str,
    ) -> Result<Outcome, Error> {
        let (workflow_id, reason) = (Arc::from(id), reason.to_owned());
        self.drive(Command::Compensate { workflow_id, reason, range })
    }

    /// Says something to a workflow, and follows it to its rest.
    ///
    /// # Errors
    /// There is none, it has ended, or what listens refuses the data: it then still waits.
    pub fn signal(&self, id: &str, name: &str, data: Value) -> Result<Outcome, Error> {
        let (workflow_id, name) = (Arc::from(id), Arc::from(name));
        self.drive(Command::Signal { workflow_id, name, data, event_id: None, error: None })
    }

    /// As [`Engine::signal`], with all that a sender may say of a signal: an id by which it is heard once, or
    /// that what was waited for has failed.
    ///
    /// # Errors
    /// As [`Engine::signal`].
    pub fn deliver(&self, id: &str, signal: Signal) -> Result<Outcome, Error> {
        let Signal { name, data, event_id, error } = signal;
        let (workflow_id, error) = (Arc::from(id), error.map(Box::new));
        self.drive(Command::Signal { workflow_id, name, data, event_id, error })
    }

    /// Lets nothing more of a workflow begin.
    ///
    /// # Errors
    /// There is none, or it has ended.
    pub fn pause(&self, id: &str, reason: &str) -> Result<Outcome, Error> {
        self.drive(Command::Pause { workflow_id: Arc::from(id), reason: reason.to_owned() })
    }

    /// Lets a paused workflow go on, with budgets that are raised, and follows it to its rest.
    ///
    /// # Errors
    /// It is not paused, or a budget would still be used up.
    pub fn unpause(&self, id: &str, raised: Vec<Raised>, reason: &str) -> Result<Outcome, Error> {
        let (workflow_id, reason) = (Arc::from(id), reason.to_owned());
        self.drive(Command::Unpause { workflow_id, reason, raised })
    }

    /// What it did in the world, and what became of each.
    ///
    /// # Errors
    /// There is none, or its log cannot be read.
    pub fn ledger(&self, id: &str) -> Result<Vec<LedgerEffect>, Error> {
        let events = events_of(&*self.store, id, 0)?;
        Ok(ledger(id, &events))
    }

    /// What a fork would do.
    ///
    /// # Errors
    /// As [`Engine::fork`].
    pub fn plan_fork(&self, id: &str, change: Change) -> Result<Plan, Error> {
        let branching = branching(id, change.at, change.wish, change.definition);
        let prepared = prepare_fork(&*self.store, &*self.programs, &branching)?;
        let fork_id = next_fork_id(&*self.store, id)?;
        Ok(prepared.fork_plan(&self.store, &*self.programs, &fork_id)?)
    }

    /// Forks a workflow with changes, and follows the fork to its rest.
    ///
    /// # Errors
    /// There is no such workflow or version, the change has no place in it, or its log is broken.
    pub fn fork(&self, id: &str, change: Change) -> Result<Forked, Error> {
        let branching = branching(id, change.at, change.wish, change.definition);
        let prepared = prepare_fork(&*self.store, &*self.programs, &branching)?;
        loop {
            let fork_id = next_fork_id(&*self.store, id)?;
            let plan = prepared.fork_plan(&self.store, &*self.programs, &fork_id)?;
            match self.drive(prepared.fork(fork_id)) {
                Ok(outcome) => return Ok(Forked { plan, outcome }),
                // Somebody else was quicker: the next id is free.
                Err(Error::Refused(refusal)) if refusal.is_taken => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the workflow's own definitions make of what the world said what its log says.
    ///
    /// # Errors
    /// There is no such workflow, or its log is broken.
    pub fn verify(&self, id: &str) -> Result<Verified, Error> {
        let program = self.first_program(id)?;
        Ok(verify_own(&*self.store, id, &*program, &*self.programs)?)
    }

    fn first_program(&self, id: &str) -> Result<Arc<dyn Program>, Error> {
        let unknown = || Error::Refused(Refusal::unknown_workflow(id));
        let row = self.store.workflow(id)?.ok_or_else(unknown)?;
        let hash = row.definition.ok_or_else(unknown)?;
        let definition = self.store.definition(&hash)?.ok_or_else(|| {
            Error::Refused(Refusal::new(format!("the definition {hash} is missing"), "`foldback audit`"))
        })?;
        let unusable = |why| Error::Refused(Refusal::new(why, "register the program that wrote it"));
        self.programs.program(&definition).map_err(unusable)
    }

    /// Compares two workflows: where they part first, and what differs.
    ///
    /// # Errors
    /// There is no such workflow, or its log is broken.
    pub fn diff(&self, a: &str, b: &str) -> Result<Comparison, Error> {
        let (one, other) = (events_of(&*self.store, a, 0)?, events_of(&*self.store, b, 0)?);
        for (id, events) in [(a, &one), (b, &other)] {
            if events.is_empty() {
                return Err(Error::Refused(Refusal::unknown_workflow(id)));
            }
        }
        Ok(diff(Past { workflow_id: a, events: &one }, Past { workflow_id: b, events: &other }))
    }
}

fn branching(id: &str, at: Option<Version>, mut wish: Wish, definition: Option<Followed>) -> Branching {
    if wish.model_kind.is_empty() {
        foldback_connectors::LLM_KIND.clone_into(&mut wish.model_kind);
    }
    Branching { workflow_id: Arc::from(id), at, wish, definition }
}
