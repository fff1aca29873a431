//! The simulation: the real engine through crashes, takeovers, failing disks and a world that
//! answers late, twice or never; each run is a seed, and a seed repeats to the byte.
//!
//! `FOLDBACK_SEED=7 cargo test -p foldback --test simulation -- --ignored --nocapture one_seed` tells one seed and what happens
//! in it; `FOLDBACK_SEEDS=100000 … --release … -- --ignored torture` runs many (`make torture`).
//!
//! The rooms: `recipe` and `fronts` (what workflows do), `story` (what a seed stands for), `sim` (what
//! happens next), `process`, `disk`, `world`, `callers`, `branching` and `endings` (what is around the
//! engine), `journal`, `lives`, `judge` and `streamed` (what must hold), `found` (what seeds found), `clocks`
//! (clocks that are set).
//!
//! In a third of the seeds workflows take back what they did. They follow documents (`document`) or Rust code
//! (`orders`), ask `errands` of the world, and `taken` holds them against the `model` and the `ledger`.
//! Documents, model and ledger are those that `foldback-ows` holds against the core alone.

mod branching;
mod callers;
mod clocks;
mod dice;
mod disk;
#[path = "../../../foldback-ows/tests/undoing/document.rs"]
mod document;
mod endings;
mod errands;
mod found;
mod fronts;
mod journal;
mod judge;
#[path = "../../../foldback-ows/tests/undoing/ledger.rs"]
mod ledger;
mod lives;
#[path = "../../../foldback-ows/tests/undoing/model.rs"]
mod model;
mod orders;
mod process;
mod recipe;
mod sim;
mod story;
mod streamed;
mod taken;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use foldback::store::Store;

use disk::Disk;
use judge::{Came, Counts, judge};
use sim::Sim;
use story::Story;

/// Failing seeds that one run tells of.
const FAILURES_SHOWN: usize = 5;

/// Where a seed is run.
#[derive(Clone, Copy, Debug)]
enum On {
    Memory,
    Sqlite,
}

/// Runs a seed, and compares it with the same workflows in a world without faults.
fn run(seed: u64, on: On, trace: bool) -> Result<Came, String> {
    let story = Story::of(seed);
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let url = match on {
        On::Memory => "memory:".to_owned(),
        On::Sqlite => format!("sqlite:{}", folder.path().join("simulation.db").display()),
    };
    let came = played(&story, seed, open(&url)?, true, trace)?;
    if !story.is_volatile {
        let calm = played(&story, seed, open("memory:")?, false, false)
            .map_err(|problem| format!("without any fault: {problem}"))?;
        let (mut rough, mut quiet) = (came.steady(), calm.steady());
        rough.retain(|id, _| !calm.went_back.contains(*id));
        quiet.retain(|id, _| !came.went_back.contains(*id));
        if rough != quiet {
            return Err(format!("ended as {rough:?}\nwithout faults as {quiet:?}"));
        }
    }
    Ok(came)
}

fn open(url: &str) -> Result<Arc<dyn Store>, String> {
    foldback::store::open(url).map_err(|e| e.to_string())
}

fn played(
    story: &Story,
    seed: u64,
    store: Arc<dyn Store>,
    is_rough: bool,
    trace: bool,
) -> Result<Came, String> {
    let disk = Disk::new(store);
    let mut sim = Sim::new(story, seed, disk.clone(), trace);
    let played = catch_unwind(AssertUnwindSafe(|| {
        if is_rough {
            sim.suffer()?;
        }
        sim.heal()?;
        judge(story, &disk, &sim.world, &sim.callers)
    }));
    let came = played.unwrap_or_else(|_| Err("something panicked".into()));
    if trace && came.is_err() {
        tell_logs(&*disk.store);
    }
    came
}

/// Every log, for people who look.
fn tell_logs(store: &dyn Store) {
    for row in store.workflows(&foldback::store::Filter::default()).unwrap_or_default() {
        let events = foldback::engine::events_of(store, &row.workflow_id, 0).unwrap_or_default();
        eprintln!("{} is {}\n{}", row.workflow_id, row.status, foldback::core::text::render(&events));
    }
}

/// Runs a seed; a failure names it, and how to run it again.
fn hold(seed: u64, on: On) -> Result<Came, String> {
    run(seed, on, false).map_err(|problem| {
        format!(
            "seed {seed} on {on:?} fails: {problem}\nagain, with what happens: \
             FOLDBACK_SEED={seed} cargo test -p foldback --test simulation -- --ignored --nocapture one_seed"
        )
    })
}

