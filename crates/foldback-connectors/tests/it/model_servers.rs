//! Servers of models as they really are: what each dialect's server sends, and what must come of
//! it. One table, over real sockets, in three ways of cutting what is sent; and what never ends.

use std::time::Duration;

use crate::support::models::*;
use crate::support::*;
use foldback_core::Effect::{Read, Write};
use foldback_core::{Outcome, limits};
use serde_json::{Value, json};

/// What a server sends, and what must come of it.
struct Case {
    about: &'static str,
    dialect: &'static str,
    /// Whether the request has [`schema`].
    has_schema: bool,
    status: &'static str,
    body: String,
    /// Whether the connection breaks behind the body.
    is_cut: bool,
    /// `(status, part of the detail)` of a failure; or the output.
    expected: Result<Value, (u16, &'static str)>,
    /// Members of the usage; null where there is none to look at.
    usage: Value,
}

fn case(about: &'static str, dialect: &'static str, body: impl Into<String>) -> Case {
    let (status, expected, usage) = ("200 OK", Ok(Value::Null), Value::Null);
    Case { about, dialect, has_schema: false, status, body: body.into(), is_cut: false, expected, usage }
}

impl Case {
    fn status(self, status: &'static str) -> Case {
        Case { status, ..self }
    }

    fn by_schema(self) -> Case {
        Case { has_schema: true, ..self }
    }

    fn cut(self) -> Case {
        Case { is_cut: true, ..self }
    }

    fn gives(self, output: Value) -> Case {
        Case { expected: Ok(output), ..self }
    }

    fn fails(self, status: u16, part: &'static str) -> Case {
        Case { expected: Err((status, part)), ..self }
    }

