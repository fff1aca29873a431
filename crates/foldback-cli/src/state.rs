//! `state`, `steps` and `decisions`: the three questions, answered from the log alone.

use foldback::core::report::{
    ReportedStatus, StateView, StepReport, Tokens, brief, decisions as decisions_of, dollars, state_view,
    steps as steps_of, undos, why,
};
use foldback::core::state::Spent;
use foldback::core::{Event, Fact, Status, Version, WorkflowState};
use foldback::engine::{LoadError, state_at};
use foldback::store::Store;
use serde_json::Value;

use crate::args::{AtArgs, Cli, quoted};
use crate::error::{Error, Exit};
use crate::moment::{span, with_millis};
use crate::now::{Now, until};
use crate::out::{Ink, Line, Out, columns};
use crate::reading::{self, Log, Values};
use crate::table;

/// Lines of a value that a person is shown.
const VALUE_LINES: usize = 40;
/// Characters of a value that a cell of a table may hold before it is cut to the terminal.
const CELL_MAX: usize = 400;

/// Prints the state of a workflow.
///
/// # Errors
/// No such workflow or version, or the store fails.
pub fn state(cli: &Cli, args: &AtArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let now = if args.at.is_none() { Some(Now::of(&*store)?) } else { None };
    if let Some(view) = near(&*store, args)? {
        return print(cli, &view, now).map(|()| Exit::Done);
    }
    let log = reading::read(cli, &*store, &args.id)?;
    let shown = log.up_to(cli, args.at.as_deref())?;
    let mut values = Values::of(cli, &*store, &log.row);
    let mut view = view_of(&log, shown, &mut values)?;
    let trouble = log.trouble(cli, shown);
    if trouble.is_some() {
        view.status = Status::Quarantined;
    }
    values.told(cli);
    print(cli, &view, now)?;
    trouble.map_or(Ok(Exit::Done), Err)
}

fn print(cli: &Cli, view: &StateView, now: Option<Now>) -> Result<(), Error> {
    let now = now.filter(|_| !view.status.is_ended());
    let mut out = Out::new();
    if cli.json {
        let mut document = serde_json::to_value(view).map_err(|e| Error::machine(e.to_string()))?;
        if let Some(now) = now {
            document["is_owned"] = now.is_owned.into();
            for (at, wait) in view.waits.iter().enumerate() {
                let is_overdue = wait.due.is_some_and(|due| due.0 < now.at);
                document["waits"][at]["is_overdue"] = is_overdue.into();
            }
        }
        out.json(&document)?;
    } else {
        print_state(cli, &mut out, view, now)?;
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
            Ok(Some(state_view(&state)))
        }
        Ok(_) | Err(LoadError::Quarantined { .. } | LoadError::Erased { .. }) => Ok(None),
        Err(LoadError::Store(_)) => Ok(None),
    }
}

fn view_of(log: &Log, shown: &[Event], values: &mut Values<'_>) -> Result<StateView, Error> {
    let mut state = WorkflowState::folded(&log.row.workflow_id, shown);
    values.fill_state(&mut state)?;
    let mut view = state_view(&state);
    let mut told = shown.to_vec();
    let armed = told.iter_mut().filter(|event| matches!(event.fact, Fact::UndoArmed(_)));
    armed.into_iter().try_for_each(|event| values.fill_event(event))?;
    view.undos = undos(&log.row.workflow_id, &told);
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
        let (again, id) = (cli.again(), quoted(&view.workflow_id));
        let text = format!("interrupted: nobody runs it; `{again} resume {id}` goes on");
        out.line(Line::new().ink(Ink::Yellow, text))?;
    }
    value(out, "input", &view.input)?;
    if *view.context != Value::Null {
        value(out, "context", &view.context)?;
    }
    if view.status == Status::Completed {
        value(out, "output", &view.output)?;
    }
    if let Some(error) = &view.error {
        let key = error.key.as_ref().map(|key| format!(" at {key}")).unwrap_or_default();
        out.line(
            Line::new().dim("error    ").ink(Ink::Red, format!("{} {}{key}", error.status, error.title)),
        )?;
        for line in error.detail.iter().flat_map(|detail| detail.lines()).take(VALUE_LINES) {
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
        text.push_str(&format!(", and what {lost} attempt{s} used whose process died"));
    }
    text
}

