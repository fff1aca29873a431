//! Programs written in Rust: an `async fn` with a context, replayed by being run again.
//!
//! The future is polled under a waker that does nothing: it waits for facts, not for the world.
//! A turn polls it, hands it what the state knows, and collects what it asks. The context is the
//! only way to wait or to run side by side, so that a replay meets the same asks.
//!
//! Invariant: what was recorded wins. A decision, a computation or a finished branch that the log
//! holds is not made again; a step whose request has changed since is a divergence.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use foldback_connectors::LLM_KIND;
use foldback_core::program::StepAsk;
use foldback_core::step::error_type;
use foldback_core::{
    Ask, Divergence, Effect, Entry, EntryBody, Failure, Hash, Key, Program, Recovery, RetryPolicy, Run, Step,
    StepStatus, TaskKind, Turn, WorkflowState,
};
use serde_json::{Value, json};

/// What a program and its steps end with.
pub type Ended = Result<Value, Failure>;

/// A program made of an `async fn(Ctx, Value) -> Ended`.
pub struct Code<F>(Arc<F>);

impl<F> Code<F> {
    /// The program of a function. The function must not wait for, or look at, anything but its
    /// context and its input.
    pub fn new(function: F) -> Code<F> {
        Code(Arc::new(function))
    }
}

impl<F, Fut> Program for Code<F>
where
    F: Fn(Ctx, Value) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Ended> + 'static,
{
    fn start(&self, state: &WorkflowState) -> Box<dyn Run> {
        let shared = Rc::new(RefCell::new(Shared::default()));
        let known = state.entries.iter().filter_map(|(key, entry)| Some((key.clone(), known(entry)?)));
        shared.borrow_mut().known = known.collect();
        let (function, context) = (self.0.clone(), Ctx::new(Key::root(), &shared));
        let begin = Box::new(move |input| Box::pin(function(context, input)) as Polled);
        Box::new(CodeRun { begin: Some(begin), future: None, shared, end: None })
    }
}

/// What a context and its run share.
#[derive(Default)]
struct Shared {
    /// What the log knows and the code has not met yet.
    known: HashMap<Key, Known>,
    /// What was asked for in this poll.
    asks: Vec<Ask>,
    /// Steps and timers that are waited for, with the hash of the request.
    awaited: BTreeMap<Key, Option<Hash>>,
    /// Those that were added in this poll.
    new: Vec<Key>,
    /// Where the code and the log parted.
    diverged: Option<Divergence>,
    /// The one key that this poll has news of; `None` when it may be any. So a branch among
    /// thousands is polled alone.
    news: Option<Key>,
}

/// What the log knows of a key that the code may ask for again.
enum Known {
    /// With the hash of the request that the code asked for, for a step.
    Ended(Ended, Option<Hash>),
    Decided(String),
    Started,
}