    fn uses(self, usage: Value) -> Case {
        Case { usage, ..self }
    }
}

/// Events of a stream.
fn events(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

fn delta(member: &str, text: &str) -> Value {
    json!({"model": "m-9", "choices": [{"index": 0, "delta": {member: text}, "finish_reason": null}]})
}

fn stop() -> Value {
    json!({"model": "m-9", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
}

fn used() -> Value {
    json!({"model": "m-9", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
}

fn counts(read: Value, written: Value) -> Value {
    json!({"model": "m-9", "choices": [], "usage": {"prompt_tokens": read, "completion_tokens": written}})
}

/// A whole stream of OpenAI's that says this.
fn said(text: &str) -> String {
    events(&[delta("content", text), stop(), used()]) + "data: [DONE]\n\n"
}

fn whole(message: Value) -> String {
    json!({"model": "m-9", "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    .to_string()
}

fn claude(events: &[Value]) -> String {
    let start = json!({"type": "message_start", "message": {"model": "claude-9", "usage": {
        "input_tokens": 10, "cache_creation_input_tokens": 200, "cache_read_input_tokens": 3_000, "output_tokens": 1}}});
    std::iter::once(&start)
        .chain(events)
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
        .collect()
}

fn claude_says(text: &str) -> Value {
    json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
}

fn google(parts: Value, reason: Value) -> Value {
    json!({"modelVersion": "gemini-9", "candidates": [{"content": {"parts": parts}, "finishReason": reason}],
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 40}})
}

fn error(code: Value, message: &str) -> String {
    json!({"error": {"code": code, "message": message}}).to_string()
}

const BOM: &str = "\u{feff}";

fn cases() -> Vec<Case> {
    let label = || json!({"label": "a"});
    let text = "{\"label\": \"a\"}";
    vec![
        // A success that is none.
        case("an error in a success", "openai", error(json!(429), "slow down")).fails(429, "slow down"),
        case("with a code as text", "openai", error(json!("429"), "slow down")).fails(429, "slow down"),
        case("by its type", "openai", json!({"error": {"type": "invalid_request_error", "message": "no"}}).to_string())
            .fails(400, "no"),
        case("without a code", "openai", json!({"error": "upstream is gone"}).to_string())
            .fails(500, "upstream is gone"),
        case("as an object of errors", "openai", json!({"object": "error", "message": "too hot", "code": 503}).to_string())
            .fails(503, "too hot"),
        case("as a detail", "openai", json!({"detail": "not today"}).to_string()).fails(500, "not today"),
        case("in a choice", "openai", json!({"choices": [{"message": {"content": ""}, "finish_reason": "error",
            "error": {"code": 502, "message": "the backend fell over"}}]}).to_string())
            .fails(502, "the backend fell over"),
        case("in a choice of a stream", "openai", events(&[delta("content", "He"), json!({"choices": [{"delta": {"content": ""},
            "finish_reason": "error", "error": {"code": 429, "message": "the backend is full"}}]})]))
            .fails(429, "the backend is full").uses(json!({"is_estimated": true})),
        case("as an event by its name", "openai", "event: error\ndata: {\"message\": \"it broke\", \"code\": 503}\n\n")
            .fails(503, "it broke"),
        case("of Google, by its status", "gemini", json!([{"error": {"status": "RESOURCE_EXHAUSTED", "message": "used up"}}]).to_string())
            .fails(429, "used up"),
        case("of Anthropic", "anthropic", json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).to_string())
            .fails(503, "Overloaded"),
        case("a page", "openai", "<html><title>Log in</title></html>").fails(502, "a page"),
        case("JSON of something else", "openai", "{\"hello\": 1}").fails(502, "not in the shape"),
        case("half a document", "openai", "{\"choices\": [").fails(502, "is none"),
        // A prompt that is too long, in the words of each.
        case("too long, by code", "openai", error(json!("context_length_exceeded"), "This model's maximum context length is 8192 tokens."))
            .status("400 Bad Request").fails(413, "maximum context length"),
        case("too long, by llama.cpp", "openai", json!({"error": {"code": 400, "type": "exceed_context_size_error",
            "message": "the request exceeds the available context size"}}).to_string())
            .status("400 Bad Request").fails(413, "available context size"),
        case("too long, by Anthropic", "anthropic", json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "prompt is too long: 210000 tokens > 200000 maximum"}}).to_string())
            .status("400 Bad Request").fails(413, "prompt is too long"),
        case("too long, by Google", "gemini", json!({"error": {"code": 400, "status": "INVALID_ARGUMENT",
            "message": "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576)."}}).to_string())
            .status("400 Bad Request").fails(413, "maximum number of tokens"),
        // The form of a stream.
        case("a mark before the stream", "openai", format!("{BOM}{}", said("Hello"))).gives(json!("Hello")),
        case("a mark before a document", "openai", format!("{BOM}{}", whole(json!({"content": "Hello"})))).gives(json!("Hello")),
        case("comments inside data", "openai", format!("data: : PROCESSING\n\ndata:\n\n{}", said("Hello"))).gives(json!("Hello")),
        case("events without empty lines", "openai", said("Hello").replace("\n\n", "\n")).gives(json!("Hello")),
        case("lines that end as on Windows", "openai", said("Hello").replace('\n', "\r\n")).gives(json!("Hello")),
        case("no mark at the end", "openai", events(&[delta("content", "Hello"), stop()])).gives(json!("Hello"))
            .uses(json!({"is_estimated": true, "input_tokens": 2, "output_tokens": 2})),
        case("a count that cannot be", "openai", events(&[delta("content", "Hello"), stop(), counts(json!(u64::MAX), json!(3))]))
            .gives(json!("Hello")).uses(json!({"is_estimated": true, "input_tokens": 2, "output_tokens": 3})),
        case("two of them", "openai", events(&[delta("content", "Hello"), stop(), counts(json!(1u64 << 53), json!(1e300))]))
            .gives(json!("Hello")).uses(json!({"is_estimated": true, "input_tokens": 2, "output_tokens": 2})),
        case("the largest that can be", "openai",
            events(&[delta("content", "Hello"), stop(), counts(json!(limits::CALL_MAX_TOKENS), json!(3))]))
            .gives(json!("Hello")).uses(json!({"is_estimated": null, "input_tokens": limits::CALL_MAX_TOKENS, "output_tokens": 3})),
        case("cut behind a reason that each part has", "gemini", events(&[google(json!([{"text": "Hel"}]), json!("STOP"))])).cut()
            .fails(503, "broke off after 3 characters"),
        case("cut behind the reason", "openai", events(&[delta("content", "Hello"), stop()])).cut().gives(json!("Hello"))
            .uses(json!({"is_estimated": true})),
        case("a document where a stream was asked for", "openai", whole(json!({"content": "Hello"}))).gives(json!("Hello"))
            .uses(json!({"input_tokens": 7, "output_tokens": 3, "is_estimated": null})),
        case("a list of parts where a stream was asked for", "gemini",
            json!([google(json!([{"text": "Hel"}]), Value::Null), google(json!([{"text": "lo"}]), json!("STOP"))]).to_string())
            .gives(json!("Hello")).uses(json!({"input_tokens": 9, "output_tokens": 43})),
        case("parts of a message", "openai", whole(json!({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hello"}]})))
            .gives(json!("Hello")),
        // Where the answer stands.
        case("thoughts before words", "openai", said("<think>hm</think>\n\nHello")).gives(json!("Hello")).uses(json!({"found_in": "think"})),
        case("thoughts and no words", "openai", said("<think>hm</think>\n")).fails(502, "without a word"),
        case("thoughts before JSON", "openai", said(&format!("<think>{{\"label\": \"b\"}}?</think>{text}"))).by_schema()
            .gives(label()).uses(json!({"found_in": "think"})),
        case("thoughts of another's beginning", "openai", said(&format!("hm\n</think>\n{text}"))).by_schema()
            .gives(label()).uses(json!({"found_in": "think"})),
        case("a fence", "openai", said(&format!("```JSON\n{text}\n```"))).by_schema().gives(label()).uses(json!({"found_in": "fence"})),
        case("a fence without an end", "openai", said(&format!("```json\n{text}\n"))).by_schema().gives(label()).uses(json!({"found_in": "fence"})),
        case("a sentence before the fence", "anthropic", claude(&[claude_says(&format!("Here:\n```json\n{text}\n```")),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}), json!({"type": "message_stop"})]))
            .by_schema().gives(label()).uses(json!({"found_in": "fence", "input_tokens": 3210, "output_tokens": 5})),
        case("a sentence before JSON", "gemini", events(&[google(json!([{"text": format!("Sure: {text}")}]), json!("STOP"))]))
            .by_schema().gives(label()).uses(json!({"found_in": "prose"})),
        case("JSON told as a thought", "openai", events(&[delta("reasoning_content", text), stop(), used()])).by_schema()
            .gives(label()).uses(json!({"found_in": "reasoning"})),
        case("JSON told as a thought, whole", "openai", whole(json!({"content": null, "reasoning_content": text}))).by_schema()
            .gives(label()).uses(json!({"found_in": "reasoning"})),
        case("thoughts beside an answer", "openai", events(&[delta("reasoning", "{\"label\": \"b\"}"), delta("content", text), stop(), used()]))
            .by_schema().gives(label()).uses(json!({"found_in": null})),
        case("a thought that is no answer", "openai", events(&[delta("reasoning_content", "{\"n\": 1}"), stop(), used()])).by_schema()
            .fails(400, "the answer is empty"),
        case("two answers", "openai", said("{\"label\": \"a\"} or {\"label\": \"b\"}")).by_schema().fails(400, "only one can be meant"),
        case("an answer by itself", "openai", said(text)).by_schema().gives(label()).uses(json!({"found_in": null, "is_estimated": null})),
        // What it used.
        case("no usage at all", "openai", whole(json!({"content": "Hello"})).replace("\"usage\"", "\"u\"")).gives(json!("Hello"))
            .uses(json!({"is_estimated": true, "input_tokens": 2, "output_tokens": 2, "raw": null})),
        case("a stream that broke off", "openai", events(&[delta("content", "Hello, wo")])).cut().fails(503, "broke off after 9 characters")
            .uses(json!({"is_estimated": true, "input_tokens": 2, "output_tokens": 3})),
        case("a stream that ended early", "gemini", events(&[google(json!([{"text": "Hello"}]), Value::Null)])).fails(503, "broke off after 5 characters")
            .uses(json!({"input_tokens": 9, "output_tokens": 43})),
        case("what was cached of a cut stream", "anthropic", claude(&[claude_says("Hello, world, this is a longer text")])).cut()
            .fails(503, "broke off after 35 characters").uses(json!({"is_estimated": true, "input_tokens": 3210, "output_tokens": 9})),
        case("an error in the middle", "anthropic", claude(&[claude_says("Hello"),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})]))
            .fails(503, "Overloaded").uses(json!({"input_tokens": 3210})),
        // Other noes.
        case("a server that fell over", "openai", "oops").status("500 Internal Server Error").fails(500, "oops"),
        case("a gateway's page", "openai", "<html>").status("502 Bad Gateway").fails(502, "<html>"),
        case("an answer without a body", "openai", "").fails(503, "it has no body"),
    ]
}

/// How the body is cut into pieces.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    Whole,
    Bytes(usize),
}

async fn perform_case(case: &Case, pieces: Pieces) -> Result<(), String> {
    let (body, status, is_cut) = (case.body.clone().into_bytes(), case.status, case.is_cut);
    let server = Server::start(move |_, _| {
        let head = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut acts = vec![Act::Send(head.into_bytes())];
        let size = match pieces {
            Pieces::Whole => body.len().max(1),
            Pieces::Bytes(n) => n,
        };
        for part in body.chunks(size) {
            acts.push(Act::Send([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat()));
        }
        acts.push(if is_cut { Act::Close } else { Act::Send(b"0\r\n\r\n".to_vec()) });
        acts
    })
    .await;
    let (registry, _directory) = configured(&format!(
        "[providers.p]\nkind = \"{}\"\nbase_url = \"{}\"\napi_key_env = \"\"\n",
        case.dialect,
        server.url("/v1")
    ));
    let mut request = json!({"model": "p/m-1", "template": "Hello"});
    if case.has_schema {
        request["schema"] = schema();
    }
    let outcome = ask(&registry, request).await;
    if server.seen().len() != 1 {
        return Err(format!("{} requests", server.seen().len()));
    }
    let (found, usage) = match outcome.clone() {
        Outcome::Completed { output, usage } => (Ok(output), usage),
        Outcome::Failed { error, usage, .. } | Outcome::Rejected { error, usage, .. } => {
            (Err((error.status, error.detail.unwrap_or_default())), usage)
        }
        other => return Err(format!("{other:?}")),
    };
    let is_right = match (&found, &case.expected) {
        (Ok(found), Ok(expected)) => found == expected,
        (Err((status, detail)), Err((expected, part))) => status == expected && detail.contains(part),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    };
    let usage = serde_json::to_value(usage).expect("JSON");
    let members = case.usage.as_object();
    let is_used = members.is_none_or(|members| members.iter().all(|(name, value)| usage[name] == *value));
    if is_right && is_used { Ok(()) } else { Err(format!("{outcome:?}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_servers_of_models_really_send_comes_out_as_it_should() {
    let mut problems = Vec::new();
    for case in cases() {
        for pieces in [Pieces::Whole, Pieces::Bytes(1), Pieces::Bytes(13)] {
            if let Err(found) = perform_case(&case, pieces).await {
                problems.push(format!("{} ({}, {pieces:?}): {found}", case.about, case.dialect));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// An answer that had begun when its time ran out is paid for, and told as what it is: the engine would
/// end it a little later, without a word.
#[tokio::test]
async fn an_answer_that_runs_out_of_time_is_paid_for() {
    let server = Server::start(|n, _| {
        let whole = chat_stream(&["Hello, wo"], "stop");
        let count = [whole.len(), 2, 1][n.min(2)];
        let mut acts: Vec<Act> = whole.into_iter().take(count).collect();
        acts.extend((n > 0).then_some(Act::Hang));
        acts
    })
    .await;
    let registry = fake(&server);
    // The first call of a process takes longer: it makes the client.
    completed(ask(&registry, hello()).await);
    for (effect, expected) in [(Read, Some((2, 3))), (Read, None), (Write, None)] {
        let (mut call, _) = call(hello(), effect);
        call.timeout_ms = 700;
        match perform(&registry, "llm", call).await {
            Outcome::Failed { error, usage, .. } => {
                let detail = error.detail.unwrap_or_default();
                assert_eq!((error.status, effect), (408, Read), "{detail}");
                assert!(detail.contains("no answer within 700 ms"), "{detail}");
                let used = usage.map(|usage| (usage.input_tokens, usage.output_tokens));
                assert_eq!(used, expected);
            }
            // Whether it wrote anything, nobody knows.
            Outcome::Unknown { reason } => assert!(effect == Write && reason.contains("700 ms"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

/// What lies in the buffers of sockets, sent and never read, at the pace of [`endless`].
const SOCKETS_HOLD: usize = 2 * 1024 * 1024;

/// What a server sends at once.
const PIECE: usize = 64 * 1024;

/// A server that sends `head`, and then `filler` again and again for as long as anybody listens: not faster than
/// it is read, so that what it has sent tells how much was read.
async fn endless(
    head: &str,
    filler: &'static str,
) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(PIECE as u32).expect("a small buffer");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(8).expect("it listens");
    let address = listener.local_addr().expect("an address");
    let (head, sent) = (head.to_owned(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let count = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let piece = filler.repeat((PIECE / filler.len()).max(1));
            if stream.write_all(head.as_bytes()).await.is_err() {
                continue;
            }
            while stream.write_all(piece.as_bytes()).await.is_ok() {
                count.fetch_add(piece.len(), std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
        }
    });
    (format!("http://{address}/v1"), sent)
}

/// Each of these never ends. The answer is told from within bounds, and what was sent in vain is not read, and
/// so not held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_ends_is_counted_where_it_is_read() {
    let ok = "HTTP/1.1 200 OK\r\n\r\n";
    let line = format!("{ok}data: ");
    let event = format!("{ok}data: x\n");
    let document = format!("{ok}{{\"choices\": [{{\"message\": {{\"content\": \"");
    let (error, part, whole) =
        (limits::MODEL_ERROR_MAX_BYTES, limits::MODEL_EVENT_MAX_BYTES, limits::STEP_OUTPUT_MAX_BYTES);
    // Of fifteen bytes of a line, eight are counted.
    for (about, head, filler, stream, most, status, told) in [
        ("the body of an error", "HTTP/1.1 500 Oops\r\n\r\n", "no ", true, error, 500, "no no"),
        ("a line", &line, "abc ", true, part, 500, "longer than 4194304 bytes"),
        (
            "the lines of one event",
            &event,
            "data: xxxxxxxx\n",
            true,
            part * 15 / 8,
            500,
            "longer than 4194304 bytes",
        ),
        ("a whole answer", &document, "abc ", false, whole, 500, "longer than 16777216 bytes"),
        ("a whole answer to a stream", &document, "abc ", true, whole, 500, "longer than 16777216 bytes"),
        ("white space", ok, "\r\n  ", true, part, 500, "longer than 4194304 bytes"),
        (
            "an error that is a document",
            "HTTP/1.1 400 No\r\ncontent-type: application/json\r\n\r\n{\"error\": \"",
            "no ",
            false,
            error,
            400,
            "no no",
        ),
    ] {
        let (url, sent) = endless(head, filler).await;
        let (registry, _directory) = configured(&format!(
            "[providers.p]\nkind = \"openai\"\nbase_url = \"{url}\"\nstream = {stream}\n"
        ));
        let found = failed(ask(&registry, json!({"model": "p/m", "template": "Hello"})).await);
        let (_, found_status, detail) = found;
        assert!(found_status == status && detail.contains(told), "{about}: {found_status} {detail}");
        assert!(detail.len() < 2_000, "{about}: {} bytes are told", detail.len());
        was_read(about, &sent, most).await;
    }
    // Headers have no end either: no answer, and no memory.
    let (url, sent) = endless("HTTP/1.1 200 OK\r\n", "x-more: and more\r\n").await;
    let (registry, _directory) =
        configured(&format!("[providers.p]\nkind = \"openai\"\nbase_url = \"{url}\"\n"));
    let (call, _) = call(json!({"model": "p/m", "template": "Hello"}), Read);
    let told = unknown(perform(&registry, "llm", call).await);
    assert!(told.contains("provider `p`"), "{told}");
    was_read("headers", &sent, 1024 * 1024).await;
}

/// A server that always has the next piece ready is out of time like one that never has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_never_pauses_ends_in_time() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a call");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let piece = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".repeat(2_000);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        // An end, so that a fault here fails the test and does not hang it.
        let since = std::time::Instant::now();
        while since.elapsed() < Duration::from_secs(8) && stream.write_all(piece.as_bytes()).await.is_ok() {}
    });
    let (registry, _directory) =
        configured(&format!("[providers.p]\nkind = \"openai\"\nbase_url = \"{url}\"\n"));
    let since = std::time::Instant::now();
    let (mut call, _) = call(json!({"model": "p/m", "template": "Hello"}), Read);
    call.timeout_ms = 500;
    let (_, status, detail) = failed(perform(&registry, "llm", call).await);
    assert!(status == 408 && detail.contains("no answer within 500 ms"), "{status} {detail}");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

/// No more was read than a bound, give or take what sockets hold.
async fn was_read(about: &str, sent: &std::sync::atomic::AtomicUsize, most: usize) {
    // Whoever had stopped reading without hanging up would be sent more yet.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let sent = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!(sent <= most + SOCKETS_HOLD, "{about}: {sent} bytes were sent, and {most} are to be read");
}
