//! Bad input: the binary as a user who errs and as an adversary meets it. Each case says what is
//! typed, what lies there, and what must come of it: the exit code, a place, a hint; never a panic,
//! and nothing lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::servers::{Answers, Server, nested};
use crate::world::{Ran, World, tamper};
use serde_json::{Value, json};

/// Put before each definition that begins with `do:` or `use:`, so that `do:` is on line 2.
const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: bad, version: '1.0.0' }\n";
const OK: (&str, &str) = ("ok.yaml", "do:\n  - one: { set: { x: 1 } }\n");

/// What is typed, what lies in the directory, and what comes of it.
struct Case {
    name: &'static str,
    args: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    code: i32,
    wanted: &'static [&'static str],
}

const fn case(
    name: &'static str,
    args: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    code: i32,
    wanted: &'static [&'static str],
) -> Case {
    Case { name, args, files, code, wanted }
}

/// Code 2 is refused before the first event; code 1 has begun, and failed at the task `one`.
#[rustfmt::skip] // one case, one or two lines
const CASES: &[Case] = &[
    // The command line.
    case("no command", &[], &[], 2, &["Usage:"]),
    case("an unknown command", &["rnu", "ok.yaml"], &[OK], 2, &["rnu", "foldback --help"]),
    case("an unknown flag", &["run", "ok.yaml", "--inptu", "1"], &[OK], 2, &["--inptu", "foldback run --help"]),
    case("a command behind --store", &["--store", "x.db", "run"], &[], 2, &["<FILE>", "foldback run --help"]),
    case("a flag without its value", &["run", "ok.yaml", "--id"], &[OK], 2, &["--id <ID>"]),
    case("one word too many", &["run", "ok.yaml", "more"], &[OK], 2, &["'more'"]),
    case("a verdict that is none", &["resolve", "a", "b", "maybe"], &[], 2, &["'maybe'", "landed, didnt"]),
    case("an output of nothing", &["resolve", "a", "b", "didnt", "1"], &[], 2, &["did not happen"]),
    case("an output that is no JSON", &["resolve", "a", "b", "landed", "{"], &[], 2, &["the output:1:1:"]),
    // Numbers and members that no value can keep as they are.
    case("a whole number outside 64 bits", &["run", "ok.yaml", "--input", "{\"a\": 18446744073709551616}"], &[OK],
        2, &["--input:1:7:", "18446744073709551616 is outside 64 bits"]),
    case("a float outside a float", &["run", "ok.yaml", "--input", "[1e400]"], &[OK], 2, &["--input:1:2:", "outside 64 bits"]),
    case("a member that stands twice", &["run", "ok.yaml", "--input", "{\"a\": 1, \"a\": 2}"], &[OK],
        2, &["--input:1:", "\"a\" stands twice"]),
    case("the same from a file", &["run", "ok.yaml", "--input", "@in.json"], &[OK, ("in.json", "[1,\n -9223372036854775809]")],
        2, &["in.json:2:2:", "outside 64 bits"]),
    case("the same in a signal", &["signal", "nobody", "told", "{\"a\": 1e999}"], &[], 2, &["outside 64 bits"]),
    case("the same in a definition", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: 18446744073709551616 } }\n")],
        2, &["a.yaml:3:22:", "outside 64 bits"]),
    case("in a definition, in hexadecimal", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: 0x10000000000000000 } }\n")],
        2, &["a.yaml:3:22:", "outside 64 bits"]),
    case("in a definition, so small that it is nothing", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: 1e-999 } }\n")],
        2, &["a.yaml:3:22:", "outside 64 bits"]),
    case("in an expression", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: '${ 18446744073709551616 }' } }\n")],
        2, &["a.yaml:3:", "outside 64 bits"]),
    case("infinity as a result", &["run", "a.yaml", "--id", "w"], &[("a.yaml", "do:\n  - one: { set: { x: '${ [1, infinite] }' } }\n")],
        1, &["`/1` is infinite"]),
    case("a division by zero", &["run", "a.yaml", "--id", "w"], &[("a.yaml", "do:\n  - one: { set: { x: '${ 1 / 0 }' } }\n")],
        1, &["the divisor is zero"]),
    case("single quotes in an expression", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: \"${ .a == 'b' }\" } }\n")],
        2, &["a.yaml:3:", "double quotes"]),
    // The definition.
    case("a missing file", &["run", "no.yaml"], &[], 2, &["no.yaml: No such file", "foldback init"]),
    case("a directory", &["run", "."], &[], 2, &[".: Is a directory"]),
    case("a file in a file", &["run", "ok.yaml/x"], &[OK], 2, &["ok.yaml/x: Not a directory"]),
    case("an empty file", &["run", "a.yaml"], &[("a.yaml", "")], 2, &["a.yaml:1:1:", "empty"]),
    case("no object", &["run", "a.yaml"], &[("a.yaml", "42\n")], 2, &["a.yaml:1:1:", "not a number"]),
    case("broken YAML", &["run", "a.yaml"], &[("a.yaml", "do: [\n  - a: {")], 2, &["a.yaml:2:3:", "not YAML"]),
    case("tabs", &["run", "a.yaml"], &[("a.yaml", "do:\n\t- a: 1\n")], 2, &["a.yaml:3:2:", "spaces"]),
    case("an unknown task", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { sett: { x: 1 } }\n")],
        2, &["a.yaml:3:12:", "`sett`", "did you mean `set`?"]),
    case("a task that is nowhere", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: 1 }, then: tow }\n  - two: { set: { x: 1 } }\n")],
        2, &["a.yaml:3:", "`tow`", "did you mean `two`?"]),
    case("a misspelled member", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { call: http, with: { method: get, endpiont: 'http://x' } }\n")],
        2, &["a.yaml:3:", "`endpiont`", "did you mean `endpoint`?"]),
    case("one name for two tasks", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: 1 } }\n  - one: { set: { x: 1 } }\n")],
        2, &["a.yaml:4:", "`one`"]),
    case("jq that is none", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: '${ .a | }' } }\n")],
        2, &["a.yaml:3:", "expression"]),
    case("a prompt that is missing", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { call: llm, with: { model: ollama/x, template: { file: no.md } } }\n")],
        2, &["a.yaml:3:", "no.md"]),
    case("a model of nobody", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { call: llm, with: { model: nobody/x, template: hi } }\n")],
        2, &["a.yaml:3:38:", "`nobody`", "[providers.nobody]"]),
    case("a model without its key", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { call: llm, with: { model: openai/x, template: hi } }\n")],
        2, &["a.yaml:3:38:", "OPENAI_API_KEY is not set"]),
    // The configuration.
    case("its misspelled member", &["run", "ok.yaml"], &[OK, ("foldback.toml", "[providers.x]\nkind = \"openai\"\nbaseurl = \"http://x\"\n")],
        2, &["foldback.toml:3:", "`baseurl`"]),
    case("a value of another kind", &["check", "ok.yaml"], &[OK, ("foldback.toml", "[providers.x]\nkind = 7\n")],
        2, &["foldback.toml:2:", "expected a string"]),
    case("a key where its name belongs", &["run", "ok.yaml"], &[OK, ("foldback.toml", "[providers.x]\nkind = \"openai\"\napi_key_env = \"sk-1\"\n")],
        2, &["foldback.toml:1:", "`api_key_env`"]),
    case("no TOML", &["run", "ok.yaml"], &[OK, ("foldback.toml", "[providers\n")], 2, &["foldback.toml:1:"]),
    case("none there", &["--config", "no.toml", "run", "ok.yaml"], &[OK], 2, &["no.toml"]),
    case("a directory as configuration", &["--config", ".", "run", "ok.yaml"], &[OK], 2, &["Is a directory"]),
    // Input and id.
    case("input: no JSON", &["run", "ok.yaml", "--input", "{\"a\": }"], &[OK], 2, &["--input:1:7:", "not JSON"]),
    case("input: no end", &["run", "ok.yaml", "--input", "[1,\n2"], &[OK], 2, &["--input:2:1:", "not JSON"]),
    case("input: nothing", &["run", "ok.yaml", "--input", ""], &[OK], 2, &["--input:1:1:", "not JSON"]),
    case("input: empty stdin", &["run", "ok.yaml", "--input", "-"], &[OK], 2, &["standard input:1:1:"]),
    case("input: a missing file", &["run", "ok.yaml", "--input", "@no.json"], &[OK], 2, &["no.json: No such file"]),
    case("input: no file", &["run", "ok.yaml", "--input", "@"], &[OK], 2, &["no file behind @"]),
    case("input: a directory", &["run", "ok.yaml", "--input", "@."], &[OK], 2, &["Is a directory"]),
    case("input: no JSON in a file", &["run", "ok.yaml", "--input", "@ok.yaml"], &[OK], 2, &["ok.yaml:1:1:", "not JSON"]),
    case("input: misses its schema", &["run", "a.yaml", "--input", "{\"n\": 0}"], &[("a.yaml", "do:\n  - one: { set: { x: 1 } }\ninput: { schema: { document: { properties: { n: { minimum: 1 } } } } }\n")],
        2, &["--input misses the schema of a.yaml: /n: 0 is less than the minimum of 1", "hint: ", "nothing was run"]),
    case("input: none, and a schema", &["run", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: 1 } }\ninput: { schema: { resource: { endpoint: in.json } } }\n"), ("in.json", "{\"required\": [\"n\"]}")],
        2, &["without --input it is {}, which misses the schema", "\"n\" is a required property"]),
    case("a schema from afar", &["check", "a.yaml"], &[("a.yaml", "do:\n  - one: { set: { x: 1 } }\ninput: { schema: { resource: { endpoint: 'https://example.com/in.json' } } }\n")],
        2, &["a.yaml:4:", "a schema comes from a file", "schemas/input.json"]),
    case("id: empty", &["run", "ok.yaml", "--id", ""], &[OK], 2, &["workflow id \"\""]),
    case("id: of a fork", &["run", "ok.yaml", "--id", "a~b"], &[OK], 2, &["\"a~b\"", "`~`"]),
    case("id: two lines", &["run", "ok.yaml", "--id", "a\nb"], &[OK], 2, &["\"a\\nb\""]),
    case("id: white space", &["run", "ok.yaml", "--id", " a"], &[OK], 2, &["\" a\""]),
    // The store.
    case("no store to go on with", &["resume"], &[], 2, &["foldback.db does not exist"]),
    case("no store to resolve in", &["resolve", "a", "b", "didnt"], &[], 2, &["foldback.db does not exist"]),
    case("a directory as store", &["--store", ".", "run", "ok.yaml"], &[OK], 2, &["is a directory"]),
    case("a store nowhere", &["--store", "no/a.db", "run", "ok.yaml"], &[OK], 2, &["no directory no"]),
    case("a store of another kind", &["--store", "mysql://x", "run", "ok.yaml"], &[OK], 2, &["mysql://x"]),
    case("a store of another kind, short", &["--store", "mysql:x", "run", "ok.yaml"], &[OK], 2, &["mysql:x"]),
    case("a store that keeps nothing", &["--store", "memory:", "run", "ok.yaml"], &[OK], 2, &["in memory"]),
    case("a text as store", &["--store", "ok.yaml", "run", "ok.yaml"], &[OK], 2, &["ok.yaml is no SQLite database"]),
    // What only shows while it runs.
    case("jq fails", &["run", "a.yaml", "--id", "w"], &[("a.yaml", "do:\n  - zero: { set: { x: 1 } }\n  - one: { set: { x: '${ error(\"boom\") }' } }\n")],
        1, &["/do/1/one", "boom"]),
    case("jq never ends", &["run", "a.yaml", "--id", "w"], &[("a.yaml", "do:\n  - one: { set: { x: '${ def f: f; f }' } }\n")],
        1, &["too much work"]),
    case("jq nests too deep", &["run", "a.yaml", "--id", "w"], &[("a.yaml", "do:\n  - one: { set: { x: '${ reduce range(110) as $i (0; [.]) }' } }\n")],
        1, &["nests too deep"]),
    case("a computed model of nobody", &["run", "a.yaml", "--id", "w", "--input", "\"nobody/x\""], &[("a.yaml", "do:\n  - one: { call: llm, with: { model: '${ . }', template: hi } }\n")],
        1, &["/do/0/one", "unknown provider `nobody`"]),
    case("a computed model that is none", &["run", "a.yaml", "--id", "w", "--input", "7"], &[("a.yaml", "do:\n  - one: { call: llm, with: { model: '${ . }', template: hi } }\n")],
        1, &["`model` is not a text"]),
    case("a secret that is not set", &["run", "a.yaml", "--id", "w"], &[("a.yaml", "use: { secrets: [ NO ] }\ndo:\n  - one: { call: http, with: { method: get, endpoint: 'http://127.0.0.1:9/', headers: { x: '${ $secrets.NO }' } } }\n")],
        1, &["FOLDBACK_SECRET_NO"]),
    case("an address of another kind", &["run", "a.yaml", "--id", "w", "--input", "\"ftp://x\""], &[("a.yaml", "do:\n  - one: { call: http, with: { method: get, endpoint: '${ . }' } }\n")],
        1, &["`ftp:`"]),
    case("a command that fails", &["run", "a.yaml", "--id", "w"], &[("a.yaml", "do:\n  - one: { run: { shell: { command: 'echo no luck >&2; exit 3' } } }\n")],
        1, &["/do/0/one", "exit code 3", "no luck"]),
];

