//! `show`: a workflow on one page. What it did, as a tree with time and cost; how it stands; and
//! what a person does next.

use foldback::core::report::{
    Book, Growing, Grown, Lasting, LedgerEffect, Moment, PastFailures, Tokens, brief, state_view,
};
use foldback::core::state::{End, EntryBody};
use foldback::core::text::shell_word;
use foldback::core::{Changes, Fact, Failure, Micros, StepStatus, TaskKind, WorkflowState};
use foldback::store::WorkflowRow;
use serde_json::{Value, json};

use crate::args::{Cli, StepArgs};
use crate::error::{Error, Exit};
use crate::moment::{span, with_seconds};
use crate::now::Now;
use crate::out::{Ink, Line, Out, columns};
use crate::reading::{self, Values};
use crate::state::{spent_text, status_ink};
use crate::tree::{Around, lay_out, reason};
use crate::{ending, steps};

/// A scope with more children shows its first and its last ones.
const CHILDREN_MAX: usize = 40;
/// No name in the tree takes more columns.
const NAME_MAX: usize = 56;
/// Lines of an error's detail that are shown.
const DETAIL_LINES: usize = 12;

/// Prints a workflow on one page.
///
/// # Errors
/// No such workflow, key or version, or the store fails.
pub fn show(cli: &Cli, args: &StepArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let store = &*store;
    let row = reading::row(cli, store, &args.id)?;
    let to = reading::version(cli, store, &row, args.at.as_deref())?;
    if let Some(key) = &args.key {
        return steps::one(cli, store, args, key, to);
    }
    // A tree shows why something was decided and what went wrong; what steps got and gave is another question.
    let mut values = Values::of(cli, store, &row).only(|fact| match fact {
        Fact::DecisionMade(_) | Fact::AttemptFailed(_) | Fact::StepFailed(_) => true,
        Fact::TaskStarted { key, kind, .. } => *kind == TaskKind::For || key.as_str().ends_with("!catch"),
        Fact::TaskFinished { context, .. } => context.is_some(),
        fact => fact.changes().is_some(),
    });
    let ahead = reading::ahead(store, &args.id, to)?;
    let keep = if args.full { usize::MAX } else { CHILDREN_MAX / 2 };
    let (mut growing, mut book) = (Growing::new(keep, &ahead), Book::new(&args.id));
    let (mut lasting, mut failures) = (Lasting::default(), PastFailures::default());
    let (mut end_at, mut changed) = (None, None);
    let walked = reading::walk(store, &args.id, to, Some(&mut values), &mut |_, event| {
        growing.read(event);
        book.read(event);
        lasting.read(event);
        failures.read(event);
        if is_end(&event.fact) {
            end_at = Some(Moment(event.timestamp));
        }
        changed = event.fact.changes().map(Changes::told).or(changed.take());
        Ok(())
    })?;
    let trouble = reading::trouble(cli, &row, &walked);
    let mut state = walked.state;
    values.fill_state(&mut state)?;
    values.told(cli);
    // A stream of events alone is moved by nobody.
    let is_now = args.at.is_none() && state.is_started() && !state.status().is_ended();
    let now = if is_now { Some(Now::of(store)?) } else { None };
    let page = Page {
        is_past: state.version < row.version,
        row,
        state,
        tree: growing.finish(),
        effects: book.effects,
        failures,
        lasting,
        end_at,
        changed: changed.unwrap_or_default(),
        is_quarantined: trouble.is_some(),
        now,
    };
    let mut out = Out::new().full(args.full);
    if cli.json {
        out.json(&page.as_json())?;
    } else {
        page.print(cli, &mut out)?;
    }
    out.flush()?;
    trouble.map_or(Ok(Exit::Done), Err)
}

struct Page {
    row: WorkflowRow,
    state: WorkflowState,
    tree: Grown,
    effects: Vec<LedgerEffect>,
    failures: PastFailures,
    lasting: Lasting,
    end_at: Option<Moment>,
    /// What a person changed in it, as a fork or by reopening it.
    changed: Vec<String>,
    is_past: bool,
    is_quarantined: bool,
    /// This moment, where the page is of now and the workflow has not ended.
    now: Option<Now>,
}

