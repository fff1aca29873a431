//! Loading and checking take time linear in the tasks of a list, whatever the tasks say.
//!
//! Times are compared with times of the same process: four times the tasks may take nine times as long,
//! where what grows with the square takes sixteen times, and with the cube sixty-four.

use std::fmt::Write;
use std::time::{Duration, Instant};

use foldback_ows::load;

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: t, version: '1.0.0' }\ndo:\n";

/// A kind of list: its name, and the task of an index of so many.
type Kind = (&'static str, fn(usize, usize) -> String);

const KINDS: &[Kind] = &[
    ("constants", |i, _| format!("- t{i}: {{ set: {{ x: {i} }} }}\n")),
    ("a member more each time", |i, _| format!("- t{i}: {{ set: '${{ . + {{ x{i}: {i} }} }}' }}\n")),
    ("reads the one before", |i, _| match i {
        0 => "- t0: { set: { x: 1 } }\n".to_owned(),
        i => format!("- t{i}: {{ set: {{ x: '${{ $steps.t{}.x }}' }} }}\n", i - 1),
    }),
    ("reads all before", |i, _| format!("- t{i}: {{ set: {{ x: '${{ $steps | length }}' }} }}\n")),
    ("leads on by name", |i, n| format!("- t{i}: {{ set: {{ x: 1 }}, then: t{} }}\n", (i + 1).min(n - 1))),
    ("leads back, one and one", |i, n| {
        let (back, on) = (i.saturating_sub(1), (i + 1).min(n - 1));
        format!("- t{i}: {{ switch: [ b: {{ when: '.x', then: t{back} }}, o: {{ then: t{on} }} ] }}\n")
    }),
    ("in reverse", |i, _| match i {
        0 => "- t0: { switch: [ o: { when: .x, then: exit }, l: { then: last } ] }\n".to_owned(),
        i => format!("- t{i}: {{ set: {{ x: 1 }}, export: {{ as: '$context' }}, then: t{} }}\n", i - 1),
    }),
    ("adds to the context", |i, _| {
        format!("- t{i}: {{ set: {{ x: 1 }}, export: {{ as: '${{ $context + {{ y{i}: .x }} }}' }} }}\n")
    }),
    ("replaces the context by the same", |i, _| {
        format!("- t{i}: {{ set: {{ x: {i} }}, export: {{ as: {{ y: '${{ .x }}' }} }} }}\n")
    }),
    ("replaces the context by another", |i, _| {
        format!("- t{i}: {{ set: {{ x: {i} }}, export: {{ as: {{ y{i}: '${{ .x }}' }} }} }}\n")
    }),
    ("asks the world", |i, _| {
        format!(
            "- t{i}: {{ call: http, with: {{ method: post, endpoint: 'http://x.test', body: {{ x: '${{ .x }}' }} }} }}\n"
        )
    }),
    ("has a schema", |i, _| {
        format!(
            "- t{i}: {{ set: {{ x: {i} }}, output: {{ schema: {{ document: {{ type: object, properties: {{ x: {{}} }} }} }} }} }}\n"
        )
    }),
    ("has a block inside", |i, _| {
        format!(
            "- t{i}: {{ try: [ a: {{ set: {{ x: '${{ .x }}' }} }} ], catch: {{ do: [ b: {{ set: {{ x: 1 }} }} ] }} }}\n"
        )
    }),
    ("is wrong", |i, _| format!("- t{i}: {{ set: {{ x: '${{ $steps.none.x }}' }}, then: nowhere }}\n")),
];

fn source(kind: &Kind, count: usize) -> String {
    let mut source = HEAD.to_owned();
    (0..count).for_each(|i| source.push_str(&(kind.1)(i, count)));
    if kind.0 == "in reverse" {
        let _ = writeln!(source, "- last: {{ set: {{ x: 1 }}, then: t{} }}", count - 1);
    }
    source
}

fn took(source: &str) -> Duration {
    let began = Instant::now();
    drop(load(source, &|_| Err("no file".into())));
    began.elapsed()
}

#[test]
fn four_times_the_tasks_take_no_more_than_nine_times_as_long() {
    let mut slow = String::new();
    for kind in KINDS {
        let (small, large) = (source(kind, 200), source(kind, 800));
        let (mut least, mut most) = (Duration::MAX, Duration::MAX);
        let mut is_linear = false;
        // Others work on this machine too: the best of some tries counts.
        for _ in 0..8 {
            (least, most) = (least.min(took(&small)), most.min(took(&large)));
            is_linear = most < least * 9;
            if is_linear {
                break;
            }
        }
        if !is_linear {
            let _ = writeln!(slow, "{}: 200 tasks {least:?}, 800 tasks {most:?}", kind.0);
        }
    }
    assert!(slow.is_empty(), "\n{slow}");
}

/// One switch with as many cases.
#[test]
fn so_do_four_times_the_cases() {
    let source = |count: usize| {
        let mut source = format!("{HEAD}- s:\n    switch:\n");
        for i in 0..count {
            let _ = writeln!(source, "    - c{i}: {{ when: '.x == {i}', then: end }}");
        }
        source
    };
    let (small, large) = (source(500), source(2_000));
    let took = |source: &str| (0..3).map(|_| took(source)).min().unwrap_or_default();
    let (least, most) = (took(&small), took(&large));
    assert!(most < least * 9, "500 cases {least:?}, 2,000 cases {most:?}");
}

#[test]
#[ignore = "for a release build on a quiet machine: cargo test --release -p foldback-ows --test it linear -- --ignored"]
fn ten_thousand_tasks_take_a_second_at_the_most() {
    for kind in KINDS {
        let source = source(kind, 10_000);
        let took = (0..3).map(|_| took(&source)).min().unwrap_or_default();
        assert!(took < Duration::from_secs(1), "{}: {took:?}", kind.0);
    }
}
