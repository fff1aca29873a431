//! What a call costs, in millionths of a dollar: by the prices that `foldback.toml` gives a
//! provider, or by the price list that is built in.
//!
//! A price from public lists is an estimate, never an invoice; where none is known, or the model
//! runs on this machine, there is none.

use std::collections::BTreeMap;

use genai_prices::{Calculator, ExtractRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::{Kind, Provider};

/// Where prices come from, with its version.
pub(super) const SOURCE: &str = "genai-prices 0.2.1";

/// Where prices come from that a person gave.
const OWN: &str = "foldback.toml";

/// By what a provider is priced, where its address does not say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Prices {
    /// The list of another provider, in the words of the price list.
    List(String),
    /// Prices of its own.
    Own(OwnPrices),
}

/// Prices for all models of a provider, and for single ones by name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnPrices {
    input_usd_per_million_tokens: Option<f64>,
    output_usd_per_million_tokens: Option<f64>,
    #[serde(default)]
    models: BTreeMap<String, OwnPrice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnPrice {
    input_usd_per_million_tokens: f64,
    output_usd_per_million_tokens: f64,
}

impl Prices {
    /// Reads prices: a word, or a table.
    ///
    /// # Errors
    /// A list that there is not; a price that is none, or half of one: what is wrong, and what to do.
    pub(crate) fn read(value: toml::Value) -> Result<Prices, (String, String)> {
        let hint = || {
            "dollars for a million tokens, input_usd_per_million_tokens = 0.15 and output_usd_per_million_tokens = \
             0.60, under [providers.NAME.prices] or [providers.NAME.prices.models.\"MODEL\"]"
                .to_owned()
        };
        let own = match value {
            toml::Value::String(whose) => {
                let calculator = Calculator::bundled();
                if matches!(calculator.find_provider(Some(&whose), None), Ok(Some(_))) {
                    return Ok(Prices::List(whose));
                }
                let known: Vec<&str> = calculator.providers().map(|known| known.id()).collect();
                let hint = format!("one of {}; or a table of your own: {}", known.join(", "), hint());
                return Err(("`prices` names no price list".to_owned(), hint));
            }
            table => table.try_into::<OwnPrices>().map_err(|why| {
                (format!("`prices`: {}", crate::config::without_values(why.message())), hint())
            })?,
        };
        let general = match (own.input_usd_per_million_tokens, own.output_usd_per_million_tokens) {
            (Some(input), Some(output)) => Some((input, output)),
            (None, None) if !own.models.is_empty() => None,
            _ => return Err(("`prices` needs a price for input and one for output".to_owned(), hint())),
        };
        let single =
            own.models.values().map(|p| (p.input_usd_per_million_tokens, p.output_usd_per_million_tokens));
        let is_price = |price: f64| (0.0..=1e9).contains(&price);
        if !general.into_iter().chain(single).all(|(input, output)| is_price(input) && is_price(output)) {
            return Err(("`prices` holds a number that is no price".to_owned(), hint()));
        }
        Ok(Prices::Own(own))
    }
}

impl OwnPrices {
    /// The prices of the first of these models that has one: of input and of output.
    fn of(&self, models: &[&str]) -> Option<(f64, f64)> {
        let single = models.iter().find_map(|model| self.models.get(*model));
        match single {
            Some(price) => Some((price.input_usd_per_million_tokens, price.output_usd_per_million_tokens)),
            None => self.input_usd_per_million_tokens.zip(self.output_usd_per_million_tokens),
        }
    }
}

/// Reads the price list, which takes some 10 ms the first time. Meant for a thread that may block.
pub(super) fn warm() {
    let _ = Calculator::bundled();
}

/// The cost of one call and where its price comes from. `usage` is in the provider's words, `tokens`
/// what was read and written.
pub(super) fn of(
    provider: &Provider,
    models: &[&str],
    usage: &Map<String, Value>,
    (input, output): (u64, u64),
) -> Option<(u64, String)> {
    if let Some(Prices::Own(own)) = &provider.prices {
        let (of_input, of_output) = own.of(models)?;
        // Dollars for a million tokens are millionths of a dollar for one.
        let micro_usd = (input as f64 * of_input + output as f64 * of_output).round();
        return Some((micro_usd as u64, OWN.to_owned()));
    }
    listed(provider, models, usage).map(|micro_usd| (micro_usd, SOURCE.to_owned()))
}

fn listed(provider: &Provider, models: &[&str], usage: &Map<String, Value>) -> Option<u64> {
    let whose = match &provider.prices {
        Some(Prices::List(whose)) => Some(whose),
        Some(Prices::Own(_)) => return None,
        None if provider.is_loopback => return None,
        None => None,
    };
    models.iter().find_map(|model| {
        let body = match provider.kind {
            Kind::Gemini => json!({"modelVersion": model, "usageMetadata": usage}),
            _ => json!({"model": model, "usage": usage}),
        };
        let request = ExtractRequest::from_value(&body);
        let request = match provider.kind {
            Kind::Openai if let Some(whose) = whose => {
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

/// What so many tokens, read and written, cost of a model that nobody asks here.
pub(crate) fn estimate(provider: &Provider, model: &str, (input, output): (u64, u64)) -> Option<u64> {
    let words = match provider.kind {
        Kind::Gemini => ["promptTokenCount", "candidatesTokenCount"],
        Kind::Anthropic => ["input_tokens", "output_tokens"],
        Kind::Openai | Kind::Ollama | Kind::Scripted(_) => ["prompt_tokens", "completion_tokens"],
    };
    let usage = words.iter().zip([input, output]);
    let usage = usage.map(|(name, tokens)| ((*name).to_owned(), Value::from(tokens))).collect();
    of(provider, &[model], &usage, (input, output)).map(|(micro_usd, _)| micro_usd)
}

/// Whether the price of a model is known before it is asked.
pub(crate) fn is_priced(provider: &Provider, model: &str) -> bool {
    estimate(provider, model, (1_000_000, 1_000_000)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn cost(provider: &str, model: &str, usage: Value) -> Option<u64> {
        let config = Config::default();
        let usage = usage.as_object().cloned().unwrap_or_default();
        listed(&config.providers[provider], &[model], &usage)
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
        let config = Config::default();
        for (provider, model, expected) in [
            ("openai", "gpt-4o-mini", true),
            ("openai", "no-such-model", false),
            ("anthropic", "claude-3-5-haiku-20241022", true),
            ("gemini", "gemini-2.5-flash", true),
            ("ollama", "llama3", false),
        ] {
            assert_eq!(is_priced(&config.providers[provider], model), expected, "{provider}/{model}");
        }
    }

    #[test]
    fn the_source_names_the_version_that_is_built_in() {
        let lock = include_str!("../../../../Cargo.lock");
        let at = lock.find("name = \"genai-prices\"").expect("a dependency");
        let version = lock[at..].lines().nth(1).expect("a version");
        assert_eq!(version, format!("version = \"{}\"", SOURCE.trim_start_matches("genai-prices ")));
    }
}
