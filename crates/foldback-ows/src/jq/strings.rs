//! Filters about texts, and the formats (`@csv` …).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::bounds::Meter;
use super::fail::{Thrown, about, fail, quoted, quoting};
use super::text::{number_text, to_text};
use super::value::{Text, Val};

/// Takes padding or not, and does not mind what the last letter has too much.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The text of a value, as `tostring` gives it.
fn written(meter: &Meter, value: &Val) -> Result<Text, Thrown> {
    meter.pay(value.weight())?;
    match to_text(value)? {
        Val::Str(text) => Ok(text),
        _ => Ok(Text::from("")),
    }
}

pub(crate) fn at_end(name: &str, value: &Val, part: &Val) -> Result<Val, Thrown> {
    match (value, part) {
        (Val::Str(text), Val::Str(part)) => Ok(Val::Bool(match name {
            "startswith" => text.starts_with(&**part),
            _ => text.ends_with(&**part),
        })),
        _ => Err(fail(format!("{name}() requires string inputs"))),
    }
}

/// Spaces as C knows them.
pub(crate) fn trim(meter: &Meter, value: &Val, left: bool, right: bool) -> Result<Val, Thrown> {
    let Val::Str(text) = value else {
        return Err(fail("trim input must be a string"));
    };
    meter.pay(text.len() as u64 / 8)?;
    let mut kept: &str = text;
    if left {
        kept = kept.trim_start_matches(char::is_whitespace);
    }
    if right {
        kept = kept.trim_end_matches(char::is_whitespace);
    }
    Ok(Val::from(kept))
}

pub(crate) fn explode(meter: &Meter, value: &Val) -> Result<Val, Thrown> {
    let Val::Str(text) = value else {
        return Err(fail("explode input must be a string"));
    };
    meter.pay(text.len() as u64)?;
    Ok(text.chars().map(|c| Val::from(i64::from(u32::from(c)))).collect())
}

