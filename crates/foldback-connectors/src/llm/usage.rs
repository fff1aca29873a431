//! What a call used: as its provider tells it, and where it does not, estimated and marked as such,
//! so that no budget is passed in silence. A number that cannot be is as good as none: it would use up every
//! budget for ever. It never judges the answer.

use foldback_core::{Usage, limits};
use serde_json::{Map, Value};

use super::dialect::Dialect;
use super::heard::Heard;
use super::model::ChatRequest;
use super::prices;
use crate::config::Provider;

/// Bytes of text that are estimated as one token. English has some four, source code and other
/// languages fewer: an estimate is rather too low than a bill.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens that an image or a document is estimated as.
const ATTACHMENT_TOKENS: u64 = 1_000;

/// What was asked, as far as it counts.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) model: String,
    tokens: u64,
}

impl Asked {
    pub(super) fn of(question: &ChatRequest) -> Asked {
        let system = question.system.as_deref().map_or(0, str::len);
        let schema = question.schema.as_ref().map_or(0, |schema| schema.to_string().len());
        let said: usize = question.messages.iter().map(|message| message.content.len()).sum();
        let shown: usize = question.messages.iter().map(|message| message.attachments.len()).sum();
        let tokens = estimate(system + schema + said) + shown as u64 * ATTACHMENT_TOKENS;
        Asked { model: question.model.clone(), tokens }
    }
}

fn estimate(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_PER_TOKEN)
}

/// The usage of a call. Where its answer broke off, what the provider told is what it had told by
/// then: of the output it counts at least what came.
pub(super) fn of(
    provider: &Provider,
    dialect: Dialect,
    asked: &Asked,
    heard: &Heard,
    is_broken: bool,
) -> Usage {
    let told = heard.usage.as_ref().map_or((None, None), |usage| told(dialect, usage));
    let came = estimate(heard.text.len() + heard.thoughts.len() + heard.refusal.len());
    let input = told.0.unwrap_or(asked.tokens);
    let output = match told.1 {
        Some(output) if is_broken => output.max(came),
        Some(output) => output,
        None => came,
    };
    let is_estimated = told.0.is_none() || told.1.unwrap_or(0) != output;
    let model = heard.model.clone().unwrap_or_else(|| asked.model.clone());
    let price = prices::of(
        provider,
        &[&model, &asked.model],
        &counted(dialect, heard, input, output),
        (input, output),
    );
    Usage {
        model,
        input_tokens: input,
        output_tokens: output,
        micro_usd: price.as_ref().map(|(micro_usd, _)| *micro_usd),
        price_source: price.map(|(_, source)| source),
        finish_reason: heard.finish_reason.clone(),
        raw: heard.usage.clone().map(Value::Object),
        is_estimated,
        ..Usage::default()
    }
}

/// The members of a usage, in a provider's words, that are added up to what was read and to what was
/// written; where none of the first is there, those of the second.
type Words = [&'static [&'static str]; 2];

fn words(dialect: Dialect) -> (Words, Words) {
    match dialect {
        Dialect::Openai => {
            ([&["prompt_tokens"], &["input_tokens"]], [&["completion_tokens"], &["output_tokens"]])
        }
        // What is read from the cache, or written to it, is not part of the first.
        Dialect::Anthropic => (
            [&["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"], &[]],
            [&["output_tokens"], &[]],
        ),
        // Nor are thoughts part of what the candidates are.
        Dialect::Gemini => (
            [&["promptTokenCount", "toolUsePromptTokenCount"], &[]],
            [&["candidatesTokenCount", "thoughtsTokenCount"], &[]],
        ),
    }
}

/// The tokens that a provider says were read and written, as far as that can be.
fn told(dialect: Dialect, usage: &Map<String, Value>) -> (Option<u64>, Option<u64>) {
    let sum = |names: &[&str]| {
        let counts = names.iter().filter_map(|name| usage.get(*name).and_then(Value::as_u64));
        counts.fold(None, |sum: Option<u64>, count| Some(sum.unwrap_or(0).saturating_add(count)))
    };
    let of = |[first, second]: Words| {
        let told = sum(first).or_else(|| sum(second));
        told.filter(|tokens| *tokens <= limits::CALL_MAX_TOKENS)
    };
    let (reads, writes) = words(dialect);
    (of(reads), of(writes))
}

/// The usage in the provider's words, with what is estimated filled in: price lists read these.
fn counted(dialect: Dialect, heard: &Heard, input: u64, output: u64) -> Map<String, Value> {
    let mut usage = heard.usage.clone().unwrap_or_default();
    let told = told(dialect, &usage);
    let (reads, writes) = words(dialect);
    if told.0.is_none() {
        count(&mut usage, reads, input);
    }
    if told.1 != Some(output) {
        count(&mut usage, writes, output);
    }
    keep_parts(&mut usage, input.saturating_add(output));
    usage
}

/// Puts one number in the place of those that a provider told.
fn count(usage: &mut Map<String, Value>, [first, second]: Words, tokens: u64) {
    for name in first.iter().chain(second) {
        usage.remove(*name);
    }
    if let Some(name) = first.first() {
        usage.insert((*name).to_owned(), tokens.into());
    }
}

