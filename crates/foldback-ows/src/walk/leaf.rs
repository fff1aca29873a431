//! Tasks without tasks inside: set, switch, raise, wait and steps; and what all tasks share,
//! the condition before and the shaping behind.

use std::sync::Arc;

use foldback_core::program::StepAsk;
use foldback_core::step::error_type;
use foldback_core::{Ask, Entry, EntryBody, Failure, Key, StepStatus, TaskKind};
use serde_json::{Map, Value, json};

use super::scribe::Sight;
use super::{Fault, Scope, Walked, Walker, recorded_input};
use crate::jq::{Filter, Wrong};
use crate::program::{Body, Case, Delay, ErrorTemplate, Part, StepTask, Task, is_status};
use crate::read::duration_ms;
use crate::template::Secrets;

pub(super) const RUN: &str = "run";
pub(super) const SKIP: &str = "skip";
const NO_CASE: &str = "(none)";

impl<'a> Walker<'a> {
    /// Walks a task that is not over.
    pub(super) fn task(&mut self, task: &Task, key: Key, data: Arc<Value>, scope: &Scope<'_>) -> Walked {
        self.note_task(task, &key, &data, scope);
        let around = self.raw.replace(data.clone());
        let walked = self.walk_task(task, key, data, scope);
        self.raw = around;
        walked
    }

    fn walk_task(&mut self, task: &Task, key: Key, data: Arc<Value>, scope: &Scope<'_>) -> Walked {
        if (key.last().contains('#') || matches!(task.body, Body::Try(_)))
            && let Some(mut fault) = self.recorded_failure(&key)
        {
            let place = || Some(task.pointer.to_string());
            fault.failure.instance = fault.failure.instance.or_else(place);
            return Walked::Failed(fault);
        }
        if let Some(condition) = &task.condition
            && self.entry(&key).is_none()
            && self.entry(&key.mark("if")).is_none()
        {
            return self.decide_if(task, &key, condition, &data, scope);
        }
        // Before its first fact, a task's input has not been judged yet.
        if let (Some(schema), None) = (&task.schemas.input, self.entry(&key))
            && let Some(failure) = schema.failure("The input", &data, self.definition.is_erasable(&key))
        {
            return self.fault(task, &key, failure);
        }
        // A wait that was given up has left nothing but its limit.
        let has_begun = || self.entry(&key).is_some() || self.entry(&key.mark("timeout")).is_some();
        // One that was answered by a failure is over: its limit changes nothing any more.
        let has_failed = self.body(&key).is_some_and(|body| body.failed_answer().is_some());
        if let Some(limit) = &task.limit
            && has_begun()
            && !has_failed
            && let Some(walked) = {
                let entry = self.entry(&key);
                self.limit(Some((task, scope)), &key, limit, &|| seen_input(task, entry, &data))
            }
        {
            return match (&task.body, walked) {
                (Body::Listen(listen), Walked::Failed(_)) if listen.default.is_some() => {
                    self.unanswered(task, key, listen, data, scope)
                }
                (_, walked) => walked,
            };
        }
        if self.entry(&key).is_some()
            && let Some(walked) = self.budget(&key, &task.budget)
        {
            return walked;
        }
        match &task.body {
            Body::Do(_) | Body::For(_) | Body::Fork(_) | Body::Try(_) => {
                self.enter_scope(task, key, data, scope)
            }
            Body::Set(_)
            | Body::Switch(_)
            | Body::Raise(_)
            | Body::Wait(_)
            | Body::Emit(_)
            | Body::Listen(_)
            | Body::Step(_) => self.leaf(task, key, data, scope),
        }
    }

    fn decide_if(
        &mut self,
        task: &Task,
        key: &Key,
        condition: &Filter,
        data: &Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let sight = Sight::of_task(task, key, scope, data);
        match self.holds(condition, data, &sight) {
            Ok(holds) => {
                let because = json!([self.reasons(("if", holds), condition, data, &sight)]);
                self.ask(Ask::Decide {
                    key: key.mark("if"),
                    chosen: if holds { RUN } else { SKIP }.to_owned(),
                    options: vec![RUN.to_owned(), SKIP.to_owned()],
                    because,
                    finishes: !holds,
                })
            }
            Err(detail) => self.expression_fault(task, key, "The condition `if` cannot be evaluated", detail),
        }
    }

