//! `show`: a workflow on one page. What it did, as a tree with time and cost; how it stands; and
//! what a person does next.

use foldback::core::report::{
    LedgerEffect, Moment, ReportedStatus, Tokens, TreeNode, What, brief, dollars, lasted_ms, ledger,
    state_view, tree, why,
};
use foldback::core::state::{End, EntryBody};
use foldback::core::{Changes, Event, Fact, Failure, StepStatus, Verdict, WorkflowState};
use serde_json::{Value, json};

use crate::args::{AtArgs, Cli, quoted};
use crate::ending;
use crate::error::{Error, Exit};
use crate::moment::{span, with_seconds};
use crate::now::{self, Now};
use crate::out::{Ink, Line, Out, columns};
use crate::reading::{self, Log, Values};
use crate::state::{mark, spent_text, status_ink};

/// A scope with more children shows its first and its last ones.
const CHILDREN_MAX: usize = 40;
/// No name in the tree takes more columns.
const NAME_MAX: usize = 56;
/// Lines of an error's detail that are shown.
const DETAIL_LINES: usize = 12;

/// Prints a workflow on one page.
///
/// # Errors
/// No such workflow or version, or the store fails.
pub fn show(cli: &Cli, args: &AtArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let mut log = reading::read(cli, &*store, &args.id)?;
    let shown = log.up_to(cli, args.at.as_deref())?;
    let trouble = log.trouble(cli, shown);
    let end = shown.len();
    let mut values = Values::of(cli, &*store, &log.row);
    for event in &mut log.events[..end] {
        // A tree shows why something was decided; what steps got and gave is another question.
        if matches!(event.fact, Fact::DecisionMade(_)) {
            values.fill_event(event)?;
        }
    }
    let shown = &log.events[..end];
    let mut state = WorkflowState::folded(&args.id, shown);
    values.fill_state(&mut state)?;
    values.told(cli);
    // A stream of events alone is moved by nobody.
    let is_now = args.at.is_none() && state.is_started() && !state.status().is_ended();
    let now = if is_now { Some(Now::of(&*store)?) } else { None };
    let nodes = tree(shown);
    let page = Page { log: &log, shown, state: &state, nodes, is_quarantined: trouble.is_some(), now };
    let mut out = Out::new();
    if cli.json {
        out.json(&page.as_json())?;
    } else {
        page.print(cli, &mut out)?;
    }
    out.flush()?;
    trouble.map_or(Ok(Exit::Done), Err)
}

struct Page<'a> {
    log: &'a Log,
    shown: &'a [Event],
    state: &'a WorkflowState,
    nodes: Vec<TreeNode>,
    is_quarantined: bool,
    /// This moment, where the page is of now and the workflow has not ended.
    now: Option<Now>,
}

