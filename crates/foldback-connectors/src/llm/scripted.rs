//! The provider kind `scripted`: answers by rule, from a file. For tests of pipelines, where it is
//! configured by name; nothing falls back to it.
//!
//! The file is TOML (`[[rules]]`) or JSON (`{"rules": [...]}`, or the list itself). The first rule
//! that holds and is not used up answers; where none holds, the call fails and says so. An error of the
//! file names its place and quotes nothing of it: it may be another file than was meant.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldback_core::step::error_type;
use foldback_core::{Failure, Usage};
use foldback_engine::kind::Progress;
use serde::Deserialize;
use serde_json::Value;

use super::ending::settle;
use super::heard::Heard;
use super::model::{Asking, ChatRequest, Model, ModelError};
use crate::request::text_of;

/// The rules of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(Arc<Vec<Rule>>);

/// When a rule holds, and what it answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// A text that the instructions or a message must contain; none holds always.
    #[serde(default)]
    contains: Option<String>,
    /// The model that must be asked for; none holds for any.
    #[serde(default)]
    model: Option<String>,
    /// The answer: a text, or other JSON as its text. For an error its detail.
    #[serde(default)]
    answer: Value,
    /// An HTTP-like status of 400 or more makes it an error.
    #[serde(default)]
    status: Option<u16>,
    /// How long the answer takes, in ms.
    #[serde(default)]
    delay_ms: u64,
    /// How often the rule can be used in one process; none is always.
    #[serde(default)]
    times: Option<u32>,
    /// What an error asks to wait, in ms.
    #[serde(default)]
    retry_after_ms: Option<u64>,
    /// Why the answer stopped; `stop` where not given.
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    rules: Vec<Rule>,
}

impl Rules {
    /// Reads a file of rules: JSON by its ending, else TOML.
    pub(crate) fn load(path: &Path) -> Result<Rules, String> {
        let is_json = path.extension().is_some_and(|ending| ending == "json");
        let rules = crate::config::read_bounded(path).and_then(|text| Rules::parse(&text, is_json));
        rules.map_err(|why| format!("{}: {why}", path.display()))
    }

    /// Reads rules from their text, JSON or TOML.
    pub(crate) fn parse(text: &str, is_json: bool) -> Result<Rules, String> {
        let line = |at: usize| text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        let rules = if is_json {
            let list: Result<Vec<Rule>, _> = serde_json::from_str(text);
            list.or_else(|_| serde_json::from_str(text).map(|file: RuleFile| file.rules))
                .map_err(|why| (why.line(), why.to_string()))
        } else {
            let file: Result<RuleFile, toml::de::Error> = toml::from_str(text);
            file.map(|file| file.rules)
                .map_err(|why| (line(why.span().map_or(0, |span| span.start)), why.message().to_owned()))
        };
        let rules = rules.map_err(|(line, why)| format!("line {line}: {}", unquoted(&why)));
        rules.map(|rules| Rules(Arc::new(rules)))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// A parser's message without anything of what it read: what is expected, where it says so.
fn unquoted(message: &str) -> String {
    let quoting = ["invalid type", "invalid value", "invalid length", "unknown field", "unknown variant"];
    let message = message.rsplit_once(" at line ").map_or(message, |(words, _)| words);
    // The name of a field that is missing is one of ours. What is expected stands last, and is ours too.
    match (message.starts_with("missing field"), message.rsplit_once(", expected ")) {
        (true, _) => message.to_owned(),
        (false, Some((_, expected))) if quoting.iter().any(|start| message.starts_with(start)) => {
            format!("expected {expected}")
        }
        (false, _) => "it cannot be read as rules".to_owned(),
    }
}

/// A model that answers by rule.
pub(super) struct Scripted {
    rules: Rules,
    /// How often each rule was used.
    uses: Mutex<Vec<u32>>,
}

impl Scripted {
    pub(super) fn new(rules: Rules) -> Scripted {
        let uses = Mutex::new(vec![0; rules.0.len()]);
        Scripted { rules, uses }
    }

    fn choose(&self, request: &ChatRequest) -> Option<Rule> {
        let texts = || request.system.iter().chain(request.messages.iter().map(|message| &message.content));
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |rule: &Rule| {
            rule.model.as_ref().is_none_or(|model| *model == request.model)
                && rule.contains.as_ref().is_none_or(|part| texts().any(|text| text.contains(part)))
        };
        let is_left = |rule: &Rule, used: u32| rule.times.is_none_or(|times| used < times);
        let at = self
            .rules
            .0
            .iter()
            .zip(uses.iter())
            .position(|(rule, used)| holds(rule) && is_left(rule, *used))?;
        uses[at] += 1;
        Some(self.rules.0[at].clone())
    }
}

impl Model for Scripted {
    fn ask(&self, request: ChatRequest, tokens: Progress) -> Asking<'_> {
        Box::pin(async move {
            let rule = self.choose(&request).ok_or_else(|| {
                let detail = format!("no rule holds for this request to `{}`", request.model);
                ModelError::from(Failure::new(error_type::CONFIGURATION, 400, "No scripted answer", detail))
            })?;
            tokio::time::sleep(Duration::from_millis(rule.delay_ms)).await;
            let text = text_of(&rule.answer).into_owned();
            if let Some(status) = rule.status.filter(|status| *status >= 400) {
                let error = Failure::new(error_type::COMMUNICATION, status, "Scripted error", text);
                let retry_after_ms = rule.retry_after_ms;
                return Err(ModelError::Failed { error: Box::new(error), retry_after_ms, usage: None });
            }
            for piece in text.split_inclusive(' ') {
                tokens(piece);
            }
            let words = |text: &str| text.split_whitespace().count() as u64;
            let finish_reason = rule.finish_reason.unwrap_or_else(|| "stop".to_owned());
            let usage = Usage {
                model: request.model,
                input_tokens: request.messages.iter().map(|message| words(&message.content)).sum(),
                output_tokens: words(&text),
                finish_reason: Some(finish_reason.clone()),
                ..Usage::default()
            };
            let heard = Heard { text, finish_reason: Some(finish_reason), ..Heard::default() };
            settle(heard, usage, "the scripted provider")
        })
    }
}
