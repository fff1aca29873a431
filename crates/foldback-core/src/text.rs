//! A workflow as text: one line an event. What `foldback events` prints, and what tests compare.

use std::fmt::Write;

use crate::event::{Event, Fact};
use crate::value::Slot;

/// A word as a shell takes it, for a command that a person copies: quoted wherever it could be read as
/// anything but itself. What a terminal obeys or does not show stands as an escape.
///
/// ```
/// use foldback_core::text::shell_word;
/// assert_eq!(shell_word("refine[0]/draft"), "'refine[0]/draft'");
/// assert_eq!(shell_word("it's; rm x"), r"'it'\''s; rm x'");
/// assert_eq!(shell_word("a\u{1b}[2J"), r"$'a\u001b[2J'");
/// assert_eq!(shell_word("a\u{3164}"), r"$'a\u3164'", "a letter that has no width");
/// ```
pub fn shell_word(word: impl AsRef<str>) -> String {
    let word = word.as_ref();
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_-./:@,+%".contains(c);
    // `~user` and zsh's `=command` are expanded where a word begins with them, `-x` is an option.
    let is_safe_inside = |c: char| {
        is_safe(c) || c == '~' || c == '=' || (!c.is_ascii() && c.is_alphanumeric() && !is_hidden(c))
    };
    let begins_well = word.starts_with(|c: char| is_safe_inside(c) && !matches!(c, '~' | '='));
    if begins_well && word.chars().all(is_safe_inside) {
        return word.to_owned();
    }
    if !word.chars().any(is_hidden) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut text = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' | '\\' => text.extend(['\\', c]),
            c if is_hidden(c) && u32::from(c) > 0xffff => text.push_str(&format!("\\U{:08x}", u32::from(c))),
            c if is_hidden(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

/// Whether a terminal obeys a character, or shows nothing where it stands: controls, marks that turn the
/// direction of writing, other ends of lines, and what has no width (but not what picks a form of the sign before it).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// A log as text, one line an event, without times and ids: two logs that mean the same read the
/// same.
pub fn render<'a>(events: impl IntoIterator<Item = &'a Event>) -> String {
    let mut text = String::new();
    for event in events {
        let _ = writeln!(text, "{:>4}  {}", event.version, line(&event.fact));
    }
    text
}

/// Characters of a value on a line.
pub const VALUE_MAX: usize = 100;

/// One fact as a line: its type, its key, and what matters most about it.
pub fn line(fact: &Fact) -> String {
    line_in(fact, VALUE_MAX)
}

/// As [`line`]; a value is cut after `most` characters.
pub fn line_in(fact: &Fact, most: usize) -> String {
    let short = |slot: &Slot| short(slot, most);
    let what = match fact {
        Fact::WorkflowStarted(e) => format!("{} input={}", e.name, short(&e.input)),
        Fact::StepAsked(e) => {
            let starts = if e.starts { "" } else { " (not started)" };
            let request = Slot::of(e.request.to_json());
            format!("{} {} {}{starts}", e.kind, effect(e.effect), short(&request))
        }
        Fact::AttemptStarted { attempt, lost: None, .. } => format!("attempt {attempt}"),
        Fact::AttemptStarted { attempt, lost: Some(lost), .. } => {
            format!("attempt {attempt}; lost: {}", lost.reason)
        }
        Fact::AttemptFailed(e) => {
            let variant = e.variant.map(|n| format!(" as variant {n}")).unwrap_or_default();
            format!(
                "attempt {} {} {}; again in {} ms{variant}",
                e.attempt, e.error.status, e.error.title, e.delay_ms
            )
        }
        Fact::StepCompleted(e) => format!("attempt {} -> {}", e.attempt, short(&e.output)),
        Fact::StepFailed(e) => {
            format!("attempt {} {} {}", e.attempt, e.error.status, e.error.title)
        }
        Fact::OutcomeUnknown { attempt, reason, .. } => format!("attempt {attempt}: {reason}"),
        Fact::OutcomeResolved { key, landed: Some(said) } if key.is_undo() => match said.get().is_null() {
            true => "done by hand".into(),
            false => format!("done by hand: {}", short(said)),
        },
        Fact::OutcomeResolved { landed: Some(output), .. } => format!("landed -> {}", short(output)),
        Fact::OutcomeResolved { landed: None, .. } => "did not happen".into(),
        Fact::OutcomeReconciled { found, landed, reason, .. } => {
            let landed = landed.as_ref().map(|output| format!(" -> {}", short(output))).unwrap_or_default();
            format!("{}{landed}; {reason}", format!("{found:?}").to_lowercase())
        }
        Fact::StepCancelled { attempt: Some(attempt), reason, .. } => format!("attempt {attempt}: {reason}"),
        Fact::StepCancelled { attempt: None, reason, .. } | Fact::TimerCancelled { reason, .. } => {
            reason.clone()
        }
        Fact::TimerSet { .. } | Fact::TimerFired { .. } => String::new(),
        Fact::DecisionMade(e) => {
            format!("{} out of [{}] because {}", e.chosen, e.options.join(", "), short(&e.because))
        }
        Fact::TaskStarted { kind, input, .. } => {
            format!("{} <- {}", kind_name(*kind), short(input))
        }
        Fact::TaskFinished { kind, output, context, .. } => {
            let context = context.as_ref().map(|c| format!(" context={}", short(c))).unwrap_or_default();
            format!("{} -> {}{context}", kind_name(*kind), short(output))
        }
        Fact::UndoArmed(e) => short(&e.undo),
        Fact::UndoStarted(e) => format!("armed at version {}", e.armed),
        Fact::UndoCompleted { armed, .. } => format!("armed at version {armed}"),
        Fact::UndoFailed { armed, error, .. } => {
            format!("armed at version {armed}: {} {}", error.status, error.title)
        }
        Fact::CompensationStarted { scope, because } => format!("{}because {because}", of_scope(scope)),
        Fact::CompensationEnded { scope } => of_scope(scope),
        Fact::CompensationRequested { reason, from, down_to, .. } => {
            let from = from.map(|version| format!("from version {version} ")).unwrap_or_default();
            let down_to = down_to.map(|version| format!("down to version {version} ")).unwrap_or_default();
            format!("{from}{down_to}{reason}")
        }
        Fact::WorkflowCancelled { reason } | Fact::WorkflowPaused { reason } => reason.clone(),
        Fact::WorkflowUnpaused { reason, raised } => {
            let told = |raised: &crate::event::Raised| {
                format!("{}{}={} ", of_scope(&raised.scope), raised.measure.as_str(), raised.limit)
            };
            format!("{}{reason}", raised.iter().map(told).collect::<String>())
        }
        Fact::BudgetSet { limits, .. } => {
            let told = limits.iter().map(|(measure, limit)| format!("{}={limit}", measure.as_str()));
            told.collect::<Vec<_>>().join(" ")
        }
        Fact::BudgetWarned { scope, measure, spent, limit }
        | Fact::BudgetExceeded { scope, measure, spent, limit } => {
            format!("{}{spent} of {limit} {}", of_scope(scope), measure.as_str())
        }
        Fact::SignalReceived(e) => {
            let source = e.source.as_ref().map(|source| format!(" from {source}")).unwrap_or_default();
            let id = e.event_id.as_ref().map(|id| format!(" id {id}")).unwrap_or_default();
            match &e.error {
                Some(error) => format!("{}{source}{id} failed: {} {}", e.name, error.status, error.title),
                None => format!("{}{source}{id} {}", e.name, short(&e.data)),
            }
        }
        Fact::ListenStarted { names, .. } => names.join(", "),
        Fact::SignalTaken { signals, .. } => {
            signals.iter().map(|version| format!("version {version}")).collect::<Vec<_>>().join(", ")
        }
        Fact::SignalRefused { signal, reason, .. } => format!("version {signal}: {reason}"),
        Fact::Recorded { data, .. } => short(data),
        Fact::WorkflowCompleted { output } => short(output),
        Fact::WorkflowFailed { error } => {
            let key = error.key.as_ref().map(|k| format!("{k}: ")).unwrap_or_default();
            format!("{key}{} {}", error.status, error.title)
        }
        Fact::WorkflowReopened { reason, again, back_to, changes } => {
            let again: Vec<&str> = again.iter().map(crate::Key::as_str).collect();
            let back = back_to.map(|version| format!("back to version {version} ")).unwrap_or_default();
            let told = changes.as_ref().map(|changes| changes.told()).unwrap_or_default();
            let told = if told.is_empty() { String::new() } else { format!(" with {}", told.join(", ")) };
            let reason = if reason.is_empty() { String::new() } else { format!("; {reason}") };
            format!("{back}again [{}]{told}{reason}", again.join(", "))
        }
        Fact::WorkflowForked(e) => {
            let told = e.changes.told();
            let told = if told.is_empty() { String::new() } else { format!(" with {}", told.join(", ")) };
            format!("from {} at version {}{told}", e.lineage.parent, e.lineage.cut)
        }
        Fact::StepReused(e) => {
            let what = match (&e.output, &e.error) {
                (Some(output), _) => short(output),
                (None, Some(error)) => format!("{} {}", error.status, error.title),
                (None, None) => String::new(),
            };
            format!("from {} version {} -> {what}", e.workflow, e.version)
        }
        Fact::WriteHeld { reason, .. } => reason.clone(),
        Fact::WriteSettled { verdict, output, reason, .. } => {
            let output = output.as_ref().map(|output| format!(" -> {}", short(output))).unwrap_or_default();
            format!("{}{output}; {reason}", format!("{verdict:?}").to_lowercase())
        }
        Fact::WorkflowParked { recorded, asked, .. } => format!("recorded {recorded}, asked {asked}"),
    };
    let key = fact.key().map(|k| format!("{k}  ")).unwrap_or_default();
    format!("{:<17} {key}{what}", fact.event_type()).trim_end().to_owned()
}

fn of_scope(scope: &crate::Key) -> String {
    if scope.is_root() { String::new() } else { format!("of {scope} ") }
}

fn kind_name(kind: crate::TaskKind) -> String {
    format!("{kind:?}").to_lowercase()
}

fn effect(effect: crate::Effect) -> String {
    format!("{effect:?}").to_lowercase()
}

/// The value's JSON, cut after so many characters; its hash where it is not at hand.
fn short(slot: &Slot, most: usize) -> String {
    let text = match (slot.value(), slot) {
        (Some(value), _) => value.to_string(),
        (None, Slot::Stored(stored)) => {
            return format!("<{} bytes {:?}>", stored.bytes, stored.hash);
        }
        (None, Slot::Inline(_)) => String::new(),
    };
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
