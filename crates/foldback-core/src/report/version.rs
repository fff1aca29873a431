//! Which version a person means: `7`, `-2`, `failure`, `refine[0]/draft`, `publish:end`, or a
//! moment.
//!
//! Reading a moment's text is the edge's matter (a core has no calendar); it comes in as
//! microseconds. A version is never guessed: what does not resolve is an error with a hint.

use std::fmt;

use super::iso;
use crate::event::{Event, Fact, Verdict};
use crate::{Key, Micros, Version};

/// A version as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionSpec {
    /// This very version.
    Number(u64),
    /// Counted from the end: 1 is the last version, 2 the one before it.
    FromEnd(u64),
    /// The last version at or before a moment.
    Time(Micros),
    /// Just before the failing step's first ask.
    Failure,
    /// Just before the first ask, decision or begin of a key.
    Before(Key),
    /// Just after the completion of a key.
    After(Key),
}

/// A version that does not exist, told to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub hint: String,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unresolved {}

fn unresolved<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Unresolved> {
    Err(Unresolved { message: message.into(), hint: hint.into() })
}

impl VersionSpec {
    /// Reads all forms but a moment's.
    ///
    /// # Errors
    /// An empty text, or a number that is none.
    pub fn parse(text: &str) -> Result<VersionSpec, Unresolved> {
        const FORMS: &str = "a version is N, -N, a time, `failure`, a step's KEY or KEY:end";
        let text = text.trim();
        let is_number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        let number = |t: &str| match t.parse::<u64>() {
            Ok(n) => Ok(n),
            Err(_) => unresolved(format!("`{t}` is no version: the number is too large"), FORMS),
        };
        match text {
            "" => unresolved("a version is missing", FORMS),
            "failure" => Ok(VersionSpec::Failure),
            _ if is_number(text) => Ok(VersionSpec::Number(number(text)?)),
            _ => {
                if let Some(back) = text.strip_prefix('-') {
                    return match is_number(back) {
                        true => Ok(VersionSpec::FromEnd(number(back)?)),
                        false => unresolved(format!("`{text}` is no version"), FORMS),
                    };
                }
                Ok(match text.strip_suffix(":end") {
                    Some(key) if !key.is_empty() => VersionSpec::After(Key::from(key)),
                    _ => VersionSpec::Before(Key::from(text)),
                })
            }
        }
    }

    /// The version that is meant in this log.
    ///
    /// # Errors
    /// It lies outside the log, or nothing in the log is called so.
    pub fn resolve(&self, events: &[Event]) -> Result<Version, Unresolved> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return unresolved("the log is empty", "`foldback list` shows what there is");
        };
        let version = match self {
            VersionSpec::Number(n) => *n,
            VersionSpec::FromEnd(n) => (last.version + 1).saturating_sub(*n),
            VersionSpec::Time(at) => match events.partition_point(|event| event.timestamp <= *at) {
                0 => {
                    return unresolved(
                        format!("the workflow had not begun at {}", iso(*at)),
                        format!("it began at {}", iso(first.timestamp)),
                    );
                }
                n => events[n - 1].version,
            },
            VersionSpec::Failure => failure(events)?,
            VersionSpec::Before(key) => before(key, events)?,
            VersionSpec::After(key) => after(key, events)?,
        };
        if version < first.version || version > last.version {
            let text = match self {
                VersionSpec::FromEnd(n) => format!("-{n}"),
                _ => version.to_string(),
            };
            return unresolved(
                format!("version {text} is out of range"),
                format!("the log holds versions {} to {}", first.version, last.version),
            );
        }
        Ok(version)
    }
}

/// Just before the failing step's first ask; where no step failed, just before the failure.
fn failure(events: &[Event]) -> Result<Version, Unresolved> {
    let end = events
        .iter()
        .rev()
        .find(|event| matches!(event.fact, Fact::WorkflowFailed { .. } | Fact::WorkflowParked { .. }));
    let Some(end) = end else {
        return unresolved(
            "the workflow has not failed",
            "name a step or a version: `foldback events ID` lists them",
        );
    };
    // What was asked before it was reopened is another story.
    let reopened = events.iter().rposition(|event| matches!(event.fact, Fact::WorkflowReopened { .. }));
    let opened = &events[reopened.unwrap_or(0)..];
    if let Fact::WorkflowFailed { error } = &end.fact
        && let Some(key) = &error.key
        && let Some(asked) =
            opened.iter().find(|e| matches!(&e.fact, Fact::StepAsked(asked) if asked.key == *key))
    {
        return Ok(asked.version - 1);
    }
    Ok(end.version - 1)
}

