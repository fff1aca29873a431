//! Clocks that are set while workflows wait: every kind of wait, jumps of an hour, a day and a year in both
//! directions, in one process and across restarts.
//!
//! The time that passes is the simulation's; a machine's time of day is that and an offset.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::{
    Effect, Event, Fact, Failure, Measure, Micros, Outcome, RetryPolicy, Status, WorkflowState,
};
use foldback::engine::engine::{Message, ReplyTo};
use foldback::engine::{Attempt, Command, Programs, events_of, state_at, verify_own};
use foldback::programs::{Definitions, start_code, start_document};
use serde_json::{Value, json};

use crate::disk::Disk;
use crate::fronts::KIND;
use crate::process::{Birth, Process};

const SECOND: Micros = 1_000_000;
const HOUR: Micros = 3_600 * SECOND;
/// How long a wait is meant to be; a policy's delay is between half of it and it.
const DELAY: Micros = 3_000 * SECOND;
/// A part of it that passes.
const PART: Micros = 1_200 * SECOND;
/// How far a time of day is set forward or back. Daylight saving sets no machine's time of day, and would be
/// an hour.
const JUMPS: [Micros; 6] = [HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 8_760 * HOUR, -8_760 * HOUR];

/// The waits that there are, each as tasks of a document.
const WAITS: [(&str, &str); 6] = [
    ("a wait", "- nap: { wait: { minutes: 50 } }"),
    (
        "the limit of a listen",
        "- ask:\n    listen: { to: { one: { with: { type: answer } } } }\n    timeout: { after: { minutes: 50 } }\n    \
         metadata: { foldback: { default: none } }",
    ),
    (
        "the limit of a block",
        "- all:\n    do:\n      - far: { wait: { hours: 90 } }\n    timeout: { after: { minutes: 50 } }",
    ),
    (
        "the delay of a block's retry",
        "- again:\n    try:\n      - one: { set: { a: 1 } }\n      - fails: { call: http, with: { method: GET, endpoint: 'http://x.test/' } }\n    \
         catch: { retry: { delay: { minutes: 50 }, backoff: { constant: {} }, limit: { attempt: { count: 3 } } } }",
    ),
    // In Rust: the step of this name.
    ("the delay of a step's retry", "fails"),
    ("what a server asks for", "later"),
];

/// A step, then one that is tried again after a delay: of its policy, or of the server.
async fn tries_again(mut ctx: Ctx, name: Value) -> Ended {
    ctx.step("first", Work::new(KIND, Effect::Read, json!({}))).await?;
    let name = name.as_str().unwrap_or_default();
    let delay_ms = if name == "fails" { (DELAY / 1_000) as u64 } else { 1_000 };
    let policy = RetryPolicy { attempts: 3, delay_ms, max_delay_ms: delay_ms, ..RetryPolicy::default() };
    ctx.step(name, Work::new(KIND, Effect::Read, json!({})).retry(policy)).await
}

/// One workflow, `w`: first a step, then a wait.
struct Life {
    disk: Arc<Disk>,
    clock: Arc<AtomicI64>,
    programs: Arc<Definitions>,
    process: Process,
    serial: u64,
    flights: Vec<Attempt>,
}

impl Life {
    /// Begun on a machine whose time of day is ahead by `offset`; its first step is under way.
    fn begun(tasks: &str, offset: Micros) -> Life {
        let disk = Disk::new(foldback::store::open("memory:").unwrap());
        let clock = Arc::new(AtomicI64::new(1_800_000_000 * SECOND));
        let code = Code::new(tries_again);
        let programs = Arc::new(Definitions::default().with_code("tries again", "1", code));
        let process = started(&disk, &clock, &programs, 1, offset);
        let mut life = Life { disk, clock, programs, process, serial: 1, flights: Vec::new() };
        let first = "- first: { call: http, with: { method: GET, endpoint: 'http://x.test/' } }";
        let head = "document: { dsl: '1.0.3', namespace: t, name: clocks, version: '1.0.0' }\ndo:\n";
        let source = format!("{head}{first}\n{tasks}\n");
        let start = match tasks {
            "fails" | "later" => start_code("tries again", "1", "w", json!(tasks)),
            _ => {
                let loaded = foldback::ows::load(&source, &|_| Err("no files".into()));
                let loaded = loaded.unwrap_or_else(|problems| panic!("{problems:#?}\n{source}"));
                start_document(&loaded, "w", json!({}))
            }
        };
        life.tell(Command::Start(start));
        life
    }

    /// Its process dies; a new one goes on, on a machine whose time of day is ahead by `offset`.
    fn restart(&mut self, offset: Micros) {
        self.serial += 1;
        self.process.guard = None;
        self.flights.clear();
        self.process = started(&self.disk, &self.clock, &self.programs, self.serial, offset);
        self.tell(Command::Resume { workflow_id: "w".into() });
    }

