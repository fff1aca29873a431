//! Why an evaluation ends early, in jq's own words, and the same without quoting a value.

use super::text;
use super::value::Val;

/// What leaves an evaluation early.
#[derive(Debug)]
pub(crate) enum Thrown {
    /// An error, which `try` catches.
    Error(Failure),
    /// A bound was passed; nothing catches it.
    Stop(&'static str),
}

/// An error.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What `catch` sees.
    pub value: Val,
    /// What happened, without a word of the values that it happened to.
    pub plain: String,
}

impl From<Failure> for Thrown {
    fn from(failure: Failure) -> Thrown {
        Thrown::Error(failure)
    }
}

/// An error whose message quotes nothing.
pub(crate) fn fail(message: impl Into<String>) -> Thrown {
    let plain = message.into();
    Thrown::Error(Failure { value: Val::from(plain.as_str()), plain })
}

/// An error about a value: `number (1) has no keys`.
pub(crate) fn about(value: &Val, what: &str) -> Thrown {
    Thrown::Error(Failure {
        value: Val::from(format!("{} {what}", quoted(value))),
        plain: format!("{} {what}", value.kind()),
    })
}

/// An error about two values: `number (1) and string ("a") cannot be added`.
pub(crate) fn about_both(a: &Val, b: &Val, what: &str) -> Thrown {
    Thrown::Error(Failure {
        value: Val::from(format!("{} and {} {what}", quoted(a), quoted(b))),
        plain: format!("{} and {} {what}", a.kind(), b.kind()),
    })
}

/// An error with its message, and the one that quotes nothing.
pub(crate) fn quoting(message: String, plain: impl Into<String>) -> Thrown {
    Thrown::Error(Failure { value: Val::from(message), plain: plain.into() })
}

/// A value's type and the beginning of its text.
pub(crate) fn quoted(value: &Val) -> String {
    format!("{} ({})", value.kind(), clipped(value))
}

/// The beginning of a value's text, as long as jq's own.
pub(crate) fn clipped(value: &Val) -> String {
    const LENGTH_MAX: usize = 29;
    let (text, is_whole) = text::beginning(value, LENGTH_MAX + 1);
    if is_whole && text.len() <= LENGTH_MAX {
        return text;
    }
    let (kept, end) = match value {
        Val::Str(_) => (LENGTH_MAX - 4, "...\""),
        Val::Arr(_) => (LENGTH_MAX - 4, "...]"),
        Val::Obj(_) => (LENGTH_MAX - 4, "...}"),
        Val::Null | Val::Bool(_) | Val::Num(_) => (LENGTH_MAX - 3, "..."),
    };
    let kept = (0..=kept).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{end}", &text[..kept])
}
