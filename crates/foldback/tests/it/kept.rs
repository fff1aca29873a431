//! Signals that nothing has taken yet: bounded by number and by bytes, and brought into memory only for
//! what listens for them; in Rust code and in documents alike.

use std::sync::Arc;

use foldback::code::{Code, Ctx, Ended};
use foldback::core::{Fact, Hash, Slot, Status, limits};
use foldback::engine::{Command, Start, events_of};
use foldback::library::{Engine, Error};
use foldback::programs::{Definitions, start_code, start_document};
use foldback::store::Erasure;
use serde_json::{Value, json};

async fn first_then_go(mut ctx: Ctx, _: Value) -> Ended {
    ctx.listen("hear", "first").await?;
    ctx.listen("then", "go").await
}

const DOCUMENT: &str = "
document: { dsl: '1.0.3', namespace: test, name: kept, version: '1.0.0' }
do:
- hear: { listen: { to: { one: { with: { type: first } } } } }
- then: { listen: { to: { one: { with: { type: go } } } } }
";

/// One in Rust, one as a document: each listens for `first`, then for `go`.
fn both() -> [Start; 2] {
    let loaded = foldback::ows::load(DOCUMENT, &|path| Err(format!("no file {path}"))).unwrap();
    [start_code("kept", "1", "code", json!(null)), start_document(&loaded, "document", json!({}))]
}

fn engine() -> Engine {
    Engine::open("memory:", Definitions::default().with_code("kept", "1", Code::new(first_then_go))).unwrap()
}

fn large(mark: &str) -> Value {
    json!({"mark": mark, "text": "x".repeat(5 * 1024 * 1024)})
}

/// The addresses of the data of signals that came.
fn addresses(engine: &Engine, id: &str) -> Vec<Hash> {
    let events = events_of(&**engine.store(), id, 0).unwrap();
    let data = events.into_iter().filter_map(|event| match event.fact {
        Fact::SignalReceived(signal) => Some(signal.data),
        _ => None,
    });
    let address = |data| match data {
        Slot::Stored(stored) => Some(stored.hash),
        Slot::Inline(_) => None,
    };
    data.filter_map(address).collect()
}

fn erase(engine: &Engine, hash: Hash) {
    let store = engine.store();
    let owned = store.acquire(0, "test").unwrap().expect("nobody has it");
    let erasure =
        Erasure { shard: 0, epoch: owned.epoch, hash, at: 1, actor: "test".into(), reason: String::new() };
    store.erase(&erasure).unwrap();
}

#[test]
fn they_are_bounded_by_bytes_and_taken_at_once_without_a_bound() {
    for start in both() {
        let engine = engine();
        let id = start.workflow_id.clone();
        assert_eq!(engine.run(start).unwrap().status, Status::Waiting);
        for mark in ["a", "b", "c"] {
            engine.signal(&id, "go", large(mark)).unwrap();
        }
        let refused = engine.signal(&id, "go", large("d")).expect_err("there is no room");
        assert!(
            matches!(&refused, Error::Refused(refusal) if refusal.message.contains("16 MiB, are the most")),
            "{refused}"
        );
        assert_eq!(addresses(&engine, &id).len(), 3);
        // What is taken at once takes no room, whatever its length.
        let taken = json!("y".repeat(limits::SIGNALS_KEPT_MAX_BYTES as usize));
        let ended = engine.signal(&id, "first", taken).unwrap();
        assert_eq!(ended.status, Status::Completed, "{id}: the kept one follows");
        let output = ended.output.unwrap();
        let said = if output.is_array() { &output[0] } else { &*output };
        assert_eq!(said["mark"], "a", "{id}: the oldest");
        assert_eq!(engine.verify(&id).unwrap().parting, None, "{id}");
    }
}

#[test]
fn they_are_brought_only_for_what_listens_for_them() {
    for start in both() {
        let engine = engine();
        let id = start.workflow_id.clone();
        engine.run(start).unwrap();
        engine.signal(&id, "go", large("a")).unwrap();
        // Erased: whoever reads it is refused.
        erase(&engine, addresses(&engine, &id)[0]);
        let resumed = engine.drive(Command::Resume { workflow_id: Arc::clone(&id) }).unwrap();
        assert_eq!(resumed.status, Status::Waiting, "{id}: it waits for another one");
        let ended = engine.signal(&id, "first", json!(1)).unwrap();
        assert_eq!(ended.status, Status::Waiting, "{id}: the one it listens for now cannot be read");
        let refused = engine.drive(Command::Resume { workflow_id: Arc::clone(&id) });
        assert!(
            matches!(&refused, Err(Error::Refused(refusal)) if refusal.needs_erased),
            "{id}: {refused:?}"
        );
    }
}
