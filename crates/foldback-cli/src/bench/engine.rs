//! Rows of the whole engine: a loop, a store, and steps that do nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::{Effect, Fact, Outcome, Program};
use foldback::engine::engine::{Engine, Message, ReplyTo, Surroundings};
use foldback::engine::projector::{Projecting, Projector};
use foldback::engine::{Call, Command, Performing, Programs, Registry, StepKind, ThisMachine};
use foldback::programs::{Definitions, start_code};
use foldback::store::{Store, raw};
use serde_json::{Value, json};

use super::past::Rounds;
use super::{IN_FLIGHT, Row, SECONDS, TURNS, mean, noise};
use crate::error::Error;

/// Steps of a benchmark's workflow: 22 events, as the shape of the table was measured with.
const STEPS: u64 = 10;

/// Steps of the long one.
const LONG: u64 = 10_000;

/// `steps`: many workflows.
pub fn many(folder: &Path) -> Result<Vec<Row>, Error> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        bare.push(raw::raw_append_loop(&folder.join(format!("raws{turn}.db")), 2 * IN_FLIGHT, SECONDS)?);
        ours.push(steps(&folder.join(format!("steps{turn}.db")), IN_FLIGHT, STEPS, Views::Off)?);
    }
    let note = format!("{IN_FLIGHT} workflows in flight, 2 events a step; raw is rows/s over 2");
    Ok(vec![Row::new("steps", mean(&ours), "steps/s", note).against(mean(&bare) / 2.0)])
}

/// `projected`: the same with the built-in projections folded beside it, until they are up to date.
pub fn projected(folder: &Path) -> Result<Vec<Row>, Error> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let path = |name: &str| folder.join(format!("{name}{turn}.db"));
        without.push(steps(&path("unseen"), IN_FLIGHT, STEPS, Views::Off)?);
        with.push(steps(&path("seen"), IN_FLIGHT, STEPS, Views::On)?);
    }
    let note = "as `steps`, with the built-in projections up to date at the end; raw is without them";
    Ok(vec![Row::new("projected", mean(&with), "steps/s", note).against(mean(&without))])
}

/// What makes no projection but the built-in ones.
pub fn views_alone() -> Arc<dyn Programs> {
    Arc::new(Definitions::default())
}

/// Whether the built-in projections are folded.
#[derive(Clone, Copy, PartialEq)]
enum Views {
    On,
    Off,
}

/// `alone`: one workflow.
pub fn alone(folder: &Path) -> Result<Vec<Row>, Error> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        bare.push(raw::raw_append_loop(&folder.join(format!("one{turn}.db")), 2, SECONDS)? / 2.0);
        ours.push(steps(&folder.join(format!("alone{turn}.db")), 1, STEPS, Views::Off)?);
    }
    let note = "one workflow, whose steps run ahead of the disk; raw is commits/s of 2 rows";
    Ok(vec![Row::new("alone", mean(&ours), "steps/s", note).against(mean(&bare))])
}

/// `long`, `back` and `verify`: one workflow of 10,000 steps, the same brought back from its file, and
/// walked from version 1 against its program.
pub fn long(folder: &Path) -> Result<Vec<Row>, Error> {
    let path = folder.join("long.db");
    let (early, late) = one_long(&path, folder)?;
    let note =
        format!("steps 9,000 to 10,000 of one workflow; the ratio is to its steps 10 to 1,010 ({early:.0})");
    let long = Row { ratio: Some(late / early), ..Row::new("long", late, "steps/s", note) };
    let mut times: Vec<f64> = (0..9).map(|n| back(folder, n)).collect::<Result<_, _>>()?;
    times.sort_by(f64::total_cmp);
    let note = format!(
        "a Rust workflow of {LONG} steps, as a killed process leaves its files: open them, take the shard, fold (with \
         its snapshots), first turn; {:.0} ms each",
        times[4] * 1e3
    );
    let back = Row::new("back", 1.0 / times[4], "1/s", note);
    let note = "the same, every consequence derived anew and compared, from its file";
    Ok(vec![long, back, Row::new("verify", verified(&path)?, "events/s", note)])
}

