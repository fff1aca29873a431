//! Timeouts and races of a definition, end to end: a real store, real HTTP on loopback, a server that
//! takes its time and sees who hangs up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use foldback::connectors::{Config, registry};
use foldback::core::{Event, Fact, Key, Status, WorkflowState, limits, text};
use foldback::engine::{Call, Command, Performing, Registry, Session, StepKind, events_of};
use foldback::programs::{Definitions, start_document};
use serde_json::json;

/// What the server saw: of each request its line, and whether the caller hung up before the answer.
type Seen = Arc<Mutex<Vec<(String, bool)>>>;

/// Answers `/N` after N ms, unless the caller hangs up first.
fn server() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let log = log.clone();
            std::thread::spawn(move || serve(stream.unwrap(), &log));
        }
    });
    (address, seen)
}

fn serve(mut stream: TcpStream, log: &Seen) {
    let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => request.extend(&buffer[..n]),
        }
    }
    let head = String::from_utf8_lossy(&request);
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let delay = line.rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let until = Instant::now() + Duration::from_millis(delay);
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut hung_up = false;
    while !hung_up && Instant::now() < until {
        hung_up = matches!(stream.read(&mut buffer), Ok(0));
    }
    log.lock().unwrap().push((line, hung_up));
    let body = format!("{{\"after\":{delay}}}");
    let length = body.len();
    let _gone = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// Runs a definition whose endpoints begin with `AT`: how it ended, and its log.
fn run(body: &str, at: SocketAddr) -> (Status, Vec<Event>) {
    run_with(body, at, registry(&Config::default()))
}

fn run_with(body: &str, at: SocketAddr, kinds: Registry) -> (Status, Vec<Event>) {
    let head = "document: { dsl: '1.0.3', namespace: test, name: limits, version: '1.0.0' }\n";
    let source = format!("{head}{}", body.replace("AT", &format!("http://{at}")));
    let loaded = foldback::ows::load(&source, &|_| Err("no files".into())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = foldback::store::open(&format!("sqlite:{}", folder.path().join("l.db").display())).unwrap();
    let pool = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let session = Session {
        store: store.clone(),
        kinds,
        programs: Arc::new(Definitions::default()),
        pool: pool.handle().clone(),
        observer: None,
        actor: Arc::from("test"),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let start = start_document(&loaded, "w", json!({}));
    let rests = session.drive(vec![Command::Start(start)]).unwrap();
    let events = events_of(&*store, "w", 0).unwrap();
    let folded = WorkflowState::fold("w", &events).expect("what was written obeys the law");
    assert_eq!(folded.status(), rests[0].status);
    (rests[0].status, events)
}

/// Waits until the server has seen so many requests to their end.
fn seen(log: &Seen, count: usize) -> Vec<(String, bool)> {
    let until = Instant::now() + Duration::from_secs(20);
    while log.lock().unwrap().len() < count && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut seen = log.lock().unwrap().clone();
    seen.sort();
    seen
}

fn facts_at<'e>(events: &'e [Event], key: &str) -> Vec<&'e str> {
    let key = Key::from(key);
    events.iter().filter(|e| e.fact.key() == Some(&key)).map(|e| e.fact.event_type()).collect()
}

#[test]
fn a_timeout_cuts_a_slow_read_off_and_can_be_caught() {
    let (at, log) = server();
    let began = Instant::now();
    let (status, events) = run(
        "do:
  - safe:
      try:
        - slow:
            timeout: { after: { milliseconds: 400 } }
            do:
              - ask: { call: http, with: { method: get, endpoint: AT/60000 } }
      catch:
        errors: { with: { status: 408 } }
        do:
          - tell: { set: { told: '${ $error.title }' } }
",
        at,
    );
    assert!(began.elapsed() < Duration::from_secs(30), "nobody waits for the answer");
    assert_eq!(status, Status::Completed, "{}", text::render(&events));
    assert_eq!(facts_at(&events, "safe/slow/ask"), ["StepAsked", "StepCancelled"]);
    assert_eq!(facts_at(&events, "safe/slow!timeout"), ["TimerSet", "TimerFired"]);
    assert_eq!(seen(&log, 1), [("GET /60000".to_owned(), true)], "the attempt itself was stopped");
}

