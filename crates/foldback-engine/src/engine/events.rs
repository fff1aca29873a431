//! Events of other workflows: each is handed once to who listened for its type when it was committed.
//!
//! What nothing there has a use for is not kept. An event stays in the inbox where its workflow cannot
//! be brought into memory here: another process, or a mended store, takes it up.

use std::sync::Arc;

use foldback_core::listen::Heed;
use foldback_core::{Slot, Stimulus};

use super::endings::keeps_too_many;
use super::orders::unreadable;
use super::{Engine, ReplyTo};
use crate::command::Refusal;
use crate::load::{self, LoadError};

impl Engine {
    /// Hands a workflow an event. `None`: not in this life of the engine.
    pub(super) fn hand_event(
        &mut self,
        id: &Arc<str>,
        name: Arc<str>,
        (source, mut data): (Arc<str>, Slot),
        actor: &str,
        from: &ReplyTo,
    ) -> Option<Result<bool, Refusal>> {
        if let Err(refusal) = self.take_up(id) {
            let is_final = refusal.needs_erased || self.row(id).is_ok_and(|row| row.is_none());
            return is_final.then_some(Err(refusal));
        }
        match load::fill(&*self.around.store, &mut data) {
            Ok(None) => {}
            Ok(Some(tombstone)) => {
                let error = LoadError::Erased { place: format!("`{name}`"), tombstone: Box::new(tombstone) };
                return Some(Err(unreadable(id, &error)));
            }
            Err(_) => return None,
        }
        let bytes = data.bytes();
        let data = Arc::unwrap_or_clone(data.get());
        let event = Stimulus::Signal { name, data, source: Some(source), event_id: None, error: None };
        let now = self.clocks().wall;
        // In the middle of a turn nobody can tell yet what it will have a use for.
        let is_turning = self.cut.contains(id);
        let live = self.live.get_mut(id)?;
        if live.state.end.is_some() {
            return Some(Ok(false));
        }
        match if is_turning { Heed::Later } else { live.heed(event.clone(), now) } {
            Heed::None => return Some(Ok(false)),
            Heed::Later if !live.state.may_keep(bytes) => {
                return Some(Err(keeps_too_many(id, &live.state)));
            }
            Heed::Now | Heed::Later => {}
        }
        Some(self.say_or_refuse(id, event, actor, from))
    }
}
