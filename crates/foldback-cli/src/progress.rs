//! Live progress on stderr: a line a step with time, tokens and cost; a model's tokens as they
//! come where somebody watches on a terminal. It shows only what is durable, but for the last
//! line, which is overwritten.

use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldback::core::report::{cut, why};
use foldback::core::{Effect, Event, Fact, Failure, Found, Key, Measure, Usage, Verdict};
use foldback::engine::Observer;
use serde_json::Value;

use crate::out::clean;

/// How often a step that is under way, and of which nothing is told, says so.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

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
    /// Scopes that have a budget in money, by workflow.
    money: HashMap<String, Vec<Key>>,
}

impl Shown {
    /// Since when which step is under way, and what is budgeted.
    fn note(&mut self, id: &str, event: &Event) {
        match &event.fact {
            Fact::StepAsked(asked) => {
                let known = Asked {
                    at: event.timestamp,
                    kind: asked.kind.to_string(),
                    effect: asked.effect,
                    under_way: asked.starts.then(UnderWay::now),
                };
                self.steps.insert((id.to_owned(), asked.key.clone()), known);
            }
            Fact::AttemptStarted { key, .. } => {
                if let Some(asked) = self.steps.get_mut(&(id.to_owned(), key.clone())) {
                    asked.at = event.timestamp;
                    asked.under_way = Some(UnderWay::now());
                }
            }
            Fact::BudgetSet { key, limits } if limits.contains_key(&Measure::MicroUsd) => {
                self.money.entry(id.to_owned()).or_default().push(key.clone());
            }
            fact => {
                let asked = ended(fact).and_then(|key| self.steps.get_mut(&(id.to_owned(), key.clone())));
                if let Some(asked) = asked {
                    asked.under_way = None;
                }
            }
        }
    }

    /// What a budget cannot count of a call, and what was guessed: each is worth a line once.
    fn doubts(&mut self, id: &str, event: &Event) -> Vec<String> {
        let Some((key, usage)) = usage_of(&event.fact) else { return Vec::new() };
        let is_inside = |scope: &Key| scope.is_root() || key.is_inside(scope);
        let has_budget = self.money.get(id).is_some_and(|scopes| scopes.iter().any(is_inside));
        let model = clean(&usage.model);
        let mut told = Vec::new();
        if usage.micro_usd.is_none() && has_budget {
            told.push(format!(
                "{key:<28} no price is known for `{model}`: its calls do not count in the budget of money\n  \
                 hint: give [providers.NAME.prices] in foldback.toml, or set a budget of tokens too"
            ));
        }
        if usage.is_estimated {
            told.push(format!("{key:<28} `{model}` did not say all that it used: tokens are estimated"));
        }
        let about = |line: &String| line.get(28..).unwrap_or(line).to_owned();
        told.retain(|line| self.hinted.insert(about(line)));
        told
    }

    /// The steps that were under way for a further minute, and the words for it.
    fn silent(&mut self, now: Instant) -> Vec<String> {
        let mut told = Vec::new();
        for ((_, key), asked) in &mut self.steps {
            let Some(under_way) = &mut asked.under_way else { continue };
            if now.saturating_duration_since(under_way.told) < SIGN_OF_LIFE {
                continue;
            }
            under_way.told = now;
            let since = now.saturating_duration_since(under_way.began).as_secs();
            let heard = match under_way.heard {
                Some(heard) => format!("last heard {} s ago", now.saturating_duration_since(heard).as_secs()),
                None => "nothing heard yet".to_owned(),
            };
            told.push(format!("{key:<28} {:<7} under way for {since} s, {heard}", asked.kind));
        }
        told.sort();
        told
    }
}

struct Asked {
    at: i64,
    kind: String,
    effect: Effect,
    under_way: Option<UnderWay>,
}

/// An attempt under way, as this process sees it.
struct UnderWay {
    began: Instant,
    /// When it was last said that it is under way.
    told: Instant,
    /// When it last said something.
    heard: Option<Instant>,
}

