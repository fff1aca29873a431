//! Preparing a fork, or a retry that goes back: where it cuts, what is changed, and the plan. Reads and
//! writes nothing; what comes out is a command for the owner of the shard.
//!
//! Finding the cut of a version takes one state. Finding what an edit touches takes one walk along the
//! log; a plan walks what lies behind the cut.

use std::collections::HashMap;
use std::sync::Arc;

use foldback_core::change::{Changes, Follows, Past};
use foldback_core::cut::{Cut, Cutting, Refused, Wish};
use foldback_core::decide::after;
use foldback_core::lists::Shown;
use foldback_core::plan::{Plan, Unplanned, plan};
use foldback_core::report::brief;
use foldback_core::state::End;
use foldback_core::text::shell_word;
use foldback_core::value::Slot;
use foldback_core::{Fact, Hash, Key, Lineage, Program, Status, Stimulus, Version, WorkflowState};
use foldback_store::{Store, WorkflowRow};

use crate::Programs;
use crate::command::{Back, Command, Followed, Fork, Refusal};
use crate::engine::may_reopen;
use crate::load::{self, LoadError, each, fill, fold, hash_at};
use crate::pasts::Pasts;
use crate::verify::verify_up_to;

/// What to do where a program is not at hand.
const UNUSABLE: &str =
    "a document: `foldback check FILE`; Rust code: fork from the program that holds it, with `Engine::fork`";

/// What a person wants to branch, or to go back in.
#[derive(Clone, Debug)]
pub struct Branching {
    /// The workflow.
    pub workflow_id: Arc<str>,
    /// The version that is shared at most; the end, or for a retry the failure, when `None`.
    pub at: Option<Version>,
    /// What is changed.
    pub wish: Wish,
    /// The definition that is followed from the cut on, where that is another.
    pub definition: Option<Followed>,
}

/// A fork or a retry that can be made.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The workflow.
    pub workflow_id: Arc<str>,
    /// The last version that is kept.
    pub cut: Version,
    /// How far its log went.
    pub head: Version,
    /// What is changed.
    pub changes: Changes,
    /// The definition that comes with it.
    pub definition: Option<Followed>,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum BranchError {
    /// It cannot be made so.
    Refused(Refusal),
    /// The log cannot be read.
    Load(LoadError),
}

impl From<LoadError> for BranchError {
    fn from(error: LoadError) -> BranchError {
        BranchError::Load(error)
    }
}

impl From<foldback_store::StoreError> for BranchError {
    fn from(error: foldback_store::StoreError) -> BranchError {
        BranchError::Load(error.into())
    }
}

impl From<Refused> for BranchError {
    fn from(Refused { message, hint }: Refused) -> BranchError {
        refused(message, hint)
    }
}

impl From<Refusal> for BranchError {
    fn from(refusal: Refusal) -> BranchError {
        BranchError::Refused(refusal)
    }
}

fn refused(message: impl Into<String>, hint: impl Into<String>) -> BranchError {
    BranchError::Refused(Refusal::new(message, hint))
}

/// Prepares a fork of a workflow, also of one that is still running: up to what is on disk.
///
/// # Errors
/// No such workflow or version, changes that have no place in it, or a log that cannot be read.
pub fn prepare_fork(
    store: &dyn Store,
    programs: &dyn Programs,
    branching: &Branching,
) -> Result<Prepared, BranchError> {
    let row = row(store, &branching.workflow_id)?;
    let at = branching.at.unwrap_or(row.version);
    prepare(store, programs, branching, &row, at)
}

