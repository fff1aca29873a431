//! Models behind a network.
//!
//! An answer counts as complete only where the provider said why it stopped, or marked the end; a
//! server on loopback needs no key; a model's name is sent as it was written; a server that does not
//! stream is understood all the same. Never: a key in an answer, an error or a usage.

use std::sync::{Arc, OnceLock};

use foldback_core::step::error_type;
use foldback_core::{Failure, Usage};
use foldback_engine::kind::Progress;
use foldback_engine::veil::{Flow, Veil};
use reqwest::header::HeaderMap;
use tokio::time::Instant;

use super::dialect::Dialect;
use super::ending::settle;
use super::exchange::{Exchanged, exchange, patience};
use super::heard::Heard;
use super::model::{Answer, Asking, ChatRequest, Model, ModelError};
use super::prices;
use super::trouble::status_of;
use super::usage::{self, Asked};
use crate::config::Provider;
use crate::request::wrong;
use crate::web;

/// A provider's models.
pub(super) struct Remote {
    pub(super) provider: Arc<Provider>,
}

impl Model for Remote {
    fn ask(&self, request: ChatRequest, tokens: Progress) -> Asking<'_> {
        Box::pin(async move {
            let key = self.provider.key().map_err(|problem| wrong("llm", &problem.to_string()))?;
            let shown = format!("[{}]", self.provider.api_key_env.as_deref().unwrap_or("key"));
            let veil = key.iter().fold(Veil::default(), |veil, key| veil.hide(key, &shown));
            let veil = Arc::new(veil);
            let flow = Flow::new(veil.clone(), tokens);
            let conversed = self.converse(&request, key.as_deref(), &flow.progress()).await;
            flow.end();
            let veiled = |usage: Box<Usage>| Box::new(veil.usage(*usage));
            match conversed {
                Ok(Answer { text, thoughts, usage, called, is_cut }) => Ok(Answer {
                    text: veil.text(&text).into_owned(),
                    thoughts: veil.text(&thoughts).into_owned(),
                    usage: veil.usage(usage),
                    called: called.map(|name| veil.text(&name).into_owned()),
                    is_cut,
                }),
                Err(ModelError::Unknown { reason, usage }) => Err(ModelError::Unknown {
                    reason: veil.text(&reason).into_owned(),
                    usage: usage.map(veiled),
                }),
                Err(ModelError::OutOfTime { reason, usage }) => Err(ModelError::OutOfTime {
                    reason: veil.text(&reason).into_owned(),
                    usage: usage.map(veiled),
                }),
                Err(ModelError::Failed { error, retry_after_ms, usage }) => {
                    let error = Box::new(veil.failure(*error));
                    Err(ModelError::Failed { error, retry_after_ms, usage: usage.map(veiled) })
                }
                Err(ModelError::NobodyThere { error }) => {
                    Err(ModelError::NobodyThere { error: Box::new(veil.failure(*error)) })
                }
            }
        })
    }
}

impl Remote {
    pub(super) fn new(provider: Arc<Provider>) -> Remote {
        Remote { provider }
    }

    async fn converse(
        &self,
        question: &ChatRequest,
        key: Option<&str>,
        tokens: &Progress,
    ) -> Result<Answer, ModelError> {
        let by = Instant::now() + patience(question.timeout_ms);
        static WARM: OnceLock<()> = OnceLock::new();
        WARM.get_or_init(|| drop(tokio::task::spawn_blocking(prices::warm)));
        let client = web::pooled().map_err(|why| {
            ModelError::from(
                Failure::new(error_type::CONFIGURATION, 500, "No HTTP client", why).non_retryable(),
            )
        })?;
        let dialect = Dialect::of(&self.provider.kind);
        let (asked, model) = (Asked::of(question), question.model.as_str());
        let written = dialect.write(&self.provider, question, key, self.provider.streams);
        let mut heard = Heard::default();
        let ended = exchange(client, written, dialect, by, &mut heard, tokens).await;
        let used =
            |heard: &Heard, is_broken: bool| usage::of(&self.provider, dialect, &asked, heard, is_broken);
        // What was begun is paid for, however it ended.
        let cost = |heard: &Heard| Some(Box::new(used(heard, true)));
        match ended {
            Exchanged::Answered => {}
            Exchanged::Refused { status, headers, body } => {
                return Err(self.refusal(status, &headers, &body, model, None));
            }
            Exchanged::Unreached(error) => return Err(self.unreached(&error)),
            Exchanged::Unsendable(why) => {
                return Err(wrong("llm", &format!("{}: {why}", self.place())).into());
            }
            Exchanged::OutOfTime => {
                let reason = format!("{}: no answer within {} ms", self.place(), question.timeout_ms);
                let usage = heard.is_known.then(|| cost(&heard)).flatten();
                return Err(ModelError::OutOfTime { reason, usage });
            }
            Exchanged::BrokeOff(why) => return Err(self.broke_off(&heard, &why, cost(&heard))),
            Exchanged::Unreadable(what) => {
                let detail = format!("{}: {what}", self.place());
                let error =
                    Failure::new(error_type::COMMUNICATION, 502, "Unreadable answer", detail).non_retryable();
                return Err(ModelError::Failed {
                    error: Box::new(error),
                    retry_after_ms: None,
                    usage: cost(&heard),
                });
            }
            Exchanged::TooLong(most) => {
                let detail = format!("{}: what the model wrote is longer than {most} bytes", self.place());
                let error = Failure::new(error_type::RUNTIME, 500, "Answer too long", detail).non_retryable();
                return Err(ModelError::Failed {
                    error: Box::new(error),
                    retry_after_ms: None,
                    usage: cost(&heard),
                });
            }
        }
        if let Some(error) = &heard.error {
            let usage = heard.is_known.then(|| cost(&heard)).flatten();
            return Err(self.refusal(status_of(error), &HeaderMap::new(), &error.to_string(), model, usage));
        }
        if !(heard.finish_reason.is_some() || heard.blocked.is_some() || heard.is_ended) {
            return Err(self.broke_off(&heard, "the stream ended before the model did", cost(&heard)));
        }
        let usage = used(&heard, false);
        settle(heard, usage, &self.place())
    }

    fn broke_off(&self, heard: &Heard, why: &str, usage: Option<Box<Usage>>) -> ModelError {
        let count = heard.text.chars().count();
        let reason = format!("{}: the answer broke off after {count} characters: {why}", self.place());
        ModelError::Unknown { reason, usage }
    }
}
