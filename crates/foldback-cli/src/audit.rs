//! `audit`: whether the log is what was written. Hashes, gaps, payloads, the law, snapshots, what a
//! workflow's row says of its log; and below them whatever the store itself finds.
//!
//! It changes nothing and repairs nothing. It goes on after the first problem of a workflow, as
//! far as what follows can still be judged.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldback::core::asked::{Hashed, Requests};
use foldback::core::value::{Payload, StoredRef};
use foldback::core::{Event, Fact, Hash, Micros, Slot, Status, Version, WorkflowState};
use foldback::engine::load;
use foldback::programs::definition_hash;
use foldback::store::chain::verify_chain;
use foldback::store::{Filter, Recorded, Store, WorkflowRow};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::{AuditArgs, Cli};
use crate::error::{Error, Exit};
use crate::moment::with_seconds;
use crate::out::{Ink, Line, Out};
use crate::reading;

/// Problems that are told of one workflow; more of them say nothing new.
const PROBLEMS_MAX: usize = 20;

/// One thing that is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Problem {
    /// In which workflow; `None` below the level of workflows.
    workflow_id: Option<Arc<str>>,
    /// At which version.
    version: Option<Version>,
    /// What is wrong.
    problem: String,
}

/// Checks workflows and the store they lie in.
///
/// # Errors
/// No such workflow, or the store fails.
pub fn audit(cli: &Cli, args: &AuditArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let store = &*store;
    let mut below = store.check()?;
    let rows = match args.ids.is_empty() {
        true => store.workflows(&Filter::default()).or_else(|error| {
            // In a damaged file this too is a finding, not a failure.
            if below.is_empty() {
                return Err(error);
            }
            if !below.contains(&error.message) {
                below.push(error.message);
            }
            Ok(Vec::new())
        })?,
        false => args.ids.iter().map(|id| reading::row(cli, store, id)).collect::<Result<_, _>>()?,
    };
    let mut problems: Vec<Problem> =
        below.into_iter().map(|problem| Problem { workflow_id: None, version: None, problem }).collect();
    let is_damaged = !problems.is_empty();
    let mut events = 0u64;
    let mut known = Known::default();
    for row in &rows {
        let mut audit = Audit::of(store, row, &mut known);
        match audit.run() {
            Ok(count) => events += count,
            // The file is damaged: that this log cannot be read is one more finding.
            Err(error) if is_damaged => audit.problem(None, error.message),
            Err(error) => return Err(error),
        }
        problems.append(&mut audit.problems);
    }
    let mut out = Out::new();
    if cli.json {
        let (workflows, erased, unchecked) = (rows.len(), known.erased, known.unchecked);
        out.json(&json!({
            "workflows": workflows, "events": events, "erased": erased, "not_checkable": unchecked, "problems": problems,
        }))?;
    } else {
        let s = |count: u64| if count == 1 { "" } else { "s" };
        let count = rows.len() as u64;
        let mut summary = format!("{count} workflow{}, {events} event{}", s(count), s(events));
        if known.erased > 0 {
            summary += &format!(", {} values erased", known.erased);
        }
        if known.unchecked > 0 {
            let noun = if known.unchecked == 1 { "request" } else { "requests" };
            summary += &format!(", {} {noun} not checkable: erased", known.unchecked);
        }
        print(&mut out, &summary, &problems)?;
    }
    out.flush()?;
    Ok(if problems.is_empty() { Exit::Done } else { Exit::No })
}

fn print(out: &mut Out, summary: &str, problems: &[Problem]) -> Result<(), Error> {
    for problem in problems {
        let place = match (&problem.workflow_id, problem.version) {
            (Some(id), Some(version)) => format!("{id}@{version}"),
            (Some(id), None) => id.to_string(),
            (None, _) => "store".to_owned(),
        };
        out.line(Line::new().ink(Ink::Red, "✗ ").ink(Ink::Bold, place).plain("  ").plain(&problem.problem))?;
    }
    match problems.len() {
        0 => out.line(Line::new().ink(Ink::Green, "✓ ").plain(format!("{summary}, nothing is broken"))),
        1 => out.line(Line::new().dim(format!("{summary}, 1 problem"))),
        n => out.line(Line::new().dim(format!("{summary}, {n} problems"))),
    }
}