/// Prepares a retry that goes back: to a version, or to before the failure, or further where a change
/// touches something earlier.
///
/// # Errors
/// As [`prepare_fork`], and where the workflow has not failed.
pub fn prepare_retry(
    store: &dyn Store,
    programs: &dyn Programs,
    branching: &Branching,
) -> Result<Prepared, BranchError> {
    let row = row(store, &branching.workflow_id)?;
    let id = &*branching.workflow_id;
    let state = fold(store, id, None)?.ok_or_else(|| Refusal::unknown_workflow(id))?;
    let has_failed = matches!(state.end, Some(End::Failed { .. } | End::Parked { .. }));
    if !has_failed || !matches!(state.status(), Status::Failed | Status::Parked | Status::Compensated) {
        let what = match state.status() {
            Status::Compensated => "did not fail: it was ended, and taken back".to_owned(),
            Status::Completed => "has completed: there is nothing to go on with".to_owned(),
            status => format!("has not failed: it is {}", status.as_str()),
        };
        return Err(refused(
            format!("`{id}` {what}"),
            format!(
                "`foldback show {id}` shows where it stands; `foldback fork {id}` branches from it",
                id = shell_word(id)
            ),
        ));
    }
    let failure = failure(store, &state)?;
    let at = match branching.at {
        Some(at) if at > failure => {
            return Err(refused(
                format!("version {at} lies behind the failure of `{id}`"),
                "leave --from out to go on from the step that failed, or name an earlier one",
            ));
        }
        at => at.unwrap_or(failure),
    };
    let prepared = prepare(store, programs, branching, &row, at)?;
    if let Some((parent, cut, _)) = &row.parent
        && prepared.cut <= *cut
    {
        return Err(refused(
            format!("version {} of `{id}` is the past of its parent `{parent}`", prepared.cut),
            format!("fork the parent there: `foldback fork {}`", shell_word(parent)),
        ));
    }
    Ok(prepared)
}

/// What a retry from the step that failed will do: nothing is gone back to.
///
/// # Errors
/// As [`prepare_retry`].
pub fn plan_retry(store: &Arc<dyn Store>, programs: &dyn Programs, id: &str) -> Result<Plan, BranchError> {
    let row = row(&**store, id)?;
    let prepared = Prepared {
        workflow_id: Arc::from(id),
        cut: row.version,
        head: row.version,
        changes: Changes::none(Past { workflow: Arc::from(id), after: row.version, up_to: row.version }),
        definition: None,
    };
    let state = prepared.state_at(&**store, None)?;
    may_reopen(id, &state, false)?;
    let again = prepared.program(&**store, programs, &state)?.start(&state).failures(&state);
    let first = Stimulus::Reopen { reason: String::new(), again, back_to: None, changes: None };
    prepared.plan(store, programs, state, first)
}

fn row(store: &dyn Store, id: &str) -> Result<WorkflowRow, BranchError> {
    let row = store.workflow(id)?.ok_or_else(|| Refusal::not_there(store, id))?;
    if row.definition.is_none() {
        return Err(refused(
            format!("`{id}` is a stream of domain events, not a workflow"),
            "there is nothing to run in a fork of it",
        ));
    }
    Ok(row)
}

/// The version before the failing step was first asked since the workflow was opened last, or before the
/// first step that was taken back since; where no step failed, the one before the failure.
fn failure(store: &dyn Store, state: &WorkflowState) -> Result<Version, LoadError> {
    let failed = match &state.end {
        Some(End::Failed { error }) => error.key.clone(),
        Some(End::Completed { .. } | End::Cancelled { .. } | End::Parked { .. }) | None => None,
    };
    let (mut asked, mut ended) = (None, state.version);
    let (mut asks, mut first_undone, mut has_ended) = (HashMap::new(), None, false);
    each(store, &state.workflow_id, 0, Hash::ZERO, &mut |event| {
        match &event.fact {
            Fact::WorkflowReopened { .. } | Fact::WorkflowForked(_) => {
                (asked, first_undone, has_ended) = (None, None, false);
            }
            // What was taken back behind the end is done again: it goes on before the first of that. What a
            // block took back before that is over.
            Fact::UndoCompleted { key, .. } if has_ended => {
                let first: Option<&Version> = asks.get(key);
                first_undone = first_undone.into_iter().chain(first.copied()).min();
            }
            Fact::WorkflowFailed { .. } | Fact::WorkflowParked { .. } => {
                (ended, has_ended) = (event.version, true);
            }
            Fact::StepAsked(step) => {
                if failed.as_ref() == Some(&step.key) {
                    asked.get_or_insert(event.version);
                }
                if step.undo.is_some() {
                    asks.insert(step.key.clone(), event.version);
                }
            }
            Fact::Recorded { key: Some(key), handler: Some(_), .. } => {
                asks.insert(key.clone(), event.version);
            }
            _ => {}
        }
        Ok(true)
    })?;
    Ok(asked.into_iter().chain(first_undone).min().unwrap_or(ended).saturating_sub(1).max(1))
}

