//! The pasts of a workflow that was forked or went back: what is recorded there of each step, found
//! once and kept, and the outcomes themselves, read when they are taken.
//!
//! Invariant: what is taken from a past was checked against the chain of its log.

use std::sync::Arc;

use foldback_core::change::Past;
use foldback_core::reuse::{Asked, Outcome, Outcomes, Recorded};
use foldback_core::{Key, Version, WorkflowState};
use foldback_store::Store;
use foldback_store::chain::verify_payload;

use crate::load::{LoadError, decode, each, fill, fold, hash_at};

/// What the pasts of one workflow say.
pub struct Pasts {
    store: Arc<dyn Store>,
    known: Vec<(Past, Outcomes)>,
}

impl Pasts {
    /// Nothing read yet.
    pub fn new(store: Arc<dyn Store>) -> Pasts {
        Pasts { store, known: Vec::new() }
    }

    /// Reads a past, unless it was read before.
    fn read(&mut self, past: &Past) -> Result<&Outcomes, LoadError> {
        if let Some(at) = self.known.iter().position(|(known, _)| known == past) {
            return Ok(&self.known[at].1);
        }
        let store = &*self.store;
        let cut = fold(store, &past.workflow, Some(past.after))?;
        let mut outcomes = cut.as_ref().map(Outcomes::behind).unwrap_or_default();
        let previous = hash_at(store, &past.workflow, past.after)?;
        each(store, &past.workflow, past.after, previous, &mut |event| {
            let is_past = event.version <= past.up_to;
            if is_past {
                outcomes.see(&event);
            }
            Ok(is_past)
        })?;
        self.known.push((past.clone(), outcomes));
        Ok(&self.known[self.known.len() - 1].1)
    }
}

impl Recorded for Pasts {
    type Error = LoadError;

    fn asked(&mut self, state: &WorkflowState, key: &Key) -> Result<Vec<Vec<Asked>>, LoadError> {
        let pasts = state.rules.iter().flat_map(|rules| &rules.pasts);
        pasts.map(|past| Ok(self.read(past)?.of(key).to_vec())).collect()
    }

    fn writes(&mut self, state: &WorkflowState) -> Result<Vec<Key>, LoadError> {
        match state.rules.as_ref().and_then(|rules| rules.pasts.first()) {
            Some(past) => Ok(self.read(past)?.writes().cloned().collect()),
            None => Ok(Vec::new()),
        }
    }

    fn outcome(
        &mut self,
        state: &WorkflowState,
        past: usize,
        version: Version,
    ) -> Result<Option<Outcome>, LoadError> {
        let Some(past) = state.rules.as_ref().and_then(|rules| rules.pasts.get(past)) else {
            return Ok(None);
        };
        let there = self.store.read(&past.workflow, version.saturating_sub(1), 1)?;
        let Some(recorded) = there.first().filter(|recorded| recorded.version == version) else {
            return Ok(None);
        };
        verify_payload(recorded).map_err(|reason| LoadError::Quarantined { version, reason })?;
        let Some(mut outcome) = Outcome::of(&recorded.workflow_id, &decode(recorded)?) else {
            return Ok(None);
        };
        let erased = match &mut outcome.outcome {
            Ok(output) => fill(&*self.store, output)?,
            Err(failure) => match failure.slots_mut().next() {
                Some(detail) => fill(&*self.store, detail)?,
                None => None,
            },
        };
        Ok(erased.is_none().then_some(outcome))
    }
}
