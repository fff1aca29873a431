//! The conformance features of the Open Workflow Specification, unmodified, and our own in the same
//! steps, on the real engine: a store in memory, the real `http` kind, a real server on loopback
//! that stands in for the public demo servers.
//!
//! Nothing is skipped but what [`NOT_SUPPORTED`] names, and these are seen to be refused.

mod stand_in;
mod steps;

use std::path::{Path, PathBuf};

use cucumber::{Cucumber, StatsWriter, WriterExt, gherkin, writer};
use steps::World;

/// Scenarios that call what is not supported: an OpenAPI document.
const NOT_SUPPORTED: [&str; 2] = ["Call OpenAPI With Content Output", "Call OpenAPI With Response Output"];

/// Scenarios of the conformance features, all of them.
const CONFORMANCE: usize = 21;

/// Scenarios of our own features.
const OWN: usize = 20;

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "feature"));
    files.sort();
    files
}

fn scenarios(folder: &Path) -> Vec<gherkin::Scenario> {
    let parse = |path: PathBuf| {
        let parsed = gherkin::Feature::parse_path(&path, gherkin::GherkinEnv::default());
        parsed.unwrap_or_else(|why| panic!("{}: {why}", path.display())).scenarios
    };
    files(folder).into_iter().flat_map(parse).collect()
}

/// Runs all scenarios of a folder but those named; how many passed.
fn run(folder: &Path, but: &'static [&'static str]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let told = runtime.block_on(
        Cucumber::<World, _, _, _, _>::new()
            .steps(steps::all())
            .with_writer(
                writer::Basic::raw(std::io::stdout(), writer::Coloring::Never, 0).normalized().summarized(),
            )
            // The arguments of this process are the test runner's.
            .with_default_cli()
            .max_concurrent_scenarios(1)
            .fail_on_skipped()
            .filter_run(folder.to_path_buf(), move |_, _, scenario| !but.contains(&scenario.name.as_str())),
    );
    assert!(!told.execution_has_failed(), "scenarios of {} failed; see above", folder.display());
    assert_eq!((told.parsing_errors(), told.hook_errors(), told.skipped_steps()), (0, 0, 0));
    let stats = told.scenarios_stats();
    assert_eq!((stats.failed, stats.skipped, stats.retried), (0, 0, 0));
    stats.passed
}

#[test]
fn every_conformance_scenario_passes_but_two_of_openapi() {
    let Some(specification) = std::env::var_os("FOLDBACK_OWS") else {
        eprintln!("NOT RUN: FOLDBACK_OWS names no folder of the specification");
        return;
    };
    let folder = Path::new(&specification).join("ctk/features");
    let all = scenarios(&folder);
    assert_eq!(all.len(), CONFORMANCE, "scenarios came or went");
    for name in NOT_SUPPORTED {
        let scenario = all.iter().find(|scenario| scenario.name == name).expect("it is there");
        let definition =
            scenario.steps.iter().find_map(|step| step.docstring.as_deref()).expect("a definition");
        let problems = foldback::ows::load(steps::body(definition), &|_| Err("no files".into()));
        let problems = problems.err().unwrap_or_else(|| panic!("`{name}` loads: take it off the list"));
        let is_openapi = problems.iter().any(|p| p.message.contains("openapi"));
        assert!(is_openapi, "{name}: {problems:?}");
    }
    assert_eq!(run(&folder, &NOT_SUPPORTED), CONFORMANCE - NOT_SUPPORTED.len());
}

#[test]
fn every_scenario_of_our_own_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/features");
    assert_eq!(scenarios(&folder).len(), OWN, "scenarios came or went");
    assert_eq!(run(&folder, &[]), OWN);
}