fn known(entry: &Entry) -> Option<Known> {
    match &entry.body {
        EntryBody::Started { .. } => Some(Known::Started),
        EntryBody::Decided { chosen } => Some(Known::Decided(chosen.to_string())),
        EntryBody::Finished { output, .. } => Some(Known::Ended(Ok((*output.get()).clone()), None)),
        EntryBody::Timer { fired, .. } => fired.then_some(Known::Ended(Ok(Value::Null), None)),
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

/// A program's future, polled on the loop's thread.
type Polled = Pin<Box<dyn Future<Output = Ended>>>;

struct CodeRun {
    /// Makes the future of the input, at the first turn.
    begin: Option<Box<dyn FnOnce(Value) -> Polled>>,
    future: Option<Polled>,
    shared: Rc<RefCell<Shared>>,
    end: Option<Ended>,
}

impl Run for CodeRun {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        let is_first = self.begin.is_some();
        if let Some(begin) = self.begin.take() {
            self.future = Some(begin((*state.input.get()).clone()));
        }
        let mut has_news = is_first || self.shared.borrow_mut().hear_of(state.stirred.as_ref(), state);
        self.shared.borrow_mut().news = if is_first { None } else { state.stirred.clone() };
        while has_news && let Some(future) = &mut self.future {
            if let Poll::Ready(ended) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                (self.future, self.end) = (None, Some(ended));
            }
            // What the code waits for since this poll may be known already.
            let shared = &mut *self.shared.borrow_mut();
            has_news = shared.hear_of_new(state);
            shared.news = None;
        }
        if let Some(divergence) = self.shared.borrow_mut().diverged.take() {
            return Turn::Diverged(divergence);
        }
        let shared = &mut *self.shared.borrow_mut();
        // A run started afresh asks again for what is under way; the log has that already.
        shared.asks.retain(|ask| match ask {
            Ask::Step(step) => !state.entries.contains_key(&step.key),
            Ask::Timer { key, .. } => !state.entries.contains_key(key),
            _ => true,
        });
        // What the log owes and the code does not wait for, the code no longer asks for. A run that
        // is kept asked for all of it itself.
        if is_first && let Some(key) = state.open.iter().find(|key| !shared.awaited.contains_key(*key)) {
            let (recorded, asked) = ("a step or a timer".to_owned(), "nothing of this name".to_owned());
            return Turn::Diverged(Divergence { key: key.clone(), recorded, asked });
        }
        if !shared.asks.is_empty() {
            return Turn::Asks(std::mem::take(&mut shared.asks));
        }
        match &self.end {
            Some(ended) => Turn::Ends(ended.clone()),
            None if state.open.is_empty() => Turn::Diverged(Divergence {
                key: Key::root(),
                recorded: "nothing to wait for".into(),
                asked: "code that waits for something other than its context".into(),
            }),
            None => Turn::Waits,
        }
    }
}

impl Shared {
    /// Takes over what the state knows of a key that is waited for. True if that is news.
    fn hear_of(&mut self, key: Option<&Key>, state: &WorkflowState) -> bool {
        let Some((key, hash)) = key.and_then(|key| self.awaited.get_key_value(key)) else { return false };
        let (key, hash) = (key.clone(), *hash);
        let Some(entry) = state.entries.get(&key) else { return false };
        match (&entry.body, hash) {
            (EntryBody::Step(step), Some(hash)) if step.answers(&hash) => {}
            (EntryBody::Timer { .. }, None) => {}
            (other, _) => self.diverge(&key, recorded(other)),
        }
        let Some(known @ Known::Ended(..)) = known(entry) else { return false };
        self.awaited.remove(&key);
        self.known.insert(key, known);
        true
    }

    /// The same for all that is waited for since the last poll.
    fn hear_of_new(&mut self, state: &WorkflowState) -> bool {
        let mut has_news = false;
        for key in std::mem::take(&mut self.new) {
            has_news |= self.hear_of(Some(&key), state);
        }
        has_news
    }

    fn diverge(&mut self, key: &Key, recorded: String) {
        let asked = "another request, or another kind of work".to_owned();
        self.diverged.get_or_insert(Divergence { key: key.clone(), recorded, asked });
    }
}

fn recorded(body: &EntryBody) -> String {
    match body {
        EntryBody::Step(step) => format!("{} request {:?}", step.kind, step.request_hash),
        EntryBody::Timer { .. } => "a timer".into(),
        EntryBody::Started { .. } => "a scope".into(),
        EntryBody::Decided { .. } => "a decision".into(),
        EntryBody::Finished { .. } => "a task that finished".into(),
    }
}

/// A step as code asks for it: a registered kind, and a request that is data.
#[derive(Clone, Debug)]
pub struct Work {
    kind: Arc<str>,
    effect: Effect,
    request: Value,
    recovery: Recovery,
    retry: Option<RetryPolicy>,
    timeout_ms: Option<u64>,
    lists: &'static [&'static str],
}

impl Work {
    /// Work of a kind with an effect and a request (a JSON object).
    pub fn new(kind: &str, effect: Effect, request: Value) -> Work {
        Work {
            kind: Arc::from(kind),
            effect,
            request,
            recovery: Recovery::Operator,
            retry: None,
            timeout_ms: None,
            // What a conversation repeats from turn to turn is stored once.
            lists: if kind == LLM_KIND { &["messages", "attachments"] } else { &[] },
        }
    }

