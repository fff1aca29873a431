//! What a model is to this crate: something that is asked, and answers piece by piece.
//!
//! The rest of the crate sees this trait and never what is sent over a network.

use std::future::Future;
use std::pin::Pin;

use foldback_core::{Failure, Usage};
use foldback_engine::kind::Progress;
use serde_json::Value;

pub use super::attachments::Attachment;

/// One question to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The model's name at its provider, without the provider.
    pub model: String,
    /// Instructions before the conversation.
    pub system: Option<String>,
    /// The conversation; the last message is the one to answer.
    pub messages: Vec<Message>,
    /// How freely the model chooses; its own default where there is none.
    pub temperature: Option<f64>,
    /// The seed of its choices, where a provider takes one.
    pub seed: Option<u64>,
    /// The most tokens it may write.
    pub max_tokens: Option<u32>,
    /// The JSON Schema that the answer is to keep to.
    pub schema: Option<Value>,
    /// How long the answer may take, in ms.
    pub timeout_ms: u64,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What is shown with it: only the one who asks shows anything.
    pub attachments: Vec<Attachment>,
}

impl Message {
    /// A message of words alone.
    pub fn new(role: Role, content: String) -> Message {
        Message { role, content, attachments: Vec::new() }
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The whole text.
    pub text: String,
    /// What the model thought, where its server tells that apart.
    pub thoughts: String,
    /// What it used, and why it stopped.
    pub usage: Usage,
    /// Whether it was cut short by a bound on its tokens.
    pub is_cut: bool,
    /// A tool that the model called, though none was given to it.
    pub called: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelError {
    /// It is known that there is none: the provider said so, or was not reached.
    Failed {
        /// Why.
        error: Box<Failure>,
        /// How long the provider asks to wait, in ms.
        retry_after_ms: Option<u64>,
        /// What the call used all the same.
        usage: Option<Box<Usage>>,
    },
    /// Nobody listens at an address on this machine: nothing was sent, and waiting rarely helps.
    NobodyThere {
        /// Why, and what to do.
        error: Box<Failure>,
    },
    /// There was no answer in time.
    OutOfTime {
        /// What is known.
        reason: String,
        /// What the call used, where an answer had begun.
        usage: Option<Box<Usage>>,
    },
    /// The connection broke: the model may have answered, and the call may have cost.
    Unknown {
        /// What is known.
        reason: String,
        /// What the call used, where an answer had begun.
        usage: Option<Box<Usage>>,
    },
}

impl From<Failure> for ModelError {
    fn from(error: Failure) -> ModelError {
        ModelError::Failed { error: Box::new(error), retry_after_ms: None, usage: None }
    }
}

/// An answer under way.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Answer, ModelError>> + Send + 'a>>;

/// Something that can be asked.
pub trait Model: Send + Sync {
    /// Asks once. `tokens` gets the pieces of the answer as they come; the answer holds the whole
    /// text again. Dropping the future ends the call.
    fn ask(&self, request: ChatRequest, tokens: Progress) -> Asking<'_>;
}