/// Payloads that were looked at already: workflows share them.
#[derive(Default)]
struct Known {
    /// Found whole, or erased.
    found: HashSet<Hash>,
    /// How many of them were erased.
    erased: u64,
    /// Requests that cannot be compared with their hashes, because a part was erased.
    unchecked: u64,
    /// Values of requests, which a conversation repeats from step to step.
    values: HashMap<Hash, Arc<Value>>,
    /// Bytes of those.
    bytes: u64,
}

/// Bytes of values of requests that are kept.
const VALUES_MAX_BYTES: u64 = 64 * 1024 * 1024;

impl Known {
    /// Brings a value of a request. One that is missing, damaged or erased is told of where it stands.
    fn bring(&mut self, store: &dyn Store, slot: &mut Slot) -> Result<(), Error> {
        let Slot::Stored(stored) = slot else { return Ok(()) };
        if let Some(value) = self.values.get(&stored.hash) {
            stored.value = Some(value.clone());
            return Ok(());
        }
        let (hash, bytes) = (stored.hash, stored.bytes);
        let payload = store.payload(0, &hash)?;
        let is_whole = |payload: &Payload| Hash::of_bytes(&payload.bytes) == hash;
        stored.value =
            payload.filter(is_whole).and_then(|payload| stored.read(&payload.bytes).ok()).map(Arc::new);
        if let Some(value) = &stored.value {
            if self.bytes + bytes > VALUES_MAX_BYTES {
                (self.values, self.bytes) = (HashMap::new(), 0);
            }
            self.values.insert(hash, value.clone());
            self.bytes += bytes;
        }
        Ok(())
    }
}

struct Audit<'a> {
    store: &'a dyn Store,
    row: &'a WorkflowRow,
    known: &'a mut Known,
    problems: Vec<Problem>,
    state: WorkflowState,
    /// Whether the fold still means something.
    is_lawful: bool,
    chain: Hash,
    last: Version,
    seen: u64,
    /// Fingerprints of the fold where a snapshot was taken.
    snapshots: Vec<foldback::store::Snapshot>,
    requests: Requests,
    /// How the workflow itself began: a fork with the first event behind its cut.
    began: Option<Beginning>,
}

/// What a workflow's row says of its beginning, as the log says it.
struct Beginning {
    version: Version,
    at: Micros,
    definition: Hash,
    name: String,
    input: Slot,
    /// Parent, cut, and the parent's hash there, where the first event names them.
    parent: Option<(String, Version, Hash)>,
}

impl Beginning {
    /// By the workflow's first own event, and the state behind it.
    fn of(event: &Event, state: &WorkflowState) -> Beginning {
        let lineage = if let Fact::WorkflowStarted(started) = &event.fact {
            started.lineage.as_ref()
        } else if let Fact::WorkflowForked(forked) = &event.fact {
            Some(&forked.lineage)
        } else {
            None
        };
        Beginning {
            version: event.version,
            at: event.timestamp,
            definition: state.definition,
            name: state.name.to_string(),
            input: state.input.clone(),
            parent: lineage.map(|l| (l.parent.clone(), l.cut, l.cut_hash)),
        }
    }
}

