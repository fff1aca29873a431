//! Values as JSON text.

use super::fail::{Thrown, fail};
use super::value::{Num, Val, nameless};

/// The JSON text of a value. A number that JSON has no word for is an error.
pub(crate) fn to_json(value: &Val) -> Result<String, Thrown> {
    let mut text = String::new();
    match write(value, &mut text, usize::MAX) {
        Ok(()) => Ok(text),
        Err(Cut::Nameless(n)) => Err(fail(format!("{} has no word in JSON", nameless(n)))),
        Err(Cut::Full) => Ok(text),
    }
}

/// The first bytes of the JSON text of a value, and whether they are all. For messages.
pub(crate) fn beginning(value: &Val, most: usize) -> (String, bool) {
    let mut text = String::new();
    match write(value, &mut text, most) {
        Ok(()) => (text, true),
        Err(Cut::Full) => (text, false),
        Err(Cut::Nameless(_)) => (text + "nan", true),
    }
}

enum Cut {
    Full,
    Nameless(f64),
}

fn write(value: &Val, out: &mut String, most: usize) -> Result<(), Cut> {
    if out.len() > most {
        return Err(Cut::Full);
    }
    match value {
        Val::Null => out.push_str("null"),
        Val::Bool(true) => out.push_str("true"),
        Val::Bool(false) => out.push_str("false"),
        Val::Num(Num::Float(n)) if !n.is_finite() => return Err(Cut::Nameless(*n)),
        Val::Num(number) => out.push_str(&number_text(*number)),
        Val::Str(text) => write_text(text, out, most),
        Val::Arr(list) => {
            out.push('[');
            for (i, item) in list.items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out, most)?;
            }
            out.push(']');
        }
        Val::Obj(dict) => {
            out.push('{');
            for (i, (name, item)) in dict.members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_text(name, out, most);
                out.push(':');
                write(item, out, most)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_text(text: &str, out: &mut String, most: usize) {
    out.push('"');
    for c in text.chars() {
        if out.len() > most {
            return;
        }
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A number as jq writes it: the fewest digits that give it back.
pub(crate) fn number_text(number: Num) -> String {
    let float = match number {
        Num::Int(n) => return n.to_string(),
        Num::Big(n) => return n.to_string(),
        Num::Float(n) => n,
    };
    // The digits, and where the point stands: `1.5e-7`.
    let text = format!("{float:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    let (count, point) = (digits.len() as i32, exponent + 1);
    if float == 0.0 {
        return format!("{sign}0");
    }
    if point <= -4 || point > count + 15 {
        let part = if count > 1 { format!("{}.{}", &digits[..1], &digits[1..]) } else { digits };
        let (mark, exponent) = if exponent < 0 { ('-', -exponent) } else { ('+', exponent) };
        return format!("{sign}{part}e{mark}{exponent:02}");
    }
    if point <= 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize));
    }
    if point >= count {
        return format!("{sign}{digits}{}", "0".repeat((point - count) as usize));
    }
    let (whole, part) = digits.split_at(point as usize);
    format!("{sign}{whole}.{part}")
}

/// A value as a text: a text as it is, all else as JSON.
pub(crate) fn to_text(value: &Val) -> Result<Val, Thrown> {
    match value {
        Val::Str(_) => Ok(value.clone()),
        value => to_json(value).map(Val::from),
    }
}