pub(crate) fn implode(meter: &Meter, value: &Val) -> Result<Val, Thrown> {
    let Val::Arr(list) = value else {
        return Err(fail("implode input must be an array"));
    };
    meter.pay(list.items.len() as u64)?;
    let mut text = String::new();
    for item in &list.items {
        let Val::Num(number) = item else {
            return Err(about(item, "can't be imploded, unicode codepoint needs to be numeric"));
        };
        // Rounds towards the bounds of the type; what is no letter has one of its own.
        let code = number.float() as i64;
        let letter = u32::try_from(code).ok().and_then(char::from_u32);
        text.push(letter.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Ok(Val::from(text))
}

pub(crate) fn ascii_case(meter: &Meter, value: &Val, change: fn(&str) -> String) -> Result<Val, Thrown> {
    let Val::Str(text) = value else {
        return Err(fail("explode input must be a string"));
    };
    meter.pay(text.len() as u64 / 8)?;
    Ok(Val::from(change(text)))
}

pub(crate) fn split(meter: &Meter, text: &str, by: &str) -> Result<Val, Thrown> {
    meter.pay((text.len() + by.len()) as u64 / 8)?;
    if text.is_empty() {
        return Ok(Val::from(Vec::new()));
    }
    if by.is_empty() {
        meter.pay(text.len() as u64)?;
        return Ok(text.chars().map(|c| Val::from(c.to_string())).collect());
    }
    let parts: Vec<Val> = text.split(by).map(Val::from).collect();
    meter.pay(parts.len() as u64)?;
    Ok(Val::from(parts))
}

/// Texts, numbers and booleans in a row; null is empty.
pub(crate) fn join(meter: &Meter, value: &Val, by: &Val) -> Result<Val, Thrown> {
    let mut sum = Val::Null;
    let mut next = |item: &Val| -> Result<(), Thrown> {
        meter.pay(2)?;
        let before = match std::mem::take(&mut sum) {
            Val::Null => Val::from(""),
            so_far => super::arith::add(meter, so_far, by.clone())?,
        };
        let item = match item {
            Val::Bool(_) | Val::Num(_) => to_text(item)?,
            Val::Null => Val::from(""),
            other => other.clone(),
        };
        sum = super::arith::add(meter, before, item)?;
        Ok(())
    };
    match value {
        Val::Arr(list) => list.items.iter().try_for_each(&mut next)?,
        Val::Obj(dict) => dict.members.values().try_for_each(&mut next)?,
        other => {
            let message = format!("Cannot iterate over {}", quoted(other));
            return Err(quoting(message, format!("cannot iterate over {}", other.kind())));
        }
    }
    Ok(if sum.is_true() { sum } else { Val::from("") })
}

/// Where a text stands in another, in letters.
pub(crate) fn indices(meter: &Meter, value: &Val, part: &Val) -> Result<Val, Thrown> {
    let (Val::Str(text), Val::Str(part)) = (value, part) else {
        return Err(fail("_strindices input must be a string"));
    };
    meter.pay((text.len() as u64 / 8 + 1).saturating_mul(1 + part.len() as u64 / 8))?;
    if part.is_empty() {
        return Ok(Val::from(Vec::new()));
    }
    let mut found = Vec::new();
    let (mut from, mut letters) = (0, 0);
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(&**part)) {
        letters += text[from..from + at].chars().count();
        found.push(Val::from(letters));
        // They may overlap.
        let step = text[from + at..].chars().next().map_or(1, char::len_utf8);
        from += at + step;
        letters += 1;
        meter.pay(1 + part.len() as u64 / 8)?;
    }
    Ok(Val::from(found))
}

/// `@csv` and `@tsv`
pub(crate) fn row(meter: &Meter, value: &Val, name: &str) -> Result<Val, Thrown> {
    let Val::Arr(list) = value else {
        return Err(about(value, &format!("cannot be {name}-formatted, only array")));
    };
    meter.pay(value.weight())?;
    let mut fields = Vec::with_capacity(list.items.len());
    for item in &list.items {
        fields.push(match item {
            Val::Null => String::new(),
            Val::Bool(flag) => flag.to_string(),
            Val::Num(_) => to_text(item).map(|text| match text {
                Val::Str(text) => text.to_string(),
                _ => String::new(),
            })?,
            Val::Str(text) if name == "csv" => format!("\"{}\"", text.replace('"', "\"\"")),
            Val::Str(text) => text
                .replace('\\', "\\\\")
                .replace('\t', "\\t")
                .replace('\n', "\\n")
                .replace('\r', "\\r")
                .replace('\0', "\\0"),
            Val::Arr(_) | Val::Obj(_) => return Err(about(item, "is not valid in a csv row")),
        });
    }
    Ok(Val::from(fields.join(if name == "csv" { "," } else { "\t" })))
}

pub(crate) fn html(meter: &Meter, value: &Val) -> Result<Val, Thrown> {
    let text = written(meter, value)?;
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    Ok(Val::from(escaped))
}

pub(crate) fn uri(meter: &Meter, value: &Val) -> Result<Val, Thrown> {
    let text = written(meter, value)?;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(Val::from(escaped))
}

pub(crate) fn urid(meter: &Meter, value: &Val) -> Result<Val, Thrown> {
    let text = written(meter, value)?;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(about(&Val::Str(text.clone()), "is not a valid uri encoding")),
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Val::from(text)),
        Err(_) => Err(about(&Val::Str(text), "is not a valid uri encoding")),
    }
}

pub(crate) fn shell(meter: &Meter, value: &Val) -> Result<Val, Thrown> {
    meter.pay(value.weight())?;
    let items = match value {
        Val::Arr(list) => list.items.as_slice(),
        other => std::slice::from_ref(other),
    };
    let mut words = Vec::with_capacity(items.len());
    for item in items {
        words.push(match item {
            Val::Str(text) => format!("'{}'", text.replace('\'', "'\\''")),
            Val::Num(number) if number.float().is_finite() => number_text(*number),
            Val::Null | Val::Bool(_) | Val::Num(_) => match to_text(item)? {
                Val::Str(text) => text.to_string(),
                _ => String::new(),
            },
            Val::Arr(_) | Val::Obj(_) => return Err(about(item, "can not be escaped for shell")),
        });
    }
    Ok(Val::from(words.join(" ")))
}

pub(crate) fn base64(meter: &Meter, value: &Val) -> Result<Val, Thrown> {
    let text = written(meter, value)?;
    Ok(Val::from(BASE64.encode(text.as_bytes())))
}

/// What is no UTF-8 is an error: letters in its place would be a change in silence.
pub(crate) fn base64d(meter: &Meter, value: &Val) -> Result<Val, Thrown> {
    let text = written(meter, value)?;
    let kept = text.trim_end_matches('=');
    let bytes = BASE64.decode(kept).map_err(|_| {
        let what = match kept.len() % 4 == 1 {
            true => "trailing base64 byte found",
            false => "is not valid base64 data",
        };
        about(&Val::Str(text.clone()), what)
    })?;
    String::from_utf8(bytes)
        .map(Val::from)
        .map_err(|_| about(&Val::Str(text), "is base64 of bytes that are no text"))
}