/// Events a second of a walk; the best of five.
fn verified(path: &Path) -> Result<f64, Error> {
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let events = store.workflow("long")?.map_or(0, |row| row.version) as f64;
    let mut best: f64 = 0.0;
    for _ in 0..5 {
        let begun = Instant::now();
        let walked = foldback::engine::verify(&*store, "long", &Code::new(sequence))
            .map_err(|e| Error::machine(e.to_string()))?;
        best = best.max(events / begun.elapsed().as_secs_f64());
        if let Some(parting) = walked.parting {
            return Err(Error::machine(format!(
                "the long workflow is not what its program does: {parting:?}"
            )));
        }
    }
    Ok(best)
}

/// The files of a store that is open: what a SIGKILL would leave of it now, the newest commits not yet in
/// the file itself.
pub fn leave(path: &Path, folder: &Path) -> Result<(), Error> {
    for n in 0..9 {
        for end in ["", "-wal"] {
            let from = std::path::PathBuf::from(format!("{}{end}", path.display()));
            if from.exists() {
                let to = folder.join(format!("left{n}.db{end}"));
                std::fs::copy(&from, &to).map_err(|e| Error::machine(format!("{}: {e}", from.display())))?;
            }
        }
    }
    Ok(())
}

/// Seconds until the workflow of the files that a process left can go on, just before its end.
fn back(folder: &Path, n: usize) -> Result<f64, Error> {
    let broken = |e: foldback::engine::LoadError| Error::machine(e.to_string());
    let path = folder.join(format!("left{n}.db"));
    let begun = Instant::now();
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let _owned = store.acquire(0, "bench")?.ok_or_else(|| Error::machine("the file is taken"))?;
    let ends = store.workflow("long")?.map_or(0, |row| row.version);
    let state = foldback::engine::state_at(&*store, "long", Some(ends - 1)).map_err(broken)?;
    let state = state.ok_or_else(|| Error::machine("the long workflow is not there"))?;
    let turn = Code::new(sequence).start(&state).turn(&state);
    let seconds = begun.elapsed().as_secs_f64();
    match turn {
        foldback::core::Turn::Ends(Ok(_)) => Ok(seconds),
        other => Err(Error::machine(format!("the long workflow did not come back: {other:?}"))),
    }
}

/// A step that does nothing but answer with noise.
struct Noop(AtomicU64);

impl StepKind for Noop {
    fn perform(&self, _call: Call) -> Performing {
        let mut dice = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) | 1;
        Box::pin(std::future::ready(Outcome::Completed {
            output: Value::String(noise(&mut dice)),
            usage: None,
        }))
    }
}

pub async fn sequence(mut ctx: Ctx, input: Value) -> Ended {
    for _ in 0..input.as_u64().unwrap_or(0) {
        ctx.step("noop", Work::new("noop", Effect::Pure, json!({}))).await?;
    }
    Ok(Value::Null)
}

pub struct Running {
    runtime: tokio::runtime::Runtime,
    pub to_loop: std::sync::mpsc::Sender<Message>,
    thread: std::thread::JoinHandle<Result<(), foldback::store::StoreError>>,
    epoch: u64,
}

pub fn engine(store: Arc<dyn Store>) -> Result<Running, Error> {
    engine_with(store, Definitions::default().with_code("bench", "1", Code::new(sequence)), None)
}

/// An engine for one program in Rust, and who watches it.
pub fn engine_of<P: foldback::core::Program + 'static>(
    store: Arc<dyn Store>,
    (name, program): (&str, P),
    observer: Option<Arc<dyn foldback::engine::Observer>>,
) -> Result<Running, Error> {
    engine_with(store, Definitions::default().with_code(name, "1", program), observer)
}

