//! Whether a program asks for what a folded log owes. Read here, judged in [`foldback_core::asked`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldback_core::asked::{asks_for, unasked};
use foldback_core::{Divergence, Key, Program, Version, WorkflowState};
use foldback_store::{Store, StoreError};

use crate::load::{LoadError, state_at};

/// Those of `found`, steps that a state holds open, that its program does not ask for: they are not
/// performed. All that led to them is on disk.
///
/// # Errors
/// The log cannot be read.
pub(crate) fn parted(
    store: &dyn Store,
    state: &WorkflowState,
    found: &BTreeSet<Key>,
    program: &dyn Program,
) -> Result<BTreeMap<Key, Divergence>, LoadError> {
    let mut parted = BTreeMap::new();
    for parting in unasked(state, found, program) {
        if !was_asked_for(store, state, program, &parting.key)? {
            parted.insert(parting.key.clone(), parting);
        }
    }
    Ok(parted)
}

/// Whether the program asks for a step from the state in which it was asked for: another branch may have
/// changed since what the request was made of.
fn was_asked_for(
    store: &dyn Store,
    state: &WorkflowState,
    program: &dyn Program,
    key: &Key,
) -> Result<bool, LoadError> {
    let (Some(entry), Some(step)) = (state.entries.get(key), state.step(key)) else { return Ok(false) };
    let whose = owner(store, state, entry.since)?;
    match state_at(store, &whose, Some(entry.since.saturating_sub(1))) {
        Ok(Some(before)) if before.is_started() => {
            let is_another = before.definition != state.definition;
            Ok(asks_for(before, program, key, step, is_another))
        }
        // What it was made of was erased: nobody can tell.
        Ok(_) | Err(LoadError::Erased { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who wrote a version of a workflow's past: itself, or the one that it was forked from. A fork that has just
/// begun is not in the store yet.
fn owner(store: &dyn Store, state: &WorkflowState, version: Version) -> Result<Arc<str>, StoreError> {
    let mut owner = state.workflow_id.clone();
    let mut next = state.lineage.as_ref().map(|lineage| (lineage.parent.clone(), lineage.cut));
    while let Some((parent, cut)) = next {
        if version > cut {
            break;
        }
        next = store.workflow(&parent)?.and_then(|row| row.parent).map(|(parent, cut, _)| (parent, cut));
        owner = parent.into();
    }
    Ok(owner)
}
