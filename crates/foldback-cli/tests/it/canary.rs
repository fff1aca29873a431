//! Canaries: every way in which a secret enters a run is given one of its own, the servers and
//! processes that are spoken to give them all back in every spelling they know, and then every byte
//! that was written or printed is searched. What a rule redacts has canaries too.

use std::path::Path;
use std::process::Stdio;

use crate::echo::{Echo, base64, escaped};
use crate::world::World;

/// Secrets that a step is given, by the variable that holds them. They have characters that encodings
/// change.
const SECRETS: [(&str, &str); 9] = [
    ("FOLDBACK_SECRET_BEARER", "CANARY-bearer+0/1=2"),
    ("FOLDBACK_SECRET_USER", "CANARY-user~3"),
    ("FOLDBACK_SECRET_PASSWORD", "CANARY-password!4 %5"),
    ("FOLDBACK_SECRET_HEADER", "CANARY-header;6\"7"),
    ("FOLDBACK_SECRET_QUERY", "CANARY-query&8 ?9"),
    ("FOLDBACK_SECRET_BODY", "CANARY-body/10+\u{e9}"),
    ("FOLDBACK_SECRET_SHELL", "CANARY-shell$11"),
    ("FOLDBACK_SECRET_SHORT", "Zq7"),
    ("CANARY_KEY", "CANARY-key+12/13"),
];

/// What rules redact: an address, and what stands under `ssn`. A rule does not look into base64, so the
/// answer that is taken raw holds none of them.
const REDACTED: [&str; 2] = ["CANARY-17@example.org", "CANARY-ssn-18"];

fn canaries() -> Vec<&'static str> {
    SECRETS.iter().map(|(_, value)| *value).chain(REDACTED).collect()
}

/// Every spelling in which a canary would be found: itself, percent-encoded, escaped for JSON, and the
/// digits of its base64 that do not depend on what stands beside it.
fn forms(canary: &str) -> Vec<String> {
    let percent = |is_lower: bool| -> String {
        canary
            .bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                byte if is_lower => format!("%{byte:02x}"),
                byte => format!("%{byte:02X}"),
            })
            .collect()
    };
    let quoted = |text: &str| {
        let quoted = serde_json::to_string(text).expect("JSON");
        quoted[1..quoted.len() - 1].to_owned()
    };
    // What was escaped for JSON and kept as a text stands escaped once more in what is written.
    let json = escaped(canary);
    let mut forms =
        vec![canary.to_owned(), percent(true), percent(false), quoted(canary), quoted(&json), json];
    forms.push(percent(false).replace("%20", "+"));
    for shift in 0..3 {
        let coded = base64(&[&vec![0; shift], canary.as_bytes()].concat());
        forms.push(coded[(shift * 8).div_ceil(6)..(shift + canary.len()) * 8 / 6].to_owned());
    }
    forms.retain(|form| form.len() >= 3);
    // Four digits of base64 are found by chance: a short secret is looked for as it is.
    if canary.len() < 6 { vec![canary.to_owned()] } else { forms }
}

/// The first canary that stands in some bytes. A short one has to stand alone.
fn found(bytes: &[u8], canaries: &[&str]) -> Option<String> {
    let holds = |form: &str| {
        let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let mut places = bytes.windows(form.len()).enumerate().filter(|(_, part)| *part == form.as_bytes());
        places.any(|(at, _)| {
            let behind = bytes.get(at + form.len());
            form.len() >= 6 || !(is_word(at.checked_sub(1).and_then(|at| bytes.get(at))) || is_word(behind))
        })
    };
    canaries.iter().flat_map(|canary| forms(canary)).find(|form| holds(form))
}

fn write(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("it is written");
}

/// Steps of every kind, each of which has a canary and is answered with all that were sent.
fn pipeline(world: &World, echo: &Echo) {
    let url = &echo.url;
    let text = format!(
        r#"
document:
  dsl: '1.0.3'
  namespace: test
  name: canaries
  version: '1.0.0'
  metadata: {{ foldback: {{ redact: [ {{ path: $..ssn }} ] }} }}
use: {{ secrets: [bearer, user, password, header, query, body, shell, short] }}
do:
- all:
    fork:
      branches:
      - bearer:
          call: http
          with: {{ method: get, output: response, endpoint: {{ uri: '{url}/echo', authentication: {{ bearer: {{ token: '${{ $secrets.bearer }}' }} }} }} }}
      - basic:
          call: http
          with: {{ method: get, endpoint: {{ uri: '{url}/echo', authentication: {{ basic: {{ username: '${{ $secrets.user }}', password: '${{ $secrets.password }}' }} }} }} }}
      - raw:
          call: http
          with: {{ method: post, output: raw, endpoint: '{url}/echo/bare', headers: {{ X-Canary: '${{ $secrets.header }}' }}, body: {{ a: '${{ $secrets.body }}' }} }}
      - query:
          call: http
          with: {{ method: get, endpoint: '{url}/echo', query: {{ q: '${{ $secrets.query }}', pin: '${{ $secrets.short }}' }} }}
      - shell:
          run: {{ shell: {{ command: 'env; printf %s "$CANARY" | base64; echo "$CANARY" >&2', environment: {{ CANARY: '${{ $secrets.shell }}' }} }}, return: all }}
      - model:
          call: llm
          with: {{ model: fake/echo, template: 'tell {{who}}', vars: {{ who: '${{ .who }}' }} }}
- refused:
    try:
    - post:
        call: http
        with: {{ method: post, endpoint: {{ uri: '{url}/refuse', authentication: {{ bearer: {{ token: '${{ $secrets.bearer }}' }} }} }}, headers: {{ X-Canary: '${{ $secrets.header }}' }}, body: {{ a: '${{ $secrets.body }}' }} }}
    catch:
      as: error
      do:
      - keep: {{ set: {{ error: '${{ $error }}' }} }}
- moved:
    try:
    - get:
        call: http
        with: {{ method: get, endpoint: {{ uri: '{url}/moved', authentication: {{ bearer: {{ token: '${{ $secrets.bearer }}' }} }} }} }}
    catch: {{ as: error, do: [ {{ keep: {{ set: {{ error: '${{ $error }}' }} }} }} ] }}
- script:
    try:
    - fail:
        run: {{ shell: {{ command: 'echo "cannot use $CANARY" >&2; exit 3', environment: {{ CANARY: '${{ $secrets.shell }}' }} }} }}
    catch: {{ as: error, do: [ {{ keep: {{ set: {{ error: '${{ $error }}' }} }} }} ] }}
- last:
    call: llm
    with: {{ model: fake/refuse, template: 'the end' }}
"#
    );
    write(world, "canaries.yaml", &text);
    write(
        world,
        "foldback.toml",
        &format!(
            "[providers.fake]\nkind = \"openai\"\nbase_url = \"{url}/v1\"\napi_key_env = \"CANARY_KEY\"\n\
             [[redact]]\nname = \"mail\"\npattern = '[\\w.-]+@[\\w.]+'\n"
        ),
    );
}

