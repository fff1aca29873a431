//! Verifying a workflow of a store: its log, walked from version 1 against a program. Reads the log
//! and the values that it needs; performs nothing, writes nothing.

use std::sync::Arc;

use foldback_core::value::Slot;
use foldback_core::verify::{Library, Parting, Stopped, Uncompared, Verification};
use foldback_core::{Hash, Illegal, Program, Version, WorkflowState};
use foldback_store::{Store, Tombstone};

use crate::Programs;
use crate::load::{LoadError, each, fill, fold, hydrate};

/// What became of a walk.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Consequences that were compared.
    pub recorded: u64,
    /// Where the program and the log part first, if they do.
    pub parting: Option<Box<Parting>>,
    /// From where on nothing could be compared: the log began with another meaning of expressions.
    pub uncompared: Option<Uncompared>,
}

/// Compares every consequence in a workflow's log with what `program` makes of the recorded
/// stimuli, to learn what a change would have meant. What the workflow followed itself does not count.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = foldback_store::open("memory:")?;
/// # let program: std::sync::Arc<dyn foldback_core::Program> = todo!();
/// let verified = foldback_engine::verify(&*store, "article-1", &*program)?;
/// assert_eq!(verified.parting, None, "after {} consequences", verified.recorded);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the log breaks the law, a value that the walk needs was erased, or the store fails.
pub fn verify(store: &dyn Store, workflow_id: &str, program: &dyn Program) -> Result<Verified, LoadError> {
    walk(store, workflow_id, program, None, Version::MAX)
}

/// As [`verify`], against the definitions that the workflow itself followed, one after the other where
/// it was forked or reopened with another: the proof of a replay. `first` is the one it began with.
///
/// # Errors
/// As [`verify`].
pub fn verify_own(
    store: &dyn Store,
    workflow_id: &str,
    first: &dyn Program,
    programs: &dyn Programs,
) -> Result<Verified, LoadError> {
    walk(store, workflow_id, first, Some(programs), Version::MAX)
}

/// As [`verify`], of the events up to a version; what the program would say behind it does not count.
pub(crate) fn verify_up_to(
    store: &dyn Store,
    workflow_id: &str,
    program: &dyn Program,
    up_to: Version,
) -> Result<Verified, LoadError> {
    walk(store, workflow_id, program, None, up_to)
}

fn walk(
    store: &dyn Store,
    workflow_id: &str,
    program: &dyn Program,
    own: Option<&dyn Programs>,
    up_to: Version,
) -> Result<Verified, LoadError> {
    let walk = Verification::of(program, ancestors(store, workflow_id)?, workflow_id);
    let mut walk = if own.is_some() { walk.of_its_own() } else { walk };
    let mut shelf = Shelf { store, workflow_id, own, version: 0, trouble: None };
    let mut parting = None;
    each(store, workflow_id, 0, Hash::ZERO, &mut |event| {
        if event.version > up_to {
            return Ok(false);
        }
        shelf.version = event.version;
        let taken = walk.take(event, &mut shelf);
        match (shelf.trouble.take(), taken) {
            (Some(trouble), _) => Err(trouble),
            (None, Ok(())) => Ok(true),
            (None, Err(stopped)) => parted(stopped, &mut parting).map(|()| false),
        }
    })?;
    if parting.is_none() && up_to == Version::MAX {
        walk.end().map(drop).or_else(|stopped| parted(stopped, &mut parting))?;
    }
    Ok(Verified { recorded: walk.compared_so_far(), parting, uncompared: walk.uncompared().cloned() })
}

/// Whose events a fork's past is made of, the eldest first. One who was cut off before his own began
/// left none.
fn ancestors(store: &dyn Store, workflow_id: &str) -> Result<Vec<Arc<str>>, LoadError> {
    let (mut found, mut shared) = (Vec::new(), Version::MAX);
    let mut next = store.workflow(workflow_id)?.and_then(|row| row.parent);
    while let Some((parent, cut, _)) = next {
        next = store.workflow(&parent)?.and_then(|row| row.parent);
        shared = shared.min(cut);
        if next.as_ref().is_none_or(|(_, before, _)| *before < shared) {
            found.push(Arc::from(parent));
        }
    }
    found.reverse();
    Ok(found)
}

/// Where a walk finds what it needs beside the events. The first thing that it does not find stops it.
struct Shelf<'a> {
    store: &'a dyn Store,
    workflow_id: &'a str,
    own: Option<&'a dyn Programs>,
    version: Version,
    trouble: Option<LoadError>,
}

impl Shelf<'_> {
    fn or_trouble<T>(&mut self, found: Result<T, LoadError>) -> Option<T> {
        found.map_err(|trouble| self.trouble.get_or_insert(trouble)).ok()
    }

    fn program_of(&self, definition: &Hash) -> Result<Option<Arc<dyn Program>>, LoadError> {
        let Some(programs) = self.own else { return Ok(None) };
        let stored = self.store.definition(definition)?;
        let version = self.version;
        let unknown = |reason: String| LoadError::Quarantined { version, reason };
        let stored = stored.ok_or_else(|| unknown(format!("its definition {definition} is missing")))?;
        programs.program(&stored).map(Some).map_err(unknown)
    }
}

impl Library for Shelf<'_> {
    fn bring(&mut self, slot: &mut Slot) {
        if self.trouble.is_none() {
            self.trouble = bring(self.store, slot, self.version).err();
        }
    }

    fn base(&mut self, version: Version) -> WorkflowState {
        let folded = fold(self.store, self.workflow_id, Some(version));
        let folded = folded.and_then(|state| {
            let mut state = state.unwrap_or_else(|| WorkflowState::empty(self.workflow_id));
            hydrate(self.store, &mut state).map(|()| state)
        });
        self.or_trouble(folded).unwrap_or_else(|| WorkflowState::empty(self.workflow_id))
    }

    fn program(&mut self, definition: &Hash) -> Option<Arc<dyn Program>> {
        let program = self.program_of(definition);
        self.or_trouble(program).flatten()
    }
}

fn bring(store: &dyn Store, slot: &mut Slot, version: u64) -> Result<(), LoadError> {
    let erased = |tombstone: Tombstone| LoadError::Erased {
        place: format!("a value of version {version}"),
        tombstone: Box::new(tombstone),
    };
    fill(store, slot)?.map_or(Ok(()), |tombstone| Err(erased(tombstone)))
}

fn parted(stopped: Stopped, parting: &mut Option<Box<Parting>>) -> Result<(), LoadError> {
    match stopped {
        Stopped::Parted(at) => *parting = Some(at),
        Stopped::Illegal(Illegal { version, event_type, reason }) => {
            return Err(LoadError::Quarantined { version, reason: format!("{event_type}: {reason}") });
        }
    }
    Ok(())
}