/// Takes out numbers that are larger than the whole: none of its parts is.
fn keep_parts(usage: &mut Map<String, Value>, whole: u64) {
    usage.retain(|_, value| match value {
        Value::Object(parts) => {
            keep_parts(parts, whole);
            true
        }
        value => value.as_u64().is_none_or(|tokens| tokens <= whole),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use serde_json::json;

    #[test]
    fn what_providers_tell_as_a_table() {
        for (dialect, usage, expected) in [
            (Dialect::Openai, json!({"prompt_tokens": 7, "completion_tokens": 3}), (Some(7), Some(3))),
            (Dialect::Openai, json!({"input_tokens": 7, "output_tokens": 3}), (Some(7), Some(3))),
            (Dialect::Openai, json!({"prompt_tokens": "7"}), (None, None)),
            (
                Dialect::Anthropic,
                json!({"input_tokens": 7, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 3}),
                (Some(127), Some(3)),
            ),
            (
                Dialect::Gemini,
                json!({"promptTokenCount": 7, "candidatesTokenCount": 3, "thoughtsTokenCount": 10}),
                (Some(7), Some(13)),
            ),
            (Dialect::Gemini, json!({"promptTokenCount": 7}), (Some(7), None)),
            // What cannot be is not believed: alone, and together.
            (Dialect::Openai, json!({"prompt_tokens": u64::MAX, "completion_tokens": 3}), (None, Some(3))),
            (
                Dialect::Openai,
                json!({"prompt_tokens": 1_000_000_000, "completion_tokens": 1_000_000_001}),
                (Some(1_000_000_000), None),
            ),
            (Dialect::Openai, json!({"prompt_tokens": 1e30, "completion_tokens": -1}), (None, None)),
            (
                Dialect::Anthropic,
                json!({"input_tokens": 7, "cache_read_input_tokens": u64::MAX, "output_tokens": 3}),
                (None, Some(3)),
            ),
        ] {
            let map = usage.as_object().expect("an object");
            assert_eq!(told(dialect, map), expected, "{usage}");
        }
    }

    /// What a cut stream had told stays as it was told, and the rest of what came is added once.
    #[test]
    fn what_a_cut_stream_is_priced_with_as_a_table() {
        let config = Config::default();
        // 1,000 tokens came.
        let text = "text".repeat(1_000);
        for (name, dialect, model, usage, output, micro_usd) in [
            (
                "gemini",
                Dialect::Gemini,
                "gemini-2.5-flash",
                json!({"promptTokenCount": 1_000, "candidatesTokenCount": 1, "thoughtsTokenCount": 500}),
                1_000,
                2_800,
            ),
            // More was thought than came.
            (
                "gemini",
                Dialect::Gemini,
                "gemini-2.5-flash",
                json!({"promptTokenCount": 1_000, "thoughtsTokenCount": 2_000}),
                2_000,
                5_300,
            ),
            (
                "gemini",
                Dialect::Gemini,
                "gemini-2.5-flash",
                json!({"promptTokenCount": 1_000, "candidatesTokenCount": 1}),
                1_000,
                2_800,
            ),
            (
                "openai",
                Dialect::Openai,
                "gpt-4o-mini",
                json!({"prompt_tokens": 1_000, "completion_tokens": 1}),
                1_000,
                750,
            ),
            (
                "anthropic",
                Dialect::Anthropic,
                "claude-3-5-haiku-20241022",
                json!({"input_tokens": 1_000, "output_tokens": 1}),
                1_000,
                4_800,
            ),
        ] {
            let asked = Asked { model: model.to_owned(), tokens: 7 };
            let told = usage.as_object().cloned();
            let heard = Heard { text: text.clone(), usage: told, ..Heard::default() };
            let used = of(&config.providers[name], dialect, &asked, &heard, true);
            assert_eq!(
                (used.input_tokens, used.output_tokens, used.micro_usd),
                (1_000, output, Some(micro_usd)),
                "{usage}"
            );
        }
    }

    /// What is not believed costs nothing either, and what is told of parts is no more than the whole.
    #[test]
    fn a_price_is_of_what_is_believed() {
        let config = crate::config::Config::default();
        let asked = Asked { model: "gpt-4o-mini".to_owned(), tokens: 1_000 };
        let cost = |usage: Value| {
            let usage = usage.as_object().cloned();
            let heard = Heard { text: "x".repeat(4_000), usage, ..Heard::default() };
            let usage = of(&config.providers["openai"], Dialect::Openai, &asked, &heard, false);
            (usage.input_tokens, usage.output_tokens, usage.is_estimated, usage.micro_usd)
        };
        let estimated = (1_000, 1_000, true, Some(750));
        assert_eq!(cost(json!({})), estimated);
        let all = u64::MAX;
        let huge = json!({"prompt_tokens": all, "completion_tokens": all, "total_tokens": all,
            "prompt_tokens_details": {"cached_tokens": all}, "completion_tokens_details": {"reasoning_tokens": all}});
        assert_eq!(cost(huge), estimated);
        let parts = json!({"prompt_tokens": 1_000, "completion_tokens": 1_000,
            "prompt_tokens_details": {"cached_tokens": all, "audio_tokens": all}});
        assert_eq!(cost(parts), (1_000, 1_000, false, Some(750)));
    }
}
