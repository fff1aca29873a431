//! `state`: where a workflow stands, what it holds and what it waits for, at any version. Before a step or a
//! failure, the step as well, whole.

use std::collections::BTreeMap;

use foldback::core::report::{
    Book, ReportedStatus, StateView, Tokens, VersionSpec, Whole, dollars, state_view, undos_of,
};
use foldback::core::state::Spent;
use foldback::core::text::shell_word;
use foldback::core::{Detail, Event, Fact, Key, Status, Version, WorkflowState};
use foldback::engine::{LoadError, state_at};
use foldback::store::{Store, WorkflowRow};
use serde_json::Value;

use crate::args::{AtArgs, Cli};
use crate::error::{Error, Exit};
use crate::moment::with_millis;
use crate::now::{Now, until};
use crate::out::{Ink, Line, Out, columns};
use crate::reading::{self, Values, Walked};
use crate::{moment, whole};

/// Lines of a value that a person is shown.
pub const VALUE_LINES: usize = 40;
/// Characters of a value that a person is shown.
const VALUE_CHARS: usize = 4_096;
/// Columns of the names of values.
const TITLE_WIDTH: usize = 9;

/// Prints the state of a workflow.
///
/// # Errors
/// No such workflow or version, or the store fails.
pub fn state(cli: &Cli, args: &AtArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let now = if args.at.is_none() { Some(Now::of(&*store)?) } else { None };
    if let Some(view) = near(&*store, args)? {
        return print(cli, args, &view, None, now).map(|()| Exit::Done);
    }
    let row = reading::row(cli, &*store, &args.id)?;
    let to = reading::version(cli, &*store, &row, args.at.as_deref())?;
    let mut values = Values::of(cli, &*store, &row).only(|fact| matches!(fact, Fact::UndoArmed(_)));
    let (mut book, mut armed) = (Book::new(&args.id), BTreeMap::new());
    let walked = reading::walk(&*store, &args.id, to, Some(&mut values), &mut |_, event| {
        book.read(event);
        match &event.fact {
            Fact::UndoArmed(_) => drop(armed.insert(event.version, event.clone())),
            Fact::UndoCompleted { armed: version, .. } => drop(armed.remove(version)),
            Fact::WorkflowStarted(_)
            | Fact::StepAsked(_)
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
            | Fact::DecisionMade(_)
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::UndoStarted(_)
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
            | Fact::ListenStarted { .. }
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => {}
        }
        Ok(())
    })?;
    let mut view = view_of(&walked, &book, &armed, &mut values)?;
    let trouble = reading::trouble(cli, &row, &walked);
    if trouble.is_some() {
        view.status = Status::Quarantined;
    }
    values.told(cli);
    let step = step(cli, &*store, &row, args, to)?;
    print(cli, args, &view, step.as_ref(), now)?;
    trouble.map_or(Ok(Exit::Done), Err)
}

/// The step that a person named, or that failed, whole: what became of it stands behind the version shown.
fn step(
    cli: &Cli,
    store: &dyn Store,
    row: &WorkflowRow,
    args: &AtArgs,
    to: Version,
) -> Result<Option<Whole>, Error> {
    let key = match args.at.as_deref().map(moment::spec).transpose()? {
        Some(VersionSpec::Before(key)) => key,
        Some(VersionSpec::Failure) => match failed_at(store, &args.id)? {
            Some(key) => key,
            None => return Ok(None),
        },
        Some(_) | None => return Ok(None),
    };
    whole::of(cli, store, row, &key, Version::MAX, Some(to)).map(Some)
}

/// The key that the last failure of a workflow names.
fn failed_at(store: &dyn Store, id: &str) -> Result<Option<Key>, Error> {
    let mut failed = None;
    reading::walk(store, id, Version::MAX, None, &mut |_, event| {
        if let Fact::WorkflowFailed { error } = &event.fact {
            failed = Some(error.key.clone().unwrap_or_else(Key::root));
        } else if let Fact::WorkflowParked { key, .. } = &event.fact {
            failed = Some(key.clone());
        }
        Ok(())
    })?;
    Ok(failed)
}

