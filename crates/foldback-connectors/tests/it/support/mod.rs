//! Servers on loopback that do what they are told, and calls to the kinds.
pub mod models;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldback_connectors::{Config, registry};
use foldback_core::{Effect, Key, Outcome};
use foldback_engine::Registry;
use foldback_engine::kind::Call;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request as a server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Which connection it came on, from 1.
    pub connection: usize,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What a server does with one request.
pub enum Act {
    Send(Vec<u8>),
    Pause(u64),
    /// Closes the connection.
    Close,
    /// Never answers.
    Hang,
}

pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// A server whose answer to the n-th request (from 0) is a list of acts.
    pub async fn start(answer: impl Fn(usize, &Seen) -> Vec<Act> + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), seen.clone());
        let connections = AtomicUsize::new(0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = connections.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(serve(stream, connection, answer.clone(), log.clone()));
            }
        });
        Server { address, seen }
    }

    /// A server that gives the same whole answer to all.
    pub async fn constant(status: &str, headers: &str, body: impl Into<Vec<u8>>) -> Server {
        let answer = http(status, headers, body);
        Server::start(move |_, _| vec![Act::Send(answer.clone())]).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("a log").clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    answer: Arc<impl Fn(usize, &Seen) -> Vec<Act>>,
    log: Arc<Mutex<Vec<Seen>>>,
) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let mut lines = head.lines().map(str::to_owned);
        let line = lines.next().unwrap_or_default();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|l| l.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())))
            .collect();
        let length: usize = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        buffer.drain(..end + 4);
        while buffer.len() < length {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
                _ => return,
            }
        }
        let body = buffer.drain(..length).collect();
        let seen = Seen { line, headers, body, connection };
        let acts = {
            let mut log = log.lock().expect("a log");
            log.push(seen.clone());
            answer(log.len() - 1, &seen)
        };
        for act in acts {
            match act {
                Act::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Act::Pause(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                Act::Close => return,
                Act::Hang => std::future::pending().await,
            }
        }
    }
}

/// A whole HTTP answer.
pub fn http(status: &str, headers: &str, body: impl Into<Vec<u8>>) -> Vec<u8> {
    let body = body.into();
    let mut answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    answer
}

/// The head of a stream of events; chunks follow by [`chunk`].
pub fn stream_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()
}

/// A chunk of a chunked body.
pub fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

/// The events of a chat answer as OpenAI streams it, ending with usage and `[DONE]`.
pub fn chat_stream(pieces: &[&str], finish: &str) -> Vec<Act> {
    let mut acts = vec![Act::Send(stream_head())];
    let event = |value: Value| Act::Send(chunk(&format!("data: {value}\n\n")));
    for piece in pieces {
        acts.push(event(json!({"id": "1", "object": "chat.completion.chunk", "model": "fake-1",
            "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]})));
    }
    acts.push(event(json!({"id": "1", "object": "chat.completion.chunk", "model": "fake-1",
        "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})));
    acts.push(event(json!({"id": "1", "object": "chat.completion.chunk", "model": "fake-1", "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}})));
    acts.push(Act::Send(chunk("data: [DONE]\n\n")));
    acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
    acts
}

/// What was told as progress.
pub type Told = Arc<Mutex<Vec<String>>>;

/// A call, as the engine would make it.
pub fn call(request: Value, effect: Effect) -> (Call, Told) {
    let told: Told = Arc::default();
    let sink = told.clone();
    let call = Call {
        workflow_id: "w-1".into(),
        key: Key::from("main/step"),
        attempt: 1,
        attempt_id: format!("test-{}", std::process::id()),
        variant: 0,
        request,
        secrets: BTreeMap::new(),
        effect,
        idempotency_key: (effect == Effect::Write).then(|| "the-idempotency-key".to_owned()),
        timeout_ms: 10_000,
        tokens_left: None,
        rejected: None,
        progress: Arc::new(move |text: &str| sink.lock().expect("a log").push(text.to_owned())),
    };
    (call, told)
}

pub fn builtin() -> Registry {
    registry(&Config::default())
}

pub async fn perform(registry: &Registry, kind: &str, call: Call) -> Outcome {
    let work = registry.get(kind).expect("a kind").perform(call);
    tokio::time::timeout(Duration::from_secs(15), work).await.expect("an outcome in time")
}

/// Performs one call of a built-in kind.
pub async fn run(kind: &str, request: Value, effect: Effect) -> Outcome {
    perform(&builtin(), kind, call(request, effect).0).await
}

#[track_caller]
pub fn completed(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Completed { output, .. } => output,
        other => panic!("not completed: {other:?}"),
    }
}

/// The short type, the status and the detail of a failure.
#[track_caller]
pub fn failed(outcome: Outcome) -> (String, u16, String) {
    match outcome {
        Outcome::Failed { error, .. } => {
            (error.short_type().to_owned(), error.status, error.detail.unwrap_or_default().into())
        }
        other => panic!("not failed: {other:?}"),
    }
}

#[track_caller]
pub fn unknown(outcome: Outcome) -> String {
    match outcome {
        Outcome::Unknown { reason } => reason,
        other => panic!("not unknown: {other:?}"),
    }
}

/// A variable that every test process has, used as a secret: its name, and its value.
pub const SECRET: &str = "cargo_manifest_dir";
pub fn canary() -> String {
    std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo")
}
