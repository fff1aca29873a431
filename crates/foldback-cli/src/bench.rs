//! `bench`: what this machine does, on a file of its own that is removed afterwards.
//!
//! A figure stands beside the bare database loop of the same run on the identical table and
//! indexes, in turn (A B A B), so that the ratio means something on a noisy machine. Payloads do
//! not compress; durability is full; each row says what it ran.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::rehearse::rehearse;
use foldback::core::value::Payload;
use foldback::core::{Effect, Event, EventId, Fact, Hash, Outcome, WorkflowState};
use foldback::engine::engine::{Engine, Message, ReplyTo, Surroundings};
use foldback::engine::{Call, Command, Performing, Registry, StepKind};
use foldback::programs::{Definitions, start_code};
use foldback::store::{Append, Commit, Expected, NewEvent, Store, raw};
use serde_json::{Value, json};

use crate::args::{BenchArgs, Cli};
use crate::error::{Error, Exit};
use crate::out::{Line, Out, say};

/// How long one measurement lasts, and how often each is taken.
const SECONDS: f64 = 5.0;
const TURNS: usize = 2;
/// Appends, and workflows, in flight.
const IN_FLIGHT: usize = 1_000;
/// Steps of a benchmark's workflow: 22 events, as the shape of the table was measured with.
const STEPS: u64 = 10;

struct Row {
    bench: &'static str,
    value: f64,
    unit: &'static str,
    raw: Option<f64>,
    /// To `raw`, unless the note says to what.
    ratio: Option<f64>,
    note: String,
}

impl Row {
    fn new(bench: &'static str, value: f64, unit: &'static str, note: impl Into<String>) -> Row {
        Row { bench, value, unit, raw: None, ratio: None, note: note.into() }
    }

    fn against(self, raw: f64) -> Row {
        Row { raw: Some(raw), ratio: Some(self.value / raw), ..self }
    }
}