impl<'a> Audit<'a> {
    fn of(store: &'a dyn Store, row: &'a WorkflowRow, known: &'a mut Known) -> Audit<'a> {
        Audit {
            store,
            row,
            known,
            problems: Vec::new(),
            state: WorkflowState::empty(&row.workflow_id),
            is_lawful: true,
            chain: Hash::ZERO,
            last: 0,
            seen: 0,
            snapshots: Vec::new(),
            requests: Requests::default(),
            began: None,
        }
    }

    /// Walks the log; how many events it has.
    fn run(&mut self) -> Result<u64, Error> {
        self.gather_snapshots()?;
        let store = self.store;
        let id = self.row.workflow_id.clone();
        reading::pages(store, &id, 0, &mut |page| {
            page.iter().try_for_each(|recorded| self.event(recorded))?;
            Ok(true)
        })?;
        self.row_says()?;
        if let Some(hash) = &self.row.definition {
            match store.definition(hash)? {
                None => self.problem(None, format!("its definition {hash} is missing")),
                Some(definition) if definition_hash(&definition) != *hash => {
                    self.problem(None, format!("its definition does not match its hash {hash}"));
                }
                Some(_) => {}
            }
        }
        for snapshot in std::mem::take(&mut self.snapshots) {
            self.problem(Some(snapshot.version), "a snapshot of a version that the log does not have".into());
        }
        Ok(self.seen)
    }

    fn gather_snapshots(&mut self) -> Result<(), Error> {
        let mut at_most = Version::MAX;
        while let Some(snapshot) = self.store.snapshot(&self.row.workflow_id, at_most)? {
            let version = snapshot.version;
            self.snapshots.push(snapshot);
            if version == 0 {
                break;
            }
            at_most = version - 1;
        }
        Ok(())
    }

    fn event(&mut self, recorded: &Recorded) -> Result<(), Error> {
        let version = recorded.version;
        if version != self.last + 1 {
            self.problem(Some(version), format!("version {} is missing", self.last + 1));
        }
        if let Err(problem) = verify_chain(self.chain, recorded) {
            self.problem(Some(version), problem);
        }
        // Go on from what is written, so that one changed event is one problem.
        self.chain = recorded.hash;
        self.last = version;
        self.seen += 1;
        match load::decode(recorded) {
            Err(error) => {
                self.problem(Some(version), error.to_string());
                self.is_lawful = false;
            }
            Ok(event) => {
                for slot in event.fact.slots() {
                    self.payload(version, slot)?;
                }
                self.request(&event)?;
                if self.is_lawful {
                    let (store, id) = (self.store, self.row.workflow_id.clone());
                    // From the log alone: what a snapshot says is what is checked.
                    let base = &mut |version| load::replayed(store, &id, version);
                    if let Err(illegal) = self.state.take(&event, base) {
                        self.problem(Some(version), illegal.to_string());
                        self.is_lawful = false;
                    } else if self.began.is_none() && recorded.workflow_id == id {
                        self.began = Some(Beginning::of(&event, &self.state));
                    }
                }
            }
        }
        self.snapshot(recorded);
        if let Some((parent, cut, hash)) = &self.row.parent
            && *cut == version
            && *hash != recorded.hash
        {
            self.problem(
                Some(version),
                format!("its row says that it left `{parent}` here with another hash"),
            );
        }
        Ok(())
    }

    /// Whether the row says what the log says. No hash covers it, and nothing is derived from it but
    /// which workflows are listed, and which are gone on with.
    fn row_says(&mut self) -> Result<(), Error> {
        let mut row = self.row.clone();
        if row.version != self.last {
            // A row and its events are written together: where another process drives this one,
            // both have gone on. Where they are ahead of what was walked, there is nothing to compare.
            match self.store.workflow(&row.workflow_id)? {
                Some(now) => row = now,
                None => return Ok(()),
            }
            if row.version > self.last && row.version > self.row.version {
                return Ok(());
            }
        }
        if row.version != self.last {
            let (row, log) = (row.version, self.last);
            self.problem(None, format!("its row says version {row}, its log ends at {log}"));
            return Ok(());
        }
        if !self.is_lawful {
            return Ok(());
        }
        self.began_as(&row)?;
        // That it is quarantined was seen by who took it up, perhaps with another build.
        if row.status == Status::Quarantined.as_str() {
            return Ok(());
        }
        let (status, wake_at) = (self.state.status().as_str(), self.state.wake_at());
        if row.status != status {
            self.problem(None, format!("its row says `{}`, its log says `{status}`", row.status));
        }
        if row.wake_at != wake_at {
            let said = |at: Option<Micros>| at.map_or("not at all".to_owned(), with_seconds);
            let (row, log) = (said(row.wake_at), said(wake_at));
            self.problem(None, format!("its row says that it wakes {row}, its log says {log}"));
        }
        self.listens_as(&row)
    }

    /// Whether the store hands it the events that its log says it listens for.
    fn listens_as(&mut self, row: &WorkflowRow) -> Result<(), Error> {
        let (rows, log) = (self.store.listens(&row.workflow_id)?, self.state.listens_for());
        if rows == log {
            return Ok(());
        }
        // Where another process drives it, it may have gone on between the two looks.
        if self.store.workflow(&row.workflow_id)?.is_some_and(|now| now.version == row.version) {
            let said = |names: &[Arc<str>]| match names {
                [] => "nothing".to_owned(),
                names => names.join(", "),
            };
            let (rows, log) = (said(&rows), said(&log));
            self.problem(None, format!("by its row it listens for {rows}, by its log for {log}"));
        }
        Ok(())
    }

    /// Whether the row says of the beginning what the first event says.
    fn began_as(&mut self, row: &WorkflowRow) -> Result<(), Error> {
        let Some(began) = self.began.take() else {
            return Ok(());
        };
        let input = match &began.input {
            Slot::Inline(value) => Some(Hash::of_json(value)),
            // What is missing or damaged was told where it stands; what was erased cannot be told.
            Slot::Stored(stored) => {
                let payload = self.store.payload(row.shard, &stored.hash)?;
                payload
                    .and_then(|payload| stored.read(&payload.bytes).ok())
                    .map(|value| Hash::of_json(&value))
            }
        };
        for (what, is_so) in [
            ("definition", row.definition == Some(began.definition)),
            ("definition's name", row.name == began.name),
            ("input", input.is_none() || row.input_hash == input),
            ("beginning", row.started_at == began.at),
            ("parent", row.parent == began.parent),
        ] {
            if !is_so {
                let problem = format!("its row names another {what} than its first event");
                self.problem(Some(began.version), problem);
            }
        }
        Ok(())
    }

    fn payload(&mut self, version: Version, slot: &Slot) -> Result<(), Error> {
        let Slot::Stored(stored) = slot else {
            return Ok(());
        };
        if self.known.found.contains(&stored.hash) {
            return Ok(());
        }
        match self.store.payload(self.row.shard, &stored.hash)? {
            None if self.is_erased(version, stored)? => {}
            None => self.problem(Some(version), format!("payload {} is missing", stored.hash)),
            Some(payload) if Hash::of_bytes(&payload.bytes) != stored.hash => {
                self.problem(
                    Some(version),
                    format!("payload {} is damaged: its bytes have another hash", stored.hash),
                );
            }
            Some(payload) if payload.bytes.len() as u64 != stored.bytes => {
                self.problem(
                    Some(version),
                    format!("payload {} has another length than its event says", stored.hash),
                );
            }
            Some(_) => {
                self.known.found.insert(stored.hash);
            }
        }
        Ok(())
    }

    /// Whether the request of a step is the one whose hash stands beside it.
    fn request(&mut self, event: &Event) -> Result<(), Error> {
        let (store, known) = (self.store, &mut *self.known);
        match self.requests.see(event, &mut |slot| known.bring(store, slot))? {
            None | Some(Hashed::Same) => {}
            Some(Hashed::NotAtHand) => self.known.unchecked += 1,
            Some(Hashed::Other) => {
                self.problem(Some(event.version), "its request does not match the hash beside it".into());
            }
            Some(Hashed::TooLong) => {
                let most = foldback::core::limits::REQUEST_MAX_BYTES;
                let problem =
                    format!("its request has more than {most} bytes: it is not compared with its hash");
                self.problem(Some(event.version), problem);
            }
        }
        Ok(())
    }

    /// Whether a tombstone stands in a payload's place.
    fn is_erased(&mut self, version: Version, stored: &StoredRef) -> Result<bool, Error> {
        let Some(tombstone) = self.store.tombstone(self.row.shard, &stored.hash)? else {
            return Ok(false);
        };
        if tombstone.bytes != stored.bytes {
            let problem =
                format!("the tombstone of payload {} has another length than its event says", stored.hash);
            self.problem(Some(version), problem);
        }
        self.known.erased += 1;
        self.known.found.insert(stored.hash);
        Ok(true)
    }

    /// A snapshot says what the fold says, or it is broken. One of another shape is not used.
    fn snapshot(&mut self, recorded: &Recorded) {
        let Some(at) = self.snapshots.iter().position(|snapshot| snapshot.version == recorded.version) else {
            return;
        };
        let snapshot = self.snapshots.swap_remove(at);
        if snapshot.state_schema != foldback::core::state::STATE_SCHEMA {
            return;
        }
        let read = serde_json::from_slice::<WorkflowState>(&snapshot.state).ok();
        let problem = if snapshot.event_hash != recorded.hash {
            "a snapshot was taken of another event"
        } else if snapshot.fingerprint != Hash::of_bytes(&snapshot.state) {
            "a snapshot is damaged: its bytes have another hash"
        } else if self.is_lawful && read.as_ref() != Some(&self.state) {
            "a snapshot says something else than the fold"
        } else {
            return;
        };
        self.problem(Some(recorded.version), problem.to_owned());
    }

    fn problem(&mut self, version: Option<Version>, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { workflow_id: Some(self.row.workflow_id.clone()), version, problem });
        }
    }
}