fn print(
    cli: &Cli,
    args: &AtArgs,
    view: &StateView,
    step: Option<&Whole>,
    now: Option<Now>,
) -> Result<(), Error> {
    let now = now.filter(|_| !view.status.is_ended());
    let mut out = Out::new().full(args.full);
    if cli.json {
        let mut document = serde_json::to_value(view).map_err(|e| Error::machine(e.to_string()))?;
        if let Some(now) = now {
            document["is_owned"] = now.is_owned.into();
            for (at, wait) in view.waits.iter().enumerate() {
                if let Some(due) = wait.due {
                    document["waits"][at]["is_overdue"] = (due.0 < now.at).into();
                }
            }
        }
        if let Some(step) = step {
            document["step"] = serde_json::to_value(step).map_err(|e| Error::machine(e.to_string()))?;
        }
        out.json(&document)?;
    } else {
        print_state(cli, &mut out, view, now)?;
        if let Some(step) = step {
            out.line("")?;
            whole::print(&mut out, step)?;
        }
    }
    out.flush()
}

/// The state from the snapshot before it, where the version is a number and all is well: of a log of a
/// million events it is some milliseconds away. All else is read from the begin, which says more.
fn near(store: &dyn Store, args: &AtArgs) -> Result<Option<StateView>, Error> {
    let at = match args.at.as_deref().map(str::trim) {
        None => None,
        Some(text) => match text.parse::<Version>() {
            Ok(number) => Some(number),
            Err(_) => return Ok(None),
        },
    };
    match state_at(store, &args.id, at) {
        Ok(Some(state)) if at.is_none_or(|at| state.version == at) && state.newest_undo.is_none() => {
            let view = state_view(&state);
            let detail = view.error.as_ref().and_then(|error| error.detail.as_ref());
            Ok((!detail.is_some_and(Detail::is_erased)).then_some(view))
        }
        Ok(_) | Err(LoadError::Quarantined { .. } | LoadError::Erased { .. }) => Ok(None),
        Err(LoadError::Store(_)) => Ok(None),
    }
}

fn view_of(
    walked: &Walked,
    book: &Book,
    armed: &BTreeMap<Version, Event>,
    values: &mut Values<'_>,
) -> Result<StateView, Error> {
    let mut state: WorkflowState = walked.state.clone();
    values.fill_state(&mut state)?;
    let mut view = state_view(&state);
    view.undos = undos_of(&book.effects, armed.values());
    Ok(view)
}

fn print_state(cli: &Cli, out: &mut Out, view: &StateView, now: Option<Now>) -> Result<(), Error> {
    let at = with_millis(view.at.0);
    out.line(
        Line::new()
            .ink(Ink::Bold, &*view.workflow_id)
            .plain("  ")
            .ink(status_ink(view.status.as_str()), view.status.as_str())
            .dim(format!("  version {} at {at}", view.version)),
    )?;
    if now.is_some_and(|now| now.interrupts(view.status.as_str())) {
        let (again, id) = (cli.again(), shell_word(&view.workflow_id));
        let text = format!("interrupted: nobody runs it; `{again} resume {id}` goes on");
        out.line(Line::new().ink(Ink::Yellow, text))?;
    }
    print_value(out, "input", &view.input)?;
    if *view.context != Value::Null {
        print_value(out, "context", &view.context)?;
    }
    if view.status == Status::Completed {
        print_value(out, "output", &view.output)?;
    }
    if let Some(error) = &view.error {
        let key = error.key.as_ref().map(|key| format!(" at {key}")).unwrap_or_default();
        out.line(
            Line::new().dim("error    ").ink(Ink::Red, format!("{} {}{key}", error.status, error.title)),
        )?;
        for line in error.detail.iter().flat_map(|detail| detail.lines()).take(out.most(VALUE_LINES)) {
            out.line(format!("         {line}"))?;
        }
    }
    for step in &view.pending {
        let due = step.due.map(|due| format!(" until {}", with_millis(due.0))).unwrap_or_default();
        let status = format!("{:?}", step.status).to_lowercase();
        out.line(
            Line::new()
                .dim("pending  ")
                .plain(step.key.as_str())
                .dim(format!("  {} {status}{due}, attempts {}", step.kind, step.attempts)),
        )?;
    }
    for wait in &view.waits {
        let until = wait.due.map(|due| until(due.0, now)).unwrap_or_default();
        let what = match wait.due {
            Some(_) if wait.wants == "signal" => {
                format!("  for a signal: {}, {until}", wait.signals.join(", "))
            }
            Some(_) => format!("  {until}"),
            None if wait.wants == "decision" => {
                "  for somebody who says what becomes of it: live, stub or deny".to_owned()
            }
            None if wait.wants == "signal" => format!("  for a signal: {}", wait.signals.join(", ")),
            None => "  for somebody who knows whether it happened".to_owned(),
        };
        out.line(Line::new().dim("waits    ").plain(wait.key.as_str()).ink(Ink::Yellow, what))?;
    }
    for undo in &view.undos {
        let key = undo.key.as_ref().map_or("", |key| key.as_str());
        out.line(
            Line::new().dim("undo     ").plain(key).dim(format!("  armed at version {}", undo.version)),
        )?;
    }
    let spent = &view.spent;
    let tokens = Tokens { input: spent.input_tokens, output: spent.output_tokens };
    out.line(Line::new().dim("spent    ").plain(spent_text(spent, tokens)))
}

