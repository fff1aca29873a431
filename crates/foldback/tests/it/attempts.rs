//! What becomes of an attempt that was not answered, or that had no time to begin.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldback::Engine;
use foldback::code::{Code, Ctx, Ended, Work};
use foldback::connectors::{Config, registry};
use foldback::core::{Effect, Outcome, RetryPolicy, Status};
use foldback::engine::{Call, Performing, Registry, StepKind};
use foldback::programs::{Definitions, start_code};
use serde_json::{Value, json};

/// A server that closes a kept connection just when it is asked on it for the second time, and answers
/// nothing then.
fn closing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                if asked(&stream) {
                    let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                    asked(&stream);
                }
            });
        }
    });
    address
}

/// Reads one request without a body.
fn asked(mut stream: &TcpStream) -> bool {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn attempts(engine: &Engine) -> Vec<String> {
    let events = foldback::engine::events_of(&**engine.store(), "w", 0).unwrap();
    let types = events.iter().map(|event| event.fact.event_type().to_string());
    types.filter(|name| name.starts_with("Attempt") || name.starts_with("Step")).collect()
}

/// Twenty reads over kept connections that the server closes: each is answered, and what was not is a
/// fact in the log.
#[test]
fn a_read_is_asked_once_more_where_its_kept_connection_was_closed() {
    let uri = format!("http://{}/", closing());
    let reads = Code::new(move |mut ctx: Ctx, _| {
        let uri = uri.clone();
        async move {
            for n in 0..20 {
                let request = json!({"method": "GET", "uri": uri});
                ctx.step(&format!("get {n}"), Work::new("http", Effect::Read, request)).await?;
            }
            Ok(Value::Null)
        }
    });
    let programs = Definitions::default().with_code("reads", "1", reads);
    let store = foldback::store::open("memory:").unwrap();
    let engine = Engine::with(store, registry(&Config::default()), programs).unwrap();
    let ended = engine.run(start_code("reads", "1", "w", Value::Null)).unwrap();
    assert_eq!(ended.status, Status::Completed, "{:?}", ended.error);
    let attempts = attempts(&engine);
    let failed = attempts.iter().filter(|name| *name == "AttemptFailed").count();
    assert!(failed > 0, "no kept connection was closed: {attempts:?}");
    assert_eq!(attempts.iter().filter(|name| *name == "StepCompleted").count(), 20);
}

/// Answers nothing, and counts how often it was asked.
struct Mute(Arc<AtomicU32>);

impl StepKind for Mute {
    fn perform(&self, _: Call) -> Performing {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Outcome::Unknown { reason: "cut".into() }))
    }
}

async fn one(mut ctx: Ctx, input: Value) -> Ended {
    let effect = if input["writes"] == true { Effect::Write } else { Effect::Read };
    let work = Work::new("mute", effect, json!({}));
    let work = match input["attempts"].as_u64() {
        Some(n) => work.retry(RetryPolicy { attempts: n as u32, ..RetryPolicy::default() }),
        None => work,
    };
    let work = match input["timeout_ms"].as_u64() {
        Some(ms) => work.timeout_ms(ms),
        None => work,
    };
    ctx.step("a", work).await
}

#[test]
fn how_often_a_step_is_asked_that_is_not_answered() {
    for (input, asked, status) in [
        (json!({}), 2, Status::Failed),
        // Who says how often is heard.
        (json!({"attempts": 1}), 1, Status::Failed),
        (json!({"attempts": 3}), 3, Status::Failed),
        (json!({"writes": true}), 1, Status::Unknown),
        // No time to begin: nothing was asked, so a `write` is known not to have happened.
        (json!({"timeout_ms": 0}), 0, Status::Failed),
        (json!({"timeout_ms": 0, "writes": true}), 0, Status::Failed),
    ] {
        let count = Arc::new(AtomicU32::new(0));
        let kinds = Registry::default().with("mute", Mute(count.clone()));
        let programs = Definitions::default().with_code("one", "1", Code::new(one));
        let engine = Engine::with(foldback::store::open("memory:").unwrap(), kinds, programs).unwrap();
        let ended = engine.run(start_code("one", "1", "w", input.clone())).unwrap();
        assert_eq!((count.load(Ordering::SeqCst), ended.status), (asked, status), "{input}: {ended:?}");
    }
}
