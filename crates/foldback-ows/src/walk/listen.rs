//! `listen`: a wait for signals. Those that are there already are looked at first, the oldest before the
//! others; each is taken once.
//!
//! A signal of a name that is waited for, and that meets the filter, but whose data misses the schema is
//! refused, and the wait goes on. One that does not meet the filter is left for whoever else listens.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldback_core::listen::Signal;
use foldback_core::{Ask, EntryBody, Key, TaskKind, Version};
use serde_json::{Map, Value, json};

use super::scribe::Sight;
use super::{Fault, Scope, Walked, Walker};
use crate::program::{EventFilter, Join, ListenTask, Task, Wanted};

/// What was found of each correlation by name.
type Found = BTreeMap<String, Value>;

impl Walker<'_> {
    pub(super) fn listen(
        &mut self,
        task: &Task,
        key: Key,
        listen: &ListenTask,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let sight = Sight::of_task(task, &key, scope, &input);
        match self.body(&key) {
            Some(EntryBody::Listening { heard: Some(heard), .. }) => {
                if let Some(failure) = self.body(&key).and_then(EntryBody::failed_answer) {
                    let mut failure = failure.clone().at(&key);
                    failure.instance = Some(task.pointer.to_string());
                    return Walked::Failed(Fault { failure: Box::new(failure), is_recorded: true });
                }
                let read = |signal: &Signal| match (listen.reads_envelope, envelope(signal)) {
                    (true, event) => event,
                    (false, mut event) => event["data"].take(),
                };
                let output = Value::Array(heard.iter().map(read).collect());
                self.finish(task, key, TaskKind::Shape, Arc::new(output), &input, scope)
            }
            Some(EntryBody::Listening { heard: None, .. }) => {
                match self.heard(&key, listen, &input, &sight) {
                    Ok(Some(ask)) => self.ask(ask),
                    Ok(None) => Walked::Busy,
                    Err(detail) => self.expression_fault(
                        task,
                        &key,
                        "The filter of `listen` cannot be evaluated",
                        detail,
                    ),
                }
            }
            _ => match self.wants(listen, &input, &sight) {
                Ok(wants) => {
                    let mut names: Vec<Arc<str>> = listen.filters.iter().map(|f| f.name.clone()).collect();
                    names.sort();
                    names.dedup();
                    self.ask(Ask::Listen { key, names, wants })
                }
                Err(detail) => {
                    self.expression_fault(task, &key, "What `listen` expects cannot be evaluated", detail)
                }
            },
        }
    }

    /// Its time ran out: it gives its default.
    pub(super) fn unanswered(
        &mut self,
        task: &Task,
        key: Key,
        listen: &ListenTask,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let sight = Sight::of_task(task, &key, scope, &input);
        let default = listen.default.as_ref().map(|default| self.eval(default, &input, &sight));
        match default.unwrap_or(Ok(Value::Null)) {
            Ok(default) => {
                let output = Arc::new(json!([default]));
                self.finish(task, key, TaskKind::Shape, output, &input, scope)
            }
            Err(detail) => self.expression_fault(task, &key, "The `default` cannot be evaluated", detail),
        }
    }

    /// What is waited for, for people.
    fn wants(&self, listen: &ListenTask, input: &Value, sight: &Sight<'_>) -> Result<Value, String> {
        let join = match listen.join {
            Join::One => "one",
            Join::Any => "any",
            Join::All => "all",
        };
        let mut events = Vec::new();
        for filter in &listen.filters {
            let mut expected = Map::new();
            for correlation in &filter.correlate {
                if let Some(expect) = &correlation.expect {
                    expected.insert(correlation.name.clone(), self.eval(expect, input, sight)?);
                }
            }
            events.push(json!({"type": &*filter.name, "expect": expected}));
        }
        let mut wants = json!({"join": join, "events": events});
        if let Some(schema) = &listen.schema_text {
            wants["schema"] = schema.clone();
        }
        Ok(wants)
    }

    /// What follows from the signals that are there; `None` where the wait goes on.
    fn heard(
        &mut self,
        key: &Key,
        listen: &ListenTask,
        input: &Value,
        sight: &Sight<'_>,
    ) -> Result<Option<Ask>, String> {
        // A failure has no data that a filter could look at: its name is enough, whatever else is waited for.
        let is_named = |name: &Arc<str>| listen.filters.iter().any(|filter| filter.name == *name);
        let failed = self.state.signals.iter().find(|(version, signal)| {
            signal.error.is_some() && is_named(&signal.name) && !self.is_spoken_for(**version)
        });
        if let Some((version, _)) = failed {
            return Ok(Some(Ask::Take { key: key.clone(), signals: vec![*version] }));
        }
        let mut fitting: Vec<Vec<(Version, Found)>> = Vec::new();
        for filter in &listen.filters {
            let mut found = Vec::new();
            let of_name = self.state.signals.iter().filter(|(_, signal)| signal.name == filter.name);
            for (version, signal) in of_name.filter(|(version, _)| !self.is_spoken_for(**version)) {
                if signal.data.value().is_none() {
                    // It is kept beside the log, and brought before the next turn.
                    return Ok(None);
                }
                let event = envelope(signal);
                let Some(values) = self.fits(filter, &event, input, sight)? else { continue };
                let miss = listen.schema.as_ref();
                let is_hidden = self.definition.is_erasable(key);
                if let Some(failure) =
                    miss.and_then(|schema| schema.failure("The data", &event["data"], is_hidden))
                {
                    let reason = failure.detail.map_or(failure.title, String::from);
                    return Ok(Some(Ask::Refuse { key: key.clone(), signal: *version, reason }));
                }
                found.push((*version, values));
            }
            fitting.push(found);
        }
        let taken = match listen.join {
            Join::One | Join::Any => {
                fitting.iter().flatten().map(|(version, _)| *version).min().map(|version| vec![version])
            }
            Join::All => Choice::default().of(&fitting, &Found::new()),
        };
        if taken.is_none() {
            self.kept.extend(fitting.iter().flatten().map(|(version, _)| *version));
        }
        Ok(taken.map(|signals| Ask::Take { key: key.clone(), signals }))
    }

    /// Whether another strand takes or refuses a signal in this turn.
    fn is_spoken_for(&self, version: Version) -> bool {
        self.asks.iter().any(|ask| match ask {
            Ask::Take { signals, .. } => signals.contains(&version),
            Ask::Refuse { signal, .. } => *signal == version,
            _ => false,
        })
    }

    /// Whether an event is what a filter means: what its correlations found, where nothing is expected.
    fn fits(
        &self,
        filter: &EventFilter,
        event: &Value,
        input: &Value,
        sight: &Sight<'_>,
    ) -> Result<Option<Found>, String> {
        for (attribute, wanted) in &filter.with {
            let fits = match wanted {
                Wanted::Is(value) => event[attribute] == *value,
                Wanted::Holds(filter) => self.holds(filter, &event[attribute], sight).unwrap_or(false),
            };
            if !fits {
                return Ok(None);
            }
        }
        let mut found = Found::new();
        for correlation in &filter.correlate {
            // What cannot be taken from an event is not there.
            let from = correlation.from.eval(event, &|name| self.variable(sight, name));
            let Ok(value) = from else { return Ok(None) };
            match &correlation.expect {
                Some(expect) if self.eval(expect, input, sight)? != value => return Ok(None),
                Some(_) => {}
                None => drop(found.insert(correlation.name.clone(), value)),
            }
        }
        Ok(Some(found))
    }
}

