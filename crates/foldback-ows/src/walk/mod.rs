//! The interpreter: a walk from the root through the open scopes of a state, to what comes next.
//!
//! It keeps nothing between turns and is right on every prefix of a log, in the middle of a batch
//! too. What jq computed and a later turn needs is a fact and is read back, never computed again.
//! A turn asks for one thing on each strand and is called again after it was recorded.
//!
//! # Keys
//!
//! With `K` the key of a task (its name in its scope, `#n` from the second visit on):
//!
//! | key | what |
//! |---|---|
//! | `K` | the task: its start, its step, its wait, its decision (`switch`), its end |
//! | `K!if` | the decision whether it runs |
//! | `K!event` | the event that an `emit` recorded; `K`'s end has the output made of it |
//! | `K!switch` | the decision of a switch whose data is shaped, so that it outlives `K`'s end |
//! | `K/name` | a task inside `K` (`do`, the first try of `try`, a branch of `fork`) |
//! | `K[i]`, `K[i]/name` | an iteration of a `for`, a task inside it |
//! | `K[i]!while` | the decision whether iteration `i` begins |
//! | `K!n`, `K!n/name` | the `n`-th try of a block, from 2; its delay, then its start |
//! | `K!catch`, `K!n!catch` | the error of that try, and the decision what becomes of it |
//! | `K!catch/name` | a task of the handler |
//! | `K!timeout` | the timer that limits `K` (of the workflow: `!timeout`); it goes with `K` |
//! | `K!winner` | the decision which branch of a fork came first, where they compete |
//! | `K!failed` | a failure that no step's fact holds: a branch's, or that of a loop that never waits |
//! | `K!undo/name` | a task that takes the step `K` back |
//! | `K!reconcile/name` | a task that finds out whether the step `K` happened |
//! | `K!compensation` | that what the block `K` did is taken back before its handler begins |
//!
//! # What the specification leaves open
//!
//! A skipped task leads to the next, whatever its `then` says. The output of `switch`, `wait` and
//! a task without one is its input. An error that is caught without a handler gives the block's
//! input. Retries that are used up lead to the handler; without one, the error goes outward. The
//! handler's input is the block's. `end` in a branch waits for the steps of the other branches.

mod aside;
mod emit;
mod leaf;
mod limit;
mod listen;
mod race;
mod reopen;
mod scopes;
mod scribe;
mod seen;
mod tries;

use std::sync::Arc;

use foldback_core::event::UndoStarted;
use foldback_core::state::Cursor;
use foldback_core::{
    Ask, Divergence, Entry, EntryBody, Failure, Key, Run, Seen, Slot, StepStatus, Turn, Version,
    WorkflowState, limits,
};
use serde_json::Value;

use crate::program::{Body, Definition, Flow, ON_COMPENSATE, Task, TaskList};
use scribe::Sight;

/// A workflow under way: nothing but its definition.
pub(crate) struct WalkingRun {
    definition: Arc<Definition>,
}

impl WalkingRun {
    pub fn new(definition: Arc<Definition>) -> WalkingRun {
        WalkingRun { definition }
    }
}

