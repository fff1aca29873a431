//! One step, task or decision whole, for `steps ID KEY`, `show ID KEY` and the member `step` of `state --at`:
//! from the log, from its pinned definition, and from what the program sees there. Runs and writes nothing.

use std::sync::Arc;

use foldback::connectors::{LLM_KIND, messages};
use foldback::core::report::{Whole, brief, concerns, failure_at, whole};
use foldback::core::{Event, Fact, Key, Seen, TaskKind, Verdict, Version};
use foldback::engine::{Programs, state_seen};
use foldback::programs::Definitions;
use foldback::store::{Store, WorkflowRow};
use serde_json::Value;

use crate::args::Cli;
use crate::error::Error;
use crate::moment::span;
use crate::out::{Ink, Line, Out};
use crate::reading::{self, Values};
use crate::state::{mark, print_lines, print_value, title};

/// Characters of a value that stands in the middle of a line.
const VALUE_MAX: usize = 300;

/// Everything about a key in the log up to a version: about its first ask behind `after`, or about the last.
///
/// # Errors
/// Nothing is called so, with the nearest key; or the store fails.
pub fn of(
    cli: &Cli,
    store: &dyn Store,
    row: &WorkflowRow,
    key: &Key,
    to: Version,
    after: Option<Version>,
) -> Result<Whole, Error> {
    let (mut events, mut is_begun) = (Vec::new(), false);
    let wanted = key.clone();
    let mut values = Values::of(cli, store, row).only(move |fact| {
        let is_failure = |key: &Key| key.as_str().ends_with("!failed") || key.as_str().ends_with("!catch");
        concerns(&wanted, fact) || fact.key().is_some_and(is_failure)
    });
    reading::walk(store, &row.workflow_id, to, Some(&mut values), &mut |_, event| {
        // An iteration is begun by no fact of its own, but by the first one inside it.
        let begins = !is_begun
            && key.itemed().is_some()
            && event.version > after.unwrap_or(0)
            && event.fact.key().is_some_and(|found| found.is_inside(key));
        is_begun |= begins;
        if begins || concerns(key, &event.fact) {
            events.push(event.clone());
        }
        Ok(())
    })?;
    values.told(cli);
    let seen = match place_of(key, &events, after) {
        Some(version) => sees(store, row, key, version - 1)?,
        None => None,
    };
    let source = seen.as_ref().map(|(_, source)| source.clone());
    let Some(mut told) = whole(key, &events, after, seen.and_then(|(seen, _)| seen)) else {
        return Err(unknown(cli, store, row, key));
    };
    if &*told.kind == LLM_KIND {
        // A request that cannot be rendered has failed, and its error says why.
        told.messages = messages(&told.request).unwrap_or_default();
    }
    if let (Some(source), Some(pointer)) = (source, &told.pointer)
        && let Some((line, column)) = foldback::ows::place(&source.text, pointer)
    {
        told.place = Some(format!("{}:{line}:{column}", source.name));
    }
    Ok(told)
}

fn unknown(cli: &Cli, store: &dyn Store, row: &WorkflowRow, key: &Key) -> Error {
    let known = reading::version(cli, store, row, Some(key.as_str()));
    let otherwise = || Error::input(format!("nothing in this log is called `{key}`"), "");
    known.err().unwrap_or_else(otherwise)
}

