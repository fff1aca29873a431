//! From the store to events: find a workflow, read its log, judge it, bring its values.
//!
//! Reading never gives up on a whole log because of one bad event: what obeys the law is there,
//! and where it ends is said. Values that are missing are named, never made up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldback::core::lists::Shown;
use foldback::core::report::nearest;
use foldback::core::{Event, Hash, Illegal, Slot, StoredRef, Version, WorkflowState};
use foldback::engine::load;
use foldback::store::chain::verify_chain;
use foldback::store::{Filter, Recorded, Store, Tombstone, WorkflowRow};
use serde_json::Value;

use crate::args::{Cli, quoted};
use crate::error::Error;
use crate::out::say;

/// Events fetched at a time.
const PAGE: usize = 1_024;
/// Ids among which a mistyped one is sought.
const IDS_SOUGHT: usize = 5_000;
/// Bytes of values that are kept while a log is read.
const KEPT_BYTES: u64 = 64 * 1024 * 1024;

/// The store that the command line names; it must exist.
///
/// # Errors
/// There is none, or it is none.
pub fn open(cli: &Cli) -> Result<Arc<dyn Store>, Error> {
    Ok(foldback::store::open_existing(&cli.store_url())?)
}

/// A workflow's row.
///
/// # Errors
/// Nothing has this id: with the ones most like it.
pub fn row(cli: &Cli, store: &dyn Store, id: &str) -> Result<WorkflowRow, Error> {
    if let Some(row) = store.workflow(id)? {
        return Ok(row);
    }
    let known = store.workflows(&Filter { limit: IDS_SOUGHT, ..Filter::default() })?;
    let hint = match nearest(id, known.iter().map(|row| &*row.workflow_id)) {
        Some(near) => format!("did you mean `{near}`? `{} list` shows all", cli.again()),
        None if known.is_empty() => {
            format!("the store is empty: `{} run FILE` starts a workflow", cli.again())
        }
        None => format!("`{} list` shows what there is", cli.again()),
    };
    Err(Error::input(format!("no workflow `{id}` in {}", cli.store_url()), hint))
}

/// Where a log stops obeying the law, or stops being readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The version at which it does.
    pub version: Version,
    /// How.
    pub reason: String,
}

/// A log that was read.
pub struct Log {
    /// The workflow's row.
    pub row: WorkflowRow,
    /// Its events, as far as they obey the law.
    pub events: Vec<Event>,
    /// Where that ends, if it ends before the log does.
    pub broken: Option<Broken>,
}

impl Log {
    /// The events up to a version as a person names it; all when nobody names one.
    ///
    /// # Errors
    /// No such version, or one behind the place where the log breaks the law.
    pub fn up_to(&self, cli: &Cli, version: Option<&str>) -> Result<&[Event], Error> {
        let Some(text) = version else {
            return Ok(&self.events);
        };
        let resolved = crate::moment::resolve(text, &self.events).map_err(|mut error| {
            if let Some(broken) = &self.broken {
                error.hint = Some(broken_hint(cli, &self.row, broken));
            }
            error.hint =
                error.hint.map(|hint| hint.replace(" ID", &format!(" {}", quoted(&self.row.workflow_id))));
            error
        })?;
        let end = self.events.partition_point(|event| event.version <= resolved);
        Ok(&self.events[..end])
    }

    /// What is wrong with the log, when something is and these events run up to it.
    pub fn trouble(&self, cli: &Cli, shown: &[Event]) -> Option<Error> {
        let broken = self.broken.as_ref().filter(|_| shown.len() == self.events.len())?;
        Some(Error::no(
            format!("the log of `{}` is quarantined: {}", self.row.workflow_id, broken.reason),
            broken_hint(cli, &self.row, broken),
        ))
    }
}

fn broken_hint(cli: &Cli, row: &WorkflowRow, broken: &Broken) -> String {
    let (again, id) = (cli.again(), quoted(&row.workflow_id));
    format!(
        "versions up to {} can be read; `{again} events {id}` prints them all, `{again} audit {id}` checks them",
        broken.version - 1
    )
}

/// Reads a workflow's log and judges it.
///
/// # Errors
/// Nothing has this id, or the store fails.
pub fn read(cli: &Cli, store: &dyn Store, id: &str) -> Result<Log, Error> {
    let row = row(cli, store, id)?;
    let (mut events, mut broken) = (Vec::new(), None);
    let mut state = WorkflowState::empty(id);
    let mut previous = Hash::ZERO;
    let mut lists = Shown::default();
    pages(store, id, 0, &mut |page| {
        for recorded in page {
            let judgement =
                verify_chain(previous, recorded).and_then(|()| judged(&mut state, &events, recorded));
            previous = recorded.hash;
            match judgement {
                Ok(mut event) => {
                    lists.complete(&mut event);
                    events.push(event);
                }
                Err(reason) => {
                    broken = Some(Broken { version: recorded.version, reason });
                    return Ok(false);
                }
            }
        }
        Ok(true)
    })?;
    Ok(Log { row, events, broken })
}

