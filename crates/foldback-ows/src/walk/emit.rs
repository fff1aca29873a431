//! `emit`: an event is recorded under its own type; the task's output is made of it.
//!
//! The event is computed once. What its defaults are made of (the workflow, the key, the time of
//! the last fact) is in the state, so it needs no clock and no dice.

use std::sync::Arc;

use foldback_core::event::ENGINE_TYPES;
use foldback_core::report::iso;
use foldback_core::step::error_type;
use foldback_core::{Ask, Failure, Hash, Key, TaskKind};
use serde_json::{Map, Value};

use super::scribe::Sight;
use super::{Scope, Walked, Walker};
use crate::program::Task;
use crate::read::EVENT_TEXTS;
use crate::template::Template;

impl Walker<'_> {
    pub(super) fn emit(
        &mut self,
        task: &Task,
        key: Key,
        with: &Template,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let place = key.mark("event");
        if let Some(event) = self.output_of(&place) {
            return self.finish(task, key, TaskKind::Shape, event, &input, scope);
        }
        let sight = Sight::of_task(task, &key, scope, &input);
        let given = match self.eval(with, &input, &sight) {
            Ok(given) => given,
            Err(detail) => return self.expression_fault(task, &key, "The event cannot be computed", detail),
        };
        match self.cloud_event(&key, given) {
            Ok((event_type, data)) => self.ask(Ask::Record { key: place, event_type, data }),
            Err(detail) => {
                let title = "The event cannot be recorded";
                self.fault(task, &key, Failure::new(error_type::VALIDATION, 400, title, detail))
            }
        }
    }

    /// The whole event from what was given of it, and its type.
    fn cloud_event(&self, key: &Key, given: Value) -> Result<(Arc<str>, Value), String> {
        let workflow = &*self.state.workflow_id;
        let can_be_undone = self.definition.on_compensate.iter().any(|(known, _)| given["type"] == **known);
        let generation = self.state.generation_of(&key.mark("event")).to_le_bytes();
        let mut parts: Vec<&[u8]> = vec![b"event", workflow.as_bytes(), key.as_str().as_bytes()];
        // Behind having been taken back it is another event.
        if can_be_undone && generation != [0; 4] {
            parts.push(&generation);
        }
        let id = Hash::of_parts(&parts).to_hex();
        let mut event = Map::new();
        for (name, default) in [
            ("id", id[..32].to_owned()),
            ("source", format!("foldback:{workflow}")),
            ("specversion", "1.0".to_owned()),
            ("time", iso(self.state.now)),
        ] {
            event.insert(name.to_owned(), Value::from(default));
        }
        match given {
            Value::Object(given) => event.extend(given.into_iter().filter(|(_, value)| !value.is_null())),
            other => return Err(format!("an event is an object, not {other}")),
        }
        for name in EVENT_TEXTS {
            if let Some(value) = event.get(name).filter(|value| !value.is_string()) {
                return Err(format!("`{name}` is a text, not {value}"));
            }
        }
        match event.get("type").and_then(Value::as_str) {
            None | Some("") => Err("an event has a `type`".into()),
            Some(text) if ENGINE_TYPES.contains(&text) => {
                Err(format!("the type `{text}` is the engine's own; name what happened in your domain"))
            }
            Some(text) => Ok((Arc::from(text), Value::Object(event))),
        }
    }
}
