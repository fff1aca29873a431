//! The hash chain: what an event's hashes must be, given the hash before it.
//!
//! It never reads a store; `audit` hands it one event after the other.

use foldback_core::hash::Link;
use foldback_core::{Hash, Version};

use crate::contract::{NewEvent, Recorded};

/// The chain hash of an event that stands behind `previous`.
pub(crate) fn link(
    previous: &Hash,
    workflow_id: &str,
    tenant: &str,
    version: Version,
    event: &NewEvent,
    payload_hash: &Hash,
) -> Hash {
    Link {
        previous,
        workflow_id,
        version,
        id: &event.id.0,
        event_type: &event.event_type,
        schema_version: event.schema_version,
        timestamp: event.timestamp,
        causation_id: event.causation_id.as_ref().map_or(&[], |id| &id.0),
        correlation_id: event.correlation_id.as_ref().map_or(&[], |id| &id.0),
        actor: &event.actor,
        tenant,
        codec: &event.codec,
        key_id: event.key_id.as_deref().unwrap_or(""),
        payload_hash,
    }
    .hash()
}

/// Whether an event is what was written behind `previous` ([`Hash::ZERO`] before a first event).
/// A fork's first own event stands behind its parent's at the cut, under the parent's id until
/// there.
///
/// # Errors
/// What does not match, in words.
pub fn verify_chain(previous: Hash, recorded: &Recorded) -> Result<(), String> {
    verify_payload(recorded)?;
    verify_link(previous, recorded)
}

/// Whether the payload is the one that was written: the half of [`verify_chain`] that needs nothing but
/// the event.
///
/// # Errors
/// That it is not, in words.
pub fn verify_payload(recorded: &Recorded) -> Result<(), String> {
    let Recorded { workflow_id, version, event, payload_hash, .. } = recorded;
    if Hash::of_bytes(event.payload.as_bytes()) != *payload_hash {
        return Err(format!("{workflow_id} version {version}: the payload is not the one that was written"));
    }
    Ok(())
}

/// Whether the event stands behind `previous`: the other half.
///
/// # Errors
/// That it does not, in words.
pub fn verify_link(previous: Hash, recorded: &Recorded) -> Result<(), String> {
    let Recorded { workflow_id, version, event, tenant, payload_hash, hash, .. } = recorded;
    if link(&previous, workflow_id, tenant, *version, event, payload_hash) != *hash {
        return Err(format!(
            "{workflow_id} version {version}: the hash does not match the event and the one before it"
        ));
    }
    Ok(())
}
