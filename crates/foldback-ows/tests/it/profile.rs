//! The table of `docs/profile.md` says what is so: each row is a piece of a definition that is
//! loaded here. The words of a row that is refused are the loader's own hint.
//!
//! `UPDATE=1` writes the table anew; read the difference.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use foldback_ows::load;

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: profile, version: '0.1.0' }\n";
const SET: &str = "do: [a: { set: { x: 1 } }]";
const BEGIN: &str = "<!-- table: tests/it/profile.rs -->\n";
const END: &str = "<!-- end of the table -->\n";

/// A construct, what is to be said of it where it is supported, and a definition that uses it.
type Row = (&'static str, &'static str, &'static str);

const ROWS: &[Row] = &[
    // The document.
    (
        "`document` with `dsl`, `namespace`, `name`, `version`, `title`, `summary`, `tags`",
        "`dsl: '1.0.3'`; any 1.0 is understood",
        "document: { dsl: '1.0.0', namespace: a, name: b, version: '1.0.0', title: t, summary: s, tags: { a: b } }\ndo: [a: { set: { x: 1 } }]",
    ),
    (
        "`document.metadata`",
        "`foldback: { recovery, attempts, erasable, redact }` is ours, all else is yours",
        "document: { dsl: '1.0.3', namespace: a, name: b, version: '1.0.0', metadata: { mine: 1, foldback: { recovery: retry } } }\ndo: [a: { set: { x: 1 } }]",
    ),
    (
        "`input.from`, `output.as`",
        "of the workflow, as of each task",
        "input: { from: .a }\noutput: { as: .b }\nSET",
    ),
    ("`evaluate`", "`language: jq`, `mode: strict`", "evaluate: { language: jq, mode: strict }\nSET"),
    ("`evaluate.mode: loose`", "", "evaluate: { mode: loose }\nSET"),
    ("`schedule`", "", "schedule: { cron: '0 0 * * *' }\nSET"),
    ("`timeout` of the workflow", "", "timeout: { after: { seconds: 1 } }\nSET"),
    (
        "`timeout.after` as an expression",
        "evaluated once, when the task has begun; it sees the task's input",
        "timeout: { after: '${ .limit }' }\ndo: [a: { do: [b: { set: { x: 1 } }], timeout: { after: '${ .limit }' } }]",
    ),
    (
        "`$task` with `name`, `reference`, `definition`, `input`, `startedAt`",
        "`input` is the raw one; ours: `key`",
        "do: [a: { set: { x: '${ [$task.startedAt.iso8601, $task.input, $task.definition, $task.key] }' } }]",
    ),
    ("`$task.output`", "", "do: [a: { set: { x: '${ $task.output }' } }]"),
    (
        "`$workflow` with `id`, `definition`, `input`, `startedAt`",
        "`input` is the raw one",
        "do: [a: { set: { x: '${ [$workflow.definition, $workflow.input] }' } }]",
    ),
    ("`$runtime.name`", "", "do: [a: { set: { x: '${ $runtime.name }' } }]"),
    ("`$runtime.version`, `$runtime.metadata`", "", "do: [a: { set: { x: '${ $runtime.version }' } }]"),
    ("`$authorization`", "", "do: [a: { set: { x: '${ $authorization.scheme }' } }]"),
    // What is shared.
    (
        "`use.secrets`",
        "`${ $secrets.NAME }` as a whole value in a step's request; the log holds the name",
        "use: { secrets: [A] }\ndo: [a: { call: http, with: { method: get, endpoint: 'http://x', headers: { k: '${ $secrets.A }' } } }]",
    ),
    (
        "`use.functions`",
        "one `call: http`, `call: llm` or `run` each",
        "use: { functions: { f: { call: http, with: { method: get, endpoint: 'http://x' } } } }\ndo: [a: { call: f }]",
    ),
    (
        "`use.errors`, `use.retries`, `use.timeouts`",
        "used by name",
        "use: { errors: { e: { type: x, status: 500 } }, retries: { r: { delay: PT1S } }, timeouts: { t: { after: PT1S } } }\ndo: [a: { try: [b: { raise: { error: e } }], catch: { retry: r } }, c: { call: http, with: { method: get, endpoint: 'http://x' }, timeout: t }]",
    ),
    (
        "`use.authentications`",
        "",
        "use: { authentications: { a: { basic: { username: u, password: p } } } }\nSET",
    ),
    ("`use.catalogs`", "", "use: { catalogs: { c: { endpoint: 'http://x' } } }\nSET"),
    ("`use.extensions`", "", "use: { extensions: [e: { extend: all, before: [] }] }\nSET"),
    // What all tasks share.
    (
        "`if`, `then`, `metadata`",
        "`then`: a task of the same list, `continue`, `exit`, `end`",
        "do: [a: { if: .x, set: { x: 1 }, then: exit, metadata: { mine: 1 } }]",
    ),
    (
        "`input`, `output`, `export` of a task",
        "`from`, `as`",
        "do: [a: { input: { from: .a }, set: { x: 1 }, output: { as: .x }, export: { as: '$context + {}' } }]",
    ),
    (
        "`schema` with `document`",
        "JSON Schema (draft-07 to 2020-12), checked before `from` and after `as`",
        "input: { schema: { format: json, document: { type: object } } }\nSET",
    ),
    (
        "`schema` with `resource`",
        "a file, pinned by its content",
        "input: { schema: { resource: { endpoint: file.json } } }\nSET",
    ),
    (
        "`schema` with `resource` on the network",
        "",
        "input: { schema: { resource: { endpoint: 'https://example.com/a.json' } } }\nSET",
    ),
    ("`schema` in another `format`", "", "input: { schema: { format: avro, document: {} } }\nSET"),
    (
        "`timeout` of a `call` or `run` task",
        "of a read: all attempts; of a `write`: each",
        "do: [a: { call: http, with: { method: get, endpoint: 'http://x' }, timeout: { after: { seconds: 1 } } }]",
    ),
    ("`timeout` of another task", "", "do: [a: { do: [b: { set: { x: 1 } }], timeout: { after: PT1S } }]"),
    // Tasks.
    ("`do`", "", "do: [a: { do: [b: { set: { x: 1 } }] }]"),
    (
        "`for` with `each`, `in`, `at`, `while`",
        "one iteration after the other; the output of one is the input of the next",
        "do: [a: { for: { each: x, in: '[1]', at: i }, while: '$i < 3', do: [b: { set: { x: 1 } }] }]",
    ),
    (
        "`metadata.foldback.collect` of a `for`",
        "ours: the output is the list of the iterations' outputs, each iteration begins with the loop's input",
        "do: [a: { for: { each: x, in: '[1]' }, do: [b: { set: { x: 1 } }], metadata: { foldback: { collect: true } } }]",
    ),
    (
        "`fork`",
        "the output is the list of the branches' outputs",
        "do: [a: { fork: { branches: [b: { set: { x: 1 } }] } }]",
    ),
    (
        "`fork.compete`",
        "the first branch wins",
        "do: [a: { fork: { compete: true, branches: [b: { set: { x: 1 } }] } }]",
    ),
    ("`set`", "an object, or an expression", "do: [a: { set: '${ . + { x: 1 } }' }]"),
    (
        "`switch`",
        "each choice is a fact, with the values it looked at",
        "do: [a: { switch: [b: { when: .x, then: end }, c: { then: continue }] }]",
    ),
    (
        "`raise`",
        "",
        "do: [a: { raise: { error: { type: x, status: 500, title: t, detail: d, instance: i } } }]",
    ),
    ("`wait`", "a durable timer", "do: [a: { wait: { seconds: 1 } }]"),
    (
        "`emit`",
        "a domain event in this workflow's own log; it reaches every workflow that listens for its type",
        "do: [a: { emit: { event: { with: { source: 'https://x', type: a.b } } } }]",
    ),
    (
        "`listen` to `one`, `any`, `all`; `with`, `correlate`, `read`",
        "the output is the list of the data (or of the events); types are written out",
        "do: [a: { listen: { to: { all: [ { with: { type: a, data: '${ .x }' }, correlate: { o: { from: '${ .data.o }' } } } ] }, read: envelope } }]",
    ),
    (
        "`listen` with `foreach`",
        "",
        "do: [a: { listen: { to: { one: { with: { type: a } } } }, foreach: { item: x } }]",
    ),
    (
        "`listen` with `until`",
        "",
        "do: [a: { listen: { to: { any: [ { with: { type: a } } ], until: '${ .x }' } } }]",
    ),
    ("`listen` to any signal at all", "", "do: [a: { listen: { to: { any: [] } } }]"),
    (
        "`try`, `catch` with `errors.with`, `as`, `when`, `exceptWhen`, `do`, `then`",
        "",
        "do: [a: { try: [b: { set: { x: 1 } }], catch: { errors: { with: { status: 404 } }, as: e, when: .x, exceptWhen: .y, do: [c: { set: { x: 1 } }], then: end } }]",
    ),
    (
        "`retry` with `when`, `exceptWhen`, `delay`, `backoff`, `limit.attempt.count`, `jitter`",
        "each try has a key of its own: `guarded!2/ask`",
        "do: [a: { try: [b: { set: { x: 1 } }], catch: { retry: { when: .x, exceptWhen: .y, delay: PT1S, backoff: { linear: {} }, limit: { attempt: { count: 3 } }, jitter: { from: PT1S, to: PT2S } } } }]",
    ),
    (
        "`retry.limit.duration`",
        "",
        "do: [a: { try: [b: { set: { x: 1 } }], catch: { retry: { limit: { duration: PT1S } } } }]",
    ),
    (
        "`retry.limit.attempt.duration`",
        "",
        "do: [a: { try: [b: { set: { x: 1 } }], catch: { retry: { limit: { attempt: { duration: PT1S } } } } }]",
    ),
    // Calls.
    (
        "`call: http`",
        "`method`, `endpoint` with `{name}` places, `headers`, `query`, `body`, `output`, `redirect`",
        "do: [a: { call: http, with: { method: post, endpoint: 'http://x/{id}', headers: {}, query: {}, body: {}, output: response, redirect: true } }]",
    ),
    (
        "`authentication: basic`, `bearer`",
        "in place, at the endpoint",
        "do: [a: { call: http, with: { method: get, endpoint: { uri: 'http://x', authentication: { bearer: { token: t } } } } }]",
    ),
    (
        "`authentication: digest`",
        "",
        "do: [a: { call: http, with: { method: get, endpoint: { uri: 'http://x', authentication: { digest: { username: u, password: p } } } } }]",
    ),
    (
        "`authentication: oauth2`",
        "",
        "do: [a: { call: http, with: { method: get, endpoint: { uri: 'http://x', authentication: { oauth2: { authority: 'http://x' } } } } }]",
    ),
    (
        "`authentication: oidc`",
        "",
        "do: [a: { call: http, with: { method: get, endpoint: { uri: 'http://x', authentication: { oidc: { authority: 'http://x' } } } } }]",
    ),
    (
        "`call: llm`",
        "ours: `model`, `template` with `vars` or `messages`, `system`, `schema`, `fallback`, `attachments`, `temperature`, `seed`, `max_tokens`",
        "do: [a: { call: 'llm:1.0.0@default', with: { model: a/b, fallback: [c/d], template: 'x {y}', vars: { y: 1 }, attachments: [], schema: { type: object } } }]",
    ),
    ("`tools` of `call: llm`", "", "do: [a: { call: llm, with: { model: a/b, template: x, tools: [] } }]"),
    ("`call: asyncapi`", "", "do: [a: { call: asyncapi, with: {} }]"),
    ("`call: grpc`", "", "do: [a: { call: grpc, with: {} }]"),
    ("`call: openapi`", "", "do: [a: { call: openapi, with: {} }]"),
    ("`call: a2a`", "", "do: [a: { call: a2a, with: {} }]"),
    ("`call: mcp`", "", "do: [a: { call: mcp, with: {} }]"),
    ("`call` of a function in a catalog", "", "do: [a: { call: 'log:1.0.0@public', with: {} }]"),
    // Processes.
    (
        "`run: shell`",
        "`command`, `arguments`, `environment`, `stdin`",
        "do: [a: { run: { shell: { command: ls, arguments: [x], environment: { A: b }, stdin: y }, return: all } }]",
    ),
    (
        "`run: script`",
        "`language: python`; `code`, or `source` from a file, pinned by its content",
        "do: [a: { run: { script: { language: python, code: 'print(1)' } } }]",
    ),
    ("`run: script` in another language", "", "do: [a: { run: { script: { language: js, code: '1' } } }]"),
    ("`run: container`", "", "do: [a: { run: { container: { image: x } } }]"),
    ("`run: workflow`", "", "do: [a: { run: { workflow: { namespace: a, name: b, version: '1.0.0' } } }]"),
    ("`run` with `await: false`", "", "do: [a: { run: { shell: { command: ls }, await: false } }]"),
    (
        "`return`",
        "`stdout`, `stderr`, `code`, `all`, `none`",
        "do: [a: { run: { shell: { command: ls }, return: none } }]",
    ),
];

fn files(_: &str) -> Result<String, String> {
    Ok("{}".to_owned())
}

/// The verdict on a row, and what is said of it.
fn verdict((construct, note, source): &Row) -> (&'static str, String) {
    let source = source.replace("SET", SET);
    let source = if source.starts_with("document:") { source } else { format!("{HEAD}{source}\n") };
    match load(&source, &files) {
        Ok(_) => ("supported", (*note).to_owned()),
        Err(problems) => {
            assert_eq!(problems.len(), 1, "{construct}: one thing is wrong: {problems:#?}");
            let hint = problems[0].hint.clone().unwrap_or_default();
            assert!(!hint.is_empty(), "{construct} is refused without a way out");
            let is_planned = hint.starts_with("planned");
            (if is_planned { "planned" } else { "refused" }, hint.trim_start_matches("planned; ").to_owned())
        }
    }
}

fn table() -> String {
    let mut table = String::from("| construct | | how, or what to use instead |\n|---|---|---|\n");
    for row in ROWS {
        let (verdict, note) = verdict(row);
        let mark = if verdict == "supported" { "supported" } else { verdict };
        let _ = writeln!(table, "| {} | {mark} | {} |", row.0, note.replace('|', "\\|"));
    }
    table
}

#[test]
fn the_table_of_the_profile_is_what_the_loader_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/profile.md");
    let text = std::fs::read_to_string(&path).expect("the profile");
    let (before, rest) = text.split_once(BEGIN).expect("the table begins");
    let (written, after) = rest.split_once(END).expect("the table ends");
    let table = table();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("the profile is written");
        return;
    }
    for (written, told) in written.lines().zip(table.lines()) {
        assert_eq!(written, told, "a row of docs/profile.md lies (UPDATE=1 writes it anew)");
    }
    assert_eq!(written.lines().count(), table.lines().count(), "rows came or went");
}

