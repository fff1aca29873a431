//! What seeds found, each as a short story of its own: a seed means something else when the dice are
//! rolled otherwise.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::{Effect, Fact, Outcome};
use foldback::engine::engine::{Message, ReplyTo};
use foldback::engine::{Attempt, Command, events_of};
use foldback::programs::{Definitions, start_code};
use serde_json::{Value, json};

use crate::disk::Disk;
use crate::fronts::KIND;
use crate::process::{Birth, Process};

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

fn answer(process: &Process, attempt: &Attempt, output: Value) {
    let call = &attempt.call;
    let _gone = process.to.send(Message::Report {
        workflow_id: call.workflow_id.clone(),
        key: call.key.clone(),
        attempt: call.attempt,
        outcome: Outcome::Completed { output, usage: None },
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
    let command = Command::Start(start_code("two", "1", "w", json!(0)));
    let (actor, from) = (Arc::from("test"), ReplyTo::Nobody);
    process.to.send(Message::Command { command, actor, from, watch: None }).unwrap();
    round(&mut process);
    let a = go_on(&mut process).remove(0);

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