/// Combinations of signals that are tried at most: the same everywhere, counted.
const TRIED_MAX: usize = 100_000;

/// A choice of one signal for each filter.
#[derive(Default)]
struct Choice {
    taken: Vec<Version>,
    tried: usize,
}

impl Choice {
    /// One signal for each filter, none twice, of which those correlations agree that expect nothing.
    fn of(&mut self, fitting: &[Vec<(Version, Found)>], known: &Found) -> Option<Vec<Version>> {
        let Some((first, rest)) = fitting.split_first() else { return Some(self.taken.clone()) };
        for (version, found) in first {
            self.tried += 1;
            let agrees = found.iter().all(|(name, value)| known.get(name).is_none_or(|known| known == value));
            if self.taken.contains(version) || !agrees || self.tried > TRIED_MAX {
                continue;
            }
            let mut known = known.clone();
            known.extend(found.clone());
            self.taken.push(*version);
            if let Some(all) = self.of(rest, &known) {
                return Some(all);
            }
            self.taken.pop();
        }
        None
    }
}

/// The signal as an event: what a workflow emitted is one already.
fn envelope(signal: &Signal) -> Value {
    let data = signal.data.get();
    match &signal.source {
        Some(_) if data.get("specversion").is_some() => (*data).clone(),
        _ => json!({"specversion": "1.0", "type": &*signal.name, "source": "foldback:signal", "data": *data}),
    }
}