/// Names of the schema of the specification: each has its row.
#[test]
fn every_construct_of_the_specification_has_a_row() {
    let Some(specification) = std::env::var_os("FOLDBACK_OWS") else {
        eprintln!("NOT RUN: FOLDBACK_OWS names no folder of the specification");
        return;
    };
    let schema = Path::new(&specification).join("schema/workflow.yaml");
    let source = std::fs::read_to_string(schema).expect("the schema can be read");
    // Definitions whose members are constructs, by their lines: a member of `properties` is indented
    // by two more than it, and the list ends where the indentation does.
    let members = |definition: &str| -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let start = source.lines().position(|line| line.trim_end() == format!("  {definition}:"));
        let lines = source.lines().skip(start.unwrap_or_else(|| panic!("no {definition}")) + 1);
        let mut inside: Option<usize> = None;
        for line in lines.take_while(|line| line.trim().is_empty() || line.starts_with("   ")) {
            let indent = line.len() - line.trim_start().len();
            let name = line.trim().strip_suffix(':').unwrap_or_default();
            match inside {
                _ if name == "properties" => inside = Some(indent + 2),
                Some(depth) if indent == depth && !name.is_empty() => drop(found.insert(name.to_owned())),
                Some(depth) if indent < depth && !line.trim().is_empty() => inside = None,
                _ => {}
            }
        }
        found
    };
    let mut wanted = BTreeSet::new();
    for definition in [
        "taskBase",
        "doTask",
        "emitTask",
        "forkTask",
        "forTask",
        "listenTask",
        "raiseTask",
        "runTask",
        "setTask",
        "switchTask",
        "tryTask",
        "waitTask",
        "authenticationPolicy",
        "retryPolicy",
        "input",
        "output",
        "export",
        "schema",
    ] {
        wanted.extend(members(definition));
    }
    assert!(wanted.len() > 40, "{wanted:?}");
    let all: String = ROWS.iter().map(|(construct, note, _)| format!("{construct} {note} ")).collect();
    let words: BTreeSet<&str> = all
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '2'))
        .filter(|word| !word.is_empty())
        .collect();
    // Members of members, each within the row of its construct.
    let inner = "event error to branches from count duration with properties name uri use constant endpoints exponential image introspection lifetime linear password ports pullPolicy read revocation token username volumes";
    let missing: Vec<&String> = wanted
        .iter()
        .filter(|name| {
            !words.contains(name.as_str()) && !inner.split(' ').any(|known| known == name.as_str())
        })
        .collect();
    assert!(missing.is_empty(), "no row in docs/profile.md for {missing:?}");
}