/// Runs seeds on all cores, until some have failed. Says how many events they came to, and what happened
/// in them.
fn hold_all(first: u64, seeds: u64, on: impl Fn(u64) -> On + Sync) -> (u64, Counts) {
    let (next, events, begun) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let (failed, counts) = (AtomicUsize::new(0), Mutex::new(Counts::default()));
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    let lane = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= seeds || failed.load(Ordering::Relaxed) >= FAILURES_SHOWN {
                return;
            }
            match hold(first + n, on(n)) {
                Ok(came) => {
                    events.fetch_add(came.events, Ordering::Relaxed);
                    counts.lock().unwrap().add(&came.counts);
                }
                Err(failure) => {
                    // At once: a long run should not keep it to itself until its end.
                    eprintln!("\n{failure}\n");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            if (n + 1) % 10_000 == 0 {
                eprintln!("{} seeds, {:.0} a second", n + 1, (n + 1) as f64 / begun.elapsed().as_secs_f64());
            }
        }
    };
    std::thread::scope(|scope| (0..lanes).for_each(|_| drop(scope.spawn(lane))));
    assert_eq!(failed.into_inner(), 0, "seeds failed; each is told of above");
    let counts = counts.into_inner().unwrap();
    eprintln!("{counts:?}");
    (events.into_inner(), counts)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Seeds that failed once, further on than the tests look: each with what it does.
#[test]
fn seeds_that_were_found() {
    // Goes back to a version that an earlier way back had left behind.
    hold(709_235, On::Memory).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn seeds_on_memory() {
    let (_, counts) = hold_all(1, 200, |_| On::Memory);
    // A simulation in which nobody forks, or goes back, would hold whatever forks do.
    let Counts { seeds, branched, forks, grandchildren, backs, taken, held, released, waiting, .. } = counts;
    let Counts { undone, stuck, cancelled, paused, said, used_up, regretted, redone, .. } = counts;
    assert!((seeds / 5..=seeds / 2).contains(&branched), "{branched} of {seeds} seeds branch");
    for (what, count) in [
        ("forks", forks),
        ("forks of forks", grandchildren),
        ("ways back", backs),
        ("outcomes taken", taken),
        ("writes held", held),
        ("writes allowed", released),
        ("forks that wait", waiting),
        ("undos", undone),
        ("undos that failed", stuck),
        ("workflows cancelled", cancelled),
        ("workflows paused", paused),
        ("signals taken", said),
        ("budgets used up", used_up),
        ("compensations asked for", regretted),
        ("retries behind a compensation", redone),
    ] {
        assert!(count > 0, "no {what} in {seeds} seeds");
    }
}

#[test]
fn seeds_on_sqlite() {
    hold_all(1, 24, |_| On::Sqlite);
}

#[test]
fn a_seed_repeats_to_the_byte() {
    for seed in 1..=10 {
        let first = hold(seed, On::Memory).unwrap();
        assert_eq!(first, hold(seed, On::Memory).unwrap(), "seed {seed}");
        if seed <= 3 {
            assert_eq!(
                first.digest,
                hold(seed, On::Sqlite).unwrap().digest,
                "seed {seed}: both stores hold the same log"
            );
        }
    }
}

/// Does nothing unless `FOLDBACK_SEED` names one.
#[test]
#[ignore = "shows the one seed that FOLDBACK_SEED names"]
fn one_seed() {
    let seed = number("FOLDBACK_SEED").expect("FOLDBACK_SEED names a seed");
    for on in [On::Memory, On::Sqlite] {
        eprintln!("seed {seed} on {on:?}");
        match run(seed, on, true) {
            Ok(came) => eprintln!("well: {} events, {:?}, {:?}", came.events, came.ends, came.counts),
            Err(problem) => panic!("seed {seed} on {on:?}: {problem}"),
        }
    }
}

/// As many seeds as `FOLDBACK_SEEDS` says, on all cores.
#[test]
#[ignore = "takes minutes: make torture"]
fn torture() {
    let seeds = number("FOLDBACK_SEEDS").unwrap_or(10_000);
    let first = number("FOLDBACK_FIRST_SEED").unwrap_or(1_000);
    let begun = Instant::now();
    let (events, _) = hold_all(first, seeds, |n| if n % 100 == 0 { On::Sqlite } else { On::Memory });
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("{seeds} seeds, {events} events, {seconds:.0} s, {:.0} seeds a second", seeds as f64 / seconds);
}
