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
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use foldback_connectors::LLM_KIND;
use foldback_core::event::UndoStarted;
use foldback_core::program::StepAsk;
use foldback_core::{
    Ask, Divergence, Effect, Failure, Hash, Key, Measure, Program, Recovery, RetryPolicy, Run, Slot,
    TaskKind, Turn, Undo, Version, WorkflowState, step,
};
use serde_json::{Value, json};

mod track;

use track::{Known, Polled, Shared, Track};

/// What a program and its steps end with.
pub type Ended = Result<Value, Failure>;

/// A program made of an `async fn(Ctx, Value) -> Ended`, and of functions beside it that are registered by
/// name: what takes a step back, what finds out whether one happened, what takes a domain event back.
///
/// ```
/// use foldback::code::{Code, Ctx, Done, Ended, Work};
/// use foldback::core::Effect;
/// use serde_json::{Value, json};
///
/// async fn order(mut ctx: Ctx, input: Value) -> Ended {
///     let post = |path: &str| Work::new("http", Effect::Write, json!({"method": "POST", "uri": path}));
///     ctx.step("charge", post("https://pay.example/charges").undo("refund", input)).await?;
///     ctx.step("ship", post("https://ship.example/parcels")).await
/// }
///
/// async fn refund(mut ctx: Ctx, done: Done) -> Ended {
///     let request = json!({"method": "POST", "uri": "https://pay.example/refunds", "body": done.output});
///     ctx.step("refund", Work::new("http", Effect::Write, request)).await
/// }
///
/// let program = Code::new(order).undo("refund", refund);
/// # let _ = program;
/// ```
pub struct Code<F> {
    function: Arc<F>,
    beside: Arc<Beside>,
}

/// What was done, for a function beside the flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// The step, or the place that recorded the domain event.
    pub key: Key,
    /// What was given with the undo, or the data of the domain event.
    pub given: Value,
    /// What the step answered; null where that is not known.
    pub output: Value,
    /// Under which idempotency key it was sent, where it is being found out whether it happened.
    pub idempotency_key: Option<String>,
}

type Function = Box<dyn Fn(Ctx, Done) -> Polled + Send + Sync>;

/// Functions beside the flow, by their names.
#[derive(Default)]
struct Beside {
    functions: BTreeMap<String, Function>,
    holds: bool,
    budget: BTreeMap<Measure, u64>,
}

/// The handler of a domain event is named by this and its type.
const ON_COMPENSATE: &str = "on_compensate/";

impl<F> Code<F> {
    /// The program of a function. The function must not wait for, or look at, anything but its
    /// context and its input.
    pub fn new(function: F) -> Code<F> {
        Code { function: Arc::new(function), beside: Arc::default() }
    }

    /// Registers what takes a step back, or finds out whether one happened: [`Work::undo`] and
    /// [`Work::reconcile`] name it.
    pub fn undo<Fut>(self, name: &str, function: impl Fn(Ctx, Done) -> Fut + Send + Sync + 'static) -> Code<F>
    where
        Fut: Future<Output = Ended> + 'static,
    {
        self.with(|beside| {
            let function: Function = Box::new(move |ctx, done| Box::pin(function(ctx, done)));
            beside.functions.insert(name.to_owned(), function);
        })
    }

    /// Registers what takes a domain event of this type back.
    pub fn on_compensate<Fut>(
        self,
        event_type: &str,
        function: impl Fn(Ctx, Done) -> Fut + Send + Sync + 'static,
    ) -> Code<F>
    where
        Fut: Future<Output = Ended> + 'static,
    {
        self.undo(&format!("{ON_COMPENSATE}{event_type}"), function)
    }

    /// A person says what becomes of what was done when it fails or is cancelled.
    pub fn hold(self) -> Code<F> {
        self.with(|beside| beside.holds = true)
    }

    /// What a workflow may use before a person is asked.
    pub fn budget(self, measure: Measure, limit: u64) -> Code<F> {
        self.with(|beside| {
            beside.budget.insert(measure, limit);
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Beside)) -> Code<F> {
        // Nobody else has it yet: a program is made before it is shared.
        if let Some(beside) = Arc::get_mut(&mut self.beside) {
            change(beside);
        }
        self
    }
}

impl<F, Fut> Program for Code<F>
where
    F: Fn(Ctx, Value) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Ended> + 'static,
{
    fn start(&self, state: &WorkflowState) -> Box<dyn Run> {
        let function = self.function.clone();
        let begin: Box<dyn Fn(Ctx, Value) -> Polled> =
            Box::new(move |ctx, input| Box::pin(function(ctx, input)));
        let (main, asides) = (Main::Awaits(begin), HashMap::new());
        let mut run = CodeRun { beside: self.beside.clone(), main, asides };
        if state.is_started() {
            run.begin(state);
        }
        Box::new(run)
    }
}

/// The flow: before its input is known, and under way.
enum Main {
    Awaits(Box<dyn Fn(Ctx, Value) -> Polled>),
    Runs(Track),
}

struct CodeRun {
    beside: Arc<Beside>,
    main: Main,
    /// Functions beside the flow that are under way, by their place and the version that began it.
    asides: HashMap<(Key, Version), Track>,
}

impl CodeRun {
    fn begin(&mut self, state: &WorkflowState) {
        if let Main::Awaits(function) = &self.main {
            let input = (*state.input.get()).clone();
            let track = Track::new(None, |shared| {
                let future = function(Ctx::new(Key::root(), shared), input);
                Box::new(move || future)
            });
            self.main = Main::Runs(track);
        }
    }

    /// A turn of a function beside the flow.
    fn beside(
        &mut self,
        state: &WorkflowState,
        name: &str,
        place: (Key, Version),
        done: impl FnOnce() -> Done,
    ) -> Turn {
        let Some(function) = self.beside.functions.get(name) else {
            return Turn::Diverged(Divergence {
                key: place.0,
                recorded: format!("the function `{name}`"),
                asked: "no function of this name is registered".into(),
            });
        };
        let track = self.asides.entry(place.clone()).or_insert_with(|| {
            Track::new(Some(place.0.clone()), |shared| {
                let future = function(Ctx::new(place.0.clone(), shared), done());
                Box::new(move || future)
            })
        });
        let turn = track.turn(state);
        if matches!(turn, Turn::Ends(_) | Turn::Diverged(_)) {
            self.asides.remove(&place);
        }
        turn
    }
}

fn open(slot: &Option<Slot>) -> Value {
    slot.as_ref().map(|slot| (*slot.get()).clone()).unwrap_or_default()
}

impl Run for CodeRun {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        if !self.beside.budget.is_empty() && !state.budgets.contains_key(&Key::root()) {
            return Turn::Asks(vec![Ask::Budget { key: Key::root(), limits: self.beside.budget.clone() }]);
        }
        self.begin(state);
        match &mut self.main {
            Main::Runs(track) => track.turn(state),
            Main::Awaits(_) => Turn::Waits,
        }
    }

    fn undo(&mut self, state: &WorkflowState, undo: &UndoStarted) -> Turn {
        let done = || Done {
            key: undo.key.clone(),
            given: open(&undo.undo),
            output: open(&undo.output),
            idempotency_key: None,
        };
        let handler = undo.handler.clone();
        self.beside(state, &handler, (undo.key.undo(), undo.armed), done)
    }

    fn reconcile(&mut self, state: &WorkflowState, key: &Key) -> Turn {
        let Some(step) = state.step(key) else { return Turn::Waits };
        let given = open(&step.given);
        let name = given["function"].as_str().unwrap_or_default().to_owned();
        let id = &state.workflow_id;
        let done = || Done {
            key: key.clone(),
            given: given["given"].clone(),
            output: Value::Null,
            idempotency_key: Some(step::idempotency_key(id, key, &step.request_hash, step.generation)),
        };
        self.beside(state, &name, (key.reconcile(), u64::from(step.attempts)), done)
    }

    fn compensates(&self) -> bool {
        !self.beside.holds
    }

    fn undoes_event(&self, event_type: &str) -> Option<Arc<str>> {
        let name = format!("{ON_COMPENSATE}{event_type}");
        self.beside.functions.contains_key(&name).then(|| Arc::from(name))
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
    undo: Option<Undo>,
    given: Option<Arc<Value>>,
    secrets: BTreeMap<String, String>,
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
            undo: None,
            given: None,
            secrets: BTreeMap::new(),
        }
    }

