//! Erasing and pruning in memory: the same promises, but for the one about the disk.

use foldback_core::Hash;

use super::{Inner, Memory, Stream};
use crate::contract::{Recorded, StoreResult};
use crate::forgetting::{Erasure, Forget, NotForgotten, Pruned, Pruning, Swept, Tombstone, runs, strike};

impl Forget for Memory {
    fn erase(&self, erasure: &Erasure) -> Result<Tombstone, NotForgotten> {
        let mut inner = self.inner();
        inner.is_owners(erasure.shard, erasure.epoch)?;
        let Some(payload) = inner.payloads.remove(&erasure.hash) else {
            return inner.tombstones.get(&erasure.hash).cloned().ok_or(NotForgotten::NotThere);
        };
        let tombstone = Tombstone {
            hash: payload.hash,
            media_type: payload.media_type,
            bytes: payload.bytes.len() as u64,
            at: erasure.at,
            actor: erasure.actor.clone(),
            reason: erasure.reason.clone(),
        };
        inner.tombstones.insert(payload.hash, tombstone.clone());
        let address = payload.hash.to_hex();
        inner.snapshots.retain(|_, snapshot| !String::from_utf8_lossy(&snapshot.state).contains(&address));
        inner.changes += 1;
        Ok(tombstone)
    }

    fn tombstone(&self, shard: u32, hash: &Hash) -> StoreResult<Option<Tombstone>> {
        let inner = self.inner();
        let is_gone = shard == 0 && !inner.payloads.contains_key(hash);
        Ok(inner.tombstones.get(hash).filter(|_| is_gone).cloned())
    }

    fn prune(&self, pruning: &Pruning) -> Result<Pruned, NotForgotten> {
        let mut inner = self.inner();
        inner.is_owners(pruning.shard, pruning.epoch)?;
        let id = pruning.workflow_id.clone();
        let n = *inner.numbers.get(&id).ok_or(NotForgotten::NotThere)?;
        let pruned = inner.signed_off(pruning, &inner.workflows[&n])?;
        inner.pruned.insert(id.clone(), pruned.clone());
        inner.log.retain(|_, recorded| recorded.workflow_id != id);
        inner.snapshots.retain(|(of, _), _| *of != id);
        inner.supplied.retain(|_, (of, _)| *of != n);
        inner.listeners.retain(|(_, of)| *of != n);
        inner.workflows.remove(&n);
        inner.numbers.remove(&id);
        inner.changes += 1;
        Ok(pruned)
    }

    fn pruned(&self, workflow_id: &str) -> StoreResult<Option<Pruned>> {
        Ok(self.inner().pruned.get(workflow_id).cloned())
    }

    fn sweep(&self, shard: u32, epoch: u64) -> Result<Swept, NotForgotten> {
        let mut inner = self.inner();
        inner.is_owners(shard, epoch)?;
        let mut orphans = inner.payloads.keys().chain(inner.tombstones.keys()).copied().collect();
        inner.log.values().for_each(|recorded| strike(&mut orphans, &recorded.event.payload));
        // What is on its way to a workflow stands in no log yet.
        let open = inner.inbox.iter().filter(|(_, answer)| answer.is_none());
        open.for_each(|(command, _)| strike(&mut orphans, &command.body.to_string()));
        let mut swept = Swept::default();
        for hash in orphans {
            inner.tombstones.remove(&hash);
            if let Some(payload) = inner.payloads.remove(&hash) {
                swept.payloads += 1;
                swept.bytes += payload.bytes.len() as u64;
            }
        }
        inner.changes += 1;
        Ok(swept)
    }
}

impl Inner {
    fn is_owners(&self, shard: u32, epoch: u64) -> Result<(), NotForgotten> {
        let actual = if shard == 0 { self.epoch } else { 0 };
        if epoch == 0 || epoch != actual { Err(NotForgotten::StaleEpoch { actual }) } else { Ok(()) }
    }

    /// The row that a workflow would leave, or why it stays.
    fn signed_off(&self, pruning: &Pruning, stream: &Stream) -> Result<Pruned, NotForgotten> {
        let row = &stream.row;
        let events: Vec<&Recorded> =
            stream.own.iter().filter_map(|position| self.log.get(position)).collect();
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err(NotForgotten::NotThere);
        };
        let is_child = |other: &&Stream| {
            other.row.parent.as_ref().is_some_and(|(parent, ..)| **parent == *row.workflow_id)
        };
        let forks: Vec<String> =
            self.workflows.values().filter(is_child).map(|fork| fork.row.workflow_id.to_string()).collect();
        let ended_at = last.event.timestamp;
        if !crate::forgetting::PRUNABLE.contains(&row.status.as_str()) {
            return Err(NotForgotten::NotEnded { status: row.status.clone() });
        }
        if ended_at >= pruning.before {
            return Err(NotForgotten::TooYoung { ended_at });
        }
        if !forks.is_empty() {
            return Err(NotForgotten::HasForks { forks });
        }
        Ok(Pruned {
            workflow_id: row.workflow_id.clone(),
            definition: row.definition,
            name: row.name.clone(),
            parent: row.parent.as_ref().map(|(parent, cut, _)| (parent.clone(), *cut)),
            status: row.status.clone(),
            started_at: row.started_at,
            ended_at,
            versions: (first.version, last.version),
            hash: last.hash,
            positions: runs(stream.own.iter().copied()),
            pruned_at: pruning.at,
            actor: pruning.actor.clone(),
        })
    }
}
