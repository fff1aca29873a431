//! `steps` and `decisions`: what each step got and gave, what was decided and why. Rows are printed as the
//! log is read; of many, a person sees the first and the last ones and how many there are.

use std::collections::{HashMap, VecDeque};

use foldback::core::report::{
    DecisionReport, ReportedStatus, Rows, StepReport, Tokens, brief, cut, decisions as decisions_of, dollars,
    why_in,
};
use foldback::core::{Event, Fact, Hash, Key, Run, TaskKind, Version, WorkflowState};
use foldback::engine::Programs;
use foldback::programs::Definitions;
use foldback::store::Store;
use serde_json::Value;

use crate::args::{AtArgs, Cli, StepArgs};
use crate::error::{Error, Exit};
use crate::moment::span;
use crate::out::{Ink, Line, Out};
use crate::reading::{self, Values};
use crate::state::mark;
use crate::{table, whole};

/// Characters of a value that a cell of a table may hold before it is cut to the terminal.
const CELL_MAX: usize = 400;
/// Rows that a person is shown of the begin, and of the end, of many.
const ROWS_MAX: usize = 200;

/// Prints what each step got and gave.
///
/// # Errors
/// No such workflow, key or version, or the store fails.
pub fn steps(cli: &Cli, args: &StepArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let store = &*store;
    let row = reading::row(cli, store, &args.id)?;
    let to = reading::version(cli, store, &row, args.at.as_deref())?;
    if let Some(key) = &args.key {
        return one(cli, store, args, key, to);
    }
    let mut values = Values::of(cli, store, &row);
    let ahead = reading::ahead(store, &args.id, to)?;
    let mut out = Out::new().full(args.full);
    let mut rows = Rows::knowing(&ahead);
    let mut inputs = Inputs::new(store);
    let mut ends = Ends::new(&out);
    let mut take = |out: &mut Out, report: StepReport| match cli.json {
        true => out.json(&report),
        false => {
            ends.push(report);
            Ok(())
        }
    };
    let walked = reading::walk(store, &args.id, to, Some(&mut values), &mut |before, event| {
        inputs.give(&mut rows, before, event)?;
        rows.read(event);
        rows.ready().into_iter().try_for_each(|report| take(&mut out, report))
    })?;
    rows.finish().into_iter().try_for_each(|report| take(&mut out, report))?;
    values.told(cli);
    if !ends.is_empty() {
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
        let most = out.most(CELL_MAX);
        let rows = ends.lines(|report| step_rows(report, most), "steps");
        table::print(&mut out, &titles, rows)?;
    }
    out.flush()?;
    reading::trouble(cli, &row, &walked).map_or(Ok(Exit::Done), Err)
}