impl Page<'_> {
    fn status(&self) -> &'static str {
        if self.is_quarantined { "quarantined" } else { self.state.status().as_str() }
    }

    fn error(&self) -> Option<&Failure> {
        match &self.state.end {
            Some(End::Failed { error }) => Some(error),
            Some(End::Completed { .. } | End::Cancelled { .. } | End::Parked { .. }) | None => None,
        }
    }

    /// From its begin to its last event, in ms; to this moment, where it has not ended.
    fn duration_ms(&self) -> u64 {
        let since = self.now.map_or(0, |now| now.at.saturating_sub(self.state.clock).max(0));
        lasted_ms(self.shown) + u64::try_from(since).unwrap_or(0) / 1_000
    }

    fn as_json(&self) -> Value {
        let row = &self.log.row;
        let end_at =
            self.shown.iter().rev().find(|event| is_end(&event.fact)).map(|event| Moment(event.timestamp));
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
            "started_at": Moment(self.shown.first().map_or(row.started_at, |event| event.timestamp)),
            "ended_at": end_at,
            "duration_ms": self.duration_ms(),
            "parent": row.parent.as_ref().map(|(parent, cut, _)| json!({"workflow_id": parent, "cut": cut})),
            "input": self.state.input.get(),
            "output": output,
            "error": self.error(),
            "spent": self.state.spent,
            "tree": self.nodes,
            "effects": self.effects(),
            "waits": state_view(self.state).waits,
        });
        if let Some(now) = self.now {
            page["is_owned"] = json!(now.is_owned);
        }
        page
    }

    fn print(&self, cli: &Cli, out: &mut Out) -> Result<(), Error> {
        let row = &self.log.row;
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
        let started = with_seconds(self.shown.first().map_or(row.started_at, |event| event.timestamp));
        out.line(Line::new().dim(format!("{version}, {}, began {started}", spent_text(spent, tokens))))?;
        if let Some((parent, cut, _)) = &row.parent {
            let told = self.shown.iter().rev().find_map(|event| event.fact.changes()).map(Changes::told);
            let with = told.filter(|told| !told.is_empty()).map(|told| format!(", with {}", told.join(", ")));
            let with = with.unwrap_or_default();
            out.line(Line::new().dim(format!("a fork of {parent}, cut at version {cut}{with}")))?;
        }
        if !self.nodes.is_empty() {
            out.line("")?;
            let mut rows = Vec::new();
            lay_out(self, &self.nodes, "", true, &mut rows);
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
        ending::print_ledger(out, &self.effects())?;
        self.print_end(cli, out)
    }

    fn effects(&self) -> Vec<LedgerEffect> {
        ledger(&self.log.row.workflow_id, self.shown)
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
        let (again, id) = (cli.again(), quoted(&self.log.row.workflow_id));
        let is_past = self.shown.len() < self.log.events.len();
        let mut next: Vec<(String, &str)> = Vec::new();
        match &self.state.end {
            _ if self.is_quarantined => {
                next.push((format!("{again} audit {id}"), "what is broken"));
                next.push((format!("{again} events {id}"), "all that is written"));
            }
            Some(_) if let Some((undo, _)) = self.state.stuck() => {
                next.push((format!("{again} compensate {id}"), "once it is mended, go on taking it back"));
                let key = quoted(undo.key.undo().as_str());
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
                next.push((format!("{again} state {id} --at failure"), "what was true just before it"));
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
                let text = brief(&output.get(), 2_000);
                out.line("")?;
                let width = out.width();
                out.line(Line::new().dim("output  ").plain(text).cut(width))?;
            }
            // What was to be done in the past is nobody's matter now.
            None if is_past => {}
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
                    let (step_key, key) = (key.clone(), quoted(key.as_str()));
                    next.push((format!("{again} resolve {id} {key} landed"), "if it happened"));
                    let is_over = step.is_given_up || !self.state.may_move(&step_key);
                    let then = if is_over { "if it did not" } else { "if it did not; it is done again" };
                    next.push((format!("{again} resolve {id} {key} didnt"), then));
                }
                Some(EntryBody::Step(step)) if step.status == StepStatus::Held => {
                    let key = quoted(key.as_str());
                    next.push((format!("{again} resolve {id} {key} live"), "perform it"));
                    next.push((
                        format!("{again} resolve {id} {key} stub JSON"),
                        "go on as if it had been done",
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
    for line in detail.iter().take(DETAIL_LINES) {
        out.line(format!("  {line}"))?;
    }
    if detail.len() > DETAIL_LINES {
        out.line(
            Line::new().dim(format!("  … {} more lines; --json prints all", detail.len() - DETAIL_LINES)),
        )?;
    }
    if let Some(instance) = &error.instance {
        out.line(Line::new().dim(format!("  in the definition: {instance}")))?;
    }
    Ok(())
}

/// A line of the tree: the name with its branch, and what is said of it.
struct TreeLine {
    name: Line,
    rest: Line,
}

/// Lays the nodes out below each other. `indent` is what stands before their branches.
fn lay_out(page: &Page<'_>, nodes: &[TreeNode], indent: &str, is_top: bool, rows: &mut Vec<TreeLine>) {
    let left_out = if nodes.len() > CHILDREN_MAX { nodes.len() - CHILDREN_MAX } else { 0 };
    for (at, node) in nodes.iter().enumerate() {
        let is_last = at + 1 == nodes.len();
        let (branch, below) = match (is_top, is_last) {
            (true, _) => ("", ""),
            (false, false) => ("├─ ", "│  "),
            (false, true) => ("└─ ", "   "),
        };
        if left_out > 0 && (CHILDREN_MAX / 2..CHILDREN_MAX / 2 + left_out).contains(&at) {
            if at == CHILDREN_MAX / 2 {
                let text = format!("… {left_out} more; --json shows all");
                rows.push(TreeLine {
                    name: Line::new().dim(format!("{indent}{branch}")).dim(text),
                    rest: Line::new(),
                });
            }
            continue;
        }
        rows.push(TreeLine { name: name(node, &format!("{indent}{branch}")), rest: rest(page, node) });
        lay_out(page, &node.children, &format!("{indent}{below}"), false, rows);
    }
}

fn name(node: &TreeNode, branch: &str) -> Line {
    let (sign, ink) = match (&node.what, node.status) {
        (What::Decision { .. }, _) => ("◆", Ink::Cyan),
        (What::Event { .. }, _) => ("●", Ink::Cyan),
        (What::Scope { .. } | What::Step { .. } | What::Timer { .. } | What::Listen { .. }, status) => {
            mark(status)
        }
    };
    let label = match (&node.what, node.label.strip_prefix('!')) {
        // A mark reads as a word: the second try, the handler.
        (What::Scope { .. }, Some(mark)) if mark.bytes().all(|b| b.is_ascii_digit()) => {
            format!("try {mark}")
        }
        (_, Some(mark)) => mark.to_owned(),
        (_, None) => node.label.replace('!', " "),
    };
    Line::new().dim(branch).ink(ink, sign).plain(" ").plain(label)
}

fn rest(page: &Page<'_>, node: &TreeNode) -> Line {
    match &node.what {
        What::Decision { chosen, options, because: values } => {
            let others: Vec<&str> =
                options.iter().map(String::as_str).filter(|option| option != chosen).collect();
            let over = if others.is_empty() { String::new() } else { format!(" over {}", others.join(", ")) };
            let why =
                if **values == Value::Null { String::new() } else { format!("  because {}", why(values)) };
            Line::new().plain("chose ").ink(Ink::Cyan, chosen).dim(over).dim(why)
        }
        What::Event { event_type } => Line::new().ink(Ink::Cyan, &**event_type),
        What::Timer { due } if node.duration_ms.is_none() => {
            Line::new().ink(Ink::Yellow, format!("waits {}", now::until(due.0, page.now)))
        }
        What::Timer { .. } => Line::new().dim("waited").and(figures(node)),
        What::Listen { names } if node.duration_ms.is_none() => {
            let deadline = now::deadline(page.state, &node.key, page.now);
            Line::new().ink(Ink::Yellow, format!("waits for {}{deadline}", names.join(", ")))
        }
        What::Listen { names } => Line::new().dim(names.join(", ")).and(figures(node)),
        What::Scope { task } => {
            let figures = figures(node);
            match task {
                Some(task) => Line::new().dim(format!("{task:?}").to_lowercase()).and(figures),
                None => figures,
            }
        }
        What::Step {
            kind,
            attempts,
            lost_attempts,
            model,
            variant,
            finish_reason,
            found_in,
            is_estimated,
            is_unpriced,
            error,
            due,
            reused,
            held,
            settled,
            ..
        } => {
            let mut line = Line::new().dim(&**kind);
            if let Some(model) = model {
                line = line.dim(format!(" {model}"));
            }
            if *variant > 0 {
                line = line.ink(Ink::Yellow, format!(" fallback {variant}"));
            }
            line = line.and(figures(node));
            if *is_unpriced && kind.as_ref() == "llm" {
                line = line.dim(if node.micro_usd > 0 { " or more" } else { "  no price known" });
            }
            if *is_estimated {
                line = line.dim("  tokens estimated");
            }
            if let Some(place) = found_in {
                line = line.dim(format!("  answer from {place}"));
            }
            if finish_reason.as_deref() == Some("length") {
                line = line.ink(Ink::Yellow, "  cut at max_tokens");
            }
            if *attempts > 1 {
                let lost = match lost_attempts {
                    0 => String::new(),
                    lost => format!(", {lost} lost with its process"),
                };
                line = line.ink(Ink::Yellow, format!("  {attempts} attempts{lost}"));
            }
            if let Some(due) = due {
                line = line.ink(Ink::Yellow, format!("  again at {}", with_seconds(due.0)));
            }
            if let Some(from) = reused {
                line = line.ink(Ink::Cyan, format!("  from {} version {}", from.workflow, from.version));
            }
            if let Some(why) = held {
                line = line.ink(Ink::Yellow, format!("  held: {why}"));
            }
            match settled {
                Some(Verdict::Stub) => line = line.ink(Ink::Yellow, "  stubbed: nothing happened"),
                Some(Verdict::Live) => line = line.dim("  live"),
                Some(Verdict::Deny) | None => {}
            }
            match error {
                Some(error) if node.status != ReportedStatus::Completed => {
                    line.ink(Ink::Red, format!("  {} {}", error.status, error.title))
                }
                _ if node.status == ReportedStatus::Unknown => line.ink(Ink::Yellow, "  did it happen?"),
                _ => line,
            }
        }
    }
}

/// Time, tokens and cost, as far as there are any.
fn figures(node: &TreeNode) -> Line {
    let mut line = Line::new();
    // What the program computes itself takes no time that is worth a word.
    let is_instant = matches!(&node.what, What::Step { kind, .. } if matches!(&**kind, "set" | "compute"));
    if let Some(millis) = node.duration_ms.filter(|_| !is_instant) {
        line = line.plain(format!("  {}", span(millis)));
    }
    if node.tokens != Tokens::default() {
        line = line.dim(format!("  {}+{} tokens", node.tokens.input, node.tokens.output));
    }
    if node.micro_usd > 0 {
        line = line.dim(format!("  {}", dollars(node.micro_usd)));
    }
    line
}
