//! `llm`: one question to one model, one answer.
//!
//! The request is data, so that a fork can change it: `{model: "provider/model", fallback?: [models],
//! attachments?: [data URIs], system?, template? + vars?, messages?: [{role, content}], temperature?, seed?, max_tokens?, schema?}`.
//! `template` is filled ([`prompt`]) and becomes the last message of the user.
//!
//! With a `schema` (JSON Schema) the answer is asked for as JSON, parsed and validated: one that
//! misses is rejected, and a repair round shows the model its answer and the reason. Tokens are
//! passed on as they come. Never: a retry (the engine's, by policy), or a key in an error.
//!
//! The modules, in the order of a call: `prompt` and `attachments` (the question), `dialect` (as a
//! provider wants it written), `exchange` and `events` (bytes, counted), `heard` (what they say), `usage`
//! and `prices`, `ending` (whole, cut or refused), `trouble` (errors), `found` and `judge` (the answer).

mod attachments;
mod dialect;
mod ending;
mod events;
mod exchange;
mod found;
mod heard;
mod judge;
mod model;
mod prices;
mod prompt;
mod remote;
mod scripted;
mod trouble;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use foldback_core::step::{LLM_MEMBERS, error_type};
use foldback_core::{Effect, Failure, Outcome, Usage, limits};
use foldback_engine::kind::Call;
use serde_json::{Value, json};

use crate::config::{Config, Kind};
use crate::request::{Members, text_of, wrong};
use crate::work::{Work, failed};
use judge::Judge;

pub use model::{Answer, Asking, Attachment, ChatRequest, Message, Model, ModelError, Role};
pub(crate) use prices::{Prices, estimate, is_priced};
pub(crate) use scripted::Rules;

/// The kind `llm`.
pub(crate) struct Llm {
    config: Arc<Config>,
    models: BTreeMap<String, Arc<dyn Model>>,
}

impl Llm {
    pub(crate) fn new(config: &Config) -> Llm {
        let model = |provider: &Arc<crate::config::Provider>| -> Arc<dyn Model> {
            match &provider.kind {
                Kind::Scripted(rules) => Arc::new(scripted::Scripted::new(rules.clone())),
                _ => Arc::new(remote::Remote::new(provider.clone())),
            }
        };
        let models =
            config.providers.iter().map(|(name, provider)| (name.clone(), model(provider))).collect();
        Llm { config: Arc::new(config.clone()), models }
    }
}

impl Work for Llm {
    const RUN_AHEAD: u32 = limits::RUN_AHEAD_MODEL;
    const FILES: usize = 2;

    async fn work(self: Arc<Self>, call: Call, request: Value) -> Outcome {
        let (provider, mut chat, judge) = match read(&self.config, &request, call.variant) {
            Ok(read) => read,
            Err(error) => return failed(error),
        };
        // What the budgets around it leave is all that an answer may take.
        let left = call.tokens_left.map(|left| u32::try_from(left.max(1)).unwrap_or(u32::MAX));
        let is_bounded = left.is_some_and(|left| chat.max_tokens.is_none_or(|asked| left < asked));
        if is_bounded {
            chat.max_tokens = left;
        }
        let Some(model) = self.models.get(&provider) else {
            return failed(wrong("llm", &format!("the provider `{provider}` is not configured")));
        };
        if let Some((answer, why)) = &call.rejected {
            chat.messages.push(Message::new(Role::Assistant, text_of(answer).into_owned()));
            chat.messages.push(Message::new(Role::User, judge::repair(why)));
        }
        chat.timeout_ms = call.timeout_ms;
        match model.ask(chat, call.progress.clone()).await {
            // Cut by the budget, not by its author: that is no answer.
            Ok(answer) if is_bounded => unless_cut(judge.judge(answer)),
            Ok(answer) => judge.judge(answer),
            Err(ModelError::Failed { usage: Some(usage), .. }) if is_bounded && is_cut(&usage) => {
                Outcome::OutOfBudget { usage: Some(*usage) }
            }
            Err(ModelError::Failed { error, retry_after_ms, usage }) => {
                Outcome::Failed { error: *error, retry_after_ms, usage: usage.map(|usage| *usage) }
            }
            Err(ModelError::NobodyThere { error }) => failed(nobody_there(*error, call.attempt)),
            // Nobody knows what became of a write; asking is done again, and what it used is spent.
            Err(ModelError::Unknown { reason, .. } | ModelError::OutOfTime { reason, .. })
                if call.effect == Effect::Write =>
            {
                Outcome::Unknown { reason }
            }
            Err(ModelError::OutOfTime { reason, usage }) => Outcome::Failed {
                error: Failure::new(error_type::TIMEOUT, 408, "Timeout", reason),
                retry_after_ms: None,
                usage: usage.map(|usage| *usage),
            },
            Err(ModelError::Unknown { reason, usage: None }) => Outcome::Unknown { reason },
            Err(ModelError::Unknown { reason, usage: Some(usage) }) => Outcome::Failed {
                error: Failure::new(error_type::COMMUNICATION, 503, "No answer", reason),
                retry_after_ms: None,
                usage: Some(*usage),
            },
        }
    }
}

