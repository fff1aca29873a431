//! What is said to the projections: add one, make one anew. The same from the process that owns the
//! shard and from another one: it lies in the inbox, and whoever owns the shard carries it out.
//!
//! An order changes the registry and nothing else. What it asks for, a version made beside the live
//! one, is done by the projector's next steps, here or in a later process.

use foldback_core::projection::built_in;
use foldback_store::{Commit, ProjectionRow, StoreResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Projector;
use crate::command::Refusal;

/// What is said to the projections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Add a projection, or put another version in its place.
    Add {
        /// Its file.
        source: String,
    },
    /// Make the rows of a projection anew.
    Rebuild {
        /// Its name.
        name: String,
    },
}

/// An order that was carried out, durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// The projection.
    pub name: String,
    /// The version of it that is made, or is there.
    pub version: String,
    /// Whether there was something to be done.
    pub is_new: bool,
}

/// The answer to an order.
pub type OrderAnswer = Result<Ordered, Refusal>;

/// An order as it lies in the inbox.
#[derive(Serialize, Deserialize)]
pub(crate) struct Letter {
    pub projection: Order,
}

/// Whether what lies in the inbox is said to the projections, and not to the loop.
pub(crate) fn is_order(body: &Value) -> bool {
    body.get("projection").is_some()
}

impl Projector {
    /// Carries out what the inbox holds for the projections. How many orders that were.
    pub(super) fn take_orders(&mut self) -> StoreResult<usize> {
        let changes = Some(self.store.change_counter()?);
        if changes == self.inbox_seen {
            return Ok(0);
        }
        self.inbox_seen = changes;
        let rows = self.store.commands(self.shard)?.into_iter().filter(|row| is_order(&row.body));
        let mut taken = 0;
        for row in rows {
            let (answer, versions) = match serde_json::from_value::<Letter>(row.body) {
                Ok(letter) => self.judge(letter.projection),
                Err(error) => (
                    Err(Refusal::new(
                        format!(
                            "the owner of this store cannot read what is said to its projections: {error}"
                        ),
                        "are both processes of the same version?",
                    )),
                    None,
                ),
            };
            let mut commit = self.commit();
            commit.consumed = vec![(row.id, serde_json::to_value(&answer).unwrap_or_default())];
            commit.projections.extend(versions);
            let is_changed = !commit.projections.is_empty();
            self.write(commit)?;
            if is_changed {
                self.take_up()?;
            }
            taken += 1;
        }
        Ok(taken)
    }

    /// The answer to an order, and the versions of its projection from there on, where it changes them.
    fn judge(&mut self, order: Order) -> (OrderAnswer, Option<(String, Vec<ProjectionRow>)>) {
        match self.next_version(order) {
            Err(refusal) => (Err(refusal), None),
            Ok((next, is_new)) => {
                let ordered = Ordered { name: next.name.clone(), version: next.version.clone(), is_new };
                let name = next.name.clone();
                let live = self.tracks.iter().map(|track| &track.row).find(|r| r.name == name && r.is_live);
                let versions = live.cloned().into_iter().chain([next]).collect();
                (Ok(ordered), is_new.then_some((name, versions)))
            }
        }
    }

    /// The version that an order asks for, and whether it is to be made.
    fn next_version(&mut self, order: Order) -> Result<(ProjectionRow, bool), Refusal> {
        let (name, version, source) = match order {
            Order::Add { source } => {
                let made = self.programs.projection(&source);
                let made =
                    made.map_err(|e| Refusal::new(format!("the owner of this store refuses it: {e}"), ""))?;
                if built_in().iter().any(|known| known.name() == made.name()) {
                    return Err(Refusal::new(
                        format!("`{}` is a projection that every store has", made.name()),
                        "give yours another name",
                    ));
                }
                (made.name().to_owned(), made.version().to_owned(), Some(source))
            }
            Order::Rebuild { name } => (name, String::new(), None),
        };
        // The newest version: one that is being made, or else the live one.
        let newest = self.tracks.iter().map(|track| &track.row).filter(|row| row.name == name);
        let newest = newest.min_by_key(|row| row.is_live).cloned();
        let (version, source, is_wanted) = match (source, newest.as_ref()) {
            (Some(source), Some(newest)) => {
                (version, source.clone(), newest.source != source || newest.failure.is_some())
            }
            (Some(source), None) => (version, source, true),
            // One that is being made already is not begun anew.
            (None, Some(newest)) => {
                let is_wanted = newest.is_live || newest.failure.is_some();
                (newest.version.clone(), newest.source.clone(), is_wanted)
            }
            (None, None) => return Err(unknown(&name, self.names())),
        };
        match newest {
            Some(newest) if !is_wanted => Ok((newest, false)),
            _ => {
                let rows = self.fresh_rows(&name);
                Ok((ProjectionRow { name, is_live: false, version, source, rows, failure: None }, true))
            }
        }
    }

    /// A name under which no rows ever stood: the epoch is this owner's alone.
    pub(super) fn fresh_rows(&mut self, name: &str) -> String {
        self.serial += 1;
        format!("{name}#{}.{}", self.epoch, self.serial)
    }

    pub(super) fn commit(&self) -> Commit {
        Commit { shard: self.shard, epoch: self.epoch, ..Commit::default() }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tracks.iter().map(|track| track.row.name.clone()).collect();
        names.dedup();
        names
    }
}

/// The refusal where there is no projection of this name.
pub fn unknown(name: &str, known: Vec<String>) -> Refusal {
    let near = foldback_core::report::nearest(name, known.iter().map(String::as_str));
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", known.join(", ")),
    };
    Refusal::new(format!("no projection `{name}` in this store"), hint)
}