/// The binary in a directory with these files.
fn prepared(files: &[(&str, &str)]) -> World {
    let world = World::empty();
    for (name, text) in files {
        let head = if text.starts_with("do:\n") || text.starts_with("use:") { HEAD } else { "" };
        fs::write(world.dir.path().join(name), format!("{head}{text}")).expect("written");
    }
    world
}

fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.command(args);
    command.env_remove("OPENAI_BASE_URL").stdin(Stdio::null());
    command
}

/// Runs the binary, and sees to what holds for each run.
fn run(world: &World, name: &str, args: &[&str], code: i32, wanted: &[&str]) -> Ran {
    let ran = Ran::of(command(world, args).output().expect("the binary runs"));
    let told = format!("{name}: {args:?}\n{}\n{}", ran.out, ran.err);
    assert_eq!(ran.code, code, "{told}");
    assert!(!ran.err.contains("panicked") && !ran.err.contains("RUST_BACKTRACE"), "{told}");
    for text in wanted {
        assert!(ran.err.contains(text), "{text:?} is missing in {told}");
    }
    if code == 2 {
        assert!(ran.err.lines().any(|line| line.starts_with("hint: ")), "no hint in {told}");
        assert_eq!(ran.out, "", "{told}");
    }
    ran
}

/// Nothing is broken, and these are the workflows.
fn audited(world: &World, name: &str, workflows: u64) {
    let found = run(world, name, &["audit", "--json"], 0, &[]).document(0);
    assert_eq!((&found["workflows"], &found["problems"]), (&json!(workflows), &json!([])), "{name}");
}

