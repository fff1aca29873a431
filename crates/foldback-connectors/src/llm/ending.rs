//! Why a model stopped, and what that makes of its answer: whole, cut short, or refused.
//!
//! Nothing that is missing goes by in silence. A cut that the author asked for (`max_tokens`) is an
//! answer, marked `length`; a cut that nobody asked for is a failure. A refusal is a failure of its
//! own type. This is not about errors of a connection or a server: see `trouble`.

use foldback_core::step::error_type;
use foldback_core::{Failure, Usage};

use super::heard::Heard;
use super::model::{Answer, ModelError};

/// The type of a refusal. The specification knows no such error, so the name is ours.
pub(super) const REFUSED: &str = "https://github.com/foldback/foldback/errors/refused";

/// How a cut answer is marked, whatever its provider calls it.
pub(super) const LENGTH: &str = "length";

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The model was done.
    Whole,
    /// A bound on tokens or on the context cut it.
    Cut,
    /// The model, or a filter before or behind it, would not.
    Refused,
    /// It stopped in the middle for a reason of the provider's own.
    BrokenOff,
}

impl Ending {
    /// The ending that a provider's word stands for. A word that nobody knows yet ends a whole
    /// answer: new words for a good end are more common than new words for a bad one.
    pub(super) fn of(reason: &str) -> Ending {
        match reason {
            LENGTH | "max_tokens" | "MAX_TOKENS" | "model_context_window_exceeded" | "model_length" => {
                Ending::Cut
            }
            "content_filter" | "refusal" | "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT"
            | "SPII" | "IMAGE_SAFETY" => Ending::Refused,
            "LANGUAGE" | "OTHER" | "MALFORMED_FUNCTION_CALL" | "MALFORMED_RESPONSE" | "error" => {
                Ending::BrokenOff
            }
            _ => Ending::Whole,
        }
    }
}

/// The answer that was heard, or why it is none. `place` names the provider for the error.
pub(super) fn settle(heard: Heard, mut usage: Usage, place: &str) -> Result<Answer, ModelError> {
    let failed = |kind: &str, status: u16, title: &str, detail: String, usage: Usage| {
        let error = Box::new(Failure::new(kind, status, title, format!("{place}: {detail}")));
        Err(ModelError::Failed { error, retry_after_ms: None, usage: Some(Box::new(usage)) })
    };
    let Heard { text, thoughts, refusal, called, blocked, finish_reason, .. } = heard;
    let reason = finish_reason.unwrap_or_default();
    if let Some(why) = blocked {
        let detail = format!("the prompt was blocked ({why})");
        return failed(REFUSED, 422, "The model refused", detail, usage);
    }
    let ending = Ending::of(&reason);
    if ending == Ending::Refused || !refusal.is_empty() {
        let said = if refusal.is_empty() { format!("it stopped with `{reason}`") } else { refusal };
        return failed(REFUSED, 422, "The model refused", said, usage);
    }
    if ending == Ending::BrokenOff {
        let detail = format!("it stopped with `{reason}` after {} characters", text.chars().count());
        return failed(error_type::COMMUNICATION, 502, "The answer broke off", detail, usage);
    }
    let is_cut = ending == Ending::Cut;
    if is_cut {
        usage.finish_reason = Some(LENGTH.to_owned());
    }
    Ok(Answer { text, thoughts, usage, is_cut, called })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_as_a_table() {
        for (reason, ending) in [
            ("stop", Ending::Whole),
            ("end_turn", Ending::Whole),
            ("STOP", Ending::Whole),
            ("a_word_of_next_year", Ending::Whole),
            ("length", Ending::Cut),
            ("MAX_TOKENS", Ending::Cut),
            ("refusal", Ending::Refused),
            ("content_filter", Ending::Refused),
            ("PROHIBITED_CONTENT", Ending::Refused),
            ("OTHER", Ending::BrokenOff),
        ] {
            assert_eq!(Ending::of(reason), ending, "{reason}");
        }
    }
}
