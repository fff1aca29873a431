//! The real engine on a machine that is moved by hand: its clock, its attempts and its looks for what earlier
//! ones left running. For what happens only where two things come in one order.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::step::error_type;
use foldback::core::{Effect, Failure, Key, Micros, Outcome, RetryPolicy, Status, StepStatus};
use foldback::engine::engine::{Engine, Message, ReplyTo, Surroundings};
use foldback::engine::{
    Answer, Attempt, Call, Clocks, Command, Look, Looking, Machine, Performing, Registry, Remains, StepKind,
};
use foldback::programs::{Definitions, start_code};
use foldback::store::Store;
use serde_json::{Value, json};

const SECOND: Micros = 1_000_000;

#[derive(Default)]
struct ByHand {
    clock: AtomicI64,
    files: usize,
    began: Mutex<Vec<(Attempt, Sender<Message>)>>,
    looks: Mutex<Vec<(Look, Sender<Message>)>>,
}

impl Machine for ByHand {
    fn clocks(&self) -> Clocks {
        let now = self.clock.load(Ordering::SeqCst);
        Clocks { wall: now, steady: now }
    }

    fn seed(&self) -> u64 {
        self.clock.load(Ordering::SeqCst) as u64
    }

    fn files(&self) -> usize {
        self.files
    }

    fn start(&self, attempt: Attempt, report_to: Sender<Message>) {
        self.began.lock().unwrap().push((attempt, report_to));
    }

    fn look(&self, look: Look, report_to: Sender<Message>) {
        self.looks.lock().unwrap().push((look, report_to));
    }
}

/// It is never performed here, and looked for by hand.
struct Kind;

impl StepKind for Kind {
    fn perform(&self, _: Call) -> Performing {
        unreachable!("the machine starts no performer")
    }

    fn end_orphans(&self, _: &str) -> Option<Looking> {
        Some(Box::pin(async { unreachable!("the machine looks by hand") }))
    }
}

/// One step, which waits five to ten seconds before each further attempt.
async fn one(mut ctx: Ctx, input: Value) -> Ended {
    let effect = if input["writes"] == true { Effect::Write } else { Effect::Read };
    let retry = RetryPolicy { attempts: 9, delay_ms: 10_000, max_delay_ms: 10_000, ..RetryPolicy::default() };
    ctx.step("a", Work::new("kind", effect, json!({})).retry(retry)).await
}

struct Rig {
    engine: Engine,
    to: Sender<Message>,
    machine: Arc<ByHand>,
}

impl Rig {
    /// An engine with room for as many attempts, by the clock of the one before.
    fn new(store: &Arc<dyn Store>, files: usize, now: Micros) -> Rig {
        let machine = Arc::new(ByHand { files, ..ByHand::default() });
        machine.clock.store(now, Ordering::SeqCst);
        let around = Surroundings {
            store: store.clone(),
            kinds: Registry::default().with("kind", Kind),
            programs: Arc::new(Definitions::default().with_code("one", "1", Code::new(one))),
            machine: machine.clone(),
            observer: None,
        };
        let ownership = store.acquire(0, "a test").unwrap().expect("nobody has it");
        let (engine, to) = Engine::new(around, 0, ownership);
        Rig { engine, to, machine }
    }

    fn say(&self, command: Command) -> Receiver<Answer> {
        let (reply, answer) = channel();
        let from = ReplyTo::Caller(reply);
        self.to.send(Message::Command { command, actor: Arc::from("test"), from, watch: None }).unwrap();
        answer
    }

    fn start(&self, id: &str, input: Value) {
        self.say(Command::Start(start_code("one", "1", id, input)));
    }

    /// Goes on until nothing moves any more but the clock and the hand.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 20 {
            let (tell, told) = channel();
            self.to.send(Message::Settle(tell)).unwrap();
            while told.try_recv().is_err() {
                assert!(self.engine.round().is_none(), "the loop ended");
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            quiet += 1;
        }
    }

    /// Attempts that began since the last look, by workflow and number.
    fn began(&mut self) -> Vec<(Attempt, Sender<Message>)> {
        self.settle();
        std::mem::take(&mut *self.machine.began.lock().unwrap())
    }

    /// The one attempt that began fails.
    fn one_fails(&mut self) -> (String, u32) {
        let mut began = self.began();
        let told: Vec<_> =
            began.iter().map(|(a, _)| (a.call.workflow_id.to_string(), a.call.attempt)).collect();
        assert_eq!(began.len(), 1, "{told:?}");
        let (Attempt { call, flight, .. }, to) = began.remove(0);
        let error = Failure::new(error_type::COMMUNICATION, 503, "It failed", "as told");
        to.send(Message::Report {
            workflow_id: call.workflow_id.clone(),
            key: call.key.clone(),
            attempt: call.attempt,
            outcome: Outcome::Failed { error, retry_after_ms: None, usage: None },
            latency_ms: 1,
            flight,
        })
        .unwrap();
        (call.workflow_id.to_string(), call.attempt)
    }

    fn passes(&self, time: Micros) {
        self.machine.clock.fetch_add(time, Ordering::SeqCst);
    }

    fn pauses_and_goes_on(&mut self, id: &str) {
        let (workflow_id, reason): (Arc<str>, _) = (Arc::from(id), String::new());
        self.say(Command::Pause { workflow_id: workflow_id.clone(), reason: reason.clone() });
        self.settle();
        self.say(Command::Unpause { workflow_id, reason, raised: Vec::new() });
        self.settle();
    }
}

