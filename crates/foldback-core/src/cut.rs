//! Where a past is cut: the version that a person asks for, or the first fact that a change touches,
//! whichever is earlier.
//!
//! It is shown the log event by event and keeps only what the changes touch. What contradicts itself,
//! or has no place in this log, is refused here, before anything is written.

use std::collections::HashMap;

use serde_json::Value;

use crate::change::{Edit, GivenOutput, Said, SaidTarget, Target, Writes, parse, put};
use crate::event::{Event, Fact, TaskKind};
use crate::report::nearest;
use crate::value::{Slot, is_too_deep};
use crate::{Key, Version, limits};

/// What a person wants of a fork or of a retry, but for the version.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Edits, each with its value at hand.
    pub edits: Vec<Said>,
    /// What becomes of writes.
    pub writes: Writes,
    /// Steps that run again; `*` for all.
    pub rerun: Vec<String>,
    /// The kind of step that `*` means as a target: a model call.
    pub model_kind: String,
}

/// A cut, and what is changed at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// The last version that is shared.
    pub version: Version,
    /// Edits of requests.
    pub edits: Vec<Edit>,
    /// The output that is put in the place of the one that completes at the cut.
    pub outputs: Vec<GivenOutput>,
    /// The input, where it is another.
    pub input: Option<Slot>,
}

/// A wish that cannot be fulfilled, told to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub hint: String,
}

fn refused<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { message: message.into(), hint: hint.into() })
}

/// The search for a cut along a log.
pub struct Cutting<'a> {
    wish: &'a Wish,
    at: Version,
    /// Versions of asks that a change touches, in order.
    touched: Vec<(Version, Key)>,
    /// Outputs of steps whose output is edited: the version of the completion.
    completed: HashMap<Key, (Version, Slot)>,
    /// Requests that an edit means, as they were asked last.
    asked: HashMap<Key, Value>,
    /// Every key that was asked for, also behind `at`.
    keys: Vec<Key>,
    /// Tasks with an output whose output is to be edited, and that are no steps.
    others: HashMap<Key, &'static str>,
    input: Slot,
}