    /// Puts a secret into the request, at a JSON pointer (`/headers/X-Key`). The log holds its name
    /// alone. The step kind gets its value, from the variable `FOLDBACK_SECRET_NAME`, or `NAME`, in the
    /// environment of the engine, and nothing that the kind gives back shows it.
    pub fn secret(mut self, pointer: &str, name: &str) -> Work {
        if let Some((parent, member)) = pointer.rsplit_once('/')
            && let Some(Value::Object(map)) = self.request.pointer_mut(parent)
        {
            map.insert(member.replace("~1", "/").replace("~0", "~"), Value::Null);
        }
        self.secrets.insert(pointer.to_owned(), name.to_owned());
        self
    }

    /// It is taken back, once it has completed, by the function of this name ([`Code::undo`]), which is
    /// given this beside what the step answered.
    pub fn undo(self, function: &str, given: Value) -> Work {
        let undo = Undo::By { handler: Arc::from(function), given: Slot::of(given) };
        Work { undo: Some(undo), ..self }
    }

    /// It cannot be taken back: why, and what to tell the person.
    pub fn irreversible(self, why: &str) -> Work {
        Work { undo: Some(Undo::Irreversible(why.to_owned())), ..self }
    }

    /// Where nobody knows whether it landed, the function of this name ([`Code::undo`]) finds out: it
    /// gives `{"landed": OUTPUT}`, `{"didnt": true}`, or anything else where it cannot tell.
    pub fn reconcile(self, function: &str, given: Value) -> Work {
        let given = Some(Arc::new(json!({"function": function, "given": given})));
        Work { recovery: Recovery::Reconcile, given, ..self }
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
    let is_plain =
        |c: char| !foldback_core::key::RESERVED.contains(&c) && !matches!(c, '~' | '%') && !c.is_control();
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
        (ask.undo, ask.given) = (work.undo, work.given);
        ask.secrets = work.secrets;
        let hash = ask.request_hash();
        self.wait_for(key, Some(hash), Ask::Step(Box::new(ask)))
    }

    /// Waits `delay_ms`, durably.
    pub fn sleep(&mut self, name: &str, delay_ms: u64) -> impl Future<Output = Ended> + '_ {
        let key = self.key(name);
        self.wait_for(key.clone(), None, Ask::Timer { key, delay_ms, finishes: true, limits: false })
    }

    /// Waits for a signal of this name, and gives its data. One that came before is taken at once.
    pub fn listen(&mut self, name: &str, signal: &str) -> impl Future<Output = Ended> + '_ {
        let (key, signal): (Key, Arc<str>) = (self.key(name), Arc::from(signal));
        self.shared.borrow_mut().listening.insert(key.clone(), signal.clone());
        let wants = json!({"join": "one", "events": [{"type": &*signal}]});
        self.wait_for(key.clone(), None, Ask::Listen { key, names: vec![signal], wants })
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
