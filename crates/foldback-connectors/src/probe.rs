//! What `doctor` tells of providers: how each is set up, and whether it answers.

use std::time::Duration;

use foldback_core::limits;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::config::{Config, Kind, ModelProblem, Provider, under};
use crate::web;

/// How long a provider may take to answer a probe.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a provider is set up. Holds the name of its key's variable, never the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderStatus {
    /// The name in `provider/model`.
    pub name: String,
    /// `openai`, `anthropic`, `gemini`, `ollama` or `scripted`.
    pub kind: String,
    /// Where it is asked; for a scripted one, its file.
    pub base_url: String,
    /// The environment variable that holds its key, where it uses one.
    pub api_key_env: Option<String>,
    /// Whether that variable is set.
    pub is_key_set: bool,
    /// Why that key is not sent, and what to do, where the configuration may not say so.
    pub withheld: Option<ModelProblem>,
}

/// All providers of a configuration, by name.
pub fn providers(config: &Config) -> Vec<ProviderStatus> {
    let status = |provider: &Provider| ProviderStatus {
        name: provider.name.clone(),
        kind: provider.kind.name().to_owned(),
        base_url: provider.base_url.clone(),
        api_key_env: provider.api_key_env.clone(),
        is_key_set: provider.key_if_set().is_some(),
        withheld: provider.withheld(),
    };
    config.providers.values().map(|provider| status(provider)).collect()
}

/// Asks a provider for its models, with its key where it is set: one line for a person either way.
///
/// # Errors
/// It did not answer within two seconds, or refused.
pub async fn probe(status: &ProviderStatus) -> Result<String, String> {
    if status.kind == Kind::SCRIPTED {
        let is_there = std::path::Path::new(&status.base_url).is_file();
        return if is_there {
            Ok("scripted answers".to_owned())
        } else {
            Err(format!("{} is missing", status.base_url))
        };
    }
    if let Some(problem) = &status.withheld {
        return Err(problem.message.clone());
    }
    let key = status.api_key_env.as_deref().and_then(crate::config::variable);
    let (path, header) = match status.kind.as_str() {
        "ollama" => ("api/tags", None),
        "anthropic" => ("models", key.map(|key| ("x-api-key", key))),
        "gemini" => ("models", key.map(|key| ("x-goog-api-key", key))),
        _ => ("models", key.map(|key| ("authorization", format!("Bearer {key}")))),
    };
    let client = web::pooled()?;
    let mut request = client.get(under(&status.base_url, path)).timeout(PATIENCE);
    if status.kind == "anthropic" {
        request = request.header("anthropic-version", "2023-06-01");
    }
    if let Some((name, value)) = header {
        let mut value =
            HeaderValue::from_str(&value).map_err(|_| format!("{} holds no key", variable_of(status)))?;
        value.set_sensitive(true);
        request = request.header(HeaderName::from_static(name), value);
    }
    let response = request.send().await.map_err(|error| format!("not reachable: {}", web::cause(&error)))?;
    let code = response.status().as_u16();
    match code {
        200..=299 => Ok(models(response).await),
        401 | 403 if !status.is_key_set => {
            Err(format!("reachable; answers {code}, as {} is not set", variable_of(status)))
        }
        401 | 403 => Err(format!("reachable; refuses the key in {} ({code})", variable_of(status))),
        // Some servers answer calls and list nothing.
        404 | 405 | 501 => Ok(format!("reachable, lists no models ({code} at {path})")),
        _ => Err(format!("answers {code} at {path}")),
    }
}

fn variable_of(status: &ProviderStatus) -> &str {
    status.api_key_env.as_deref().unwrap_or("`api_key_env`")
}

/// A list of models, as far as it is not longer than an answer may be.
async fn list(mut response: reqwest::Response) -> Option<Value> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.ok()? {
        if bytes.len() + piece.len() > limits::STEP_OUTPUT_MAX_BYTES {
            return None;
        }
        bytes.extend_from_slice(&piece);
    }
    serde_json::from_slice(&bytes).ok()
}

async fn models(response: reqwest::Response) -> String {
    let list: Option<Value> = list(response).await;
    let count =
        |name: &str| list.as_ref().and_then(|list| list.get(name)).and_then(Value::as_array).map(Vec::len);
    match count("data").or_else(|| count("models")) {
        Some(n) => format!("reachable, {n} model{}", if n == 1 { "" } else { "s" }),
        None => "reachable".to_owned(),
    }
}