impl Run for WalkingRun {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        let mut walker = Walker::new(&self.definition, state);
        let end = match walker.workflow() {
            Walked::Busy if walker.asks.is_empty() => return Turn::Waits,
            Walked::Busy => return Turn::Asks(walker.asks),
            Walked::Done(data) | Walked::End(data) => walker.output(&data),
            Walked::Failed(fault) => Err(*fault.failure),
            Walked::Lost(divergence) => return Turn::Diverged(*divergence),
        };
        Turn::Ends(end)
    }

    fn undo(&mut self, state: &WorkflowState, undo: &UndoStarted) -> Turn {
        let definition = self.definition.clone();
        let Some(list) = definition.undo_of(&undo.key, &undo.handler) else {
            return Turn::Diverged(Divergence {
                key: undo.key.clone(),
                recorded: format!("`{}` takes it back", undo.handler),
                asked: "the definition says nothing of that".into(),
            });
        };
        self.beside(state, |walker| walker.undo(undo, list))
    }

    fn reconcile(&mut self, state: &WorkflowState, key: &Key) -> Turn {
        let definition = self.definition.clone();
        let list = definition.task_at(key).and_then(|task| match &task.body {
            Body::Step(step) => step.reconcile.as_ref(),
            _ => None,
        });
        match (list, state.step(key)) {
            (Some(list), Some(step)) => self.beside(state, |walker| walker.reconcile(key, step, list)),
            _ => Turn::Diverged(Divergence {
                key: key.clone(),
                recorded: "its outcome is to be looked for".into(),
                asked: "the definition has no tasks for it".into(),
            }),
        }
    }

    fn keeps(&mut self, state: &WorkflowState, signal: Version) -> bool {
        let mut walker = Walker::new(&self.definition, state);
        walker.workflow();
        walker.kept.contains(&signal)
    }

    fn compensates(&self) -> bool {
        !self.definition.holds
    }

    fn undoes_event(&self, event_type: &str) -> Option<Arc<str>> {
        let mut handlers = self.definition.on_compensate.iter();
        handlers
            .any(|(known, _)| known == event_type)
            .then(|| Arc::from(format!("{ON_COMPENSATE}{event_type}")))
    }

    fn is_erasable(&self, key: &Key) -> bool {
        self.definition.is_erasable(key)
    }

    fn hears_apart(&self, name: &str) -> bool {
        self.definition.hears_apart(name)
    }

    fn jumps_max(&self) -> Option<u64> {
        Some(limits::JUMPS_MAX)
    }

    fn failures(&self, state: &WorkflowState) -> Vec<Key> {
        reopen::failures(state)
    }

    fn sees(&mut self, state: &WorkflowState, key: &Key) -> Option<Seen> {
        self.watch(state, key)
    }
}

/// Where a walk through a list or a task came to.
pub(crate) enum Walked {
    /// Something was asked, or is waited for.
    Busy,
    /// The list is at its end; a task never is, because its end is a fact.
    Done(Arc<Value>),
    /// The workflow is at its end.
    End(Arc<Value>),
    /// It failed.
    Failed(Fault),
    /// The state holds what this definition cannot have led to.
    Lost(Box<Divergence>),
}

/// A failure on its way outward.
pub(crate) struct Fault {
    pub failure: Box<Failure>,
    /// Whether a fact holds it. One that none holds is computed anew with each turn, until
    /// somebody has to wait with it.
    pub is_recorded: bool,
}

/// A scope: a list of tasks that is under way.
pub(crate) struct Scope<'a> {
    pub key: Key,
    pub list: &'a TaskList,
    pub input: Arc<Value>,
    pub around: Option<&'a Scope<'a>>,
    /// Variables that this scope adds, with their `$`.
    pub variables: Vec<(&'a str, Arc<Value>)>,
}

pub(crate) struct Walker<'a> {
    definition: &'a Definition,
    state: &'a WorkflowState,
    asks: Vec<Ask>,
    /// Once an ask changes `$context`, no other strand asks in this turn: what it would compute
    /// from the context of before could not be computed again from the log.
    is_sealed: bool,
    /// Signals that fit a wait for several, of which others have not come.
    kept: Vec<Version>,
    /// The input of the task that is walked, before it is shaped.
    raw: Option<Arc<Value>>,
    /// The task that a person wants to see, where this walk is for that.
    watch: Option<&'a seen::Watch>,
}

