//! Models behind a network, through `genai`.
//!
//! What the library leaves open is settled here: an answer counts as complete only where the
//! provider said why it stopped (a stream that is cut looks like an end to some of its adapters);
//! a server on loopback needs no key; a model's name is sent as it was written; Ollama is spoken to
//! by its OpenAI-compatible side, which knows schemas; a server that does not stream is asked
//! again without.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use foldback_core::step::error_type;
use foldback_core::{Failure, Usage, limits};
use foldback_engine::kind::Progress;
use foldback_engine::veil::{Flow, Veil};
use futures_util::StreamExt;
use genai::adapter::AdapterKind;
use genai::chat::{
    Binary, ChatMessage, ChatOptions, ChatStreamEvent, ContentPart, JsonSpec, ReasoningEffort,
};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, Headers, ModelIden, ServiceTarget};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::ending::settle;
use super::frames::{Frames, Seen};
use super::model::{Answer, Asking, Attachment, ChatRequest, Message, Model, ModelError, Role};
use super::prices;
use super::trouble::status_of;
use crate::config::{Kind, Provider, under};
use crate::request::wrong;
use crate::web;

/// A provider's models.
pub(super) struct Remote {
    pub(super) provider: Arc<Provider>,
    /// Set once the server was seen not to stream.
    is_plain: AtomicBool,
}

impl Model for Remote {
    fn ask(&self, request: ChatRequest, tokens: Progress) -> Asking<'_> {
        Box::pin(async move {
            let key = self.provider.key().map_err(|problem| wrong("llm", &problem.to_string()))?;
            let shown = format!("[{}]", self.provider.api_key_env.as_deref().unwrap_or("key"));
            let veil = key.iter().fold(Veil::default(), |veil, key| veil.hide(key, &shown));
            let veil = Arc::new(veil);
            let flow = Flow::new(veil.clone(), tokens);
            let conversed = self.converse(request, key, &flow.progress()).await;
            flow.end();
            match conversed {
                Ok(Answer { text, usage, called, is_cut }) => Ok(Answer {
                    text: veil.text(&text).into_owned(),
                    usage: veil.usage(usage),
                    called: called.map(|name| veil.text(&name).into_owned()),
                    is_cut,
                }),
                Err(ModelError::Unknown { reason }) => {
                    Err(ModelError::Unknown { reason: veil.text(&reason).into_owned() })
                }
                Err(ModelError::Failed { error, retry_after_ms, usage }) => {
                    let error = Box::new(veil.failure(*error));
                    let usage = usage.map(|usage| Box::new(veil.usage(*usage)));
                    Err(ModelError::Failed { error, retry_after_ms, usage })
                }
                Err(ModelError::NobodyThere { error }) => {
                    Err(ModelError::NobodyThere { error: Box::new(veil.failure(*error)) })
                }
            }
        })
    }
}

/// The library's client over ours: one pool, one cryptography.
fn client() -> Result<&'static Client, ModelError> {
    static CLIENT: OnceLock<Result<Client, String>> = OnceLock::new();
    let build = || {
        let reqwest = web::pooled()?.clone();
        Client::builder().with_reqwest(reqwest).build().map_err(|why| why.to_string())
    };
    let built = CLIENT.get_or_init(build);
    built
        .as_ref()
        .map_err(|why| Failure::new(error_type::CONFIGURATION, 500, "No HTTP client", why.clone()).into())
}

impl Remote {
    pub(super) fn new(provider: Arc<Provider>) -> Remote {
        let is_plain = AtomicBool::new(!provider.streams);
        Remote { provider, is_plain }
    }

    async fn converse(
        &self,
        request: ChatRequest,
        key: Option<String>,
        tokens: &Progress,
    ) -> Result<Answer, ModelError> {
        static WARM: OnceLock<()> = OnceLock::new();
        WARM.get_or_init(|| drop(tokio::task::spawn_blocking(prices::warm)));
        let target = self.target(&request.model, key);
        let options = options(&request, target.model.adapter_kind);
        let name = request.model.clone();
        let chat = conversation(request);
        if !self.is_plain.load(Ordering::Relaxed) {
            let streamed = self.stream(target.clone(), chat.clone(), options.clone(), &name, tokens).await?;
            if let Some(answer) = streamed {
                return Ok(answer);
            }
            // The server answered without one event: it does not know streaming. One call is lost
            // to find out, once in a process; `stream = false` in foldback.toml spares it.
            self.is_plain.store(true, Ordering::Relaxed);
        }
        self.whole(target, chat, options, &name, tokens).await
    }

