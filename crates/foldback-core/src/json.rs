//! JSON that comes from outside, read strictly: what would be changed in silence is refused with its
//! place.
//!
//! Refused are whole numbers outside 64 bits (they would become floats), floats that are too large or
//! too small to be one, and an object that names a member twice (the last would win).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a text has no value, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// What is wrong.
    pub message: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.message, self.line, self.column)
    }
}

impl std::error::Error for JsonError {}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> JsonError {
        let text = error.to_string();
        // The parser's own words, without the place that stands behind them.
        let message = text.rsplit_once(" at line ").map_or(&*text, |(words, _)| words).to_owned();
        JsonError { message, line: error.line().max(1), column: error.column().max(1) }
    }
}

/// The value of a JSON text.
///
/// # Errors
/// The text is no JSON, or holds what a [`Value`] cannot keep as it is.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    from_slice(text.as_bytes())
}

/// As [`parse`], from bytes.
///
/// # Errors
/// As [`parse`].
pub fn from_slice(bytes: &[u8]) -> Result<Value, JsonError> {
    numbers_fit(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// As [`parse`], of a text that may be no JSON at all: `None` then.
#[must_use]
pub fn parse_if_json(bytes: &[u8]) -> Option<Result<Value, JsonError>> {
    match from_slice(bytes) {
        Ok(value) => Some(Ok(value)),
        Err(error) => serde_json::from_slice::<IgnoredAny>(bytes).is_ok().then_some(Err(error)),
    }
}

/// Whether a text has a value, without making it: few bytes may ask for much memory.
///
/// # Errors
/// As [`parse`].
pub fn check(bytes: &[u8]) -> Result<(), JsonError> {
    numbers_fit(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Looked.deserialize(&mut reader)?;
    Ok(reader.end()?)
}

/// Looks at the numbers of a JSON text alone.
///
/// # Errors
/// One of them is outside 64 bits.
pub fn numbers_fit(bytes: &[u8]) -> Result<(), JsonError> {
    let Some((at, number)) = number_outside(bytes) else { return Ok(()) };
    let before = &bytes[..at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    Err(JsonError { message: format!("the number {number} is outside 64 bits"), line, column })
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("a number outside 64 bits"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(twice(&name));
            }
            let value = members.next_value_seed(Strict)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

fn twice<E: serde::de::Error>(name: &str) -> E {
    E::custom(format!("the member {name:?} stands twice in one object"))
}

/// Any JSON value, looked at and let go. Unlike serde's own `IgnoredAny` it is as strict as a reader: about
/// nesting, numbers and texts.
struct Looked;

impl<'de> DeserializeSeed<'de> for Looked {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Looked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Looked)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = std::collections::BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(Looked)?;
            if let Some(name) = names.replace(name) {
                return Err(twice(&name));
            }
        }
        Ok(())
    }
}

/// The first number of a JSON text that 64 bits cannot hold, and where it begins.
fn number_outside(json: &[u8]) -> Option<(usize, &str)> {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at += text_length(&json[at..]),
            b'-' | b'0'..=b'9' => {
                let is_part = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
                let length = json[at..].iter().take_while(|b| is_part(b)).count();
                // Shorter ones fit in any case.
                if length > 18 || json[at..at + length].iter().any(|b| matches!(b, b'e' | b'E')) {
                    let number = std::str::from_utf8(&json[at..at + length]).unwrap_or("");
                    if is_outside(number) {
                        return Some((at, number));
                    }
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

/// The length of a text in quotes, both included.
fn text_length(json: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// A number, written as in JSON, that neither 64 bits of a whole number nor a float can hold: one that
/// is so small that only zero would be left of it is one.
#[must_use]
pub fn is_outside(number: &str) -> bool {
    let is_whole = number.strip_prefix('-').unwrap_or(number).bytes().all(|b| b.is_ascii_digit());
    if is_whole {
        return number.parse::<i64>().is_err() && number.parse::<u64>().is_err();
    }
    let mantissa = number.split(['e', 'E']).next().unwrap_or("");
    let is_zero = !mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'));
    match number.parse::<f64>() {
        Ok(float) => !float.is_finite() || (float == 0.0 && !is_zero),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{check, parse};

    #[test]
    fn what_json_can_keep_is_kept() {
        for (text, wanted) in [
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("1e308", json!(1e308)),
            ("0e-999", json!(0.0)),
            ("\"99999999999999999999\"", json!("99999999999999999999")),
            (r#""\"99999999999999999999""#, json!("\"99999999999999999999")),
            (r#" {"a": {"a": 1}, "b": [1, {"a": null}]} "#, json!({"a": {"a": 1}, "b": [1, {"a": null}]})),
        ] {
            assert_eq!(parse(text), Ok(wanted), "{text}");
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_would_be_changed_is_refused_with_its_place() {
        for (text, wanted) in [
            ("18446744073709551616", "the number 18446744073709551616 is outside 64 bits at line 1 column 1"),
            ("[1,\n -9223372036854775809]", "line 2 column 2"),
            ("{\"a\": 1e400}", "outside 64 bits at line 1 column 7"),
            ("1e-400", "outside 64 bits"),
            (
                "{\"a\": 1, \"b\": {\"c\": 1, \"c\": 1}}",
                "the member \"c\" stands twice in one object at line 1",
            ),
            ("{\"a\": 1, \"\\u0061\": 2}", "stands twice"),
            ("[1] 2", "trailing"),
            ("nan", "expected"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(wanted), "{text}: {error}");
            let looked = check(text.as_bytes()).expect_err(text).to_string();
            assert!(looked.contains(wanted), "{text}: {looked}");
        }
    }

    #[test]
    fn what_is_json_and_cannot_be_kept_is_told_from_what_is_none() {
        use super::parse_if_json;
        assert_eq!(parse_if_json(b"{\"a\": 1}"), Some(Ok(json!({"a": 1}))));
        assert_eq!(parse_if_json(b"plain text"), None);
        assert!(matches!(parse_if_json(b"[1e999]"), Some(Err(_))));
        assert!(matches!(parse_if_json(b"{\"a\":1,\"a\":1}"), Some(Err(_))));
        assert!(matches!(parse_if_json(b"99999999999999999999"), Some(Err(_))));
    }
}