#[test]
fn the_first_of_a_race_wins_and_the_others_are_cut_off() {
    let (at, log) = server();
    let began = Instant::now();
    let (status, events) = run(
        "do:
  - first:
      fork:
        compete: true
        branches:
          - slow: { call: http, with: { method: get, endpoint: AT/60000 } }
          - quick: { call: http, with: { method: get, endpoint: AT/200 } }
",
        at,
    );
    assert!(began.elapsed() < Duration::from_secs(30), "nobody waits for the loser");
    assert_eq!(status, Status::Completed, "{}", text::render(&events));
    let chosen = events.iter().find_map(|event| match &event.fact {
        Fact::DecisionMade(made) => Some((made.key.to_string(), made.chosen.clone())),
        _ => None,
    });
    assert_eq!(chosen, Some(("first!winner".to_owned(), "quick".to_owned())));
    assert_eq!(facts_at(&events, "first/slow"), ["StepAsked", "StepCancelled"]);
    let Some(Fact::WorkflowCompleted { output }) = events.last().map(|event| &event.fact) else {
        panic!("{}", text::render(&events))
    };
    assert_eq!(*output.get(), json!({"after": 200}));
    assert_eq!(seen(&log, 2), [("GET /200".to_owned(), false), ("GET /60000".to_owned(), true)]);
}

#[test]
fn a_write_under_way_is_waited_for_when_time_is_up() {
    let (at, log) = server();
    let (status, events) = run(
        "timeout: { after: { milliseconds: 300 } }
do:
  - post: { call: http, with: { method: post, endpoint: AT/1500 }, metadata: { foldback: { attempts: 3 } } }
  - never: { call: http, with: { method: get, endpoint: AT/0 } }
",
        at,
    );
    assert_eq!(status, Status::Failed);
    assert_eq!(facts_at(&events, "post"), ["StepAsked", "StepCancelled", "StepCompleted"]);
    let Some(Fact::WorkflowFailed { error }) = events.last().map(|event| &event.fact) else {
        panic!("{}", text::render(&events))
    };
    assert_eq!((error.status, error.short_type()), (408, "timeout"));
    assert_eq!(seen(&log, 1), [("POST /1500".to_owned(), false)], "what it did is known");
}

/// A kind that never answers, and has little time for it unless its step says otherwise.
struct Silent;

impl StepKind for Silent {
    fn perform(&self, _: Call) -> Performing {
        Box::pin(std::future::pending())
    }

    fn timeout_ms(&self) -> u64 {
        60
    }
}

#[test]
fn each_kind_has_a_time_limit_of_its_own_and_the_documents_say_which() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let silent = || registry(&Config::default()).with("http", Silent);
    for (metadata, limit_ms) in [("", 60), (", metadata: { foldback: { timeout_ms: 90 } }", 90)] {
        let body = format!("do: [ask: {{ call: http, with: {{ method: get, endpoint: AT/0 }}{metadata} }}]");
        let (status, events) = run_with(&body, nowhere, silent());
        let told = text::render(&events);
        assert_eq!(status, Status::Failed, "{told}");
        let error = events.iter().find_map(|event| match &event.fact {
            Fact::StepFailed(failed) => Some(failed.error.clone()),
            _ => None,
        });
        let detail = error.map(|error| (error.status, String::from(error.detail.unwrap_or_default())));
        assert_eq!(detail, Some((408, format!("no answer within {limit_ms} ms"))), "{told}");
    }
    let kinds = registry(&Config::default());
    let documents = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/models.md");
    let documents = std::fs::read_to_string(documents).expect("it is there");
    for (names, limit_ms) in [
        (&["llm"][..], limits::STEP_TIMEOUT_MS),
        (&["http"], limits::HTTP_TIMEOUT_MS),
        (&["shell", "script"], limits::STEP_TIMEOUT_MS),
    ] {
        for name in names {
            assert_eq!(kinds.get(name).map(|kind| kind.timeout_ms()), Some(limit_ms), "{name}");
        }
        let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let row = format!("| {} | {} minutes |", quoted.join(", "), limit_ms / 60_000);
        assert!(documents.contains(&row), "{row}");
    }
}
