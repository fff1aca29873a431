//! The dialects that models are spoken to in: how a question is written, and where it is sent.
//!
//! A dialect writes one request and never sends it: see `exchange`. How answers are read stands in
//! `heard`. Ollama is spoken to by its OpenAI-compatible side, which knows schemas.

mod anthropic;
mod gemini;
mod openai;
mod schema;

use serde_json::Value;

use super::model::ChatRequest;
use crate::config::{Kind, Provider};

/// One request to a model's server.
#[derive(Debug, PartialEq)]
pub(super) struct Written {
    pub(super) url: String,
    /// Headers beside the content type; the key is one of them.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Value,
}

/// How a provider is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Openai,
    Anthropic,
    Gemini,
}

impl Dialect {
    pub(super) fn of(kind: &Kind) -> Dialect {
        match kind {
            Kind::Anthropic => Dialect::Anthropic,
            Kind::Gemini => Dialect::Gemini,
            Kind::Openai | Kind::Ollama | Kind::Scripted(_) => Dialect::Openai,
        }
    }

    /// The request that asks a question.
    pub(super) fn write(
        self,
        provider: &Provider,
        question: &ChatRequest,
        key: Option<&str>,
        streams: bool,
    ) -> Written {
        let base = provider.endpoint();
        match self {
            Dialect::Openai => openai::write(&base, question, key, streams),
            Dialect::Anthropic => anthropic::write(&base, question, key, streams),
            Dialect::Gemini => gemini::write(&base, question, key, streams),
        }
    }
}

/// Adds a member where there is a value for it.
fn insert(body: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body[name] = value.into();
    }
}