    /// The task's input, shaped: where the scope's data is not it, it was recorded.
    pub(super) fn shaped_input(
        &self,
        task: &Task,
        key: &Key,
        data: &Arc<Value>,
        scope: &Scope<'_>,
    ) -> Result<Arc<Value>, Walked> {
        let Some(template) = &task.input else {
            return Ok(data.clone());
        };
        let sight = Sight::of_task(task, key, scope, data);
        self.eval(template, data, &sight).map(Arc::new).map_err(|detail| {
            self.expression_fault(task, key, "The input `from` cannot be evaluated", detail)
        })
    }

    fn leaf(&mut self, task: &Task, key: Key, data: Arc<Value>, scope: &Scope<'_>) -> Walked {
        let input = match (self.entry(&key), &task.input) {
            (_, None) => data,
            (Some(entry), Some(_)) => recorded_input(entry),
            (None, Some(_)) => {
                return match self.shaped_input(task, &key, &data, scope) {
                    Ok(input) => self.ask(Ask::Start { key, kind: TaskKind::Shape, input }),
                    Err(fault) => fault,
                };
            }
        };
        self.note_input(&key, &input);
        match &task.body {
            Body::Set(template) => {
                let sight = Sight::of_task(task, &key, scope, &input);
                match self.eval(template, &input, &sight) {
                    Ok(output) => {
                        self.finish(task, key.clone(), TaskKind::Set, Arc::new(output), &input, scope)
                    }
                    Err(detail) => {
                        self.expression_fault(task, &key, "The value of `set` cannot be computed", detail)
                    }
                }
            }
            Body::Switch(cases) => self.switch(task, key, cases, input, scope),
            Body::Raise(error) => self.raise(task, key, error, input, scope),
            Body::Wait(delay) => self.wait(task, key, delay, input, scope),
            Body::Emit(with) => self.emit(task, key, with, input, scope),
            Body::Listen(listen) => self.listen(task, key, listen, input, scope),
            Body::Step(step) => self.step(task, key, step, input, scope),
            // These have tasks inside and never come here.
            Body::Do(_) | Body::For(_) | Body::Fork(_) | Body::Try(_) => Walked::Busy,
        }
    }

    /// Ends a task with what it gave, shaped.
    pub(super) fn finish(
        &mut self,
        task: &Task,
        key: Key,
        kind: TaskKind,
        raw: Arc<Value>,
        input: &Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let output = match &task.output {
            None => raw,
            Some(template) => {
                let sight = Sight { output: Some(&raw), ..Sight::of_task(task, &key, scope, input) };
                match self.eval(template, &raw, &sight) {
                    Ok(output) => Arc::new(output),
                    Err(detail) => {
                        return self.expression_fault(
                            task,
                            &key,
                            "The output `as` cannot be evaluated",
                            detail,
                        );
                    }
                }
            }
        };
        if let Some(failure) = task
            .schemas
            .output
            .as_ref()
            .and_then(|s| s.failure("The output", &output, self.definition.is_erasable(&key)))
        {
            return self.fault(task, &key, failure);
        }
        let context = match &task.export {
            None => None,
            Some(template) => {
                let sight = Sight { output: Some(&output), ..Sight::of_task(task, &key, scope, input) };
                match self.eval(template, &output, &sight) {
                    Ok(context) => {
                        let schema = task.schemas.export.as_ref();
                        if let Some(failure) = schema.and_then(|s| {
                            s.failure("The context", &context, self.definition.is_erasable(&key))
                        }) {
                            return self.fault(task, &key, failure);
                        }
                        Some(Arc::new(context))
                    }
                    Err(detail) => {
                        return self.expression_fault(
                            task,
                            &key,
                            "The export `as` cannot be evaluated",
                            detail,
                        );
                    }
                }
            }
        };
        self.ask(Ask::Finish { key, kind, output, context })
    }

