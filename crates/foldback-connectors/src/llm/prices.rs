//! What a call costs, in millionths of a dollar, by the price list that is built in.
//!
//! A price is an estimate from public lists, never an invoice; where none is known, or the model
//! runs on this machine, there is none.

use genai_prices::{Calculator, ExtractRequest};
use serde_json::{Map, Value, json};

use crate::config::{Kind, Provider};

/// Where prices come from, with its version.
pub(super) const SOURCE: &str = "genai-prices 0.2.1";

/// Reads the price list, which takes some 10 ms the first time. Meant for a thread that may block.
pub(super) fn warm() {
    let _ = Calculator::bundled();
}

/// The cost of one call, from the usage as the provider gave it.
pub(super) fn micro_usd(provider: &Provider, models: &[&str], usage: &Map<String, Value>) -> Option<u64> {
    if provider.is_loopback && provider.prices.is_none() {
        return None;
    }
    models.iter().find_map(|model| {
        let body = match provider.kind {
            Kind::Gemini => json!({"modelVersion": model, "usageMetadata": usage}),
            _ => json!({"model": model, "usage": usage}),
        };
        let request = ExtractRequest::from_value(&body);
        let request = match provider.kind {
            Kind::Openai if let Some(whose) = &provider.prices => {
                request.with_provider_id(whose).with_api_flavor("chat")
            }
            Kind::Openai if provider.is_official => {
                request.with_provider_id("openai").with_api_flavor("chat")
            }
            // Another server with OpenAI's protocol: known by its address, or not at all.
            Kind::Openai => request.with_provider_api_url(&provider.base_url).with_api_flavor("chat"),
            Kind::Anthropic => request.with_provider_id("anthropic"),
            Kind::Gemini => request.with_provider_id("google"),
            Kind::Ollama | Kind::Scripted(_) => return None,
        };
        let used = Calculator::bundled().extract_usage(&request).ok()?;
        let price = Calculator::bundled().calculate(&used.price_request()?).ok()?.total_price;
        (price.is_finite() && price >= 0.0).then(|| (price * 1e6).round() as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn cost(provider: &str, model: &str, usage: Value) -> Option<u64> {
        let config = Config::default();
        let usage = usage.as_object().cloned().unwrap_or_default();
        micro_usd(&config.providers[provider], &[model], &usage)
    }

    #[test]
    fn prices_are_known_for_the_great_ones() {
        let openai = json!({"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000});
        assert_eq!(cost("openai", "gpt-4o-mini", openai.clone()), Some(150_000));
        assert_eq!(cost("openai", "no-such-model", openai), None);
        let anthropic = json!({"input_tokens": 1_000, "output_tokens": 1_000});
        assert_eq!(cost("anthropic", "claude-3-5-haiku-20241022", anthropic), Some(4_800));
        let gemini =
            json!({"promptTokenCount": 1_000_000, "candidatesTokenCount": 0, "totalTokenCount": 1_000_000});
        assert_eq!(cost("gemini", "gemini-2.5-flash", gemini), Some(300_000));
        assert_eq!(cost("ollama", "llama3", json!({"prompt_tokens": 1})), None);
    }

    #[test]
    fn the_source_names_the_version_that_is_built_in() {
        let lock = include_str!("../../../../Cargo.lock");
        let at = lock.find("name = \"genai-prices\"").expect("a dependency");
        let version = lock[at..].lines().nth(1).expect("a version");
        assert_eq!(version, format!("version = \"{}\"", SOURCE.trim_start_matches("genai-prices ")));
    }
}
