//! One run of Rust code under way: the future, what it shares with its context, and what it has asked for.
//!
//! A workflow's code has one for its flow, and one for each function beside the flow that is under way:
//! what takes a step back, and what finds out whether one happened. Each sees the keys of its own place.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use foldback_core::step::error_type;
use foldback_core::{
    Ask, Divergence, Entry, EntryBody, Failure, Hash, Key, Step, StepStatus, Turn, Version, WorkflowState,
};
use serde_json::Value;

use super::Ended;

/// A program's future, polled on the loop's thread.
pub(super) type Polled = Pin<Box<dyn Future<Output = Ended>>>;

/// What a context and its run share.
#[derive(Default)]
pub(super) struct Shared {
    /// What the log knows and the code has not met yet.
    pub known: HashMap<Key, Known>,
    /// What was asked for in this poll.
    pub asks: Vec<Ask>,
    /// Steps and timers that are waited for, with the hash of the request.
    pub awaited: BTreeMap<Key, Option<Hash>>,
    /// Signals that are waited for, by the key of the wait.
    pub listening: BTreeMap<Key, Arc<str>>,
    /// Those that were added in this poll.
    pub new: Vec<Key>,
    /// Where the code and the log parted.
    pub diverged: Option<Divergence>,
    /// The one key that this poll has news of; `None` when it may be any. So a branch among
    /// thousands is polled alone.
    pub news: Option<Key>,
}

/// What the log knows of a key that the code may ask for again.
pub(super) enum Known {
    /// With the hash of the request that the code asked for, for a step.
    Ended(Ended, Option<Hash>),
    Decided(String),
    Started,
}

fn known(key: &Key, entry: &Entry) -> Option<Known> {
    match &entry.body {
        EntryBody::Started { .. } => Some(Known::Started),
        EntryBody::Decided { chosen } => Some(Known::Decided(chosen.to_string())),
        EntryBody::Finished { output, .. } => Some(Known::Ended(Ok((*output.get()).clone()), None)),
        EntryBody::Timer { fired, .. } => fired.then_some(Known::Ended(Ok(Value::Null), None)),
        EntryBody::Listening { heard, .. } => {
            let first = heard.as_ref()?.first()?;
            let answer = match &first.error {
                Some(error) => Err(error.clone().at(key)),
                None => Ok((*first.data.get()).clone()),
            };
            Some(Known::Ended(answer, None))
        }
        EntryBody::Step(step) => {
            Some(Known::Ended(ended(step)?, Some(step.program_hash.unwrap_or(step.request_hash))))
        }
    }
}

/// How a step ended, if it did.
fn ended(step: &Step) -> Option<Ended> {
    match step.status {
        StepStatus::Completed => Some(Ok((*step.output.as_ref()?.get()).clone())),
        StepStatus::Failed => Some(Err(step.error.clone().unwrap_or_default())),
        StepStatus::Cancelled => {
            // Code has no way to give a step up yet; a log that says so is another program's.
            let title = "The step was cancelled";
            Some(Err(Failure::new(error_type::TIMEOUT, 408, title, "it was given up before it ended")))
        }
        StepStatus::Pending
        | StepStatus::Running
        | StepStatus::Backoff
        | StepStatus::Held
        | StepStatus::Unknown => None,
    }
}

/// One run of code under way.
pub(super) struct Track {
    /// Where its keys stand: inside this one, or the flow.
    place: Option<Key>,
    /// Makes the future, at the first turn.
    begin: Option<Box<dyn FnOnce() -> Polled>>,
    future: Option<Polled>,
    shared: Rc<RefCell<Shared>>,
    end: Option<Ended>,
}

impl Track {
    /// A run that has not begun; `begin` makes its future.
    pub fn new(
        place: Option<Key>,
        begin: impl FnOnce(&Rc<RefCell<Shared>>) -> Box<dyn FnOnce() -> Polled>,
    ) -> Track {
        let shared = Rc::new(RefCell::new(Shared::default()));
        let begin = Some(begin(&shared));
        Track { place, begin, future: None, shared, end: None }
    }

    fn is_here(&self, key: &Key) -> bool {
        match &self.place {
            None => !key.is_aside(),
            Some(place) => key.is_inside(place),
        }
    }

