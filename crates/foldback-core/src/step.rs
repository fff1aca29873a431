//! Steps: what they do to the world, how they may be tried again, and how they end.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::detail::Detail;
use crate::hash::Hash;
use crate::key::Key;
use crate::limits;
use crate::value::Slot;

/// The members of a model call's request: what a document may say, an edit may change, and a model is asked.
pub const LLM_MEMBERS: [&str; 11] = [
    "model",
    "fallback",
    "attachments",
    "system",
    "template",
    "vars",
    "messages",
    "temperature",
    "seed",
    "max_tokens",
    "schema",
];

/// Headers that frame a message, or that belong to one connection. The HTTP client writes them; a definition that did
/// could cut its own request short.
pub const FRAMING_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Variables by which a process that a step starts knows its step.
pub const STEP_VARIABLES: [&str; 5] = [
    "FOLDBACK_WORKFLOW_ID",
    "FOLDBACK_KEY",
    "FOLDBACK_ATTEMPT",
    "FOLDBACK_ATTEMPT_NUMBER",
    "FOLDBACK_IDEMPOTENCY_KEY",
];

/// What a step does to the world. The one idea behind crash safety, forks and compensation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Computes. Running it again gives the same.
    Pure,
    /// Looks at the world, or asks a model. May answer differently next time.
    Read,
    /// Changes the world.
    Write,
}

/// What happens to a `write` whose outcome nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recovery {
    /// It is sent again under the same idempotency key.
    Retry,
    /// Tasks of the program that only look find out whether it happened.
    Reconcile,
    /// The workflow stops, visibly, until a person says what happened.
    Operator,
}

/// When a step that failed is tried again. Nothing is tried again without one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// HTTP-like statuses that are worth another attempt; empty for every failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
    /// The delay before the second attempt, in ms; it doubles with each further one.
    pub delay_ms: u64,
    /// The longest delay, in ms. What a server asks for by `retry-after` is honoured up to a day.
    pub max_delay_ms: u64,
    /// Rounds in which an answer that was rejected is shown to the step with the reason.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repairs: u32,
    /// Variants of the request beyond the first. When the attempts of one are spent the next is
    /// tried, with attempts of its own. What a variant is, only the step kind knows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub variants: u32,
    /// HTTP-like statuses after which the next variant is worth trying.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variant_statuses: Vec<u16>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_false(is: &bool) -> bool {
    !is
}

impl RetryPolicy {
    /// The policy of a model call: 429 and the errors of a server (500, 502, 503, 504) are tried again,
    /// and an answer that misses its schema has one repair round.
    pub fn model() -> RetryPolicy {
        RetryPolicy {
            attempts: 6,
            statuses: vec![429, 500, 502, 503, 504],
            delay_ms: 500,
            max_delay_ms: 60_000,
            repairs: 1,
            ..RetryPolicy::default()
        }
    }

    /// The policy of a model call that may fall back on `others` models. The next one is asked when
    /// this one cannot answer now (overload, limits, errors of the server, time, the network), is not
    /// there at all, or cannot read a prompt of this length (413); never because an answer was refused
    /// or was not liked.
    pub fn model_or(others: u32) -> RetryPolicy {
        let variant_statuses =
            if others == 0 { Vec::new() } else { vec![402, 404, 408, 413, 429, 500, 502, 503, 504] };
        RetryPolicy { variants: others, variant_statuses, ..RetryPolicy::model() }
    }

    /// The delay after attempt `attempt` (from 1), in ms: exponential, with "equal jitter" (half
    /// fixed, half by chance) where chance is a hash of the step, so that a fold needs no dice.
    pub fn delay_after(&self, attempt: u32, chance: u64) -> u64 {
        backoff_ms(self.delay_ms, self.max_delay_ms, attempt, chance)
    }
}

/// `base * 2^(attempt-1)`, at most `max`, of which the second half is scaled by `chance`.
pub fn backoff_ms(base_ms: u64, max_ms: u64, attempt: u32, chance: u64) -> u64 {
    let full = base_ms.saturating_mul(1u64 << attempt.saturating_sub(1).min(30)).min(max_ms);
    let half = full / 2;
    (half + chance % (full - half + 1)).min(limits::RETRY_DELAY_MAX_MS)
}

