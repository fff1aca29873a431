//! The definition as the interpreter sees it: tasks, and what each of them says.
//!
//! It is made by `read` and never changes; there is no source, line or file left in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldback_core::event::DIALECT;
use foldback_core::{
    Effect, Failure, Key, Measure, Program, Recovery, Redaction, RetryPolicy, Run, TaskKind, WorkflowState,
    limits,
};
use serde_json::Value;

use crate::jq::Filter;
use crate::schema::Schema;
use crate::template::{Template, Uri};
use crate::walk::WalkingRun;

/// A definition of the Open Workflow Specification, ready to run.
pub struct OwsProgram {
    pub(crate) inner: Arc<Definition>,
}

impl std::fmt::Debug for OwsProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwsProgram({})", self.inner.document["document"]["name"])
    }
}

impl Program for OwsProgram {
    fn start(&self, _state: &WorkflowState) -> Box<dyn Run> {
        Box::new(WalkingRun::new(self.inner.clone()))
    }

    fn has_step(&self, key: &Key) -> Option<bool> {
        Some(self.inner.has_step(key))
    }

    fn dialect(&self) -> Option<u32> {
        Some(DIALECT)
    }

    fn redaction(&self) -> Redaction {
        self.inner.redaction.clone()
    }
}

/// What a program is made of.
pub(crate) struct Definition {
    pub tasks: TaskList,
    pub input: Option<Template>,
    pub output: Option<Template>,
    /// How long the workflow may take.
    pub limit: Option<Delay>,
    pub input_schema: Option<Schema>,
    pub output_schema: Option<Schema>,
    /// The definition as `$workflow.definition` gives it; `{document: …}` alone, where no expression asks.
    pub document: Value,
    /// Whether every value of the workflow may be erased one day.
    pub is_erasable: bool,
    /// What is redacted of everything that comes in.
    pub redaction: Redaction,
    /// What the workflow may use.
    pub budget: Limits,
    /// Whether a person says what becomes of what was done, when it fails or is cancelled.
    pub holds: bool,
    /// Tasks that take a domain event back, by its type.
    pub on_compensate: Vec<(String, TaskList)>,
}

impl Definition {
    /// Whether the path of a key leads to a step; an index may be `[*]`.
    fn has_step(&self, key: &Key) -> bool {
        let mut list = Some(&self.tasks);
        let mut last = None;
        let segments: Vec<&str> = key.as_str().split('/').collect();
        for (at, segment) in segments.iter().enumerate() {
            let (name, marks) = segment.split_at(segment.find(['[', '#', '!']).unwrap_or(segment.len()));
            last = list.and_then(|list| list.position(name).map(|at| &list.tasks[at]));
            let is_loop = last.is_some_and(|task| matches!(task.body, Body::For(_)));
            let is_inside = at + 1 < segments.len();
            if !may_mark(marks, is_loop && is_inside) {
                return false;
            }
            list = last.and_then(|task| task.inside(marks));
        }
        last.is_some_and(|task| matches!(task.body, Body::Step(_)))
    }

    /// The task to which the path of a key leads.
    pub fn task_at(&self, key: &Key) -> Option<&Task> {
        let mut list = Some(&self.tasks);
        let mut last = None;
        for segment in key.as_str().split('/') {
            let name = &segment[..segment.find(['[', '#', '!']).unwrap_or(segment.len())];
            last = list.and_then(|list| list.position(name).map(|at| &list.tasks[at]));
            list = last.and_then(|task| task.inside(segment));
        }
        last
    }

    /// The tasks that take back what was done at a key, by their handler's name.
    pub fn undo_of(&self, key: &Key, handler: &str) -> Option<&TaskList> {
        if let Some(event_type) = handler.strip_prefix(ON_COMPENSATE) {
            let mut handlers = self.on_compensate.iter();
            return handlers.find(|(known, _)| known == event_type).map(|(_, list)| list);
        }
        match &self.task_at(key)?.body {
            Body::Step(step) => match &step.undo {
                Some(StepUndo::Tasks { list, .. }) => Some(list),
                Some(StepUndo::Irreversible(_)) | None => None,
            },
            _ => None,
        }
    }

    /// Whether the values of facts at this key may be erased: the document, the task or one around
    /// it says so. Where a block or a fork keeps the error of what is inside it, one inside it is enough.
    pub fn is_erasable(&self, key: &Key) -> bool {
        let holds_error = ["!catch", "!failed"].iter().any(|mark| key.as_str().ends_with(mark));
        let mut list = Some(&self.tasks);
        self.is_erasable
            || (holds_error && self.task_at(key).is_some_and(Task::holds_erasable))
            || key.as_str().split('/').any(|segment| {
                let name = &segment[..segment.find(['[', '#', '!']).unwrap_or(segment.len())];
                let task = list.and_then(|list| list.position(name).map(|at| &list.tasks[at]));
                list = task.and_then(|task| task.inside(segment));
                task.is_some_and(|task| task.is_erasable)
            })
    }

