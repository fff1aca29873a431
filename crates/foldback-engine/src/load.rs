//! From the store to a state: read, check the chain, decode, fold, fill. The only reads of the loop.
//!
//! Invariant: no event is folded whose hash does not follow from the event before it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::Builder;

use foldback_core::event::clock_of;
use foldback_core::listen::Fate;
use foldback_core::lists::Shown;
use foldback_core::report::iso;
use foldback_core::state::STATE_SCHEMA;
use foldback_core::undo::Armed;
use foldback_core::value::Slot;
use foldback_core::{Event, Fact, Hash, Illegal, Version, WorkflowState};
use foldback_store::chain::{verify_link, verify_payload};
use foldback_store::{Recorded, Snapshot, Store, StoreError, Tombstone};
use serde_json::{Value, json};

/// How payloads are coded.
const CODEC: &str = "json";

/// Events fetched at a time: few enough to be folded while they are in the cache.
const PAGE: usize = 256;

/// Pages that are read before they are asked for.
const PAGES_AHEAD: usize = 2;

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
    /// A value without which the workflow cannot go on was erased.
    Erased {
        /// Where the state needs it, in words.
        place: String,
        /// What stands in its place.
        tombstone: Box<Tombstone>,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Store(error) => error.fmt(f),
            LoadError::Quarantined { version, reason } => write!(f, "version {version}: {reason}"),
            LoadError::Erased { place, tombstone } => {
                write!(f, "{place} was erased {} by {}", iso(tombstone.at), tombstone.actor)?;
                if tombstone.reason.is_empty() { Ok(()) } else { write!(f, ": {}", tombstone.reason) }
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl From<Illegal> for LoadError {
    fn from(illegal: Illegal) -> LoadError {
        LoadError::Quarantined { version: illegal.version, reason: illegal.to_string() }
    }
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> LoadError {
        LoadError::Store(error)
    }
}

/// An event as the fold reads it, from one as the log holds it.
///
/// # Errors
/// A shape, a codec or a seal that this build cannot read.
pub fn decode(recorded: &Recorded) -> Result<Event, LoadError> {
    let written = &recorded.event;
    let unreadable = |reason: String| LoadError::Quarantined { version: recorded.version, reason };
    if &*written.codec != CODEC {
        return Err(unreadable(format!(
            "its payload is coded as `{}`, which this build cannot read",
            written.codec
        )));
    }
    if let Some(key_id) = &written.key_id {
        return Err(unreadable(format!(
            "its payload is sealed with the key `{key_id}`, which this build cannot open"
        )));
    }
    let fact = Fact::decode(&written.event_type, written.schema_version, &written.payload)
        .map_err(|e| unreadable(e.to_string()))?;
    Ok(Event {
        id: written.id,
        version: recorded.version,
        timestamp: written.timestamp,
        causation_id: written.causation_id,
        correlation_id: written.correlation_id,
        actor: written.actor.clone(),
        clock: clock_of(&written.payload),
        fact,
    })
}

/// What a reader is shown where a value was erased.
pub fn marker(tombstone: &Tombstone) -> Value {
    let Tombstone { at, actor, reason, bytes, .. } = tombstone;
    json!({"erased": {"at": iso(*at), "by": actor, "reason": reason, "bytes": bytes}})
}

/// The events of a workflow above a version, their values at hand. Where one was erased, its
/// [`marker`] stands: these events are for reading.
///
/// # Errors
/// As [`decode`], and when the store fails.
pub fn events_of(store: &dyn Store, workflow_id: &str, after: Version) -> Result<Vec<Event>, LoadError> {
    let mut events = Vec::new();
    let mut lists = shown_at(store, workflow_id, after)?;
    let previous = hash_at(store, workflow_id, after)?;
    each(store, workflow_id, after, previous, &mut |mut event| {
        lists.complete(&mut event);
        for slot in event.fact.slots_mut() {
            if let Some(tombstone) = fill(store, slot)? {
                show_erased(slot, &tombstone);
            }
        }
        events.push(event);
        Ok(true)
    })?;
    Ok(events)
}

/// The lists that asks behind a version may go on from.
fn shown_at(store: &dyn Store, workflow_id: &str, version: Version) -> Result<Shown, LoadError> {
    if version == 0 {
        return Ok(Shown::default());
    }
    let state = fold(store, workflow_id, Some(version))?;
    Ok(state.map(|state| Shown::from(&state.lists)).unwrap_or_default())
}

/// The chain hash at a version: what the next event stands behind.
pub(crate) fn hash_at(store: &dyn Store, workflow_id: &str, version: Version) -> Result<Hash, LoadError> {
    if version == 0 {
        return Ok(Hash::ZERO);
    }
    let there = store.read(workflow_id, version - 1, 1)?;
    Ok(there.first().filter(|recorded| recorded.version == version).map_or(Hash::ZERO, |r| r.hash))
}

/// Hands over the events above a version in order, each checked against the hash before it, until
/// there are no more or `take` says that it has enough.
pub(crate) fn each(
    store: &dyn Store,
    workflow_id: &str,
    after: Version,
    mut previous: Hash,
    take: &mut dyn FnMut(Event) -> Result<bool, LoadError>,
) -> Result<(), LoadError> {
    each_page(store, workflow_id, after, &mut |page| {
        for recorded in &page.events {
            verify_link(previous, recorded).map_err(|reason| broken(recorded, reason))?;
            previous = recorded.hash;
            if !take(decode(recorded)?)? {
                return Ok(false);
            }
        }
        page.broken.map_or(Ok(true), Err)
    })
}

fn broken(recorded: &Recorded, reason: String) -> LoadError {
    LoadError::Quarantined { version: recorded.version, reason }
}

/// Some events of a log, each with the payload that was written.
struct Page {
    events: Vec<Recorded>,
    /// Why there are no more of them: the next one's payload is another.
    broken: Option<LoadError>,
    /// The last version, if there may be more behind it.
    goes_on: Option<Version>,
}

impl Page {
    fn read(store: &dyn Store, workflow_id: &str, after: Version) -> Result<Page, LoadError> {
        let mut events = store.read(workflow_id, after, PAGE)?;
        let goes_on = events.last().map(|last| last.version).filter(|_| events.len() == PAGE);
        let wrong = events.iter().enumerate().find_map(|(i, recorded)| {
            let reason = verify_payload(recorded).err()?;
            Some((i, broken(recorded, reason)))
        });
        let broken = wrong.map(|(i, error)| {
            events.truncate(i);
            error
        });
        Ok(Page { events, broken, goes_on })
    }
}

/// Hands over the pages of a log above a version, until `take` says that it has enough. What lies behind
/// the first is read on a thread of its own while the page before is folded: either takes about as long.
fn each_page(
    store: &dyn Store,
    workflow_id: &str,
    after: Version,
    take: &mut dyn FnMut(Page) -> Result<bool, LoadError>,
) -> Result<(), LoadError> {
    let first = Page::read(store, workflow_id, after)?;
    let Some(mut last) = first.goes_on else {
        return take(first).map(drop);
    };
    std::thread::scope(|scope| {
        let (hand_over, pages) = sync_channel(PAGES_AHEAD);
        let read_on = move || loop {
            let page = Page::read(store, workflow_id, last);
            let goes_on = page.as_ref().ok().and_then(|page| page.goes_on);
            let is_unwanted = hand_over.send(page).is_err();
            match goes_on {
                Some(version) if !is_unwanted => last = version,
                _ => return,
            }
        };
        Builder::new().name("foldback-reader".into()).spawn_scoped(scope, read_on).map_err(no_thread)?;
        if !take(first)? {
            return Ok(());
        }
        for page in pages {
            if !take(page?)? {
                return Ok(());
            }
        }
        Ok(())
    })
}

fn no_thread(error: std::io::Error) -> LoadError {
    LoadError::Store(StoreError {
        message: format!("no thread to read with: {error}"),
        hint: None,
        is_input: false,
    })
}

/// The state of a workflow at a version (the newest when `None`), its values at hand; `None` when
/// there are no events.
///
/// # Errors
/// When the log breaks the law, a value was erased, or the store fails.
pub fn state_at(
    store: &dyn Store,
    workflow_id: &str,
    at: Option<Version>,
) -> Result<Option<WorkflowState>, LoadError> {
    let mut folded = fold(store, workflow_id, at)?;
    if let Some(state) = &mut folded {
        hydrate(store, state)?;
    }
    Ok(folded)
}

/// As [`state_at`], for going on: kept signals that nothing listens for stay where they are.
///
/// # Errors
/// As [`state_at`].
pub(crate) fn state_to_go_on(
    store: &dyn Store,
    workflow_id: &str,
    at: Option<Version>,
) -> Result<Option<WorkflowState>, LoadError> {
    let mut folded = fold(store, workflow_id, at)?;
    if let Some(state) = &mut folded {
        hydrate_by(store, state, &WorkflowState::visit_needed_slots)?;
    }
    Ok(folded)
}

/// Brings the signals that a state listens for.
///
/// # Errors
/// As [`hydrate`].
pub(crate) fn bring_signals(store: &dyn Store, state: &mut WorkflowState) -> Result<(), LoadError> {
    hydrate_by(store, state, &WorkflowState::visit_awaited_signals)
}

/// The name of the signal that came at a version, and why it was refused, where that stands in the page behind it.
///
/// # Errors
/// When the log cannot be read, or the store fails.
pub(crate) fn signal_at(
    store: &dyn Store,
    workflow_id: &str,
    signal: Version,
) -> Result<(Arc<str>, Option<String>), LoadError> {
    let (mut name, mut refused) = (Arc::from(""), None);
    for recorded in store.read(workflow_id, signal.saturating_sub(1), PAGE)? {
        let fact = decode(&recorded)?.fact;
        if let Fact::SignalReceived(came) = &fact
            && recorded.version == signal
        {
            name = came.name.clone();
        }
        if let Fact::SignalRefused { signal: of, reason, .. } = fact
            && of == signal
        {
            refused = Some(reason);
        }
    }
    Ok((name, refused))
}

/// Whether a signal that came at a version was taken, and then left behind where its workflow went back: its
/// log has it, and nothing will hear it again.
///
/// # Errors
/// When the log cannot be read, or the store fails.
pub(crate) fn is_left_behind(
    store: &dyn Store,
    workflow_id: &str,
    signal: Version,
) -> Result<bool, LoadError> {
    let mut fate = Fate::of(signal);
    let previous = hash_at(store, workflow_id, signal)?;
    each(store, workflow_id, signal, previous, &mut |event| {
        fate.read(&event);
        Ok(true)
    })?;
    Ok(fate.is_lost())
}

/// As [`state_at`], for reading alone: where a value was erased, its [`marker`] stands. No program
/// may see this state.
///
/// # Errors
/// When the log breaks the law, or the store fails.
pub fn state_seen(
    store: &dyn Store,
    workflow_id: &str,
    at: Option<Version>,
) -> Result<Option<WorkflowState>, LoadError> {
    let mut folded = fold(store, workflow_id, at)?;
    if let Some(state) = &mut folded {
        each_slot(state, &WorkflowState::visit_slots, &mut |slot| {
            if let Some(tombstone) = fill(store, slot)? {
                show_erased(slot, &tombstone);
            }
            Ok(())
        })?;
    }
    Ok(folded)
}

/// The state at a version, values not at hand.
pub(crate) fn fold(
    store: &dyn Store,
    workflow_id: &str,
    at: Option<Version>,
) -> Result<Option<WorkflowState>, LoadError> {
    let state = fold_from(store, workflow_id, at.unwrap_or(Version::MAX), &mut BTreeMap::new())?;
    Ok(Some(state).filter(|state| state.version > 0))
}

/// The state at a version from the log alone, values not at hand: what a snapshot has to prove itself
/// against.
///
/// # Errors
/// When the log breaks the law, or the store fails.
pub fn replayed(store: &dyn Store, workflow_id: &str, at: Version) -> Result<WorkflowState, LoadError> {
    let mut events = Vec::new();
    each(store, workflow_id, 0, Hash::ZERO, &mut |event| {
        let is_wanted = event.version <= at;
        if is_wanted {
            events.push(event);
        }
        Ok(is_wanted)
    })?;
    Ok(WorkflowState::fold(workflow_id, &events)?)
}

/// As [`fold`]. Where the log goes back to an earlier version, the state there is folded once and kept.
fn fold_from(
    store: &dyn Store,
    workflow_id: &str,
    at: Version,
    bases: &mut BTreeMap<Version, WorkflowState>,
) -> Result<WorkflowState, LoadError> {
    let (mut state, previous) = match proven_snapshot(store, workflow_id, at)? {
        Some(proven) => proven,
        None => (WorkflowState::empty(workflow_id), Hash::ZERO),
    };
    each(store, workflow_id, state.version, previous, &mut |event| {
        if event.version > at {
            return Ok(false);
        }
        let version = event.version;
        state.take(&event, &mut |earlier| base(store, workflow_id, earlier, version, bases))?;
        Ok(true)
    })?;
    Ok(state)
}

/// The state that a log goes back to at `version`.
fn base(
    store: &dyn Store,
    workflow_id: &str,
    earlier: Version,
    version: Version,
    bases: &mut BTreeMap<Version, WorkflowState>,
) -> Result<WorkflowState, LoadError> {
    if let Some(known) = bases.get(&earlier) {
        return Ok(known.clone());
    }
    if earlier >= version {
        let reason = format!("it goes back to version {earlier}, which is not behind it");
        return Err(LoadError::Quarantined { version, reason });
    }
    let state = fold_from(store, workflow_id, earlier, bases)?;
    bases.insert(earlier, state.clone());
    Ok(state)
}

/// The newest snapshot at or before a version that proves itself. A fork may use its parent's, up to
/// the cut: the past is the same.
fn proven_snapshot(
    store: &dyn Store,
    workflow_id: &str,
    at: Version,
) -> Result<Option<(WorkflowState, Hash)>, LoadError> {
    let (mut whose, mut at_most) = (workflow_id.to_owned(), at);
    loop {
        while let Some(snapshot) = store.snapshot(&whose, at_most)? {
            if let Some((mut state, hash)) = proven(store, workflow_id, &snapshot)? {
                state.workflow_id = Arc::from(workflow_id);
                return Ok(Some((state, hash)));
            }
            // One that does not prove itself is dropped; an older one may.
            at_most = match snapshot.version {
                0 | 1 => break,
                version => version - 1,
            };
        }
        match store.workflow(&whose)?.and_then(|row| row.parent) {
            Some((parent, cut, _)) => (whose, at_most) = (parent, at.min(at_most).min(cut)),
            None => return Ok(None),
        }
    }
}

/// A snapshot is used only when all of it matches: the state's shape, its fingerprint, and the
/// hash of the event it was taken at, which comes with it. Anything else is dropped, and the log
/// wins.
fn proven(
    store: &dyn Store,
    workflow_id: &str,
    snapshot: &Snapshot,
) -> Result<Option<(WorkflowState, Hash)>, LoadError> {
    if snapshot.state_schema != STATE_SCHEMA || snapshot.fingerprint != Hash::of_bytes(&snapshot.state) {
        return Ok(None);
    }
    let there = store.read(workflow_id, snapshot.version.saturating_sub(1), 1)?;
    let matches =
        there.first().is_some_and(|r| r.version == snapshot.version && r.hash == snapshot.event_hash);
    let state = serde_json::from_slice::<WorkflowState>(&snapshot.state).ok();
    let is_its = |s: &WorkflowState| s.version == snapshot.version && s.workflow_id == snapshot.workflow_id;
    Ok(state.filter(|s| matches && is_its(s)).map(|s| (s, snapshot.event_hash)))
}

/// Brings the values that a state refers to.
///
/// # Errors
/// When the store fails, a value was erased, or a payload is not what its hash says.
pub fn hydrate(store: &dyn Store, state: &mut WorkflowState) -> Result<(), LoadError> {
    hydrate_by(store, state, &WorkflowState::visit_slots)
}

/// Visits slots of a state.
type Visit = dyn Fn(&mut WorkflowState, &mut dyn FnMut(&mut Slot));

fn hydrate_by(store: &dyn Store, state: &mut WorkflowState, visit: &Visit) -> Result<(), LoadError> {
    // Nothing is decided by them: where one was erased, its marker stands.
    each_slot(state, &WorkflowState::visit_slots_of_ends, &mut |slot| fill_seen(store, slot))?;
    let mut erased = None;
    each_slot(state, visit, &mut |slot| {
        if let (Some(tombstone), None) = (fill(store, slot)?, &erased) {
            erased = Some(tombstone);
        }
        Ok(())
    })?;
    match erased {
        None => Ok(()),
        Some(tombstone) => {
            let place = place_of(state, &tombstone.hash);
            Err(LoadError::Erased { place, tombstone: Box::new(tombstone) })
        }
    }
}

fn each_slot(
    state: &mut WorkflowState,
    visit: &Visit,
    take: &mut dyn FnMut(&mut Slot) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut failed = None;
    visit(state, &mut |slot| {
        if failed.is_none() {
            failed = take(slot).err();
        }
    });
    failed.map_or(Ok(()), Err)
}

/// Where a state refers to a value, in words.
fn place_of(state: &WorkflowState, hash: &Hash) -> String {
    let is_it = |slot: &Slot| matches!(slot, Slot::Stored(stored) if stored.hash == *hash);
    if is_it(&state.input) {
        return "its input".to_owned();
    }
    for (key, entry) in &state.entries {
        // What an entry holds stands in its own JSON by its address.
        if serde_json::to_string(entry).is_ok_and(|text| text.contains(&hash.to_hex())) {
            return format!("a value of `{key}`");
        }
    }
    match is_it(&state.context) {
        true => "its `$context`".to_owned(),
        false => "a value that goes on to the next task".to_owned(),
    }
}

fn show_erased(slot: &mut Slot, tombstone: &Tombstone) {
    if let Slot::Stored(stored) = slot {
        stored.value = Some(Arc::new(marker(tombstone)));
    }
}

/// Brings a slot's value for reading: where it was erased, its [`marker`] stands.
pub(crate) fn fill_seen(store: &dyn Store, slot: &mut Slot) -> Result<(), LoadError> {
    if let Some(tombstone) = fill(store, slot)? {
        show_erased(slot, &tombstone);
    }
    Ok(())
}

/// Brings a slot's value; what stands in its place where it was erased.
///
/// # Errors
/// The store fails, or the payload is missing or damaged.
pub fn fill(store: &dyn Store, slot: &mut Slot) -> Result<Option<Tombstone>, LoadError> {
    let Slot::Stored(stored) = slot else {
        return Ok(None);
    };
    if stored.value.is_some() {
        return Ok(None);
    }
    let broken = |what: &str| {
        LoadError::Store(StoreError {
            message: format!("payload {} {what}", stored.hash),
            hint: Some("`foldback audit` shows all that is damaged; restore the file from a backup".into()),
            is_input: false,
        })
    };
    let Some(payload) = store.payload(0, &stored.hash)? else {
        let tombstone = store.tombstone(0, &stored.hash)?;
        return tombstone.map(Some).ok_or_else(|| broken("is missing"));
    };
    if Hash::of_bytes(&payload.bytes) != stored.hash {
        return Err(broken("is damaged: its bytes have another hash"));
    }
    stored.value = Some(Arc::new(stored.read(&payload.bytes).map_err(|_| broken("is no JSON"))?));
    Ok(None)
}

/// The undo that was armed at a version of a workflow's own log, checked, its values at hand.
///
/// # Errors
/// The log cannot be read, or is not what it says.
pub fn armed_at(store: &dyn Store, workflow_id: &str, version: Version) -> Result<Armed, LoadError> {
    let there = store.read(workflow_id, version.saturating_sub(1), 1)?;
    let recorded = there.first().filter(|recorded| recorded.version == version);
    let missing = || LoadError::Quarantined { version, reason: "no undo was armed there".into() };
    let recorded = recorded.ok_or_else(missing)?;
    verify_payload(recorded).map_err(|reason| broken(recorded, reason))?;
    let Fact::UndoArmed(undo) = decode(recorded)?.fact else { return Err(missing()) };
    let mut armed = Armed { undo: *undo, is_erased: false };
    for slot in std::iter::once(&mut armed.undo.undo).chain(&mut armed.undo.output) {
        armed.is_erased |= fill(store, slot)?.is_some();
    }
    Ok(armed)
}
