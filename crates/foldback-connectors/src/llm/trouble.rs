//! What it means that a model did not answer: the library's errors, a provider's refusal, a
//! connection that broke. Invariant: nothing here shows the request, which may hold anything.

use std::error::Error;

use foldback_core::Failure;
use foldback_core::step::error_type;
use genai::webc;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::model::ModelError;
use super::remote::Remote;
use crate::request::wrong;
use crate::web;

/// Characters of a provider's own words that an error shows.
const WORDS_MAX: usize = 500;

impl Remote {
    /// What is told of the server: the provider's name and where it is.
    pub(super) fn place(&self) -> String {
        let address = self.provider.base_url.split('?').next().unwrap_or_default();
        format!("provider `{}` at {address}", self.provider.name)
    }

    /// What an error of the library means. Its own words are not shown where they may hold the
    /// request.
    pub(super) fn explain(&self, error: &genai::Error) -> ModelError {
        use genai::Error as E;
        use webc::Error as W;
        let garbage = |what: &str| {
            let detail = format!("{}: {what}", self.place());
            ModelError::from(Failure::new(error_type::COMMUNICATION, 502, "Unreadable answer", detail))
        };
        match error {
            E::HttpError { status, body, headers, .. } => self.refusal(status.as_u16(), headers, body),
            E::WebModelCall { webc_error, .. } | E::WebAdapterCall { webc_error, .. } => match webc_error {
                W::ResponseFailedStatus { status, body, headers } => {
                    self.refusal(status.as_u16(), headers, body)
                }
                W::Reqwest(error) => self.unreached(error),
                W::ResponseFailedNotJson { .. } => garbage("the answer is no JSON"),
                W::ResponseFailedInvalidJson { .. } => garbage("the answer says it is JSON and is none"),
                W::JsonValueExt(_) => garbage("the answer is not in the shape of the protocol"),
            },
            E::WebStream { error, .. } => self.broken(error.as_ref()),
            E::ChatResponse { body, .. } => {
                self.refusal(status_of(body), &HeaderMap::new(), &body.to_string())
            }
            E::StreamParse { .. } => garbage("a part of the stream is no JSON"),
            E::ChatResponseGeneration { cause, .. } => garbage(&web::first_chars(cause, WORDS_MAX)),
            E::JsonValueExt(_)
            | E::SerdeJson(_)
            | E::NoChatResponse { .. }
            | E::InvalidJsonResponseElement { .. } => {
                garbage("the answer is not in the shape of the protocol")
            }
            other => wrong("llm", &web::first_chars(&other.to_string(), WORDS_MAX)).into(),
        }
    }

    fn broken(&self, error: &(dyn Error + Send + Sync + 'static)) -> ModelError {
        if let Some(error) = error.downcast_ref::<reqwest::Error>() {
            return self.unreached(error);
        }
        if let Some(error) = error.downcast_ref::<genai::Error>() {
            return self.explain(error);
        }
        ModelError::Unknown { reason: format!("{}: the answer broke off: {error}", self.place()) }
    }

    fn unreached(&self, error: &reqwest::Error) -> ModelError {
        let why = format!("{}: {}", self.place(), web::cause(error));
        if error.is_connect() {
            // 503 is tried again by the policy of model calls: the server may be starting.
            return Failure::new(error_type::COMMUNICATION, 503, "Not reachable", why).into();
        }
        if error.is_builder() {
            return wrong("llm", &why).into();
        }
        ModelError::Unknown { reason: why }
    }

    /// A provider's no: its status, its words, and how long it asks to wait.
    pub(super) fn refusal(&self, status: u16, headers: &HeaderMap, body: &str) -> ModelError {
        // 529 is how some say that they are overloaded.
        let status = if status == 529 { 503 } else { status };
        let words = web::first_chars(&words(body), WORDS_MAX);
        let key = match &self.provider.api_key_env {
            Some(variable) => format!("the key is read from {variable}"),
            None => format!(
                "no key was sent: name its variable by `api_key_env` under [providers.{}]",
                self.provider.name
            ),
        };
        let (kind, title, detail) = match status {
            401 => (error_type::AUTHENTICATION, "Key refused", format!("{}: {words} ({key})", self.place())),
            403 => (error_type::AUTHORIZATION, "Not allowed", format!("{}: {words} ({key})", self.place())),
            _ => {
                let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
                (
                    error_type::COMMUNICATION,
                    title.unwrap_or("Provider error"),
                    format!("{}: {words}", self.place()),
                )
            }
        };
        let error = Box::new(Failure::new(kind, status, title, detail));
        ModelError::Failed { error, retry_after_ms: web::retry_after_ms(headers), usage: None }
    }
}

/// The status of an error that came without one, inside a stream.
pub(super) fn status_of(error: &Value) -> u16 {
    // Anthropic wraps it once more.
    let error = error.get("error").filter(|inner| inner.is_object()).unwrap_or(error);
    let number = ["code", "status"].iter().find_map(|name| error.get(*name).and_then(Value::as_u64));
    if let Some(status) =
        number.and_then(|n| u16::try_from(n).ok()).filter(|status| (400..600).contains(status))
    {
        return status;
    }
    match error.get("type").or_else(|| error.get("code")).and_then(Value::as_str).unwrap_or_default() {
        "overloaded_error" => 503,
        "rate_limit_error" | "rate_limit_exceeded" => 429,
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "permission_error" => 403,
        _ => 500,
    }
}

/// What a provider says in the body of an error.
fn words(body: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(body) else {
        return if body.trim().is_empty() { "no explanation".to_owned() } else { body.trim().to_owned() };
    };
    let places = ["/error/message", "/message", "/error", "/detail", "/0/error/message"];
    let found = places.iter().find_map(|place| value.pointer(place).and_then(Value::as_str));
    found.map_or_else(|| value.to_string(), str::to_owned)
}
