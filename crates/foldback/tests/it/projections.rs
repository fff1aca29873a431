//! The built-in projections: folded beside the loop, exactly once, whoever owns the shard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::projection::{Rows, built_in};
use foldback::core::{Effect, Outcome, Usage};
use foldback::engine::load::decode;
use foldback::engine::projector::Projector;
use foldback::engine::{Call, Command, Performing, Registry, Session, StepKind};
use foldback::programs::{Definitions, start_code};
use foldback::store::Store;
use serde_json::{Value, json};

/// A model that takes ten tokens and gives three.
struct Model;

impl StepKind for Model {
    fn perform(&self, call: Call) -> Performing {
        let usage = Usage {
            model: "small".into(),
            input_tokens: 10,
            output_tokens: 3,
            micro_usd: Some(5),
            ..Usage::default()
        };
        Box::pin(std::future::ready(Outcome::Completed { output: call.request, usage: Some(usage) }))
    }
}

async fn talk(mut ctx: Ctx, input: Value) -> Ended {
    for turn in 0..input.as_u64().unwrap_or(0) {
        ctx.step("ask", Work::new("model", Effect::Read, json!({ "turn": turn }))).await?;
        ctx.decide("enough", turn > 1, turn);
    }
    Ok(Value::Null)
}

fn run(store: &Arc<dyn Store>, ids: &[&str]) {
    let pool = tokio::runtime::Runtime::new().unwrap();
    let session = Session {
        store: store.clone(),
        kinds: Registry::default().with("model", Model),
        programs: Arc::new(Definitions::default().with_code("talk", "1", Code::new(talk))),
        pool: pool.handle().clone(),
        observer: None,
        actor: Arc::from("test"),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let start = |id: &&str| Command::Start(start_code("talk", "1", id, json!(3)));
    session.drive(ids.iter().map(start).collect()).unwrap();
}

#[derive(Default)]
struct Table(BTreeMap<String, Value>);

impl Rows for Table {
    fn change(&mut self, key: &str, how: &mut dyn FnMut(&mut Value)) {
        how(self.0.entry(key.to_owned()).or_default());
    }
}

/// What each projection holds, and what one pass over the whole feed makes of it.
fn held_and_folded(store: &dyn Store) -> Vec<[Vec<(String, Value)>; 2]> {
    let feed = store.feed(0, 0, usize::MAX).unwrap();
    built_in()
        .into_iter()
        .map(|mut projection| {
            let mut table = Table::default();
            for recorded in &feed {
                projection.see(&recorded.workflow_id, &decode(recorded).unwrap(), &mut table).unwrap();
            }
            [store.projection(projection.name()).unwrap(), table.0.into_iter().collect()]
        })
        .collect()
}

fn assert_up_to_date(store: &dyn Store) {
    for [held, folded] in held_and_folded(store) {
        assert!(!folded.is_empty());
        assert_eq!(held, folded);
    }
}

#[test]
fn the_rows_are_one_pass_over_the_feed_however_often_the_owner_changes() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("p.db").display());
    for ids in [&["a", "b"][..], &["c"], &["d", "e", "f"]] {
        let store = foldback::store::open(&url).unwrap();
        run(&store, ids);
        assert_up_to_date(&*store);
    }
    let store = foldback::store::open(&url).unwrap();
    let usage = store.projection("model_usage").unwrap();
    let calls: u64 = usage.iter().filter_map(|(_, row)| row["calls"].as_u64()).sum();
    assert_eq!(calls, 18, "six workflows of three calls: {usage:?}");
    assert_eq!(store.projection("decisions").unwrap().len(), 18);
}

#[test]
fn an_owner_that_was_replaced_writes_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("p.db").display());
    let store = foldback::store::open(&url).unwrap();
    run(&store, &["a"]);
    let old = store.acquire(0, "old").unwrap().expect("free");
    let mut late = Projector::new(store.clone(), Arc::new(Definitions::default()), 0, old.epoch).unwrap();
    drop(old);
    // The next owner's projector folds "b"; the old one, which has read up to "a", comes too late.
    run(&store, &["b"]);
    let refused = late.step().unwrap_err();
    assert!(refused.message.contains("StaleEpoch"), "{refused}");
    assert_up_to_date(&*store);
}
