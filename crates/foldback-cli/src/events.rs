//! `events` and `replay`: the log, and the log with what each event changed in the state.
//!
//! `events` prints any log, a lawless one too: it shows what is written and judges nothing.

use std::time::Duration;

use foldback::core::lists::Shown;
use foldback::core::report::{CHANGE_MAX, Moment, changes_in};
use foldback::core::text::shell_word;
use foldback::core::{Event, Fact, Key, Status, Version, WorkflowState, text};
use foldback::engine::load;
use foldback::store::{Recorded, Store, WorkflowRow};
use serde_json::{Value, json};

use crate::args::{Cli, EventsArgs, ReplayArgs};
use crate::error::{Error, Exit};
use crate::moment::with_millis;
use crate::now::Now;
use crate::out::{Ink, Line, Out, say};
use crate::reading::{self, Values};

/// How often a followed log is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);

/// Prints a workflow's log.
///
/// # Errors
/// No such workflow or version, or the store fails.
pub fn events(cli: &Cli, args: &EventsArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let store = &*store;
    let row = reading::row(cli, store, &args.id)?;
    let to = match &args.to {
        None => Version::MAX,
        Some(text) => last_version(cli, store, &row, text)?,
    };
    let mut out = Out::new().full(args.full);
    let mut values = Values::of(cli, store, &row);
    let mut printing = Printing { out: &mut out, is_json: cli.json, lists: Shown::default() };
    let mut seen = store.change_counter()?;
    let mut last = reading::pages(store, &args.id, 0, &mut |page| printing.page(page, to, &mut values))?;
    printing.out.flush()?;
    let mut goes_on = args.follow && goes_on_after(store, &args.id, last)?;
    if goes_on && Now::of(store)?.is_unowned() {
        let (again, id) = (cli.again(), shell_word(&args.id));
        say(format!("nobody runs `{}` now; `{again} resume {id}` goes on with it", args.id));
    }
    while goes_on {
        std::thread::sleep(FOLLOW_EVERY);
        let now = store.change_counter()?;
        if now != seen {
            seen = now;
            last = reading::pages(store, &args.id, last, &mut |page| printing.page(page, to, &mut values))?;
            printing.out.flush()?;
            goes_on = goes_on_after(store, &args.id, last)?;
        }
    }
    values.told(cli);
    out.flush()?;
    Ok(Exit::Done)
}

/// True where more may come after the version that was printed last: there is more already, or the workflow has
/// not ended. One that was reopened, or is being compensated, has not.
fn goes_on_after(store: &dyn Store, id: &str, last: Version) -> Result<bool, Error> {
    // A workflow that was taken away meanwhile gets no more events.
    let Some(row) = store.workflow(id)? else { return Ok(false) };
    let status = serde_json::from_value::<Status>(Value::String(row.status)).ok();
    Ok(row.version > last || status.is_none_or(|status| !status.is_ended()))
}

/// The version that is meant. A number in the log's range needs no fold, so a lawless log can be cut by it.
fn last_version(cli: &Cli, store: &dyn Store, row: &WorkflowRow, text: &str) -> Result<Version, Error> {
    match text.trim().parse::<Version>() {
        Ok(number) if (1..=row.version).contains(&number) => Ok(number),
        _ => reading::version(cli, store, row, Some(text)),
    }
}

struct Printing<'a> {
    out: &'a mut Out,
    is_json: bool,
    lists: Shown,
}

impl Printing<'_> {
    /// Prints a page; whether more is wanted.
    fn page(&mut self, page: &[Recorded], to: Version, values: &mut Values<'_>) -> Result<bool, Error> {
        for recorded in page {
            if recorded.version > to {
                return Ok(false);
            }
            let mut event = load::decode(recorded);
            if let Ok(event) = &mut event {
                self.lists.complete(event);
                values.fill_event(event)?;
            }
            let event = event.as_ref().ok();
            let fact = event.map(|event| &event.fact);
            if self.is_json {
                self.out.json(&as_json(recorded, event))?;
            } else {
                let line = as_line(recorded, fact, self.out).cut(self.out.width());
                self.out.line(line)?;
            }
        }
        Ok(true)
    }
}

/// An event as one line of JSON; as written where this build cannot read it.
fn as_json(recorded: &Recorded, event: Option<&Event>) -> Value {
    let as_written = || {
        serde_json::from_str(&recorded.event.payload)
            .unwrap_or_else(|_| Value::String(recorded.event.payload.clone()))
    };
    let mut line = json!({
        "position": recorded.position,
        "id": recorded.event.id.to_string(),
        "workflow_id": recorded.workflow_id,
        "version": recorded.version,
        "type": recorded.event.event_type,
        "payload": event.map_or_else(as_written, |event| event.fact.plain()),
        "timestamp": Moment(recorded.event.timestamp),
        "hash": recorded.hash.to_hex(),
        "actor": recorded.event.actor,
        "causation_id": recorded.event.causation_id.map(|id| id.to_string()),
        "correlation_id": recorded.event.correlation_id.map(|id| id.to_string()),
        "schema_version": recorded.event.schema_version,
    });
    if let Some(clock) = event.and_then(|event| event.clock) {
        line["clock"] = json!(Moment(clock));
    }
    line
}

