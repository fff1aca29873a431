//! Reading of durations: `PT1H30M`, `{minutes: 90}`, or an expression that gives one of them.

use std::sync::Arc;

use serde_json::Value;

use super::Reader;
use super::value::{Allow, inside};
use crate::program::Delay;
use crate::tree::{Data, Node};

/// The longest wait: a hundred years, in ms.
const DURATION_MAX_MS: u64 = 100 * 365 * 24 * 3_600 * 1_000;

const UNITS: [(&str, u64); 5] = [
    ("days", 86_400_000),
    ("hours", 3_600_000),
    ("minutes", 60_000),
    ("seconds", 1_000),
    ("milliseconds", 1),
];

impl Reader<'_> {
    /// A duration that may be computed.
    pub(super) fn delay(&mut self, node: &Node, what: &str) -> Option<Delay> {
        if node.as_str().is_some_and(|text| inside(text).is_some()) {
            let filter = self.expression(node, what, Allow::Expressions)?;
            return Some(Delay::Computed(Arc::new(filter)));
        }
        self.duration(node, what).map(Delay::Ms)
    }

    /// A duration that stands in the definition, in ms.
    pub(super) fn duration(&mut self, node: &Node, what: &str) -> Option<u64> {
        if let Data::Map(_) = node.data {
            let problems = self.report.problems.len();
            self.only(node, what, &UNITS.map(|(name, _)| name));
            if self.report.problems.len() > problems {
                return None;
            }
        }
        match to_ms(&node.to_value()) {
            Ok(ms) => Some(ms),
            Err(message) => {
                self.report.hinted(node, format!("{what}: {message}"), "write {seconds: 30} or PT30S");
                None
            }
        }
    }
}

/// The milliseconds of a duration: an object of units or an ISO 8601 text.
pub(crate) fn to_ms(value: &Value) -> Result<u64, String> {
    let ms = match value {
        Value::Object(map) if !map.is_empty() => {
            let mut ms = 0f64;
            for (name, amount) in map {
                let unit = UNITS.iter().find(|(unit, _)| unit == name).map(|(_, ms)| *ms as f64);
                let (Some(unit), Some(amount)) = (unit, amount.as_f64().filter(|n| *n >= 0.0)) else {
                    return Err(format!("`{name}: {amount}` is no part of a duration"));
                };
                ms += unit * amount;
            }
            ms
        }
        Value::String(text) => iso8601(text).ok_or_else(|| {
            let is_calendar =
                text.starts_with('P') && text.split('T').next().is_some_and(|days| days.contains(['Y', 'M']));
            match is_calendar {
                true => {
                    format!("`{text}` counts in years or months, which are not equally long; count in days")
                }
                false => format!("`{text}` is no duration"),
            }
        })?,
        other => return Err(format!("{other} is no duration")),
    };
    if ms > DURATION_MAX_MS as f64 {
        return Err("it is longer than a hundred years".into());
    }
    Ok(ms.round() as u64)
}

/// `P1W2DT3H4M5.5S`, in ms.
fn iso8601(text: &str) -> Option<f64> {
    let rest = text.strip_prefix('P')?;
    let (days, time) = match rest.split_once('T') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return None,
        None => (rest, ""),
    };
    let ms = parts(days, &[('W', 7.0 * 86_400_000.0), ('D', 86_400_000.0)])?
        + parts(time, &[('H', 3_600_000.0), ('M', 60_000.0), ('S', 1_000.0)])?;
    (!rest.is_empty()).then_some(ms)
}

fn parts(mut text: &str, units: &[(char, f64)]) -> Option<f64> {
    let mut total = 0.0;
    for (letter, ms) in units {
        let Some((number, rest)) = text.split_once(*letter) else {
            continue;
        };
        if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return None;
        }
        total += number.parse::<f64>().ok()? * ms;
        text = rest;
    }
    text.is_empty().then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_counted_in_milliseconds() {
        for (value, ms) in [
            (json!("PT1H30M"), Some(5_400_000)),
            (json!("P1DT0.5S"), Some(86_400_500)),
            (json!("P2W"), Some(1_209_600_000)),
            (json!({"seconds": 30, "milliseconds": 5}), Some(30_005)),
            (json!("P1Y"), None),
            (json!("P1M"), None),
            (json!("PT"), None),
            (json!("P"), None),
            (json!("PT5"), None),
            (json!("30s"), None),
            (json!({"fortnights": 1}), None),
            (json!({"seconds": -1}), None),
            (json!({}), None),
            (json!(5), None),
            (json!("P999999999D"), None),
        ] {
            assert_eq!(to_ms(&value).ok(), ms, "{value}");
        }
    }
}
