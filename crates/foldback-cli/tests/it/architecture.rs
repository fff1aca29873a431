//! `ARCHITECTURE.md` names files that are there.

use std::path::Path;

/// Where a path as the page writes it may lie: `core/event.rs` is `crates/foldback-core/src/event.rs`.
fn places(named: &str) -> [String; 3] {
    let (room, rest) = named.split_once('/').expect("a path");
    [
        format!("crates/foldback-{room}/src/{rest}"),
        format!("crates/foldback-{room}/{rest}"),
        format!("crates/{named}"),
    ]
}

#[test]
fn every_file_that_the_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("the page");
    let named: Vec<&str> =
        page.split('`').skip(1).step_by(2).filter(|one| one.contains('/') && one.ends_with(".rs")).collect();
    assert!(named.len() > 20, "files are named in `…`: {named:?}");
    let lost: Vec<&&str> =
        named.iter().filter(|one| !places(one).iter().any(|place| root.join(place).is_file())).collect();
    assert!(lost.is_empty(), "no such files: {lost:?}");
}
