//! Recorded exchanges with the providers of models: `exchanges/*.http`, replayed through a real
//! connection. Each file says what is asked, what goes over the wire, and what must come of it; this
//! file knows the format and no provider.
//!
//! ```text
//! about: a line for people
//! kind: anthropic                          the provider's kind in foldback.toml
//! config: stream = false                   more lines of its table
//! request: {"template": "Hi"}              the step's request; `model` is p/m-1 unless it says
//! outcome: {"completed": "Hello"}          of the first attempt; further lines of the attempts after
//!                                          it (a rejected answer is handed on, as the engine does)
//!
//! > POST /v1/messages                      one request as it must be sent: its line,
//! > x-api-key: KEY                         headers (KEY is the key),
//! > {"stream": true}                       and members that its body must have
//! < 200 OK                                 the answer: status, headers, then the body
//! < content-type: text/event-stream
//! data: {}
//!
//! %% cut                                   the connection breaks here
//! ```
//!
//! Each answer is sent whole, in small pieces, and event by event: the outcome is the same.

use crate::support::models::configured;
use crate::support::*;
use foldback_core::Effect::Read;
use foldback_core::{Failure, Outcome};
use serde_json::{Map, Value, json};

#[derive(Clone, Default)]
struct Exchange {
    line: String,
    expected_headers: Vec<(String, String)>,
    expected_body: Value,
    status: String,
    headers: String,
    body: String,
    is_cut: bool,
}

#[derive(Default)]
struct Recording {
    kind: String,
    config: String,
    request: Value,
    outcomes: Vec<Value>,
    exchanges: Vec<Exchange>,
}

fn read(text: &str) -> Recording {
    let mut recording = Recording::default();
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    for line in text.lines() {
        if let Some(sent) = line.strip_prefix("> ") {
            if !recording.exchanges.last().is_some_and(|exchange| exchange.status.is_empty()) {
                recording.exchanges.push(Exchange { line: sent.to_owned(), ..Exchange::default() });
                continue;
            }
            let exchange = recording.exchanges.last_mut().expect("just looked at");
            match sent.split_once(": ").filter(|_| !sent.starts_with('{')) {
                Some((name, value)) => {
                    exchange.expected_headers.push((name.to_owned(), value.replace("KEY", &canary())));
                }
                None => exchange.expected_body = json(sent),
            }
        } else if let Some(exchange) = recording.exchanges.last_mut() {
            if let Some(answered) = line.strip_prefix("< ") {
                if exchange.status.is_empty() {
                    exchange.status = answered.to_owned();
                } else {
                    exchange.headers.push_str(&format!("{answered}\r\n"));
                }
            } else if line == "%% cut" {
                exchange.is_cut = true;
            } else {
                exchange.body.push_str(line);
                exchange.body.push('\n');
            }
        } else if let Some((name, value)) = line.split_once(": ") {
            match name {
                "about" => {}
                "kind" => recording.kind = value.to_owned(),
                "config" => recording.config.push_str(&format!("{value}\n")),
                "request" => recording.request = json(value),
                "outcome" => recording.outcomes.push(json(value)),
                other => panic!("`{other}` is no part of a recording"),
            }
        }
    }
    assert!(!recording.outcomes.is_empty() && !recording.exchanges.is_empty(), "nothing recorded");
    recording
}

/// How an answer is cut into pieces on its way.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    Whole,
    Events,
    Bytes(usize),
}

fn acts(exchange: &Exchange, pieces: Pieces) -> Vec<Act> {
    let head =
        format!("HTTP/1.1 {}\r\n{}transfer-encoding: chunked\r\n\r\n", exchange.status, exchange.headers);
    let body = exchange.body.trim_start_matches('\n').as_bytes();
    let parts: Vec<&[u8]> = match pieces {
        Pieces::Whole => vec![body],
        Pieces::Bytes(n) => body.chunks(n).collect(),
        Pieces::Events => {
            exchange.body.trim_start_matches('\n').split_inclusive("\n\n").map(str::as_bytes).collect()
        }
    };
    let mut acts = vec![Act::Send(head.into_bytes())];
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
        chunk.extend_from_slice(part);
        chunk.extend_from_slice(b"\r\n");
        acts.push(Act::Send(chunk));
    }
    acts.push(if exchange.is_cut { Act::Close } else { Act::Send(b"0\r\n\r\n".to_vec()) });
    acts
}

