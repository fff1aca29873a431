//! A server that gives back all it is told: in bodies, errors, headers and a model's tokens, as it is,
//! percent-encoded, in base64 and as JSON that escapes much.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A server, until the test's process ends.
pub struct Echo {
    /// Where it listens: `http://127.0.0.1:PORT`.
    pub url: String,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Echo {
    /// A server that also says `words` of its own accord: what others may know.
    pub fn new(words: Vec<&'static str>) -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let received: Arc<Mutex<Vec<u8>>> = Arc::default();
        let log = received.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, words) = (log.clone(), words.clone());
                std::thread::spawn(move || {
                    let request = read_request(&mut stream);
                    log.lock().expect("a log").extend_from_slice(&request);
                    let _gone = stream.write_all(&answer(&request, &words));
                });
            }
        });
        Echo { url, received }
    }

    /// All bytes that came in, with what was in base64 or percent-encoded in them.
    pub fn received(&self) -> Vec<u8> {
        self.received.lock().expect("a log").clone()
    }
}

fn answer(request: &[u8], words: &[&'static str]) -> Vec<u8> {
    let text = String::from_utf8_lossy(request).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    // What only rules hide is known to the server by itself.
    let known: Vec<&&str> =
        words.iter().filter(|word| word.contains("17@") || word.contains("ssn")).collect();
    let told = json!({"ssn": known[1], "mail": format!("write to {}", known[0])});
    let person = if path.ends_with("/bare") { Value::Null } else { told };
    let headers: String =
        text.lines().skip(1).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ");
    let json = |status: &str, more: &str, body: &Value| {
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\n{more}content-length: {}",
            body.len()
        );
        format!("{head}\r\n\r\n{body}").into_bytes()
    };
    let echoed = json!({
        "plain": text, "percent": percent(&text), "base64": base64(request), "escaped": escaped(&text), "again": base64(text.trim().as_bytes()),
        "of": person, "by name": {text.clone(): 1},
    });
    if path.contains("/chat/completions") {
        let authorization = text
            .lines()
            .find(|line| line.to_ascii_lowercase().starts_with("authorization"))
            .unwrap_or_default();
        if text.contains("refuse") {
            let message = format!(
                "bad key {authorization}, {}, {}, {person}",
                percent(authorization),
                escaped(authorization)
            );
            return json(
                "401 Unauthorized",
                "",
                &json!({"error": {"message": message, "type": "auth", "code": "bad_key"}}),
            );
        }
        return chat(&format!("{authorization} {} {}", base64(authorization.as_bytes()), person["mail"]));
    }
    if path.starts_with("/refuse") {
        return json(
            "400 Bad Request",
            "",
            &json!({"said": headers, "of": person, "body": text.rsplit("\r\n\r\n").next()}),
        );
    }
    if path.starts_with("/moved") {
        let bearer =
            headers.split("Bearer ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        return json("302 Found", &format!("location: /there?token={}\r\n", percent(bearer)), &json!({}));
    }
    let bearer = headers.split("earer ").nth(1).and_then(|rest| rest.split(" |").next()).unwrap_or_default();
    json("200 OK", &format!("x-echo: {bearer}\r\nx-percent: {}\r\n", percent(bearer)), &echoed)
}

/// A model's answer in pieces of three characters.
fn chat(text: &str) -> Vec<u8> {
    let event = |value: Value| format!("data: {value}\n\n");
    let chunk = |choices: Value| json!({"id": "1", "object": "chat.completion.chunk", "model": "fake-1", "choices": choices});
    let characters: Vec<char> = text.chars().collect();
    let mut body: String = characters
        .chunks(3)
        .map(|piece| {
            let piece: String = piece.iter().collect();
            event(chunk(json!([{"index": 0, "delta": {"content": piece}, "finish_reason": null}])))
        })
        .collect();
    body += &event(chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])));
    body += "data: [DONE]\n\n";
    let head = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\ncontent-length: {}",
        body.len()
    );
    format!("{head}\r\n\r\n{body}").into_bytes()
}

fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some(head) = text.find("\r\n\r\n") {
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length = length.and_then(|length| length.trim().parse::<usize>().ok()).unwrap_or(0);
            if bytes.len() >= head + 4 + length {
                return bytes;
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return bytes,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
        }
    }
}

/// As in JSON of a writer that escapes what it need not: slashes, what HTML reads, and all but ASCII.
pub fn escaped(text: &str) -> String {
    let spell = |unit: u16| match u8::try_from(unit).ok().filter(u8::is_ascii) {
        Some(b'/') => "\\/".to_owned(),
        Some(b'"') => "\\\"".to_owned(),
        Some(c) if c.is_ascii_alphanumeric() || b" -._~+=?!;$%".contains(&c) => char::from(c).to_string(),
        _ => format!("\\u{unit:04X}"),
    };
    text.encode_utf16().map(spell).collect()
}

/// Percent-encoded as in a query.
pub fn percent(text: &str) -> String {
    let spell = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(spell).collect()
}

/// Base64 with the usual alphabet.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word =
            part.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for nth in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * nth) & 63) as usize];
            text.push(if nth <= part.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
