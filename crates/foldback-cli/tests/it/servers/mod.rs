//! Servers that misbehave, each on a loopback port of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How a server answers.
#[derive(Clone, Debug)]
pub enum Answers {
    /// With bytes that are no HTTP.
    Garbage,
    /// It reads the request and closes the connection.
    Closes,
    /// It reads the request and says nothing.
    Never,
    /// It promises more than it sends.
    Half,
    /// It says JSON and sends none.
    BadJson,
    /// A server error.
    Error,
    /// A list in a list in a list, so deep.
    Nested(usize),
    /// Bytes of a media type.
    Bytes(&'static str, Vec<u8>),
    /// It streams these events, as a model does.
    Streams(&'static str),
    /// It closes the first connection, and answers well from then on.
    ClosesOnce,
}

/// A server, until the test's process ends.
pub struct Server {
    /// Where it listens: `http://127.0.0.1:PORT`.
    pub url: String,
    requests: Arc<AtomicUsize>,
}

impl Server {
    /// A server that answers so.
    pub fn that(answers: Answers) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                read_request(&mut stream);
                let nth = counted.fetch_add(1, Ordering::SeqCst) + 1;
                if let Some(bytes) = answers.bytes(nth) {
                    let _gone = stream.write_all(&bytes);
                } else {
                    silent.push(stream);
                }
            }
        });
        Server { url, requests }
    }

    /// The address of a port where nobody listens.
    pub fn refusing() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Answers {
    /// What is sent to the `nth` request; `None` to say nothing and keep the connection.
    fn bytes(&self, nth: usize) -> Option<Vec<u8>> {
        let json = |promised: usize, body: &str| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
            format!("{head} {promised}\r\n\r\n{body}").into_bytes()
        };
        Some(match self {
            Answers::Garbage => b"\x00\x01\xff no HTTP at all\r\n\r\n".to_vec(),
            Answers::Closes => Vec::new(),
            Answers::Never => return None,
            Answers::Half => json(500, "{\"id\":"),
            Answers::BadJson => json(6, "{\"id\":"),
            Answers::Error => b"HTTP/1.1 500 No\r\ncontent-length: 7\r\n\r\nno luck".to_vec(),
            Answers::Nested(depth) => json(2 * depth, &nested(*depth)),
            Answers::Bytes(media_type, bytes) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type:";
                let head = format!("{head} {media_type}\r\ncontent-length: {}\r\n\r\n", bytes.len());
                [head.as_bytes(), bytes].concat()
            }
            Answers::Streams(events) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length:";
                format!("{head} {}\r\n\r\n{events}", events.len()).into_bytes()
            }
            Answers::ClosesOnce if nth == 1 => Vec::new(),
            Answers::ClosesOnce => json(8, "{\"id\":2}"),
        })
    }
}

/// JSON that nests so deep.
pub fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// A whole request, so that closing is no reset.
fn read_request(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    let mut part = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some(head) = text.find("\r\n\r\n") {
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length = length.and_then(|length| length.trim().parse::<usize>().ok()).unwrap_or(0);
            if bytes.len() >= head + 4 + length {
                return;
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
        }
    }
}