fn memory() -> Arc<dyn Store> {
    foldback::store::open("memory:").unwrap()
}

fn of(id: &str, attempt: u32) -> (String, u32) {
    (id.to_owned(), attempt)
}

/// A pause that ends sets the alarm of a delay once more, and both ring while there is room for one attempt.
#[test]
fn a_pause_within_a_delay_skips_no_later_one() {
    let mut rig = Rig::new(&memory(), 1, 1_000 * SECOND);
    rig.start("w", json!({}));
    assert_eq!(rig.one_fails(), of("w", 1));
    rig.settle();
    rig.pauses_and_goes_on("w");
    rig.passes(11 * SECOND);
    assert_eq!(rig.one_fails(), of("w", 2));
    assert_eq!(rig.began().len(), 0, "the third begins without its delay");
    rig.passes(4 * SECOND);
    assert_eq!(rig.began().len(), 0);
    rig.passes(7 * SECOND);
    assert_eq!(rig.one_fails(), of("w", 3));
}

/// A pause that ends puts a step that waits for room into the queue once more.
#[test]
fn a_pause_while_a_step_waits_for_room_skips_no_delay() {
    let mut rig = Rig::new(&memory(), 1, 1_000 * SECOND);
    rig.start("v", json!({}));
    rig.settle();
    rig.start("w", json!({}));
    rig.settle();
    rig.pauses_and_goes_on("w");
    assert_eq!(rig.one_fails(), of("v", 1));
    assert_eq!(rig.one_fails(), of("w", 1));
    assert_eq!(rig.began().len(), 0, "the second begins without its delay");
    rig.passes(11 * SECOND);
    let mut both = [rig.one_fails(), rig.one_fails()];
    both.sort();
    assert_eq!(both, [of("v", 2), of("w", 2)]);
}

/// Both looked before what was left of the attempt was ended: the second is told so as the first is, and does
/// not find the place empty that the first one has emptied.
#[test]
fn two_who_say_at_once_that_it_did_not_happen_hear_of_one_look() {
    let store = memory();
    let mut rig = Rig::new(&store, 9, 1_000 * SECOND);
    rig.start("w", json!({"writes": true}));
    assert_eq!(rig.began().len(), 1);
    // It dies, and the next engine finds nothing at first.
    drop(rig);
    let mut rig = Rig::new(&store, 9, 1_001 * SECOND);
    let id: Arc<str> = Arc::from("w");
    rig.say(Command::Resume { workflow_id: id.clone() });
    let finds = |rig: &mut Rig, remains: &Remains| {
        rig.settle();
        let looks = std::mem::take(&mut *rig.machine.looks.lock().unwrap());
        assert_eq!(looks.len(), 1, "one look at a time");
        for (look, to) in looks {
            let Look { workflow_id, key, attempt, .. } = look;
            to.send(Message::Looked { workflow_id, key, attempt, remains: remains.clone() }).unwrap();
        }
        rig.settle();
    };
    let nothing = Remains::Nothing { found: String::new() };
    finds(&mut rig, &nothing);
    assert_eq!(store.workflow("w").unwrap().unwrap().status, Status::Unknown.as_str());

    let didnt =
        |rig: &Rig| rig.say(Command::Resolve { workflow_id: id.clone(), key: Key::from("a"), landed: None });
    let answers = [didnt(&rig), didnt(&rig)];
    finds(&mut rig, &Remains::Ended { found: "its process was ended (pid 7)".into() });
    for answer in answers {
        let refusal = answer.try_recv().expect("an answer").expect_err("it was still under way");
        assert!(refusal.message.contains("its process was ended (pid 7)"), "{}", refusal.message);
    }
    // Who looked since is believed, by a look of its own; whoever says the same with it comes too late.
    let answers = [didnt(&rig), didnt(&rig)];
    finds(&mut rig, &nothing);
    let [first, second] = answers.map(|answer| answer.try_recv().expect("an answer"));
    first.expect("it did not happen");
    let refusal = second.expect_err("it is known already");
    assert!(refusal.message.contains("is not unknown"), "{}", refusal.message);
    // Before it is sent once more, it is looked for what is left of it by then.
    finds(&mut rig, &nothing);
    assert_eq!(rig.began().len(), 1, "it is sent once more");
    let status = rig.engine.state("w").and_then(|state| state.step(&Key::from("a"))).map(|step| step.status);
    assert_eq!(status, Some(StepStatus::Running));
}