#[test]
fn what_is_refused_begins_nothing_and_what_fails_names_its_place() {
    for Case { name, args, files, code, wanted } in CASES {
        let world = prepared(files);
        let ran = run(&world, name, args, *code, wanted);
        assert_eq!(ran.out, "", "{name}");
        if *code == 2 {
            assert!(!world.path().exists(), "{name}: nothing was begun");
            continue;
        }
        for text in [" at one\n", "hint: `foldback state w --at failure`"] {
            assert!(ran.err.contains(text), "{name}: {text:?} is missing in {}", ran.err);
        }
        // Again: the same answer, from the log alone.
        let document = run(&world, name, &[*args, &["--json"]].concat(), 1, &[]).document(1);
        let told = (&document["status"], &document["error"]["key"]);
        assert_eq!(told, (&json!("failed"), &json!("one")), "{name}");
        audited(&world, name, 1);
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_not_passed_over() {
    let world = prepared(&[OK]);
    fs::create_dir(world.dir.path().join("foldback.toml")).expect("made");
    run(&world, "a directory", &["run", "ok.yaml"], 2, &["foldback.toml: it is no regular file"]);
}

/// A call of a server, and a task behind it.
fn calling(method: &str, url: &str) -> String {
    format!(
        "do:\n  - send:\n      call: http\n      with: {{ method: {method}, endpoint: '{url}/x', body: {{ a: 1 }} }}\n      \
         metadata: {{ foldback: {{ timeout_ms: 400 }} }}\n  - after: {{ set: {{ got: '${{ . }}' }} }}\n"
    )
}

#[test]
fn a_server_that_misbehaves_fails_a_read_and_leaves_a_write_unknown() {
    // How it answers; what becomes of a GET, what of a POST; what is said.
    let cases = [
        (Some(Answers::Garbage), "failed", "unknown", "no complete answer"),
        (Some(Answers::Closes), "failed", "unknown", "connection closed"),
        (Some(Answers::Never), "failed", "unknown", "no answer within 400 ms"),
        (Some(Answers::Half), "failed", "unknown", "broke off"),
        (Some(Answers::BadJson), "failed", "unknown", "says it is JSON and is none"),
        (Some(Answers::Nested(110)), "failed", "unknown", "deeper than 100 levels"),
        // These are known not to have happened.
        (Some(Answers::Error), "failed", "failed", "500 Internal Server Error"),
        (None, "failed", "failed", "503 Not reachable"),
    ];
    for (answers, read, written, wanted) in cases {
        for (method, status) in [("get", read), ("post", written)] {
            let name = format!("{answers:?} to {method}");
            let url = answers.clone().map_or_else(Server::refusing, |answers| Server::that(answers).url);
            let world = prepared(&[("a.yaml", &calling(method, &url))]);
            let hint = match status {
                "unknown" => "hint: look whether it happened, then `foldback resolve w send landed",
                _ => "hint: `foldback state w --at failure`",
            };
            let ran = run(&world, &name, &["run", "a.yaml", "--id", "w"], 1, &[wanted, "send", hint]);
            assert_eq!(ran.out, "", "{name}");
            let state = run(&world, &name, &["state", "w", "--json"], 0, &[]).document(0);
            assert_eq!(state["status"], status, "{name}");
            audited(&world, &name, 1);
        }
    }
}

#[test]
fn an_unknown_outcome_is_settled_by_a_person() {
    // What a person says, what comes of it, and how often it was sent by then.
    for (verdict, output, requests) in [
        (&["landed", "{\"id\":1}"][..], json!({"got": {"id": 1}}), 1),
        (&["didnt"], json!({"got": {"id": 2}}), 2),
    ] {
        let name = verdict[0];
        let server = Server::that(Answers::ClosesOnce);
        let world = prepared(&[("a.yaml", &calling("post", &server.url))]);
        run(&world, name, &["run", "a.yaml", "--id", "w"], 1, &["outcome unknown"]);
        run(&world, name, &["resolve", "w", "sned", "didnt"], 2, &["`sned`", "foldback list"]);
        run(&world, name, &["resolve", "v", "send", "didnt"], 2, &["\"v\"", "foldback list"]);
        run(&world, name, &["resolve", "w", "send", "landed", "{1}"], 2, &["the output:1:2:"]);
        // Its answer is used later: that it has none, a person says.
        let form = "foldback resolve w send landed 'JSON'";
        run(&world, name, &["resolve", "w", "send", "landed"], 2, &["it has an answer", form]);
        run(&world, name, &["resolve", "w", "send", "landed", "JSON"], 2, &["the output:1:1:"]);
        let deep = nested(101);
        run(&world, name, &["resolve", "w", "send", "landed", &deep], 2, &["deeper than 100"]);
        // Going on does not settle it.
        run(&world, name, &["resume", "w"], 1, &["w is unknown"]);
        let words = [&["--json", "resolve", "w", "send"][..], verdict].concat();
        let document = run(&world, name, &words, 0, &[]).document(0);
        assert_eq!((&document["status"], &document["output"]), (&json!("completed"), &output), "{name}");
        assert_eq!(server.requests(), requests, "{name}");
        let shown = world.run(&["show", "w", "send"]).out;
        assert_eq!(shown.contains("by a person"), name == "landed", "{shown}");
        assert!(shown.contains(&format!("answer   {}", document["output"]["got"])), "{shown}");
        run(&world, name, &["resolve", "w", "send", "didnt"], 2, &["`send`", "hint: "]);
        audited(&world, name, 1);
    }
}

#[test]
fn an_id_belongs_to_one_input_and_one_definition() {
    let world = prepared(&[OK, ("other.yaml", "do:\n  - two: { set: { x: 2 } }\n")]);
    let begun = ["run", "ok.yaml", "--id", "w", "--input", "{\"a\":1,\"b\":2}"];
    run(&world, "begun", &begun, 0, &[]);
    let log = || run(&world, "the log", &["events", "w", "--json"], 0, &[]).out;
    let before = log();
    for (name, words, wanted) in [
        ("another input", ["run", "ok.yaml", "--id", "w", "--input", "{\"a\":1}"], "with another input"),
        (
            "another definition",
            ["run", "other.yaml", "--id", "w", "--input", "{\"a\":1,\"b\":2}"],
            "another definition",
        ),
    ] {
        run(&world, name, &words, 2, &["`w`", wanted, "foldback show w"]);
        let store = format!("sqlite:{}", world.path().display());
        let named = [&["--store", &store][..], &words].concat();
        run(&world, name, &named, 2, &[&format!("`foldback --store {store} show w`")]);
        assert_eq!(log(), before, "{name}");
    }
    // The same input in other words is the same input.
    let same = ["run", "ok.yaml", "--id", "w", "--input", "{ \"b\": 2, \"a\": 1 }"];
    run(&world, "the same", &same, 0, &[]);
    assert_eq!(log(), before);
    audited(&world, "the same", 1);
}

#[test]
fn input_is_bounded_in_length_and_depth() {
    let world = prepared(&[OK]);
    let put = |name: &str, text: &str| fs::write(world.dir.path().join(name), text).expect("written");
    put("huge.json", &format!("\"{}\"", "x".repeat(64 * 1024 * 1024)));
    put("deep.json", &nested(101));
    put("deeper.json", &nested(100_000));
    put("deepest.json", &nested(100));
    fs::write(world.dir.path().join("bytes.json"), b"\"\xff\"").expect("written");
    for (input, wanted) in [
        ("@huge.json", "huge.json: is larger than 64 MiB"),
        ("@deep.json", "deep.json: nests deeper than 100 levels"),
        ("@deeper.json", "deeper.json:1:128:"),
        ("@bytes.json", "bytes.json: is not UTF-8"),
    ] {
        run(&world, input, &["run", "ok.yaml", "--input", input], 2, &[wanted]);
    }
    assert!(!world.path().exists(), "nothing was begun");
    run(&world, "as deep as may be", &["run", "ok.yaml", "--input", "@deepest.json"], 0, &[]);
    audited(&world, "as deep as may be", 1);
}

#[test]
fn a_store_that_cannot_be_used_is_refused_and_left_alone() {
    let commands: [&[&str]; 4] =
        [&["run", "ok.yaml"], &["resume"], &["list"], &["resolve", "w", "one", "didnt"]];
    for (name, sql, wanted) in [
        ("of a newer version", "PRAGMA user_version = 99", "written by a newer foldback (store version 99"),
        ("of another program", "PRAGMA application_id = 7", "is a SQLite database of another program"),
    ] {
        let world = prepared(&[OK]);
        run(&world, name, &["run", "ok.yaml", "--id", "w"], 0, &[]);
        tamper(&world.path(), &format!("{sql}; PRAGMA wal_checkpoint(TRUNCATE);"));
        let before = fs::read(world.path()).expect("read");
        for words in commands {
            run(&world, name, words, 2, &["foldback.db", wanted]);
            assert_eq!(fs::read(world.path()).expect("read"), before, "{name}: {words:?} left it alone");
        }
    }
}

#[test]
fn an_audit_of_a_damaged_file_finds_the_damage() {
    let world = prepared(&[OK]);
    run(&world, "begun", &["run", "ok.yaml", "--id", "w"], 0, &[]);
    tamper(&world.path(), "PRAGMA wal_checkpoint(TRUNCATE);");
    let whole = fs::read(world.path()).expect("read");
    let mut found = 0;
    for page in 1..whole.len() / 4_096 {
        let mut damaged = whole.clone();
        damaged[page * 4_096 + 8..(page + 1) * 4_096].iter_mut().step_by(5).for_each(|byte| *byte ^= 0x5a);
        fs::write(world.path(), damaged).expect("written");
        let ran = world.run(&["audit", "--json"]);
        assert!(ran.code <= 1 && !ran.err.contains("panicked"), "page {page}: {ran:?}");
        found += ran.code;
        assert_eq!(ran.document(ran.code)["problems"] == json!([]), ran.code == 0, "page {page}: {ran:?}");
    }
    assert!(found > 3, "pages that hold something");
    fs::write(world.path(), whole).expect("written");
    audited(&world, "mended", 1);
}

#[test]
fn a_store_that_cannot_be_written_is_refused() {
    let world = prepared(&[OK]);
    run(&world, "begun", &["run", "ok.yaml", "--id", "w"], 0, &[]);
    let folder = world.dir.path();
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode is set");
    };
    for beside in fs::read_dir(folder).expect("read") {
        mode(&beside.expect("a file").path(), 0o444);
    }
    mode(folder, 0o555);
    // Nothing is read-only for root: so the binary runs as nobody, from a place where it may.
    let is_root = fs::OpenOptions::new().append(true).open(world.path()).is_ok();
    let bin = tempfile::tempdir().expect("a directory");
    let binary = bin.path().join("foldback");
    // By another process: a file that a child of this one holds open for writing cannot be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_foldback")).arg(&binary).status();
    assert!(copied.expect("cp").success());
    mode(bin.path(), 0o755);
    for (words, wanted) in [
        (["run", "ok.yaml"], "foldback.db is read-only"),
        (["run", "no.yaml"], "no.yaml"),
        (["resume", "w"], "foldback.db is read-only"),
    ] {
        let mut command = Command::new(&binary);
        command.args(words).current_dir(folder).env_remove("FOLDBACK_STORE");
        if is_root {
            command.uid(65_534).gid(65_534);
        }
        let ran = Ran::of(command.output().expect("the binary runs"));
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.err.contains(wanted) && ran.err.contains("hint: "), "{words:?}: {ran:?}");
    }
    mode(folder, 0o755);
    for beside in fs::read_dir(folder).expect("read") {
        mode(&beside.expect("a file").path(), 0o644);
    }
    audited(&world, "afterwards", 1);
}