/// An event as the fold reads it, after it was applied.
///
/// # Errors
/// It cannot be read, or breaks the law.
fn judged(state: &mut WorkflowState, before: &[Event], recorded: &Recorded) -> Result<Event, String> {
    let event = load::decode(recorded).map_err(|e| e.to_string())?;
    let id = state.workflow_id.clone();
    let base = &mut |version| Ok::<_, Illegal>(WorkflowState::folded(&id, up_to(before, version)));
    state.take(&event, base).map_err(|e| e.to_string())?;
    Ok(event)
}

/// The events up to and with a version.
pub fn up_to(events: &[Event], version: Version) -> &[Event] {
    &events[..events.partition_point(|event| event.version <= version)]
}

/// Calls `take` with the events above a version, page by page, until it wants no more.
///
/// # Errors
/// When the store fails, or `take` does.
pub fn pages(
    store: &dyn Store,
    id: &str,
    after: Version,
    take: &mut dyn FnMut(&[Recorded]) -> Result<bool, Error>,
) -> Result<Version, Error> {
    let mut last = after;
    loop {
        let page = store.read(id, last, PAGE)?;
        last = page.last().map_or(last, |recorded| recorded.version);
        let wants_more = page.is_empty() || take(&page)?;
        if page.len() < PAGE || !wants_more {
            return Ok(last);
        }
    }
}

/// What a person is shown where a value was erased.
pub fn erased(tombstone: &Tombstone) -> String {
    let at = crate::moment::with_seconds(tombstone.at);
    let reason = &tombstone.reason;
    if reason.is_empty() { format!("[erased {at}]") } else { format!("[erased {at}: {reason}]") }
}

/// Brings values that lie beside the log. What was erased reads as a marker, what is missing is none.
pub struct Values<'a> {
    store: &'a dyn Store,
    shard: u32,
    is_json: bool,
    kept: HashMap<(Hash, Option<Arc<str>>), Arc<Value>>,
    kept_bytes: u64,
    missing: BTreeSet<Hash>,
}

impl<'a> Values<'a> {
    /// For a workflow of this row.
    pub fn of(cli: &Cli, store: &'a dyn Store, row: &WorkflowRow) -> Values<'a> {
        let (shard, is_json) = (row.shard, cli.json);
        Values { store, shard, is_json, kept: HashMap::new(), kept_bytes: 0, missing: BTreeSet::new() }
    }

    /// Fills every slot of these events.
    ///
    /// # Errors
    /// When the store fails; a value that is missing or damaged is none, see [`Values::told`].
    pub fn fill_all(&mut self, events: &mut [Event]) -> Result<(), Error> {
        for event in events {
            self.fill_event(event)?;
        }
        Ok(())
    }

    /// Fills every slot of an event.
    ///
    /// # Errors
    /// When the store fails.
    pub fn fill_event(&mut self, event: &mut Event) -> Result<(), Error> {
        event.fact.slots_mut().into_iter().try_for_each(|slot| self.fill(slot))
    }

    /// Fills every slot of a state.
    ///
    /// # Errors
    /// When the store fails.
    pub fn fill_state(&mut self, state: &mut WorkflowState) -> Result<(), Error> {
        let mut result = Ok(());
        state.visit_slots(&mut |slot| {
            if result.is_ok() {
                result = self.fill(slot);
            }
        });
        result
    }

    fn fill(&mut self, slot: &mut Slot) -> Result<(), Error> {
        let Slot::Stored(stored) = slot else {
            return Ok(());
        };
        if stored.value.is_some() || self.missing.contains(&stored.hash) {
            return Ok(());
        }
        // The same bytes may be a value of one type here, and of another there.
        let as_what = (stored.hash, stored.media_type.clone());
        if let Some(value) = self.kept.get(&as_what) {
            stored.value = Some(value.clone());
            return Ok(());
        }
        let Some(value) = self.bring(stored)?.map(Arc::new) else {
            self.missing.insert(stored.hash);
            return Ok(());
        };
        if self.kept_bytes > KEPT_BYTES {
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.kept_bytes += stored.bytes;
        self.kept.insert(as_what, value.clone());
        stored.value = Some(value);
        Ok(())
    }

    fn bring(&self, stored: &StoredRef) -> Result<Option<Value>, Error> {
        let Some(payload) = self.store.payload(self.shard, &stored.hash)? else {
            let tombstone = self.store.tombstone(self.shard, &stored.hash)?;
            return Ok(tombstone.map(|tombstone| match self.is_json {
                true => load::marker(&tombstone),
                false => Value::String(erased(&tombstone)),
            }));
        };
        let is_it = Hash::of_bytes(&payload.bytes) == stored.hash;
        Ok(is_it.then(|| stored.read(&payload.bytes).ok()).flatten())
    }

    /// Says on stderr which values were missing.
    pub fn told(self, cli: &Cli) {
        let Some(first) = self.missing.first() else {
            return;
        };
        say(format!(
            "warning: {} value(s) are missing or damaged and read null, such as {first}; `{} audit` names them all",
            self.missing.len(),
            cli.again()
        ));
    }
}