    /// Asks with streaming. `None` is a complete answer that holds no event.
    async fn stream(
        &self,
        target: ServiceTarget,
        chat: genai::chat::ChatRequest,
        options: ChatOptions,
        name: &str,
        tokens: &Progress,
    ) -> Result<Option<Answer>, ModelError> {
        let frames = Arc::new(Frames::default());
        let options = options.with_raw_frame_sink_arc(frames.clone());
        let asked = client()?.exec_chat_stream(target, chat, Some(&options)).await;
        let mut stream = asked.map_err(|error| self.explain(&error, name))?.stream;
        let (mut text, mut end) = (String::new(), None);
        while let Some(event) = stream.next().await {
            match event {
                Ok(ChatStreamEvent::Chunk(piece)) => {
                    text.push_str(&piece.content);
                    bounded(&text)?;
                    tokens(&piece.content);
                }
                Ok(ChatStreamEvent::End(ended)) => {
                    end = Some(ended);
                    break;
                }
                Ok(_) => {}
                // A part of a block that is no text (a tool's arguments, a citation): the library
                // stumbles over it and can go on.
                Err(genai::Error::JsonValueExt(_)) if frames.seen().is_foreign => {}
                // The library knows no blocked prompt; the frame said it.
                Err(genai::Error::ChatResponse { .. }) if frames.seen().blocked.is_some() => break,
                Err(error) => return Err(self.explain(&error, name)),
            }
        }
        let mut seen = std::mem::take(&mut *frames.seen());
        if let Some(error) = &seen.error {
            return Err(self.refusal(status_of(error), &HeaderMap::new(), &error.to_string(), name));
        }
        if seen.frames == 0 && seen.blanks > 0 && text.is_empty() {
            return Ok(None);
        }
        let reason = end
            .as_ref()
            .and_then(|end| end.captured_stop_reason.as_ref())
            .map(|reason| reason.raw().to_owned());
        seen.finish_reason = seen.finish_reason.or(reason);
        // Gemini's adapter makes up an end where the stream is cut; OpenAI's ends with `[DONE]`,
        // which not every server sends.
        let is_complete = seen.finish_reason.is_some()
            || seen.blocked.is_some()
            || (end.is_some() && !matches!(self.provider.kind, Kind::Gemini));
        if !is_complete {
            let reason =
                format!("{}: the answer broke off after {} characters", self.place(), text.chars().count());
            return Err(ModelError::Unknown { reason });
        }
        let used = end.and_then(|end| end.captured_usage);
        self.answer(text, &seen, used.as_ref(), name).map(Some)
    }

    /// Asks without streaming.
    async fn whole(
        &self,
        target: ServiceTarget,
        chat: genai::chat::ChatRequest,
        options: ChatOptions,
        name: &str,
        tokens: &Progress,
    ) -> Result<Answer, ModelError> {
        let options = options.with_capture_raw_body(true);
        let asked = client()?.exec_chat(target, chat, Some(&options)).await;
        let mut seen = Seen::default();
        if let Err(genai::Error::ChatResponseGeneration { response_body, .. }) = &asked {
            // The library knows no blocked prompt; the body says it.
            seen.take(response_body);
            if seen.blocked.is_some() {
                return self.answer(String::new(), &seen, None, name);
            }
        }
        let answered = asked.map_err(|error| self.explain(&error, name))?;
        let text = answered.content.joined_texts().unwrap_or_default();
        bounded(&text)?;
        tokens(&text);
        if let Some(body) = &answered.captured_raw_body {
            seen.take(body);
        }
        self.answer(text, &seen, Some(&answered.usage), name)
    }

