//! Verifying a workflow of a store: its log, walked from version 1 against a program. Reads the log
//! and the values that it needs; performs nothing, writes nothing.

use foldback_core::value::Slot;
use foldback_core::verify::{Parting, Stopped, Verification};
use foldback_core::{Illegal, Program};
use foldback_store::{Store, Tombstone};

use crate::load::{LoadError, each, fill};

/// What became of a walk.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Consequences that were compared.
    pub recorded: u64,
    /// Where the program and the log part first, if they do.
    pub parting: Option<Box<Parting>>,
}

/// Compares every consequence in a workflow's log with what `program` makes of the recorded
/// stimuli: its own program to prove a replay, another one to learn what a change would have meant.
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
    let mut walk = Verification::of(program, workflow_id);
    let mut parting = None;
    each(store, workflow_id, 0, foldback_core::Hash::ZERO, &mut |event| {
        let mut trouble = None;
        let version = event.version;
        let taken = walk.take(event, &mut |slot| {
            if trouble.is_none() {
                trouble = bring(store, slot, version).err();
            }
        });
        match (trouble, taken) {
            (Some(trouble), _) => Err(trouble),
            (None, Ok(())) => Ok(true),
            (None, Err(stopped)) => parted(stopped, &mut parting).map(|()| false),
        }
    })?;
    let recorded = walk.compared_so_far();
    if parting.is_none() {
        walk.end().map(drop).or_else(|stopped| parted(stopped, &mut parting))?;
    }
    Ok(Verified { recorded, parting })
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
