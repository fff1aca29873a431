//! Tasks with tasks inside: `do`, `for`, `fork`. (`try` has a room of its own.)

use std::sync::Arc;

use foldback_core::{Ask, Entry, EntryBody, Failure, Key, Slot, TaskKind};
use serde_json::{Value, json};

use super::scribe::Sight;
use super::{Fault, Scope, Walked, Walker, recorded_input};
use crate::program::{Body, ForTask, Task, TaskList};

const CONTINUE: &str = "continue";
const STOP: &str = "stop";

impl<'a> Walker<'a> {
    pub(super) fn enter_scope(
        &mut self,
        task: &Task,
        key: Key,
        data: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let Some(entry) = self.entry(&key) else {
            return self.begin(task, key, &data, scope);
        };
        match &task.body {
            Body::Do(list) => self.do_list(task, key, list, recorded_input(entry), scope),
            Body::For(body) => self.for_loop(task, key, body, entry, scope),
            Body::Fork(fork) if fork.is_race => {
                self.race(task, key, &fork.branches, recorded_input(entry), scope)
            }
            Body::Fork(fork) => self.fork(task, key, &fork.branches, recorded_input(entry), scope),
            Body::Try(block) => self.try_block(task, key, block, recorded_input(entry), scope),
            // These have no tasks inside and never come here.
            Body::Set(_)
            | Body::Switch(_)
            | Body::Raise(_)
            | Body::Wait(_)
            | Body::Emit(_)
            | Body::Listen(_)
            | Body::Step(_) => Walked::Busy,
        }
    }

    fn begin(&mut self, task: &Task, key: Key, data: &Arc<Value>, scope: &Scope<'_>) -> Walked {
        let input = match self.shaped_input(task, &key, data, scope) {
            Ok(input) => input,
            Err(fault) => return fault,
        };
        self.note_input(&key, &input);
        let input = match &task.body {
            Body::For(body) => {
                let sight = Sight::of_task(task, &key, scope, &input);
                match self.eval(&body.items, &input, &sight) {
                    Ok(items @ Value::Array(_)) => Arc::new(json!({"input": *input, "items": items})),
                    Ok(other) => {
                        let detail = format!("`in` must give an array, and gave {}", kind(&other));
                        return self.expression_fault(task, &key, "There is nothing to loop over", detail);
                    }
                    Err(detail) => {
                        return self.expression_fault(
                            task,
                            &key,
                            "The items `in` cannot be evaluated",
                            detail,
                        );
                    }
                }
            }
            _ => input,
        };
        match &task.body {
            Body::For(body) if body.collects => self.ask(Ask::Collect { key, input }),
            _ => self.ask(Ask::Start { key, kind: task.kind(), input }),
        }
    }

    fn do_list(
        &mut self,
        task: &Task,
        key: Key,
        list: &TaskList,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let inner = Scope {
            key: key.clone(),
            list,
            input: input.clone(),
            around: Some(scope),
            variables: Vec::new(),
        };
        match self.list(&inner) {
            Walked::Done(output) => self.finish(task, key, TaskKind::Do, output, &input, scope),
            other => other,
        }
    }

    fn for_loop(
        &mut self,
        task: &Task,
        key: Key,
        body: &ForTask,
        entry: &Entry,
        scope: &Scope<'_>,
    ) -> Walked {
        let EntryBody::Started { iterations, last, collected, .. } = &entry.body else {
            return Walked::Busy;
        };
        let recorded = recorded_input(entry);
        let input = || Arc::new(recorded["input"].clone());
        // What the condition sees: the output of the iteration before.
        let data = last.as_ref().map_or_else(input, Slot::get);
        let output = || match collected {
            Some(outputs) => Arc::new(outputs.iter().map(|output| (*output.get()).clone()).collect()),
            None => data.clone(),
        };
        let item = usize::try_from(*iterations).ok().and_then(|i| recorded["items"].get(i));
        let Some(item) = item else {
            return self.finish(task, key, TaskKind::For, output(), &input(), scope);
        };
        let iteration = key.item(*iterations);
        let variables = vec![
            (body.each.as_str(), Arc::new(item.clone())),
            (body.at.as_str(), Arc::new(json!(iterations))),
        ];
        if let Some(condition) = &body.while_ {
            let decision = iteration.mark("while");
            match self.chosen(&decision) {
                Some(STOP) => return self.finish(task, key, TaskKind::For, output(), &input(), scope),
                Some(_) => {}
                None => {
                    let sight = Sight { variables: &variables, ..Sight::of_task(task, &key, scope, &data) };
                    return match self.holds(condition, &data, &sight) {
                        Ok(holds) => {
                            let because = json!([self.reasons(("while", holds), condition, &data, &sight)]);
                            self.ask(Ask::Decide {
                                key: decision,
                                chosen: if holds { CONTINUE } else { STOP }.to_owned(),
                                options: vec![CONTINUE.to_owned(), STOP.to_owned()],
                                because,
                                finishes: false,
                            })
                        }
                        Err(detail) => self.expression_fault(
                            task,
                            &key,
                            "The condition `while` cannot be evaluated",
                            detail,
                        ),
                    };
                }
            }
        }
        let begins_with = if collected.is_some() { input() } else { data };
        let inner = Scope {
            key: iteration.clone(),
            list: &body.body,
            input: begins_with,
            around: Some(scope),
            variables,
        };
        match self.list(&inner) {
            Walked::Done(output) => {
                self.ask(Ask::Finish { key: iteration, kind: TaskKind::Iteration, output, context: None })
            }
            other => other,
        }
    }