/// Runs all rows.
pub fn bench(cli: &Cli, _args: &BenchArgs) -> Result<Exit, Error> {
    // Not in the temporary directory: that is often memory, where durability costs nothing.
    let folder = std::path::PathBuf::from(format!("foldback-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| Error::machine(format!("{}: {e}", folder.display())))?;
    let rows = measure(&folder, cli);
    // A folder that cannot be removed is only a nuisance; the figures are good.
    let _left = std::fs::remove_dir_all(&folder);
    rows.map(|()| Exit::Done)
}

fn measure(folder: &std::path::Path, cli: &Cli) -> Result<(), Error> {
    let mut out = Out::new();
    let mut print = |row: Row| -> Result<(), Error> {
        if cli.json {
            out.json(&json!({"bench": row.bench, "value": row.value, "unit": row.unit, "raw": row.raw, "ratio": row.ratio, "note": row.note}))?;
        } else {
            let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let raw = row.raw.map(|raw| format!("of raw {raw:.0}")).unwrap_or_default();
            out.line(Line::new().plain(format!(
                "{:<10} {:>9.0} {:<8} {ratio:>5} {raw:<14} {}",
                row.bench, row.value, row.unit, row.note
            )))?;
        }
        out.flush()
    };
    say(format!(
        "each row takes up to {:.0} s; a quiet machine gives quiet figures",
        2.0 * SECONDS * TURNS as f64
    ));
    let file = |name: &str| folder.join(name);
    let (mut appended, mut stepped, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    let (mut raw_many, mut raw_one) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        raw_many.push(raw::raw_append_loop(&file(&format!("raw{turn}.db")), 2 * IN_FLIGHT, SECONDS)?);
        appended.push(append(&file(&format!("append{turn}.db")))?);
        stepped.push(steps(&file(&format!("steps{turn}.db")), IN_FLIGHT, STEPS)?);
        raw_one.push(raw::raw_append_loop(&file(&format!("one{turn}.db")), 2, SECONDS)? / 2.0);
        alone.push(steps(&file(&format!("alone{turn}.db")), 1, STEPS)?);
    }
    let (raw_many, raw_one) = (middle(&raw_many), middle(&raw_one));
    let note = format!("{IN_FLIGHT} appends of 2 events in flight");
    print(Row::new("append", middle(&appended), "events/s", note).against(raw_many))?;
    let note = format!("{IN_FLIGHT} workflows in flight, 2 events a step; raw is rows/s over 2");
    print(Row::new("steps", middle(&stepped), "steps/s", note).against(raw_many / 2.0))?;
    let note = "one workflow, whose steps run ahead of the disk; raw is commits/s of 2 rows";
    print(Row::new("alone", middle(&alone), "steps/s", note).against(raw_one))?;
    let (typed, decoded) = fold();
    print(Row::new("fold", typed, "steps/s", "typed events in memory, each judged and applied"))?;
    print(Row::new("fold-json", decoded, "steps/s", "the same from their stored JSON"))?;
    let (early, late) = one_long(&file("long.db"))?;
    let note =
        format!("steps 9,000 to 10,000 of one workflow; the ratio is to its steps 10 to 1,010 ({early:.0})");
    print(Row { ratio: Some(late / early), ..Row::new("long", late, "steps/s", note) })?;
    for (i, (name, bytes)) in
        [("value-256", 256), ("value-1k", 1_024), ("value-4k", 4_096), ("value-16k", 16_384)]
            .into_iter()
            .enumerate()
    {
        let inline = values(&file(&format!("inline{i}.db")), bytes, false)?;
        let beside = values(&file(&format!("beside{i}.db")), bytes, true)?;
        let note = format!(
            "one value of {bytes} bytes an event, inline; the ratio is to the same by reference ({beside:.0})"
        );
        print(Row { ratio: Some(inline / beside), ..Row::new(name, inline, "events/s", note) })?;
    }
    Ok(())
}

fn middle(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Text that does not compress: 160 hex digits of a xorshift.
fn noise(dice: &mut u64) -> String {
    let mut text = String::with_capacity(160);
    for _ in 0..10 {
        *dice ^= *dice << 13;
        *dice ^= *dice >> 7;
        *dice ^= *dice << 17;
        text.push_str(&format!("{dice:016x}"));
    }
    text
}

// ---- append ---------------------------------------------------------------------------------

fn append(path: &std::path::Path) -> Result<f64, Error> {
    let (mut dice, mut serial) = (88_172_645_463_325_252, 0);
    commits(path, SECONDS, &mut || {
        let events = (0..2).map(|_| event(&mut serial, &noise(&mut dice))).collect();
        (events, Vec::new())
    })
}

/// Events a second with one value of so many bytes each, inline or beside the log.
fn values(path: &std::path::Path, bytes: usize, is_beside: bool) -> Result<f64, Error> {
    let (mut dice, mut serial) = (88_172_645_463_325_252, 0);
    commits(path, SECONDS / 4.0, &mut || {
        let mut text = String::new();
        while text.len() < bytes {
            text.push_str(&noise(&mut dice));
        }
        text.truncate(bytes);
        if !is_beside {
            return (vec![event(&mut serial, &text)], Vec::new());
        }
        let bytes = format!("\"{text}\"").into_bytes();
        let payload = Payload { hash: Hash::of_bytes(&bytes), media_type: "application/json".into(), bytes };
        (vec![event(&mut serial, &payload.hash.to_hex())], vec![payload])
    })
}

/// Events a second with so many commits in flight, each what `next` makes.
fn commits(
    path: &std::path::Path,
    seconds: f64,
    next: &mut dyn FnMut() -> (Vec<NewEvent>, Vec<Payload>),
) -> Result<f64, Error> {
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let ownership = store.acquire(0, "bench")?.ok_or_else(|| Error::machine("the bench file is taken"))?;
    let (done, acknowledged) = channel();
    let mut versions = vec![0u64; IN_FLIGHT];
    let mut names: Vec<Arc<str>> = (0..IN_FLIGHT).map(|w| Arc::from(format!("w{w}"))).collect();
    let begun = Instant::now();
    let mut send = |w: usize| {
        if versions[w] >= 22 {
            (versions[w], names[w]) = (0, Arc::from(format!("{}'", names[w])));
        }
        let (events, payloads) = next();
        let count = events.len() as u64;
        let (workflow_id, expected) = (names[w].clone(), Expected::Exact(versions[w]));
        let append = Append { workflow_id, expected, events, begins: None, status: None };
        versions[w] += count;
        let commit = Commit { epoch: ownership.epoch, appends: vec![append], payloads, ..Commit::default() };
        let done = done.clone();
        store.commit(commit, Box::new(move |result| drop(done.send(result.map(|_| (w, count))))));
    };
    (0..IN_FLIGHT).for_each(&mut send);
    let (mut in_flight, mut written) = (IN_FLIGHT, 0);
    while in_flight > 0 {
        let end = acknowledged.recv().map_err(|_| Error::machine("the writer is gone"))?;
        let (w, count) = end.map_err(|e| Error::machine(format!("a commit failed: {e:?}")))?;
        written += count;
        if begun.elapsed().as_secs_f64() < seconds {
            send(w);
        } else {
            in_flight -= 1;
        }
    }
    Ok(written as f64 / begun.elapsed().as_secs_f64())
}

fn event(serial: &mut u128, output: &str) -> NewEvent {
    *serial += 1;
    NewEvent {
        id: EventId(serial.to_be_bytes()),
        is_id_supplied: false,
        event_type: Arc::from("StepCompleted"),
        schema_version: 1,
        payload: format!(r#"{{"key":"noop","attempt":1,"output":{{"inline":"{}"}},"latency_ms":0}}"#, output),
        timestamp: 1_700_000_000_000_000,
        causation_id: Some(EventId([1; 16])),
        correlation_id: Some(EventId([2; 16])),
        actor: Arc::from("engine"),
        codec: Arc::from("json"),
        key_id: None,
    }
}

// ---- steps ----------------------------------------------------------------------------------

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

async fn sequence(mut ctx: Ctx, input: Value) -> Ended {
    for _ in 0..input.as_u64().unwrap_or(0) {
        ctx.step("noop", Work::new("noop", Effect::Pure, json!({}))).await?;
    }
    Ok(Value::Null)
}

struct Running {
    runtime: tokio::runtime::Runtime,
    to_loop: std::sync::mpsc::Sender<Message>,
    thread: std::thread::JoinHandle<Result<(), foldback::store::StoreError>>,
}

fn engine(store: Arc<dyn Store>) -> Result<Running, Error> {
    let ownership = store.acquire(0, "bench")?.ok_or_else(|| Error::machine("the bench file is taken"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| Error::machine(e.to_string()))?;
    let around = Surroundings {
        store,
        kinds: Registry::default().with("noop", Noop(AtomicU64::new(1))),
        programs: Arc::new(Definitions::default().with_code("bench", "1", Code::new(sequence))),
        pool: runtime.handle().clone(),
        observer: None,
    };
    let (hand_over, take) = channel();
    let thread = std::thread::spawn(move || {
        let (engine, to_loop) = Engine::new(around, 0, ownership);
        let _gone = hand_over.send(to_loop);
        engine.run()
    });
    let to_loop = take.recv().map_err(|_| Error::machine("the loop ended at once"))?;
    Ok(Running { runtime, to_loop, thread })
}

impl Running {
    fn start(&self, id: &str, steps: u64, rest: &std::sync::mpsc::Sender<foldback::engine::Rest>) {
        let start = start_code("bench", "1", id, json!(steps));
        let command = Message::Command {
            command: Command::Start(start),
            actor: Arc::from("bench"),
            from: ReplyTo::Nobody,
            watch: Some(rest.clone()),
        };
        let _gone = self.to_loop.send(command);
    }

    fn end(self) -> Result<(), Error> {
        let _gone = self.to_loop.send(Message::WindDown);
        self.thread.join().map_err(|_| Error::machine("the loop panicked"))??;
        self.runtime.shutdown_background();
        Ok(())
    }
}

/// Steps a second with so many workflows in flight, each of `length` steps, a new one when one ends.
fn steps(path: &std::path::Path, in_flight: usize, length: u64) -> Result<f64, Error> {
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let running = engine(store)?;
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
    let rate = ended as f64 / begun.elapsed().as_secs_f64();
    running.end()?;
    Ok(rate)
}

/// The rate of one workflow's steps 10 to 1,010, and 9,000 to 10,000, by the times in its log.
fn one_long(path: &std::path::Path) -> Result<(f64, f64), Error> {
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let running = engine(store.clone())?;
    let (rest, rested) = channel();
    running.start("long", 10_000, &rest);
    rested
        .recv_timeout(Duration::from_secs(300))
        .map_err(|_| Error::machine("10,000 steps took more than 300 s"))?;
    running.end()?;
    let events =
        foldback::engine::events_of(&*store, "long", 0).map_err(|e| Error::machine(e.to_string()))?;
    let done: Vec<i64> =
        events.iter().filter(|e| matches!(e.fact, Fact::StepCompleted(_))).map(|e| e.timestamp).collect();
    let rate = |from: usize, to: usize| (to - from) as f64 / ((done[to] - done[from]) as f64 / 1e6);
    Ok((rate(10, 1_010), rate(9_000, 9_999)))
}

// ---- fold -----------------------------------------------------------------------------------

/// Steps a second of folding from typed events, and from their stored JSON.
fn fold() -> (f64, f64) {
    let dice = std::cell::Cell::new(7);
    let world = |_: &foldback::core::Key, _: &foldback::core::Step, _: u32| {
        let mut seed = dice.get();
        let output = Value::String(noise(&mut seed));
        dice.set(seed);
        Outcome::Completed { output, usage: None }
    };
    let log = rehearse(&Code::new(sequence), "w", json!(1_000), &world).events;
    let stored: Vec<(String, String)> =
        log.iter().map(|e| (e.fact.event_type().to_owned(), e.fact.encode())).collect();
    let rate = |fold: &dyn Fn()| {
        let (begun, mut steps) = (Instant::now(), 0.0);
        while begun.elapsed().as_secs_f64() < SECONDS / 2.0 {
            fold();
            steps += 1_000.0;
        }
        steps / begun.elapsed().as_secs_f64()
    };
    let typed = rate(&|| drop(std::hint::black_box(WorkflowState::fold("w", &log))));
    let decoded = rate(&|| {
        let mut state = WorkflowState::empty("w");
        for (event, (event_type, payload)) in log.iter().zip(&stored) {
            let Ok(fact) = Fact::decode(event_type, 1, payload) else {
                return;
            };
            let event = Event { fact, actor: event.actor.clone(), ..*event };
            if state.admits(&event).is_err() {
                return;
            }
            state.apply(&event);
        }
        std::hint::black_box(state.version);
    });
    (typed, decoded)
}
