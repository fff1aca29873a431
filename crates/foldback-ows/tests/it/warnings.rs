//! Warnings: what looks like a mistake, where it is told, and that nothing else is.

use std::fmt::Write;
use std::path::Path;

use foldback_ows::load;

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: story, version: '0.1.0' }\n";

/// What is redacted, a condition, and whether it is told.
const REDACTED: &[(&str, &str, bool)] = &[
    ("path: $.email", ".email == \"a@b\"", true),
    ("path: $.customer.email", "$workflow.input.customer.email | startswith(\"a\")", true),
    ("path: $..email", "$steps.a.people[0].email == \"a@b\"", true),
    ("path: $.rows[0].card", ".rows[0].card == 1", true),
    ("path: $.email", ".email", false),
    ("path: $.customer.email", ".order.email == \"a@b\"", false),
    ("path: $.email", ".name == \"a\"", false),
    ("pattern: abc", ".email == \"a@b\"", false),
];

#[test]
fn a_condition_that_compares_what_is_redacted_is_told() {
    for (rule, condition, is_told) in REDACTED {
        let (kind, rule) = rule.split_once(": ").expect("a kind of rule");
        let source = format!(
            "document: {{ dsl: '1.0.3', namespace: test, name: story, version: '0.1.0', metadata: {{ foldback: {{ redact: [ {{ {kind}: '{rule}', replace: '[gone]' }} ] }} }} }}\n\
             do:\n  - a: {{ call: http, with: {{ method: get, endpoint: 'http://x' }} }}\n  - b: {{ if: '{condition}', set: {{ x: 1 }} }}\n"
        );
        let warnings = load(&source, &no_files).unwrap_or_else(|e| panic!("{source}\n{e:?}")).warnings;
        let told: Vec<_> = warnings.iter().filter(|w| w.message.contains("redacted")).collect();
        assert_eq!(told.len(), usize::from(*is_told), "{rule} {condition}: {warnings:?}");
        for warning in told {
            assert_eq!((warning.line, warning.column), (4, 15), "{warning:?}");
            assert!(warning.message.contains("[gone]"), "{warning:?}");
        }
    }
}

/// A definition's tasks, and each warning it gives: line, column, a piece of the message, of the hint.
type Row = (&'static str, &'static [(u32, u32, &'static str, &'static str)]);

