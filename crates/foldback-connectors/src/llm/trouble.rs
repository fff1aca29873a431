//! What it means that a model did not answer: the library's errors, a provider's refusal, a
//! connection that broke. Invariant: nothing here shows the request, which may hold anything.

use std::error::Error;

use foldback_core::Failure;
use foldback_core::step::error_type;
use genai::webc;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::ending::REFUSED;
use super::model::ModelError;
use super::remote::Remote;
use crate::config::Kind;
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
    pub(super) fn explain(&self, error: &genai::Error, model: &str) -> ModelError {
        use genai::Error as E;
        use webc::Error as W;
        let garbage = |what: &str| {
            let detail = format!("{}: {what}", self.place());
            ModelError::from(Failure::new(error_type::COMMUNICATION, 502, "Unreadable answer", detail))
        };
        match error {
            E::HttpError { status, body, headers, .. } => self.refusal(status.as_u16(), headers, body, model),
            E::WebModelCall { webc_error, .. } | E::WebAdapterCall { webc_error, .. } => match webc_error {
                W::ResponseFailedStatus { status, body, headers } => {
                    self.refusal(status.as_u16(), headers, body, model)
                }
                W::Reqwest(error) => self.unreached(error),
                W::ResponseFailedNotJson { .. } => garbage("the answer is no JSON"),
                W::ResponseFailedInvalidJson { .. } => garbage("the answer says it is JSON and is none"),
                W::JsonValueExt(_) => garbage("the answer is not in the shape of the protocol"),
            },
            E::WebStream { error, .. } => self.broken(error.as_ref(), model),
            E::ChatResponse { body, .. } => {
                self.refusal(status_of(body), &HeaderMap::new(), &body.to_string(), model)
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

    fn broken(&self, error: &(dyn Error + Send + Sync + 'static), model: &str) -> ModelError {
        if let Some(error) = error.downcast_ref::<reqwest::Error>() {
            return self.unreached(error);
        }
        if let Some(error) = error.downcast_ref::<genai::Error>() {
            return self.explain(error, model);
        }
        ModelError::Unknown { reason: format!("{}: the answer broke off: {error}", self.place()) }
    }

    fn unreached(&self, error: &reqwest::Error) -> ModelError {
        let why = format!("{}: {}", self.place(), web::cause(error));
        if error.is_connect() {
            return self.not_reached(why);
        }
        if error.is_builder() {
            return wrong("llm", &why).into();
        }
        ModelError::Unknown { reason: why }
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

    /// A provider's no: its status, its words, and how long it asks to wait.
    pub(super) fn refusal(&self, status: u16, headers: &HeaderMap, body: &str, model: &str) -> ModelError {
        // 529 is how some say that they are overloaded.
        let status = if status == 529 { 503 } else { status };
        let parsed: Option<Value> = serde_json::from_str(body).ok();
        let words = format!("{}: {}", self.place(), web::first_chars(&words(body), WORDS_MAX));
        let failed = |kind: &str, status: u16, title: &str, detail: String| ModelError::Failed {
            error: Box::new(Failure::new(kind, status, title, detail)),
            retry_after_ms: web::retry_after_ms(headers).or_else(|| parsed.as_ref().and_then(retry_delay_ms)),
            usage: None,
        };
        match parsed.as_ref().map(code_of).unwrap_or_default() {
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
        "not_found_error" => 404,
        "billing_error" => 402,
        "timeout_error" => 504,
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