fn prepare(
    store: &dyn Store,
    programs: &dyn Programs,
    branching: &Branching,
    row: &WorkflowRow,
    at: Version,
) -> Result<Prepared, BranchError> {
    let id = &*branching.workflow_id;
    if at == 0 || at > row.version {
        return Err(refused(
            format!("version {at} of `{id}` is out of range"),
            format!("its log holds versions 1 to {}", row.version),
        ));
    }
    let at = match &branching.definition {
        Some(followed) => fitting(store, programs, branching, followed, at)?,
        None => at,
    };
    let mut cut = cut(store, programs, branching, at).map_err(|error| with_id(error, id))?;
    // Nothing goes on behind an end: a cut there is the one right before it.
    while fold(store, id, Some(cut.version))?.is_some_and(|state| state.end.is_some()) && cut.version > 1 {
        cut.version -= 1;
    }
    let past = Past { workflow: branching.workflow_id.clone(), after: cut.version, up_to: row.version };
    let follows = branching.definition.as_ref().map(|followed| Follows {
        definition: followed.hash,
        name: followed.name.clone(),
        file: followed.file.clone(),
    });
    let mut changes = Changes {
        edits: cut.edits,
        outputs: cut.outputs,
        input: cut.input,
        writes: branching.wish.writes.clone(),
        rerun: branching.wish.rerun.clone(),
        follows,
        ..Changes::none(past)
    };
    // A command carries its values with it.
    changes.slots_mut().for_each(|slot| *slot = Slot::Inline(slot.get()));
    Ok(Prepared {
        workflow_id: branching.workflow_id.clone(),
        cut: cut.version,
        head: row.version,
        changes,
        definition: branching.definition.clone(),
    })
}

/// How far a past fits another definition: all that is shared must be what it would have led to. A
/// version that a person named is not moved.
fn fitting(
    store: &dyn Store,
    programs: &dyn Programs,
    branching: &Branching,
    followed: &Followed,
    at: Version,
) -> Result<Version, BranchError> {
    let program = programs.program(&followed.stored()).map_err(|why| refused(why, UNUSABLE))?;
    let verified = verify_up_to(store, &branching.workflow_id, &*program, at)?;
    let uncompared = verified.uncompared.map(|uncompared| uncompared.first);
    let Some(parting) = verified.parting.or(uncompared) else { return Ok(at) };
    if branching.at.is_none() && parting.version > 1 {
        return Ok(parting.version - 1);
    }
    let place = parting.key.as_ref().map(|key| format!(", {key}")).unwrap_or_default();
    Err(refused(
        format!(
            "`{}` does not fit {}: they part at version {}{place}: recorded {}, derived {}",
            branching.workflow_id,
            followed.name,
            parting.version,
            brief(&parting.recorded, 120),
            brief(&parting.derived, 120),
        ),
        format!("cut before it: --at {}, or leave --at out", parting.version.saturating_sub(1)),
    ))
}

/// A hint of the core knows no workflow: its commands get the id here.
fn with_id(error: BranchError, id: &str) -> BranchError {
    match error {
        BranchError::Refused(mut refusal) => {
            refusal.hint = refusal.hint.replace(" ID", &format!(" {}", shell_word(id)));
            BranchError::Refused(refusal)
        }
        error @ BranchError::Load(_) => error,
    }
}

fn cut(
    store: &dyn Store,
    programs: &dyn Programs,
    branching: &Branching,
    at: Version,
) -> Result<Cut, BranchError> {
    let mut cutting = Cutting::of(&branching.wish, at)?;
    if !cutting.needs_log() {
        return Ok(cutting.end(&|_| None)?);
    }
    let mut follows = None;
    let mut lists = Shown::default();
    each(store, &branching.workflow_id, 0, Hash::ZERO, &mut |mut event| {
        match &event.fact {
            Fact::WorkflowStarted(started) => follows = Some(started.definition),
            fact => {
                if let Some(other) = fact.changes().and_then(|changes| changes.follows.as_ref()) {
                    follows = Some(other.definition);
                }
            }
        }
        lists.complete(&mut event);
        if cutting.wants(&event) {
            for slot in event.fact.slots_mut() {
                // What was erased reads null; an edit puts something in its place or fails to.
                fill(store, slot)?;
            }
        }
        cutting.see(&event);
        Ok(true)
    })?;
    let program = match (&branching.definition, follows) {
        (Some(followed), _) => Some(followed.stored()),
        (None, Some(hash)) => store.definition(&hash)?,
        (None, None) => None,
    };
    let program = program.and_then(|definition| programs.program(&definition).ok());
    let knows = |key: &Key| program.as_ref().and_then(|program| program.has_step(key));
    Ok(cutting.end(&knows)?)
}