const TABLE: &[Row] = &[
    // A short type that is almost a standard one; those of the specification, URIs and own ones are no mistake.
    (
        "do:\n  - a:\n      try: [ b: { call: http, with: { method: get, endpoint: 'http://x' } } ]\n      catch: { errors: { with: { type: timout } } }\n",
        &[(5, 40, "`timout` is no type of the specification's", "did you mean `timeout`?")],
    ),
    (
        "do:\n  - a:\n      try: [ b: { raise: { error: { type: out-of-stock, status: 409 } } } ]\n      catch: { errors: { with: { type: out-of-stock } } }\n",
        &[],
    ),
    (
        "do:\n  - a:\n      try: [ b: { call: http, with: { method: get, endpoint: 'http://x' } } ]\n      catch: { errors: { with: { type: communication } } }\n",
        &[],
    ),
    // A `set` that drops what the next task needs.
    (
        "do:\n  - style: { set: { tone: dry } }\n  - draft: { call: llm, with: { model: a/b, template: '{t}', vars: { t: '${ .topic }' } } }\n",
        &[(3, 19, "`topic` is gone: line 4 needs it", "$workflow.input.topic")],
    ),
    (
        "do:\n  - a: { set: { topic: x } }\n  - b: { set: { tone: dry } }\n  - c: { call: http, with: { method: get, endpoint: 'http://x/{topic}' } }\n",
        &[(4, 15, "`topic` is gone: line 5 needs it", "set: '${ . + { … } }'")],
    ),
    (
        "do:\n  - a: { set: { topic: x } }\n  - b: { set: '${ . + { tone: \"dry\" } }' }\n  - c: { set: { t: '${ .topic + .tone }' } }\n",
        &[],
    ),
    (
        "do:\n  - a: { call: http, with: { method: post, endpoint: 'http://x', headers: { Idempotency-Key: mine } }, metadata: { foldback: { recovery: retry } } }\n  - b: { call: http, with: { method: post, endpoint: 'http://x', headers: { Idempotency-Key: '${ .id }' } }, metadata: { foldback: { recovery: retry } } }\n",
        &[(3, 94, "`a` sends the same idempotency key in every run", "leave it out")],
    ),
    // Lenient reading is no mistake.
    (
        "do:\n  - a: { set: { n: 1 } }\n  - b: { set: { c: '${ .colors + [\"red\"] }', d: '${ .x // 1 }', e: '${ .y == null }' } }\n",
        &[],
    ),
    // In a loop the second round sees what the first gave; a jump back too.
    (
        "do:\n  - a: { set: { n: 0 } }\n  - loop: { for: { in: '[1]' }, while: .done != true, do: [b: { set: { done: '${ .n > 1 }', n: '${ .n }' } }] }\n",
        &[],
    ),
    (
        "do:\n  - a: { set: { n: '${ .m }' } }\n  - b: { set: { m: '${ .n }' } }\n  - c: { switch: [again: { when: .m < 3, then: a }] }\n",
        &[],
    ),
    // A field that no task gives.
    (
        "do:\n  - a: { set: { topic: x, text: y } }\n  - b: { set: { t: '${ $steps.a.txt }' } }\n",
        &[(4, 21, "`$steps.a.txt` is always null here", "did you mean `text`?")],
    ),
    (
        "do:\n  - a: { call: llm, with: { model: a/b, template: x } }\n  - b: { set: { t: '${ .title }' } }\n",
        &[(4, 21, "is a text, which has no members", "`schema`")],
    ),
    (
        "do:\n  - a: { call: llm, with: { model: a/b, template: x, schema: { type: object, properties: { verdict: {} }, additionalProperties: false } } }\n  - b: { switch: [c: { when: .verdikt == \"ok\", then: end }] }\n",
        &[(4, 30, "nothing before it gives `verdikt`", "did you mean `verdict`?")],
    ),
    (
        "do:\n  - a: { call: http, with: { method: get, endpoint: 'http://x', output: response } }\n  - b: { set: { t: '${ .body }' } }\n",
        &[(4, 21, "`.body` is always null here", "there is: content, headers, request, statusCode")],
    ),
    (
        "do:\n  - a: { try: [b: { raise: { error: { type: x, status: 500 } } }], catch: { do: [c: { set: { m: '${ $error.message }' } }] } }\n",
        &[(3, 98, "`$error.message` is always null here", "there is: detail, instance, status, title, type")],
    ),
    (
        "do:\n  - a: { set: { x: '${ $context.topic }' } }\n",
        &[(3, 21, "no task exports anything", "export: { as: … }")],
    ),
    (
        "do:\n  - a: { set: { x: 1 }, export: { as: '{ n: .x }' } }\n  - b: { set: { y: '${ $context.m }' } }\n",
        &[(4, 21, "`$context.m` is always null here", "did you mean `n`?")],
    ),
    (
        "input: { schema: { document: { type: object, properties: { topic: {} }, additionalProperties: false } } }\ndo:\n  - a: { set: { x: '${ .topik }' } }\n",
        &[(4, 21, "nothing before it gives `topik`", "did you mean `topic`?")],
    ),
    ("do:\n  - a: { if: .go, set: { x: 1 } }\n  - b: { set: { y: '${ .z }' } }\n", &[]),
    // What a step answers may be anything.
    (
        "do:\n  - a: { call: http, with: { method: get, endpoint: 'http://x' } }\n  - b: { set: { y: '${ .z }' } }\n",
        &[],
    ),
    // An export that replaces the context.
    (
        "do:\n  - a: { set: { x: 1 }, export: { as: '{ topic: .x }' } }\n  - b: { set: { y: 1 }, export: { as: '{ text: .y }' } }\n",
        &[(4, 40, "`topic` that `a` exported is gone", "$context +")],
    ),
    (
        "do:\n  - a: { set: { x: 1 }, export: { as: '{ topic: .x }' } }\n  - b: { set: { y: 1 }, export: { as: '$context + { text: .y }' } }\n",
        &[],
    ),
    (
        "do:\n  - a: { set: { x: 1 }, export: { as: '{ topic: .x }' } }\n  - b: { set: { y: 1 }, export: { as: '{ topic: .y, text: .y }' } }\n",
        &[],
    ),
    (
        "do:\n  - s: { switch: [one: { when: .a, then: x }, two: { then: y }] }\n  - x: { set: { x: 1 }, export: { as: '{ x: .x }' }, then: end }\n  - y: { set: { y: 1 }, export: { as: '{ y: .y }' } }\n",
        &[],
    ),
    (
        "do:\n  - l: { for: { in: '[1, 2]' }, do: [a: { set: { x: 1 }, export: { as: '{ x: .x }' } }, b: { set: { y: 1 }, export: { as: '{ y: .y }' } }] }\n",
        &[(3, 73, "`y` that `b` exported", ""), (3, 124, "`x` that `a` exported", "")],
    ),
    // What is never reached.
    (
        "do:\n  - a: { set: { x: 1 }, then: c }\n  - b: { set: { x: 2 } }\n  - c: { set: { x: 3 } }\n",
        &[(4, 8, "`b` is never reached: `a` always goes elsewhere", "then: b")],
    ),
    ("do:\n  - a: { if: .x, set: { x: 1 }, then: end }\n  - b: { set: { x: 2 } }\n", &[]),
    (
        "do:\n  - a: { raise: { error: { type: x, status: 500 } } }\n  - b: { set: { x: 2 } }\n",
        &[(4, 8, "`b` is never reached", "leave it out")],
    ),
    (
        "do:\n  - a: { switch: [one: { when: 'true', then: b }, two: { when: .x, then: c }, three: { then: c }] }\n  - b: { set: { x: 1 }, then: end }\n  - c: { set: { x: 2 } }\n",
        &[
            (3, 56, "the case `two` is never reached: `one` before it always holds", "default"),
            (3, 86, "the case `three` is never reached", "condition"),
            (5, 8, "`c` is never reached", "then: c"),
        ],
    ),
    (
        "do:\n  - a: { switch: [one: { when: .x, then: end }, two: { when: '${ .x }', then: b }, no: { when: 'false', then: b }] }\n  - b: { set: { x: 1 } }\n",
        &[
            (3, 18, "where no case holds, `a` goes on with `b`", "otherwise"),
            (3, 54, "`one` before it has the same condition", "change"),
            (3, 88, "its condition never holds", "leave"),
        ],
    ),
    // A case after the default is reached: the default is what is left.
    (
        "do:\n  - a: { switch: [d: { then: end }, one: { when: .x, then: b }] }\n  - b: { set: { x: 1 } }\n",
        &[],
    ),
    // A loop that nothing leads out of, and that meets nobody.
    (
        "do:\n  - a: { set: { x: 1 } }\n  - b: { set: { x: 2 }, then: a }\n",
        &[(4, 31, "this leads back to `a` again and again", "a wait or a step")],
    ),
    (
        "do:\n  - a: { do: [b: { switch: [c: { then: exit }] }], then: a }\n",
        &[(3, 58, "leads back to `a`", "switch")],
    ),
    (
        "do:\n  - a: { set: { x: 1 } }\n  - b: { switch: [on: { when: .x, then: a }, off: { then: b }] }\n",
        &[(4, 8, "leads back to `a`", "")],
    ),
    (
        "do:\n  - a: { set: { n: '${ .n + 1 }' } }\n  - b: { switch: [on: { when: .n < 9, then: a }, off: { then: end }] }\n",
        &[],
    ),
    ("do:\n  - a: { wait: { seconds: 1 } }\n  - b: { set: { x: 2 }, then: a }\n", &[]),
    ("do:\n  - a: { set: { x: 1 } }\n  - b: { if: .x, set: { x: 2 }, then: a }\n", &[]),
    ("do:\n  - a: { do: [b: { switch: [c: { when: .x, then: end }, d: { then: exit }] }], then: a }\n", &[]),
    (
        "do:\n  - a: { try: [b: { raise: { error: { type: x, status: 500 } } }], catch: { retry: { backoff: { constant: {} } } } }\n",
        &[(3, 84, "`a` is tried again at once and without a limit", "count: 3")],
    ),
    (
        "do:\n  - a: { try: [b: { raise: { error: { type: x, status: 500 } } }], catch: { retry: { limit: { attempt: { count: 2 } } } } }\n",
        &[],
    ),
    (
        "do:\n  - a: { try: [b: { call: http, with: { method: get, endpoint: 'http://x' } }], catch: { retry: {} } }\n",
        &[],
    ),
    // A switch that matches nothing, in front of what one of its cases leads to.
    (
        "do:\n  - a: { switch: [one: { when: .x, then: b }, two: { when: .y, then: c }] }\n  - b: { set: { x: 1 }, then: end }\n  - c: { set: { x: 2 } }\n",
        &[(3, 18, "where no case holds, `a` goes on with `b` all the same", "otherwise: { then: … }")],
    ),
    (
        "do:\n  - a: { switch: [one: { when: .x, then: b }, two: { then: c }] }\n  - b: { set: { x: 1 }, then: end }\n  - c: { set: { x: 2 } }\n",
        &[],
    ),
    (
        "do:\n  - a: { switch: [one: { when: .x, then: b }], then: c }\n  - b: { set: { x: 1 }, then: end }\n  - c: { set: { x: 2 } }\n",
        &[],
    ),
    (
        "do:\n  - a: { set: { x: 1 } }\n  - b: { switch: [on: { when: .x > 3, then: a }] }\n  - c: { set: { x: 2 } }\n",
        &[],
    ),
    // A loop whose output is that of its last iteration, taken for a list.
    (
        "do:\n  - a: { for: { in: .x }, do: [b: { call: llm, with: { model: a/b, template: x } }] }\n  - c: { set: { n: '${ length }' } }\n",
        &[(4, 21, "the output of `a` is that of its last iteration", "collect: true")],
    ),
    (
        "do:\n  - a: { for: { in: .x }, do: [b: { set: { y: '${ $item }' } }] }\n  - c: { set: { n: 1 } }\n  - d: { set: { n: '${ $steps.a | map(.y) }', m: '${ [$steps.a[] | .y] }', o: '${ $steps.a[0].y }' } }\n",
        &[
            (5, 21, "the output of `a`", "at `a` gives the list"),
            (5, 51, "the output of `a`", ""),
            (5, 80, "the output of `a`", ""),
        ],
    ),
    (
        "do:\n  - a: { for: { in: .x }, do: [b: { call: http, with: { method: get, endpoint: 'http://x' } }] }\n  - c: { for: { in: $steps.a }, do: [d: { set: { y: 1 } }] }\n",
        &[(4, 21, "the output of `a`", "")],
    ),
    // One that gathers by itself, one that is asked to, and one that is taken for what it is.
    (
        "do:\n  - a: { for: { in: .x }, do: [b: { set: '${ . + [$item] }' }] }\n  - c: { set: { n: '${ length }' } }\n",
        &[],
    ),
    (
        "do:\n  - a: { for: { in: .x }, do: [b: { set: { y: '${ $item }' } }], metadata: { foldback: { collect: true } } }\n  - c: { set: { n: '${ map(.y) }' } }\n",
        &[],
    ),
    (
        "do:\n  - a: { for: { in: .x }, do: [b: { set: { y: '${ $item }' } }] }\n  - c: { set: { n: '${ .y }', m: '${ $steps.a.y | length }' } }\n",
        &[],
    ),
    // A write without a word on what becomes of it.
    (
        "do:\n  - a: { call: http, with: { method: post, endpoint: 'http://x' } }\n",
        &[(3, 8, "until a person says whether it happened", "recovery: retry")],
    ),
    (
        "do:\n  - a: { run: { shell: { command: ls } } }\n",
        &[(3, 8, "`a` changes the world", "effect: pure or read")],
    ),
    ("do:\n  - a: { call: http, with: { method: put, endpoint: 'http://x' } }\n", &[]),
    ("do:\n  - a: { run: { shell: { command: ls } }, metadata: { foldback: { effect: read } } }\n", &[]),
    (
        "do:\n  - a: { run: { shell: { command: ls } }, metadata: { foldback: { recovery: operator } } }\n",
        &[],
    ),
    // A secret on a command line, also where a step is undone, or in a function.
    (
        "use: { secrets: [s] }\ndo:\n  - a: { run: { shell: { command: curl, arguments: ['-H', '${ $secrets.s }'] } }, metadata: { foldback: { recovery: operator, undo: [b: { run: { script: { language: python, code: x, arguments: ['${ $secrets.s }'] } }, metadata: { foldback: { recovery: operator } } }] } } }\n",
        &[
            (4, 52, "the secret in `arguments` of `a` stands on the command line", "environment"),
            (4, 194, "the secret in `arguments` of `b`", "`stdin`"),
        ],
    ),
    (
        "use: { secrets: [s] }\ndo:\n  - a: { run: { shell: { command: '${ $secrets.s }', environment: { S: '${ $secrets.s }' }, stdin: '${ $secrets.s }' } }, metadata: { foldback: { recovery: operator } } }\n",
        &[(4, 36, "the secret in `command` of `a`", "environment")],
    ),
];

