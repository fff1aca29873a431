//! Loading: what is refused, where, and with which hint; and every example of the specification.

use std::fmt::Write;
use std::path::Path;

use foldback_ows::{Loaded, Problem, load};

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: story, version: '0.1.0' }\n";

fn no_files(path: &str) -> Result<String, String> {
    Err(format!("no such file: {path}"))
}

fn problems(source: &str) -> Vec<Problem> {
    load(source, &no_files).err().unwrap_or_default()
}

/// Each bad definition: where its first problem stands, a piece of its message, and of its hint.
#[test]
fn what_is_wrong_is_named_with_its_place_and_a_way_out() {
    let with_head = |body: &str| format!("{HEAD}{body}");
    let deep = format!("{HEAD}do: {}1{}\n", "[".repeat(400), "]".repeat(400));
    let deep_block = (0..400).map(|i| format!("{}- \n", " ".repeat(i))).collect::<String>();
    let huge = format!("{HEAD}do:\n  - a: {{ set: {{ x: '{}' }} }}\n", "x".repeat(5_000_000));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..20 {
        let _ = writeln!(bomb, "a{i}: &a{i} [{}]", format!("*a{}, ", i - 1).repeat(10));
    }
    let long_names = (0..9).fold("  - x: { set: { y: 1 } }\n".to_owned(), |inner, i| {
        let indented: String = inner.lines().map(|line| format!("    {line}\n")).collect();
        format!("  - {}{i}:\n      do:\n{indented}", "n".repeat(120))
    });
    let table: Vec<(String, (u32, u32), &str, &str)> = vec![
        (String::new(), (1, 1), "empty", "document"),
        ("document: [".into(), (1, 11), "not YAML", "indentation"),
        ("document:\n\tdsl: 1\n".into(), (2, 2), "not YAML", "spaces"),
        ("a: 1\nb: 2\na: 3\n".into(), (3, 1), "`a` is given twice", "keep one"),
        ("a: 1\n---\nb: 2\n".into(), (2, 1), "one definition", "of its own"),
        ("- a\n".into(), (1, 1), "a definition is an object", ""),
        ("do: !!python/object x\n".into(), (1, 5), "tag", "leave"),
        ("do: *nowhere\n".into(), (1, 5), "not YAML", ""),
        ("do:\n- a:\n    set: ${ . + {a: 1} }\n".into(), (3, 19), "not YAML", "single quotes"),
        ("do:\n- a: { set: { x: ${ .y } } }\n".into(), (2, 19), "", "single quotes"),
        ("do:\n- a: { set: '${ . }', then: b: c }\n".into(), (2, 30), "not YAML", "indentation"),
        ("x: .nan\n".into(), (1, 4), "no number", "quotes"),
        ("${ a }: 1\n".into(), (1, 1), "no member", "known here"),
        (bomb, (6, 10), "aliases", "fewer"),
        (deep, (2, 133), "", ""),
        (deep_block, (129, 129), "", ""),
        (huge, (1, 1), "at most 4194304 bytes", "files"),
        (with_head("do: []\n"), (2, 5), "no tasks", ""),
        (with_head("doo: []\ndo: [a: {set: {x: 1}}]"), (2, 1), "no member `doo`", "did you mean `do`?"),
        (
            "document: { dsl: '2.0.0', namespace: a b, name: a_, version: 1.0 }\ndo: [a: {set: {x: 1}}]"
                .into(),
            (1, 19),
            "DSL 2.0.0",
            "1.0.3",
        ),
        ("document: { namespace: a }\ndo: [a: {set: {x: 1}}]".into(), (1, 11), "needs `dsl`", ""),
        (with_head("do:\n  - a:\n      sett: { x: 1 }\n"), (4, 7), "no task `sett`", "did you mean `set`?"),
        (
            with_head("do:\n  - a:\n      set: { x: 1 }\n      thn: end\n"),
            (5, 7),
            "no member `thn`",
            "did you mean `then`?",
        ),
        (with_head("do:\n  - a: {}\n"), (3, 8), "does not say what it does", "call, do"),
        (with_head("do:\n  - a/b: { set: { x: 1 } }\n"), (3, 5), "is no name", "none of"),
        (with_head("do:\n  - end: { set: { x: 1 } }\n"), (3, 5), "says where to go", "another"),
        (
            with_head("do:\n  - \"a\\eb\": { set: { x: 1 } }\n"),
            (3, 5),
            "the name \"a\\u{1b}b\" holds the control character U+001B",
            "take it out",
        ),
        (with_head("do:\n  - '': { set: { x: 1 } }\n"), (3, 6), "is no name", ""),
        (
            with_head("do:\n  - a: { set: { x: 1 } }\n  - a: { set: { x: 1 } }\n"),
            (4, 8),
            "two tasks",
            "its own",
        ),
        (
            with_head("do:\n  - a: { set: { x: 1 } }\n    b: { set: { x: 1 } }\n"),
            (3, 5),
            "one task, not 2",
            "",
        ),
        (with_head(&format!("do:\n{long_names}")), (16, 31), "too long together", "nest less"),
        (
            with_head("do:\n  - a: { set: { x: 1 }, then: finsh }\n  - finish: { set: { x: 1 } }\n"),
            (3, 31),
            "no task `finsh`",
            "did you mean `finish`?",
        ),
        (with_head("do:\n  - a: { set: { x: \"${ .a | }\" } }\n"), (3, 29), "expected a term", ""),
        (with_head("do:\n  - a: { set: { x: \"${ .a | nope }\" } }\n"), (3, 29), "no filter `nope/0`", ""),
        (
            with_head("do:\n  - a: { set: { x: \"${ $contxt.a }\" } }\n"),
            (3, 24),
            "`$contxt` is not known",
            "`$context`",
        ),
        (
            with_head("do:\n  - a: { set: { x: \"hi ${ .a } you\" } }\n"),
            (3, 21),
            "as a whole or not at all",
            "\\(.x)",
        ),
        (
            with_head("do:\n  - a: { set: { x: \"${ .a } and ${ .b }\" } }\n"),
            (3, 27),
            "expression is wrong",
            "\\(.x)",
        ),
        (with_head("do:\n  - a: { set: { x: \"${ now }\" } }\n"), (3, 24), "no filter `now/0`", "no clock"),
        (
            with_head("do:\n  - a: { set: { x: \"${ env.HOME }\" } }\n"),
            (3, 24),
            "no filter `env/0`",
            "environment",
        ),
        (
            with_head("do:\n  - a: { set: { x: \"${ $steps.finsh }\" } }\n  - finish: { set: { x: 1 } }\n"),
            (3, 21),
            "`$steps.finsh`",
            "`$steps.finish`",
        ),
        (with_head("do:\n  - a: { set: just text }\n"), (3, 15), "object or an expression", "${"),
        (
            with_head("do:\n  - a: { call: htp, with: {} }\n"),
            (3, 16),
            "no function `htp`",
            "did you mean `http`?",
        ),
        (with_head("do:\n  - a: { call: grpc, with: {} }\n"), (3, 16), "not supported", "HTTP gateway"),
        (with_head("do:\n  - a: { call: http, with: { method: get } }\n"), (3, 28), "needs `endpoint`", ""),
        (
            with_head("do:\n  - a: { call: http, with: { method: gett, endpoint: x } }\n"),
            (3, 38),
            "`GETT` is no method",
            "`GET`",
        ),
        (
            with_head("do:\n  - a: { call: http, with: { method: get, endpoint: 'x/{a.b}' } }\n"),
            (3, 54),
            "not a name",
            "top-level",
        ),
        (
            with_head("do:\n  - a: { call: http, with: { method: get, endpont: x } }\n"),
            (3, 28),
            "needs `endpoint`",
            "",
        ),
        (
            with_head("do:\n  - a: { call: llm, with: { model: gpt, template: x } }\n"),
            (3, 36),
            "no model",
            "provider/model",
        ),
        (
            with_head("do:\n  - a: { call: llm, with: { model: a/b } }\n"),
            (3, 27),
            "needs `template` or `messages`",
            "",
        ),
        (
            with_head("do:\n  - a: { call: llm, with: { model: a/b, template: x, messages: [] } }\n"),
            (3, 64),
            "one of",
            "leave",
        ),
        (
            with_head(
                "do:\n  - a: { call: llm, with: { model: a/b, template: 'x {topik}', vars: { topic: 1 } } }\n",
            ),
            (3, 52),
            "{topik}",
            "{topic}",
        ),
        (
            with_head("do:\n  - a: { call: llm, with: { model: a/b, template: { file: no.md } } }\n"),
            (3, 51),
            "cannot be read",
            "relative",
        ),
        (
            with_head(
                "use: { secrets: [key] }\ndo:\n  - a: { call: http, with: { method: get, endpoint: \"${ $secrets.key }\" } }\n",
            ),
            (4, 54),
            "an endpoint cannot be a secret",
            "`authentication`, in a header, in a member of `query`",
        ),
        (
            with_head(
                "use: { secrets: [key] }\ndo:\n  - a: { call: http, with: { method: get, endpoint: { uri: \"${$secrets.key}\" } } }\n",
            ),
            (4, 61),
            "an endpoint cannot be a secret",
            "`authentication`",
        ),
        (
            with_head("use: { secrets: [key] }\ndo:\n  - a: { set: { x: \"${ $secrets.key }\" } }\n"),
            (4, 21),
            "cannot be computed on",
            "whole value",
        ),
        (
            with_head(
                "use: { secrets: [key] }\ndo:\n  - a: { run: { shell: { command: x, environment: { A: \"${ $secrets.key + 1 }\" } } } }\n",
            ),
            (4, 57),
            "cannot be computed on",
            "",
        ),
        (
            with_head(
                "use: { secrets: [key] }\ndo:\n  - a: { run: { shell: { command: x, environment: { A: \"${ $secrets.kee }\" } } } }\n",
            ),
            (4, 57),
            "not declared",
            "`key`",
        ),
        (with_head("do:\n  - a: { wait: 30s }\n"), (3, 16), "no duration", "PT30S"),
        (with_head("do:\n  - a: { wait: { sekonds: 3 } }\n"), (3, 18), "no member `sekonds`", "`seconds`"),
        (with_head("do:\n  - a: { wait: P1M }\n"), (3, 16), "months", "seconds"),
        (with_head("do:\n  - a: { raise: { error: nope } }\n"), (3, 26), "no error `nope`", "use.errors"),
        (
            with_head("do:\n  - a: { try: [b: { set: { x: 1 } }], catch: { retry: nope } }\n"),
            (3, 55),
            "no retry policy",
            "use.retries",
        ),
        (with_head("do:\n  - a: { try: [b: { set: { x: 1 } }] }\n"), (3, 8), "needs `catch`", ""),
        (
            with_head("do:\n  - a: { fork: { compete: first, branches: [b: { set: { x: 1 } }] } }\n"),
            (3, 27),
            "`compete` is true or false, not a text",
            "ends the others",
        ),
        (
            with_head("do:\n  - a: { fork: { branches: [b: { set: { x: 1 }, then: end }] } }\n"),
            (3, 32),
            "leads nowhere",
            "leave `then` out",
        ),
        (
            with_head("do:\n  - a: { fork: { branches: [b: { switch: [c: { then: end }] }] } }\n"),
            (3, 32),
            "leads nowhere",
            "leave `then` out",
        ),
        (
            with_head(
                "do:\n  - a: { fork: { branches: [b: { try: [c: { set: { x: 1 } }], catch: { then: exit } }] } }\n",
            ),
            (3, 32),
            "leads nowhere",
            "leave `then` out",
        ),
        (
            with_head("do:\n  - a: { raise: { error: { type: x, status: '404' } } }\n"),
            (3, 46),
            "from 100 to 599",
            "HTTP",
        ),
        (
            with_head("do:\n  - a: { for: { in: .x, each: i, at: i }, do: [b: { set: { x: 1 } }] }\n"),
            (3, 15),
            "both `$i`",
            "own",
        ),
        (
            with_head("do:\n  - a: { set: &s { x: 1 } }\n  - b: { set: { <<: *s } }\n"),
            (4, 17),
            "`<<`",
            "write",
        ),
        (with_head("do:\n  - a: { switch: [b: { when: .x }] }\n"), (3, 22), "needs `then`", ""),
        (
            with_head("do:\n  - a: { switch: [b: { then: end }, c: { then: end }] }\n"),
            (3, 37),
            "one case without `when`",
            "condition",
        ),
        (
            with_head("do:\n  - a: { for: { in: .x, each: input }, do: [b: { set: { x: 1 } }] }\n"),
            (3, 31),
            "has a meaning already",
            "another",
        ),
        (
            with_head("do:\n  - a: { for: { each: x }, do: [b: { set: { x: 1 } }] }\n"),
            (3, 15),
            "needs `in`",
            "",
        ),
        (with_head("do:\n  - a: { listen: {} }\n"), (3, 18), "`listen` needs `to`", ""),
        (
            with_head("do:\n  - a: { listen: { to: { some: { with: { type: x } } } } }\n"),
            (3, 24),
            "says one of `one`, `any` and `all`",
            "with: { type",
        ),
        (
            with_head("do:\n  - a: { listen: { to: { any: [] } } }\n"),
            (3, 31),
            "any signal at all",
            "name the types",
        ),
        (
            with_head("do:\n  - a: { listen: { to: { one: { with: { type: '${ .x }' } } } } }\n"),
            (3, 48),
            "cannot be computed",
            "foldback signal",
        ),
        (
            with_head("do:\n  - a: { listen: { to: { one: { with: { type: StepAsked } } } } }\n"),
            (3, 47),
            "cannot be the type",
            "foldback signal",
        ),
        (
            with_head(
                "do:\n  - a: { listen: { to: { one: { with: { type: x }, correlate: { o: { from: '${ 1 }', expect: '7' } } } } } }\n",
            ),
            (3, 77),
            "it can never match",
            "take it from the event",
        ),
        (
            with_head(
                "do:\n  - a: { listen: { to: { one: { with: { type: x } } } }, metadata: { foldback: { default: 1 } } }\n",
            ),
            (3, 91),
            "`default` is for a wait whose time runs out",
            "timeout",
        ),
        (
            with_head(
                "do:\n  - a: { listen: { to: { one: { with: { type: x } } } }, metadata: { foldback: { schema: { type: 7 } } } }\n",
            ),
            (3, 98),
            "",
            "",
        ),
        (
            with_head(
                "do:\n  - a: { listen: { to: { any: [ { with: { type: x } } ], until: '${ true }' } } }\n",
            ),
            (3, 58),
            "`until` is not supported",
            "leads back",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          undo: [ { b: { set: { x: '${ $context.y }' } } } ]\n",
            ),
            (8, 40),
            "$context",
            "$write.key",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          undo: [ { b: { set: { x: '${ $steps.a }' } } } ]\n",
            ),
            (8, 37),
            "`$steps.a` is no task",
            "did you mean",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          undo: [ { b: { set: { x: '${ $write.inputs }' } } } ]\n",
            ),
            (8, 37),
            "`$write.inputs` is not recorded",
            "did you mean",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          undo: [ { b: { set: { x: '${ $write.with.y }' } } } ]\n",
            ),
            (8, 37),
            "`$write.with` is not recorded",
            "undo: { with",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          undo: [ { b: { set: { x: 1 }, export: { as: '${ . }' } } } ]\n",
            ),
            (8, 41),
            "`export` beside the flow",
            "use `output`",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          undo: [ { b: { listen: { to: { one: { with: { type: go } } } } } } ]\n",
            ),
            (8, 24),
            "`b` may not listen",
            "`compensate` goes on",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          undo: [ { b: { call: http, with: { method: post, endpoint: 'https://x.test' }, metadata: { foldback: { undo: [ { c: { set: { x: 1 } } } ] } } } } ]\n",
            ),
            (8, 120),
            "is not taken back itself",
            "leave it out",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          undo: []\n",
            ),
            (8, 17),
            "`undo` has no tasks",
            "",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          undo: { tasks: [] }\n",
            ),
            (8, 17),
            "`undo` needs `do`",
            "",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          irreversible: ''\n",
            ),
            (8, 26),
            "`irreversible` says nothing",
            "say why",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          irreversible: a\n          undo: [ { b: { set: { x: 1 } } } ]\n",
            ),
            (8, 25),
            "one of `undo` and `irreversible`",
            "keep",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          recovery: { reconcile: [ { b: { call: http, with: { method: post, endpoint: 'https://x.test' } } } ] }\n",
            ),
            (8, 41),
            "`b` may not write",
            "only looks",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          recovery: { reconcile: [ { b: { set: { x: '${ $write.output }' } } } ] }\n",
            ),
            (8, 54),
            "`$write.output` is not recorded",
            "did you mean",
        ),
        (
            with_head(
                "do:\n  - a:\n      call: http\n      with: { method: post, endpoint: 'https://x.test' }\n      metadata:\n        foldback:\n          recovery: { look: [] }\n",
            ),
            (8, 21),
            "`recovery` needs `reconcile`",
            "",
        ),
        (
            with_head(
                "do:\n  - a: { call: http, with: { method: get, endpoint: 'https://x.test' }, metadata: { foldback: { undo: [ { b: { set: { x: 1 } } } ] } } }\n",
            ),
            (3, 103),
            "are for steps that write",
            "needs no undo",
        ),
        (
            with_head(
                "do:\n  - a: { do: [ { b: { set: { x: 1 } } } ], metadata: { foldback: { budget: { tokens: 0 } } } }\n",
            ),
            (3, 86),
            "lets nothing begin",
            "raise",
        ),
        (
            with_head(
                "do:\n  - a: { do: [ { b: { set: { x: 1 } } } ], metadata: { foldback: { budget: { dollars: 1 } } } }\n",
            ),
            (3, 78),
            "`budget` has no member `dollars`",
            "known here",
        ),
        (
            with_head("do:\n  - a: { set: { x: 1 }, metadata: { foldback: { budget: { tokens: 1 } } } }\n"),
            (3, 37),
            "stands in `metadata.foldback`",
            "in a scope also `budget`",
        ),
        (with_head("do:\n  - a: { emit: {} }\n"), (3, 16), "`emit` needs `event`", ""),
        (
            with_head("do:\n  - a: { emit: { event: { with: { source: x } } } }\n"),
            (3, 33),
            "an event needs `type`",
            "",
        ),
        (
            with_head("do:\n  - a: { emit: { event: { with: { type: StepCompleted } } } }\n"),
            (3, 41),
            "`StepCompleted` cannot be the type of an event",
            "in your domain",
        ),
        (
            with_head("do:\n  - a: { emit: { event: { with: { type: 7 } } } }\n"),
            (3, 41),
            "`type` is a text",
            "quotes: '7'",
        ),
        (with_head("do:\n  - a: { run: { container: { image: x } } }\n"), (3, 17), "container", "docker run"),
        (
            with_head(
                "do:\n  - a: { call: http, with: { method: post, endpoint: 'http://x', headers: { Content-Length: '1' } } }\n",
            ),
            (3, 77),
            "`Content-Length` is not a definition's to set",
            "leave it out",
        ),
        (
            with_head(
                "do:\n  - a: { call: http, with: { method: get, endpoint: 'http://x', headers: { connection: '${ .x }' } } }\n",
            ),
            (3, 76),
            "`connection`",
            "leave it out",
        ),
        (
            with_head(
                "use: { functions: { f: { call: http, with: { method: get, endpoint: 'http://x', headers: { transfer-encoding: x } } } } }\ndo:\n  - a: { call: f }\n",
            ),
            (2, 92),
            "`transfer-encoding`",
            "leave it out",
        ),
        (
            with_head("do:\n  - a: { run: { shell: { command: ls, environment: { FOLDBACK_KEY: x } } } }\n"),
            (3, 54),
            "`FOLDBACK_KEY` tells the process which step it is",
            "another name",
        ),
        (
            with_head(
                "do:\n  - a: { run: { shell: { command: ls } }, metadata: { foldback: { timeout_ms: 0 } } }\n",
            ),
            (3, 79),
            "leaves no time",
            "timeout_ms: 30000",
        ),
        (
            with_head("schedule: { cron: x }\ndo:\n  - a: { set: { x: 1 } }\n"),
            (2, 1),
            "`schedule` is not supported",
            "cron",
        ),
        (
            with_head("input: { schema: {} }\ndo:\n  - a: { set: { x: 1 } }\n"),
            (2, 18),
            "needs `document`",
            "",
        ),
        (
            with_head("input: { schema: { format: avro, document: {} } }\ndo:\n  - a: { set: { x: 1 } }\n"),
            (2, 28),
            "schemas in `avro`",
            "format: json",
        ),
        (
            with_head(
                "do:\n  - a:\n      set: { x: 1 }\n      output:\n        schema:\n          document:\n            properties: { x: { type: nummer } }\n",
            ),
            (8, 38),
            "no JSON Schema",
            "json-schema.org",
        ),
        (
            with_head(
                "do:\n  - a:\n      set: { x: 1 }\n      input: { schema: { document: { items: { $ref: 'https://x.org/y' } } } }\n",
            ),
            (5, 54),
            "nothing is fetched",
            "$defs",
        ),
        (
            with_head("do:\n  - a: { set: { x: 1 }, export: { schema: { document: {} } } }\n"),
            (3, 33),
            "needs `as`",
            "$context + .",
        ),
        (
            with_head(
                "do:\n  - a: { set: { x: 1 }, output: { schema: { resource: { endpoint: 'http://x/y.json' } } } }\n",
            ),
            (3, 55),
            "comes from a file",
            "resource: { endpoint",
        ),
        (
            with_head("do:\n  - a: { set: { x: 1 }, output: { schema: { resource: { file: no.json } } } }\n"),
            (3, 55),
            "cannot be read",
            "relative",
        ),
        (
            with_head("do:\n  - a: { do: [b: { set: { x: 1 } }], timeout: { after: soon } }\n"),
            (3, 56),
            "`soon` is no duration",
            "PT30S",
        ),
        (
            with_head("do:\n  - a: { wait: PT1H, timeout: { after: '${ .x | }' } }\n"),
            (3, 49),
            "expected a term",
            "",
        ),
        (
            with_head(
                "do:\n  - a: { try: [b: { set: { x: 1 } }], catch: { retry: { jitter: { from: PT5S, to: PT1S } } } }\n",
            ),
            (3, 65),
            "`from` is longer than `to`",
            "from: PT1S, to: PT5S",
        ),
        (
            with_head("do:\n  - a: { set: { x: '${ $task.startdAt }' } }\n"),
            (3, 21),
            "`$task.startdAt` is not supported",
            "did you mean `$task.startedAt`?",
        ),
        (
            with_head("do:\n  - a: { set: { x: '${ $runtime.version }' } }\n"),
            (3, 21),
            "`$runtime.version` is not supported",
            "$runtime.name",
        ),
        (
            with_head("do:\n  - a: { set: { x: '${ $authorization.parameter }' } }\n"),
            (3, 21),
            "`$authorization` is not supported",
            "$secrets.NAME",
        ),
        (
            with_head(
                "do:\n  - a: { for: { in: .x }, do: [b: { set: { x: 1 } }], metadata: { foldback: { collect: yes } } }\n",
            ),
            (3, 88),
            "`collect` is true or false",
            "list of the iterations",
        ),
        (
            with_head(
                "do:\n  - a: { do: [b: { set: { x: 1 } }], metadata: { foldback: { collect: true } } }\n",
            ),
            (3, 50),
            "call and run",
            "`for` also `collect`",
        ),
        (
            with_head("do:\n  - a: { wait: PT1H, timeout: { after: { seconds: 0 } } }\n"),
            (3, 40),
            "a timeout of nothing",
            "seconds: 30",
        ),
        (
            with_head("timeout: { after: P1M }\ndo:\n  - a: { set: { x: 1 } }\n"),
            (2, 19),
            "not equally long",
            "PT30S",
        ),
        (
            with_head(
                "use: { timeouts: { short: { after: PT1S } } }\ntimeout: shot\ndo:\n  - a: { set: { x: 1 } }\n",
            ),
            (3, 10),
            "there is no timeout `shot`",
            "did you mean `short`?",
        ),
        (
            with_head("do:\n  - a: { for: { in: .x }, do: [b: { set: { x: 1 } }], timeout: nope }\n"),
            (3, 64),
            "there is no timeout `nope`",
            "use.timeouts",
        ),
        (
            with_head("do:\n  - a: { set: { x: 1 }, metadata: { foldback: { effect: read } } }\n"),
            (3, 37),
            "call and run",
            "move",
        ),
        (
            with_head(
                "do:\n  - a: { call: http, with: { method: get, endpoint: x }, metadata: { foldback: { efect: read } } }\n",
            ),
            (3, 82),
            "no member `efect`",
            "`effect`",
        ),
        (
            with_head(
                "do:\n  - a: { call: http, with: { method: get, endpoint: x }, metadata: { foldback: { recovery: retry } } }\n",
            ),
            (3, 92),
            "steps that write",
            "effect: write",
        ),
    ];
    let mut wrong = String::new();
    for (source, (line, column), message, hint) in &table {
        let found = problems(source);
        let shown: String = source.strip_prefix(HEAD).unwrap_or(source).chars().take(90).collect();
        let Some(first) = found.first() else {
            let _ = writeln!(wrong, "loaded: {shown}");
            continue;
        };
        let has_hint = first.hint.as_deref().unwrap_or("").contains(hint);
        if (first.line, first.column) != (*line, *column) || !first.message.contains(message) || !has_hint {
            let _ = writeln!(
                wrong,
                "{shown}\n   {first}\n   hint: {:?}\n   wanted {line}:{column} {message} / {hint}",
                first.hint
            );
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn all_problems_are_told_at_once() {
    let source = format!(
        "{HEAD}do:\n  - a: {{ set: {{ x: '${{ .a | }}' }}, then: nowhere }}\n  - b: {{ cal: http }}\n  - c: {{ wait: soon }}\n"
    );
    let found = problems(&source);
    assert!(found.len() >= 4, "{found:#?}");
    assert!(found.windows(2).all(|pair| (pair[0].line, pair[0].column) <= (pair[1].line, pair[1].column)));
}

#[test]
fn what_looks_like_a_mistake_is_a_warning() {
    let body = "do:\n  - a: { set: { x: .a.b, y: $context, file: ./x.md } }\n  - b: { call: llm, with: { model: a/b, template: hi, vars: { z: 1 } } }\n";
    let loaded = load(&format!("{HEAD}{body}"), &no_files).expect("it loads");
    let messages: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "3:20: `.a.b` stands for itself here",
            "3:29: `$context` stands for itself here",
            "4:63: the template does not use `z`"
        ]
    );
    assert_eq!(loaded.models, [("a/b".to_owned(), 4, 36)]);
    assert_eq!(loaded.name, "story 0.1.0");
}

