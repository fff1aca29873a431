//! An HTTP answer, read to its end and told as an outcome.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use foldback_core::step::error_type;
use foldback_core::{Effect, Failure, Outcome, limits, media};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::charset;
use super::plan::{Output, Plan, is_json_type};
use crate::web;
use crate::work::failed;

/// Characters of an error's body that become its detail.
const DETAIL_MAX_CHARS: usize = 500;

/// Bytes of an error's body that are read at all.
const ERROR_BODY_MAX_BYTES: usize = 64 * 1024;

/// Reads the answer. Its status alone decides whether the request failed; where a success cannot
/// be read to its end, a `write` has an unknown outcome: it may well have landed.
pub(super) async fn read(plan: &Plan, mut response: Response, effect: Effect) -> Outcome {
    let status = response.status();
    let is_error = status.as_u16() >= 400 || (status.is_redirection() && !plan.redirect);
    if is_error {
        return refused(plan, response).await;
    }
    let bytes = match body(&mut response, limits::STEP_OUTPUT_MAX_BYTES).await {
        Ok(bytes) => bytes,
        Err(problem) => return half_answer(plan, status, effect, problem),
    };
    match output(plan, &response, &bytes) {
        Ok(output) => Outcome::Completed { output, usage: None },
        Err(why) => half_answer(plan, status, effect, Problem::Unreadable(why)),
    }
}

/// Why an answer could not be taken over.
enum Problem {
    TooLong,
    Cut(String),
    Unreadable(String),
}

fn half_answer(plan: &Plan, status: StatusCode, effect: Effect, problem: Problem) -> Outcome {
    let what = match &problem {
        Problem::TooLong => format!("is longer than {} bytes", limits::STEP_OUTPUT_MAX_BYTES),
        Problem::Cut(why) => format!("broke off: {why}"),
        Problem::Unreadable(why) => format!("says it is JSON and is none: {why}"),
    };
    let place = format!("{} {}", plan.method, web::origin(&plan.url));
    let reason = format!("{place}: the answer ({}) {what}", status.as_u16());
    match problem {
        Problem::Cut(_) => Outcome::Unknown { reason },
        _ if effect == Effect::Write => Outcome::Unknown { reason },
        Problem::TooLong => failed(Failure::new(error_type::RUNTIME, 500, "Answer too long", reason)),
        Problem::Unreadable(_) => {
            failed(Failure::new(error_type::COMMUNICATION, 502, "Unreadable answer", reason))
        }
    }
}

/// At most `max` bytes of the body, streamed, so that a longer one never fills the memory.
async fn body(response: &mut Response, max: usize) -> Result<Vec<u8>, Problem> {
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(Problem::TooLong);
    }
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > max => return Err(Problem::TooLong),
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(error) => return Err(Problem::Cut(web::cause(&error))),
        }
    }
}

/// A complete answer that says no: a known outcome, even where its body is cut or endless.
async fn refused(plan: &Plan, mut response: Response) -> Outcome {
    let status = response.status();
    let retry_after_ms = web::retry_after_ms(response.headers());
    let mut bytes = Vec::new();
    while bytes.len() < ERROR_BODY_MAX_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    // A body that was cut may end within a character.
    let text = charset::text(content_type(&response), &bytes).unwrap_or(String::from_utf8_lossy(&bytes));
    let mut detail = web::first_chars(text.trim(), DETAIL_MAX_CHARS);
    if status.is_redirection() {
        let location =
            response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
        detail = format!("the server points to {location}; `redirect: true` follows it");
    } else if detail.is_empty() {
        detail = format!("{} {}: the answer has no body", plan.method, web::origin(&plan.url));
    }
    let title = status.canonical_reason().unwrap_or("HTTP error");
    let error = Failure::new(error_type::COMMUNICATION, status.as_u16(), title, detail);
    Outcome::Failed { error, retry_after_ms, usage: None }
}

fn output(plan: &Plan, response: &Response, bytes: &[u8]) -> Result<Value, String> {
    if plan.output == Output::Raw {
        return Ok(Value::String(STANDARD.encode(bytes)));
    }
    let content = content(plan, response, bytes)?;
    if plan.output == Output::Content {
        return Ok(content);
    }
    Ok(json!({
        "request": plan.shown,
        "statusCode": response.status().as_u16(),
        "headers": headers(response.headers()),
        "content": content,
    }))
}

fn content(plan: &Plan, response: &Response, bytes: &[u8]) -> Result<Value, String> {
    let content_type = content_type(response);
    let text = charset::text(content_type, bytes);
    if bytes.is_empty() || text.as_deref() == Some("") {
        let is_text = content_type.is_some_and(|content_type| !is_json_type(content_type));
        let has_body = plan.method != Method::HEAD && response.status() != StatusCode::NO_CONTENT;
        return Ok(if is_text && has_body { Value::String(String::new()) } else { Value::Null });
    }
    match content_type {
        Some(content_type) if is_json_type(content_type) => {
            let text = text.ok_or("it is no text in its charset")?;
            foldback_core::json::parse(&text).map_err(|why| why.to_string())
        }
        Some(content_type) => Ok(other(content_type, text, bytes)),
        None => match text.as_deref().and_then(|text| foldback_core::json::parse_if_json(text.as_bytes())) {
            Some(read) => read.map_err(|why| why.to_string()),
            None => Ok(other("", text, bytes)),
        },
    }
}

fn content_type(response: &Response) -> Option<&str> {
    response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// Text as text; what is none, or a picture, a sound or a PDF by its type, as a `data:` URI.
fn other(content_type: &str, text: Option<Cow<'_, str>>, bytes: &[u8]) -> Value {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_seen_or_heard =
        ["image/", "audio/", "video/", "font/"].iter().any(|kind| media_type.starts_with(kind));
    let is_text = media_type != "application/pdf" && (!is_seen_or_heard || media_type.ends_with("+xml"));
    let text = match text {
        Some(text) if is_text => text.into_owned(),
        _ if media::is_media_type(&media_type) => media::write(&media_type, bytes),
        _ => media::write("application/octet-stream", bytes),
    };
    Value::String(text)
}

/// Headers by name, those given several times joined by commas.
fn headers(headers: &HeaderMap) -> Value {
    let mut map = Map::new();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        map.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
    }
    Value::Object(map)
}
