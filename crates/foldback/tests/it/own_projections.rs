//! Projections of a user, run by the projector itself: exactly once whoever dies when, one that fails
//! stands still alone, and readers see one whole version.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;

use foldback::core::projection::{Projection, Rows, built_in};
use foldback::core::{Event, EventId, Program};
use foldback::engine::projections::{State, catch_up, order, standings};
use foldback::engine::projector::{Order, Projector};
use foldback::engine::{Programs, SessionError};
use foldback::programs::Definitions;
use foldback::store::{
    Append, Commit, Definition, Erasure, Expected, InboxCommand, NewEvent, ProjectionFailure, Store,
};
use serde_json::{Value, json};

const SALES: &str = "
name: sales
version: 1
events: [SOLD, RETURNED]
key: .payload.item
reduce: |
  if $event.type == \"RETURNED\" then null
  else { pieces: ((.pieces // 0) + $event.payload.pieces), last: $event.workflow_id } end
";

/// The same in another version: it counts sales.
fn counted() -> String {
    SALES.replace("version: 1", "version: 2").replace("$event.payload.pieces)", "1)")
}

fn programs() -> Arc<dyn Programs> {
    Arc::new(Definitions::default())
}

fn memory() -> Arc<dyn Store> {
    foldback::store::open("memory:").unwrap()
}

fn commit(store: &dyn Store, commit: Commit) {
    let (tell, told) = channel();
    store.commit(commit, Box::new(move |result| drop(tell.send(result))));
    told.recv().unwrap().unwrap();
}

fn sold(serial: u64, item: &str, pieces: Value) -> NewEvent {
    domain(serial, "SOLD", json!({"item": item, "pieces": pieces}))
}

fn domain(serial: u64, event_type: &str, data: Value) -> NewEvent {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&serial.to_be_bytes());
    NewEvent {
        id: EventId(id),
        is_id_supplied: false,
        event_type: event_type.into(),
        schema_version: 1,
        payload: json!({"data": {"inline": data}}).to_string(),
        timestamp: 1_700_000_000_000_000 + serial as i64,
        causation_id: None,
        correlation_id: None,
        actor: "shop".into(),
        codec: "json".into(),
        key_id: None,
    }
}

fn append(store: &dyn Store, epoch: u64, id: &str, events: Vec<NewEvent>) {
    let append =
        Append { workflow_id: id.into(), expected: Expected::Any, events, begins: None, status: None };
    commit(store, Commit { epoch, appends: vec![append], ..Commit::default() });
}

fn send(store: &dyn Store, id: &str, order: &Order) {
    let body = json!({ "projection": order });
    store.send(InboxCommand { id: id.into(), shard: 0, actor: "me".into(), body }).unwrap();
}

fn give(store: &Arc<dyn Store>, said: Order) -> Result<foldback::engine::projector::Ordered, SessionError> {
    order(store, &programs(), "test", said, &mut |_| {})
}

fn add(store: &Arc<dyn Store>, source: &str) {
    give(store, Order::Add { source: source.into() }).unwrap();
}

#[derive(Default)]
struct Table(BTreeMap<String, Value>);

impl Rows for Table {
    fn change(&mut self, key: &str, how: &mut dyn FnMut(&mut Value)) {
        how(self.0.entry(key.to_owned()).or_default());
    }
}

/// What one pass over the log up to a position makes of it.
fn folded(store: &dyn Store, projection: &mut dyn Projection, up_to: u64) -> Vec<(String, Value)> {
    let mut table = Table::default();
    for recorded in store.feed(0, 0, usize::MAX).unwrap().iter().filter(|recorded| recorded.position <= up_to)
    {
        let event = foldback::engine::load::decode(recorded).unwrap();
        if projection.wants(event.fact.event_type()) {
            projection.see(&recorded.workflow_id, &event, &mut table).unwrap();
        }
    }
    table.0.into_iter().filter(|(_, row)| !row.is_null()).collect()
}

/// What readers saw last of each projection: under which name, and how far.
type Seen = BTreeMap<String, (String, u64)>;

/// What readers see of each projection is one pass of its live version up to where that has read; it never
/// goes back, and what takes its place has read all.
fn assert_whole(store: &dyn Store, sources: &[&str], seen: &mut Seen) {
    for standing in standings(store).unwrap() {
        let Some(live) = standing.live else {
            assert_eq!(
                store.projection(&standing.name).unwrap(),
                [],
                "nothing is seen of what is being made"
            );
            continue;
        };
        let now = (live.row.rows.clone(), live.position);
        if let Some(before) = seen.insert(standing.name.clone(), now.clone()) {
            assert!(before.1 <= now.1, "{before:?} {now:?}");
            assert!(before.0 == now.0 || live.lag == 0, "{before:?} {now:?}, {} behind", live.lag);
        }
        let of_source = |source: &&str| foldback::ows::load_projection(source).unwrap();
        let made = sources
            .iter()
            .map(of_source)
            .find(|one| (one.name(), one.version()) == (live.row.name.as_str(), live.row.version.as_str()));
        let mut projection: Box<dyn Projection> = match made {
            Some(made) => Box::new(made),
            None => built_in().into_iter().find(|one| one.name() == live.row.name).unwrap(),
        };
        let whole = folded(store, &mut *projection, live.position);
        assert_eq!(
            store.projection(&standing.name).unwrap(),
            whole,
            "{} at {}",
            live.row.rows,
            live.position
        );
    }
}

/// Numbers by chance, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Owners come and go in the midst of pages, rebuilds and exchanges; others append and give orders.
fn lives(store: &Arc<dyn Store>, seed: u64) {
    let (mut dice, mut serial, mut seen) = (Dice(seed * 2 + 1), 0, Seen::new());
    let second = counted();
    let sources = [SALES, second.as_str()];
    for life in 0..12 {
        let ownership = store.acquire(0, "an owner").unwrap().expect("the one before is gone");
        let page = 1 + dice.roll(7) as usize;
        let mut projector =
            Projector::new(store.clone(), programs(), 0, ownership.epoch).unwrap().with_page(page);
        for act in 0..dice.roll(12) {
            let id = format!("{life}.{act}");
            match dice.roll(8) {
                0 => {
                    let source = sources[dice.roll(2) as usize].into();
                    send(&**store, &id, &Order::Add { source });
                }
                1 => {
                    let name = ["sales", "workflows", "decisions"][dice.roll(3) as usize].into();
                    send(&**store, &id, &Order::Rebuild { name });
                }
                2 | 3 => {
                    let events = (0..1 + dice.roll(9)).map(|_| {
                        serial += 1;
                        let item = format!("item {}", dice.roll(3));
                        match dice.roll(6) {
                            0 => domain(serial, "RETURNED", json!({ "item": item })),
                            _ => sold(serial, &item, json!(dice.roll(5))),
                        }
                    });
                    let events = events.collect();
                    append(&**store, ownership.epoch, &format!("shop {}", dice.roll(3)), events);
                }
                _ => {
                    projector.step().unwrap();
                    assert_whole(&**store, &sources, &mut seen);
                }
            }
        }
    }
    let ownership = store.acquire(0, "the last owner").unwrap().expect("free");
    let mut projector = Projector::new(store.clone(), programs(), 0, ownership.epoch).unwrap().with_page(5);
    while projector.step().unwrap() > 0 {
        assert_whole(&**store, &sources, &mut seen);
    }
    assert!(standings(&**store).unwrap().iter().all(|one| one.state() == State::Live));
    assert_whole(&**store, &sources, &mut seen);
    assert_eq!(store.strays().unwrap(), Vec::<String>::new(), "what was exchanged is let go");
    assert!(store.commands(0).unwrap().is_empty(), "every order is answered");
    assert_eq!(store.check().unwrap(), Vec::<String>::new());
}

#[test]
fn readers_see_one_pass_of_one_version_whoever_dies_when() {
    for seed in 0..6 {
        lives(&memory(), seed);
    }
    for seed in 6..8 {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("p.db").display());
        lives(&foldback::store::open(&url).unwrap(), seed);
    }
}

#[test]
fn one_that_fails_stands_still_alone_until_it_is_mended() {
    let store = memory();
    let epoch = {
        let ownership = store.acquire(0, "shop").unwrap().unwrap();
        append(&*store, ownership.epoch, "shop", vec![sold(1, "lamp", json!(2)), sold(2, "lamp", json!(3))]);
        ownership.epoch
    };
    add(&store, SALES);
    let ownership = store.acquire(0, "shop").unwrap().unwrap();
    assert!(ownership.epoch > epoch);
    // Two and a list have no sum.
    let events = vec![sold(3, "lamp", json!(1)), sold(4, "lamp", json!(["many"])), sold(5, "lamp", json!(1))];
    append(&*store, ownership.epoch, "shop", events);
    drop(ownership);

    let behind = catch_up(&store, &programs(), "me", "sales", std::time::Duration::from_secs(1)).unwrap();
    assert_eq!(behind.unwrap_err().0, 2, "the event at which it fails, and the one behind");
    let of = |name: &str| standings(&*store).unwrap().into_iter().find(|one| one.name == name).unwrap();
    let sales = of("sales");
    assert_eq!((sales.state(), sales.live.as_ref().unwrap().position), (State::Failed, 3));
    let ProjectionFailure { message, event } = sales.failure().unwrap();
    assert_eq!(*event, Some(("shop".into(), 4)));
    assert!(message.contains("`reduce`"), "{message}");
    assert_eq!(store.projection("sales").unwrap()[0].1["pieces"], 6, "what was folded before it is there");
    assert_eq!(
        (of("workflows").state(), of("workflows").live.unwrap().lag),
        (State::Live, 0),
        "others go on"
    );

    // One that fails as well, made beside it, changes nothing for readers.
    add(&store, &SALES.replace("version: 1", "version: 1.1"));
    let sales = of("sales");
    assert_eq!((sales.state(), sales.next.unwrap().position), (State::Failed, 3));
    assert_eq!(sales.live.unwrap().row.version, "1");
    // It is made anew, and fails anew: nothing is skipped.
    give(&store, Order::Rebuild { name: "sales".into() }).unwrap();
    assert_eq!(of("sales").state(), State::Failed);
    add(&store, &counted());
    let sales = of("sales");
    assert_eq!((sales.state(), sales.live.unwrap().row.version.as_str()), (State::Live, "2"));
    assert_eq!(store.projection("sales").unwrap()[0].1["pieces"], 5);
    assert!(sales.next.is_none());
}

#[test]
fn the_same_file_again_changes_nothing() {
    let store = memory();
    add(&store, SALES);
    let rows = |store: &dyn Store| {
        standings(store).unwrap().into_iter().map(|one| one.live.unwrap().row.rows).collect::<Vec<_>>()
    };
    let before = rows(&*store);
    let again = give(&store, Order::Add { source: SALES.into() }).unwrap();
    assert_eq!((again.is_new, again.version.as_str()), (false, "1"));
    assert_eq!(rows(&*store), before);
    let Err(SessionError::Refused(refusal)) = give(&store, Order::Rebuild { name: "sale".into() }) else {
        panic!("it was rebuilt");
    };
    assert_eq!(refusal.hint, "did you mean `sales`?");
    let Err(SessionError::Refused(refusal)) = give(&store, Order::Add { source: "name: x".into() }) else {
        panic!("it was added");
    };
    assert!(refusal.message.contains("needs `events`"), "{}", refusal.message);
    assert!(store.commands(0).unwrap().is_empty());
}

#[test]
fn values_beside_the_log_are_at_hand_and_erased_ones_are_marked() {
    let store = memory();
    let ownership = store.acquire(0, "shop").unwrap().unwrap();
    let long = json!({"item": "lamp", "pieces": 1, "text": "x".repeat(5_000)});
    let slot = foldback::core::Slot::of(long);
    let payload = slot.payload().expect("it lies beside the log");
    let mut event = sold(1, "", json!(0));
    event.payload = json!({ "data": slot }).to_string();
    let appended = Append {
        workflow_id: "shop".into(),
        expected: Expected::Any,
        events: vec![event],
        begins: None,
        status: None,
    };
    let payloads = vec![payload.clone()];
    commit(
        &*store,
        Commit { epoch: ownership.epoch, appends: vec![appended], payloads, ..Commit::default() },
    );
    drop(ownership);
    const LENGTHS: &str = "
name: lengths
events: [SOLD]
key: .payload.item // \"erased\"
reduce: '$event.payload | length'
";
    add(&store, LENGTHS);
    assert_eq!(store.projection("lengths").unwrap(), [("lamp".to_owned(), json!(3))]);
    let ownership = store.acquire(0, "shop").unwrap().unwrap();
    let erasure = Erasure {
        shard: 0,
        epoch: ownership.epoch,
        hash: payload.hash,
        at: 1,
        actor: "ann".into(),
        reason: "asked to".into(),
    };
    store.erase(&erasure).unwrap();
    drop(ownership);
    give(&store, Order::Rebuild { name: "lengths".into() }).unwrap();
    assert_eq!(store.projection("lengths").unwrap(), [("erased".to_owned(), json!(1))]);
}

/// A process that knows one projection, which panics at each third sale.
struct Panics;

struct Panicking(u32);

impl Programs for Panics {
    fn program(&self, _: &Definition) -> Result<Arc<dyn Program>, String> {
        Err("none".into())
    }
    fn projection(&self, _: &str) -> Result<Box<dyn Projection>, String> {
        Ok(Box::new(Panicking(0)))
    }
}

impl Projection for Panicking {
    fn name(&self) -> &str {
        "panics"
    }
    fn version(&self) -> &str {
        "1"
    }
    fn see(&mut self, _: &str, event: &Event, rows: &mut dyn Rows) -> Result<(), String> {
        self.0 += 1;
        assert!(self.0 < 3, "a projection in Rust may be wrong too");
        rows.change("last", &mut |row| *row = json!(event.version));
        Ok(())
    }
}

#[test]
fn a_panic_is_a_failure_like_any_other() {
    let store = memory();
    let ownership = store.acquire(0, "shop").unwrap().unwrap();
    let events = (1..=5).map(|serial| sold(serial, "lamp", json!(1))).collect();
    append(&*store, ownership.epoch, "shop", events);
    send(&*store, "1", &Order::Add { source: "any".into() });
    let mut projector = Projector::new(store.clone(), Arc::new(Panics), 0, ownership.epoch).unwrap();
    while projector.step().unwrap() > 0 {}
    let standing = standings(&*store).unwrap().into_iter().find(|one| one.name == "panics").unwrap();
    assert_eq!(standing.failure().unwrap().event, Some(("shop".into(), 3)));
    assert_eq!(standing.next.unwrap().position, 2);

    // A process that cannot make it says so, and one that can goes on.
    drop(ownership);
    let ownership = store.acquire(0, "other").unwrap().unwrap();
    let projector = Projector::new(store.clone(), programs(), 0, ownership.epoch).unwrap();
    drop(projector);
    let standing = standings(&*store).unwrap().into_iter().find(|one| one.name == "panics").unwrap();
    assert_eq!(
        standing.failure().unwrap().event,
        Some(("shop".into(), 3)),
        "the first failure is the one to mend"
    );
}

#[test]
fn pruned_events_at_the_end_of_the_log_are_nothing_to_wait_for() {
    let store = memory();
    let ownership = store.acquire(0, "shop").unwrap().unwrap();
    let ended = Append {
        workflow_id: "shop".into(),
        expected: Expected::Any,
        events: vec![sold(1, "lamp", json!(2)), sold(2, "lamp", json!(3))],
        begins: None,
        status: Some("completed"),
    };
    commit(&*store, Commit { epoch: ownership.epoch, appends: vec![ended], ..Commit::default() });
    let pruning = foldback::store::Pruning {
        shard: 0,
        epoch: ownership.epoch,
        workflow_id: "shop".into(),
        before: i64::MAX,
        at: 9,
        actor: "ann".into(),
    };
    store.prune(&pruning).unwrap();
    drop(ownership);
    assert_eq!(store.head(0).unwrap(), 2);
    let caught_up =
        catch_up(&store, &programs(), "me", "workflows", std::time::Duration::from_secs(1)).unwrap();
    assert_eq!(caught_up, Ok(()));
}

#[test]
fn an_order_is_carried_out_beside_a_command_that_nobody_takes() {
    let store = memory();
    let ownership = store.acquire(0, "shop").unwrap().unwrap();
    append(&*store, ownership.epoch, "shop", (1..10_000).map(|n| sold(n, "lamp", json!(1))).collect());
    drop(ownership);
    let body = json!({"command": "resume", "workflow_id": "gone"});
    store.send(InboxCommand { id: "c".into(), shard: 0, actor: "me".into(), body }).unwrap();
    add(&store, SALES);
    assert_eq!(store.projection("sales").unwrap()[0].1["pieces"], 9_999);
    assert_eq!(store.commands(0).unwrap().len(), 1, "it waits for its owner");
}

#[test]
fn what_is_live_does_not_wait_for_what_is_made_anew() {
    let store = memory();
    let ownership = store.acquire(0, "shop").unwrap().unwrap();
    append(&*store, ownership.epoch, "shop", (1..=100).map(|n| sold(n, "lamp", json!(1))).collect());
    let mut projector = Projector::new(store.clone(), programs(), 0, ownership.epoch).unwrap();
    send(&*store, "1", &Order::Add { source: SALES.into() });
    while projector.step().unwrap() > 0 {}
    let mut projector = projector.with_page(5);
    send(&*store, "2", &Order::Rebuild { name: "sales".into() });
    for n in 101..=110 {
        append(&*store, ownership.epoch, "shop", vec![sold(n, "lamp", json!(1))]);
        projector.step().unwrap();
        let sales = standings(&*store).unwrap().into_iter().find(|one| one.name == "sales").unwrap();
        assert_eq!(sales.state(), State::Rebuilding);
        assert_eq!((sales.live.unwrap().lag, sales.next.unwrap().position), (0, 5 * (n - 100)));
        assert_eq!(store.projection("sales").unwrap()[0].1["pieces"], n, "what readers see goes on");
    }
}