    /// What the code wants next.
    pub fn turn(&mut self, state: &WorkflowState) -> Turn {
        let is_first = self.begin.is_some();
        if let Some(begin) = self.begin.take() {
            // What is known when it begins, and not when it was made: facts may lie between the two.
            let entries = state.entries.iter().filter(|(key, _)| self.is_here(key));
            let known = entries.filter_map(|(key, entry)| Some((key.clone(), known(key, entry)?))).collect();
            self.shared.borrow_mut().known = known;
            self.future = Some(begin());
        }
        // What was found out about a step is news of that step.
        let found = state.stirred.as_ref().filter(|_| self.place.is_none()).and_then(Key::reconciled);
        let stirred = found.or_else(|| state.stirred.clone());
        let mut has_news = is_first || self.shared.borrow_mut().hear_of(stirred.as_ref(), state);
        if stirred.is_none() {
            has_news |= self.shared.borrow_mut().catch_up(state);
        }
        // An answer is no news of the step that reported, and may be another branch's.
        let has_answers = self.shared.borrow_mut().hear_answers(state);
        self.shared.borrow_mut().news = if is_first || has_answers { None } else { stirred };
        has_news |= has_answers;
        while has_news && let Some(future) = &mut self.future {
            if let Poll::Ready(ended) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                (self.future, self.end) = (None, Some(ended));
            }
            // What the code waits for since this poll may be known already.
            let shared = &mut *self.shared.borrow_mut();
            has_news = shared.hear_of_new(state);
            shared.news = None;
        }
        let shared = &mut *self.shared.borrow_mut();
        if let Some(divergence) = shared.diverged.take() {
            return Turn::Diverged(divergence);
        }
        shared.leave_out_asked(state);
        // What the log owes and the code does not wait for, the code no longer asks for. A run that
        // is kept asked for all of it itself.
        let is_forgotten = |key: &&Key| self.is_here(key) && !shared.awaited.contains_key(*key);
        if is_first && let Some(key) = state.open.iter().find(is_forgotten) {
            let (recorded, asked) = ("a step or a timer".to_owned(), "nothing of this name".to_owned());
            return Turn::Diverged(Divergence { key: key.clone(), recorded, asked });
        }
        if !shared.asks.is_empty() {
            return Turn::Asks(std::mem::take(&mut shared.asks));
        }
        if let Some(ask) = shared.takes(state) {
            return Turn::Asks(vec![ask]);
        }
        match &self.end {
            Some(ended) => Turn::Ends(ended.clone()),
            None if !state.open.iter().any(|key| self.is_here(key)) => Turn::Diverged(Divergence {
                key: Key::root(),
                recorded: "nothing to wait for".into(),
                asked: "code that waits for something other than its context".into(),
            }),
            None => Turn::Waits,
        }
    }
}

impl Shared {
    /// A run started afresh asks again for what is under way; the log has that already.
    fn leave_out_asked(&mut self, state: &WorkflowState) {
        self.asks.retain(|ask| match ask {
            Ask::Step(step) => !state.entries.contains_key(&step.key),
            Ask::Timer { key, .. } | Ask::Listen { key, .. } => !state.entries.contains_key(key),
            _ => true,
        });
    }

    /// Takes over what the state knows of a key that is waited for. True if that is news.
    fn hear_of(&mut self, key: Option<&Key>, state: &WorkflowState) -> bool {
        let Some((key, hash)) = key.and_then(|key| self.awaited.get_key_value(key)) else { return false };
        let (key, hash) = (key.clone(), *hash);
        let Some(entry) = state.entries.get(&key) else { return false };
        match (&entry.body, hash) {
            (EntryBody::Step(step), Some(hash)) if step.answers(&hash) => {}
            (EntryBody::Timer { .. } | EntryBody::Listening { .. }, None) => {}
            (other, _) => self.diverge(&key, recorded(other)),
        }
        let Some(known @ Known::Ended(..)) = known(&key, entry) else { return false };
        self.awaited.remove(&key);
        self.listening.remove(&key);
        self.known.insert(key, known);
        true
    }

    /// The same for several: all of them are heard.
    fn hear_of_each(&mut self, keys: Vec<Key>, state: &WorkflowState) -> bool {
        let mut has_news = false;
        for key in keys {
            has_news |= self.hear_of(Some(&key), state);
        }
        has_news
    }

    /// The same for all that is waited for since the last poll.
    fn hear_of_new(&mut self, state: &WorkflowState) -> bool {
        let keys = std::mem::take(&mut self.new);
        self.hear_of_each(keys, state)
    }

    /// The same for all that is waited for: what came out in a pause was not told when it did.
    fn catch_up(&mut self, state: &WorkflowState) -> bool {
        let keys: Vec<Key> = self.awaited.keys().cloned().collect();
        self.hear_of_each(keys, state)
    }

    /// The same for signals: what was taken is the program's own word, and stirs nothing.
    fn hear_answers(&mut self, state: &WorkflowState) -> bool {
        let keys: Vec<Key> = self.listening.keys().cloned().collect();
        self.hear_of_each(keys, state)
    }

    /// The oldest signal that something here waits for is taken.
    fn takes(&self, state: &WorkflowState) -> Option<Ask> {
        self.listening.iter().find_map(|(key, name)| {
            let is_open = matches!(
                state.entries.get(key).map(|entry| &entry.body),
                Some(EntryBody::Listening { heard: None, .. })
            );
            let of_name = |(version, signal): (&Version, &foldback_core::listen::Signal)| {
                (signal.name == *name && signal.data.value().is_some()).then_some(*version)
            };
            let signal = state.signals.iter().find_map(of_name).filter(|_| is_open)?;
            Some(Ask::Take { key: key.clone(), signals: vec![signal] })
        })
    }

    pub fn diverge(&mut self, key: &Key, recorded: String) {
        let asked = "another request, or another kind of work".to_owned();
        self.diverged.get_or_insert(Divergence { key: key.clone(), recorded, asked });
    }
}

fn recorded(body: &EntryBody) -> String {
    match body {
        EntryBody::Step(step) => format!("{} request {:?}", step.kind, step.request_hash),
        EntryBody::Timer { .. } => "a timer".into(),
        EntryBody::Listening { .. } => "a wait for a signal".into(),
        EntryBody::Started { .. } => "a scope".into(),
        EntryBody::Decided { .. } => "a decision".into(),
        EntryBody::Finished { .. } => "a task that finished".into(),
    }
}