/// The version of the fact by which the task of a key does what it is there for: its failure, where no
/// answer failed, else its ask, its decision or its end.
fn place_of(key: &Key, events: &[Event], after: Option<Version>) -> Option<Version> {
    let behind = |event: &&Event| event.version > after.unwrap_or(0);
    let acts = |event: &&Event| {
        let is_own = event.fact.key() == Some(key);
        match &event.fact {
            Fact::StepAsked(_) | Fact::TimerSet { limits: false, .. } | Fact::ListenStarted { .. } => is_own,
            Fact::TaskFinished { kind: TaskKind::Set, .. } => is_own,
            Fact::TaskStarted { kind, .. } => is_own && *kind != TaskKind::Shape,
            Fact::DecisionMade(_) | Fact::Recorded { key: Some(_), .. } => {
                event.fact.key().is_some_and(|at| at.unmarked() == *key && !at.as_str().ends_with("!catch"))
            }
            Fact::WorkflowStarted(_)
            | Fact::AttemptStarted { .. }
            | Fact::AttemptFailed(_)
            | Fact::StepCompleted(_)
            | Fact::StepFailed(_)
            | Fact::OutcomeUnknown { .. }
            | Fact::OutcomeReconciled { .. }
            | Fact::StepCancelled { .. }
            | Fact::OutcomeResolved { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::TaskFinished { .. }
            | Fact::UndoArmed(_)
            | Fact::UndoStarted(_)
            | Fact::UndoCompleted { .. }
            | Fact::UndoFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::Recorded { .. }
            | Fact::WorkflowReopened { .. }
            | Fact::WorkflowForked(_)
            | Fact::StepReused(_)
            | Fact::WriteHeld { .. }
            | Fact::WriteSettled { .. }
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::SignalReceived(_)
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => false,
        }
    };
    let own = || events.iter().filter(behind).filter(acts).map(|event| event.version);
    let acted = if after.is_some() { own().next() } else { own().next_back() };
    let failed = first_failure(key, events, after.unwrap_or(0), acted.unwrap_or(0));
    let is_of_step = events
        .iter()
        .any(|event| matches!(&event.fact, Fact::StepFailed(failed) if failed.key == *key && behind(&event)));
    match (acted, failed) {
        (acted @ Some(_), _) if is_of_step => acted,
        (_, failed @ Some(_)) => failed,
        (acted, None) => acted,
    }
}

/// Where the failure of a key was said first, in the run in which it was said last: of a branch or a block it
/// is said where it happens, and once more where it ends the workflow.
fn first_failure(key: &Key, events: &[Event], after: Version, acted: Version) -> Option<Version> {
    let failures = || events.iter().filter(|event| failure_at(key, &event.fact).is_some());
    let last = failures().map(|event| event.version).rfind(|version| *version > after)?;
    let reopened = events
        .iter()
        .rfind(|event| event.version < last && matches!(event.fact, Fact::WorkflowReopened { .. }));
    let begun = reopened.map_or(acted, |event| event.version.max(acted));
    failures().map(|event| event.version).find(|version| *version > begun)
}

/// The source of a definition, and the name of the file or, where none is known, of the definition.
#[derive(Clone)]
struct Source {
    name: String,
    text: Arc<str>,
}

/// A file as a person names it who stands in this folder.
fn from_here(file: &str) -> String {
    let here = std::env::current_dir().ok();
    let path = std::path::Path::new(file);
    let inside = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    inside.unwrap_or(path).display().to_string()
}

/// What the program sees at a key in the state at a version, and the source of that program.
fn sees(
    store: &dyn Store,
    row: &WorkflowRow,
    key: &Key,
    at: Version,
) -> Result<Option<(Option<Seen>, Source)>, Error> {
    let state = match state_seen(store, &row.workflow_id, Some(at)) {
        Ok(Some(state)) => state,
        // What cannot be folded is told where it is read.
        Ok(None) | Err(_) => return Ok(None),
    };
    let Some(definition) = store.definition(&state.definition)? else { return Ok(None) };
    let name = state.file.as_deref().map_or_else(|| definition.name.clone(), from_here);
    let source = Source { name, text: Arc::from(definition.source.as_str()) };
    // Rust code is not at hand here: what it sees is its own matter.
    let seen = Definitions::default()
        .program(&definition)
        .ok()
        .and_then(|program| program.start(&state).sees(&state, key));
    Ok(Some((seen, source)))
}

/// Prints it for a person.
///
/// # Errors
/// Nobody reads what is printed.
pub fn print(out: &mut Out, told: &Whole) -> Result<(), Error> {
    let (sign, ink) = mark(told.status);
    let effect = told.effect.map(|effect| format!(" {effect:?}").to_lowercase()).unwrap_or_default();
    let took = told.duration_ms.map(|ms| format!("  {}", span(ms))).unwrap_or_default();
    let name = if told.key.is_root() { "the workflow" } else { told.key.as_str() };
    let mut head = Line::new()
        .ink(ink, sign)
        .plain(" ")
        .ink(Ink::Bold, name)
        .dim(format!("  {}{effect}  ", told.kind))
        .ink(ink, told.status.as_str())
        .dim(took);
    if let (Some(from), Some(to)) = (told.asked_version, told.ended_version) {
        head = head.dim(format!("  versions {from} to {to}"));
    }
    out.line(head)?;
    if let Some(place) = &told.place {
        out.line(title("place").plain(place))?;
    }
    print_value(out, "input", &told.input)?;
    if let Some(from) = &told.input_from {
        out.line(title("").dim(format!("the output of {from}")))?;
    }
    if let Some(item) = &told.item {
        print_value(out, "item", item)?;
    }
    if let Some(Value::Array(items)) = &told.items {
        out.line(title("over").plain(format!("{} items", items.len())))?;
        print_value(out, "", &Value::Array(items.clone()))?;
    }
    let most = out.most(VALUE_MAX);
    for (at, (path, value)) in told.values.iter().enumerate() {
        let name = if at == 0 { "sees" } else { "" };
        out.line(title(name).plain(format!("{path} = {}", brief(value, most))))?;
    }
    for path in &told.fallbacks {
        out.line(
            title("").ink(Ink::Yellow, format!("{path} gave nothing: what stands after its // was taken")),
        )?;
    }
    print_decisions(out, told)?;
    if *told.request != Value::Null {
        print_value(out, "request", &told.request)?;
    }
    for (at, name) in &told.secrets {
        out.line(title("secret").plain(format!("{name} is filled in at {at} when it is sent")))?;
    }
    for message in &told.messages {
        let text = message["content"].as_str().unwrap_or_default();
        let role = message["role"].as_str().unwrap_or_default();
        print_lines(out, "message", &format!("{role}: {text}"))?;
    }
    print_attempts(out, told)?;
    if let Some(edited) = &told.edited {
        let was = edited.was.as_ref().map(|was| format!("; it was {}", brief(was, most))).unwrap_or_default();
        out.line(title("edited").ink(Ink::Cyan, format!("the {} is a person's{was}", edited.what)))?;
    }
    if let Some(from) = &told.reused {
        out.line(title("from").ink(Ink::Cyan, format!("{} version {}", from.workflow, from.version)))?;
    }
    if let Some(verdict) = told.settled {
        let text = match verdict {
            Verdict::Live => "it was allowed, and performed",
            Verdict::Stub => "it was stubbed: nothing happened, and the answer is what was said in its place",
            Verdict::Deny => "it was denied: nothing happened",
        };
        out.line(title("settled").ink(Ink::Yellow, text))?;
    }
    if let Some(answered) = told.answered {
        let text = match answered {
            "signal" => "by a signal",
            "person" => "by a person: nobody knew whether it happened, and `resolve` said that it did",
            _ => "by nobody: time ran out, and the default was taken",
        };
        out.line(title("answered").ink(Ink::Yellow, text))?;
    }
    if *told.answer != Value::Null || told.answered == Some("person") {
        print_value(out, "answer", &told.answer)?;
    }
    if *told.output != Value::Null && told.output != told.answer {
        print_value(out, "output", &told.output)?;
    }
    match &told.error {
        Some(error) => print_error(out, "error", error),
        None => Ok(()),
    }
}

fn print_decisions(out: &mut Out, told: &Whole) -> Result<(), Error> {
    for made in &told.decisions {
        let line = title("decided").ink(Ink::Cyan, &made.chosen);
        out.line(line.dim(format!("  out of {}", made.options.join(", "))))?;
        print_value(out, "because", &made.because)?;
    }
    Ok(())
}

fn print_attempts(out: &mut Out, told: &Whole) -> Result<(), Error> {
    for attempt in &told.failed_attempts {
        print_error(out, &format!("try {}", attempt.attempt), &attempt.error)?;
        if let Some(rejected) = &attempt.rejected {
            print_value(out, "answered", rejected)?;
        }
    }
    Ok(())
}

fn print_error(out: &mut Out, name: &str, error: &foldback::core::Failure) -> Result<(), Error> {
    out.line(title(name).ink(Ink::Red, format!("{} {}", error.status, error.title)))?;
    error.detail.as_deref().map_or(Ok(()), |detail| print_lines(out, "", detail))
}