fn as_line(recorded: &Recorded, fact: Option<&Fact>, out: &Out) -> Line {
    let line = head(recorded.version, recorded.event.timestamp);
    match fact {
        Some(fact) => told(line, fact, out),
        None => line
            .ink(Ink::Red, format!("{:<17}", recorded.event.event_type))
            .plain(format!(" cannot be read by this build: {}", recorded.event.payload)),
    }
}

fn head(version: Version, at: i64) -> Line {
    Line::new().plain(format!("{version:>5}  ")).dim(with_millis(at)).plain("  ")
}

fn told(line: Line, fact: &Fact, out: &Out) -> Line {
    let kind = fact.event_type();
    let all = text::line_in(fact, out.most(text::VALUE_MAX));
    let rest = all.strip_prefix(kind).unwrap_or(&all).trim_start();
    let (key, rest) = match fact.key().map(Key::as_str) {
        Some(key) => (key, rest.strip_prefix(key).unwrap_or(rest).trim_start()),
        None => ("", rest),
    };
    let gap = if key.is_empty() || rest.is_empty() { "" } else { "  " };
    line.ink(ink(fact), format!("{kind:<17} ")).ink(Ink::Bold, key).plain(gap).plain(rest)
}

fn ink(fact: &Fact) -> Ink {
    match fact {
        Fact::StepCompleted(_) | Fact::WorkflowCompleted { .. } | Fact::UndoCompleted { .. } => Ink::Green,
        Fact::StepReused(_) => Ink::Cyan,
        Fact::WriteHeld { .. } | Fact::WriteSettled { .. } => Ink::Yellow,
        Fact::StepFailed(_)
        | Fact::UndoFailed { .. }
        | Fact::WorkflowFailed { .. }
        | Fact::WorkflowParked { .. } => Ink::Red,
        Fact::AttemptFailed(_) | Fact::OutcomeUnknown { .. } | Fact::StepCancelled { .. } => Ink::Yellow,
        Fact::DecisionMade(_) | Fact::Recorded { .. } => Ink::Cyan,
        Fact::WorkflowStarted(_)
        | Fact::WorkflowReopened { .. }
        | Fact::WorkflowForked(_)
        | Fact::StepAsked(_)
        | Fact::AttemptStarted { .. }
        | Fact::OutcomeResolved { .. }
        | Fact::TimerSet { .. }
        | Fact::TimerFired { .. }
        | Fact::TimerCancelled { .. }
        | Fact::TaskStarted { .. }
        | Fact::TaskFinished { .. }
        | Fact::UndoArmed(_)
        | Fact::WorkflowPaused { .. }
        | Fact::WorkflowUnpaused { .. }
        | Fact::BudgetSet { .. }
        | Fact::BudgetWarned { .. }
        | Fact::BudgetExceeded { .. }
        | Fact::SignalReceived(_)
        | Fact::ListenStarted { .. }
        | Fact::SignalTaken { .. }
        | Fact::SignalRefused { .. }
        | Fact::OutcomeReconciled { .. }
        | Fact::UndoStarted(_)
        | Fact::CompensationStarted { .. }
        | Fact::CompensationRequested { .. }
        | Fact::CompensationEnded { .. }
        | Fact::WorkflowCancelled { .. } => Ink::Plain,
    }
}

/// Prints a workflow's log with what each event changed in the state.
///
/// # Errors
/// No such workflow or version, or the store fails.
pub fn replay(cli: &Cli, args: &ReplayArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let store = &*store;
    let row = reading::row(cli, store, &args.id)?;
    let to = reading::version(cli, store, &row, args.to.as_deref())?;
    let mut values = Values::of(cli, store, &row);
    let mut out = Out::new().full(args.full);
    // What an event changed is known once the next one is seen, or the end.
    let mut last: Option<(Event, WorkflowState)> = None;
    let walked = reading::walk(store, &args.id, to, Some(&mut values), &mut |before, event| {
        if let Some((event, then)) = last.take() {
            print_changes(cli, &mut out, &event, &then, before)?;
        }
        last = Some((event.clone(), before.clone()));
        Ok(())
    })?;
    if let Some((event, then)) = last.take() {
        print_changes(cli, &mut out, &event, &then, &walked.state)?;
    }
    values.told(cli);
    out.flush()?;
    reading::trouble(cli, &row, &walked).map_or(Ok(Exit::Done), Err)
}

fn print_changes(
    cli: &Cli,
    out: &mut Out,
    event: &Event,
    before: &WorkflowState,
    after: &WorkflowState,
) -> Result<(), Error> {
    let changed = changes_in(before, after, out.most(CHANGE_MAX));
    if cli.json {
        return out.json(&json!({
            "version": event.version,
            "type": event.fact.event_type(),
            "key": event.fact.key(),
            "timestamp": Moment(event.timestamp),
            "changes": changed,
        }));
    }
    let width = out.width();
    out.line(told(head(event.version, event.timestamp), &event.fact, out).cut(width))?;
    for change in &changed {
        out.line(Line::from("         ").ink(change_ink(change), change).cut(width))?;
    }
    Ok(())
}

fn change_ink(change: &str) -> Ink {
    match change.chars().next() {
        Some('+') => Ink::Green,
        Some('-') => Ink::Dim,
        Some('=') => Ink::Cyan,
        _ => Ink::Plain,
    }
}