    fn set_time_of_day(&self, offset: Micros) {
        self.process.machine.offset.store(offset, Ordering::Relaxed);
    }

    fn now(&self) -> Micros {
        self.clock.load(Ordering::Relaxed)
    }

    fn tell(&mut self, command: Command) {
        let (actor, from) = (Arc::from("test"), ReplyTo::Nobody);
        self.process.to.send(Message::Command { command, actor, from, watch: None }).unwrap();
        self.go_on();
    }

    /// Does what there is to do now.
    fn go_on(&mut self) {
        loop {
            assert_eq!(self.process.engine.round(), None, "the engine goes on");
            self.flights.extend(self.process.machine.begun().into_iter().map(|(attempt, _)| attempt));
            if self.process.shelf.waiting() == (0, 0) {
                return;
            }
            self.process.shelf.write(usize::MAX);
            self.process.shelf.tell(usize::MAX);
        }
    }

    /// Time passes, and alarms ring on their way.
    fn pass(&mut self, time: Micros) {
        let until = self.now() + time;
        while let Some(at) = self.process.engine.next_alarm().filter(|at| *at <= until) {
            self.clock.fetch_max(at, Ordering::Relaxed);
            self.go_on();
        }
        self.clock.store(until, Ordering::Relaxed);
        self.go_on();
    }

    /// The step under way reports: the first one well, what is to be tried again not.
    fn report(&mut self) {
        let attempt = self.flights.pop().expect("a step is under way");
        let call = &attempt.call;
        let retry_after_ms = call.key.as_str().contains("later").then_some((DELAY / 1_000) as u64);
        let outcome = match call.key.as_str() {
            key if key.ends_with("first") => Outcome::Completed { output: json!({"a": 1}), usage: None },
            _ => Outcome::Failed {
                error: Failure::new("communication", 503, "Service Unavailable", "later"),
                retry_after_ms,
                usage: None,
            },
        };
        let (key, attempt_number, flight) = (call.key.clone(), call.attempt, attempt.flight);
        let workflow_id = call.workflow_id.clone();
        let report =
            Message::Report { workflow_id, key, attempt: attempt_number, outcome, latency_ms: 1, flight };
        self.process.to.send(report).unwrap();
        self.go_on();
    }

    /// Goes on until the wait is set.
    fn reach_the_wait(&mut self) {
        while let Some(attempt) = self.flights.last() {
            assert!(attempt.call.attempt < 3, "{:?}", attempt.call.key);
            self.report();
        }
        assert!(self.waits(), "{:#?}", self.events());
    }

    fn events(&self) -> Vec<Event> {
        events_of(&*self.disk.store, "w", 0).unwrap()
    }

    fn state(&self) -> WorkflowState {
        state_at(&*self.disk.store, "w", None).unwrap().expect("it has begun")
    }

    /// How long the wait is meant to be.
    fn meant(&self) -> Micros {
        let delay = |event: &Event| match &event.fact {
            Fact::AttemptFailed(failed) => Some(failed.delay_ms as Micros * 1_000),
            _ => None,
        };
        self.events().iter().find_map(delay).unwrap_or(DELAY)
    }

    /// True while the wait is on: nothing has fired, and nothing began again.
    fn waits(&self) -> bool {
        let events = self.events();
        let is_set = |event: &Event| matches!(event.fact, Fact::TimerSet { .. } | Fact::AttemptFailed(_));
        let Some(set) = events.iter().position(is_set) else { return false };
        let is_over =
            |event: &Event| matches!(event.fact, Fact::TimerFired { .. } | Fact::AttemptStarted { .. });
        !events[set..].iter().any(is_over)
    }

    /// How long the wait goes on from here, in time that passes.
    fn rest_of_wait(&mut self) -> Micros {
        let since = self.now();
        while self.waits() {
            let at = self.process.engine.next_alarm().expect("an alarm is set");
            assert!(at - since < 30 * 8_760 * HOUR, "it rings at some time");
            self.clock.fetch_max(at, Ordering::Relaxed);
            self.go_on();
        }
        self.now() - since
    }

    /// The log obeys the law, and its program derives it again.
    fn verifies(&self) {
        let events = self.events();
        WorkflowState::fold("w", &events).unwrap();
        let definition = self.disk.store.definition(&self.state().definition).unwrap().expect("stored");
        let program = self.programs.program(&definition).unwrap();
        let walked = verify_own(&*self.disk.store, "w", &*program, &*self.programs).unwrap();
        assert!(walked.parting.is_none(), "{:?}\n{events:#?}", walked.parting);
    }
}

fn started(
    disk: &Arc<Disk>,
    clock: &Arc<AtomicI64>,
    programs: &Arc<Definitions>,
    serial: u64,
    offset: Micros,
) -> Process {
    let (clock, programs) = (clock.clone(), programs.clone());
    let birth = Birth { serial, clock, offset, seed: serial, is_observed: false, programs };
    Process::start(disk, birth).unwrap().expect("the shard is free")
}