/// Runs the binary with every canary in its environment.
fn run(world: &World, words: &[&str]) -> (i32, Vec<u8>) {
    let mut command = world.command(words);
    command.envs(SECRETS).stdin(Stdio::null());
    command.env("FOLDBACK_LOG", "trace").env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
    let output = command.output().expect("the binary runs");
    (output.status.code().unwrap_or(-1), [output.stdout, b"\n".to_vec(), output.stderr].concat())
}

fn is_clean(what: &str, bytes: &[u8]) {
    if let Some(form) = found(bytes, &canaries()) {
        let text = String::from_utf8_lossy(bytes);
        let around: Vec<&str> = text.lines().filter(|line| line.contains(&form)).take(3).collect();
        panic!("{what} holds {form:?}: {around:#?}");
    }
}

fn files_are_clean(folder: &Path) {
    for file in std::fs::read_dir(folder).expect("a directory") {
        let path = file.expect("a file").path();
        is_clean(&path.display().to_string(), &std::fs::read(&path).expect("it is read"));
    }
}

#[test]
fn no_canary_leaves_a_run_in_any_spelling() {
    let (world, echo) = (World::empty(), Echo::new(canaries()));
    pipeline(&world, &echo);
    let input = format!(r#"{{"who": "{}", "person": {{"ssn": "{}"}}}}"#, REDACTED[0], REDACTED[1]);
    let (code, told) = run(&world, &["run", "canaries.yaml", "--id", "a", "--input", &input]);
    is_clean("run", &told);
    assert_eq!(code, 1, "{}", String::from_utf8_lossy(&told));

    // This test can fail: every secret really went out, and came back.
    let sent = echo.received();
    for canary in canaries().iter().filter(|canary| !REDACTED.contains(canary) && !canary.contains("shell")) {
        assert!(found(&sent, &[canary]).is_some(), "{canary} never went out");
    }
    assert!(found(&sent, &REDACTED).is_none(), "what is redacted never goes out");
    let text = String::from_utf8_lossy(&told);
    assert!(text.contains("401") || text.contains("400"), "the last call was refused: {text}");

    files_are_clean(world.dir.path());
    let commands = ["events", "replay", "state", "steps", "show", "decisions", "export"];
    for command in commands {
        for words in [&[command, "a"][..], &["--json", command, "a"]] {
            let (code, told) = run(&world, words);
            assert_eq!(code, 0, "{words:?}");
            is_clean(command, &told);
        }
    }
    let (_, steps) = run(&world, &["--json", "steps", "a"]);
    let steps = String::from_utf8_lossy(&steps);
    for marker in [
        "[secret bearer]",
        "[secret header]",
        "[secret body]",
        "[secret shell]",
        "[CANARY_KEY]",
        "[redacted mail]",
    ] {
        assert!(steps.contains(marker), "{marker} came back and was named: {steps}");
    }
    for words in [
        &["list"][..],
        &["audit"],
        &["doctor"],
        &["check", "canaries.yaml"],
        &["resume", "a"],
        &["erase", "a", "last", "--dry-run"],
    ] {
        is_clean(words[0], &run(&world, words).1);
        let json = [&["--json"], words].concat();
        is_clean(words[0], &run(&world, &json).1);
    }
    files_are_clean(world.dir.path());
}

#[test]
fn the_search_finds_a_canary_in_every_spelling() {
    let all = canaries();
    assert_eq!(found(b"nothing at all, cat, Zq70, aZq7", &all), None);
    for canary in all.iter().filter(|canary| canary.len() >= 6) {
        for text in [
            format!("x{canary}y"),
            format!("k={}", crate::echo::percent(canary)),
            format!("\"{}\"", escaped(canary)),
            base64(format!("a:{canary}b").as_bytes()),
        ] {
            assert!(found(text.as_bytes(), &[canary]).is_some(), "{canary}: {text}");
        }
    }
    assert!(found(b"pin Zq7.", &all).is_some());
}