impl<'a> Walker<'a> {
    fn new(definition: &'a Definition, state: &'a WorkflowState) -> Walker<'a> {
        Walker {
            definition,
            state,
            asks: Vec::new(),
            is_sealed: false,
            kept: Vec::new(),
            raw: None,
            watch: None,
        }
    }

    fn ask(&mut self, ask: Ask) -> Walked {
        if !self.is_sealed {
            self.is_sealed = matches!(&ask, Ask::Finish { context: Some(_), .. });
            self.asks.push(ask);
        }
        Walked::Busy
    }

    fn entry(&self, key: &Key) -> Option<&'a Entry> {
        self.state.entries.get(key)
    }

    fn body(&self, key: &Key) -> Option<&'a EntryBody> {
        self.entry(key).map(|entry| &entry.body)
    }

    /// What was chosen, where the key is a decision that was made.
    fn chosen(&self, key: &Key) -> Option<&'a str> {
        match self.body(key)? {
            EntryBody::Decided { chosen } => Some(chosen),
            EntryBody::Started { .. }
            | EntryBody::Step(_)
            | EntryBody::Timer { .. }
            | EntryBody::Listening { .. }
            | EntryBody::Finished { .. } => None,
        }
    }

    fn workflow(&mut self) -> Walked {
        let root = Key::root();
        // Nothing was asked yet: the input was not judged.
        let is_new = self.state.entries.is_empty() && !self.state.cursors.contains_key(&root);
        if let (true, Some(schema)) = (is_new, &self.definition.input_schema)
            && let Some(failure) = schema.failure(
                "The input of the workflow",
                &self.state.input.get(),
                self.definition.is_erasable(&root),
            )
        {
            return Walked::Failed(at_place(failure, "/input/schema"));
        }
        let state = self.state;
        if let Some(limit) = &self.definition.limit
            && let Some(walked) = self.limit(None, &root, limit, &|| state.input.get())
        {
            return walked;
        }
        if let Some(walked) = self.budget(&root, &self.definition.budget) {
            return walked;
        }
        let input = match (&self.definition.input, self.entry(&root)) {
            (None, _) => self.state.input.get(),
            (Some(_), Some(entry)) => recorded_input(entry),
            (Some(template), None) => {
                let input = self.state.input.get();
                let sight = Sight::of_workflow(&input, None);
                return match self.eval(template, &input, &sight) {
                    Ok(input) => self.ask(Ask::Start {
                        key: root,
                        kind: foldback_core::TaskKind::Do,
                        input: Arc::new(input),
                    }),
                    Err(detail) => Walked::Failed(self.workflow_fault(
                        "The input of the workflow cannot be shaped",
                        "/input/from",
                        detail,
                    )),
                };
            }
        };
        let scope =
            Scope { key: root, list: &self.definition.tasks, input, around: None, variables: Vec::new() };
        self.list(&scope)
    }

    /// The workflow's output from the data at its end.
    fn output(&self, data: &Arc<Value>) -> Result<Value, Failure> {
        let output = self.shaped_output(data)?;
        let miss = self.definition.output_schema.as_ref();
        match miss.and_then(|schema| {
            schema.failure("The output of the workflow", &output, self.definition.is_erasable(&Key::root()))
        }) {
            Some(failure) => Err(*at_place(failure, "/output/schema").failure),
            None => Ok(output),
        }
    }

    fn shaped_output(&self, data: &Arc<Value>) -> Result<Value, Failure> {
        let Some(template) = &self.definition.output else {
            return Ok((**data).clone());
        };
        let input = match (&self.definition.input, self.entry(&Key::root())) {
            (Some(_), Some(entry)) => recorded_input(entry),
            (Some(_) | None, _) => self.state.input.get(),
        };
        let sight = Sight::of_workflow(&input, Some(data));
        self.eval(template, data, &sight).map_err(|detail| {
            self.workflow_fault("The output of the workflow cannot be shaped", "/output/as", detail)
                .failure
                .as_ref()
                .clone()
        })
    }

    fn workflow_fault(&self, title: &str, instance: &str, detail: String) -> Fault {
        at_place(crate::program::expression_failure(title, detail), instance)
    }

    /// Walks a list of tasks from what finished last in it.
    fn list(&mut self, scope: &Scope<'_>) -> Walked {
        let cursor = self.state.cursors.get(&scope.key);
        let data =
            cursor.and_then(|cursor| cursor.data.as_ref()).map_or_else(|| scope.input.clone(), Slot::get);
        let next = match cursor {
            None => 0,
            Some(cursor) => match self.after(scope, cursor) {
                Ok((_, Flow::To(index))) => index,
                Ok((index, Flow::Continue)) => index + 1,
                Ok((_, Flow::Exit)) => return Walked::Done(data),
                Ok((_, Flow::End)) => return Walked::End(data),
                Err(lost) => return Walked::Lost(lost),
            },
        };
        let Some(task) = scope.list.tasks.get(next) else {
            return Walked::Done(data);
        };
        let first = scope.key.child(&task.name);
        let key = match self.state.newest_visit(&first) {
            Some((key, visit)) if self.is_finished(&key) => first.visit(visit + 1),
            Some((key, _)) => key,
            None => first,
        };
        self.task(task, key, data, scope)
    }

    /// Where it goes after the task that finished last.
    fn after(&self, scope: &Scope<'_>, cursor: &Cursor) -> Result<(usize, Flow), Box<Divergence>> {
        let Some(index) = scope.list.position(cursor.last.name()) else {
            return Err(Box::new(Divergence {
                key: cursor.last.clone(),
                recorded: format!("`{}` finished", cursor.last),
                asked: "the definition has no such task".into(),
            }));
        };
        let task = &scope.list.tasks[index];
        // A visit that began after the last one finished supersedes it: the flow led to itself.
        let newest = self.state.newest_visit(&scope.key.child(&task.name));
        if newest.is_some_and(|(key, _)| key != cursor.last) {
            return Ok((index, Flow::To(index)));
        }
        if self.chosen(&cursor.last.mark("if")) == Some(leaf::SKIP) {
            return Ok((index, Flow::Continue));
        }
        let flow = match &task.body {
            Body::Switch(cases) => {
                let chosen = self.chosen(&cursor.last.mark("switch")).or_else(|| self.chosen(&cursor.last));
                cases
                    .iter()
                    .find(|case| Some(case.name.as_str()) == chosen)
                    .map_or(task.then, |case| case.then)
            }
            Body::Try(block) => match (block.then, self.body(&cursor.last)) {
                (Some(then), Some(EntryBody::Finished { kind, .. })) if *kind == tries::BY_HANDLER => then,
                _ => task.then,
            },
            Body::Do(_)
            | Body::For(_)
            | Body::Fork(_)
            | Body::Set(_)
            | Body::Raise(_)
            | Body::Wait(_)
            | Body::Emit(_)
            | Body::Listen(_)
            | Body::Step(_) => task.then,
        };
        Ok((index, flow))
    }

    /// Whether the task of this key is over.
    fn is_finished(&self, key: &Key) -> bool {
        match self.body(key) {
            Some(EntryBody::Finished { .. } | EntryBody::Decided { .. }) => true,
            Some(EntryBody::Step(step)) => step.finishes && step.status == StepStatus::Completed,
            Some(EntryBody::Timer { fired, finishes, .. }) => *fired && *finishes,
            Some(EntryBody::Started { .. } | EntryBody::Listening { .. }) | None => false,
        }
    }

    /// The output of a task that is over, where it has one of its own.
    fn output_of(&self, key: &Key) -> Option<Arc<Value>> {
        match self.body(key)? {
            EntryBody::Finished { output, .. } => Some(output.get()),
            EntryBody::Step(step) => step.output.as_ref().map(Slot::get),
            EntryBody::Started { .. }
            | EntryBody::Timer { .. }
            | EntryBody::Listening { .. }
            | EntryBody::Decided { .. } => None,
        }
    }

    /// A failure at a task.
    fn fault(&self, task: &Task, key: &Key, mut failure: Failure) -> Walked {
        failure.key = failure.key.or_else(|| Some(key.clone()));
        failure.instance = failure.instance.or_else(|| Some(task.pointer.to_string()));
        Walked::Failed(Fault { failure: Box::new(failure), is_recorded: false })
    }

    fn expression_fault(&self, task: &Task, key: &Key, title: &str, detail: String) -> Walked {
        self.fault(task, key, crate::program::expression_failure(title, detail))
    }
}

/// A failure that no fact holds, at a place of the definition.
fn at_place(mut failure: Failure, instance: &str) -> Fault {
    failure.instance = Some(instance.to_owned());
    Fault { failure: Box::new(failure), is_recorded: false }
}

/// The input that was recorded for a task.
fn recorded_input(entry: &Entry) -> Arc<Value> {
    entry.input.as_ref().map(Slot::get).unwrap_or_default()
}