/// A number that looks random and is a hash of (workflow, key, attempt): the same in every fold.
pub fn chance(workflow_id: &str, key: &Key, attempt: u32) -> u64 {
    let hash =
        Hash::of_parts(&[b"chance", workflow_id.as_bytes(), key.as_str().as_bytes(), &attempt.to_le_bytes()]);
    u64::from_le_bytes(hash.0[..8].try_into().expect("a hash has 32 bytes"))
}

/// The idempotency key of a `write`: the same for all its attempts and tries, another in a fork
/// (a fork has its own id), for another request, and for what is done again after it was taken back.
pub fn idempotency_key(workflow_id: &str, key: &Key, request_hash: &Hash, generation: u32) -> String {
    let tries = key.without_tries();
    let mut parts: Vec<&[u8]> =
        vec![b"idempotency", workflow_id.as_bytes(), tries.as_bytes(), &request_hash.0];
    let generation_bytes = generation.to_le_bytes();
    if generation > 0 {
        parts.push(&generation_bytes);
    }
    let hash = Hash::of_parts(&parts);
    hash.to_hex()[..32].to_owned()
}

/// The name of one attempt, the same for each process that has its store: a hash of the store's
/// identity, the workflow, the step's key and the attempt's number.
pub fn attempt_id(store: &str, workflow_id: &str, key: &Key, attempt: u32) -> String {
    let parts: [&[u8]; 5] = [
        b"attempt",
        store.as_bytes(),
        workflow_id.as_bytes(),
        key.as_str().as_bytes(),
        &attempt.to_le_bytes(),
    ];
    Hash::of_parts(&parts).to_hex()[..32].to_owned()
}

/// Why a step or a workflow failed, in the shape of the Open Workflow Specification (RFC 7807).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// A URI that names the kind of error; see [`error_type`].
    #[serde(rename = "type")]
    pub error_type: String,
    /// An HTTP-like status.
    pub status: u16,
    /// What went wrong, in a few words.
    pub title: String,
    /// What went wrong here, and where it helps, what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
    /// A JSON pointer to the task in its definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The key of the step or task that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// Whether another attempt is known not to help, whatever a policy says of the status.
    #[serde(default, skip_serializing_if = "is_false")]
    pub non_retryable: bool,
}

/// The error types of the Open Workflow Specification 1.0.3, section "Standard Error Types".
pub mod error_type {
    /// The prefix of all of them.
    pub const PREFIX: &str = "https://open-workflow-specification.org/dsl/errors/types/";
    /// A definition or a program that cannot be run.
    pub const CONFIGURATION: &str = "https://open-workflow-specification.org/dsl/errors/types/configuration";
    /// A value that misses its schema.
    pub const VALIDATION: &str = "https://open-workflow-specification.org/dsl/errors/types/validation";
    /// An expression that could not be evaluated.
    pub const EXPRESSION: &str = "https://open-workflow-specification.org/dsl/errors/types/expression";
    /// Credentials that were refused.
    pub const AUTHENTICATION: &str =
        "https://open-workflow-specification.org/dsl/errors/types/authentication";
    /// Something that was not allowed.
    pub const AUTHORIZATION: &str = "https://open-workflow-specification.org/dsl/errors/types/authorization";
    /// Time that ran out.
    pub const TIMEOUT: &str = "https://open-workflow-specification.org/dsl/errors/types/timeout";
    /// A service that answered with an error, or not at all.
    pub const COMMUNICATION: &str = "https://open-workflow-specification.org/dsl/errors/types/communication";
    /// A loop that meets no step and no wait.
    pub const RUNAWAY: &str = "https://open-workflow-specification.org/dsl/errors/types/runaway";
    /// This machine had no room to begin (open files, processes, memory), and nothing was begun. The attempt
    /// is put off, and counts for no policy.
    pub const NO_ROOM: &str = "https://open-workflow-specification.org/dsl/errors/types/no-room";
    /// Anything else that went wrong while running.
    pub const RUNTIME: &str = "https://open-workflow-specification.org/dsl/errors/types/runtime";
    /// All of them: a definition may name each by its last segment alone, such as `timeout`.
    pub const ALL: [&str; 10] = [
        CONFIGURATION,
        VALIDATION,
        EXPRESSION,
        AUTHENTICATION,
        AUTHORIZATION,
        TIMEOUT,
        COMMUNICATION,
        RUNAWAY,
        NO_ROOM,
        RUNTIME,
    ];
}