    /// What happens when nobody knows whether it landed.
    pub fn recovery(self, recovery: Recovery) -> Work {
        Work { recovery, ..self }
    }

    /// When it is tried again.
    pub fn retry(self, policy: RetryPolicy) -> Work {
        Work { retry: Some(policy), ..self }
    }

    /// How long one attempt may take, in ms.
    pub fn timeout_ms(self, timeout_ms: u64) -> Work {
        Work { timeout_ms: Some(timeout_ms), ..self }
    }
}

/// Which branch of `scope` a key lies in: 3 for `review[3]/ask` in `review`.
fn branch_of(scope: &Key, key: &Key) -> Option<usize> {
    let digits = key.as_str().strip_prefix(scope.as_str())?.strip_prefix('[')?;
    digits[..digits.find(']')?].parse().ok()
}

/// A name as a key holds it: what keys use for themselves, and `~`, is written `%2F`.
fn escaped(name: &str) -> String {
    let is_plain = |c: char| !foldback_core::key::RESERVED.contains(&c) && !matches!(c, '~' | '%');
    if name.is_empty() {
        return "%".to_owned();
    }
    name.chars().map(|c| if is_plain(c) { c.to_string() } else { format!("%{:02X}", c as u32) }).collect()
}

/// What a program in Rust asks with. A name may be used again: the second `x` in a context is
/// `x~2`. Names may hold any character; what keys use for themselves is escaped.
pub struct Ctx {
    scope: Key,
    shared: Rc<RefCell<Shared>>,
    used: HashMap<String, u64>,
}

impl Ctx {
    fn new(scope: Key, shared: &Rc<RefCell<Shared>>) -> Ctx {
        Ctx { scope, shared: shared.clone(), used: HashMap::new() }
    }

    fn key(&mut self, name: &str) -> Key {
        let used = self.used.entry(name.to_owned()).or_insert(0);
        *used += 1;
        let name = escaped(name);
        self.scope.child(&if *used == 1 { name } else { format!("{name}~{used}") })
    }

    fn known(&self, key: &Key) -> Option<Known> {
        self.shared.borrow_mut().known.remove(key)
    }

    fn ask(&self, ask: Ask) {
        self.shared.borrow_mut().asks.push(ask);
    }

