//! Foldback's step kinds: `http`, `llm`, `shell`, `script`, and `noop`.
//!
//! This is where the engine's work touches the world. A kind takes a [`Call`](foldback_engine::kind::Call),
//! does one attempt, and says what is known of it: done, failed, rejected, or unknown, and never a
//! guess. It never retries (the engine's, by policy, and a fact in the log), never writes to the
//! log, and knows nothing of secrets: the engine fills them in, and masks what a kind gives back
//! ([`foldback_engine::veil`]).
//!
//! The rooms: `config` (whom can be asked, and where), `work` (a kind as an `async fn`), `web` (the
//! clients of all), `http`, `llm`, `process` (the kinds).

mod config;
mod http;
mod llm;
mod noop;
mod probe;
mod process;
mod proxy;
mod request;
mod web;
mod work;

use std::sync::Arc;

use foldback_engine::Registry;

pub use config::{Config, ConfigError, ModelProblem, check_model, file_inside, is_priced, price};
pub use llm::{Answer, Asking, Attachment, ChatRequest, Message, Model, ModelError, Role, messages};
pub use probe::{ProviderStatus, probe, providers};
pub use process::end_all as end_processes;

use work::Working;

/// Reads a file of scripted answers from its text, and tells how many rules it holds. For tests
/// that try any text.
#[doc(hidden)]
pub fn try_rules(text: &str, is_json: bool) -> Result<usize, String> {
    llm::Rules::parse(text, is_json).map(|rules| rules.count())
}

/// The kind of a model call.
pub const LLM_KIND: &str = "llm";

/// The kinds of this crate by their names: `http`, `llm`, `shell`, `script`, `noop`.
pub fn registry(config: &Config) -> Registry {
    web::install_cryptography();
    let keys = config.key_variables();
    Registry::default()
        .hiding(keys.iter().cloned())
        .with("http", Working(Arc::new(http::Http::new(config))))
        .with(LLM_KIND, Working(Arc::new(llm::Llm::new(config))))
        .with("shell", Working(Arc::new(process::Shell { keys: keys.clone() })))
        .with("script", Working(Arc::new(process::Script { keys })))
        .with("noop", Working(Arc::new(noop::Noop)))
}
