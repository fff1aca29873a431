//! Live progress on stderr: a line a step with time, tokens and cost; a model's tokens as they
//! come where somebody watches on a terminal. It shows only what is durable, but for the last
//! line, which is overwritten.

mod ended;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldback::core::report::{cut, why};
use foldback::core::text::shell_word;
use foldback::core::{Effect, Event, Fact, Failure, Found, Key, Measure, Usage, Verdict, Version};
use foldback::engine::Observer;
use serde_json::Value;

use ended::{Ended, ended};

use crate::out::{Ink, Line, Notes, clean, columns};

/// Columns of a key, so that what is said of keys stands in one column.
const KEY_WIDTH: usize = 28;
/// Characters that are said of why something happened.
const WHY_MAX: usize = 2_000;

/// How often a step that is under way, and of which nothing is told, says so.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// Prints what happens to some workflows.
pub struct Progress {
    ids: Vec<String>,
    /// How this program is called again, for hints.
    again: String,
    notes: Notes,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    steps: HashMap<(String, Key), Asked>,
    /// Hints that were given: each is worth a line once.
    hinted: HashSet<String>,
    /// The end of what the step under way has said, for the last line.
    live: Option<(Key, String)>,
    /// Signals that report a failure, by workflow and version.
    failing: HashSet<(String, Version)>,
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
            Fact::SignalReceived(signal) if signal.error.is_some() => {
                self.failing.insert((id.to_owned(), event.version));
            }
            Fact::BudgetSet { key, limits } if limits.contains_key(&Measure::MicroUsd) => {
                self.money.entry(id.to_owned()).or_default().push(key.clone());
            }
            fact => {
                let key = ended(fact).map(|ended| (id.to_owned(), ended.key.clone()));
                let asked = key.and_then(|key| self.steps.get_mut(&key));
                if let Some(asked) = asked {
                    asked.under_way = None;
                }
            }
        }
    }

    /// What a budget cannot count of a call, and what was guessed: each is worth a line once.
    fn doubts(&mut self, id: &str, event: &Event) -> Vec<Line> {
        let Some(Ended { key, usage: Some(usage), .. }) = ended(&event.fact) else { return Vec::new() };
        let is_inside = |scope: &Key| scope.is_root() || key.is_inside(scope);
        let has_budget = self.money.get(id).is_some_and(|scopes| scopes.iter().any(is_inside));
        let model = &usage.model;
        let mut told = Vec::new();
        if usage.micro_usd.is_none() && has_budget {
            let text =
                format!("no price is known for `{model}`: its calls do not count in the budget of money");
            let hint = "give [providers.NAME.prices] in foldback.toml, or set a budget of tokens too";
            told.push((text, Some(hint)));
        }
        if usage.is_estimated {
            told.push((format!("`{model}` did not say all that it used: tokens are estimated"), None));
        }
        told.retain(|(text, _)| self.hinted.insert(text.clone()));
        let lines = |(text, hint): (String, Option<&str>)| {
            let hint = hint.map(|hint| Line::from(format!("  hint: {hint}")));
            std::iter::once(of_key(Ink::Yellow, "!", key, text)).chain(hint)
        };
        told.into_iter().flat_map(lines).collect()
    }

    /// The steps that were under way for a further minute, and the words for it.
    fn silent(&mut self, now: Instant) -> Vec<(Key, String)> {
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
            told.push((key.clone(), format!("{:<7} under way for {since} s, {heard}", asked.kind)));
        }
        told.sort();
        told
    }

    /// Forgets a step that is over.
    fn forget(&mut self, id: &str, event: &Event) {
        let Some(Ended { key, is_over: true, .. }) = ended(&event.fact) else { return };
        self.steps.remove(&(id.to_owned(), key.clone()));
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

impl Progress {
    /// Progress of these workflows; of all when empty.
    pub fn new(ids: Vec<String>, again: String) -> Progress {
        Progress { ids, again, notes: Notes::new(), shown: Mutex::default() }
    }

    /// Takes note of what was asked before this process came, so that it can say what goes on.
    pub fn recall(&self, id: &str, event: &Event) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.note(id, event);
        shown.forget(id, event);
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
        for (key, text) in shown.silent(now) {
            shown.live = None;
            self.notes.line(of_key(Ink::Blue, "…", &key, text));
        }
    }

    fn concerns(&self, id: &str) -> bool {
        self.ids.is_empty() || self.ids.iter().any(|own| own == id)
    }

    /// What is said of an event: a line, and what to do about it.
    fn lines(&self, id: &str, event: &Event, shown: &mut Shown) -> Vec<Line> {
        self.line(id, event, shown).into_iter().chain(self.hint(id, event, shown)).collect()
    }

    /// The command that an event calls for, or what a failure says to do; each of these once.
    fn hint(&self, id: &str, event: &Event, shown: &mut Shown) -> Option<Line> {
        let (again, id) = (&self.again, shell_word(id));
        let text = match &event.fact {
            Fact::AttemptFailed(failed) => {
                told(&failed.error).1.filter(|hint| shown.hinted.insert(hint.clone()))?
            }
            Fact::OutcomeUnknown { key, .. } => format!(
                "look whether it happened, then `{again} resolve {id} {} landed 'JSON'` or `… didnt`",
                shell_word(key.as_str())
            ),
            Fact::WriteHeld { key, .. } => format!(
                "`{again} resolve {id} {} live` performs it; also `stub [JSON]`, `deny`",
                shell_word(key.as_str())
            ),
            Fact::WorkflowStarted(_)
            | Fact::StepAsked(_)
            | Fact::AttemptStarted { .. }
            | Fact::StepCompleted(_)
            | Fact::StepFailed(_)
            | Fact::OutcomeReconciled { .. }
            | Fact::StepCancelled { .. }
            | Fact::OutcomeResolved { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::DecisionMade(_)
            | Fact::TaskStarted { .. }
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
            | Fact::WorkflowParked { .. } => return None,
        };
        Some(Line::from(format!("  hint: {text}")))
    }

    fn line(&self, id: &str, event: &Event, shown: &mut Shown) -> Option<Line> {
        let took = |shown: &Shown, key: &Key| {
            let asked = shown.steps.get(&(id.to_owned(), key.clone()))?;
            Some((event.timestamp.saturating_sub(asked.at), asked.kind.clone()))
        };
        let because = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let of_scope = |scope: &Key| if scope.is_root() { id.to_owned() } else { scope.as_str().to_owned() };
        Some(match &event.fact {
            Fact::WorkflowStarted(e) => of_workflow(Ink::Bold, "▶", id, &e.name),
            Fact::StepAsked(_) => return None,
            Fact::StepCompleted(done) => {
                let (micros, kind) = took(shown, &done.key).unwrap_or((0, "step".into()));
                let used = done.usage.as_ref().map(used).unwrap_or_default();
                let is_cut =
                    done.usage.as_ref().is_some_and(|usage| usage.finish_reason.as_deref() == Some("length"));
                let cut = if is_cut { "  cut at max_tokens" } else { "" };
                of_key(Ink::Green, "✓", &done.key, format!("{kind:<7} {:>8}{used}", seconds(micros)))
                    .ink(Ink::Yellow, cut)
            }
            Fact::AttemptFailed(e) => {
                let wait = seconds(i64::try_from(e.delay_ms).unwrap_or(i64::MAX).saturating_mul(1_000));
                let what = format!("attempt {} failed: {}", e.attempt, told(&e.error).0);
                let next = match e.variant {
                    Some(n) => format!("fallback {n} is asked"),
                    None => format!("again in {wait}"),
                };
                of_key(Ink::Yellow, "↻", &e.key, format!("{what}; {next}"))
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
                of_key(Ink::Yellow, "↻", key, format!("attempt {attempt} begins{cost}"))
            }
            Fact::StepFailed(e) => of_key(Ink::Red, "✗", &e.key, told(&e.error).0),
            Fact::DecisionMade(e) => {
                let why = match &*e.because.get() {
                    Value::Null => String::new(),
                    value => format!(" because {}", why(value)),
                };
                of_key(Ink::Cyan, "◆", &e.key, format!("{}{why}", e.chosen))
            }
            Fact::StepCancelled { key, reason, .. } => {
                of_key(Ink::Yellow, "⊘", key, format!("cancelled: {reason}"))
            }
            Fact::TimerSet { limits: true, .. } => return None,
            Fact::TimerSet { key, due, .. } => {
                of_key(Ink::Blue, "…", key, format!("waits {}", seconds(due.saturating_sub(event.clock()))))
            }
            Fact::OutcomeUnknown { key, reason, .. } => {
                of_key(Ink::Magenta, "?", key, format!("outcome unknown: {reason}"))
            }
            Fact::WorkflowPaused { reason } => {
                of_workflow(Ink::BoldYellow, "‖", id, &format!("paused{}", because(reason)))
            }
            Fact::WorkflowUnpaused { .. } => of_workflow(Ink::Bold, "▶", id, "goes on"),
            Fact::BudgetWarned { scope, measure, spent, limit } => {
                let text = format!("has used {spent} of {limit} {}", measure.as_str());
                of_workflow(Ink::Yellow, "!", &of_scope(scope), &text)
            }
            Fact::BudgetExceeded { scope, measure, spent, limit } => {
                let text = format!("is paused: {spent} of {limit} {} are used", measure.as_str());
                of_workflow(Ink::BoldYellow, "‖", &of_scope(scope), &text)
            }
            Fact::SignalReceived(e) => {
                let error = e.error.as_ref().map(|error| format!("  a failure: {}", told(error).0));
                let what = format!(" {}{}", e.name, error.unwrap_or_default());
                Line::new().ink(Ink::Cyan, "▸").plain(cut(&what, WHY_MAX))
            }
            Fact::ListenStarted { key, names, .. } => {
                of_key(Ink::Blue, "…", key, format!("listens for {}", names.join(", ")))
            }
            Fact::SignalTaken { key, signals } => {
                let has_failed = |version: &Version| shown.failing.contains(&(id.to_owned(), *version));
                match signals.iter().any(has_failed) {
                    true => of_key(Ink::Red, "✗", key, "answered by a failure"),
                    false => of_key(Ink::Green, "✓", key, "answered"),
                }
            }
            Fact::SignalRefused { key, reason, .. } => {
                of_key(Ink::Yellow, "!", key, format!("an answer was refused: {reason}"))
            }
            Fact::OutcomeReconciled { key, found, reason, .. } => {
                let what = match found {
                    Found::Landed => "it happened",
                    Found::Didnt => "it did not happen",
                    Found::Unknown => "cannot be told",
                };
                of_key(Ink::Magenta, "?", key, format!("{what}: {reason}"))
            }
            Fact::CompensationStarted { scope, because } => {
                let text = format!("is taken back: {because}");
                of_workflow(Ink::BoldYellow, "◀", &of_scope(scope), &text)
            }
            Fact::CompensationRequested { reason, .. } => {
                of_workflow(Ink::BoldYellow, "◀", id, &format!("is taken back{}", because(reason)))
            }
            Fact::UndoCompleted { key, .. } => of_key(Ink::Green, "◀", key, "undone"),
            Fact::UndoFailed { key, error, .. } => {
                of_key(Ink::Red, "✗", key, format!("could not be undone: {}", told(error).0))
            }
            Fact::CompensationEnded { scope } => {
                of_workflow(Ink::BoldYellow, "■", &of_scope(scope), "was taken back")
            }
            Fact::WorkflowCancelled { reason } => {
                of_workflow(Ink::BoldYellow, "■", id, &format!("cancelled{}", because(reason)))
            }
            Fact::WorkflowCompleted { .. } => of_workflow(Ink::BoldGreen, "■", id, "completed"),
            Fact::WorkflowFailed { error } => {
                let key = error.key.as_ref().map(|k| format!(" at {k}")).unwrap_or_default();
                let text = format!("failed{key}: {} {}", error.status, error.title);
                of_workflow(Ink::BoldRed, "■", id, &text)
            }
            Fact::WorkflowParked { key, .. } => {
                let text = format!("parked at {key}: the program and its log disagree");
                of_workflow(Ink::BoldRed, "■", id, &text)
            }
            Fact::WorkflowReopened { reason, .. } => {
                of_workflow(Ink::Bold, "▶", id, &format!("reopened{}", because(reason)))
            }
            Fact::WorkflowForked(e) => {
                let told = e.changes.told().join(", ");
                let with = if told.is_empty() { String::new() } else { format!(" with {told}") };
                let text = format!("forked from {} at version {}{with}", e.lineage.parent, e.lineage.cut);
                of_workflow(Ink::Bold, "▶", id, &text)
            }
            Fact::StepReused(e) => {
                let what = e.error.as_ref().map(|error| format!(": {}", told(error).0)).unwrap_or_default();
                of_key(Ink::Cyan, "↺", &e.key, format!("from {} version {}{what}", e.workflow, e.version))
            }
            Fact::WriteHeld { key, reason } => {
                of_key(Ink::Magenta, "?", key, format!("held, nothing was sent: {reason}"))
            }
            Fact::WriteSettled { key, verdict, reason, .. } => {
                let what = match verdict {
                    Verdict::Live => "performed",
                    Verdict::Stub => "stubbed, nothing is sent",
                    Verdict::Deny => "denied, nothing is sent",
                };
                of_key(Ink::Yellow, "◇", key, format!("{what}: {reason}"))
            }
            Fact::Recorded { event_type, .. } => {
                Line::new().ink(Ink::Cyan, "●").plain(format!(" {event_type}"))
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

/// A line about a key. All of it is cleaned, as every line is.
fn of_key(ink: Ink, sign: &str, key: &Key, text: impl AsRef<str>) -> Line {
    let key = Line::from(key.as_str()).padded(KEY_WIDTH);
    Line::new().ink(ink, sign).plain(" ").and(key).plain(" ").plain(cut(text.as_ref(), WHY_MAX))
}

/// A line about a workflow, or a scope of it.
fn of_workflow(ink: Ink, sign: &str, id: &str, text: &str) -> Line {
    Line::new().ink(ink, sign).plain(format!(" {id}  {}", cut(text, WHY_MAX)))
}

impl Observer for Progress {
    fn committed(&self, workflow_id: &str, events: &[Event]) {
        if !self.concerns(workflow_id) {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            shown.note(workflow_id, event);
            for line in self.lines(workflow_id, event, &mut shown) {
                shown.live = None;
                self.notes.line(line);
            }
            for line in shown.doubts(workflow_id, event) {
                self.notes.line(line);
            }
            shown.forget(workflow_id, event);
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
        if !self.notes.is_terminal() {
            return;
        }
        let mut said = match shown.live.take() {
            Some((last, said)) if last == *key => said,
            _ => String::new(),
        };
        said.push_str(&clean(text));
        // One line of the terminal, or it could not be overwritten.
        let room = self.notes.width().saturating_sub(columns(key.as_str()) + 6).clamp(1, 60);
        let keep = said.char_indices().rev().nth(room - 1).map_or(0, |(at, _)| at);
        said.drain(..keep);
        self.notes.over(Line::from(format!("  {key}  ")).dim(&said));
        shown.live = Some((key.clone(), said));
    }
}

fn used(usage: &Usage) -> String {
    let cost =
        usage.micro_usd.map(|c| format!("  ${}.{:06}", c / 1_000_000, c % 1_000_000)).unwrap_or_default();
    let about = if usage.is_estimated { "~" } else { "" };
    let found = usage.found_in.as_deref().map(|place| format!("  answer from {place}"));
    let found = found.unwrap_or_default();
    format!("  {about}{}+{} tokens{cost}{found}", usage.input_tokens, usage.output_tokens)
}

/// A failure in one line, and what to do about it where it says so.
fn told(error: &Failure) -> (String, Option<String>) {
    let (detail, hint) = split_hint(error.detail.as_deref().unwrap_or_default());
    let detail = if detail.is_empty() { String::new() } else { format!(": {}", detail.trim_end()) };
    (format!("{} {}{detail}", error.status, error.title), hint.map(str::to_owned))
}

/// What happened, and what to do about it, of a failure's detail.
pub fn split_hint(detail: &str) -> (&str, Option<&str>) {
    match detail.rsplit_once("; hint: ") {
        Some((detail, hint)) => (detail, Some(hint)),
        None => (detail, None),
    }
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
        let told: Vec<(u64, Vec<(Key, String)>)> = (0..200).map(|s| (s, shown.silent(at(s)))).collect();
        let told: Vec<_> = told.into_iter().filter(|(_, lines)| !lines.is_empty()).collect();
        let line = |seconds: u64| {
            vec![(Key::from("draft"), format!("llm     under way for {seconds} s, nothing heard yet"))]
        };
        assert_eq!(told, [(60, line(60)), (120, line(120)), (180, line(180))]);
        if let Some(under_way) = shown.steps.get_mut(&place).and_then(|asked| asked.under_way.as_mut()) {
            under_way.heard = Some(at(230));
        }
        assert!(shown.silent(at(240))[0].1.ends_with("under way for 240 s, last heard 10 s ago"));
        // What has ended says nothing more.
        shown.steps.get_mut(&place).expect("known").under_way = None;
        assert!(shown.silent(at(900)).is_empty());
    }
}
