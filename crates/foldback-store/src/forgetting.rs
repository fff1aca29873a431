//! Forgetting: what may be taken out of a store again, and what stands in its place.
//!
//! A payload can be *erased*: a tombstone says who did it, when and why. The hash chain covers the
//! payload's hash, so it goes on to verify. A whole workflow that has ended can be *pruned*: one
//! signed-off row in `pruned` says what it was and where it lay. Everything else in a store is
//! there for good.
//!
//! Invariants: nothing is forgotten but under the shard's present epoch; an unfinished workflow and
//! the past of a living fork are never pruned; a pruned id is never begun again, since its
//! idempotency keys would repeat. What it does not do: look for the same bytes elsewhere, in a
//! request that holds a part of them, in a backup.

use std::collections::HashSet;
use std::sync::Arc;

use foldback_core::{Hash, Micros, Version};

use crate::contract::{Filter, Store, StoreError, StoreResult, WorkflowRow};

/// Statuses with which a workflow may be pruned. One that is parked or quarantined has ended too, but
/// somebody has to look at it first.
pub(crate) const PRUNABLE: [&str; 4] = ["completed", "failed", "cancelled", "compensated"];

/// Events read at a time.
const PAGE: usize = 4_096;

/// One payload to be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The shard.
    pub shard: u32,
    /// The epoch under which the caller owns it.
    pub epoch: u64,
    /// The payload's address.
    pub hash: Hash,
    /// When.
    pub at: Micros,
    /// Who asks for it.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
}

/// What stands where a payload was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The payload's address.
    pub hash: Hash,
    /// What its bytes were.
    pub media_type: String,
    /// How many there were.
    pub bytes: u64,
    /// When they were erased.
    pub at: Micros,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// One workflow to be pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruning {
    /// The shard.
    pub shard: u32,
    /// The epoch under which the caller owns it.
    pub epoch: u64,
    /// Which.
    pub workflow_id: Arc<str>,
    /// Only if its last event is older.
    pub before: Micros,
    /// When.
    pub at: Micros,
    /// Who asks for it.
    pub actor: String,
}

/// The signed-off row that a pruned workflow leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// Its id, which is never given out again.
    pub workflow_id: Arc<str>,
    /// The hash of its definition, which stays.
    pub definition: Option<Hash>,
    /// What a person calls the definition.
    pub name: String,
    /// For a fork: parent and cut.
    pub parent: Option<(String, Version)>,
    /// How it ended.
    pub status: String,
    /// When its first event was written.
    pub started_at: Micros,
    /// When its last event was written.
    pub ended_at: Micros,
    /// Its events' versions: first and last.
    pub versions: (Version, Version),
    /// The chain hash of its last event.
    pub hash: Hash,
    /// The positions that are empty since: first and last of each run, in order.
    pub positions: Vec<(u64, u64)>,
    /// When it was pruned.
    pub pruned_at: Micros,
    /// By whom.
    pub actor: String,
}

/// What a sweep took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many payloads.
    pub payloads: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// Why nothing was forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotForgotten {
    /// The shard has another owner now.
    StaleEpoch {
        /// The present epoch.
        actual: u64,
    },
    /// There is no such payload or workflow.
    NotThere,
    /// The workflow has not ended.
    NotEnded {
        /// Where it stands.
        status: String,
    },
    /// Its last event is not old enough.
    TooYoung {
        /// When that was written.
        ended_at: Micros,
    },
    /// Others share its past.
    HasForks {
        /// Which.
        forks: Vec<String>,
    },
    /// The store failed.
    Failed(StoreError),
}

impl From<StoreError> for NotForgotten {
    fn from(error: StoreError) -> NotForgotten {
        NotForgotten::Failed(error)
    }
}

/// The part of a store that can forget.
pub trait Forget: Send + Sync {
    /// Puts a tombstone where a payload was, and drops the snapshots that refer to it. When this
    /// returns, the bytes are gone from the files, the write-ahead log included. What is erased
    /// already stays as it is.
    ///
    /// # Errors
    /// There is no such payload; another owner; the store failed.
    fn erase(&self, erasure: &Erasure) -> Result<Tombstone, NotForgotten>;

    /// The tombstone of a payload that was erased and not brought anew since.
    ///
    /// # Errors
    /// The store failed.
    fn tombstone(&self, shard: u32, hash: &Hash) -> StoreResult<Option<Tombstone>>;

