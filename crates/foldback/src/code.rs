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

use foldback_core::program::StepAsk;
use foldback_core::{
    Ask, Divergence, Effect, Entry, EntryBody, Failure, Hash, Key, Program, Recovery, RetryPolicy, Run,
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
        let begin =
            Box::new(move |input| Box::pin(function(context, input)) as Pin<Box<dyn Future<Output = Ended>>>);
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
}

/// What the log knows of a key that the code may ask for again.
enum Known {
    Ended(Ended),
    Decided(String),
    Started,
}

fn known(entry: &Entry) -> Option<Known> {
    match &entry.body {
        EntryBody::Started { .. } => Some(Known::Started),
        EntryBody::Decided { chosen } => Some(Known::Decided(chosen.to_string())),
        EntryBody::Finished { output, .. } => Some(Known::Ended(Ok((*output.get()).clone()))),
        EntryBody::Timer { fired, .. } => fired.then_some(Known::Ended(Ok(Value::Null))),
        EntryBody::Step(step) => match step.status {
            StepStatus::Completed => Some(Known::Ended(Ok((*step.output.as_ref()?.get()).clone()))),
            StepStatus::Failed => Some(Known::Ended(Err(step.error.clone().unwrap_or_default()))),
            StepStatus::Pending | StepStatus::Running | StepStatus::Backoff | StepStatus::Unknown => None,
        },
    }
}

struct CodeRun {
    begin: Option<Box<dyn FnOnce(Value) -> Pin<Box<dyn Future<Output = Ended>>>>>,
    future: Option<Pin<Box<dyn Future<Output = Ended>>>>,
    shared: Rc<RefCell<Shared>>,
    end: Option<Ended>,
}

impl Run for CodeRun {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        let is_first = self.begin.is_some();
        if let Some(begin) = self.begin.take() {
            self.future = Some(begin((*state.input.get()).clone()));
        }
        let mut has_news = match self.shared.borrow_mut().hear(state) {
            Ok(has_news) => has_news || is_first,
            Err(divergence) => return Turn::Diverged(divergence),
        };
        while has_news && let Some(future) = &mut self.future {
            if let Poll::Ready(ended) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                (self.future, self.end) = (None, Some(ended));
            }
            has_news = match self.shared.borrow_mut().hear(state) {
                Ok(has_news) => has_news,
                Err(divergence) => return Turn::Diverged(divergence),
            };
        }
        let shared = &mut *self.shared.borrow_mut();
        // A run started afresh asks again for what is under way; the log has that already.
        shared.asks.retain(|ask| match ask {
            Ask::Step(step) => !state.entries.contains_key(&step.key),
            Ask::Timer { key, .. } => !state.entries.contains_key(key),
            _ => true,
        });
        // What the log owes and the code does not wait for, the code no longer asks for.
        if let Some(key) = state.open.iter().find(|key| !shared.awaited.contains_key(*key)) {
            let (recorded, asked) = ("a step or a timer".to_owned(), "nothing of this name".to_owned());
            return Turn::Diverged(Divergence { key: key.clone(), recorded, asked });
        }
        if !shared.asks.is_empty() {
            return Turn::Asks(std::mem::take(&mut shared.asks));
        }
        match &self.end {
            Some(ended) => Turn::Ends(ended.clone()),
            None => Turn::Waits,
        }
    }
}

impl Shared {
    /// Takes over what the state knows of the keys that are waited for. True if there is news.
    fn hear(&mut self, state: &WorkflowState) -> Result<bool, Divergence> {
        let mut heard = Vec::new();
        for (key, hash) in &self.awaited {
            let Some(entry) = state.entries.get(key) else {
                continue;
            };
            if let (EntryBody::Step(step), Some(hash)) = (&entry.body, hash)
                && step.request_hash != *hash
            {
                let recorded = format!("{} request {:?}", step.kind, step.request_hash);
                return Err(Divergence { key: key.clone(), recorded, asked: format!("request {hash:?}") });
            }
            if let Some(known) = known(entry) {
                heard.push((key.clone(), known));
            }
        }
        for (key, known) in &heard {
            self.awaited.remove(key);
            debug_assert!(matches!(known, Known::Ended(_)), "only ends are waited for");
        }
        let has_news = !heard.is_empty();
        self.known.extend(heard);
        Ok(has_news)
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

/// What a program in Rust asks with. A name may be used again: the second `x` in a context is
/// `x[1]`.
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
        let key = self.scope.child(name);
        *used += 1;
        if *used == 1 { key } else { key.item(*used - 1) }
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
        let hash = ask.request_hash();
        self.wait_for(key, Some(hash), Ask::Step(Box::new(ask)))
    }

    /// Waits `delay_ms`, durably.
    pub fn sleep(&mut self, name: &str, delay_ms: u64) -> impl Future<Output = Ended> + '_ {
        let key = self.key(name);
        self.wait_for(key.clone(), None, Ask::Timer { key, delay_ms, finishes: true })
    }

    fn wait_for(&self, key: Key, hash: Option<Hash>, ask: Ask) -> impl Future<Output = Ended> + use<> {
        let shared = self.shared.clone();
        let mut ask = Some(ask);
        std::future::poll_fn(move |_| {
            let shared = &mut *shared.borrow_mut();
            if let Some(Known::Ended(ended)) = shared.known.remove(&key) {
                ask = None;
                return Poll::Ready(ended);
            }
            if let Some(ask) = ask.take() {
                shared.awaited.insert(key.clone(), hash);
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
        if let Some(Known::Ended(Ok(recorded))) = self.known(&key) {
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
            Some(Known::Ended(ended)) => return ended,
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
                Some(Known::Ended(ended)) => branches.push((scope, None, Some(ended))),
                _ => branches.push((
                    scope.clone(),
                    Some(Box::pin(branch(Ctx::new(scope, &self.shared), item))),
                    None,
                )),
            }
        }
        std::future::poll_fn(|context| {
            for (scope, future, ended) in branches.iter_mut() {
                if let Some(running) = future
                    && let Poll::Ready(end) = running.as_mut().poll(context)
                {
                    if let Ok(output) = &end {
                        let (key, output) = (scope.clone(), Arc::new(output.clone()));
                        self.ask(Ask::Finish { key, kind: TaskKind::Branch, output, context: None });
                    }
                    (*future, *ended) = (None, Some(end));
                }
            }
            if branches.iter().all(|(.., ended)| ended.is_some()) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let outputs =
            branches.into_iter().filter_map(|(.., ended)| ended).collect::<Result<Vec<Value>, Failure>>()?;
        let output = Arc::new(Value::Array(outputs));
        self.ask(Ask::Finish { key, kind: TaskKind::Fork, output: output.clone(), context: None });
        Ok((*output).clone())
    }
}
