//! What seeds found, each as a short story of its own: a seed means something else when the dice are
//! rolled otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::channel;

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::{Effect, Fact, Failure, Outcome, Recovery, Status};
use foldback::engine::engine::{Message, ReplyTo};
use foldback::engine::{Attempt, Branching, Command, events_of, prepare_retry, state_at};
use foldback::programs::{Definitions, start_code, start_document};
use serde_json::{Value, json};

use crate::disk::Disk;
use crate::fronts::{self, KIND};
use crate::process::{Birth, Process};
use crate::recipe::{Node, Plan};

async fn two_reads(mut ctx: Ctx, _input: Value) -> Ended {
    let a = ctx.step("a", Work::new(KIND, Effect::Read, json!({}))).await?;
    ctx.step("b", Work::new(KIND, Effect::Read, json!({ "of": a }))).await
}

/// Lets everything queued reach the disk, and gives the attempts that begin.
fn go_on(process: &mut Process) -> Vec<Attempt> {
    let mut begun = Vec::new();
    while process.shelf.waiting() != (0, 0) {
        process.shelf.write(usize::MAX);
        process.shelf.tell(usize::MAX);
        begun.extend(round(process));
    }
    begun
}

fn round(process: &mut Process) -> Vec<Attempt> {
    assert_eq!(process.engine.round(), None, "the engine goes on");
    process.machine.begun().into_iter().map(|(attempt, _)| attempt).collect()
}

fn tell(process: &Process, command: Command) {
    let (actor, from) = (Arc::from("test"), ReplyTo::Nobody);
    process.to.send(Message::Command { command, actor, from, watch: None }).unwrap();
}

/// Says a command, and lets what follows reach the disk. Gives the attempts that begin.
fn say(process: &mut Process, command: Command) -> Vec<Attempt> {
    tell(process, command);
    let mut begun = round(process);
    begun.extend(go_on(process));
    begun
}

fn answer(process: &Process, attempt: &Attempt, output: Value) {
    report(process, attempt, Outcome::Completed { output, usage: None });
}

fn report(process: &Process, attempt: &Attempt, outcome: Outcome) {
    let call = &attempt.call;
    let _gone = process.to.send(Message::Report {
        workflow_id: call.workflow_id.clone(),
        key: call.key.clone(),
        attempt: call.attempt,
        outcome,
        latency_ms: 1,
        flight: attempt.flight,
    });
}

/// `b` runs ahead of the commit that asks for it; the commit is refused, `a` is done again and answers
/// otherwise. What the first `b` answers is no answer to the second.
#[test]
fn an_attempt_that_ran_ahead_of_a_refused_commit_answers_nothing() {
    let disk = Disk::new(foldback::store::open("memory:").unwrap());
    let birth = Birth {
        serial: 1,
        clock: Arc::new(AtomicI64::new(1_000_000)),
        offset: 0,
        seed: 7,
        is_observed: false,
        programs: Arc::new(Definitions::default().with_code("two", "1", Code::new(two_reads))),
    };
    let mut process = Process::start(&disk, birth).unwrap().expect("free");
    let a = say(&mut process, Command::Start(start_code("two", "1", "w", json!(0)))).remove(0);

    answer(&process, &a, json!(1));
    let ahead = round(&mut process).remove(0);
    assert_eq!(ahead.call.request, json!({ "of": 1 }));
    process.shelf.refuse();
    process.shelf.tell(1);
    round(&mut process);
    let a = go_on(&mut process).remove(0);
    assert_eq!((a.call.key.as_str(), a.call.attempt), ("a", 2));

    answer(&process, &a, json!(2));
    let b = round(&mut process).remove(0);
    assert_eq!(b.call.request, json!({ "of": 2 }), "it is asked anew");
    go_on(&mut process);
    answer(&process, &ahead, json!("to 1"));
    answer(&process, &b, json!("to 2"));
    round(&mut process);
    go_on(&mut process);
    let events = events_of(&*disk.store, "w", 0).unwrap();
    let Some(Fact::WorkflowCompleted { output }) = events.last().map(|event| &event.fact) else {
        panic!("{events:?}")
    };
    assert_eq!(*output.get(), json!("to 2"));
}

/// A write, and beside it a read.
async fn side_by_side(mut ctx: Ctx, _input: Value) -> Ended {
    let branch = async |mut ctx: Ctx, effect: Effect| ctx.step("s", Work::new(KIND, effect, json!({}))).await;
    ctx.each("side", vec![Effect::Write, Effect::Read], branch).await
}