    /// Asks for a step and waits for its output.
    pub fn step(&mut self, name: &str, work: Work) -> impl Future<Output = Ended> + '_ {
        let key = self.key(name);
        let mut ask = StepAsk::new(key.clone(), &work.kind, work.effect, work.request);
        ask.recovery = work.recovery;
        ask.retry = work.retry;
        ask.timeout_ms = work.timeout_ms;
        ask.lists = work.lists;
        let hash = ask.request_hash();
        self.wait_for(key, Some(hash), Ask::Step(Box::new(ask)))
    }

    /// Waits `delay_ms`, durably.
    pub fn sleep(&mut self, name: &str, delay_ms: u64) -> impl Future<Output = Ended> + '_ {
        let key = self.key(name);
        self.wait_for(key.clone(), None, Ask::Timer { key, delay_ms, finishes: true, limits: false })
    }

    fn wait_for(&self, key: Key, hash: Option<Hash>, ask: Ask) -> impl Future<Output = Ended> + use<> {
        let shared = self.shared.clone();
        let mut ask = Some(ask);
        std::future::poll_fn(move |_| {
            let shared = &mut *shared.borrow_mut();
            if let Some(Known::Ended(ended, recorded)) = shared.known.remove(&key) {
                if recorded != hash {
                    shared.diverge(&key, format!("request {recorded:?}"));
                    return Poll::Pending;
                }
                ask = None;
                return Poll::Ready(ended);
            }
            if let Some(ask) = ask.take() {
                shared.awaited.insert(key.clone(), hash);
                shared.new.push(key.clone());
                shared.asks.push(ask);
            }
            Poll::Pending
        })
    }

    /// Records a choice and what it rests on; gives what was chosen when it was first made.
    pub fn decide(&mut self, name: &str, chosen: bool, because: impl Into<Value>) -> bool {
        let options = ["yes", "no"];
        self.choose(name, if chosen { "yes" } else { "no" }, &options, because) == "yes"
    }

    /// As [`Ctx::decide`], out of named options.
    pub fn choose(
        &mut self,
        name: &str,
        chosen: &str,
        options: &[&str],
        because: impl Into<Value>,
    ) -> String {
        let key = self.key(name);
        if let Some(Known::Decided(recorded)) = self.known(&key) {
            return recorded;
        }
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        self.ask(Ask::Decide {
            key,
            chosen: chosen.to_owned(),
            options,
            because: because.into(),
            finishes: true,
        });
        chosen.to_owned()
    }

    /// Computes a value once: what was computed is a fact, and a replay reads it.
    pub fn compute(&mut self, name: &str, compute: impl FnOnce() -> Value) -> Value {
        let key = self.key(name);
        if let Some(Known::Ended(Ok(recorded), _)) = self.known(&key) {
            return recorded;
        }
        let output = Arc::new(compute());
        self.ask(Ask::Finish { key, kind: TaskKind::Compute, output: output.clone(), context: None });
        (*output).clone()
    }

    /// Records a domain event under its own type.
    pub fn record(&mut self, name: &str, event_type: &str, data: impl Into<Value>) {
        let key = self.key(name);
        if self.known(&key).is_none() {
            self.ask(Ask::Record { key, event_type: Arc::from(event_type), data: data.into() });
        }
    }

    /// Runs `branch` for each item, side by side, each in a context of its own; gives their outputs
    /// in order. All of them end before the first failure is passed on.
    pub async fn each<T>(
        &mut self,
        name: &str,
        items: Vec<T>,
        branch: impl AsyncFn(Ctx, T) -> Ended,
    ) -> Ended {
        let key = self.key(name);
        match self.known(&key) {
            Some(Known::Ended(ended, _)) => return ended,
            Some(Known::Started | Known::Decided(_)) => {}
            None => self.ask(Ask::Start {
                key: key.clone(),
                kind: TaskKind::Fork,
                input: Arc::new(json!({"branches": items.len()})),
            }),
        }
        let mut branches = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let scope = key.item(index as u64);
            match self.known(&scope) {
                Some(Known::Ended(ended, _)) => branches.push((scope, None, Some(ended))),
                _ => branches.push((
                    scope.clone(),
                    Some(Box::pin(branch(Ctx::new(scope, &self.shared), item))),
                    None,
                )),
            }
        }
        let mut open = branches.iter().filter(|(.., ended)| ended.is_none()).count();
        let mut is_first = true;
        std::future::poll_fn(|context| {
            let news =
                self.shared.borrow().news.as_ref().filter(|_| !is_first).map(|news| branch_of(&key, news));
            is_first = false;
            let touched = match news {
                Some(Some(index)) if index < branches.len() => index..index + 1,
                Some(_) => 0..0,
                None => 0..branches.len(),
            };
            for (scope, future, ended) in &mut branches[touched] {
                let Some(running) = future else { continue };
                let Poll::Ready(end) = running.as_mut().poll(context) else { continue };
                if let Ok(output) = &end {
                    let (key, output) = (scope.clone(), Arc::new(output.clone()));
                    self.ask(Ask::Finish { key, kind: TaskKind::Branch, output, context: None });
                }
                (*future, *ended) = (None, Some(end));
                open -= 1;
            }
            if open == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let outputs =
            branches.into_iter().filter_map(|(.., ended)| ended).collect::<Result<Vec<Value>, Failure>>()?;
        let output = Arc::new(Value::Array(outputs));
        self.ask(Ask::Finish { key, kind: TaskKind::Fork, output: output.clone(), context: None });
        Ok((*output).clone())
    }
}