#[test]
fn a_definition_is_the_same_in_yaml_in_json_and_in_another_order() {
    let yaml = "do:\n  - a:\n      set: { x: 1, y: '${ .b }' }\ndocument: { dsl: '1.0.3', name: story, version: '0.1.0', namespace: test }\n";
    let json = r#"{"document":{"namespace":"test","dsl":"1.0.3","version":"0.1.0","name":"story"},"do":[{"a":{"set":{"y":"${ .b }","x":1}}}]}"#;
    let (yaml, json): (Loaded, Loaded) =
        (load(yaml, &no_files).expect("YAML"), load(json, &no_files).expect("JSON"));
    assert_eq!((yaml.hash, yaml.canonical), (json.hash, json.canonical));
}

/// What becomes of each example: `tests/examples.txt` has a line for each, in order of their names.
/// A new example, a missing one and another verdict are all told. `UPDATE=1` writes the file anew.
#[test]
fn every_example_of_the_specification_loads_or_is_refused_with_a_place() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(specification) = std::env::var_os("FOLDBACK_OWS") else {
        eprintln!("NOT RUN: FOLDBACK_OWS names no folder of the specification");
        return;
    };
    let entries =
        std::fs::read_dir(Path::new(&specification).join("examples")).expect("the examples can be listed");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let mut told = String::new();
    for path in &paths {
        let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let source = std::fs::read_to_string(path).expect("an example can be read");
        match load(&source, &no_files) {
            Ok(loaded) => {
                foldback_ows::from_canonical(&loaded.canonical).expect("the stored form loads");
                let _ = writeln!(told, "{name}: loads");
            }
            Err(problems) => {
                for problem in &problems {
                    assert!(problem.line > 0 && problem.column > 0, "{name}: {problem}");
                    let hint = problem.hint.as_deref().unwrap_or("no hint");
                    let _ = writeln!(told, "{name}: {problem} ({hint})");
                }
                assert!(!problems.is_empty(), "{name}");
            }
        }
    }
    let verdicts = here.join("tests/examples.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&verdicts, &told).expect("the verdicts can be written");
    }
    let wanted = std::fs::read_to_string(&verdicts).expect("the verdicts are there");
    let differs: Vec<&str> = told
        .lines()
        .filter(|line| !wanted.lines().any(|known| known == *line))
        .chain(wanted.lines().filter(|line| !told.lines().any(|known| known == *line)))
        .collect();
    assert!(differs.is_empty(), "these differ from tests/examples.txt:\n{}", differs.join("\n"));
    assert_eq!(paths.len(), 68, "the specification has examples that this test did not know");
}
