//! Live progress on stderr: a line a step with time, tokens and cost; a model's tokens as they
//! come where somebody watches on a terminal. It shows only what is durable, but for the last
//! line, which is overwritten.

use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use foldback::core::report::{cut, why};
use foldback::core::{Effect, Event, Fact, Failure, Found, Key, Usage, Verdict};
use foldback::engine::Observer;
use serde_json::Value;

use crate::out::clean;

/// Prints what happens to some workflows.
pub struct Progress {
    ids: Vec<String>,
    /// How this program is called again, for hints.
    again: String,
    is_terminal: bool,
    has_colours: bool,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    steps: HashMap<(String, Key), Asked>,
    /// Hints that were given: each is worth a line once.
    hinted: HashSet<String>,
    /// The end of what the step under way has said, for the last line.
    live: Option<(Key, String)>,
}

impl Shown {
    /// Since when which step is under way.
    fn note(&mut self, id: &str, event: &Event) {
        match &event.fact {
            Fact::StepAsked(asked) => {
                let known = Asked { at: event.timestamp, kind: asked.kind.to_string(), effect: asked.effect };
                self.steps.insert((id.to_owned(), asked.key.clone()), known);
            }
            Fact::AttemptStarted { key, .. } => {
                if let Some(asked) = self.steps.get_mut(&(id.to_owned(), key.clone())) {
                    asked.at = event.timestamp;
                }
            }
            _ => {}
        }
    }
}

struct Asked {
    at: i64,
    kind: String,
    effect: Effect,
}

impl Progress {
    /// Progress of these workflows; of all when empty.
    pub fn new(ids: Vec<String>, again: String) -> Progress {
        let is_terminal = std::io::stderr().is_terminal();
        let has_colours = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Progress { ids, again, is_terminal, has_colours, shown: Mutex::default() }
    }