    /// Takes a whole ended workflow away, but for its signed-off row. Its payloads stay until the
    /// next [`Forget::sweep`].
    ///
    /// # Errors
    /// Why it stays: each has a name, see [`NotForgotten`].
    fn prune(&self, pruning: &Pruning) -> Result<Pruned, NotForgotten>;

    /// The signed-off row of a workflow.
    ///
    /// # Errors
    /// The store failed.
    fn pruned(&self, workflow_id: &str) -> StoreResult<Option<Pruned>>;

    /// Takes away payloads, and tombstones, whose address stands in no event any more.
    ///
    /// # Errors
    /// Another owner; the store failed.
    fn sweep(&self, shard: u32, epoch: u64) -> Result<Swept, NotForgotten>;
}

/// What a `prune` would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Workflows that would be pruned, forks before their parents, each with the time of its last
    /// event.
    pub prunable: Vec<(WorkflowRow, Micros)>,
    /// Workflows that are old enough and have ended, and stay: each with the forks that live.
    pub kept: Vec<(Arc<str>, Vec<Arc<str>>)>,
}

/// Plans what `prune` would take away: workflows that ended before a moment and whose forks go with
/// them.
///
/// # Errors
/// The store failed.
pub fn plan(store: &dyn Store, before: Micros) -> StoreResult<Plan> {
    let mut plan = Plan::default();
    let mut living: Vec<(String, Arc<str>)> = Vec::new();
    // Newest first: a fork comes before its parent.
    for row in store.workflows(&Filter::default())? {
        let forks: Vec<Arc<str>> = living
            .iter()
            .filter(|(parent, _)| **parent == *row.workflow_id)
            .map(|(_, id)| id.clone())
            .collect();
        let ended_at = match PRUNABLE.contains(&row.status.as_str()) {
            true => last_written(store, &row)?.filter(|at| *at < before),
            false => None,
        };
        match ended_at {
            Some(at) if forks.is_empty() => {
                plan.prunable.push((row, at));
                continue;
            }
            Some(_) => plan.kept.push((row.workflow_id.clone(), forks)),
            None => {}
        }
        if let Some((parent, ..)) = row.parent {
            living.push((parent, row.workflow_id));
        }
    }
    Ok(plan)
}

/// Plans to take away these workflows, whatever their age: all of them, or none.
///
/// # Errors
/// The first that has to stay, and why: there is none of that name, it has not ended, its last event is
/// not older than `before`, or a fork of it stays.
pub fn plan_named(store: &dyn Store, ids: &[String], before: Micros) -> Result<Plan, (String, NotForgotten)> {
    let failed = |error: StoreError| (String::new(), NotForgotten::Failed(error));
    let is_named = |id: &str| ids.iter().any(|named| named == id);
    let rows = store.workflows(&Filter::default()).map_err(failed)?;
    if let Some(id) = ids.iter().find(|id| !rows.iter().any(|row| *row.workflow_id == ***id)) {
        return Err((id.clone(), NotForgotten::NotThere));
    }
    let mut plan = Plan::default();
    // Newest first: a fork comes before its parent.
    for row in rows.iter().filter(|row| is_named(&row.workflow_id)) {
        let stays = |why| Err((row.workflow_id.to_string(), why));
        if !PRUNABLE.contains(&row.status.as_str()) {
            return stays(NotForgotten::NotEnded { status: row.status.clone() });
        }
        let ended_at = last_written(store, row).map_err(failed)?.unwrap_or(row.started_at);
        if ended_at >= before {
            return stays(NotForgotten::TooYoung { ended_at });
        }
        let is_fork = |other: &&WorkflowRow| {
            let parent = other.parent.as_ref().map(|(parent, ..)| parent.as_str());
            parent == Some(&*row.workflow_id) && !is_named(&other.workflow_id)
        };
        let forks: Vec<String> =
            rows.iter().filter(is_fork).map(|fork| fork.workflow_id.to_string()).collect();
        if !forks.is_empty() {
            return stays(NotForgotten::HasForks { forks });
        }
        plan.prunable.push((row.clone(), ended_at));
    }
    Ok(plan)
}

fn last_written(store: &dyn Store, row: &WorkflowRow) -> StoreResult<Option<Micros>> {
    let last = store.read(&row.workflow_id, row.version.saturating_sub(1), 1)?;
    Ok(last.first().map(|recorded| recorded.event.timestamp))
}