/// One step, task or decision, whole.
pub fn one(cli: &Cli, store: &dyn Store, args: &StepArgs, key: &str, to: Version) -> Result<Exit, Error> {
    let row = reading::row(cli, store, &args.id)?;
    let told = whole::of(cli, store, &row, &Key::from(key), to, None)?;
    let mut out = Out::new().full(args.full);
    match cli.json {
        true => out.json(&told)?,
        false => whole::print(&mut out, &told)?,
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// The inputs of values that a program computed and the log does not repeat: asked of the program, in the
/// state just before.
struct Inputs<'a> {
    store: &'a dyn Store,
    programs: Definitions,
    runs: HashMap<Hash, Option<Box<dyn Run>>>,
}

impl<'a> Inputs<'a> {
    fn new(store: &'a dyn Store) -> Inputs<'a> {
        Inputs { store, programs: Definitions::default(), runs: HashMap::new() }
    }

    fn give(&mut self, rows: &mut Rows, before: &WorkflowState, event: &Event) -> Result<(), Error> {
        let Fact::TaskFinished { key, kind: TaskKind::Set, .. } = &event.fact else { return Ok(()) };
        if rows.has_input(key) {
            return Ok(());
        }
        if !self.runs.contains_key(&before.definition) {
            let definition = self.store.definition(&before.definition)?;
            let program = definition.and_then(|definition| self.programs.program(&definition).ok());
            self.runs.insert(before.definition, program.map(|program| program.start(before)));
        }
        let run = self.runs.get_mut(&before.definition).and_then(Option::as_mut);
        if let Some(seen) = run.and_then(|run| run.sees(before, key)) {
            rows.give_input(key, seen.input, event.version, event.timestamp);
        }
        Ok(())
    }
}

/// The first and the last of many, and how many there are.
struct Ends<T> {
    most: usize,
    first: Vec<T>,
    last: VecDeque<T>,
    left_out: usize,
}

impl<T> Ends<T> {
    fn new(out: &Out) -> Ends<T> {
        let most = out.most(ROWS_MAX);
        Ends { most, first: Vec::new(), last: VecDeque::new(), left_out: 0 }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    fn push(&mut self, item: T) {
        if self.first.len() < self.most {
            return self.first.push(item);
        }
        if self.last.len() == self.most {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back(item);
    }

    /// The lines of a table: one that says how many are left out stands between.
    fn lines(self, mut row: impl FnMut(T) -> Vec<Vec<Line>>, what: &str) -> Vec<Vec<Line>> {
        let mut lines: Vec<Vec<Line>> = self.first.into_iter().flat_map(&mut row).collect();
        if self.left_out > 0 {
            let text = format!("… {} more {what}; --full prints all", self.left_out);
            lines.push(vec![Line::new().dim(text)]);
        }
        lines.extend(self.last.into_iter().flat_map(row));
        lines
    }
}

fn step_rows(report: StepReport, most: usize) -> Vec<Vec<Line>> {
    let mut rows = vec![step_row(&report, most)];
    for attempt in &report.failed_attempts {
        let error = &attempt.error;
        let detail = error.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
        let answered =
            attempt.rejected.as_ref().map(|answer| format!("; it answered {answer}")).unwrap_or_default();
        let text = format!("{} {}{detail}{answered}", error.status, error.title);
        let blank = Line::new;
        rows.push(vec![
            blank(),
            Line::new().dim(format!("  try {}", attempt.attempt)),
            blank(),
            blank(),
            blank(),
            blank(),
            blank(),
            blank(),
            Line::new().ink(Ink::Yellow, cut(&text, most)),
        ]);
    }
    rows
}

fn step_row(report: &StepReport, most: usize) -> Vec<Line> {
    let (mark, ink) = mark(report.status);
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
        if *report.input == Value::Null { Line::new() } else { brief(&report.input, most).into() },
        answer(report, most),
    ]
}

fn answer(report: &StepReport, most: usize) -> Line {
    match &report.error {
        Some(error) if report.status != ReportedStatus::Completed => {
            let detail = error.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
            Line::new().ink(Ink::Red, cut(&format!("{} {}{detail}", error.status, error.title), most))
        }
        _ if matches!(report.status, ReportedStatus::Completed | ReportedStatus::Reused) => {
            let mark = match (&report.edited, report.answered) {
                (Some(edited), _) => match &edited.was {
                    Some(was) => format!("edited, was {}: ", brief(was, most)),
                    None => format!("edited {}: ", edited.what),
                },
                (None, Some("default")) => "the default, nobody answered: ".to_owned(),
                (None, _) => String::new(),
            };
            Line::new().ink(Ink::Yellow, mark).plain(brief(&report.output, most))
        }
        _ if report.held.is_some() => {
            let why = report.held.as_deref().unwrap_or_default();
            Line::new().ink(Ink::Yellow, cut(&format!("held: {why}"), most))
        }
        _ => Line::new().dim(report.status.as_str()),
    }
}

/// Prints what was decided, and why.
///
/// # Errors
/// No such workflow, or the store fails.
pub fn decisions(cli: &Cli, args: &AtArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let store = &*store;
    let row = reading::row(cli, store, &args.id)?;
    let to = reading::version(cli, store, &row, args.at.as_deref())?;
    let mut values = Values::of(cli, store, &row).only(|fact| matches!(fact, Fact::DecisionMade(_)));
    let mut out = Out::new().full(args.full);
    let mut ends = Ends::new(&out);
    let walked = reading::walk(store, &args.id, to, Some(&mut values), &mut |_, event| {
        decisions_of([event]).into_iter().try_for_each(|report| match cli.json {
            true => out.json(&report),
            false => {
                ends.push(report);
                Ok(())
            }
        })
    })?;
    values.told(cli);
    if !ends.is_empty() {
        let is_full = args.full;
        let line = |report: DecisionReport| {
            vec![vec![
                report.version.to_string().into(),
                Line::new().ink(Ink::Bold, report.key.as_str()),
                Line::new().dim("chose ").ink(Ink::Cyan, report.chosen),
                Line::new().dim("out of ").plain(report.options.join(", ")),
                Line::new().dim("because ").plain(why_in(&report.because, is_full)),
            ]]
        };
        let titles =
            [table::number(""), table::whole(""), table::whole(""), table::text(""), table::text("")];
        let rows = ends.lines(line, "decisions");
        table::print(&mut out, &titles, rows)?;
    }
    out.flush()?;
    reading::trouble(cli, &row, &walked).map_or(Ok(Exit::Done), Err)
}
