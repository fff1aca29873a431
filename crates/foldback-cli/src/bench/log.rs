//! Rows that only the store has a part in: appends, and where a value is best kept.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use foldback::core::value::Payload;
use foldback::core::{EventId, Hash};
use foldback::store::{Append, Commit, Expected, NewEvent, raw};

use super::{IN_FLIGHT, Row, SECONDS, TURNS, mean, noise};
use crate::error::Error;

/// Appends in flight. While one half is on its way to the disk, the other gathers: so a transaction
/// holds half of them, and the bare loop writes as many rows in each of its own.
const APPENDS_IN_FLIGHT: usize = 2 * IN_FLIGHT;

/// `append`.
pub fn appends(folder: &Path) -> Result<Vec<Row>, Error> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        bare.push(raw::raw_append_loop(&folder.join(format!("raw{turn}.db")), 2 * IN_FLIGHT, SECONDS)?);
        ours.push(append(&folder.join(format!("append{turn}.db")))?);
    }
    let note = format!(
        "{APPENDS_IN_FLIGHT} appends of 2 events in flight; raw writes {} rows a transaction",
        2 * IN_FLIGHT
    );
    Ok(vec![Row::new("append", mean(&ours), "events/s", note).against(mean(&bare))])
}

/// `value-…`.
pub fn sizes(folder: &Path) -> Result<Vec<Row>, Error> {
    let sizes = [("value-256", 256), ("value-1k", 1_024), ("value-4k", 4_096), ("value-16k", 16_384)];
    let row = |(name, bytes)| {
        let inline = values(&folder.join(format!("inline{bytes}.db")), bytes, false)?;
        let beside = values(&folder.join(format!("beside{bytes}.db")), bytes, true)?;
        let note = format!(
            "one value of {bytes} bytes an event, inline; the ratio is to the same by reference ({beside:.0})"
        );
        Ok(Row { ratio: Some(inline / beside), ..Row::new(name, inline, "events/s", note) })
    };
    sizes.into_iter().map(row).collect()
}

fn append(path: &Path) -> Result<f64, Error> {
    // Made before the clock starts, as the bare loop's are.
    let mut dice = 88_172_645_463_325_252;
    let outputs: Vec<String> = (0..4_096).map(|_| noise(&mut dice)).collect();
    let mut serial = 0;
    commits(path, SECONDS, &mut || {
        let mut next = || {
            let output = &outputs[serial as usize % outputs.len()];
            event(&mut serial, output)
        };
        let events = vec![next(), next()];
        (events, Vec::new())
    })
}

/// Events a second with one value of so many bytes each, inline or beside the log.
fn values(path: &Path, bytes: usize, is_beside: bool) -> Result<f64, Error> {
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
    path: &Path,
    seconds: f64,
    next: &mut dyn FnMut() -> (Vec<NewEvent>, Vec<Payload>),
) -> Result<f64, Error> {
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let ownership = store.acquire(0, "bench")?.ok_or_else(|| Error::machine("the bench file is taken"))?;
    let (done, acknowledged) = channel();
    let mut versions = vec![0u64; APPENDS_IN_FLIGHT];
    let mut names: Vec<Arc<str>> = (0..APPENDS_IN_FLIGHT).map(|w| Arc::from(format!("w{w}"))).collect();
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
    (0..APPENDS_IN_FLIGHT).for_each(&mut send);
    let (mut in_flight, mut written) = (APPENDS_IN_FLIGHT, 0);
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
    // Shared, as the engine's are.
    thread_local! {
        static TEXTS: [Arc<str>; 3] = ["StepCompleted", "engine", "json"].map(Arc::from);
    }
    let [event_type, actor, codec] = TEXTS.with(Clone::clone);
    *serial += 1;
    NewEvent {
        id: EventId(serial.to_be_bytes()),
        is_id_supplied: false,
        event_type,
        schema_version: 1,
        payload: format!(r#"{{"key":"noop","attempt":1,"output":{{"inline":"{}"}},"latency_ms":0}}"#, output),
        timestamp: 1_700_000_000_000_000,
        causation_id: Some(EventId([1; 16])),
        correlation_id: Some(EventId([2; 16])),
        actor,
        codec,
        key_id: None,
    }
}
