//! Workflows asleep: what each costs in memory, and how soon their moment is a fact once it has come.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foldback::code::{Code, Ctx, Ended};
use foldback::core::{Event, Fact, Key, Micros};
use foldback::engine::Observer;
use foldback::programs::start_code;
use serde_json::{Value, json};

use super::Row;
use super::engine::{engine_of, leave};
use crate::error::Error;
use foldback::engine::Command;

const ASLEEP: u64 = 100_000;
const DUE: u64 = 10_000;
/// How many are started at once.
const PART: u64 = 500;
/// How long before the first moment the last of those that are due is started.
const AHEAD: Duration = Duration::from_secs(12);

async fn nap(mut ctx: Ctx, input: Value) -> Ended {
    ctx.sleep("nap", input.as_u64().unwrap_or(0)).await
}

/// Notes how long after its moment each timer is on disk as fired.
struct Watch {
    due: Mutex<HashMap<String, Micros>>,
    late_ms: Mutex<Vec<f64>>,
    fired: Sender<()>,
    set: Sender<()>,
}

impl Observer for Watch {
    fn committed(&self, workflow_id: &str, events: &[Event]) {
        let now = micros();
        for event in events {
            match &event.fact {
                Fact::TimerSet { due, .. } => {
                    let mut all = self.due.lock().unwrap_or_else(PoisonError::into_inner);
                    if workflow_id.starts_with("due") {
                        all.insert(workflow_id.to_owned(), *due);
                    }
                    let _gone = self.set.send(());
                }
                Fact::TimerFired { .. } => {
                    let all = self.due.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(due) = all.get(workflow_id) {
                        let late_ms = (now - due) as f64 / 1e3;
                        self.late_ms.lock().unwrap_or_else(PoisonError::into_inner).push(late_ms);
                        let _gone = self.fired.send(());
                    }
                }
                _ => {}
            }
        }
    }

    fn progress(&self, _workflow_id: &str, _key: &Key, _text: &str) {}
}

/// What each of 100,000 sleepers takes, and how late 10,000 fire that are due over one second.
pub fn asleep(folder: &Path) -> Result<Vec<Row>, Error> {
    let path = folder.join("asleep.db");
    let (fired, all_fired) = channel();
    let (set, all_set) = channel();
    let watch = Arc::new(Watch { due: Mutex::default(), late_ms: Mutex::default(), fired, set });
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let running = engine_of(store, ("nap", Code::new(nap)), Some(watch.clone()))?;
    let wait = |from: &std::sync::mpsc::Receiver<()>, count: u64, what: &str| {
        (0..count).try_for_each(|_| {
            from.recv_timeout(Duration::from_secs(120)).map_err(|_| Error::machine(what.to_owned()))
        })
    };
    let start = |id: String, delay_ms: u64| {
        running.tell(Command::Start(start_code("nap", "1", &id, json!(delay_ms))));
    };
    // Once round, so that what is there for any number of them is not counted.
    (0..1_000).for_each(|i| start(format!("first-{i}"), 86_400_000));
    wait(&all_set, 1_000, "the first did not fall asleep")?;
    let before = resident_bytes();
    // Not all at once: what waits in a queue is no sleeper.
    for part in 0..ASLEEP / PART {
        (0..PART).for_each(|i| start(format!("asleep-{}", part * PART + i), 86_400_000));
        wait(&all_set, PART, "100,000 did not fall asleep")?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let each = resident_bytes().saturating_sub(before) as f64 / ASLEEP as f64;
    let first = Instant::now() + AHEAD;
    for i in 0..DUE {
        let moment = first + Duration::from_micros(i * 1_000_000 / DUE);
        let delay = moment.saturating_duration_since(Instant::now());
        start(format!("due-{i}"), u64::try_from(delay.as_millis()).unwrap_or(0));
    }
    wait(&all_set, DUE, "10,000 more did not fall asleep")?;
    let ahead = first.saturating_duration_since(Instant::now());
    wait(&all_fired, DUE, "10,000 timers did not fire")?;
    running.end()?;
    leave(&path, folder)?;
    let mut late = watch.late_ms.lock().unwrap_or_else(PoisonError::into_inner).clone();
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let note = format!(
        "workflows asleep in a MiB of resident memory: {each:.0} bytes each of {ASLEEP}, caches included"
    );
    let late_note = format!(
        "1 / p99 from due to durable: {:.1} ms (p50 {:.1}, max {:.1}); {DUE} over 1 s, {:.0} s after the last began",
        at(0.99),
        at(0.5),
        at(1.0),
        ahead.as_secs_f64()
    );
    Ok(vec![
        Row::new("asleep", 1_048_576.0 / each.max(1.0), "a MiB", note),
        Row::new("due", 1_000.0 / at(0.99), "1/s", late_note),
    ])
}

fn micros() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The memory of this process that is in use and in no file, in bytes; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = |at: usize| text.split(' ').nth(at).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages(1).saturating_sub(pages(2)) * 4_096
}