    /// Whether what a signal of this name says may be erased: the document says so, or a task that listens for
    /// it, or one around that.
    pub fn hears_apart(&self, name: &str) -> bool {
        fn hears(list: &TaskList, is_inside: bool, name: &str) -> bool {
            list.tasks.iter().any(|task| {
                let is_erasable = is_inside || task.is_erasable;
                let is_meant = match &task.body {
                    Body::Listen(listen) => listen.filters.iter().any(|filter| *filter.name == *name),
                    _ => false,
                };
                (is_erasable && is_meant) || task.lists().any(|list| hears(list, is_erasable, name))
            })
        }
        let handlers = self.on_compensate.iter().map(|(_, list)| list);
        self.is_erasable || std::iter::once(&self.tasks).chain(handlers).any(|list| hears(list, false, name))
    }
}

/// The handler of a domain event is named by this and its type.
pub(crate) const ON_COMPENSATE: &str = "on_compensate/";

/// Marks behind which tasks stand.
const MARKS: [&str; 3] = ["catch", "undo", "reconcile"];

/// Whether marks can stand behind a task's name: `#2` for a visit, `[3]` or `[*]` for a round where
/// `has_rounds`, `!2`, `!catch` and the like for tries.
fn may_mark(marks: &str, has_rounds: bool) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (before, tries) = marks.split_at(marks.find('!').unwrap_or(marks.len()));
    let (visit, round) = before.split_at(before.find('[').unwrap_or(before.len()));
    let is_visit = visit.is_empty() || visit.strip_prefix('#').is_some_and(is_number);
    let is_round = match round.strip_prefix('[').and_then(|round| round.strip_suffix(']')) {
        None => round.is_empty() && !has_rounds,
        Some(index) => has_rounds && (index == "*" || is_number(index)),
    };
    is_visit
        && is_round
        && (tries.is_empty() || tries[1..].split('!').all(|mark| MARKS.contains(&mark) || is_number(mark)))
}

/// How much may be used; empty where nothing is said.
pub(crate) type Limits = BTreeMap<Measure, u64>;

/// Tasks that run one after the other.
pub(crate) struct TaskList {
    pub tasks: Vec<Task>,
    /// The index of each task, by its name.
    positions: HashMap<String, usize>,
}

impl TaskList {
    pub fn of(tasks: Vec<Task>) -> TaskList {
        let positions = tasks.iter().zip(0..).map(|(task, index)| (task.name.clone(), index)).collect();
        TaskList { tasks, positions }
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }
}

/// One task.
pub(crate) struct Task {
    pub name: String,
    /// Where it stands in the definition, as a JSON pointer.
    pub pointer: Arc<str>,
    pub condition: Option<Filter>,
    pub input: Option<Template>,
    pub output: Option<Template>,
    pub export: Option<Template>,
    pub schemas: Schemas,
    pub then: Flow,
    /// How long it may take with all inside it: a timer that is set when it has begun.
    pub limit: Option<Delay>,
    /// Whether what it gets and gives may be erased one day; all inside it too.
    pub is_erasable: bool,
    /// What it may use with all inside it.
    pub budget: Limits,
    pub body: Body,
}

impl Task {
    /// Whether its output or the context is computed after its work is done.
    pub fn shapes_output(&self) -> bool {
        self.output.is_some() || self.export.is_some() || self.schemas.output.is_some()
    }

    /// The tasks inside it, by the marks on its key: inside its handler, its undo, or itself.
    fn inside(&self, marks: &str) -> Option<&TaskList> {
        let is_handler = marks.ends_with("!catch");
        match &self.body {
            Body::Step(step) if marks.ends_with("!undo") => match &step.undo {
                Some(StepUndo::Tasks { list, .. }) => Some(list),
                Some(StepUndo::Irreversible(_)) | None => None,
            },
            Body::Step(step) if marks.ends_with("!reconcile") => step.reconcile.as_ref(),
            Body::Do(list) => Some(list),
            Body::Fork(fork) => Some(&fork.branches),
            Body::For(task) => Some(&task.body),
            Body::Try(block) if is_handler => block.handler.as_ref(),
            Body::Try(block) => Some(&block.body),
            Body::Set(_)
            | Body::Switch(_)
            | Body::Raise(_)
            | Body::Wait(_)
            | Body::Emit(_)
            | Body::Listen(_)
            | Body::Step(_) => None,
        }
    }

