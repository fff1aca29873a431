//! What it means that a model did not answer: a provider's no, a connection that was not made.
//! Invariant: nothing here shows the request, which may hold anything.

use foldback_core::step::error_type;
use foldback_core::{Failure, Usage};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::ending::REFUSED;
use super::model::ModelError;
use super::remote::Remote;
use crate::config::Kind;
use crate::request::{no_room, wrong};
use crate::web;

/// Characters of a provider's own words that an error shows.
const WORDS_MAX: usize = 500;

impl Remote {
    /// What is told of the server: the provider's name and where it is.
    pub(super) fn place(&self) -> String {
        let address = self.provider.base_url.split('?').next().unwrap_or_default();
        format!("provider `{}` at {address}", self.provider.name)
    }

    /// What it means that a request brought no answer at all.
    pub(super) fn unreached(&self, error: &reqwest::Error) -> ModelError {
        let why = format!("{}: {}", self.place(), web::cause(error));
        if web::is_no_room(error) {
            return no_room(why).into();
        }
        if error.is_connect() {
            return self.not_reached(why);
        }
        if error.is_builder() {
            return wrong("llm", &why).into();
        }
        ModelError::Unknown { reason: why, usage: None }
    }

    fn not_reached(&self, why: String) -> ModelError {
        // 503 is tried again by the policy of model calls: a server or a network comes back.
        let failure = |hint: &str| {
            let detail = format!("{why}; hint: {hint}");
            Failure::new(error_type::COMMUNICATION, 503, "Not reachable", detail)
        };
        if !self.provider.is_loopback {
            return failure("check the network and `base_url`; `foldback doctor` asks each provider").into();
        }
        let hint = match self.provider.kind {
            Kind::Ollama => "start it with `ollama serve`; `foldback doctor` asks each provider",
            Kind::Openai | Kind::Anthropic | Kind::Gemini | Kind::Scripted(_) => {
                "start the server, or correct `base_url`; `foldback doctor` asks each provider"
            }
        };
        ModelError::NobodyThere { error: Box::new(failure(hint)) }
    }

    /// A provider's no: its status, its words, how long it asks to wait, and what the call used.
    pub(super) fn refusal(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &str,
        model: &str,
        usage: Option<Box<Usage>>,
    ) -> ModelError {
        // 529 is how some say that they are overloaded.
        let status = if status == 529 { 503 } else { status };
        let parsed: Option<Value> = serde_json::from_str(body).ok();
        let words = format!("{}: {}", self.place(), web::first_chars(&words(body), WORDS_MAX));
        let failed = |kind: &str, status: u16, title: &str, detail: String| ModelError::Failed {
            error: Box::new(Failure::new(kind, status, title, detail)),
            retry_after_ms: web::retry_after_ms(headers).or_else(|| parsed.as_ref().and_then(retry_delay_ms)),
            usage,
        };
        let code = parsed.as_ref().map(code_of).unwrap_or_default();
        if is_too_long(status, code, &words) {
            // A status of its own: another model may have room for it, and this one never will.
            let detail = format!("{words}; hint: shorten the prompt, or name a `fallback` that reads more");
            return failed(error_type::COMMUNICATION, 413, "Prompt too long", detail);
        }
        match code {
            // A 429 that no waiting mends: without another status it would be asked again.
            "insufficient_quota" | "billing_hard_limit_reached" => {
                let detail = format!("{words}; hint: see the plan and the balance at the provider");
                return failed(error_type::COMMUNICATION, 402, "Quota used up", detail);
            }
            "content_filter" | "content_policy_violation" => {
                return failed(REFUSED, 422, "The model refused", words);
            }
            _ => {}
        }
        match status {
            401 => failed(
                error_type::AUTHENTICATION,
                401,
                "Key refused",
                format!("{words} ({})", self.key_told()),
            ),
            403 => failed(
                error_type::AUTHORIZATION,
                403,
                "Not allowed",
                format!("{words} ({})", self.key_told()),
            ),
            404 => {
                let hint = match self.provider.kind {
                    Kind::Ollama => format!("`ollama pull {model}`, or `ollama list` for what is there"),
                    Kind::Openai | Kind::Anthropic | Kind::Gemini | Kind::Scripted(_) => {
                        "check the model's name, and the path of `base_url`".to_owned()
                    }
                };
                let detail = format!("{words} (asked for the model `{model}`); hint: {hint}");
                failed(error_type::COMMUNICATION, 404, "Unknown model", detail)
            }
            _ => {
                let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
                failed(error_type::COMMUNICATION, status, title.unwrap_or("Provider error"), words)
            }
        }
    }

