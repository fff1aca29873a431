//! The detail of a failure: a text that stands in the event, or beside the log where it may be erased.
//!
//! A detail is written as its text, or as the reference of a stored slot (`{"ref": HASH, "bytes": N}`).
//! It never decides by itself where it stands: `decide` sets it apart, by the definition.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::value::Slot;

/// The detail of a [`crate::Failure`]. It reads as a text: what was erased as `[erased]`, or as the text that
/// a reader put there; what is not at hand as nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Detail(Box<Slot>);

/// What a detail reads where the value at hand is the marker of an erased one.
const ERASED: &str = "[erased]";

impl Detail {
    // In a box, since every result that may fail is as large as a failure.
    fn of(slot: Slot) -> Detail {
        Detail(Box::new(slot))
    }

    /// The slot that holds the text.
    pub fn slot(&self) -> &Slot {
        &self.0
    }

    /// The same slot, to be filled or set apart.
    pub fn slot_mut(&mut self) -> &mut Slot {
        &mut self.0
    }

    /// Whether a marker stands in the place of a text that was erased.
    pub fn is_erased(&self) -> bool {
        matches!(self.0.value().map(|value| &**value), Some(value) if !value.is_string() && !value.is_null())
    }

    /// The same detail with what is at hand inline: for reading, and for values that hold an error.
    pub fn plain(&self) -> Detail {
        Detail::of(Slot::Inline(self.0.get()))
    }
}

impl Deref for Detail {
    type Target = str;

    fn deref(&self) -> &str {
        match self.0.value().map(|value| &**value) {
            Some(Value::String(text)) => text,
            Some(Value::Null) | None => "",
            Some(_) => ERASED,
        }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Default for Detail {
    fn default() -> Detail {
        Detail::from(String::new())
    }
}

impl From<String> for Detail {
    fn from(text: String) -> Detail {
        Detail::of(Slot::Inline(Arc::new(Value::String(text))))
    }
}

impl From<&str> for Detail {
    fn from(text: &str) -> Detail {
        Detail::from(text.to_owned())
    }
}

impl From<Detail> for String {
    fn from(detail: Detail) -> String {
        (*detail).to_owned()
    }
}

impl PartialEq<str> for Detail {
    fn eq(&self, text: &str) -> bool {
        **self == *text
    }
}

impl PartialEq<&str> for Detail {
    fn eq(&self, text: &&str) -> bool {
        **self == **text
    }
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            Slot::Inline(value) => value.serialize(serializer),
            Slot::Stored(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Detail {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Detail, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Apart(Slot),
        }
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Detail::from(text)),
            Written::Apart(slot @ Slot::Stored(_)) => Ok(Detail::of(slot)),
            Written::Apart(Slot::Inline(_)) => Err(de::Error::custom("an inline detail is its text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_detail_is_written_as_its_text_or_by_its_hash_and_reads_the_same() {
        for text in ["no account of Ann", "", "data:text/plain;base64,QW5u"] {
            let inline = Detail::from(text);
            assert_eq!(serde_json::to_value(&inline).unwrap(), json!(text));
            assert_eq!(serde_json::from_value::<Detail>(json!(text)).unwrap(), inline);

            let apart = Detail::of(Slot::apart(inline.slot().get()));
            assert_eq!(&*apart, text);
            assert_eq!(apart.plain(), inline);
            let written = serde_json::to_value(&apart).unwrap();
            assert_eq!(written["ref"].is_string(), !text.is_empty(), "{written}");
            let mut back: Detail = serde_json::from_value(written).unwrap();
            assert_eq!(back, apart, "without its text at hand it is the same detail");
            if let Slot::Stored(stored) = back.slot_mut() {
                assert_eq!(stored.value, None);
                stored.value = Some(Arc::new(json!({"erased": {"reason": "asked to"}})));
                assert_eq!(&*back, "[erased]");
                assert_eq!(serde_json::to_value(back.plain()).unwrap()["erased"]["reason"], "asked to");
            }
        }
        for odd in [json!({"inline": "x"}), json!({"erased": {}}), json!(7), json!(["x"])] {
            assert!(serde_json::from_value::<Detail>(odd.clone()).is_err(), "{odd}");
        }
    }
}
