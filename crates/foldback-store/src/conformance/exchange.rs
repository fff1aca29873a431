//! Versions of projections: which of them readers see, how they are exchanged, what is let go.

use serde_json::{Value, json};

use super::{Case, Desk, append, events};
use crate::contract::*;
use crate::projections::{ProjectionFailure, ProjectionRow};

pub(super) const CASES: &[Case] = &[
    ("readers see the live version of a projection", live),
    ("versions of a projection are exchanged in one commit", exchanged),
    ("rows that nobody refers to are found and let go", strays),
    ("the head of a shard", head),
];

fn version(name: &str, is_live: bool, rows: &str) -> ProjectionRow {
    ProjectionRow {
        name: name.into(),
        is_live,
        version: format!("of {rows}"),
        source: "a file".into(),
        rows: rows.into(),
        failure: None,
    }
}

fn known(versions: &[ProjectionRow]) -> Commit {
    Commit { projections: vec![(versions[0].name.clone(), versions.to_vec())], ..Commit::default() }
}

fn rows(under: &str, count: u64) -> Commit {
    let row = |n| (under.to_owned(), format!("{n:03}"), Some(json!(under)));
    Commit {
        projection_rows: (0..count).map(row).collect(),
        checkpoints: vec![(under.into(), 0, 7)],
        ..Commit::default()
    }
}

/// Which rows a reader sees: their values, each once.
fn seen(desk: &Desk) -> Vec<Value> {
    let mut values: Vec<Value> =
        desk.store.projection("p").unwrap().into_iter().map(|(_, value)| value).collect();
    values.dedup();
    values
}

fn live(desk: &Desk) {
    assert_eq!(desk.store.projections().unwrap(), []);
    desk.commit(known(&[version("p", false, "p#1")])).unwrap();
    desk.commit(rows("p#1", 3)).unwrap();
    assert_eq!(seen(desk), Vec::<Value>::new(), "what is being made is not seen");
    assert_eq!(desk.store.row_count("p#1").unwrap(), 3);
    let failure = Some(ProjectionFailure { message: "no".into(), event: Some(("a".into(), 3)) });
    let failed = ProjectionRow { failure, ..version("p", true, "p#1") };
    let without = Some(ProjectionFailure { message: "no".into(), event: None });
    let next = ProjectionRow { failure: without, ..version("p", false, "p#2") };
    desk.commit(known(&[next.clone(), failed.clone()])).unwrap();
    desk.commit(known(&[version("b", true, "b")])).unwrap();
    assert_eq!(desk.store.projections().unwrap(), [version("b", true, "b"), failed, next]);
    assert_eq!(seen(desk), [json!("p#1")]);
    let one = |key: &str| desk.store.projection_row(0, "p", key).unwrap();
    assert_eq!([one("001"), one("9")], [Some(json!("p#1")), None]);
    desk.commit(Commit { projections: vec![("p".into(), Vec::new())], ..Commit::default() }).unwrap();
    assert_eq!(desk.store.projections().unwrap(), [version("b", true, "b")]);
}

fn exchanged(desk: &Desk) {
    desk.append("a", Expected::Any, events(9)).unwrap();
    desk.commit(known(&[version("p", true, "p"), version("p", false, "p#1")])).unwrap();
    desk.commit(rows("p", 4)).unwrap();
    desk.commit(rows("p#1", 2)).unwrap();
    assert_eq!(seen(desk), [json!("p")]);
    let exchange =
        |at| Commit { checkpoints: vec![("p#1".into(), at, at)], ..known(&[version("p", true, "p#1")]) };
    let moved = CommitError::CheckpointMoved { projection: "p#1".into(), actual: 7 };
    assert_eq!(desk.commit(exchange(6)), Err(moved));
    assert_eq!(seen(desk), [json!("p")], "refused is refused whole");
    desk.commit(exchange(7)).unwrap();
    assert_eq!(seen(desk), [json!("p#1")]);
    assert_eq!(desk.store.projection("p").unwrap().len(), 2);
}

fn strays(desk: &Desk) {
    let strays = || desk.store.strays().unwrap();
    desk.append("a", Expected::Any, events(9)).unwrap();
    for name in ["p", "p#1", "p#2", "unknown", "q#1"] {
        desk.commit(rows(name, 5)).unwrap();
    }
    assert_eq!(strays(), Vec::<String>::new(), "of projections that are not known, nothing is said");
    desk.commit(known(&[version("p", true, "p#2")])).unwrap();
    assert_eq!(strays(), ["p", "p#1"]);
    let let_go = |rows: &str, most| Commit { let_go: vec![(rows.into(), most)], ..Commit::default() };
    desk.commit(let_go("p", 3)).unwrap();
    assert_eq!((desk.store.row_count("p").unwrap(), strays()), (2, vec!["p".into(), "p#1".into()]));
    desk.commit(let_go("p", 3)).unwrap();
    assert_eq!((desk.store.row_count("p").unwrap(), strays()), (0, vec!["p#1".to_owned()]));
    assert_eq!(desk.store.checkpoint(0, "p").unwrap(), 0, "the place goes with the rows");
    assert_eq!(desk.store.row_count("p#2").unwrap(), 5, "others stay");
    desk.is_sound();
}

fn head(desk: &Desk) {
    assert_eq!(desk.store.head(0).unwrap(), 0);
    desk.append("a", Expected::Any, events(9)).unwrap();
    let two = vec![append("a", Expected::Any, events(1)), append("b", Expected::Any, events(1))];
    desk.commit(Commit { appends: two, ..Commit::default() }).unwrap();
    assert_eq!((desk.store.head(0).unwrap(), desk.store.head(3).unwrap()), (11, 0));
}