/// Wherever a read fails while a workflow is to go back: it went back, or it is as it was.
#[test]
fn who_could_not_go_back_is_as_he_was() {
    let code = Code::new(side_by_side);
    let programs = Arc::new(Definitions::default().with_code("fails", "1", code));
    let mut refused = 0;
    for good_reads in 0..40 {
        let disk = Disk::new(foldback::store::open("memory:").unwrap());
        let birth = Birth {
            serial: 1,
            clock: Arc::new(AtomicI64::new(1_000_000)),
            offset: 0,
            seed: 7,
            is_observed: false,
            programs: programs.clone(),
        };
        let mut process = Process::start(&disk, birth).unwrap().expect("free");
        let mut begun = say(&mut process, Command::Start(start_code("fails", "1", "w", json!(0))));
        begun.sort_by_key(|attempt| attempt.call.key.clone());
        let error = Failure::new("test", 404, "Not there", "");
        report(&process, &begun[1], Outcome::Failed { error, retry_after_ms: None, usage: None });
        answer(&process, &begun[0], json!(1));
        round(&mut process);
        go_on(&mut process);
        // There the write was under way.
        let branching = Branching {
            workflow_id: Arc::from("w"),
            at: Some(3),
            wish: Default::default(),
            definition: None,
        };
        let command = prepare_retry(&*disk.store, &*programs, &branching).unwrap().retry("once more");
        process.shelf.good_reads.store(good_reads, Ordering::Relaxed);
        process.shelf.bad_reads.store(1, Ordering::Relaxed);
        let (reply, told) = channel();
        let (actor, from) = (Arc::from("test"), ReplyTo::Caller(reply));
        process.to.send(Message::Command { command, actor, from, watch: None }).unwrap();
        if process.engine.round().is_some() {
            continue;
        }
        process.machine.begun();
        // Behind the command what it left owed is held against the log: a read that fails there ends the engine.
        let Ok(Err(refusal)) = told.try_recv() else { continue };
        go_on(&mut process);
        assert!(refusal.message.contains("bad read"), "{refusal:?}");
        refused += 1;
        let on_disk = state_at(&*disk.store, "w", None).unwrap();
        if let Some(kept) = process.engine.state("w") {
            assert_eq!(Some(kept), on_disk.as_ref(), "behind {good_reads} good reads");
        }
    }
    assert!(refused > 3, "{refused} reads failed under the command");
}

async fn one_write(mut ctx: Ctx, _input: Value) -> Ended {
    ctx.step("w", Work::new(KIND, Effect::Write, json!({})).recovery(Recovery::Retry)).await
}

/// A process dies over a write of a workflow that is paused. Whoever lets it go on has it sent again, once;
/// whoever ends it is told that nobody knows whether it happened.
#[test]
fn what_was_lost_in_a_pause_is_not_forgotten_behind_it() {
    let (workflow_id, reason) = (Arc::<str>::from("w"), String::new());
    let unpause =
        Command::Unpause { workflow_id: workflow_id.clone(), reason: reason.clone(), raised: Vec::new() };
    let cancel = Command::Cancel { workflow_id: workflow_id.clone(), reason: reason.clone() };
    for (word, again, becomes) in [(unpause, &[2][..], Status::Completed), (cancel, &[], Status::Unknown)] {
        let programs = Arc::new(Definitions::default().with_code("one", "1", Code::new(one_write)));
        let disk = Disk::new(foldback::store::open("memory:").unwrap());
        let birth = |serial| Birth {
            serial,
            clock: Arc::new(AtomicI64::new(1_000_000)),
            offset: 0,
            seed: serial,
            is_observed: false,
            programs: programs.clone(),
        };
        let mut first = Process::start(&disk, birth(1)).unwrap().expect("free");
        let sent = say(&mut first, Command::Start(start_code("one", "1", "w", json!(0))));
        assert_eq!(sent.len(), 1);
        say(&mut first, Command::Pause { workflow_id: workflow_id.clone(), reason: reason.clone() });
        drop(first);

        let mut second = Process::start(&disk, birth(2)).unwrap().expect("free");
        let sent = say(&mut second, Command::Resume { workflow_id: workflow_id.clone() });
        assert!(sent.is_empty(), "it is paused");
        let sent = say(&mut second, word);
        assert_eq!(sent.iter().map(|sent| sent.call.attempt).collect::<Vec<_>>(), again, "{becomes:?}");
        sent.iter().for_each(|sent| answer(&second, sent, json!("done")));
        round(&mut second);
        go_on(&mut second);
        let state = state_at(&*disk.store, "w", None).unwrap().unwrap();
        assert_eq!(state.status(), becomes);
    }
}