fn is_cut(usage: &Usage) -> bool {
    usage.finish_reason.as_deref() == Some(ending::LENGTH)
}

/// An outcome, unless what was left of a budget cut it off.
fn unless_cut(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Completed { usage: Some(usage), .. }
        | Outcome::Rejected { usage: Some(usage), .. }
        | Outcome::Failed { usage: Some(usage), .. }
            if is_cut(&usage) =>
        {
            Outcome::OutOfBudget { usage: Some(usage) }
        }
        other => other,
    }
}

/// Nobody listens on this machine. The server may just be starting, so a second attempt is worth its
/// half second (503 is tried again); a third would only keep a person waiting for the hint.
fn nobody_there(error: Failure, attempt: u32) -> Failure {
    if attempt <= 1 { error } else { Failure { status: 502, ..error }.non_retryable() }
}

/// Reads a revealed request: whom to ask, what, and how to judge the answer.
fn read(config: &Config, request: &Value, variant: u32) -> Result<(String, ChatRequest, Judge), Failure> {
    let members = Members::of("llm", request, &LLM_MEMBERS)?;
    let name = match variant {
        0 => members.text("model")?.ok_or_else(|| wrong("llm", "`model` is missing"))?,
        n => fallback(members.list("fallback")?, n as usize - 1)?,
    };
    let (provider, model) =
        crate::config::resolve(config, name).map_err(|problem| wrong("llm", &problem.to_string()))?;
    let mut messages = rendered(&members)?;
    if messages.is_empty() {
        return Err(wrong("llm", "neither `template` nor `messages` is given"));
    }
    let attachments = attachments::read(members.list("attachments")?)?;
    if !attachments.is_empty() {
        let last = messages.iter_mut().rfind(|message| message.role == Role::User);
        let last = last.ok_or_else(|| wrong("llm", "`attachments` need a message of the user to go with"))?;
        last.attachments = attachments;
    }
    let max_tokens = match members.count("max_tokens")? {
        None => None,
        Some(n) => Some(u32::try_from(n).map_err(|_| wrong("llm", "`max_tokens` is too large"))?),
    };
    let judge = Judge::of(members.value("schema"), max_tokens)?;
    let chat = ChatRequest {
        model: model.to_owned(),
        system: members.text("system")?.map(str::to_owned),
        messages,
        temperature: members.number("temperature")?,
        seed: members.count("seed")?,
        max_tokens,
        schema: members.value("schema").cloned(),
        timeout_ms: limits::STEP_TIMEOUT_MS,
    };
    Ok((provider.name.clone(), chat, judge))
}

/// The conversation of a request: its `messages`, then its `template` with the `vars` in their places.
fn rendered(members: &Members<'_>) -> Result<Vec<Message>, Failure> {
    let mut messages = Vec::new();
    for (i, message) in members.list("messages")?.into_iter().flatten().enumerate() {
        messages
            .push(read_message(message).map_err(|what| wrong("llm", &format!("`messages[{i}]` {what}")))?);
    }
    if let Some(template) = members.text("template")? {
        let filled = prompt::fill(template, members.object("vars")?).map_err(|what| wrong("llm", &what))?;
        messages.push(Message::new(Role::User, filled));
    }
    Ok(messages)
}

/// The messages that a recorded request of kind `llm` becomes, as `{role, content}`, the system prompt
/// first. Secrets are not in it: their places read null.
///
/// # Errors
/// The request asks for nothing that can be sent, with the reason.
pub fn messages(request: &Value) -> Result<Vec<Value>, Failure> {
    let members = Members::of("llm", request, &LLM_MEMBERS)?;
    let system = members.text("system")?.map(|text| Message::new(Role::System, text.to_owned()));
    let told = |message: Message| {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        json!({"role": role, "content": message.content})
    };
    Ok(system.into_iter().chain(rendered(&members)?).map(told).collect())
}

/// The model at a place of `fallback`.
fn fallback(models: Option<&Vec<Value>>, at: usize) -> Result<&str, Failure> {
    let model = models.and_then(|models| models.get(at)).and_then(Value::as_str);
    model.ok_or_else(|| wrong("llm", &format!("`fallback[{at}]` is no text with a model")))
}

fn read_message(message: &Value) -> Result<Message, String> {
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => return Err("has no `role` of system, user or assistant".to_owned()),
    };
    let content = message.get("content").filter(|content| !content.is_null()).ok_or("has no `content`")?;
    Ok(Message::new(role, text_of(content).into_owned()))
}