    fn switch(
        &mut self,
        task: &Task,
        key: Key,
        cases: &[Case],
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        // Where data is shaped, the end of the task takes the key, and the decision needs its own.
        let is_shaped = task.shapes_output() || task.input.is_some();
        let decision = if is_shaped { key.mark("switch") } else { key.clone() };
        if is_shaped && self.chosen(&decision).is_some() {
            return self.finish(task, key, TaskKind::Shape, input.clone(), &input, scope);
        }
        let sight = Sight::of_task(task, &key, scope, &input);
        let (mut chosen, mut because) = (None, Vec::new());
        for case in cases {
            let Some(when) = &case.when else { continue };
            let holds = match self.holds(when, &input, &sight) {
                Ok(holds) => holds,
                Err(detail) => {
                    return self.expression_fault(
                        task,
                        &key,
                        &format!("The condition of the case `{}` cannot be evaluated", case.name),
                        detail,
                    );
                }
            };
            let mut looked = self.reasons(("result", holds), when, &input, &sight);
            let result = looked.shift_remove("result");
            let mut reason = Map::new();
            reason.insert("case".into(), Value::from(case.name.as_str()));
            reason.insert("when".into(), Value::from(case.when_text.as_str()));
            reason.extend(looked);
            reason.extend(result.map(|result| ("result".to_owned(), result)));
            because.push(Value::Object(reason));
            if holds {
                chosen = Some(case.name.clone());
                break;
            }
        }
        let default = cases.iter().find(|case| case.when.is_none()).map(|case| case.name.clone());
        let mut options: Vec<String> = cases.iter().map(|case| case.name.clone()).collect();
        if default.is_none() {
            options.push(NO_CASE.to_owned());
        }
        let chosen = chosen.or(default).unwrap_or_else(|| NO_CASE.to_owned());
        self.ask(Ask::Decide {
            key: decision,
            chosen,
            options,
            because: Value::Array(because),
            finishes: !is_shaped,
        })
    }

    fn raise(
        &mut self,
        task: &Task,
        key: Key,
        error: &ErrorTemplate,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let sight = Sight::of_task(task, &key, scope, &input);
        match self.raised(error, &input, &sight) {
            Ok(failure) => self.fault(task, &key, failure),
            Err(detail) => {
                self.expression_fault(task, &key, "The error to be raised cannot be computed", detail)
            }
        }
    }