impl UnderWay {
    fn now() -> UnderWay {
        let now = Instant::now();
        UnderWay { began: now, told: now, heard: None }
    }
}

/// The step whose attempt has ended by this fact.
fn ended(fact: &Fact) -> Option<&Key> {
    match fact {
        Fact::StepCompleted(e) => Some(&e.key),
        Fact::StepFailed(e) => Some(&e.key),
        Fact::AttemptFailed(e) => Some(&e.key),
        Fact::StepReused(e) => Some(&e.key),
        Fact::StepCancelled { key, .. }
        | Fact::OutcomeUnknown { key, .. }
        | Fact::OutcomeResolved { key, .. }
        | Fact::OutcomeReconciled { key, .. }
        | Fact::WriteHeld { key, .. } => Some(key),
        _ => None,
    }
}

/// What a model call used, by whatever fact tells it.
fn usage_of(fact: &Fact) -> Option<(&Key, &Usage)> {
    match fact {
        Fact::StepCompleted(e) => e.usage.as_ref().map(|usage| (&e.key, usage)),
        Fact::StepFailed(e) => e.usage.as_ref().map(|usage| (&e.key, usage)),
        Fact::AttemptFailed(e) => e.usage.as_ref().map(|usage| (&e.key, usage)),
        _ => None,
    }
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

    /// Says of each step that takes long, once a minute, that it is still under way: on a thread of its
    /// own, until nobody shows progress any more.
    pub fn watch(self: &Arc<Progress>) {
        let progress = Arc::downgrade(self);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let Some(progress) = progress.upgrade() else { return };
                progress.sign_of_life(Instant::now());
            }
        });
    }

    fn sign_of_life(&self, now: Instant) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for line in shown.silent(now) {
            shown.live = None;
            self.print(&format!("{} {line}", self.paint("34", "…")));
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
            for line in shown.doubts(workflow_id, event) {
                self.print(&format!("{} {line}", self.paint("33", "!")));
            }
        }
    }

    fn progress(&self, workflow_id: &str, key: &Key, text: &str) {
        if !self.concerns(workflow_id) {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = shown.steps.get_mut(&(workflow_id.to_owned(), key.clone()));
        if let Some(under_way) = asked.and_then(|asked| asked.under_way.as_mut()) {
            under_way.heard = Some(Instant::now());
        }
        if !self.is_terminal {
            return;
        }
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
    let about = if usage.is_estimated { "~" } else { "" };
    let found = usage.found_in.as_deref().map(|place| format!("  answer from {}", clean(place)));
    let found = found.unwrap_or_default();
    format!("  {about}{}+{} tokens{cost}{found}", usage.input_tokens, usage.output_tokens)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_under_way_says_so_once_a_minute() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut shown = Shown::default();
        let under_way = UnderWay { began, told: began, heard: None };
        let asked = Asked { at: 0, kind: "llm".into(), effect: Effect::Read, under_way: Some(under_way) };
        let place = ("w".to_owned(), Key::from("draft"));
        shown.steps.insert(place.clone(), asked);
        let told: Vec<(u64, Vec<String>)> = (0..200).map(|s| (s, shown.silent(at(s)))).collect();
        let told: Vec<_> = told.into_iter().filter(|(_, lines)| !lines.is_empty()).collect();
        let line = |seconds: u64| {
            vec![format!("{:<28} llm     under way for {seconds} s, nothing heard yet", "draft")]
        };
        assert_eq!(told, [(60, line(60)), (120, line(120)), (180, line(180))]);
        if let Some(under_way) = shown.steps.get_mut(&place).and_then(|asked| asked.under_way.as_mut()) {
            under_way.heard = Some(at(230));
        }
        assert!(shown.silent(at(240))[0].ends_with("under way for 240 s, last heard 10 s ago"));
        // What has ended says nothing more.
        shown.steps.get_mut(&place).expect("known").under_way = None;
        assert!(shown.silent(at(900)).is_empty());
    }
}