    /// Takes note of what was asked before this process came, so that it can say what goes on.
    pub fn recall(&self, id: &str, events: &[Event]) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            shown.note(id, event);
        }
    }

    fn concerns(&self, id: &str) -> bool {
        self.ids.is_empty() || self.ids.iter().any(|own| own == id)
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.has_colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn print(&self, line: &str) {
        let mut err = std::io::stderr().lock();
        let erase = if self.is_terminal { "\r\x1b[K" } else { "" };
        // Nobody to show it to is no reason to stop the work.
        let _gone = writeln!(err, "{erase}{line}");
    }

    fn line(&self, id: &str, event: &Event, shown: &mut Shown) -> Option<String> {
        let took = |shown: &Shown, key: &Key| {
            let asked = shown.steps.get(&(id.to_owned(), key.clone()))?;
            Some((event.timestamp - asked.at, asked.kind.clone()))
        };
        Some(match &event.fact {
            Fact::WorkflowStarted(e) => {
                format!("{} {id}  {}", self.paint("1", "▶"), clean(&e.name))
            }
            Fact::StepAsked(_) => return None,
            Fact::StepCompleted(done) => {
                let (micros, kind) = took(shown, &done.key).unwrap_or((0, "step".into()));
                let used = done.usage.as_ref().map(used).unwrap_or_default();
                let is_cut =
                    done.usage.as_ref().is_some_and(|usage| usage.finish_reason.as_deref() == Some("length"));
                let cut = if is_cut { self.paint("33", "  cut at max_tokens") } else { String::new() };
                format!(
                    "{} {:<28} {kind:<7} {:>8}{used}{cut}",
                    self.paint("32", "✓"),
                    done.key,
                    seconds(micros)
                )
            }
            Fact::AttemptFailed(e) => {
                let wait = seconds(i64::try_from(e.delay_ms).unwrap_or(i64::MAX).saturating_mul(1_000));
                let (why, hint) = told(&e.error);
                let hint = hint.filter(|hint| shown.hinted.insert(hint.clone()));
                let hint = hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
                let what = format!("attempt {} failed: {why}", e.attempt);
                let next = match e.variant {
                    Some(n) => format!("fallback {n} is asked"),
                    None => format!("again in {wait}"),
                };
                format!("{} {:<28} {what}; {next}{hint}", self.paint("33", "↻"), e.key)
            }
            // That it begins for the first time says its end.
            Fact::AttemptStarted { attempt: 1, .. } => return None,
            Fact::AttemptStarted { key, attempt, lost } => {
                let asked = shown.steps.get(&(id.to_owned(), key.clone()));
                let cost = match asked {
                    Some(asked) if asked.kind == "llm" && lost.is_some() => {
                        "; the last one was cut off, and its cost is spent again"
                    }
                    Some(Asked { effect: Effect::Write, .. }) => ", under the same idempotency key",
                    Some(_) | None => "",
                };
                format!("{} {key:<28} attempt {attempt} begins{cost}", self.paint("33", "↻"))
            }
            Fact::StepFailed(e) => {
                format!("{} {:<28} {}", self.paint("31", "✗"), e.key, told(&e.error).0)
            }
            Fact::DecisionMade(e) => {
                format!(
                    "{} {:<28} {} {}",
                    self.paint("36", "◆"),
                    e.key,
                    clean(&e.chosen),
                    because(&e.because.get())
                )
            }
            Fact::StepCancelled { key, reason, .. } => {
                format!("{} {key:<28} cancelled: {}", self.paint("33", "⊘"), first_line(reason))
            }
            Fact::TimerSet { limits: true, .. } => return None,
            Fact::TimerSet { key, due, .. } => {
                format!(
                    "{} {key:<28} waits {}",
                    self.paint("34", "…"),
                    seconds(due.saturating_sub(event.clock()))
                )
            }
            Fact::OutcomeUnknown { key, reason, .. } => format!(
                "{} {key:<28} outcome unknown: {}\n  hint: look whether it happened, then `{} resolve {id} '{key}' landed [JSON]` or `… didnt`",
                self.paint("35", "?"),
                first_line(reason),
                self.again
            ),
            Fact::WorkflowPaused { reason } => {
                let reason =
                    if reason.is_empty() { String::new() } else { format!(": {}", first_line(reason)) };
                format!("{} {id}  paused{reason}", self.paint("1;33", "‖"))
            }
            Fact::WorkflowUnpaused { .. } => format!("{} {id}  goes on", self.paint("1", "▶")),
            Fact::BudgetWarned { scope, measure, spent, limit } => {
                let what = if scope.is_root() { id } else { scope.as_str() };
                format!("{} {what}  has used {spent} of {limit} {}", self.paint("33", "!"), measure.as_str())
            }
            Fact::BudgetExceeded { scope, measure, spent, limit } => {
                let what = if scope.is_root() { id } else { scope.as_str() };
                let measure = measure.as_str();
                format!(
                    "{} {what}  is paused: {spent} of {limit} {measure} are used",
                    self.paint("1;33", "‖")
                )
            }
            Fact::SignalReceived(e) => format!("{} {}", self.paint("36", "▸"), clean(&e.name)),
            Fact::ListenStarted { key, names, .. } => {
                format!("{} {key:<28} listens for {}", self.paint("34", "…"), clean(&names.join(", ")))
            }
            Fact::SignalTaken { key, .. } => format!("{} {key:<28} answered", self.paint("32", "✓")),
            Fact::SignalRefused { key, reason, .. } => {
                format!("{} {key:<28} an answer was refused: {}", self.paint("33", "!"), first_line(reason))
            }
            Fact::OutcomeReconciled { key, found, reason, .. } => {
                let what = match found {
                    Found::Landed => "it happened",
                    Found::Didnt => "it did not happen",
                    Found::Unknown => "cannot be told",
                };
                format!("{} {key:<28} {what}: {}", self.paint("35", "?"), first_line(reason))
            }
            Fact::CompensationStarted { scope, because } => {
                let what = if scope.is_root() { id } else { scope.as_str() };
                format!("{} {what}  is taken back: {}", self.paint("1;33", "◀"), first_line(because))
            }
            Fact::CompensationRequested { reason, .. } => {
                let reason =
                    if reason.is_empty() { String::new() } else { format!(": {}", first_line(reason)) };
                format!("{} {id}  is taken back{reason}", self.paint("1;33", "◀"))
            }
            Fact::UndoCompleted { key, .. } => format!("{} {key:<28} undone", self.paint("32", "◀")),
            Fact::UndoFailed { key, error, .. } => {
                format!("{} {key:<28} could not be undone: {}", self.paint("31", "✗"), told(error).0)
            }
            Fact::CompensationEnded { scope } => {
                let what = if scope.is_root() { id } else { scope.as_str() };
                format!("{} {what}  was taken back", self.paint("1;33", "■"))
            }
            Fact::WorkflowCancelled { reason } => {
                let reason =
                    if reason.is_empty() { String::new() } else { format!(": {}", first_line(reason)) };
                format!("{} {id}  cancelled{reason}", self.paint("1;33", "■"))
            }
            Fact::WorkflowCompleted { .. } => {
                format!("{} {id}  completed", self.paint("1;32", "■"))
            }
            Fact::WorkflowFailed { error } => {
                let key = error.key.as_ref().map(|k| format!(" at {k}")).unwrap_or_default();
                format!(
                    "{} {id}  failed{key}: {} {}",
                    self.paint("1;31", "■"),
                    error.status,
                    clean(&error.title)
                )
            }
            Fact::WorkflowParked { key, .. } => {
                format!("{} {id}  parked at {key}: the program and its log disagree", self.paint("1;31", "■"))
            }
            Fact::WorkflowReopened { reason, .. } => {
                let reason =
                    if reason.is_empty() { String::new() } else { format!(": {}", first_line(reason)) };
                format!("{} {id}  reopened{reason}", self.paint("1", "▶"))
            }
            Fact::WorkflowForked(e) => {
                let told = e.changes.told().join(", ");
                let with = if told.is_empty() { String::new() } else { format!(" with {}", clean(&told)) };
                let (parent, cut) = (clean(&e.lineage.parent), e.lineage.cut);
                format!("{} {id}  forked from {parent} at version {cut}{with}", self.paint("1", "▶"))
            }
            Fact::StepReused(e) => {
                let what = e.error.as_ref().map(|error| format!(": {}", told(error).0)).unwrap_or_default();
                format!(
                    "{} {:<28} from {} version {}{what}",
                    self.paint("36", "↺"),
                    e.key,
                    clean(&e.workflow),
                    e.version
                )
            }
            Fact::WriteHeld { key, reason } => format!(
                "{} {key:<28} held, nothing was sent: {}\n  hint: `{} resolve {id} '{key}' live` performs it; also `stub JSON`, `deny`",
                self.paint("35", "?"),
                first_line(reason),
                self.again
            ),
            Fact::WriteSettled { key, verdict, reason, .. } => {
                let what = match verdict {
                    Verdict::Live => "performed",
                    Verdict::Stub => "stubbed, nothing is sent",
                    Verdict::Deny => "denied, nothing is sent",
                };
                format!("{} {key:<28} {what}: {}", self.paint("33", "◇"), first_line(reason))
            }
            Fact::Recorded { event_type, .. } => {
                format!("{} {}", self.paint("36", "●"), clean(event_type))
            }
            Fact::OutcomeResolved { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::UndoArmed(_)
            | Fact::BudgetSet { .. }
            | Fact::UndoStarted(_) => return None,
        })
    }
}

impl Observer for Progress {
    fn committed(&self, workflow_id: &str, events: &[Event]) {
        if !self.concerns(workflow_id) {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            shown.note(workflow_id, event);
            if let Some(line) = self.line(workflow_id, event, &mut shown) {
                shown.live = None;
                self.print(&line);
            }
        }
    }

    fn progress(&self, workflow_id: &str, key: &Key, text: &str) {
        if !self.is_terminal || !self.concerns(workflow_id) {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said = match shown.live.take() {
            Some((last, said)) if last == *key => said,
            _ => String::new(),
        };
        said.push_str(&clean(text));
        // One line of the terminal, or it could not be overwritten.
        let columns = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
        let room = columns.saturating_sub(key.as_str().chars().count() + 6).clamp(1, 60);
        let keep = said.char_indices().rev().nth(room - 1).map_or(0, |(at, _)| at);
        said.drain(..keep);
        let mut err = std::io::stderr().lock();
        let _gone = write!(err, "\r\x1b[K  {key}  {}", self.paint("2", &said)).and_then(|()| err.flush());
        shown.live = Some((key.clone(), said));
    }
}

fn used(usage: &Usage) -> String {
    let cost =
        usage.micro_usd.map(|c| format!("  ${}.{:06}", c / 1_000_000, c % 1_000_000)).unwrap_or_default();
    format!("  {}+{} tokens{cost}", usage.input_tokens, usage.output_tokens)
}

/// The values that decided, as far as a line holds them.
fn because(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value => format!("because {}", clean(&cut(&why(value), 90))),
    }
}

/// A failure in one line, and what to do about it where it says so.
fn told(error: &Failure) -> (String, Option<String>) {
    let (detail, hint) = split_hint(error.detail.as_deref().unwrap_or_default());
    let detail = if detail.is_empty() { String::new() } else { format!(": {}", first_line(detail)) };
    (format!("{} {}{detail}", error.status, clean(&error.title)), hint.map(first_line))
}

/// What happened, and what to do about it, of a failure's detail.
pub fn split_hint(detail: &str) -> (&str, Option<&str>) {
    match detail.rsplit_once("; hint: ") {
        Some((detail, hint)) => (detail, Some(hint)),
        None => (detail, None),
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    clean(&line.chars().take(160).collect::<String>())
}

fn seconds(micros: i64) -> String {
    if micros < 1_000_000 {
        format!("{} ms", micros.max(0) / 1_000)
    } else {
        format!("{:.1} s", micros as f64 / 1e6)
    }
}
