//! Which version a person means: `7`, `-2`, `failure`, `refine[0]/draft`, `publish:end`, or a
//! moment.
//!
//! Reading a moment's text is the edge's matter (a core has no calendar); it comes in as
//! microseconds. A version is never guessed: what does not resolve is an error with a hint.

use std::collections::{BTreeMap, BTreeSet};
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
        let mut resolving = Resolving::new(self.clone());
        events.iter().for_each(|event| resolving.read(event));
        resolving.finish()
    }
}

/// Keys that are remembered for a hint.
const KEYS_KNOWN_MAX: usize = 2_000;

/// A version that is looked for while a log is read, event by event. It keeps little of what it reads.
#[derive(Clone, Debug)]
pub struct Resolving {
    spec: VersionSpec,
    first: Option<(Version, Micros)>,
    last: Version,
    /// The last version at or before the moment.
    by_time: Option<Version>,
    /// The last failure or parking, and the step that it names.
    end: Option<(Version, Option<Key>)>,
    /// The first ask of each step that is not over, since the workflow was reopened last, and whether its
    /// completion ends its task.
    asked: BTreeMap<Key, (Version, bool)>,
    /// The first fact that begins the key, decides it, or stands inside it.
    begun: [Option<Version>; 3],
    /// The first fact that ends the key: under its own name, or under its marks as well.
    ended: [Option<Version>; 2],
    is_asked: bool,
    is_known: bool,
    keys: BTreeSet<Key>,
}

impl Resolving {
    /// Looks for this.
    pub fn new(spec: VersionSpec) -> Resolving {
        Resolving {
            spec,
            first: None,
            last: 0,
            by_time: None,
            end: None,
            asked: BTreeMap::new(),
            begun: [None; 3],
            ended: [None; 2],
            is_asked: false,
            is_known: false,
            keys: BTreeSet::new(),
        }
    }

    /// Reads the next event.
    pub fn read(&mut self, event: &Event) {
        self.first.get_or_insert((event.version, event.timestamp));
        self.last = event.version;
        match self.spec.clone() {
            VersionSpec::Number(_) | VersionSpec::FromEnd(_) => {}
            VersionSpec::Time(at) => {
                if event.timestamp <= at {
                    self.by_time = Some(event.version);
                }
            }
            VersionSpec::Failure => self.failure(event),
            VersionSpec::Before(key) => self.begin(&key, event),
            VersionSpec::After(key) => self.end(&key, event),
        }
    }

    fn failure(&mut self, event: &Event) {
        let fact = &event.fact;
        if let Fact::WorkflowFailed { error } = fact {
            self.end = Some((event.version, error.key.clone()));
        } else if matches!(fact, Fact::WorkflowParked { .. }) {
            self.end = Some((event.version, None));
        } else if matches!(fact, Fact::WorkflowReopened { .. }) {
            // What was asked before it was reopened is another story.
            self.asked.clear();
        } else if let Fact::StepAsked(asked) = fact {
            self.asked.entry(asked.key.clone()).or_insert((event.version, asked.finishes));
        } else if let Fact::StepCompleted(done) = fact {
            // A step whose output is shaped can still fail over that.
            if self.asked.get(&done.key).is_some_and(|(_, finishes)| *finishes) {
                self.asked.remove(&done.key);
            }
        } else if let Fact::TaskFinished { key, .. } = fact {
            self.asked.remove(key);
        }
    }

    fn note_key(&mut self, event: &Event) {
        if let Some(key) = event.fact.key()
            && self.keys.len() < KEYS_KNOWN_MAX
            && !self.keys.contains(key)
        {
            self.keys.insert(key.clone());
        }
    }

    fn begin(&mut self, key: &Key, event: &Event) {
        self.note_key(event);
        let fact = &event.fact;
        let is_own = matches!(
            fact,
            Fact::StepAsked(_)
                | Fact::DecisionMade(_)
                | Fact::TimerSet { .. }
                | Fact::ListenStarted { .. }
                | Fact::TaskStarted { .. }
                | Fact::Recorded { .. }
        ) && fact.key() == Some(key);
        // A decision may be named without its mark.
        let decides = matches!(fact, Fact::DecisionMade(made) if made.key.unmarked() == *key);
        // An iteration or a try is begun by no fact of its own, but by the first one inside it.
        let is_inside = fact.key().is_some_and(|found| found == key || found.is_inside(key));
        for (place, is_it) in self.begun.iter_mut().zip([is_own, decides, is_inside]) {
            if is_it {
                place.get_or_insert(event.version);
            }
        }
    }

    fn end(&mut self, key: &Key, event: &Event) {
        self.note_key(event);
        let fact = &event.fact;
        self.is_asked |= matches!(fact, Fact::StepAsked(asked) if asked.key == *key);
        self.is_known |= fact.key().is_some_and(|found| found == key || found.is_inside(key));
        // `review!if` decided first does not end `review`: what has the key itself comes first.
        let ends = ends(key, fact);
        for (place, is_it) in self.ended.iter_mut().zip([ends && fact.key() == Some(key), ends]) {
            if is_it {
                place.get_or_insert(event.version);
            }
        }
    }

    /// The version that is meant in the log that was read.
    ///
    /// # Errors
    /// It lies outside the log, or nothing in the log is called so.
    pub fn finish(self) -> Result<Version, Unresolved> {
        let Some((first, began)) = self.first else {
            return unresolved("the log is empty", "`foldback list` shows what there is");
        };
        let version = match &self.spec {
            VersionSpec::Number(n) => *n,
            VersionSpec::FromEnd(n) => (self.last + 1).saturating_sub(*n),
            VersionSpec::Time(at) => match self.by_time {
                Some(version) => version,
                None => {
                    return unresolved(
                        format!("the workflow had not begun at {}", iso(*at)),
                        format!("it began at {}", iso(began)),
                    );
                }
            },
            VersionSpec::Failure => match &self.end {
                Some((end, key)) => {
                    let asked = key.as_ref().and_then(|key| self.asked.get(key));
                    asked.map_or(*end, |(version, _)| *version) - 1
                }
                None => {
                    return unresolved(
                        "the workflow has not failed",
                        "name a step or a version: `foldback events ID` lists them",
                    );
                }
            },
            VersionSpec::Before(key) => match self.begun.into_iter().flatten().next() {
                Some(version) => version - 1,
                None => return unknown_key(key, &self.keys),
            },
            VersionSpec::After(key) => match self.ended {
                [Some(version), _] => version,
                [None, Some(version)] if !self.is_asked => version,
                _ if self.is_known => {
                    return unresolved(
                        format!("`{key}` has not ended"),
                        format!("`{key}` without `:end` is the version before it began"),
                    );
                }
                _ => return unknown_key(key, &self.keys),
            },
        };
        if version < first || version > self.last {
            let text = match self.spec {
                VersionSpec::FromEnd(n) => format!("-{n}"),
                _ => version.to_string(),
            };
            return unresolved(
                format!("version {text} is out of range"),
                format!("the log holds versions {first} to {}", self.last),
            );
        }
        Ok(version)
    }
}

/// Whether a fact ends a key.
fn ends(key: &Key, fact: &Fact) -> bool {
    match fact {
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
    }
}

fn unknown_key<T>(key: &Key, known: &BTreeSet<Key>) -> Result<T, Unresolved> {
    let hint = match nearest(key.as_str(), known.iter().map(Key::as_str)) {
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