    /// Every list of tasks inside it.
    fn lists(&self) -> impl Iterator<Item = &TaskList> {
        let (first, second) = match &self.body {
            Body::Step(step) => {
                let undo = match &step.undo {
                    Some(StepUndo::Tasks { list, .. }) => Some(list),
                    Some(StepUndo::Irreversible(_)) | None => None,
                };
                (undo, step.reconcile.as_ref())
            }
            Body::Do(list) => (Some(list), None),
            Body::Fork(fork) => (Some(&fork.branches), None),
            Body::For(task) => (Some(&task.body), None),
            Body::Try(block) => (Some(&block.body), block.handler.as_ref()),
            Body::Set(_)
            | Body::Switch(_)
            | Body::Raise(_)
            | Body::Wait(_)
            | Body::Emit(_)
            | Body::Listen(_) => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Whether it, or a task inside it, says that its values may be erased.
    fn holds_erasable(&self) -> bool {
        self.is_erasable || self.lists().any(|list| list.tasks.iter().any(Task::holds_erasable))
    }

    /// The kind under which its end is recorded.
    pub fn kind(&self) -> TaskKind {
        match &self.body {
            Body::Do(_) => TaskKind::Do,
            Body::For(_) => TaskKind::For,
            Body::Fork(_) => TaskKind::Fork,
            Body::Try(_) => TaskKind::Try,
            Body::Set(_) => TaskKind::Set,
            Body::Switch(_)
            | Body::Raise(_)
            | Body::Wait(_)
            | Body::Emit(_)
            | Body::Listen(_)
            | Body::Step(_) => TaskKind::Shape,
        }
    }
}

/// What a task's data must look like.
#[derive(Default)]
pub(crate) struct Schemas {
    /// Its input, before it is shaped.
    pub input: Option<Schema>,
    /// Its output, after it was shaped.
    pub output: Option<Schema>,
    /// The context that it exports.
    pub export: Option<Schema>,
}

/// Where it goes after a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    /// To the end of the list in which it stands.
    Exit,
    /// To the end of the workflow.
    End,
    /// To the task of this index in the same list.
    To(usize),
}

/// What a task does.
pub(crate) enum Body {
    Do(TaskList),
    For(Box<ForTask>),
    Fork(ForkTask),
    Try(Box<TryTask>),
    Set(Template),
    Switch(Vec<Case>),
    Raise(ErrorTemplate),
    Wait(Delay),
    /// The members of the event, as they are given.
    Emit(Template),
    Listen(Box<ListenTask>),
    Step(Box<StepTask>),
}

impl Body {
    /// The word that a definition writes for it; of a step, its kind.
    pub fn word(&self) -> &'static str {
        match self {
            Body::Do(_) => "do",
            Body::For(_) => "for",
            Body::Fork(_) => "fork",
            Body::Try(_) => "try",
            Body::Set(_) => "set",
            Body::Switch(_) => "switch",
            Body::Raise(_) => "raise",
            Body::Wait(_) => "wait",
            Body::Emit(_) => "emit",
            Body::Listen(_) => "listen",
            Body::Step(step) => step.kind,
        }
    }
}

/// A loop.
pub(crate) struct ForTask {
    /// Names of the variables, with their `$`.
    pub each: String,
    pub at: String,
    pub items: Template,
    pub while_: Option<Filter>,
    pub body: TaskList,
    /// Whether its output is the list of its iterations' outputs, each of which begins with the loop's input.
    pub collects: bool,
}

/// Branches side by side.
pub(crate) struct ForkTask {
    pub branches: TaskList,
    /// Whether the first one that completes ends the others.
    pub is_race: bool,
}

/// A wait for signals.
pub(crate) struct ListenTask {
    pub join: Join,
    pub filters: Vec<EventFilter>,
    /// Whether its output holds the whole events, not their data alone.
    pub reads_envelope: bool,
    /// What the data of each must look like.
    pub schema: Option<Schema>,
    /// The same, for people.
    pub schema_text: Option<Value>,
    /// What it gives when its time runs out.
    pub default: Option<Template>,
}

/// How many signals a wait takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    One,
    Any,
    All,
}

/// Which signals are meant.
pub(crate) struct EventFilter {
    /// The event's type: the name of the signal.
    pub name: Arc<str>,
    /// What must hold of its attributes.
    pub with: Vec<(String, Wanted)>,
    /// What of it must be what.
    pub correlate: Vec<Correlation>,
}

/// What must hold of an attribute.
pub(crate) enum Wanted {
    /// It is this.
    Is(Value),
    /// This holds of it.
    Holds(Box<Filter>),
}

/// A value of the event that must be the expected one.
pub(crate) struct Correlation {
    pub name: String,
    pub from: Filter,
    /// What is expected; that of the first event where nothing is said.
    pub expect: Option<Template>,
}