impl Failure {
    /// A failure of a type, with its status, title and detail.
    pub fn new(error_type: &str, status: u16, title: &str, detail: impl Into<String>) -> Failure {
        Failure {
            error_type: error_type.to_owned(),
            status,
            title: title.to_owned(),
            detail: Some(Detail::from(detail.into())),
            instance: None,
            key: None,
            non_retryable: false,
        }
    }

    /// The same failure, after which no further attempt is made.
    pub fn non_retryable(mut self) -> Failure {
        self.non_retryable = true;
        self
    }

    /// The same failure at a key.
    pub fn at(mut self, key: &Key) -> Failure {
        self.key = Some(key.clone());
        self
    }

    /// The same failure with its detail as it reads: for reports, and for values that hold an error. What an
    /// event holds is not this.
    pub fn plain(&self) -> Failure {
        Failure { detail: self.detail.as_ref().map(Detail::plain), ..self.clone() }
    }

    /// Puts its detail beside the log, where it can be erased.
    pub fn set_apart(&mut self) {
        self.slots_mut().for_each(Slot::set_apart);
    }

    /// The slot of its detail, where it has one.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.detail.iter().map(Detail::slot)
    }

    /// The same, to be filled.
    pub fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.detail.iter_mut().map(Detail::slot_mut)
    }

    /// The last segment of the type: `communication`.
    pub fn short_type(&self) -> &str {
        self.error_type.rsplit('/').next().unwrap_or(&self.error_type)
    }
}

/// What a model call used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// The model that answered, as it calls itself.
    pub model: String,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// The cost in millionths of a US dollar; `None` where no price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_usd: Option<u64>,
    /// Where the price comes from, with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_source: Option<String>,
    /// Why the model stopped: `stop`, `length`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// The usage as the provider reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Value>,
    /// Whether tokens, and with them the cost, are estimated: the provider did not tell them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_estimated: bool,
    /// The place in what the model wrote from which the answer was taken, where it was not simply the
    /// text: `think` (after `<think>…</think>`), `fence`, `prose`, `reasoning`, or several of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_in: Option<String>,
}

/// How an attempt ended, as its performer reports it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It did what was asked.
    Completed {
        /// What it answered.
        output: Value,
        /// What a model call used.
        usage: Option<Usage>,
    },
    /// It is known not to have done it, or to have failed.
    Failed {
        /// Why.
        error: Failure,
        /// How long the other side asks to wait, in ms.
        retry_after_ms: Option<u64>,
        /// What a model call used all the same.
        usage: Option<Usage>,
    },
    /// It answered, and the answer misses what was asked for (its schema).
    Rejected {
        /// The answer.
        output: Value,
        /// Why it was rejected.
        error: Failure,
        /// What the call used.
        usage: Option<Usage>,
    },
    /// The budgets around it left it too few tokens: what it answered was cut off, and is no answer.
    OutOfBudget {
        /// What the call used.
        usage: Option<Usage>,
    },
    /// Nobody knows whether it happened: the connection broke, time ran out.
    Unknown {
        /// What is known.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_stay_within_their_bounds() {
        let policy = RetryPolicy { attempts: 9, delay_ms: 100, max_delay_ms: 1_000, ..Default::default() };
        for (attempt, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (99, 1_000)] {
            for dice in [0, 1, 77, u64::MAX] {
                let delay = policy.delay_after(attempt, dice);
                assert!((full / 2..=full).contains(&delay), "attempt {attempt}: {delay}");
            }
        }
    }

    #[test]
    fn an_idempotency_key_is_shared_by_tries_and_by_nothing_else() {
        let request = Hash::of_bytes(b"request");
        let key = |id: &str, key: &str, request: &Hash| idempotency_key(id, &Key::from(key), request, 0);
        let base = key("a", "t/post", &request);
        assert_eq!(base, key("a", "t!2/post", &request));
        assert_ne!(base, key("a~1", "t/post", &request));
        assert_ne!(base, key("a", "t/post#2", &request));
        assert_ne!(base, key("a", "t/post", &Hash::of_bytes(b"other")));
        assert_ne!(base, idempotency_key("a", &Key::from("t/post"), &request, 1));
    }
}