fn value(out: &mut Out, name: &str, value: &Value) -> Result<(), Error> {
    let short = value.to_string();
    let text = match columns(&short) + 9 <= out.width() {
        true => short,
        false => serde_json::to_string_pretty(value).map_err(|e| Error::machine(e.to_string()))?,
    };
    let count = text.lines().count();
    for (at, line) in text.lines().take(VALUE_LINES).enumerate() {
        let title = if at == 0 { name } else { "" };
        out.line(Line::new().dim(format!("{title:<9}")).plain(line))?;
    }
    if count > VALUE_LINES {
        out.line(
            Line::new().dim(format!("         … {} more lines; --json prints all", count - VALUE_LINES)),
        )?;
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

/// Prints what each step got and gave.
///
/// # Errors
/// No such workflow or version, or the store fails.
pub fn steps(cli: &Cli, args: &AtArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let mut log = reading::read(cli, &*store, &args.id)?;
    let shown = log.up_to(cli, args.at.as_deref())?;
    let trouble = log.trouble(cli, shown);
    let end = shown.len();
    let mut values = Values::of(cli, &*store, &log.row);
    values.fill_all(&mut log.events[..end])?;
    values.told(cli);
    let reports = steps_of(&log.events[..end]);
    let mut out = Out::new();
    if cli.json {
        reports.iter().try_for_each(|report| out.json(report))?;
    } else if !reports.is_empty() {
        let titles = [
            table::whole(""),
            table::whole("key"),
            table::whole("kind"),
            table::number("tries"),
            table::number("time"),
            table::number("tokens"),
            table::number("cost"),
            table::text("input"),
            table::text("output"),
        ];
        table::print(&mut out, &titles, reports.iter().map(step_row).collect())?;
    }
    out.flush()?;
    trouble.map_or(Ok(Exit::Done), Err)
}

fn step_row(report: &StepReport) -> Vec<Line> {
    let (mark, ink) = mark(report.status);
    let answer = match &report.error {
        Some(error) if report.status != ReportedStatus::Completed => {
            let detail = error.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
            Line::new().ink(
                Ink::Red,
                foldback::core::report::cut(&format!("{} {}{detail}", error.status, error.title), CELL_MAX),
            )
        }
        _ if matches!(report.status, ReportedStatus::Completed | ReportedStatus::Reused) => {
            brief(&report.output, CELL_MAX).into()
        }
        _ if report.held.is_some() => {
            let why = report.held.as_deref().unwrap_or_default();
            Line::new().ink(Ink::Yellow, foldback::core::report::cut(&format!("held: {why}"), CELL_MAX))
        }
        _ => Line::new().dim(report.status.as_str()),
    };
    let used = report.tokens != Tokens::default();
    let cost = match report.micro_usd {
        Some(0) => String::new(),
        Some(micro_usd) => dollars(micro_usd),
        None => "?".to_owned(),
    };
    vec![
        Line::new().ink(ink, mark),
        report.key.as_str().into(),
        Line::new().dim(&*report.kind),
        report.attempts.to_string().into(),
        report.duration_ms.map(span).unwrap_or_default().into(),
        if used { format!("{}+{}", report.tokens.input, report.tokens.output).into() } else { Line::new() },
        cost.into(),
        if *report.input == Value::Null { Line::new() } else { brief(&report.input, CELL_MAX).into() },
        answer,
    ]
}

/// Prints what was decided, and why.
///
/// # Errors
/// No such workflow, or the store fails.
pub fn decisions(cli: &Cli, args: &AtArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let mut log = reading::read(cli, &*store, &args.id)?;
    let shown = log.up_to(cli, args.at.as_deref())?;
    let trouble = log.trouble(cli, shown);
    let end = shown.len();
    let mut values = Values::of(cli, &*store, &log.row);
    for event in &mut log.events[..end] {
        if matches!(event.fact, foldback::core::Fact::DecisionMade(_)) {
            values.fill_event(event)?;
        }
    }
    values.told(cli);
    let reports = decisions_of(&log.events[..end]);
    let mut out = Out::new();
    if cli.json {
        reports.iter().try_for_each(|report| out.json(report))?;
    } else {
        let rows = reports.into_iter().map(|report| {
            vec![
                report.version.to_string().into(),
                Line::new().ink(Ink::Bold, report.key.as_str()),
                Line::new().dim("chose ").ink(Ink::Cyan, report.chosen),
                Line::new().dim("out of ").plain(report.options.join(", ")),
                Line::new().dim("because ").plain(why(&report.because)),
            ]
        });
        let titles =
            [table::number(""), table::whole(""), table::whole(""), table::text(""), table::text("")];
        table::print(&mut out, &titles, rows.collect())?;
    }
    out.flush()?;
    trouble.map_or(Ok(Exit::Done), Err)
}
