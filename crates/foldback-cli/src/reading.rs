//! From the store to events: find a workflow, read its log, judge it, bring its values.
//!
//! Reading never gives up on a whole log because of one bad event: what obeys the law is there,
//! and where it ends is said. Values that are missing are named, never made up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldback::core::report::{Ahead, FORKED, REOPENED, Resolving, nearest};
use foldback::core::text::shell_word;
use foldback::core::{Event, Fact, Hash, Slot, StoredRef, Version, WorkflowState};
use foldback::engine::{load, state_seen};
use foldback::store::chain::verify_chain;
use foldback::store::{Filter, Recorded, Store, Tombstone, WorkflowRow};
use serde_json::Value;

use crate::args::Cli;
use crate::error::Error;
use crate::out::say;

/// Events fetched at a time.
const PAGE: usize = 1_024;
/// Ids among which a mistyped one is sought.
const IDS_SOUGHT: usize = 5_000;
/// Bytes of values that are kept while a log is read.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;

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
    if let Some(pruned) = store.pruned(id)? {
        let (at, by) = (crate::moment::with_seconds(pruned.pruned_at), &pruned.actor);
        return Err(Error::input(
            format!(
                "`{id}` was pruned at {at} by {by}: it ended `{}` at version {}",
                pruned.status, pruned.versions.1
            ),
            format!("its log is gone; `{} list` shows what there is", cli.again()),
        ));
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

fn broken_hint(cli: &Cli, row: &WorkflowRow, broken: &Broken) -> String {
    let (again, id) = (cli.again(), shell_word(&row.workflow_id));
    format!(
        "versions up to {} can be read; `{again} events {id}` prints them all, `{again} audit {id}` checks them",
        broken.version - 1
    )
}

/// What a walk through a log came to.
pub struct Walked {
    /// The state behind its last event.
    pub state: WorkflowState,
    /// Where the log stops obeying the law, if that is where the walk ended.
    pub broken: Option<Broken>,
}

/// A visit at an event, with the state before it.
pub type Visit<'a> = &'a mut dyn FnMut(&WorkflowState, &Event) -> Result<(), Error>;

/// Walks through a log up to a version without holding it: each event is judged, shown to `visit` with the
/// state before it, and folded. With `values`, each has its values at hand.
///
/// # Errors
/// The store fails, or `visit` does. That the log breaks the law is no error, see [`Walked::broken`].
pub fn walk(
    store: &dyn Store,
    id: &str,
    to: Version,
    mut values: Option<&mut Values<'_>>,
    visit: Visit<'_>,
) -> Result<Walked, Error> {
    let (mut state, mut broken) = (WorkflowState::empty(id), None);
    let mut previous = Hash::ZERO;
    pages(store, id, 0, &mut |page| {
        for recorded in page {
            let version = recorded.version;
            if version > to {
                return Ok(false);
            }
            let event = verify_chain(previous, recorded)
                .and_then(|()| load::decode(recorded).map_err(|e| e.to_string()));
            previous = recorded.hash;
            let mut event = match event {
                Ok(event) => event,
                Err(reason) => {
                    broken = Some(Broken { version, reason });
                    return Ok(false);
                }
            };
            // Only an event that goes back changes the state before it is judged.
            let mut left = None;
            if let Some(earlier) = event.fact.goes_back_to().filter(|earlier| *earlier <= state.version) {
                let base = state_seen(store, id, Some(earlier)).map_err(|e| Error::machine(e.to_string()))?;
                left = Some(state.clone());
                state.rewind(base.unwrap_or_else(|| WorkflowState::empty(id)));
            }
            if let Err(illegal) = state.admits(&event) {
                broken = Some(Broken { version, reason: illegal.to_string() });
                if let Some(left) = left {
                    state = left;
                }
                return Ok(false);
            }
            state.complete(&mut event);
            if let Some(values) = &mut values {
                values.fill_event(&mut event)?;
            }
            visit(left.as_ref().unwrap_or(&state), &event)?;
            state.apply(&event);
        }
        Ok(true)
    })?;
    Ok(Walked { state, broken })
}

/// Reads ahead what a log says late of what stands before.
///
/// # Errors
/// The store fails.
pub fn ahead(store: &dyn Store, id: &str, to: Version) -> Result<Ahead, Error> {
    let mut ahead = Ahead::default();
    pages(store, id, 0, &mut |page| {
        for recorded in page.iter().filter(|recorded| recorded.version <= to) {
            if matches!(&*recorded.event.event_type, REOPENED | FORKED)
                && let Ok(event) = load::decode(recorded)
            {
                ahead.read(&event);
            }
        }
        Ok(page.last().is_some_and(|last| last.version < to))
    })?;
    Ok(ahead)
}

/// The version up to which a person wants to read: as named, or the last one.
///
/// # Errors
/// No such version, or one behind the place where the log breaks the law.
pub fn version(
    cli: &Cli,
    store: &dyn Store,
    row: &WorkflowRow,
    text: Option<&str>,
) -> Result<Version, Error> {
    text.map_or(Ok(Version::MAX), |text| version_of(cli, store, row, text, &|_| true))
}

/// The version that a text names among the events that count.
///
/// # Errors
/// As [`version`].
pub fn version_of(
    cli: &Cli,
    store: &dyn Store,
    row: &WorkflowRow,
    text: &str,
    counts: &dyn Fn(Version) -> bool,
) -> Result<Version, Error> {
    let mut resolving = Resolving::new(crate::moment::spec(text)?);
    let walked = walk(store, &row.workflow_id, Version::MAX, None, &mut |_, event| {
        if counts(event.version) {
            resolving.read(event);
        }
        Ok(())
    })?;
    resolving.finish().map_err(|unresolved| {
        let mut error = Error::from(unresolved);
        if let Some(broken) = &walked.broken {
            error.hint = Some(broken_hint(cli, row, broken));
        }
        error.hint =
            error.hint.map(|hint| hint.replace(" ID", &format!(" {}", shell_word(&row.workflow_id))));
        error
    })
}

/// The trouble of a log that stops obeying the law where a walk ended.
pub fn trouble(cli: &Cli, row: &WorkflowRow, walked: &Walked) -> Option<Error> {
    let broken = walked.broken.as_ref()?;
    Some(Error::no(
        format!("the log of `{}` is quarantined: {}", row.workflow_id, broken.reason),
        broken_hint(cli, row, broken),
    ))
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
    wants: Box<dyn Fn(&Fact) -> bool + 'a>,
}

impl<'a> Values<'a> {
    /// For a workflow of this row.
    pub fn of(cli: &Cli, store: &'a dyn Store, row: &WorkflowRow) -> Values<'a> {
        let (shard, is_json) = (row.shard, cli.json);
        let (kept, missing, wants) = (HashMap::new(), BTreeSet::new(), Box::new(|_: &Fact| true));
        Values { store, shard, is_json, kept, kept_bytes: 0, missing, wants }
    }

    /// Only of these facts; the slots of others stay as they are.
    pub fn only(self, wants: impl Fn(&Fact) -> bool + 'a) -> Values<'a> {
        Values { wants: Box::new(wants), ..self }
    }

    /// Fills every slot of an event.
    ///
    /// # Errors
    /// When the store fails.
    pub fn fill_event(&mut self, event: &mut Event) -> Result<(), Error> {
        if !(self.wants)(&event.fact) {
            return Ok(());
        }
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