#[test]
fn an_interrupted_run_lets_its_step_report_and_is_gone_on_with() {
    let definition = "do:\n  - slow: { run: { shell: { command: 'touch begun; sleep 0.7; echo slow' } } }\n  \
                      - last: { run: { shell: { command: 'echo last' } } }\n";
    for signal in ["INT", "TERM"] {
        let world = prepared(&[("a.yaml", definition)]);
        let mut interrupted = command(&world, &["--json", "run", "a.yaml", "--id", "w"]);
        let child = interrupted.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        wait_until("the slow step", || world.dir.path().join("begun").exists());
        kill(signal, child.id());
        let ran = Ran::of(child.wait_with_output().expect("it ends"));
        assert!(ran.err.contains("stopping: ") && ran.err.contains("`foldback resume` goes on"), "{ran:?}");
        assert_eq!(ran.document(1)["status"], "running", "{ran:?}");
        let document = run(&world, signal, &["--json", "resume", "w"], 0, &["last"]).document(0);
        assert_eq!((&document["status"], &document["output"]), (&json!("completed"), &json!("last")));
        audited(&world, signal, 1);
    }
}

#[test]
fn a_run_that_is_stopped_while_it_waits_has_not_done_its_work() {
    let world = prepared(&[("a.yaml", "do:\n  - nap: { wait: { seconds: 60 } }\n")]);
    let mut waiting = command(&world, &["run", "a.yaml", "--id", "w"]);
    let child = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    wait_until("the wait", || {
        world.path().exists() && world.run(&["state", "w", "--json"]).out.contains("\"waiting\"")
    });
    kill("INT", child.id());
    let ran = Ran::of(child.wait_with_output().expect("it ends"));
    assert!(ran.code == 1 && ran.err.contains("`foldback resume w` goes on"), "{ran:?}");
    audited(&world, "stopped", 1);
}

