//! From the store to a state: read, check the chain, decode, fold, fill. The only reads of the loop.
//!
//! Invariant: no event is folded whose hash does not follow from the event before it.

use std::fmt;
use std::sync::Arc;

use foldback_core::state::STATE_SCHEMA;
use foldback_core::value::Slot;
use foldback_core::{Event, Fact, Hash, Version, WorkflowState};
use foldback_store::chain::verify_chain;
use foldback_store::{Recorded, Store, StoreError};
use serde_json::Value;

/// Events fetched at a time.
const PAGE: usize = 4_096;

/// Why a workflow could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The store failed.
    Store(StoreError),
    /// The log breaks the law, or holds what this build cannot read: the workflow is quarantined.
    Quarantined {
        /// The version at which it does.
        version: Version,
        /// How.
        reason: String,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Store(error) => error.fmt(f),
            LoadError::Quarantined { version, reason } => write!(f, "version {version}: {reason}"),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> LoadError {
        LoadError::Store(error)
    }
}

/// An event as the fold reads it, from one as the log holds it.
///
/// # Errors
/// A shape that this build cannot read.
pub fn decode(recorded: &Recorded) -> Result<Event, LoadError> {
    let written = &recorded.event;
    let fact = Fact::decode(&written.event_type, written.schema_version, &written.payload)
        .map_err(|e| LoadError::Quarantined { version: recorded.version, reason: e.to_string() })?;
    Ok(Event {
        id: written.id,
        version: recorded.version,
        timestamp: written.timestamp,
        causation_id: written.causation_id,
        correlation_id: written.correlation_id,
        actor: written.actor.clone(),
        fact,
    })
}

/// The events of a workflow above a version, their values at hand.
///
/// # Errors
/// As [`decode`], and when the store fails.
pub fn events_of(store: &dyn Store, workflow_id: &str, after: Version) -> Result<Vec<Event>, LoadError> {
    let mut events = Vec::new();
    let previous = hash_at(store, workflow_id, after)?;
    each(store, workflow_id, after, previous, &mut |mut event| {
        for slot in event.fact.slots_mut() {
            fill(store, slot)?;
        }
        events.push(event);
        Ok(true)
    })?;
    Ok(events)
}

/// The chain hash at a version: what the next event stands behind.
fn hash_at(store: &dyn Store, workflow_id: &str, version: Version) -> Result<Hash, LoadError> {
    if version == 0 {
        return Ok(Hash::ZERO);
    }
    let there = store.read(workflow_id, version - 1, 1)?;
    Ok(there.first().filter(|recorded| recorded.version == version).map_or(Hash::ZERO, |r| r.hash))
}

/// Hands over the events above a version in order, each checked against the hash before it, until
/// there are no more or `take` says that it has enough.
fn each(
    store: &dyn Store,
    workflow_id: &str,
    after: Version,
    mut previous: Hash,
    take: &mut dyn FnMut(Event) -> Result<bool, LoadError>,
) -> Result<(), LoadError> {
    let mut last = after;
    loop {
        let page = store.read(workflow_id, last, PAGE)?;
        for recorded in &page {
            verify_chain(previous, recorded)
                .map_err(|reason| LoadError::Quarantined { version: recorded.version, reason })?;
            (previous, last) = (recorded.hash, recorded.version);
            if !take(decode(recorded)?)? {
                return Ok(());
            }
        }
        if page.len() < PAGE {
            return Ok(());
        }
    }
}

/// The state of a workflow at a version (the newest when `None`), its values at hand; `None` when
/// there are no events.
///
/// # Errors
/// When the log breaks the law, or the store fails.
pub fn state_at(
    store: &dyn Store,
    workflow_id: &str,
    at: Option<Version>,
) -> Result<Option<WorkflowState>, LoadError> {
    let at = at.unwrap_or(Version::MAX);
    let (mut state, previous) = match from_snapshot(store, workflow_id, at)? {
        Some(proven) => proven,
        None => (WorkflowState::empty(workflow_id), Hash::ZERO),
    };
    each(store, workflow_id, state.version, previous, &mut |event| {
        if event.version > at {
            return Ok(false);
        }
        state
            .admits(&event)
            .map_err(|e| LoadError::Quarantined { version: e.version, reason: e.to_string() })?;
        state.apply(&event);
        Ok(true)
    })?;
    if state.version == 0 {
        return Ok(None);
    }
    hydrate(store, &mut state)?;
    Ok(Some(state))
}

/// A snapshot is used only when all of it matches: the state's shape, its fingerprint, and the
/// hash of the event it was taken at, which comes with it. Anything else is dropped, and the log
/// wins.
fn from_snapshot(
    store: &dyn Store,
    workflow_id: &str,
    at: Version,
) -> Result<Option<(WorkflowState, Hash)>, LoadError> {
    let Some(snapshot) = store.snapshot(workflow_id, at)? else {
        return Ok(None);
    };
    if snapshot.state_schema != STATE_SCHEMA || snapshot.fingerprint != Hash::of_bytes(&snapshot.state) {
        return Ok(None);
    }
    let there = store.read(workflow_id, snapshot.version - 1, 1)?;
    let matches =
        there.first().is_some_and(|r| r.version == snapshot.version && r.hash == snapshot.event_hash);
    let state = serde_json::from_slice::<WorkflowState>(&snapshot.state).ok();
    let is_its = |s: &WorkflowState| s.version == snapshot.version && *s.workflow_id == *workflow_id;
    Ok(state.filter(|s| matches && is_its(s)).map(|s| (s, snapshot.event_hash)))
}

/// Brings the values that a state refers to.
///
/// # Errors
/// When the store fails, or a payload is not what its hash says.
pub fn hydrate(store: &dyn Store, state: &mut WorkflowState) -> Result<(), LoadError> {
    let mut failed = None;
    state.visit_slots(&mut |slot| {
        if let Err(error) = fill(store, slot) {
            failed.get_or_insert(error);
        }
    });
    failed.map_or(Ok(()), Err)
}

fn fill(store: &dyn Store, slot: &mut Slot) -> Result<(), LoadError> {
    let Slot::Stored(stored) = slot else {
        return Ok(());
    };
    if stored.value.is_some() {
        return Ok(());
    }
    let broken = |what: &str| {
        LoadError::Store(StoreError {
            message: format!("payload {} {what}", stored.hash),
            hint: Some("`foldback audit` shows all that is damaged; restore the file from a backup".into()),
            is_input: false,
        })
    };
    let payload = store.payload(0, &stored.hash)?.ok_or_else(|| broken("is missing"))?;
    if Hash::of_bytes(&payload.bytes) != stored.hash {
        return Err(broken("is damaged: its bytes have another hash"));
    }
    let value: Value = serde_json::from_slice(&payload.bytes).map_err(|_| broken("is no JSON"))?;
    stored.value = Some(Arc::new(value));
    Ok(())
}
