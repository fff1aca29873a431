//! Reports: what a log says, in the shapes that people and scripts read.
//!
//! Everything here is computed from events or from a folded state, and from nothing else; so a
//! report of version 7 is the same today and in a year. It never writes, never fetches: a value
//! that is not at hand reads `null`, and who wants it hydrates the events first.
//!
//! The rooms: [`steps`] and [`decisions`] (two of the three questions), [`state_view`] (the
//! third), [`tree`] (the summary of `show`), [`VersionSpec`] (which version a person means),
//! [`changes`] (what one event did to the state), [`diff`] (two workflows side by side).

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::Micros;

mod ahead;
mod back;
mod changes;
mod diff;
mod example;
mod failures;
mod grow;
mod ledger;
mod rows;
mod steps;
mod tree;
mod version;
mod view;
mod whole;

pub use ahead::{Ahead, FORKED, REOPENED};
pub use back::{Lasting, effective, lasted_ms};
pub use changes::{CHANGE_MAX, changes, changes_in};
pub use diff::{
    Both, Compared, Comparison, Detailing, Details, Difference, Facet, Figures, First, Outline, Outlining,
    Past, PathChange, Side, StepFigures, Totals, Word, compare, diff,
};
pub use example::example;
pub use failures::{PastFailure, PastFailures};
pub use grow::{Growing, Grown};
pub use ledger::{Book, Effect as LedgerEffect, Standing, ledger};
pub use rows::Rows;
pub use steps::{
    AttemptReport, DecisionReport, Edited, ReportedStatus, ReusedFrom, StepReport, decisions, steps,
};
pub use tree::{LeftOut, Over, TreeNode, What, tree};
pub use version::{Resolving, Unresolved, VersionSpec, nearest};
pub use view::{PendingView, StateView, UndoView, WaitView, state_view, undos, undos_of};
pub use whole::{Whole, concerns, failure_at, whole};

/// Tokens read and written by a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Tokens read.
    pub input: u64,
    /// Tokens written.
    pub output: u64,
}

impl Tokens {
    fn add(&mut self, other: Tokens) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
    }
}

/// A moment that is written as ISO 8601 in UTC, `2026-01-31T09:15:00.000042Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Micros);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&iso(self.0))
    }
}

/// A moment as ISO 8601 in UTC with microseconds: `2026-01-31T09:15:00.000042Z`.
pub fn iso(at: Micros) -> String {
    const DAY: i64 = 86_400_000_000;
    let (day, micros) = (at.div_euclid(DAY), at.rem_euclid(DAY));
    // A first guess that is never too late for years after 1970, put right by walking.
    let mut year = 1970 + day.div_euclid(366);
    while first_day_of(year + 1) <= day {
        year += 1;
    }
    while first_day_of(year) > day {
        year -= 1;
    }
    let is_leap = first_day_of(year + 1) - first_day_of(year) == 366;
    let (mut month, mut left) = (1, day - first_day_of(year));
    for days in [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    let seconds = micros / 1_000_000;
    format!(
        "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        left + 1,
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        micros % 1_000_000
    )
}

/// Days from 1970-01-01 to the first of January of a year.
fn first_day_of(year: i64) -> i64 {
    let leap_days = |y: i64| y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    365 * (year - 1970) + leap_days(year - 1) - leap_days(1969)
}

/// Millionths of a dollar for people: `$0.0042`, `$1.23`.
pub fn dollars(micro_usd: u64) -> String {
    if micro_usd >= 1_000_000 {
        return format!("${}.{:02}", micro_usd / 1_000_000, micro_usd % 1_000_000 / 10_000);
    }
    let text = format!("$0.{micro_usd:06}");
    let short = text.trim_end_matches('0');
    // Two digits at the least: `$0.50`, not `$0.5`.
    text[..short.len().max(5)].to_owned()
}

/// A value's JSON, cut after `max` characters.
pub fn brief(value: &Value, max: usize) -> String {
    cut(&value.to_string(), max)
}

/// A text, cut after `max` characters.
pub fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", text[..at].trim_end()),
        None => text.to_owned(),
    }
}

/// Why a decision was made, for a line: the values that decided it, by name. A program may give
/// them as they are (`{"score": 0.4}`) or beside the conditions they stand in (`[{"when": …,
/// "values": {…}}]`); each name is told once.
///
/// ```
/// use foldback_core::report::why;
/// use serde_json::json;
/// assert_eq!(why(&json!({"score": 0.4})), "score = 0.4");
/// assert_eq!(why(&json!([{"when": ".n > 1", "values": {".n": 2}, "result": true}])), ".n = 2");
/// // A value that was redacted is marked: what was compared is what stands in its place.
/// let compared = json!([{"if": false, "values": {".a": "[redacted]"}, "redacted": [".a"]}]);
/// assert_eq!(why(&compared), ".a = \"[redacted]\" (compared as redacted)");
/// ```
pub fn why(because: &Value) -> String {
    why_in(because, false)
}

/// As [`why`]; with `is_full`, nothing is cut.
pub fn why_in(because: &Value, is_full: bool) -> String {
    let most = |count: usize| if is_full { usize::MAX } else { count };
    let mut named = Vec::new();
    match because {
        Value::Array(conditions)
            if conditions.iter().all(|c| c.get("values").is_some_and(Value::is_object)) =>
        {
            for condition in conditions {
                let redacted = condition["redacted"].as_array().map(Vec::as_slice).unwrap_or_default();
                let values = condition["values"].as_object().into_iter().flatten();
                named.extend(
                    values.map(|(name, value)| (name, value, redacted.iter().any(|path| path == name))),
                );
            }
        }
        Value::Object(values) => named.extend(values.iter().map(|(name, value)| (name, value, false))),
        _ => {}
    }
    let mut told: Vec<String> = Vec::new();
    for (name, value, is_redacted) in named {
        let mut text = match (&value["status"], &value["title"]) {
            // An error is told by what it is called; its type is a long URI.
            (Value::Number(status), Value::String(title)) => {
                format!("{name} = {status} {}", cut(title, most(60)))
            }
            _ => format!("{name} = {}", brief(value, most(80))),
        };
        if is_redacted {
            text.push_str(" (compared as redacted)");
        }
        if !told.contains(&text) {
            told.push(text);
        }
    }
    if told.is_empty() { brief(because, most(120)) } else { told.join(", ") }
}

fn null() -> Arc<Value> {
    Arc::new(Value::Null)
}

#[cfg(test)]
mod stories;

#[cfg(test)]
mod streaming;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_iso_8601() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (951_868_800_000_000, "2000-03-01T00:00:00.000000Z"),
            (1_704_067_199_000_001, "2023-12-31T23:59:59.000001Z"),
            (1_735_689_599_999_999, "2024-12-31T23:59:59.999999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
            (-2_203_891_200_000_000, "1900-03-01T00:00:00.000000Z"),
        ];
        for (micros, text) in cases {
            assert_eq!(iso(micros), text);
        }
    }

    #[test]
    fn money_is_as_long_as_it_needs_to_be() {
        let cases = [
            (0, "$0.00"),
            (42, "$0.000042"),
            (4_200, "$0.0042"),
            (500_000, "$0.50"),
            (999_999, "$0.999999"),
            (1_234_567, "$1.23"),
        ];
        for (micro_usd, text) in cases {
            assert_eq!(dollars(micro_usd), text);
        }
    }
}
