//! Calls to models, and the configurations behind them.

use std::path::PathBuf;

use foldback_connectors::{Config, registry};
use foldback_core::Effect::Read;
use foldback_core::Outcome;
use foldback_engine::Registry;
use serde_json::{Value, json};

use super::{Server, call, perform};

/// A registry with a `foldback.toml` of this text.
pub fn configured(text: &str) -> (Registry, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let path: PathBuf = directory.path().join("foldback.toml");
    std::fs::write(&path, text).expect("a file");
    (registry(&Config::load(Some(&path)).expect("a configuration")), directory)
}

/// A registry with one provider `fake` that speaks like OpenAI at a server.
pub fn fake(server: &Server) -> Registry {
    let url = server.url("/v1");
    configured(&format!("[providers.fake]\nkind = \"openai\"\nbase_url = \"{url}\"\n")).0
}

pub async fn ask(registry: &Registry, request: Value) -> Outcome {
    perform(registry, "llm", call(request, Read).0).await
}

pub fn hello() -> Value {
    json!({"model": "fake/fake-1", "template": "Hello"})
}

pub fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"label": {"type": "string", "enum": ["a", "b"]}},
        "required": ["label"],
        "additionalProperties": false,
    })
}
