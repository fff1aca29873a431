//! Foldback's step kinds: `http`, `llm`, `shell`, `script`, and `noop`.
//!
//! This is where the engine's work touches the world. A kind takes a [`Call`](foldback_engine::kind::Call),
//! does one attempt, and says what is known of it: done, failed, rejected, or unknown, and never a
//! guess. It never retries (the engine's, by policy, and a fact in the log), never writes to the
//! log, and never lets a secret or a key into what it gives back (`veil`).
//!
//! The rooms: `config` (whom can be asked, and where), `veil` (secrets in, never out), `web` (the
//! clients of all), `http`, `llm`, `process` (the kinds).

mod config;
mod http;
mod llm;
mod noop;
mod probe;
mod process;
mod request;
mod veil;
mod web;

use std::sync::Arc;

use foldback_engine::Registry;

pub use config::{Config, ConfigError, ModelProblem, check_model};
pub use llm::{Answer, Asking, Attachment, ChatRequest, Message, Model, ModelError, Role};
pub use probe::{ProviderStatus, probe, providers};
pub use process::end_all as end_processes;

use veil::Veiled;

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
        .with("http", Veiled(Arc::new(http::Http::new(config))))
        .with(LLM_KIND, Veiled(Arc::new(llm::Llm::new(config))))
        .with("shell", Veiled(Arc::new(process::Shell { keys: keys.clone() })))
        .with("script", Veiled(Arc::new(process::Script { keys })))
        .with("noop", Veiled(Arc::new(noop::Noop)))
}