    /// All branches, each on its own strand. When one fails, the others begin nothing more, and no longer
    /// wait for a moment or for anybody; the failure goes outward when the steps they began have come out.
    fn fork(
        &mut self,
        task: &Task,
        key: Key,
        branches: &TaskList,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let before = (self.asks.len(), self.is_sealed);
        let (mut outputs, mut is_busy) = (Vec::new(), false);
        let (mut failed, mut ended) = (None, None);
        for branch in &branches.tasks {
            let branch_key = key.child(&branch.name);
            if let Some(fault) = self.recorded_failure(&branch_key) {
                failed = failed.or(Some((branch_key, fault)));
                continue;
            }
            if self.is_finished(&branch_key) {
                outputs.push(self.output_of(&branch_key).unwrap_or_else(|| input.clone()));
                continue;
            }
            match self.task(branch, branch_key.clone(), input.clone(), scope) {
                Walked::Busy | Walked::Done(_) => is_busy = true,
                Walked::End(data) => ended = ended.or(Some((branch_key, data))),
                Walked::Failed(fault) => failed = failed.or(Some((branch_key, fault))),
                Walked::Lost(divergence) => return Walked::Lost(divergence),
            }
        }
        if failed.is_none() && ended.is_none() {
            if is_busy {
                return Walked::Busy;
            }
            let output = Value::Array(outputs.iter().map(|output| (**output).clone()).collect());
            return self.finish(task, key, TaskKind::Fork, Arc::new(output), &input, scope);
        }
        // A branch that ran out of time gives up what it has under way all the same.
        let asked = self.asks.split_off(before.0);
        self.asks.extend(asked.into_iter().filter(|ask| matches!(ask, Ask::Cancel { .. })));
        self.is_sealed = before.1;
        if let Some((branch_key, Fault { failure, is_recorded: false })) = &failed {
            // It has to wait, and what it was computed from may change meanwhile.
            let failure = Arc::new(serde_json::to_value(failure.plain()).unwrap_or_default());
            return self.ask(Ask::Start { key: branch_key.failed(), kind: TaskKind::Shape, input: failure });
        }
        let (because, reason) = match (&failed, &ended) {
            (Some((branch, _)), _) => (Some(branch), format!("`{branch}` failed")),
            (None, Some((branch, _))) => (Some(branch), format!("`{branch}` led to the end")),
            (None, None) => (None, String::new()),
        };
        self.wait_no_more(&key, because, &reason);
        let is_open = |open: &Key| open.is_inside(&key) && !self.state.is_limit(open);
        if self.state.open.iter().any(is_open) || self.is_taken_back_in(&key) {
            return Walked::Busy;
        }
        match (failed, ended) {
            (Some((_, fault)), _) => Walked::Failed(fault),
            (None, Some((_, data))) => Walked::End(data),
            (None, None) => Walked::Busy,
        }
    }

    /// The failure of a branch that no step's fact holds, and that was recorded for this.
    pub(super) fn recorded_failure(&self, branch: &Key) -> Option<Fault> {
        let entry = self.entry(&branch.failed())?;
        let failure = serde_json::from_value::<Failure>((*recorded_input(entry)).clone()).unwrap_or_default();
        Some(Fault { failure: Box::new(failure), is_recorded: true })
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