    fn raised(&self, error: &ErrorTemplate, input: &Value, sight: &Sight<'_>) -> Result<Failure, String> {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let optional = |template: &Option<crate::template::Template>| -> Result<Option<String>, String> {
            template.as_ref().map(|template| self.eval(template, input, sight).map(text)).transpose()
        };
        let status = self.eval(&error.status, input, sight)?;
        let number = status.as_u64().filter(|n| is_status(*n)).and_then(|n| u16::try_from(n).ok());
        Ok(Failure {
            error_type: text(self.eval(&error.type_, input, sight)?),
            status: number.ok_or_else(|| {
                let plain = "the status is no number from 100 to 599".to_owned();
                let message = format!("the status {status} is no number from 100 to 599");
                self.told(Wrong { message, plain }, sight)
            })?,
            title: optional(&error.title)?.unwrap_or_default(),
            detail: optional(&error.detail)?.map(Into::into),
            instance: optional(&error.instance)?,
            key: None,
            non_retryable: false,
        })
    }

    fn wait(&mut self, task: &Task, key: Key, delay: &Delay, input: Arc<Value>, scope: &Scope<'_>) -> Walked {
        let is_shaped = task.shapes_output() || task.input.is_some();
        match self.body(&key) {
            Some(EntryBody::Timer { fired: false, .. }) => return Walked::Busy,
            Some(EntryBody::Timer { fired: true, .. }) => {
                return self.finish(task, key, TaskKind::Shape, input.clone(), &input, scope);
            }
            Some(
                EntryBody::Started { .. }
                | EntryBody::Step(_)
                | EntryBody::Listening { .. }
                | EntryBody::Decided { .. }
                | EntryBody::Finished { .. },
            )
            | None => {}
        }
        let sight = Sight::of_task(task, &key, scope, &input);
        match self.delay_ms(delay, &input, &sight) {
            Ok(delay_ms) => self.ask(Ask::Timer { key, delay_ms, finishes: !is_shaped, limits: false }),
            Err(detail) => {
                self.expression_fault(task, &key, "The duration of `wait` cannot be computed", detail)
            }
        }
    }

    pub(super) fn delay_ms(&self, delay: &Delay, dot: &Value, sight: &Sight<'_>) -> Result<u64, String> {
        match delay {
            Delay::Ms(ms) => Ok(*ms),
            Delay::Computed(filter) => {
                self.note(&**filter, dot, sight);
                let value = filter.eval(dot, &|name| self.variable(sight, name));
                let value = value.map_err(|wrong| self.told(wrong, sight))?;
                duration_ms(&value)
                    .map_err(|message| self.told(Wrong { message, plain: "it is no duration".into() }, sight))
            }
        }
    }

    fn step(
        &mut self,
        task: &Task,
        key: Key,
        step: &StepTask,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        if let Some(EntryBody::Step(known)) = self.body(&key) {
            return match known.status {
                StepStatus::Completed => {
                    let raw = known.output.as_ref().map(foldback_core::Slot::get).unwrap_or_default();
                    self.finish(task, key, TaskKind::Shape, raw, &input, scope)
                }
                StepStatus::Failed => {
                    let mut failure = known.error.clone().unwrap_or_else(|| {
                        Failure::new(error_type::RUNTIME, 500, "The step failed", "nothing more is known")
                    });
                    failure.key = Some(key.clone());
                    failure.instance = failure.instance.or_else(|| Some(task.pointer.to_string()));
                    Walked::Failed(Fault { failure: Box::new(failure), is_recorded: true })
                }
                // Who gave it up has gone on without it, and does not come here again.
                StepStatus::Cancelled
                | StepStatus::Pending
                | StepStatus::Running
                | StepStatus::Backoff
                | StepStatus::Held
                | StepStatus::Unknown => Walked::Busy,
            };
        }
        match self.step_ask(task, &key, step, &input, scope) {
            Ok(ask) => self.ask(Ask::Step(Box::new(ask))),
            Err(detail) => self.expression_fault(task, &key, "The request cannot be computed", detail),
        }
    }

    fn step_ask(
        &self,
        task: &Task,
        key: &Key,
        step: &StepTask,
        input: &Arc<Value>,
        scope: &Scope<'_>,
    ) -> Result<StepAsk, String> {
        let arguments = match &step.arguments {
            None => input.clone(),
            Some(template) => {
                let sight = Sight::of_task(task, key, scope, input);
                Arc::new(joined(input, self.eval(template, input, &sight)?))
            }
        };
        let sight = Sight::of_task(task, key, scope, &arguments);
        let (mut request, mut secrets) = (Map::new(), Secrets::new());
        for (name, part) in &step.parts {
            let value = match part {
                Part::Value(template) => {
                    self.note(template, &arguments, &sight);
                    template.eval_at(
                        &arguments,
                        &|name| self.variable(&sight, name),
                        &format!("/{name}"),
                        &mut secrets,
                    )
                }
                Part::Uri(uri) => {
                    self.note(uri, &arguments, &sight);
                    uri.eval(&arguments, &|name| self.variable(&sight, name))
                }
                Part::Input => Ok((*arguments).clone()),
            };
            let value = value.map_err(|wrong| self.told(wrong, &sight))?;
            request.insert((*name).to_owned(), value);
        }
        Ok(StepAsk {
            lists: step.lists,
            recovery: step.recovery,
            timeout_ms: step.attempt_ms(match &step.computed_limit {
                Some(limit) => {
                    let sight = Sight::of_task(task, key, scope, input);
                    Some(self.delay_ms(&Delay::Computed(limit.clone()), input, &sight)?)
                }
                None => None,
            }),
            retry: step.retry.clone(),
            secrets,
            instance: Some(task.pointer.clone()),
            finishes: !task.shapes_output(),
            undo: step.undo.as_ref().map(|undo| self.undo_ask(task, key, undo, input, scope)).transpose()?,
            given: step.reconcile.as_ref().map(|_| input.clone()),
            ..StepAsk::new(key.clone(), step.kind, step.effect, Value::Object(request))
        })
    }
}

/// The input of a task that has begun, shaped.
fn seen_input(task: &Task, entry: Option<&Entry>, data: &Arc<Value>) -> Arc<Value> {
    let is_scope = matches!(task.body, Body::Do(_) | Body::For(_) | Body::Fork(_) | Body::Try(_));
    match (entry, &task.body) {
        (Some(entry), Body::For(_)) => Arc::new(recorded_input(entry)["input"].clone()),
        (Some(entry), _) if is_scope || task.input.is_some() => recorded_input(entry),
        (Some(_) | None, _) => data.clone(),
    }
}

/// The input of a function: the task's, with the arguments put over it.
fn joined(input: &Value, arguments: Value) -> Value {
    match (input, arguments) {
        (Value::Object(input), Value::Object(arguments)) => {
            let mut joined = input.clone();
            joined.extend(arguments);
            Value::Object(joined)
        }
        (_, arguments) => arguments,
    }
}