    fn answer(
        &self,
        text: String,
        seen: &Seen,
        used: Option<&genai::chat::Usage>,
        name: &str,
    ) -> Result<Answer, ModelError> {
        let count = |n: Option<i32>| n.and_then(|n| u64::try_from(n).ok());
        let input = used.and_then(|used| count(used.prompt_tokens));
        let output = used.and_then(|used| count(used.completion_tokens));
        let input = input.or_else(|| seen.tokens(&["prompt_tokens", "input_tokens", "promptTokenCount"]));
        let output =
            output.or_else(|| seen.tokens(&["completion_tokens", "output_tokens", "candidatesTokenCount"]));
        let model = seen.model.clone().unwrap_or_else(|| name.to_owned());
        let micro_usd =
            seen.usage.as_ref().and_then(|usage| prices::micro_usd(&self.provider, &[&model, name], usage));
        let usage = Usage {
            model,
            input_tokens: input.unwrap_or_default(),
            output_tokens: output.unwrap_or_default(),
            micro_usd,
            price_source: micro_usd.map(|_| prices::SOURCE.to_owned()),
            finish_reason: seen.finish_reason.clone(),
            raw: seen.usage.clone().map(Value::Object),
        };
        settle(text, seen, usage, &self.place())
    }

    fn target(&self, model: &str, key: Option<String>) -> ServiceTarget {
        let adapter = match self.provider.kind {
            Kind::Anthropic => AdapterKind::Anthropic,
            Kind::Gemini => AdapterKind::Gemini,
            Kind::Openai | Kind::Ollama | Kind::Scripted(_) => AdapterKind::OpenAI,
        };
        let base = self.provider.endpoint();
        let auth = match key {
            Some(key) => AuthData::from_single(key),
            // Without a key no header is sent at all: some local servers refuse a made-up one.
            None => match adapter {
                AdapterKind::Anthropic => AuthData::RequestOverride {
                    url: under(&base, "messages"),
                    headers: Headers::from([("anthropic-version".to_owned(), "2023-06-01".to_owned())]),
                },
                // The path of Gemini names the model and how it answers: the library's to write.
                AdapterKind::Gemini => AuthData::from_single(""),
                _ => AuthData::RequestOverride {
                    url: under(&base, "chat/completions"),
                    headers: Headers::default(),
                },
            },
        };
        ServiceTarget { endpoint: Endpoint::from_owned(base), auth, model: ModelIden::new(adapter, model) }
    }
}

fn bounded(text: &str) -> Result<(), ModelError> {
    if text.len() <= limits::STEP_OUTPUT_MAX_BYTES {
        return Ok(());
    }
    let detail = format!("the model wrote more than {} bytes", limits::STEP_OUTPUT_MAX_BYTES);
    Err(Failure::new(error_type::RUNTIME, 500, "Answer too long", detail).into())
}

fn options(request: &ChatRequest, adapter: AdapterKind) -> ChatOptions {
    let mut options = ChatOptions::default().with_capture_usage(true);
    options.temperature = request.temperature;
    options.seed = request.seed;
    options.max_tokens = request.max_tokens;
    if let Some(schema) = &request.schema {
        options = options.with_response_format(JsonSpec::new("answer", schema.clone()));
    }
    // The library takes an effort from a name's ending (`…-low`) and shortens the name by it. A
    // budget keeps it from that, and OpenAI's adapter sends none.
    if adapter == AdapterKind::OpenAI && ReasoningEffort::from_model_name(&request.model).0.is_some() {
        options = options.with_reasoning_effort(ReasoningEffort::Budget(0));
    }
    options
}

/// Words with what is shown along with them.
fn shown(message: Message) -> Vec<ContentPart> {
    let binary = |(at, attachment): (usize, Attachment)| {
        // Only a file has a name, and OpenAI insists on one.
        let name = (attachment.media_type == "application/pdf").then(|| format!("attachment-{}.pdf", at + 1));
        ContentPart::Binary(Binary::from_base64(attachment.media_type, attachment.base64, name))
    };
    let attachments = message.attachments.into_iter().enumerate().map(binary);
    std::iter::once(ContentPart::Text(message.content)).chain(attachments).collect()
}

fn conversation(request: ChatRequest) -> genai::chat::ChatRequest {
    let messages = request.messages.into_iter().map(|message| match message.role {
        Role::System => ChatMessage::system(message.content),
        Role::User if message.attachments.is_empty() => ChatMessage::user(message.content),
        Role::User => ChatMessage::user(shown(message)),
        Role::Assistant => ChatMessage::assistant(message.content),
    });
    let chat = genai::chat::ChatRequest::from_messages(messages.collect());
    match request.system {
        Some(system) => chat.with_system(system),
        None => chat,
    }
}