fn no_files(path: &str) -> Result<String, String> {
    Err(format!("no such file: {path}"))
}

#[test]
fn what_looks_like_a_mistake_is_told_with_its_place_and_a_way_out_and_nothing_else_is() {
    let mut wrong = String::new();
    for (body, wanted) in TABLE {
        let loaded =
            load(&format!("{HEAD}{body}"), &no_files).unwrap_or_else(|why| panic!("{body}: {why:?}"));
        let is_right = loaded.warnings.len() == wanted.len()
            && loaded.warnings.iter().zip(*wanted).all(|(w, (line, column, message, hint))| {
                (w.line, w.column) == (*line, *column)
                    && w.message.contains(message)
                    && w.hint.as_deref().unwrap_or_default().contains(hint)
            });
        if !is_right {
            let _ = writeln!(wrong, "{body}");
            for w in &loaded.warnings {
                let _ = writeln!(wrong, "   {w}\n      hint: {:?}", w.hint);
            }
            let _ = writeln!(wrong, "   wanted {wanted:?}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Definitions that people are shown first do nothing that is warned of.
#[test]
fn our_own_examples_give_no_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths: Vec<_> = std::fs::read_dir(root.join("examples"))
        .expect("examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.push(root.join("crates/foldback-cli/src/init/pipeline.yaml"));
    assert!(paths.len() >= 4);
    for path in paths {
        let source = std::fs::read_to_string(&path).expect("an example");
        let files = |file: &str| {
            std::fs::read_to_string(path.parent().expect("a folder").join(file))
                .map_err(|why| why.to_string())
        };
        let loaded = load(&source, &files).unwrap_or_else(|why| panic!("{}: {why:?}", path.display()));
        assert!(loaded.warnings.is_empty(), "{}: {:#?}", path.display(), loaded.warnings);
    }
}

/// The specification's examples are right about their data: what is told of them is only that a
/// write stops for a person, which is ours to say.
#[test]
fn the_specifications_examples_give_no_warning_of_their_data() {
    let Some(specification) = std::env::var_os("FOLDBACK_OWS") else {
        eprintln!("NOT RUN: FOLDBACK_OWS names no folder of the specification");
        return;
    };
    let entries =
        std::fs::read_dir(Path::new(&specification).join("examples")).expect("the examples can be listed");
    let mut told = String::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        let source = std::fs::read_to_string(&path).expect("an example can be read");
        let Ok(loaded) = load(&source, &no_files) else { continue };
        // Ours to say, or a `${ }` that was forgotten in the example.
        let is_of_data =
            |text: &str| !text.contains("changes the world") && !text.contains("stands for itself");
        for warning in loaded.warnings.iter().filter(|w| is_of_data(&w.message)) {
            let _ = writeln!(told, "{}: {warning}", path.display());
        }
    }
    assert!(told.is_empty(), "\n{told}");
}

/// Loops inside loops are gone round again for each round of the outer one: that is counted.
#[test]
fn a_definition_that_nests_deep_is_looked_at_in_no_time() {
    let inner = "- x: { set: { n: '${ .n }' } }".to_owned();
    let nested = (0..14).fold(inner, |inner, i| {
        let inside: String = inner.lines().map(|line| format!("\n      {line}")).collect();
        format!("- l{i}:\n    for: {{ in: '[1]' }}\n    do:{inside}")
    });
    let began = std::time::Instant::now();
    let body: String = nested.lines().map(|line| format!("  {line}\n")).collect();
    load(&format!("{HEAD}do:\n{body}"), &no_files).expect("it loads");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}
