//! A server on loopback that answers for the public demo servers, by host and path. What it does
//! not know is 404, and another host 502: a scenario cannot pass because somebody answered anything.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// The value of a secret.
pub fn secret(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The hosts it stands in for.
pub const HOSTS: [&str; 3] = ["petstore.swagger.io", "httpbin.org", "flaky.example.com"];

/// A request as the server got it.
#[derive(Clone, Debug, Default)]
struct Asked {
    host: String,
    method: String,
    path: String,
    authorization: String,
}

/// The server: it lives as long as the process, and counts what it was asked.
#[derive(Clone)]
pub struct StandIn {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl StandIn {
    pub fn start() -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = StandIn { address: listener.local_addr().expect("an address"), asked: Arc::default() };
        let seen = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || drop(seen.serve(stream)));
            }
        });
        server
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let asked = read(&stream)?;
        let times = {
            let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(asked.clone());
            all.iter().filter(|one| (&one.host, &one.path) == (&asked.host, &asked.path)).count()
        };
        let (status, body) = answer(&asked, times);
        let body = body.to_string();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

fn read(stream: &TcpStream) -> std::io::Result<Asked> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut asked, mut length) = (String::new(), Asked::default(), 0);
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    (asked.method, asked.path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or((&header, ""));
        match name.to_ascii_lowercase().as_str() {
            "host" => asked.host = value.trim().to_owned(),
            "authorization" => asked.authorization = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    Ok(asked)
}

/// `times` is how often this path was asked for, this time included.
fn answer(asked: &Asked, times: usize) -> (u16, Value) {
    let none = (404, json!({"code": 404, "type": "unknown", "message": "not here"}));
    match (asked.host.as_str(), asked.method.as_str()) {
        ("petstore.swagger.io", "GET") => petstore(&asked.path).map_or(none, |body| (200, body)),
        // "serverless-workflow:conformance-test", as `basic` puts it.
        ("httpbin.org", "GET") if asked.path == "/basic-auth/serverless-workflow/conformance-test" => {
            match asked.authorization.as_str() {
                "Basic c2VydmVybGVzcy13b3JrZmxvdzpjb25mb3JtYW5jZS10ZXN0" => {
                    (200, json!({"authenticated": true, "user": "serverless-workflow"}))
                }
                _ => (401, Value::Null),
            }
        }
        ("httpbin.org", "GET") if asked.path == "/bearer" => match asked.authorization.as_str() {
            // A variable that every machine has; scenarios use it as a secret.
            token if token == format!("Bearer {}", secret("PATH")) => (200, json!({"authenticated": true})),
            _ => (401, Value::Null),
        },
        // `/fails/2/…` fails twice, then answers how often it was asked.
        ("flaky.example.com", _) => {
            let fails =
                asked.path.strip_prefix("/fails/").and_then(|rest| rest.split('/').next()?.parse().ok());
            match fails {
                Some(fails) if times <= fails => (503, json!({"message": "busy"})),
                Some(_) => (200, json!({"times": times, "method": asked.method})),
                None => none,
            }
        }
        ("petstore.swagger.io" | "httpbin.org", _) => none,
        _ => (502, json!({"message": "this host has no stand-in"})),
    }
}

fn petstore(path: &str) -> Option<Value> {
    let pet = |id: u64| json!({"id": id, "name": format!("pet {id}"), "status": "available", "photoUrls": [], "tags": []});
    let rest = path.strip_prefix("/v2/pet/")?;
    match rest.strip_prefix("findByStatus?status=") {
        Some("available") => Some(json!([pet(1), pet(2)])),
        Some(_) => Some(json!([])),
        None => rest.parse().ok().map(pet),
    }
}
