//! The commands of the first minute: `init`, `check`, `doctor`, and what the program says of
//! itself.

use crate::world::World;
use serde_json::{Value, json};

#[test]
fn init_writes_a_pipeline_that_passes_its_own_check_and_never_overwrites() {
    let world = World::empty();
    let ran = world.run(&["init"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("foldback run pipeline.yaml"), "{}", ran.out);
    let checked = world.run(&["check", "pipeline.yaml", "--json"]).document(0);
    assert_eq!(
        (&checked["ok"], &checked["problems"], &checked["warnings"]),
        (&json!(true), &json!([]), &json!([]))
    );
    assert_eq!(checked["hash"].as_str().map(str::len), Some(64));
    let mine = "my own words";
    std::fs::write(world.dir.path().join("pipeline.yaml"), mine).expect("written");
    let again = world.run(&["init"]);
    assert!(again.code == 2 && again.err.contains("hint:"), "{again:?}");
    let kept = std::fs::read_to_string(world.dir.path().join("pipeline.yaml")).expect("read");
    assert_eq!(kept, mine);
    let beside = world.run(&["init", "beside/it", "--json"]);
    assert_eq!(beside.document(0)["written"], json!(["pipeline.yaml", "foldback.toml", ".gitignore"]));
    assert!(world.dir.path().join("beside/it/foldback.toml").is_file());
}

#[test]
fn a_check_names_file_line_and_column() {
    let world = World::empty();
    let source = "document:\n  dsl: '1.0.3'\n  namespace: a\n  name: b\n  version: '0.1.0'\ndo:\n  - one:\n      sett: 1\n";
    std::fs::write(world.dir.path().join("bad.yaml"), source).expect("written");
    let ran = world.run(&["check", "bad.yaml", "--json"]);
    let told = ran.document(2);
    assert_eq!(told["ok"], false);
    let problem = &told["problems"][0];
    let place = format!("bad.yaml:{}:{}: ", problem["line"], problem["column"]);
    assert!(problem["line"].as_u64().is_some_and(|line| line > 5), "{told}");
    assert!(ran.err.contains(&place) && ran.err.contains("hint:"), "{}", ran.err);
}

/// A warning leaves a definition good, unless it is asked to count.
#[test]
fn a_check_warns_and_a_strict_one_says_no() {
    let world = World::empty();
    let source = "document: { dsl: '1.0.3', namespace: a, name: b, version: '0.1.0' }\ndo:\n  - one: { set: { tone: dry } }\n  - two: { set: { t: '${ .topic }' } }\n";
    std::fs::write(world.dir.path().join("lossy.yaml"), source).expect("written");
    let ran = world.run(&["check", "lossy.yaml", "--json"]);
    let told = ran.document(0);
    assert_eq!((&told["ok"], told["warnings"].as_array().map(Vec::len)), (&json!(true), Some(1)));
    let warning = &told["warnings"][0];
    assert_eq!((&warning["line"], &warning["column"]), (&json!(3), &json!(17)));
    assert!(warning["hint"].as_str().is_some_and(|hint| hint.contains("${ . + ")), "{warning}");
    assert!(ran.err.contains("lossy.yaml:3:17: warning: this `set` replaces the data"), "{}", ran.err);
    assert_eq!(world.run(&["check", "--strict", "lossy.yaml", "--json"]).document(1), told);
    std::fs::write(world.dir.path().join("good.yaml"), source.replace(".topic", ".tone")).expect("written");
    assert_eq!(world.run(&["check", "--strict", "good.yaml"]).code, 0);
}

#[test]
fn a_doctor_says_what_is_there_and_what_is_broken() {
    let world = World::filled();
    let well = world.run(&["doctor", "--json"]).document(0);
    let finding = |document: &Value, name: &str| {
        let findings = document["findings"].as_array().cloned().unwrap_or_default();
        findings.into_iter().find(|finding| finding["name"] == name).unwrap_or_default()
    };
    assert_eq!(well["ok"], true);
    assert!(
        finding(&well, "store")["detail"]
            .as_str()
            .is_some_and(|text| text.contains("3 workflows, 32 events"))
    );
    assert_eq!(finding(&well, "openai")["state"], "absent");
    assert!(world.run(&["doctor"]).out.contains("✓ store"));

    let new = World::empty();
    assert_eq!(finding(&new.run(&["doctor", "--json"]).document(0), "store")["state"], "absent");

    // A provider that the file names and nobody answers for.
    let toml =
        "[providers.local]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key_env = \"\"\n";
    std::fs::write(new.dir.path().join("foldback.toml"), toml).expect("written");
    let ill = new.run(&["doctor", "--json"]).document(1);
    assert_eq!((&ill["ok"], &finding(&ill, "local")["state"]), (&json!(false), &json!("broken")));

    std::fs::write(new.dir.path().join("foldback.toml"), "[providers.local]\nkind = 7\n").expect("written");
    assert_eq!(new.run(&["doctor"]).code, 1);
}

#[test]
fn help_and_the_version_are_data() {
    let world = World::empty();
    for words in [&["--help"][..], &["-h"], &["show", "--help"], &["help"]] {
        let ran = world.run(words);
        assert!(ran.code == 0 && ran.out.contains("Usage:") && ran.err.is_empty(), "{words:?}: {ran:?}");
    }
    assert!(world.run(&["--version"]).out.starts_with("foldback 0.1"));
}
