//! `try`: a block, its errors, its retries and its handler.
//!
//! The error of a try is a fact before it is judged, so that what follows (a handler that changes
//! `$context`, say) cannot change which error it was.

use std::sync::Arc;

use foldback_core::step::{chance, error_type};
use foldback_core::{Ask, EntryBody, Failure, Key, TaskKind, limits};
use serde_json::{Map, Value, json};

use super::scribe::Sight;
use super::{Fault, Scope, Walked, Walker, recorded_input};
use crate::program::{Backoff, RetryTask, Task, TryTask};

/// The kind under which a block ends when its error was caught and `catch.then` leads elsewhere:
/// a list of tasks ended, the handler's. It tells this end from that of the block itself.
pub(super) const BY_HANDLER: TaskKind = TaskKind::Do;

pub(super) const CAUGHT: &str = "caught";
const UNCAUGHT: &str = "uncaught";
pub(super) const RETRY: &str = "retry";

impl<'a> Walker<'a> {
    pub(super) fn try_block(
        &mut self,
        task: &Task,
        key: Key,
        block: &TryTask,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let number = self.newest_try(&key);
        let try_key = if number < 2 { key.clone() } else { key.mark(number) };
        match self.body(&try_key) {
            Some(EntryBody::Timer { fired: false, .. }) => return Walked::Busy,
            Some(EntryBody::Timer { fired: true, .. }) => {
                return self.ask(Ask::Start { key: try_key, kind: TaskKind::Try, input });
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
        let catch = try_key.mark("catch");
        let Some(entry) = self.entry(&catch) else {
            let inner = Scope {
                key: try_key,
                list: &block.body,
                input: input.clone(),
                around: Some(scope),
                variables: Vec::new(),
            };
            return match self.list(&inner) {
                Walked::Done(output) => self.finish(task, key, TaskKind::Try, output, &input, scope),
                Walked::Failed(fault) => {
                    let failure = Arc::new(serde_json::to_value(fault.failure.plain()).unwrap_or_default());
                    self.ask(Ask::Start { key: catch, kind: TaskKind::Shape, input: failure })
                }
                other => other,
            };
        };
        let failure: Failure = serde_json::from_value((*recorded_input(entry)).clone()).unwrap_or_default();
        match self.chosen(&catch) {
            None => self.judge(task, &key, catch, block, &failure, number, &input, scope),
            Some(RETRY) => self.try_again(task, &key, block, number, &failure, input, scope),
            Some(CAUGHT) => self.handle(task, key, catch, block, &failure, input, scope),
            Some(_) => Walked::Failed(Fault { failure: Box::new(failure), is_recorded: true }),
        }
    }

    /// The number of the try that began last, from 1. Earlier ones are superseded.
    fn newest_try(&self, key: &Key) -> u64 {
        let prefix = format!("{key}!");
        let inside = self
            .state
            .entries
            .range::<str, _>((std::ops::Bound::Included(prefix.as_str()), std::ops::Bound::Unbounded));
        inside
            .map_while(|(known, _)| known.as_str().strip_prefix(&prefix))
            .filter_map(|mark| {
                let digits = mark.find(|c: char| !c.is_ascii_digit()).unwrap_or(mark.len());
                mark[..digits].parse().ok()
            })
            .max()
            .unwrap_or(1)
    }

    #[allow(clippy::too_many_arguments)] // what a try is made of; a struct of them would say no more
    fn judge(
        &mut self,
        task: &Task,
        key: &Key,
        catch: Key,
        block: &TryTask,
        failure: &Failure,
        number: u64,
        input: &Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let error = error_value(failure);
        let variables = [(block.as_.as_str(), Arc::new(error.clone()))];
        let sight = Sight { variables: &variables, ..Sight::of_task(task, key, scope, input) };
        let mut because = Map::new();
        because.insert("error".into(), error);
        let chosen = match self.verdict(block, failure, number, input, &sight, &mut because) {
            Ok(chosen) => chosen,
            // A condition that cannot be evaluated catches nothing; why is part of the decision.
            Err(detail) => {
                because.insert("problem".into(), Value::from(detail));
                UNCAUGHT
            }
        };
        let mut options = vec![CAUGHT.to_owned(), UNCAUGHT.to_owned()];
        if block.retry.is_some() {
            options.push(RETRY.to_owned());
        }
        self.ask(Ask::Decide {
            key: catch,
            chosen: chosen.to_owned(),
            options,
            because: Value::Object(because),
            finishes: false,
        })
    }

    fn verdict(
        &self,
        block: &TryTask,
        failure: &Failure,
        number: u64,
        input: &Arc<Value>,
        sight: &Sight<'_>,
        because: &mut Map<String, Value>,
    ) -> Result<&'static str, String> {
        let error = error_value(failure);
        for (name, template) in &block.filter {
            let wanted = self.eval(template, input, sight)?;
            let is_equal = match (*name, &wanted) {
                ("type", Value::String(wanted)) => {
                    standard_type(wanted) == standard_type(&failure.error_type)
                }
                // 404 and 404.0 are one number to jq, and two to serde_json.
                _ if wanted.is_number() => error[*name].as_f64() == wanted.as_f64(),
                _ => error[*name] == wanted,
            };
            if !is_equal {
                because.insert("differs".into(), json!({*name: wanted}));
                return Ok(UNCAUGHT);
            }
        }
        let mut conditions =
            |conditions: [(&str, &Option<crate::jq::Filter>, bool); 2]| -> Result<bool, String> {
                for (name, filter, wanted) in conditions {
                    let Some(filter) = filter else { continue };
                    let holds = self.holds(filter, input, sight)?;
                    let looked = self.reasons(("result", holds), filter, input, sight);
                    because.insert(name.to_owned(), Value::Object(looked));
                    if holds != wanted {
                        return Ok(false);
                    }
                }
                Ok(true)
            };
        if !conditions([("when", &block.when, true), ("exceptWhen", &block.except_when, false)])? {
            return Ok(UNCAUGHT);
        }
        let Some(retry) = &block.retry else {
            return Ok(CAUGHT);
        };
        let may_retry =
            conditions([("retry.when", &retry.when, true), ("retry.exceptWhen", &retry.except_when, false)])?;
        because.insert("try".into(), Value::from(number));
        match (may_retry && retry.count.is_none_or(|count| number <= count), &block.handler) {
            (true, _) => Ok(RETRY),
            (false, Some(_)) => Ok(CAUGHT),
            (false, None) => Ok(UNCAUGHT),
        }
    }

    #[allow(clippy::too_many_arguments)] // as above
    fn try_again(
        &mut self,
        task: &Task,
        key: &Key,
        block: &TryTask,
        number: u64,
        failure: &Failure,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let next = key.mark(number + 1);
        let delay_ms = match &block.retry {
            None => 0,
            Some(retry) => {
                let variables = [(block.as_.as_str(), Arc::new(error_value(failure)))];
                let sight = Sight { variables: &variables, ..Sight::of_task(task, key, scope, &input) };
                match self.retry_delay_ms(retry, number, &next, &input, &sight) {
                    Ok(delay_ms) => delay_ms,
                    Err(detail) => {
                        return self.expression_fault(
                            task,
                            key,
                            "The delay of the retry cannot be computed",
                            detail,
                        );
                    }
                }
            }
        };
        match delay_ms {
            0 => self.ask(Ask::Start { key: next, kind: TaskKind::Try, input }),
            delay_ms => self.ask(Ask::Timer { key: next, delay_ms, finishes: false, limits: false }),
        }
    }

    fn retry_delay_ms(
        &self,
        retry: &RetryTask,
        number: u64,
        next: &Key,
        input: &Value,
        sight: &Sight<'_>,
    ) -> Result<u64, String> {
        let base = match &retry.delay {
            Some(delay) => self.delay_ms(delay, input, sight)?,
            None => 0,
        };
        let grown = match retry.backoff {
            Backoff::Constant => base,
            Backoff::Linear => base.saturating_mul(number),
            Backoff::Exponential => base.saturating_mul(1u64 << number.saturating_sub(1).min(40)),
        };
        let jitter = match retry.jitter {
            Some((from, to)) => {
                let attempt = u32::try_from(number).unwrap_or(u32::MAX);
                from + chance(&self.state.workflow_id, next, attempt) % (to - from + 1)
            }
            None => 0,
        };
        Ok(grown.saturating_add(jitter).min(limits::RETRY_DELAY_MAX_MS))
    }

    #[allow(clippy::too_many_arguments)] // as above
    fn handle(
        &mut self,
        task: &Task,
        key: Key,
        catch: Key,
        block: &TryTask,
        failure: &Failure,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        if block.compensates
            && let Some(walked) = self.taken_back(&key, &format!("{} {}", failure.status, failure.title))
        {
            return walked;
        }
        let kind = if block.then.is_some() { BY_HANDLER } else { TaskKind::Try };
        let Some(handler) = &block.handler else {
            return self.finish(task, key, kind, input.clone(), &input, scope);
        };
        let variables = vec![(block.as_.as_str(), Arc::new(error_value(failure)))];
        let inner = Scope { key: catch, list: handler, input: input.clone(), around: Some(scope), variables };
        match self.list(&inner) {
            Walked::Done(output) => self.finish(task, key, kind, output, &input, scope),
            other => other,
        }
    }
}

/// An error as expressions see it.
fn error_value(failure: &Failure) -> Value {
    let mut error = serde_json::to_value(failure.plain()).unwrap_or_default();
    if let Value::Object(map) = &mut error {
        map.shift_remove("key");
    }
    error
}

/// A standard type under the name it has today: it moved twice, and definitions name all three, or give its
/// short name (`timeout`), the last segment of its URI.
fn standard_type(text: &str) -> String {
    const PREFIXES: [&str; 5] = [
        error_type::PREFIX,
        "https://open-workflow-specification.org/spec/1.0.0/errors/",
        "https://serverlessworkflow.io/spec/1.0.0/errors/",
        "https://serverlessworkflow.io/dsl/errors/types/",
        "https://serverlessworkflow.io/errors/types/",
    ];
    let name = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let full = format!("{}{name}", error_type::PREFIX);
    if error_type::ALL.contains(&full.as_str()) { full } else { text.to_owned() }
}