/// Whether a value has all that is expected, member by member.
fn has(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| found.get(name).is_some_and(|found| has(found, value)))
        }
        (found, expected) => found == expected,
    }
}

/// An outcome as the recordings write it.
fn told(outcome: &Outcome) -> Value {
    let error = |error: &Failure| json!({"type": error.short_type(), "status": error.status, "title": error.title, "detail": error.detail});
    let usage = |usage: &Option<foldback_core::Usage>| serde_json::to_value(usage).expect("JSON");
    match outcome {
        Outcome::Completed { output, usage: used } => json!({"completed": output, "usage": usage(used)}),
        Outcome::Failed { error: why, retry_after_ms, usage: used } => {
            json!({"failed": error(why), "retry_after_ms": retry_after_ms, "usage": usage(used)})
        }
        Outcome::OutOfBudget { .. } => panic!("no budget bounds a recorded exchange"),
        Outcome::Rejected { output, error: why, usage: used } => {
            json!({"rejected": output, "why": error(why), "usage": usage(used)})
        }
        Outcome::Unknown { reason } => json!({"unknown": reason}),
    }
}

/// `detail`, `unknown` and other words of ours need only be contained.
fn is_as_told(found: &Value, expected: &Map<String, Value>) -> bool {
    expected.iter().all(|(name, value)| match (&found[name], value) {
        (Value::String(found), Value::String(part)) if matches!(&**name, "detail" | "unknown") => {
            found.contains(part.as_str())
        }
        (found, Value::Object(expected))
            if found.is_object() && name != "completed" && name != "rejected" =>
        {
            is_as_told(found, expected)
        }
        (found, expected) => found == expected,
    })
}

/// Replays one recording; what came out otherwise than it says.
async fn replay(name: &str, text: &str, pieces: Pieces) -> Vec<String> {
    let mut problems = Vec::new();
    let recording = read(text);
    let exchanges = recording.exchanges.clone();
    let server =
        Server::start(move |n, _| exchanges.get(n).map_or(vec![Act::Close], |e| acts(e, pieces))).await;
    let path = match &*recording.kind {
        "openai" => "/v1",
        "gemini" => "/v1beta",
        _ => "",
    };
    let (registry, _directory) = configured(&format!(
        "[providers.p]\nkind = \"{}\"\nbase_url = \"{}\"\napi_key_env = \"CARGO_MANIFEST_DIR\"\n{}",
        recording.kind,
        server.url(path),
        recording.config
    ));
    let mut request = json!({"model": "p/m-1", "template": "Hello"});
    for (name, value) in recording.request.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
    let mut rejected = None;
    for (n, expected) in recording.outcomes.iter().enumerate() {
        let (mut call, _) = call(request.clone(), Read);
        call.attempt = n as u32 + 1;
        call.rejected = rejected.take();
        let outcome = perform(&registry, "llm", call).await;
        let found = told(&outcome);
        let expected = expected.as_object().expect("an object");
        if !is_as_told(&found, expected) {
            problems.push(format!("{name} ({pieces:?}), attempt {}: {found:#}", n + 1));
        }
        if let Outcome::Rejected { output, error, .. } = outcome {
            rejected = Some((output, error));
        }
    }
    let seen = server.seen();
    if seen.len() != recording.exchanges.len() {
        problems.push(format!("{name}: {} requests", seen.len()));
    }
    for (seen, exchange) in seen.iter().zip(&recording.exchanges) {
        if seen.line != format!("{} HTTP/1.1", exchange.line) {
            problems.push(format!("{name}: asked {}", seen.line));
        }
        for (header, value) in &exchange.expected_headers {
            if seen.header(header) != Some(value.as_str()) {
                problems.push(format!("{name}: {header} is {:?}", seen.header(header)));
            }
        }
        if !exchange.expected_body.is_null() && !has(&seen.json(), &exchange.expected_body) {
            problems.push(format!("{name}: sent {:#}", seen.json()));
        }
    }
    problems
}

#[tokio::test]
async fn every_recorded_exchange_comes_out_as_it_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exchanges");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").flatten().map(|e| e.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "http"));
    files.sort();
    assert_eq!(files.len(), 62, "recordings");
    let mut problems = Vec::new();
    for path in files {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a text");
        for pieces in [Pieces::Whole, Pieces::Events, Pieces::Bytes(7)] {
            problems.extend(replay(&name, &text, pieces).await);
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
