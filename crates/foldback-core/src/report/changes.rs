//! What one event changed in the state, in short lines: the right-hand side of `replay`.

use std::fmt::Write;

use super::{brief, dollars, iso};
use crate::state::{End, Entry, EntryBody, Spent, WorkflowState};
use crate::value::Slot;

/// Keys that are named when many are superseded at once.
const NAMED_MAX: usize = 6;
/// Characters of a value that are shown.
pub const CHANGE_MAX: usize = 60;

/// What differs between two states of one workflow, one line each: `+` is new, `~` is changed,
/// `-` is superseded.
pub fn changes(before: &WorkflowState, after: &WorkflowState) -> Vec<String> {
    changes_in(before, after, CHANGE_MAX)
}

/// As [`changes`]; a value is cut after `most` characters.
pub fn changes_in(before: &WorkflowState, after: &WorkflowState, most: usize) -> Vec<String> {
    let shown = |slot: &Slot| shown(slot, most);
    let mut lines = Vec::new();
    if before.input != after.input {
        lines.push(format!("~ input = {}", shown(&after.input)));
    }
    if before.context != after.context {
        lines.push(format!("~ $context = {}", shown(&after.context)));
        lines.extend(left_context(&before.context, &after.context, most));
    }
    entries(before, after, most, &mut lines);
    for (scope, cursor) in &after.cursors {
        if before.cursors.get(scope) != Some(cursor) {
            let place = if scope.is_root() { String::new() } else { format!(" in {scope}") };
            let data = cursor.data.as_ref().map(|data| format!(" with {}", shown(data))).unwrap_or_default();
            lines.push(format!("~ goes on after {}{place}{data}", cursor.last));
        }
    }
    if before.newest_undo != after.newest_undo {
        let newest = after.newest_undo.map_or("none".to_owned(), |version| format!("version {version}"));
        lines.push(format!("~ newest undo: {newest}"));
    }
    if let Some(line) = spent(&before.spent, &after.spent) {
        lines.push(line);
    }
    if before.end != after.end
        && let Some(end) = &after.end
    {
        lines.push(match end {
            End::Completed { output } => format!("= completed with {}", shown(output)),
            End::Failed { error } => format!("= failed: {} {}", error.status, error.title),
            End::Cancelled { reason } => format!("= cancelled: {reason}"),
            End::Parked { key, .. } => format!("= parked at {key}"),
        });
    } else if before.status() != after.status() {
        lines.push(format!("= {} (was {})", after.status().as_str(), before.status().as_str()));
    }
    lines
}

/// Names that a new `$context` has no more, with the values that they had.
fn left_context(before: &Slot, after: &Slot, most: usize) -> Vec<String> {
    let (before, after) = (before.get(), after.get());
    let names = before.as_object().into_iter().flatten();
    let left = names.filter(|(name, _)| after.get(name.as_str()).is_none());
    left.map(|(name, value)| format!("- $context.{name} left; it was {}", brief(value, most))).collect()
}

fn entries(before: &WorkflowState, after: &WorkflowState, most: usize, lines: &mut Vec<String>) {
    let told = |entry: &Entry| told(entry, most);
    let shown = |slot: &Slot| shown(slot, most);
    for (key, entry) in &after.entries {
        match before.entries.get(key) {
            None => lines.push(format!("+ {key}: {}", told(entry))),
            Some(old) if old != entry => {
                let (was, is) = (told(old), told(entry));
                lines.push(if was == is {
                    let input = entry.input.as_ref().map(&shown).unwrap_or_default();
                    format!("~ {key}: input {input}")
                } else {
                    format!("~ {key}: {was} → {is}")
                });
            }
            Some(_) => {}
        }
    }
    let gone: Vec<&str> =
        before.entries.keys().filter(|k| !after.entries.contains_key(*k)).map(|k| k.as_str()).collect();
    match gone.len() {
        0 => {}
        n if n <= NAMED_MAX => lines.push(format!("- superseded: {}", gone.join(", "))),
        n => lines.push(format!("- superseded: {} and {} more", gone[..NAMED_MAX].join(", "), n - NAMED_MAX)),
    }
}

/// An entry in a few words.
fn told(entry: &Entry, most: usize) -> String {
    match &entry.body {
        EntryBody::Started { kind, iterations, .. } => {
            let turns = if *iterations > 0 { format!(", {iterations} done") } else { String::new() };
            format!("{} open{turns}", format!("{kind:?}").to_lowercase())
        }
        EntryBody::Step(step) => {
            let mut text = format!("{} {}", step.kind, format!("{:?}", step.status).to_lowercase());
            if step.is_given_up && !step.status.is_settled() {
                text.push_str(", given up");
            }
            if step.attempts > 1 {
                let _ = write!(text, ", attempt {}", step.attempts);
            }
            if let Some(due) = step.due {
                let _ = write!(text, " until {}", iso(due));
            }
            text
        }
        EntryBody::Timer { due, fired: false, limits: true, .. } => format!("limit until {}", iso(*due)),
        EntryBody::Timer { due, fired: false, .. } => format!("timer until {}", iso(*due)),
        EntryBody::Timer { .. } => "timer fired".to_owned(),
        EntryBody::Listening { names, .. } => format!("listens for {}", names.join(", ")),
        EntryBody::Decided { chosen } => format!("decided {chosen}"),
        EntryBody::Finished { kind, output } => {
            format!("{} finished with {}", format!("{kind:?}").to_lowercase(), shown(output, most))
        }
    }
}

fn spent(before: &Spent, after: &Spent) -> Option<String> {
    let mut parts = Vec::new();
    let mut more = |was: u64, is: u64, unit: &str| {
        if is > was {
            parts.push(format!("+{} {unit}", is - was));
        }
    };
    more(before.steps, after.steps, "step");
    more(before.input_tokens, after.input_tokens, "tokens in");
    more(before.output_tokens, after.output_tokens, "tokens out");
    if after.micro_usd > before.micro_usd {
        parts.push(format!("+{}", dollars(after.micro_usd - before.micro_usd)));
    }
    if after.lost_attempts > before.lost_attempts {
        parts.push("what the lost attempt used".into());
    }
    (!parts.is_empty()).then(|| format!("~ spent {}", parts.join(", ")))
}

fn shown(slot: &Slot, most: usize) -> String {
    match (slot.value(), slot) {
        (Some(value), _) => brief(value, most),
        (None, Slot::Stored(stored)) => format!("<{} bytes>", stored.bytes),
        (None, Slot::Inline(_)) => String::new(),
    }
}