/// Every kind of wait with every jump.
fn for_all(check: impl Fn(&str, &str, Micros)) {
    for (name, tasks) in WAITS {
        JUMPS.iter().for_each(|jump| check(&format!("{name}, {} hours", jump / HOUR), tasks, *jump));
    }
}

/// A workflow that was begun while the clock was wrong waits, once it is right, as long as it is told to.
#[test]
fn a_wait_is_as_long_as_it_is_said_where_the_clock_was_wrong_at_the_beginning() {
    for_all(|what, tasks, jump| {
        for restarts in [false, true] {
            let mut life = Life::begun(tasks, jump);
            life.pass(SECOND);
            life.restart(0);
            life.reach_the_wait();
            life.pass(PART);
            assert!(life.waits(), "{what}: it is over too early");
            if restarts {
                life.restart(0);
            }
            assert_eq!(life.rest_of_wait(), life.meant() - PART, "{what}, restarts: {restarts}");
            life.verifies();
        }
    });
}

/// In one process no wait is longer or shorter where the time of day is set in the middle of it: also where
/// its workflow was let out of memory, and something was said to it meanwhile.
#[test]
fn a_wait_is_as_long_as_it_is_said_while_its_process_lives() {
    for_all(|what, tasks, jump| {
        for is_spoken_to in [false, true] {
            let mut life = Life::begun(tasks, 0);
            life.reach_the_wait();
            life.pass(60 * SECOND);
            life.set_time_of_day(jump);
            life.pass(PART);
            if is_spoken_to {
                let (workflow_id, name) = (Arc::from("w"), Arc::from("noise"));
                life.tell(Command::Signal { workflow_id, name, data: json!(1), event_id: None, error: None });
                life.set_time_of_day(-jump);
                life.pass(60 * SECOND);
                let (workflow_id, name) = (Arc::from("w"), Arc::from("noise"));
                life.tell(Command::Signal { workflow_id, name, data: json!(2), event_id: None, error: None });
            }
            assert!(life.waits(), "{what}: it is over too early");
            let passed = PART + if is_spoken_to { 120 * SECOND } else { 60 * SECOND };
            assert_eq!(life.rest_of_wait(), life.meant() - passed, "{what}, spoken to: {is_spoken_to}");
            life.verifies();
        }
    });
}

/// A wait that is set behind a jump is measured by the clock as it is then, also by the process after it.
#[test]
fn a_wait_that_is_set_behind_a_jump_is_as_long_as_it_is_said() {
    for_all(|what, tasks, jump| {
        for restarts in [false, true] {
            let mut life = Life::begun(tasks, 0);
            life.pass(SECOND);
            life.set_time_of_day(jump);
            life.reach_the_wait();
            life.pass(PART);
            assert!(life.waits(), "{what}: it is over too early");
            if restarts {
                life.restart(jump);
            }
            assert_eq!(life.rest_of_wait(), life.meant() - PART, "{what}, restarts: {restarts}");
            life.verifies();
        }
    });
}

/// A process that finds the clock set cannot know by how much: it waits by the time of day, and at most one
/// delay longer than was meant.
#[test]
fn after_a_restart_a_wait_is_at_most_one_delay_longer() {
    for_all(|what, tasks, jump| {
        let mut life = Life::begun(tasks, 0);
        life.reach_the_wait();
        life.pass(PART);
        life.restart(jump);
        let rest = if life.waits() { life.rest_of_wait() } else { 0 };
        let by_time_of_day = (life.meant() - PART - jump).clamp(0, life.meant());
        assert_eq!(rest, by_time_of_day, "{what}");
        life.verifies();
    });
}

/// A budget of wall time counts from its beginning, or from when the clock was put right.
#[test]
fn a_budget_of_wall_time_counts_where_the_clock_was_put_right() {
    let call = "{ call: http, with: { method: GET, endpoint: 'http://x.test/' } }";
    let tasks = format!("- nap: {{ wait: {{ minutes: 50 }} }}\n- first: {call}\n- then: {call}\n");
    let all =
        format!("- all:\n    do:\n{}", tasks.lines().map(|l| format!("      {l}\n")).collect::<String>());
    let budget = "    metadata: { foldback: { budget: { wall: { minutes: 20 } } } }";
    for jump in JUMPS.into_iter().filter(|jump| *jump > 0) {
        let mut life = Life::begun(&format!("{all}{budget}"), jump);
        life.pass(SECOND);
        life.report();
        life.pass(SECOND);
        life.restart(0);
        life.pass(DELAY);
        life.pass(PART);
        life.report();
        let state = life.state();
        assert_eq!(state.status(), Status::Paused, "{} hours: {:#?}", jump / HOUR, life.events());
        let measure =
            state.pause.as_ref().and_then(|pause| pause.budget.as_ref()).map(|(_, measure)| *measure);
        assert_eq!(measure, Some(Measure::WallMs));
        life.verifies();
    }
}