impl<'a> Cutting<'a> {
    /// A search for a wish, in what is shared at most up to `at`.
    ///
    /// # Errors
    /// The wish contradicts itself.
    pub fn of(wish: &'a Wish, at: Version) -> Result<Cutting<'a>, Refused> {
        agrees(wish)?;
        Ok(Cutting {
            wish,
            at,
            touched: Vec::new(),
            completed: HashMap::new(),
            asked: HashMap::new(),
            keys: Vec::new(),
            others: HashMap::new(),
            input: Slot::null(),
        })
    }

    /// Whether the log has to be looked at for this wish at all.
    pub fn needs_log(&self) -> bool {
        !self.wish.edits.is_empty() || !self.wish.rerun.is_empty() || !self.wish.writes.by_key.is_empty()
    }

    /// The next event; values of those for which [`Cutting::wants`] is true are at hand.
    pub fn see(&mut self, event: &Event) {
        if let Some(version) = event.fact.goes_back_to()
            && event.version <= self.at
        {
            self.touched.retain(|(touched, _)| *touched <= version);
            self.completed.retain(|_, (completed, _)| *completed <= version);
        }
        let is_shared = event.version <= self.at;
        match &event.fact {
            Fact::WorkflowStarted(started) => self.input = started.input.clone(),
            Fact::WorkflowForked(forked) if is_shared => {
                if let Some(input) = &forked.changes.input {
                    self.input = input.clone();
                }
            }
            Fact::StepAsked(asked) => {
                self.keys.push(asked.key.clone());
                if !self.touches(&asked.key, &asked.kind) {
                    return;
                }
                self.asked.insert(asked.key.clone(), asked.request.to_json());
                if is_shared {
                    self.touched.push((event.version, asked.key.clone()));
                }
            }
            Fact::TaskFinished { key, kind, .. } if self.edits_output(key) => {
                let kind = match kind {
                    TaskKind::Set | TaskKind::Compute => "set",
                    TaskKind::For => "for",
                    TaskKind::Fork => "fork",
                    TaskKind::Try => "try",
                    TaskKind::Do => "do",
                    TaskKind::Record => "emit",
                    TaskKind::Iteration | TaskKind::Branch | TaskKind::Shape => return,
                };
                self.others.insert(key.clone(), kind);
            }
            Fact::ListenStarted { key, .. } if self.edits_output(key) => {
                self.others.insert(key.clone(), "listen");
            }
            Fact::StepCompleted(done) if is_shared => self.complete(&done.key, &done.output, event.version),
            Fact::StepReused(reused) if is_shared => {
                if let Some(output) = &reused.output {
                    self.complete(&reused.key, output, event.version);
                }
            }
            Fact::WriteSettled { key, output: Some(output), .. }
            | Fact::OutcomeResolved { key, landed: Some(output) }
            | Fact::OutcomeReconciled { key, landed: Some(output), .. }
                if is_shared =>
            {
                self.complete(key, output, event.version);
            }
            _ => {}
        }
    }

    /// Whether the values of an event are looked at.
    pub fn wants(&self, event: &Event) -> bool {
        match &event.fact {
            Fact::WorkflowStarted(_) | Fact::WorkflowForked(_) => true,
            Fact::StepAsked(asked) => self.touches(&asked.key, &asked.kind),
            fact => fact.key().is_some_and(|key| self.edits_output(key)),
        }
    }

    fn touches(&self, key: &Key, kind: &str) -> bool {
        let edited = self.wish.edits.iter().any(|said| match &said.target {
            SaidTarget::Request(wanted) => Target::Key(wanted.clone()).means(key, kind),
            SaidTarget::Models => *kind == *self.wish.model_kind,
            SaidTarget::Output(_) | SaidTarget::Input => false,
        });
        edited || self.wish.rerun.iter().any(|k| k == "*" || Target::Key(Key::from(&**k)).means(key, kind))
    }

    fn edits_output(&self, key: &Key) -> bool {
        self.wish.edits.iter().any(|said| said.target == SaidTarget::Output(key.clone()))
    }

    fn complete(&mut self, key: &Key, output: &Slot, version: Version) {
        if self.edits_output(key) {
            self.completed.insert(key.clone(), (version, output.clone()));
        }
    }

    /// The cut. `knows` says whether the definition has a step of this key, where it can tell.
    ///
    /// # Errors
    /// An edit that has no place in this log.
    pub fn end(self, knows: &dyn Fn(&Key) -> Option<bool>) -> Result<Cut, Refused> {
        let mut cut = Cut { version: self.at, edits: Vec::new(), outputs: Vec::new(), input: None };
        if let Some((version, _)) = self.touched.first() {
            cut.version = cut.version.min(version - 1);
        }
        for said in &self.wish.edits {
            let Ok(value) = &said.value else { continue };
            match &said.target {
                SaidTarget::Request(key) => {
                    self.is_a_step(key, knows)?;
                    cut.edits.push(edit(Target::Key(key.clone()), said, value));
                }
                SaidTarget::Models => {
                    let kind = Target::Kind(self.wish.model_kind.as_str().into());
                    cut.edits.push(edit(kind, said, value));
                }
                SaidTarget::Input => {
                    let mut input = (*cut.input.as_ref().unwrap_or(&self.input).get()).clone();
                    place(&mut input, said, value)?;
                    cut.input = Some(Slot::of(input));
                    cut.version = 1;
                }
                SaidTarget::Output(key) => {
                    let Some((version, output)) = self.completed.get(key) else {
                        self.is_no_other_task(key)?;
                        self.is_a_step(key, knows)?;
                        return refused(
                            format!("`{key}` never completed up to version {}: it has no output", self.at),
                            "edit its request instead, or name a later --at; `foldback steps ID` shows what completed",
                        );
                    };
                    let mut whole = match cut.outputs.pop() {
                        Some(given) => (*given.output.get()).clone(),
                        None => (*output.get()).clone(),
                    };
                    place(&mut whole, said, value)?;
                    cut.outputs.push(GivenOutput { key: key.clone(), output: Slot::of(whole) });
                    cut.version = cut.version.min(*version);
                }
            }
        }
        for key in self.wish.rerun.iter().filter(|key| *key != "*") {
            self.is_a_step(&Key::from(&**key), knows)?;
        }
        for key in self.wish.writes.by_key.keys() {
            self.is_a_step(key, knows)?;
        }
        self.fits(&cut)?;
        if let Some(given) = cut.outputs.first()
            && self.completed.get(&given.key).is_none_or(|(version, _)| *version != cut.version)
        {
            return refused(
                format!(
                    "the output of `{}` lies behind the cut at version {}, which another change makes",
                    given.key, cut.version
                ),
                "fork twice: the first change, then the other in the fork",
            );
        }
        Ok(cut)
    }

    /// Each edit has a place in the request that it means, as far as one was made.
    fn fits(&self, cut: &Cut) -> Result<(), Refused> {
        for edit in &cut.edits {
            for (key, request) in &self.asked {
                let is_meant = match &edit.target {
                    Target::Key(_) => edit.target.means(key, ""),
                    Target::Kind(_) => true,
                };
                let name = edit.path.split('/').nth(1).unwrap_or_default();
                if is_meant && let Err(why) = put(&mut request.clone(), &edit.path, Value::Null) {
                    let told = format!("{}:{}", edit.target, parse::dotted(&edit.path));
                    let known = request.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
                    let known = known.unwrap_or_default().join(", ");
                    return refused(
                        format!("`{told}` has no place in the request of `{key}`: {why}"),
                        format!("its request has {known}; `{name}` cannot be reached so"),
                    );
                }
            }
        }
        Ok(())
    }

    /// The patterns under which a bare name was asked for, each with how many steps it means.
    fn patterns_of(&self, name: &Key) -> Vec<(String, usize)> {
        let mut patterns: Vec<(String, usize)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for key in &self.keys {
            let is_named = key.as_str().rsplit('/').next() == Some(name.as_str());
            if !is_named || !seen.insert(key) {
                continue;
            }
            let pattern = any_index(key.as_str());
            match patterns.iter_mut().find(|(known, _)| *known == pattern) {
                Some((_, count)) => *count += 1,
                None => patterns.push((pattern, 1)),
            }
        }
        patterns
    }

    /// Refuses an edit of the output of a task that asks nothing of the world, with what to do instead.
    fn is_no_other_task(&self, key: &Key) -> Result<(), Refused> {
        match self.others.get(key) {
            None => Ok(()),
            Some(&"listen") => refused(
                format!("`{key}` is a `listen`: its output is what a signal brought, and no step's"),
                format!(
                    "fork before it, and signal the fork: `foldback fork ID --at {}`",
                    crate::text::shell_word(key.as_str())
                ),
            ),
            Some(kind) => refused(
                format!(
                    "`{key}` is a `{kind}`: its output is made of what stands before it, and of no step of its own"
                ),
                "edit the output of a step before it, or the input; or change the definition: `foldback fork ID \
                 --definition FILE`",
            ),
        }
    }

    fn is_a_step(&self, key: &Key, knows: &dyn Fn(&Key) -> Option<bool>) -> Result<(), Refused> {
        let is_asked = self.keys.iter().any(|asked| Target::Key(key.clone()).means(asked, ""));
        if is_asked || knows(key) != Some(false) {
            return Ok(());
        }
        let patterns = self.patterns_of(key);
        if let [(pattern, count), more @ ..] = &*patterns {
            let more: String = more.iter().map(|(pattern, count)| format!(", `{pattern}` {count}")).collect();
            return refused(
                format!("the definition has no step `{key}` at its top"),
                format!("name where it stands: `{pattern}` means {count} of them{more}"),
            );
        }
        let hint = match nearest(key.as_str(), self.keys.iter().map(Key::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`foldback steps ID` lists the keys of steps".to_owned(),
        };
        refused(format!("the definition has no step `{key}`"), hint)
    }
}

/// A key with `[*]` in the place of each index.
fn any_index(key: &str) -> String {
    let mut pattern = String::new();
    let mut rest = key;
    while let Some((before, after)) = rest.split_once('[') {
        let (index, behind) = after.split_once(']').unwrap_or((after, ""));
        let is_index = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        pattern += &format!("{before}[{}]", if is_index { "*" } else { index });
        rest = behind;
    }
    pattern + rest
}

fn edit(target: Target, said: &Said, value: &Value) -> Edit {
    Edit { target, path: said.path.clone(), value: Slot::of(value.clone()) }
}

fn place(whole: &mut Value, said: &Said, value: &Value) -> Result<(), Refused> {
    put(whole, &said.path, value.clone()).or_else(|why| {
        let told = format!("{}.{}", said.target, parse::dotted(&said.path));
        refused(format!("`{told}` has no place: {why}"), "`foldback steps ID --json` shows the value whole")
    })
}

/// A wish that does not contradict itself.
fn agrees(wish: &Wish) -> Result<(), Refused> {
    let is_inside = |a: &str, b: &str| a == b || b.starts_with(&format!("{a}/"));
    let mut output: Option<&Key> = None;
    for (i, said) in wish.edits.iter().enumerate() {
        if let Ok(value) = &said.value
            && is_too_deep(value)
        {
            let most = limits::VALUE_DEPTH_MAX;
            return refused(
                format!("the value of `{}` nests deeper than {most} levels", said.target),
                "flatten it",
            );
        }
        for other in &wish.edits[..i] {
            let same_place = is_inside(&said.path, &other.path) || is_inside(&other.path, &said.path);
            if other.target == said.target && same_place {
                let place = parse::dotted(&said.path);
                return refused(
                    format!("two edits change `{}:{place}`: which one holds?", said.target),
                    "leave one out",
                );
            }
        }
        let SaidTarget::Output(key) = &said.target else { continue };
        let is_asked_anew = |other: &Said| match &other.target {
            SaidTarget::Request(edited) => Target::Key(edited.clone()).means(key, ""),
            SaidTarget::Models | SaidTarget::Output(_) | SaidTarget::Input => false,
        };
        let is_told_again =
            wish.rerun.iter().any(|k| k == "*" || Target::Key(Key::from(&**k)).means(key, ""));
        if wish.edits.iter().any(is_asked_anew) || is_told_again {
            return refused(
                format!("`{key}` cannot both run again and have another output"),
                "edit its output, or its request, not both",
            );
        }
        if output.is_some_and(|first| first != key) {
            return refused(
                "two outputs cannot be edited in one fork: the second step is asked anew behind the first",
                "fork twice: the first output, then the other in the fork",
            );
        }
        output = Some(key);
    }
    Ok(())
}