/// Where a payload's address stands: each workflow with its number of events. Reads the whole log.
///
/// # Errors
/// The store failed.
pub fn mentions(store: &dyn Store, shard: u32, hash: &Hash) -> StoreResult<Vec<(Arc<str>, u64)>> {
    let address = hash.to_hex();
    let mut found: Vec<(Arc<str>, u64)> = Vec::new();
    let mut after = 0;
    loop {
        let page = store.feed(shard, after, PAGE)?;
        for recorded in page.iter().filter(|recorded| recorded.event.payload.contains(&address)) {
            match found.iter_mut().find(|(id, _)| *id == recorded.workflow_id) {
                Some((_, events)) => *events += 1,
                None => found.push((recorded.workflow_id.clone(), 1)),
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = last.position,
            _ => return Ok(found),
        }
    }
}

/// Takes from `candidates` every address that stands in a text: 64 hexadecimal digits in a row.
pub(crate) fn strike(candidates: &mut HashSet<Hash>, text: &str) {
    const DIGITS: usize = 64;
    let mut start = None;
    let bytes = text.as_bytes();
    for at in 0..=bytes.len() {
        let is_digit = bytes.get(at).is_some_and(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match (is_digit, start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                if at - from == DIGITS
                    && let Ok(hash) = text[from..at].parse::<Hash>()
                {
                    candidates.remove(&hash);
                }
                start = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

/// Positions in order, as runs of first and last.
pub(crate) fn runs(positions: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for position in positions {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == position => *last = position,
            _ => runs.push((position, position)),
        }
    }
    runs
}

/// Whether positions and the runs that were pruned are together 1, 2, 3 … up to the head, each once;
/// what is wrong, in words.
pub(crate) fn density(
    head: u64,
    positions: impl IntoIterator<Item = u64>,
    mut pruned: Vec<(u64, u64)>,
) -> Option<String> {
    pruned.sort_unstable();
    let mut pruned = pruned.into_iter().peekable();
    let mut due = 1;
    for position in positions {
        while let Some((first, last)) = pruned.next_if(|(first, _)| *first < position) {
            if first != due || last >= position {
                return Some(gap(due, first, last));
            }
            due = last + 1;
        }
        if position != due {
            return Some(format!("position {due} is missing: the next event is at {position}"));
        }
        due += 1;
    }
    for (first, last) in pruned {
        if first != due {
            return Some(gap(due, first, last));
        }
        due = last + 1;
    }
    (due != head + 1).then(|| format!("its head is {head}, its last event is at position {}", due - 1))
}

fn gap(due: u64, first: u64, last: u64) -> String {
    format!("position {due} was due where positions {first} to {last} are said to be pruned")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_what_was_pruned_make_one_dense_row() {
        type Case = (u64, &'static [u64], &'static [(u64, u64)], bool);
        let cases: [Case; 11] = [
            (0, &[], &[], true),
            (3, &[1, 2, 3], &[], true),
            (5, &[2, 5], &[(3, 4), (1, 1)], true),
            (5, &[1, 2], &[(3, 5)], true),
            (5, &[], &[(1, 2), (3, 5)], true),
            (4, &[1, 2, 3], &[], false),
            (3, &[1, 3], &[], false),
            (3, &[1, 2, 3], &[(2, 2)], false),
            (3, &[1, 3], &[(2, 3)], false),
            (3, &[1, 2], &[(2, 3)], false),
            (4, &[1, 2], &[(4, 4)], false),
        ];
        for (head, positions, pruned, is_dense) in cases {
            let problem = density(head, positions.iter().copied(), pruned.to_vec());
            assert_eq!(problem.is_none(), is_dense, "{head} {positions:?} {pruned:?}: {problem:?}");
        }
        assert_eq!(runs([1, 2, 5, 7, 8, 9]), [(1, 2), (5, 5), (7, 9)]);
    }

    #[test]
    fn an_address_is_found_wherever_it_stands() {
        let [a, b, c] = ["a", "b", "c"].map(|text| Hash::of_bytes(text.as_bytes()));
        let mut candidates = HashSet::from([a, b, c]);
        strike(&mut candidates, &format!("{{\"ref\":\"{a}\",\"x\":\"0{b}\"}} {c}"));
        assert_eq!(candidates, HashSet::from([b]), "65 digits are another text");
    }
}
