//! One exchange with a model's server: a request goes out, and the answer is read as it comes.
//!
//! Invariants: every byte that comes is counted before it is kept, whether it belongs to the body of
//! an error, a whole answer, a line, or a stream (headers are bounded by the HTTP library: 400 KiB,
//! 16 KiB in HTTP/2); nothing is sent twice. It never judges what was answered.

use std::time::Duration;

use foldback_core::limits;
use foldback_engine::kind::Progress;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::dialect::{Dialect, Written};
use super::events::{Events, Frame};
use super::heard::{Heard, Trouble};

/// How long the body of an error may take: its status is known already.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(5);

/// How long a server may take to end a stream after the model said why it stopped.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// The byte order mark that some servers put before what they send.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The end of an exchange.
#[derive(Debug)]
pub(super) enum Exchanged {
    /// The server answered to the end, or as far as its protocol goes.
    Answered,
    /// The server said no.
    Refused {
        status: u16,
        headers: HeaderMap,
        body: String,
    },
    /// No answer came, or not in time.
    Unreached(reqwest::Error),
    OutOfTime,
    /// The answer broke off in the middle.
    BrokeOff(String),
    /// The answer is nothing that the protocol knows; the words say why.
    Unreadable(&'static str),
    /// The answer is longer than its bound, in bytes.
    TooLong(usize),
    /// The request cannot be sent at all.
    Unsendable(String),
}

/// Sends a request and reads its answer into `heard`; the pieces of the answer go to `tokens` as
/// they come. `by` is when the exchange must be over.
pub(super) async fn exchange(
    client: &Client,
    written: Written,
    dialect: Dialect,
    by: Instant,
    heard: &mut Heard,
    tokens: &Progress,
) -> Exchanged {
    let mut request = client.post(&written.url).header(CONTENT_TYPE, "application/json");
    for (name, value) in &written.headers {
        let Ok(mut value) = HeaderValue::from_str(value) else {
            return Exchanged::Unsendable("the key holds a character that no header can".to_owned());
        };
        value.set_sensitive(true);
        request = request.header(*name, value);
    }
    let response = match timeout_at(by, request.body(written.body.to_string()).send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Exchanged::Unreached(error),
        Err(_) => return Exchanged::OutOfTime,
    };
    if !response.status().is_success() {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        return Exchanged::Refused { status, headers, body: error_body(response, by).await };
    }
    answer(response, dialect, by, heard, tokens).await
}

/// What stands in the body of an error, as far as it comes soon and is not too long.
async fn error_body(mut response: Response, by: Instant) -> String {
    let by = by.min(Instant::now() + ERROR_BODY_PATIENCE);
    let mut bytes: Vec<u8> = Vec::new();
    while let Ok(Ok(Some(piece))) = timeout_at(by, response.chunk()).await {
        let room = limits::MODEL_ERROR_MAX_BYTES - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if bytes.len() == limits::MODEL_ERROR_MAX_BYTES {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    text.trim_start_matches('\u{feff}').to_owned()
}

/// How the body of an answer is read: known from its first character, since servers that do not
/// stream answer a request to stream as they answer any other.
enum Form {
    Unknown,
    Events(Events),
    Whole,
}

async fn answer(
    mut response: Response,
    dialect: Dialect,
    by: Instant,
    heard: &mut Heard,
    tokens: &Progress,
) -> Exchanged {
    let (mut form, mut held, mut count) = (Form::Unknown, Vec::new(), 0usize);
    loop {
        // What comes after the reason is the usage, or nothing. (Some of Google's models give a reason with
        // every part.)
        let is_over = heard.finish_reason.is_some() && dialect != Dialect::Gemini;
        let next = match is_over {
            true => timeout_at(by.min(Instant::now() + END_PATIENCE), response.chunk()).await,
            false => timeout_at(by, response.chunk()).await,
        };
        let piece = match next {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => break,
            _ if is_over => break,
            Ok(Err(error)) => return Exchanged::BrokeOff(crate::web::cause(&error)),
            Err(_) => return Exchanged::OutOfTime,
        };
        // A stream that always has a piece ready never waits, and what never waits is never out of time.
        if Instant::now() >= by {
            return Exchanged::OutOfTime;
        }
        count += piece.len();
        let most = match form {
            // White space before an answer is a sign of life, and no answer.
            Form::Unknown => limits::MODEL_EVENT_MAX_BYTES,
            Form::Events(_) => limits::MODEL_STREAM_MAX_BYTES,
            Form::Whole => limits::STEP_OUTPUT_MAX_BYTES,
        };
        if count > most {
            return Exchanged::TooLong(most);
        }
        let mut fresh: &[u8] = &piece;
        if matches!(form, Form::Unknown) {
            held.extend_from_slice(&piece);
            let Some(begin) = first_character(&held) else {
                // White space has no end either.
                if !MARK.starts_with(&held) {
                    held.clear();
                }
                continue;
            };
            held.drain(..begin);
            form = if matches!(held[0], b'{' | b'[') { Form::Whole } else { Form::Events(Events::default()) };
            if matches!(form, Form::Whole) {
                continue;
            }
            if held[0] == b'<' {
                return Exchanged::Unreadable("the answer is a page, and no JSON");
            }
            fresh = &held;
        }
        match &mut form {
            Form::Unknown => {}
            Form::Whole => held.extend_from_slice(&piece),
            Form::Events(events) => {
                let Ok(frames) = events.read(fresh) else {
                    return Exchanged::TooLong(limits::MODEL_EVENT_MAX_BYTES);
                };
                if let Some(ended) = hear(frames, dialect, heard, tokens) {
                    return ended;
                }
            }
        }
    }
    match form {
        Form::Whole => whole(&held, dialect, heard, tokens),
        Form::Unknown => Exchanged::BrokeOff("it has no body".to_owned()),
        Form::Events(mut events) => {
            // A last event that cannot be read was cut, and the reason of an end is missing then.
            let last = events.end().into_iter().collect();
            let before = heard.finish_reason.is_some();
            match hear(last, dialect, heard, tokens) {
                Some(Exchanged::Unreadable(_)) if !before => {
                    Exchanged::BrokeOff("its last event is cut".to_owned())
                }
                Some(ended) => ended,
                None => Exchanged::Answered,
            }
        }
    }
}

/// Where the first character stands behind a byte order mark and white space; `None` where more is
/// needed to tell.
fn first_character(bytes: &[u8]) -> Option<usize> {
    let begin = match bytes {
        bytes if bytes.starts_with(MARK) => MARK.len(),
        bytes if bytes.len() < MARK.len() && MARK.starts_with(bytes) => return None,
        _ => 0,
    };
    let white = bytes[begin..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    Some(begin + white)
}

/// Takes events; `Some` where there is no more to read.
fn hear(frames: Vec<Frame>, dialect: Dialect, heard: &mut Heard, tokens: &Progress) -> Option<Exchanged> {
    for frame in frames {
        match heard.frame(dialect, &frame) {
            Ok(piece) if piece.is_empty() => {}
            Ok(piece) => tokens(&piece),
            Err(Trouble::TooLong) => return Some(Exchanged::TooLong(limits::STEP_OUTPUT_MAX_BYTES)),
            Err(Trouble::NoJson) => return Some(Exchanged::Unreadable("a part of the stream is no JSON")),
        }
        if heard.error.is_some() || heard.is_ended {
            return Some(Exchanged::Answered);
        }
    }
    None
}

/// Takes a whole answer: one JSON document, or several one behind the other.
fn whole(bytes: &[u8], dialect: Dialect, heard: &mut Heard, tokens: &Progress) -> Exchanged {
    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<Value>() {
        let Ok(value) = value else {
            return Exchanged::Unreadable("the answer says it is JSON and is none");
        };
        match heard.take(dialect, &value) {
            Ok(piece) => tokens(&piece),
            Err(_) => return Exchanged::TooLong(limits::STEP_OUTPUT_MAX_BYTES),
        }
        if !heard.is_known && heard.error.is_none() && heard.blocked.is_none() {
            // Some say what is wrong without a member for it.
            let says = ["detail", "message", "error_description"];
            if says.iter().any(|name| value.get(name).is_some_and(Value::is_string)) {
                heard.error = Some(value);
            }
        }
    }
    heard.is_ended = true;
    if !heard.is_known && heard.error.is_none() && heard.blocked.is_none() {
        return Exchanged::Unreadable("the answer is not in the shape of the protocol");
    }
    Exchanged::Answered
}

/// How long an exchange may take where its step may take `ms`: a little less, so that what it has
/// used by then is told and not lost with it.
pub(super) fn patience(ms: u64) -> Duration {
    Duration::from_millis(ms.saturating_sub((ms / 20).min(250)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_ends_before_its_step_does() {
        for (step, exchange) in [(0, 0), (1, 1), (700, 665), (5_000, 4_750), (600_000, 599_750)] {
            assert_eq!(patience(step), Duration::from_millis(exchange));
        }
    }

    #[test]
    fn the_first_character_is_found_behind_a_mark_however_it_is_cut() {
        for (bytes, expected) in [
            (&b"data:"[..], Some(0)),
            (b"\xef\xbb\xbfdata:", Some(3)),
            (b"\xef\xbb", None),
            (b"\xef\xbb\xbf \r\n{", Some(6)),
            (b"  ", None),
            (b"", None),
        ] {
            assert_eq!(first_character(bytes), expected, "{bytes:?}");
        }
    }
}