/// The first id that is free for a fork of a workflow: `PARENT~1`, `PARENT~2` …
///
/// # Errors
/// When the store fails.
pub fn next_fork_id(store: &dyn Store, parent: &str) -> Result<Arc<str>, LoadError> {
    let is_taken = |n: u64| -> Result<bool, LoadError> {
        let id = format!("{parent}~{n}");
        Ok(store.workflow(&id)?.is_some() || store.pruned(&id)?.is_some())
    };
    // Names are given in order: what is free is found by doubling, then by halving.
    let mut taken = 0;
    let mut free = 1;
    while is_taken(free)? {
        (taken, free) = (free, free * 2);
    }
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        if is_taken(middle)? { taken = middle } else { free = middle }
    }
    Ok(Arc::from(format!("{parent}~{free}")))
}

impl Prepared {
    /// The command that makes the fork.
    pub fn fork(&self, workflow_id: Arc<str>) -> Command {
        Command::Fork(Box::new(Fork {
            workflow_id,
            parent: self.workflow_id.clone(),
            cut: self.cut,
            changes: self.changes.clone(),
            definition: self.definition.clone(),
        }))
    }

    /// The command that reopens the workflow.
    pub fn retry(&self, reason: &str) -> Command {
        let back = Back {
            to: self.cut,
            from: self.head,
            changes: self.changes.clone(),
            definition: self.definition.clone(),
        };
        Command::Retry {
            workflow_id: self.workflow_id.clone(),
            reason: reason.to_owned(),
            back: Some(Box::new(back)),
        }
    }

    /// What the fork of this id will do.
    ///
    /// # Errors
    /// The past cannot be read, or the program cannot be run here.
    pub fn fork_plan(
        &self,
        store: &Arc<dyn Store>,
        programs: &dyn Programs,
        workflow_id: &Arc<str>,
    ) -> Result<Plan, BranchError> {
        let mut state = self.state_at(&**store, Some(self.cut))?;
        state.workflow_id = workflow_id.clone();
        let cut_hash = hash_at(&**store, &self.workflow_id, self.cut)?;
        let lineage = Lineage { parent: self.workflow_id.to_string(), cut: self.cut, cut_hash };
        let first = Stimulus::Fork { lineage, changes: Box::new(self.changes.clone()) };
        self.plan(store, programs, state, first)
    }

    /// What the retry will do.
    ///
    /// # Errors
    /// As [`Prepared::fork_plan`].
    pub fn retry_plan(&self, store: &Arc<dyn Store>, programs: &dyn Programs) -> Result<Plan, BranchError> {
        let mut state = self.state_at(&**store, None)?;
        let base = self.state_at(&**store, Some(self.cut))?;
        let again = base.open_in_flow();
        state.rewind(base);
        let first = Stimulus::Reopen {
            reason: String::new(),
            again,
            back_to: Some(self.cut),
            changes: Some(Box::new(self.changes.clone())),
        };
        self.plan(store, programs, state, first)
    }

    fn state_at(&self, store: &dyn Store, at: Option<Version>) -> Result<WorkflowState, BranchError> {
        let state = load::state_at(store, &self.workflow_id, at)?;
        state.ok_or_else(|| Refusal::unknown_workflow(&self.workflow_id).into())
    }

    fn plan(
        &self,
        store: &Arc<dyn Store>,
        programs: &dyn Programs,
        state: WorkflowState,
        first: Stimulus,
    ) -> Result<Plan, BranchError> {
        let program = self.program(&**store, programs, &state)?;
        let mut run = program.start(&after(&state, first.clone(), state.now));
        plan(state, &mut *run, first, &mut Pasts::new(store.clone())).map_err(|unplanned| match unplanned {
            Unplanned::Illegal(illegal) => {
                refused(illegal.to_string(), "`foldback show` says where it stands")
            }
            Unplanned::Unread(error) => BranchError::Load(error),
        })
    }

    fn program(
        &self,
        store: &dyn Store,
        programs: &dyn Programs,
        state: &WorkflowState,
    ) -> Result<Arc<dyn Program>, BranchError> {
        let definition = match &self.definition {
            Some(followed) => followed.stored(),
            None => store.definition(&state.definition)?.ok_or_else(|| {
                refused(
                    format!("the definition {} of `{}` is missing", state.definition, self.workflow_id),
                    "`foldback audit` shows what is damaged",
                )
            })?,
        };
        programs
            .program(&definition)
            .map_err(|why| refused(format!("the definition cannot be run here: {why}"), UNUSABLE))
    }
}