impl Page {
    fn status(&self) -> &'static str {
        if self.is_quarantined { "quarantined" } else { self.state.status().as_str() }
    }

    fn error(&self) -> Option<&Failure> {
        match &self.state.end {
            Some(End::Failed { error }) => Some(error),
            Some(End::Completed { .. } | End::Cancelled { .. } | End::Parked { .. }) | None => None,
        }
    }

    /// When it began: a fork with its own first event, as `list` says it too.
    fn started_at(&self) -> Micros {
        let own = self.row.parent.as_ref().map(|_| self.row.started_at);
        own.or(self.lasting.first).unwrap_or(self.row.started_at)
    }

    /// From its begin to its last event, in ms; to this moment, where it has not ended. The past that a fork shares
    /// took its time too.
    fn duration_ms(&self) -> u64 {
        let since = self.now.map_or(0, |now| now.at.saturating_sub(self.state.clock).max(0));
        self.lasting.ms() + u64::try_from(since).unwrap_or(0) / 1_000
    }

    fn as_json(&self) -> Value {
        let row = &self.row;
        let output = match &self.state.end {
            Some(End::Completed { output }) => (*output.get()).clone(),
            Some(End::Failed { .. } | End::Cancelled { .. } | End::Parked { .. }) | None => Value::Null,
        };
        let mut page = json!({
            "workflow_id": row.workflow_id,
            "definition": row.name,
            "definition_hash": row.definition.map(|hash| hash.to_hex()),
            "status": self.status(),
            "version": self.state.version,
            "started_at": Moment(self.started_at()),
            "ended_at": self.end_at,
            "duration_ms": self.duration_ms(),
            "parent": row.parent.as_ref().map(|(parent, cut, _)| json!({"workflow_id": parent, "cut": cut})),
            "input": self.state.input.get(),
            "output": output,
            "error": self.error().map(Failure::plain),
            "spent": self.state.spent,
            "tree": self.tree.nodes,
            "left_out": self.tree.left_out,
            "effects": self.effects,
            "failures": self.failures.kept().collect::<Vec<_>>(),
            "failures_left_out": self.failures.left_out(),
            "waits": state_view(&self.state).waits,
        });
        if let Some(now) = self.now {
            page["is_owned"] = json!(now.is_owned);
        }
        page
    }

    fn print(&self, cli: &Cli, out: &mut Out) -> Result<(), Error> {
        let row = &self.row;
        let status = self.status();
        let name = if row.name.is_empty() { "events without a definition" } else { &*row.name };
        out.line(
            Line::new()
                .ink(Ink::Bold, &*row.workflow_id)
                .plain(format!("  {name}  "))
                .ink(status_ink(status), status)
                .dim(format!("  {}", self.took())),
        )?;
        let spent = &self.state.spent;
        let tokens = Tokens { input: spent.input_tokens, output: spent.output_tokens };
        let version = format!("version {}", self.state.version);
        let started = with_seconds(self.started_at());
        // What a fork shares was done, and paid for, by its parent.
        let own = if row.parent.is_some() { " of its own" } else { "" };
        out.line(Line::new().dim(format!("{version}, {}{own}, began {started}", spent_text(spent, tokens))))?;
        if let Some((parent, cut, _)) = &row.parent {
            let told = self.changed.join(", ");
            let with = if told.is_empty() { told } else { format!(", with {told}") };
            out.line(Line::new().dim(format!("a fork of {parent}, cut at version {cut}{with}")))?;
        }
        if !self.tree.nodes.is_empty() {
            out.line("")?;
            let mut rows = Vec::new();
            let around = Around { state: &self.state, now: self.now, is_full: out.most(1) > 1 };
            lay_out(&around, &self.tree.nodes, self.tree.left_out.as_ref(), "", true, &mut rows);
            let wide = rows.iter().map(|row| row.name.width()).max().unwrap_or(0).min(NAME_MAX);
            let width = out.width();
            for row in rows {
                out.line(row.name.padded(wide).plain("  ").and(row.rest).cut(width))?;
            }
        }
        if self.now.is_some_and(|now| now.interrupts(status)) {
            out.line("")?;
            out.line(Line::new().ink(Ink::Yellow, "⚠ interrupted: nobody runs it"))?;
        }
        if let Some(pause) = &self.state.pause {
            out.line("")?;
            out.line(Line::new().ink(Ink::Yellow, format!("‖ paused: {}", pause.reason)))?;
        }
        for (scope, budget) in &self.state.budgets {
            out.line(Line::new().dim(ending::budget_line(
                scope,
                budget,
                self.now.map_or(self.state.clock, |now| now.at),
            )))?;
        }
        ending::print_ledger(out, &self.effects)?;
        self.print_failures(out)?;
        self.print_end(cli, out)
    }

    /// What went wrong on the way, and what followed.
    fn print_failures(&self, out: &mut Out) -> Result<(), Error> {
        if self.failures.count == 0 {
            return Ok(());
        }
        out.line("")?;
        out.line(Line::new().dim("what failed on the way"))?;
        let (width, left_out) = (out.width(), self.failures.left_out());
        for (at, failure) in self.failures.kept().enumerate() {
            if left_out > 0 && at as u64 * 2 == self.failures.count - left_out {
                out.line(Line::new().dim(format!("  … {left_out} more")))?;
            }
            let key = failure.key.as_ref().map_or("", |key| key.as_str());
            let error = &failure.error;
            let line = Line::new()
                .dim(format!("{:>5}  ", failure.version))
                .plain(key)
                .ink(Ink::Cyan, format!("  {}  ", failure.then))
                .ink(Ink::Yellow, format!("{} {}", error.status, error.title));
            out.line(line.plain(reason(error, failure.rejected.as_deref())).cut(width))?;
        }
        Ok(())
    }

    fn took(&self) -> String {
        let millis = self.duration_ms();
        if self.state.end.is_some() {
            format!("in {}", span(millis))
        } else {
            format!("for {} so far", span(millis))
        }
    }

    fn print_end(&self, cli: &Cli, out: &mut Out) -> Result<(), Error> {
        let (again, id) = (cli.again(), shell_word(&self.row.workflow_id));
        let mut next: Vec<(String, &str)> = Vec::new();
        match &self.state.end {
            _ if self.is_quarantined => {
                next.push((format!("{again} audit {id}"), "what is broken"));
                next.push((format!("{again} events {id}"), "all that is written"));
            }
            Some(_) if let Some((undo, _)) = self.state.stuck() => {
                next.push((format!("{again} compensate {id}"), "once it is mended, go on taking it back"));
                let key = shell_word(undo.key.undo().as_str());
                next.push((format!("{again} resolve {id} {key} landed"), "once it is done by hand, go on"));
                next.push((format!("{again} steps {id}"), "what each step got and gave"));
            }
            Some(_) if self.state.is_compensating() => self.push_open(&again, &id, &mut next),
            Some(End::Cancelled { reason }) => {
                let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                out.line("")?;
                out.line(Line::new().ink(Ink::Yellow, format!("⊘ cancelled{reason}")))?;
                if self.state.newest_undo.is_some() {
                    next.push((format!("{again} compensate {id}"), "take back what it did"));
                }
            }
            Some(End::Failed { error }) => {
                out.line("")?;
                print_failure(out, error)?;
                if self.state.newest_undo.is_some() {
                    next.push((format!("{again} compensate {id}"), "take back what it did"));
                }
                next.push((
                    format!("{again} state {id} --at failure"),
                    "what was true just before it, and the failing step whole",
                ));
                next.push((format!("{again} steps {id}"), "what each step got and gave"));
                next.push((format!("{again} retry {id}"), "once it is mended, go on from there"));
            }
            Some(End::Parked { key, recorded, asked }) => {
                out.line("")?;
                out.line(
                    Line::new().ink(Ink::Red, format!("✗ parked at {key}: the program and its log parted")),
                )?;
                out.line(format!("  the log says      {recorded}"))?;
                out.line(format!("  the program asks  {asked}"))?;
                next.push((format!("{again} verify {id}"), "where they part"));
                next.push((
                    format!("{again} retry {id} --definition FILE"),
                    "go on with a definition that fits",
                ));
                next.push((format!("{again} state {id} --at failure"), "what was true just before it"));
            }
            Some(End::Completed { output }) => {
                let text = brief(&output.get(), out.most(2_000));
                out.line("")?;
                let width = out.width();
                out.line(Line::new().dim("output  ").plain(text).cut(width))?;
            }
            // What was to be done in the past is nobody's matter now.
            None if self.is_past => {}
            None => self.push_open(&again, &id, &mut next),
        }
        if !next.is_empty() {
            out.line("")?;
        }
        let wide = next.iter().map(|(command, _)| columns(command)).max().unwrap_or(0);
        for (at, (command, why)) in next.into_iter().enumerate() {
            let title = if at == 0 { "next:  " } else { "       " };
            out.line(Line::new().dim(title).and(Line::from(command).padded(wide)).dim(format!("  {why}")))?;
        }
        Ok(())
    }

    /// What moves a workflow that has not ended.
    fn push_open(&self, again: &str, id: &str, next: &mut Vec<(String, &str)>) {
        let mut is_owed = false;
        if let Some(pause) = &self.state.pause {
            let raise = ending::raise(pause.budget.as_ref());
            next.push((format!("{again} unpause {id}{raise}"), "let it go on"));
            next.push((format!("{again} cancel {id}"), "end it, and take back what it did"));
            return;
        }
        for key in &self.state.open {
            match self.state.entries.get(key).map(|entry| &entry.body) {
                Some(EntryBody::Step(step)) if step.status == StepStatus::Unknown => {
                    let (step_key, key) = (key.clone(), shell_word(key.as_str()));
                    next.push((
                        format!("{again} resolve {id} {key} landed 'JSON'"),
                        "if it happened; JSON is what it answered, or null",
                    ));
                    let is_over = step.is_given_up || !self.state.may_move(&step_key);
                    let then = if is_over { "if it did not" } else { "if it did not; it is done again" };
                    next.push((format!("{again} resolve {id} {key} didnt"), then));
                }
                Some(EntryBody::Step(step)) if step.status == StepStatus::Held => {
                    let key = shell_word(key.as_str());
                    next.push((format!("{again} resolve {id} {key} live"), "perform it"));
                    next.push((
                        format!("{again} resolve {id} {key} stub [JSON]"),
                        "go on as if it had given this, or what it gave before",
                    ));
                    next.push((format!("{again} resolve {id} {key} deny"), "it fails"));
                }
                Some(EntryBody::Listening { names, wants, .. }) => {
                    next.extend(ending::answers(again, id, names, &wants.get()));
                }
                Some(EntryBody::Step(_) | EntryBody::Timer { .. }) => is_owed = true,
                Some(EntryBody::Started { .. } | EntryBody::Decided { .. } | EntryBody::Finished { .. })
                | None => {}
            }
        }
        if is_owed {
            let is_owned = self.now.is_none_or(|now| !now.is_unowned());
            let why = if is_owned { "if no process is at it" } else { "go on" };
            next.push((format!("{again} resume {id}"), why));
            if is_owned {
                next.push((format!("{again} events {id} --follow"), "watch it"));
            }
        }
    }
}

fn is_end(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::CompensationEnded { .. }
            | Fact::WorkflowParked { .. }
    )
}

fn print_failure(out: &mut Out, error: &Failure) -> Result<(), Error> {
    let key = error.key.as_ref().map(|key| format!(" at {key}")).unwrap_or_default();
    let kind = error.short_type();
    out.line(
        Line::new()
            .ink(Ink::Red, format!("✗ {} {}{key}", error.status, error.title))
            .dim(format!("  {kind}")),
    )?;
    let detail: Vec<&str> = error.detail.iter().flat_map(|detail| detail.lines()).collect();
    let most = out.most(DETAIL_LINES);
    for line in detail.iter().take(most) {
        out.line(format!("  {line}"))?;
    }
    if detail.len() > most {
        out.line(Line::new().dim(format!("  … {} more lines; --full prints all", detail.len() - most)))?;
    }
    if let Some(instance) = &error.instance {
        out.line(Line::new().dim(format!("  in the definition: {instance}")))?;
    }
    Ok(())
}