/// A case of a switch; without a condition it is the default.
pub(crate) struct Case {
    pub name: String,
    pub when: Option<Filter>,
    pub when_text: String,
    pub then: Flow,
}

/// A block whose failures may be caught.
pub(crate) struct TryTask {
    pub body: TaskList,
    /// What an error must equal, by the name of its member.
    pub filter: Vec<(&'static str, Template)>,
    /// The variable of the error, with its `$`.
    pub as_: String,
    pub when: Option<Filter>,
    pub except_when: Option<Filter>,
    pub retry: Option<RetryTask>,
    pub handler: Option<TaskList>,
    /// Where it goes after an error was caught, where that differs.
    pub then: Option<Flow>,
    /// Whether what it did is taken back before that.
    pub compensates: bool,
}

/// When a block is tried again.
pub(crate) struct RetryTask {
    pub when: Option<Filter>,
    pub except_when: Option<Filter>,
    pub delay: Option<Delay>,
    pub backoff: Backoff,
    /// How often it is tried again, at most.
    pub count: Option<u64>,
    /// Bounds of what chance adds to the delay, in ms.
    pub jitter: Option<(u64, u64)>,
}

/// How delays grow from try to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backoff {
    Constant,
    Linear,
    Exponential,
}

/// How long.
pub(crate) enum Delay {
    Ms(u64),
    Computed(Arc<Filter>),
}

/// An error to be raised.
pub(crate) struct ErrorTemplate {
    pub type_: Template,
    pub status: Template,
    pub title: Option<Template>,
    pub detail: Option<Template>,
    pub instance: Option<Template>,
}

/// Whether a number may be the status of an error.
pub(crate) fn is_status(number: u64) -> bool {
    (100..=599).contains(&number)
}

/// Work outside the fold.
pub(crate) struct StepTask {
    pub kind: &'static str,
    pub parts: Vec<(&'static str, Part)>,
    /// Arguments of a function call: they join the input that the parts see.
    pub arguments: Option<Template>,
    pub lists: &'static [&'static str],
    pub effect: Effect,
    pub recovery: Recovery,
    /// Whether the definition says what becomes of it after a crash, itself or by its document.
    pub is_recovery_said: bool,
    /// How long one attempt may take, in ms.
    pub timeout_ms: Option<u64>,
    /// What the task's own `timeout` says; see [`StepTask::take_limit`].
    pub limit: Option<Delay>,
    /// The same where it is computed: it bounds each attempt, as far as [`StepTask::attempt_ms`] says.
    pub computed_limit: Option<Arc<Filter>>,
    pub retry: Option<RetryPolicy>,
    /// How it is taken back.
    pub undo: Option<StepUndo>,
    /// Tasks that find out whether it happened.
    pub reconcile: Option<TaskList>,
}

/// How a step is taken back.
pub(crate) enum StepUndo {
    /// By these tasks; `with` is what they see beside the step's input and output.
    Tasks { with: Option<Template>, list: TaskList },
    /// Not at all: why.
    Irreversible(String),
}

impl StepTask {
    /// How long the task may take with all its attempts. That a `write` did not answer in time says
    /// nothing of whether it happened: there the limit bounds each attempt, whose outcome is then
    /// unknown.
    pub fn take_limit(&mut self) -> Option<Delay> {
        let limit_ms = match self.limit.take()? {
            Delay::Ms(limit_ms) => limit_ms,
            Delay::Computed(filter) => {
                self.computed_limit = Some(filter.clone());
                return (self.effect != Effect::Write).then_some(Delay::Computed(filter));
            }
        };
        if self.effect == Effect::Write {
            self.timeout_ms.get_or_insert(limit_ms);
            return None;
        }
        if limit_ms > limits::STEP_TIMEOUT_MS {
            self.timeout_ms.get_or_insert(limit_ms);
        }
        Some(Delay::Ms(limit_ms))
    }

    /// How long one attempt may take, by a computed `timeout`: as [`StepTask::take_limit`] says of others.
    pub fn attempt_ms(&self, computed_ms: Option<u64>) -> Option<u64> {
        let bounds = |ms: &u64| self.effect == Effect::Write || *ms > limits::STEP_TIMEOUT_MS;
        self.timeout_ms.or(computed_ms.filter(bounds))
    }
}

/// One member of a request.
pub(crate) enum Part {
    Value(Template),
    Uri(Uri),
    /// The task's input.
    Input,
}

/// The error of an expression, a request or a value that cannot be used.
pub(crate) fn expression_failure(title: &str, detail: String) -> Failure {
    Failure::new(foldback_core::step::error_type::EXPRESSION, 400, title, detail)
}
