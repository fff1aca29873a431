//! Plain scalars of YAML by its 1.2 core schema: what is null, a boolean, a number, and what a text.
//!
//! `yes`, `on` and `1.0.0` are texts. A number that JSON has no word for is refused.

use serde_json::{Number, Value};

/// A plain scalar by the core schema of YAML 1.2: `yes` and `on` are texts.
pub(crate) fn plain(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned.to_ascii_lowercase().as_str(), ".inf" | ".nan") {
        return Err(format!("`{text}` is no number of JSON"));
    }
    let outside = || format!("the number `{text}` is outside 64 bits");
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        let digits = text.strip_prefix(prefix).filter(|digits| !digits.is_empty());
        if let Some(digits) = digits.filter(|digits| digits.chars().all(|c| c.is_digit(radix))) {
            return u64::from_str_radix(digits, radix).map(Value::from).map_err(|_| outside());
        }
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !is_decimal(unsigned) {
        return Ok(Value::String(text.to_owned()));
    }
    let digits = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = digits.parse::<i64>() {
        return Ok(Value::from(number));
    }
    if let Ok(number) = digits.parse::<u64>() {
        return Ok(Value::from(number));
    }
    if foldback_core::json::is_outside(digits) {
        return Err(outside());
    }
    let number = digits.parse::<f64>().ok().and_then(Number::from_f64);
    number.map(Value::Number).ok_or_else(outside)
}

/// Digits with at most one point and one exponent.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let is_digits = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_is_good = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && is_digits(e)
    });
    is_digits(whole) && is_digits(part) && !(whole.is_empty() && part.is_empty()) && exponent_is_good
}
