//! The view of a task from inside: its input, and the values at which its expressions look. A walk notes
//! it in passing, for people; no ask and no end of a turn depends on it.

use std::cell::RefCell;
use std::sync::Arc;

use foldback_core::{Key, Seen, WorkflowState};
use serde_json::{Map, Value};

use super::scribe::{Sight, shortened};
use super::{Scope, Walked, Walker, WalkingRun};
use crate::jq::{Filter, Lookup};
use crate::program::{Body, Task};
use crate::template::{Template, Uri, UriPart};

/// Paths whose values are noted of one task.
const VALUES_MAX: usize = 100;

/// The task that is watched, and what was noted of it.
pub(super) struct Watch {
    key: Key,
    seen: RefCell<Option<Seen>>,
}

impl WalkingRun {
    /// See [`foldback_core::Run::sees`].
    pub(super) fn watch(&mut self, state: &WorkflowState, key: &Key) -> Option<Seen> {
        let watch = Watch { key: key.unmarked(), seen: RefCell::new(None) };
        let definition = self.definition.clone();
        let mut walker = Walker { watch: Some(&watch), ..Walker::new(&definition, state) };
        if let Some(undo) = state.undos_under_way().find(|undo| key.is_inside(&undo.key.undo())) {
            walker.undo(undo, definition.undo_of(&undo.key, &undo.handler)?);
        } else if let Some(looked_for) = key.reconciled() {
            let (task, step) = (definition.task_at(&looked_for)?, state.step(&looked_for)?);
            let Body::Step(body) = &task.body else { return None };
            walker.reconcile(&looked_for, step, body.reconcile.as_ref()?);
        } else if let Walked::Done(data) | Walked::End(data) = walker.workflow() {
            let _shown = walker.output(&data);
        }
        watch.seen.into_inner()
    }
}

impl Walker<'_> {
    /// Notes a task that the walk has come to, where it is the one that is watched.
    pub(super) fn note_task(&self, task: &Task, key: &Key, input: &Arc<Value>, scope: &Scope<'_>) {
        let Some(watch) = self.watch.filter(|watch| watch.key == *key) else { return };
        let from = self.state.cursors.get(&scope.key).and_then(|cursor| cursor.gave.clone());
        *watch.seen.borrow_mut() = Some(Seen {
            kind: Arc::from(task.body.word()),
            input: input.clone(),
            from,
            instance: Some(task.pointer.clone()),
            ..Seen::default()
        });
    }

    /// Notes the input of the watched task once it is shaped.
    pub(super) fn note_input(&self, key: &Key, input: &Arc<Value>) {
        if let Some(watch) = self.watch.filter(|watch| watch.key == *key)
            && let Some(seen) = &mut *watch.seen.borrow_mut()
        {
            seen.input = input.clone();
        }
    }

    /// Notes the values at which an expression of the watched task looks.
    pub(super) fn note(&self, looks: &dyn Looks, dot: &Value, sight: &Sight<'_>) {
        let Some(watch) = self.watch else { return };
        let is_watched = sight.task.map_or(watch.key.is_root(), |(_, key)| *key == watch.key);
        if !is_watched {
            return;
        }
        let mut seen = watch.seen.borrow_mut();
        let seen = seen.get_or_insert_with(|| Seen {
            kind: Arc::from("workflow"),
            input: sight.input.clone(),
            ..Seen::default()
        });
        looks.note(dot, &|name| self.variable(sight, name), seen);
    }
}

/// Something in which expressions stand.
pub(super) trait Looks {
    /// Adds the values at which they look.
    fn note(&self, dot: &Value, lookup: Lookup<'_>, seen: &mut Seen);
}

impl Looks for Filter {
    fn note(&self, dot: &Value, lookup: Lookup<'_>, seen: &mut Seen) {
        for (path, value) in self.looks(dot, lookup) {
            add(&mut seen.values, path, value);
        }
        for path in self.fallbacks(dot, lookup) {
            if !seen.fallbacks.contains(&path) {
                seen.fallbacks.push(path);
            }
        }
    }
}

impl Looks for Template {
    fn note(&self, dot: &Value, lookup: Lookup<'_>, seen: &mut Seen) {
        match self {
            Template::Constant(_) | Template::Secret(_) => {}
            Template::Expression(filter) => filter.note(dot, lookup, seen),
            Template::Object(members) => members.iter().for_each(|(_, inner)| inner.note(dot, lookup, seen)),
            Template::List(items) => items.iter().for_each(|inner| inner.note(dot, lookup, seen)),
        }
    }
}

impl Looks for Uri {
    fn note(&self, dot: &Value, lookup: Lookup<'_>, seen: &mut Seen) {
        match self {
            Uri::Whole(template) => template.note(dot, lookup, seen),
            Uri::Parts(parts) => {
                for part in parts {
                    if let UriPart::Name(name) = part {
                        add(&mut seen.values, format!(".{name}"), dot.get(name).cloned().unwrap_or_default());
                    }
                }
            }
        }
    }
}

/// The later value of a path wins: the expression that failed is the last one.
fn add(values: &mut Map<String, Value>, path: String, value: Value) {
    // All of the input stands beside them already.
    if path != "." && (values.len() < VALUES_MAX || values.contains_key(&path)) {
        values.insert(path, shortened(value));
    }
}