/// What was used, in words.
pub fn spent_text(spent: &Spent, tokens: Tokens) -> String {
    let plural = |count| if count == 1 { "" } else { "s" };
    let mut text = format!("{} step{}", spent.steps, plural(spent.steps));
    if tokens != Tokens::default() {
        text.push_str(&format!(", {} tokens in, {} out", tokens.input, tokens.output));
    }
    if spent.micro_usd > 0 {
        text.push_str(&format!(", {}", dollars(spent.micro_usd)));
    }
    if spent.lost_attempts > 0 {
        let (lost, s) = (spent.lost_attempts, plural(spent.lost_attempts));
        text.push_str(&format!(
            ", and what {lost} attempt{s} used that did not report: cut off, or its process died"
        ));
    }
    text
}

/// The begin of a line under a name.
pub fn title(name: &str) -> Line {
    Line::new().dim(format!("{name:<TITLE_WIDTH$}"))
}

/// Prints a value under its name: on one line where it fits, else over several.
///
/// # Errors
/// Nobody reads what is printed.
pub fn print_value(out: &mut Out, name: &str, value: &Value) -> Result<(), Error> {
    let short = value.to_string();
    let text = match columns(&short) + TITLE_WIDTH <= out.width() {
        true => short,
        false => serde_json::to_string_pretty(value).map_err(|e| Error::machine(e.to_string()))?,
    };
    print_lines(out, name, &text)
}

/// Prints a text under a name: with its own lines, its beginning where it is long.
///
/// # Errors
/// Nobody reads what is printed.
pub fn print_lines(out: &mut Out, name: &str, text: &str) -> Result<(), Error> {
    let (count, most) = (text.lines().count(), out.most(VALUE_LINES));
    let mut left = out.most(VALUE_CHARS);
    for (at, line) in text.lines().take(most).enumerate() {
        let title_of_line = title(if at == 0 { name } else { "" });
        match line.char_indices().nth(left) {
            None => out.line(title_of_line.plain(line))?,
            Some((end, _)) => {
                out.line(title_of_line.plain(&line[..end]))?;
                let more = text.chars().count()
                    - text.lines().take(at).map(|l| l.chars().count() + 1).sum::<usize>()
                    - left;
                return out.line(title("").dim(format!("… {more} more characters; --full prints all")));
            }
        }
        left -= line.chars().count().min(left);
    }
    if count > most {
        out.line(title("").dim(format!("… {} more lines; --full prints all", count - most)))?;
    }
    Ok(())
}

/// The colour of a status.
pub fn status_ink(status: &str) -> Ink {
    match status {
        "completed" | "compensated" => Ink::Green,
        "failed" | "stuck" | "parked" | "quarantined" => Ink::Red,
        "waiting" | "paused" | "unknown" | "compensating" => Ink::Yellow,
        _ => Ink::Plain,
    }
}

/// The mark and the colour of a step's status.
pub fn mark(status: ReportedStatus) -> (&'static str, Ink) {
    match status {
        ReportedStatus::Pending => ("○", Ink::Dim),
        ReportedStatus::Running => ("…", Ink::Yellow),
        ReportedStatus::Completed => ("✓", Ink::Green),
        ReportedStatus::Failed => ("✗", Ink::Red),
        ReportedStatus::Cancelled => ("⊘", Ink::Dim),
        ReportedStatus::Unknown => ("?", Ink::Yellow),
        ReportedStatus::Reused => ("↺", Ink::Cyan),
    }
}