/// What came out in a pause is heard behind it, also by a run that was kept, as something else is under way.
#[test]
fn what_came_out_in_a_pause_is_heard_behind_it() {
    let programs = Arc::new(Definitions::default().with_code("two", "1", Code::new(side_by_side)));
    let disk = Disk::new(foldback::store::open("memory:").unwrap());
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let birth = Birth { serial: 1, clock, offset: 0, seed: 1, is_observed: false, programs };
    let mut process = Process::start(&disk, birth).unwrap().expect("free");
    let (workflow_id, reason) = (Arc::<str>::from("w"), String::new());
    let sent = say(&mut process, Command::Start(start_code("two", "1", "w", json!(0))));
    say(&mut process, Command::Pause { workflow_id: workflow_id.clone(), reason: reason.clone() });
    answer(&process, &sent[0], json!("done"));
    round(&mut process);
    go_on(&mut process);
    say(&mut process, Command::Unpause { workflow_id, reason, raised: Vec::new() });
    answer(&process, &sent[1], json!("done"));
    round(&mut process);
    go_on(&mut process);
    let state = state_at(&*disk.store, "w", None).unwrap().unwrap();
    assert_eq!(state.status(), Status::Completed);
}

/// A look, and then two branches: one waits for a word that came before, one looks once more.
async fn hears_in_a_branch(mut ctx: Ctx, _input: Value) -> Ended {
    ctx.step("first", Work::new(KIND, Effect::Read, json!({}))).await?;
    let branch = async |mut ctx: Ctx, hears: bool| match hears {
        true => ctx.listen("hear", "ok").await,
        false => ctx.step("look", Work::new(KIND, Effect::Read, json!({}))).await,
    };
    ctx.each("side", vec![true, false], branch).await
}

/// A word that came early is heard in the branch that waits for it, though the news came from elsewhere.
#[test]
fn a_word_that_came_early_is_heard_in_a_branch() {
    let code = Code::new(hears_in_a_branch);
    let programs = Arc::new(Definitions::default().with_code("hears", "1", code));
    let disk = Disk::new(foldback::store::open("memory:").unwrap());
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let birth = Birth { serial: 1, clock, offset: 0, seed: 1, is_observed: false, programs };
    let mut process = Process::start(&disk, birth).unwrap().expect("free");
    let mut sent = say(&mut process, Command::Start(start_code("hears", "1", "w", json!(0))));
    let (workflow_id, name, data) = (Arc::from("w"), Arc::from("ok"), json!("early"));
    say(&mut process, Command::Signal { workflow_id, name, data, event_id: None, error: None });
    while let Some(attempt) = sent.pop() {
        answer(&process, &attempt, json!("seen"));
        sent.extend(round(&mut process));
        sent.extend(go_on(&mut process));
    }
    let state = state_at(&*disk.store, "w", None).unwrap().unwrap();
    assert_eq!(state.status(), Status::Completed);
}

/// A process dies over a write. Before the next one sends it again, it loses its race: what was sent
/// first may have happened, and nobody says that it failed.
#[test]
fn a_write_that_is_not_sent_again_stays_in_doubt() {
    let plan = Plan {
        name: "s".into(),
        effect: Effect::Write,
        recovery: Recovery::Retry,
        keyed: true,
        fails: 0,
        slack: 0,
        tries: 0,
        hopeless: false,
    };
    let source = fronts::document("race", &Node::Race(vec![Node::Step(plan), Node::Wait(1_000)]));
    let loaded = foldback::ows::load(&source, &|path| Err(format!("no file {path}"))).unwrap();
    let disk = Disk::new(foldback::store::open("memory:").unwrap());
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let birth = |serial| Birth {
        serial,
        clock: clock.clone(),
        offset: 0,
        seed: serial,
        is_observed: false,
        programs: Arc::default(),
    };
    let mut first = Process::start(&disk, birth(1)).unwrap().expect("free");
    tell(&first, Command::Start(start_document(&loaded, "w", json!({"sum": 0}))));
    round(&mut first);
    assert_eq!(go_on(&mut first).len(), 1, "it is sent");
    drop(first);

    let mut second = Process::start(&disk, birth(2)).unwrap().expect("free");
    tell(&second, Command::Resume { workflow_id: Arc::from("w") });
    round(&mut second);
    clock.fetch_add(2_000_000, Ordering::Relaxed);
    round(&mut second);
    assert!(go_on(&mut second).is_empty(), "it is not sent again");
    let events = events_of(&*disk.store, "w", 0).unwrap();
    let of_step =
        events.iter().filter(|event| event.fact.key().is_some_and(|key| key.as_str().contains("/s")));
    let types: Vec<&str> = of_step.map(|event| event.fact.event_type()).collect();
    assert_eq!(types, ["StepAsked", "AttemptStarted", "StepCancelled", "OutcomeUnknown"], "{events:?}");
}