    fn key_told(&self) -> String {
        match &self.provider.api_key_env {
            Some(variable) => format!("the key is read from {variable}"),
            None => format!(
                "no key was sent: name its variable by `api_key_env` under [providers.{}]",
                self.provider.name
            ),
        }
    }
}

/// An error's object, under whatever it is wrapped in.
fn error_in(body: &Value) -> &Value {
    let body = body.get(0).unwrap_or(body);
    body.get("error").filter(|inner| inner.is_object()).unwrap_or(body)
}

/// The word that an error is known by: OpenAI says it as `code`, and where that is null as `type`.
fn code_of(body: &Value) -> &str {
    let error = error_in(body);
    let word = |name: &str| error.get(name).and_then(Value::as_str);
    word("code").or_else(|| word("type")).unwrap_or_default()
}

/// Google says how long to wait in the body alone: a `RetryInfo` with a duration like `34.07s`.
fn retry_delay_ms(body: &Value) -> Option<u64> {
    let details = error_in(body).get("details")?.as_array()?;
    let delay = details.iter().find_map(|detail| detail.get("retryDelay")).and_then(Value::as_str)?;
    let seconds: f64 = delay.strip_suffix('s')?.parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then(|| (seconds * 1_000.0).ceil() as u64)
}

/// Whether a provider says that the prompt is longer than its model reads.
fn is_too_long(status: u16, code: &str, words: &str) -> bool {
    const CODES: [&str; 4] = [
        "context_length_exceeded",
        "exceed_context_size_error",
        "request_too_large",
        "string_above_max_length",
    ];
    const WORDS: [&str; 5] = [
        "maximum context length",
        "prompt is too long",
        "exceeds the maximum number of tokens",
        "exceeds the available context size",
        "context window",
    ];
    let is_no = matches!(status, 400 | 413 | 422 | 500);
    CODES.contains(&code) || status == 413 || (is_no && WORDS.iter().any(|part| words.contains(part)))
}

/// The status of an error that came without one: in the body of a success, or inside a stream.
pub(super) fn status_of(error: &Value) -> u16 {
    // Anthropic wraps it once more.
    let error = error.get("error").filter(|inner| inner.is_object()).unwrap_or(error);
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
    let numbers = ["code", "status", "status_code"].iter().filter_map(|name| number(error.get(*name)?));
    let mut statuses = numbers.filter_map(|n| u16::try_from(n).ok()).filter(|n| (400..600).contains(n));
    if let Some(status) = statuses.next() {
        return status;
    }
    let words = ["type", "code", "status"].iter().filter_map(|name| error.get(*name).and_then(Value::as_str));
    words.filter_map(status_of_word).next().unwrap_or(500)
}

fn status_of_word(word: &str) -> Option<u16> {
    Some(match word {
        "overloaded_error" | "UNAVAILABLE" | "service_unavailable" => 503,
        "not_found_error" | "NOT_FOUND" | "model_not_found" => 404,
        "billing_error" => 402,
        "timeout_error" | "DEADLINE_EXCEEDED" => 504,
        "rate_limit_error" | "rate_limit_exceeded" | "RESOURCE_EXHAUSTED" | "insufficient_quota" => 429,
        "invalid_request_error" | "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "context_length_exceeded" => {
            400
        }
        "authentication_error" | "UNAUTHENTICATED" | "invalid_api_key" => 401,
        "permission_error" | "PERMISSION_DENIED" => 403,
        _ => return None,
    })
}

/// What a provider says in the body of an error.
fn words(body: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(body) else {
        return if body.trim().is_empty() { "no explanation".to_owned() } else { body.trim().to_owned() };
    };
    let places =
        ["/error/message", "/message", "/error", "/detail", "/0/error/message", "/error_description"];
    let found = places.iter().find_map(|place| value.pointer(place).and_then(Value::as_str));
    found.map_or_else(|| value.to_string(), str::to_owned)
}