fn engine_with(
    store: Arc<dyn Store>,
    programs: Definitions,
    observer: Option<Arc<dyn foldback::engine::Observer>>,
) -> Result<Running, Error> {
    let ownership = store.acquire(0, "bench")?.ok_or_else(|| Error::machine("the bench file is taken"))?;
    let epoch = ownership.epoch;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| Error::machine(e.to_string()))?;
    let around = Surroundings {
        store,
        kinds: Registry::default().with("noop", Noop(AtomicU64::new(1))),
        programs: Arc::new(programs.with_code("rounds", "1", Rounds)),
        machine: Arc::new(ThisMachine::new(runtime.handle().clone())),
        observer,
    };
    let (hand_over, take) = channel();
    let thread = std::thread::spawn(move || {
        let (engine, to_loop) = Engine::new(around, 0, ownership);
        let _gone = hand_over.send(to_loop);
        engine.run()
    });
    let to_loop = take.recv().map_err(|_| Error::machine("the loop ended at once"))?;
    Ok(Running { runtime, to_loop, thread, epoch })
}

impl Running {
    pub fn say(&self, command: Command, rest: &std::sync::mpsc::Sender<foldback::engine::Rest>) {
        let command = Message::Command {
            command,
            actor: Arc::from("bench"),
            from: ReplyTo::Nobody,
            watch: Some(rest.clone()),
        };
        let _gone = self.to_loop.send(command);
    }

    /// Says a command that nobody waits for.
    pub fn tell(&self, command: Command) {
        let (actor, from) = (Arc::from("bench"), ReplyTo::Nobody);
        let _gone = self.to_loop.send(Message::Command { command, actor, from, watch: None });
    }

    fn start(&self, id: &str, steps: u64, rest: &std::sync::mpsc::Sender<foldback::engine::Rest>) {
        self.say(Command::Start(start_code("bench", "1", id, json!(steps))), rest);
    }

    pub fn end(self) -> Result<(), Error> {
        let _gone = self.to_loop.send(Message::WindDown);
        self.thread.join().map_err(|_| Error::machine("the loop panicked"))??;
        self.runtime.shutdown_background();
        Ok(())
    }
}

/// Steps a second with so many workflows in flight, each of `length` steps, a new one when one ends.
fn steps(path: &Path, in_flight: usize, length: u64, views: Views) -> Result<f64, Error> {
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let running = engine(store.clone())?;
    let projecting =
        (views == Views::On).then(|| Projecting::begin(store.clone(), views_alone(), 0, running.epoch));
    let (rest, rested) = channel();
    let begun = Instant::now();
    let mut serial = 0;
    let mut next = || {
        serial += 1;
        running.start(&format!("w{serial}"), length, &rest);
    };
    (0..in_flight).for_each(|_| next());
    let (mut left, mut ended) = (in_flight, 0);
    while left > 0 {
        rested
            .recv_timeout(Duration::from_secs(60))
            .map_err(|_| Error::machine("a workflow did not end within 60 s"))?;
        ended += length;
        if begun.elapsed().as_secs_f64() < SECONDS { next() } else { left -= 1 }
    }
    if let Some(projecting) = projecting {
        projecting.finish();
        let mut rest = Projector::new(store, views_alone(), 0, running.epoch)?;
        while rest.step()? > 0 {}
    }
    let rate = ended as f64 / begun.elapsed().as_secs_f64();
    running.end()?;
    Ok(rate)
}

/// The rate of one workflow's steps 10 to 1,010, and 9,000 to 10,000, by the times in its log.
fn one_long(path: &Path, folder: &Path) -> Result<(f64, f64), Error> {
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let running = engine(store.clone())?;
    let (rest, rested) = channel();
    running.start("long", LONG, &rest);
    rested
        .recv_timeout(Duration::from_secs(300))
        .map_err(|_| Error::machine("10,000 steps took more than 300 s"))?;
    running.end()?;
    leave(path, folder)?;
    let events =
        foldback::engine::events_of(&*store, "long", 0).map_err(|e| Error::machine(e.to_string()))?;
    let done: Vec<i64> =
        events.iter().filter(|e| matches!(e.fact, Fact::StepCompleted(_))).map(|e| e.timestamp).collect();
    let rate = |from: usize, to: usize| (to - from) as f64 / ((done[to] - done[from]) as f64 / 1e6);
    Ok((rate(10, 1_010), rate(9_000, 9_999)))
}