#[test]
fn streams_that_are_closed_lose_nothing() {
    let world = prepared(&[OK]);
    let binary = env!("CARGO_BIN_EXE_foldback");
    for (line, code) in [
        ("run ok.yaml <&-", 0),
        ("run ok.yaml >&-", 0),
        ("run ok.yaml 2>&-", 0),
        ("run ok.yaml <&- >&- 2>&-", 0),
        ("run ok.yaml 2>&1 | head -1", 0),
        ("run ok.yaml --input - <&-", 2),
    ] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("'{binary}' {line}")]).current_dir(world.dir.path());
        let ran = Ran::of(shell.env_remove("FOLDBACK_STORE").output().expect("a shell"));
        assert_eq!(ran.code, code, "{line}: {ran:?}");
        assert!(!ran.err.contains("panicked"), "{line}: {ran:?}");
    }
    audited(&world, "afterwards", 5);
    for line in run(&world, "json", &["list", "--json"], 0, &[]).out.lines() {
        let row: Value = serde_json::from_str(line).expect("JSON and nothing else");
        assert_eq!(row["status"], "completed");
    }
}

fn kill(signal: &str, process: u32) {
    let line = format!("kill -{signal} {process}");
    assert!(Command::new("sh").args(["-c", &line]).status().expect("a shell").success());
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not happen within 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}