fn before(key: &Key, events: &[Event]) -> Result<Version, Unresolved> {
    let first = |is_it: &dyn Fn(&Fact) -> bool| events.iter().find(|event| is_it(&event.fact));
    let begins = |fact: &Fact| {
        matches!(
            fact,
            Fact::StepAsked(_)
                | Fact::DecisionMade(_)
                | Fact::TimerSet { .. }
                | Fact::TaskStarted { .. }
                | Fact::Recorded { .. }
        ) && fact.key() == Some(key)
    };
    // A decision may be named without its mark.
    let decides = |fact: &Fact| matches!(fact, Fact::DecisionMade(made) if made.key.unmarked() == *key);
    // An iteration or a try is begun by no fact of its own, but by the first one inside it.
    let inside = |fact: &Fact| fact.key().is_some_and(|found| found == key || found.is_inside(key));
    match first(&begins).or_else(|| first(&decides)).or_else(|| first(&inside)) {
        Some(event) => Ok(event.version - 1),
        None => unknown_key(key, events),
    }
}

fn after(key: &Key, events: &[Event]) -> Result<Version, Unresolved> {
    let ends = |event: &&Event| match &event.fact {
        Fact::StepCompleted(done) => done.key == *key,
        Fact::StepFailed(failed) => failed.key == *key,
        Fact::OutcomeResolved { key: found, landed: Some(_) }
        | Fact::OutcomeReconciled { key: found, landed: Some(_), .. }
        | Fact::StepCancelled { key: found, .. }
        | Fact::TimerFired { key: found }
        | Fact::TimerCancelled { key: found, .. } => found == key,
        Fact::StepReused(reused) => reused.key == *key,
        Fact::WriteSettled { key: found, verdict, .. } => found == key && *verdict != Verdict::Live,
        Fact::TaskFinished { key: found, .. } | Fact::Recorded { key: Some(found), .. } => found == key,
        Fact::DecisionMade(made) => made.key == *key || made.key.unmarked() == *key,
        Fact::WorkflowStarted(_)
        | Fact::StepAsked(_)
        | Fact::AttemptStarted { .. }
        | Fact::AttemptFailed(_)
        | Fact::OutcomeUnknown { .. }
        | Fact::OutcomeReconciled { landed: None, .. }
        | Fact::OutcomeResolved { .. }
        | Fact::TimerSet { .. }
        | Fact::TaskStarted { .. }
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
        | Fact::UndoStarted(_)
        | Fact::UndoCompleted { .. }
        | Fact::UndoFailed { .. }
        | Fact::CompensationStarted { .. }
        | Fact::CompensationRequested { .. }
        | Fact::CompensationEnded { .. }
        | Fact::WorkflowCancelled { .. }
        | Fact::Recorded { .. }
        | Fact::WorkflowCompleted { .. }
        | Fact::WorkflowFailed { .. }
        | Fact::WorkflowReopened { .. }
        | Fact::WorkflowForked(_)
        | Fact::WriteHeld { .. }
        | Fact::WorkflowParked { .. } => false,
    };
    // `review!if` decided first does not end `review`: what has the key itself comes first.
    let exact = |event: &&Event| ends(event) && event.fact.key() == Some(key);
    if let Some(event) = events.iter().find(exact) {
        return Ok(event.version);
    }
    let is_asked =
        events.iter().any(|event| matches!(&event.fact, Fact::StepAsked(asked) if asked.key == *key));
    if !is_asked && let Some(event) = events.iter().find(ends) {
        return Ok(event.version);
    }
    let is_known = |event: &Event| event.fact.key().is_some_and(|found| found == key || found.is_inside(key));
    if events.iter().any(is_known) {
        return unresolved(
            format!("`{key}` has not ended"),
            format!("`{key}` without `:end` is the version before it began"),
        );
    }
    unknown_key(key, events)
}

fn unknown_key<T>(key: &Key, events: &[Event]) -> Result<T, Unresolved> {
    let known = events.iter().filter_map(|event| event.fact.key()).map(Key::as_str);
    let hint = match nearest(key.as_str(), known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`foldback steps ID` and `foldback decisions ID` list the keys".to_owned(),
    };
    unresolved(format!("nothing in this log is called `{key}`"), hint)
}

/// The text most like the wanted one, if one is like it at all: for hints.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let most = 1 + wanted.chars().count() / 3;
    let mut best: Option<(usize, &str)> = None;
    for text in known {
        let lower = text.to_lowercase();
        // A part of the path is what people type most.
        let is_part = wanted.chars().count() >= 3 && lower.contains(&wanted);
        let distance = if is_part { 1 } else { edits(&wanted, &lower, most) };
        if distance <= most && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, text));
        }
    }
    best.map(|(_, text)| text)
}

/// How many letters must be put in, taken out or changed; at the most `most + 1`.
fn edits(a: &str, b: &str, most: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most {
        return most + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
