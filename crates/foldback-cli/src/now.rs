//! A workflow at this moment, beyond what its log says: whether any process owns its store, and which of
//! its waits are overdue. It reads the clock and the lock, and no log.

use foldback::core::{Key, Micros, Status, WorkflowState};
use foldback::store::{Store, WorkflowRow};

use crate::error::Error;
use crate::moment::{span, with_seconds};
use crate::prune;

/// This moment.
#[derive(Clone, Copy)]
pub struct Now {
    /// The time of day.
    pub at: Micros,
    /// True where a process owns the store: only an owner moves workflows. `None` where this process may not
    /// look.
    pub is_owned: Option<bool>,
}

impl Now {
    /// This moment, for the workflows of a store.
    ///
    /// # Errors
    /// The lock of the store cannot be read.
    pub fn of(store: &dyn Store) -> Result<Now, Error> {
        Ok(Now { at: prune::now(), is_owned: store.is_owned(0)? })
    }

    /// True where it is known that no process owns the store.
    pub fn is_unowned(&self) -> bool {
        self.is_owned == Some(false)
    }

    /// True where a workflow of this status would move if a process ran it, and none does.
    pub fn interrupts(&self, status: &str) -> bool {
        self.is_unowned()
            && [Status::Running, Status::Compensating].iter().any(|moving| moving.as_str() == status)
    }

    /// True where the moment at which a workflow is to wake has passed.
    pub fn is_overdue(&self, row: &WorkflowRow) -> bool {
        row.wake_at.is_some_and(|at| at < self.at)
    }
}

/// `until` a moment, as seen from now; without a now, as seen from some version of the past.
pub fn until(due: Micros, now: Option<Now>) -> String {
    let at = with_seconds(due);
    match now {
        Some(now) if due < now.at => {
            let ago = u64::try_from(now.at.saturating_sub(due)).unwrap_or(0) / 1_000;
            let why = if now.is_unowned() { "; nobody runs it" } else { "" };
            format!("until {at}, {} ago{why}", span(ago))
        }
        _ => format!("until {at}"),
    }
}

/// The deadline of what stands at a key, in words that follow a name; nothing where it has none.
pub fn deadline(state: &WorkflowState, key: &Key, now: Option<Now>) -> String {
    state.deadline(key).map(|due| format!(", {}", until(due, now))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_moment_can_be_told() {
        let now = Some(Now { at: 1_769_850_900_000_000, is_owned: Some(true) });
        assert!(until(i64::MIN, now).contains(" ago"), "{}", until(i64::MIN, now));
        assert!(!until(i64::MAX, now).contains(" ago"), "{}", until(i64::MAX, now));
        let before_all = Some(Now { at: i64::MIN, is_owned: None });
        assert!(!until(i64::MAX, before_all).contains(" ago"));
    }
}
