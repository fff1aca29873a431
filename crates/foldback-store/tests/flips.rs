//! One byte of the file is another: it is found, or it changed nothing that is read back. Never a
//! panic, never another event or payload without a word.

mod desk;

use std::fs;

use desk::{Desk, event, url};
use foldback_core::Hash;
use foldback_core::value::Payload;
use foldback_store::{Commit, Expected, Recorded, Store, StoreResult, chain, open_existing};

const IDS: [&str; 4] = ["w0", "w1", "w2", "w3"];

/// Every log, and the payload.
type Everything = (Vec<Vec<Recorded>>, Vec<Recorded>, Option<Payload>);

fn read(store: &dyn Store, payload: &Hash) -> StoreResult<Everything> {
    let logs = IDS.iter().map(|id| store.read(id, 0, usize::MAX)).collect::<StoreResult<_>>()?;
    Ok((logs, store.feed(0, 0, usize::MAX)?, store.payload(0, payload)?))
}

fn is_whole(log: &[Recorded]) -> bool {
    let mut previous = Hash::ZERO;
    log.iter().all(|recorded| {
        let is_right = chain::verify_chain(previous, recorded).is_ok();
        previous = recorded.hash;
        is_right
    })
}

#[test]
fn a_flipped_byte_is_found_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("foldback.db");
    let desk = Desk::at(&dir);
    for version in 0..12 {
        for id in IDS {
            let events = vec![event(&format!("{id} at {version}, {}", "x".repeat(60)))];
            desk.append(id, Expected::Exact(version), events).unwrap();
        }
    }
    let bytes: Vec<u8> = (0..9_000).map(|i| (i % 251) as u8).collect();
    let payload = Payload { hash: Hash::of_bytes(&bytes), media_type: "text/plain".into(), bytes };
    let hash = payload.hash;
    desk.commit(Commit { payloads: vec![payload], ..Commit::default() }).unwrap();
    let right = read(&*desk.store, &hash).unwrap();
    drop(desk);

    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len() % 4096, 0);
    // The header byte by byte; then all pages in steps that meet each kind of place.
    let offsets = (0..110).chain((110..whole.len()).step_by(127));
    let (mut found, mut quarantined, mut harmless) = (0, 0, 0);
    for (offset, round) in offsets.zip(0u32..) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1 << (round % 8);
        fs::write(&path, &bytes).unwrap();
        let store = match open_existing(&url(&dir)) {
            Ok(store) => store,
            Err(error) => {
                assert!(error.message.contains("foldback.db"), "offset {offset}: {error}");
                found += 1;
                continue;
            }
        };
        let problems = store.check().unwrap();
        let now = read(&*store, &hash);
        match now {
            _ if !problems.is_empty() => found += 1,
            Err(_) => found += 1,
            Ok(now) if now == right => harmless += 1,
            Ok((logs, ..)) => {
                // The file is in order; a log is not. It is one, and the others are what they were.
                let broken: Vec<usize> = (0..IDS.len()).filter(|i| !is_whole(&logs[*i])).collect();
                assert_eq!(broken.len(), 1, "offset {offset} of {}: read otherwise, unnoticed", whole.len());
                let others = (0..IDS.len()).filter(|i| !broken.contains(i));
                others.for_each(|i| assert_eq!(logs[i], right.0[i], "offset {offset}"));
                quarantined += 1;
            }
        }
    }
    assert!(found > 100 && quarantined > 50 && harmless > 50, "{found} {quarantined} {harmless}");
}
