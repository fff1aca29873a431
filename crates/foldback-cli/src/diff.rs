//! `diff`: two workflows side by side. The first divergence on top, then what differs at each key,
//! then what both used.
//!
//! Never compares by itself: that is the core's (`report::diff`). Where colours are seen they say
//! what was taken out and what was put in; elsewhere `[-…-]` and `{+…+}` do.

use foldback::core::report::{
    Both, Compared, Comparison, Difference, Facet, Figures, Past, StepFigures, Tokens, Totals, Word, brief,
    cut, diff as compare, dollars,
};
use foldback::core::{Key, Status};
use foldback::store::Store;
use serde_json::Value;

use crate::args::{Cli, DiffArgs};
use crate::error::{Error, Exit};
use crate::moment::span;
use crate::out::{Ink, Line, Out};
use crate::reading::{self, Log, Values};
use crate::table;

/// Keys whose differences are shown.
const KEYS_MAX: usize = 40;
/// Places of a value that are shown.
const PATHS_MAX: usize = 12;
/// Characters of a value that are shown.
const VALUE_MAX: usize = 160;
/// Characters that are shown around words that changed.
const AROUND_MAX: usize = 30;
/// Changed pieces of a text that are shown.
const PIECES_MAX: usize = 12;
/// Columns of the names of what differs.
const FACET_WIDTH: usize = 10;

/// Compares two workflows.
///
/// # Errors
/// No such workflow or version, or the store fails. That they differ is no error: the answer is no.
pub fn diff(cli: &Cli, args: &DiffArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let (a, b) = (Half::read(cli, &*store, &args.a)?, Half::read(cli, &*store, &args.b)?);
    let mut found = compare(a.past(), b.past());
    for (half, side) in [(&a, &mut found.a), (&b, &mut found.b)] {
        if half.trouble.is_some() {
            side.status = Status::Quarantined;
        }
    }
    let mut out = Out::new();
    match cli.json {
        true => out.json(&found)?,
        false => print(&mut out, &found)?,
    }
    out.flush()?;
    match a.trouble.or(b.trouble) {
        Some(trouble) => Err(trouble),
        None => Ok(if found.is_same { Exit::Done } else { Exit::No }),
    }
}

/// One of the two, read up to its version.
struct Half {
    log: Log,
    end: usize,
    trouble: Option<Error>,
}

impl Half {
    fn read(cli: &Cli, store: &dyn Store, word: &str) -> Result<Half, Error> {
        let (id, version) = named(store, word)?;
        let mut log = reading::read(cli, store, id)?;
        let shown = log.up_to(cli, version)?;
        let (end, trouble) = (shown.len(), log.trouble(cli, shown));
        let mut values = Values::of(cli, store, &log.row);
        values.fill_all(&mut log.events[..end])?;
        values.told(cli);
        Ok(Half { log, end, trouble })
    }

    fn past(&self) -> Past<'_> {
        Past { workflow_id: &self.log.row.workflow_id, events: &self.log.events[..self.end] }
    }
}

/// The id and the version in `ID@VERSION`. An id may hold an `@` itself, and so may a key: the whole
/// is taken for an id where it is one, else what stands before the last `@` behind an id.
fn named<'a>(store: &dyn Store, word: &'a str) -> Result<(&'a str, Option<&'a str>), Error> {
    if store.workflow(word)?.is_some() {
        return Ok((word, None));
    }
    for (at, _) in word.rmatch_indices('@') {
        if store.workflow(&word[..at])?.is_some() {
            return Ok((&word[..at], Some(&word[at + 1..])));
        }
    }
    // Nothing of it is known: what a person most likely meant is told about.
    Ok(word
        .rsplit_once('@')
        .filter(|(id, _)| !id.is_empty())
        .map_or((word, None), |(id, version)| (id, Some(version))))
}

fn print(out: &mut Out, found: &Comparison) -> Result<(), Error> {
    match &found.first {
        Some(first) => out.line(
            Line::new()
                .dim("first: ")
                .ink(Ink::Bold, title(&first.key))
                .plain("  ")
                .ink(Ink::Yellow, what_of(first.what)),
        )?,
        None => out.line(Line::new().dim("first: ").ink(Ink::Green, "none, they are the same"))?,
    }
    let mut rest = &found.differences[..];
    let mut told = 0;
    while let Some(difference) = rest.first() {
        let block = rest.iter().take_while(|other| other.key == difference.key).count();
        if told < KEYS_MAX {
            let figures = found.figures.iter().find(|figures| figures.key == difference.key);
            print_block(out, &rest[..block], figures)?;
        }
        told += 1;
        rest = &rest[block..];
    }
    if told > KEYS_MAX {
        out.line("")?;
        out.line(Line::new().dim(format!("… {} more keys differ; --json shows all", told - KEYS_MAX)))?;
    }
    print_alone(out, found)?;
    out.line("")?;
    print_totals(out, found)
}

fn title(key: &Key) -> &str {
    if key.is_root() { "workflow" } else { key.as_str() }
}

fn what_of(what: Facet) -> String {
    match what {
        Facet::OnlyInA => "only in A".to_owned(),
        Facet::OnlyInB => "only in B".to_owned(),
        Facet::Kind
        | Facet::Effect
        | Facet::Request
        | Facet::Input
        | Facet::Status
        | Facet::Error
        | Facet::Cancelled
        | Facet::Output
        | Facet::Shaped
        | Facet::Model
        | Facet::Chosen
        | Facet::Options
        | Facet::Because => format!("{} differs", what.as_str()),
    }
}

/// All that differs at one key.
fn print_block(out: &mut Out, block: &[Difference], figures: Option<&StepFigures>) -> Result<(), Error> {
    out.line("")?;
    let key = block.first().map_or("", |difference| title(&difference.key));
    let took = figures.map(|f| format!("  {}", figures_text(&f.a, &f.b))).unwrap_or_default();
    out.line(Line::new().ink(Ink::Bold, key).dim(took))?;
    let has_colours = out.has_colours();
    for difference in block {
        for (at, line) in lines_of(difference, has_colours).into_iter().enumerate() {
            let name = if at == 0 { difference.what.as_str() } else { "" };
            out.line(Line::new().dim(format!("  {name:<FACET_WIDTH$}")).and(line))?;
        }
    }
    Ok(())
}

/// What a step took in both: `1.2 s → 1.4 s, 120+30 → 120+34 tokens, $0.0042 → $0.0044`.
fn figures_text(a: &Figures, b: &Figures) -> String {
    let time = |figures: &Figures| figures.duration_ms.map_or("?".to_owned(), span);
    // Both, also where they are the same: two measurements, not one thing.
    let mut parts = vec![format!("{} → {}", time(a), time(b))];
    let mut part = |one: String, other: String, unit: &str| {
        parts.push(if one == other { format!("{one}{unit}") } else { format!("{one} → {other}{unit}") });
    };
    if (a.tokens, b.tokens) != (Tokens::default(), Tokens::default()) {
        let tokens = |figures: &Figures| format!("{}+{}", figures.tokens.input, figures.tokens.output);
        part(tokens(a), tokens(b), " tokens");
    }
    if (a.micro_usd, b.micro_usd) != (Some(0), Some(0)) {
        let cost = |figures: &Figures| figures.micro_usd.map_or("?".to_owned(), dollars);
        part(cost(a), cost(b), "");
    }
    parts.join(", ")
}

/// How something differs, in lines.
fn lines_of(difference: &Difference, has_colours: bool) -> Vec<Line> {
    let (a, b) = (difference.a.as_deref(), difference.b.as_deref());
    match &difference.compared {
        Compared::Whole {} => vec![arrow(named_text(a), named_text(b))],
        Compared::Words { words } => vec![of_texts(a, b, Some(words), has_colours)],
        Compared::Lengths { .. } => vec![of_texts(a, b, None, has_colours)],
        Compared::Paths { paths, left_out } => {
            let wide = paths.iter().take(PATHS_MAX).map(|place| Line::from(&*place.path).width()).max();
            let mut lines: Vec<Line> = paths
                .iter()
                .take(PATHS_MAX)
                .map(|place| {
                    let (a, b) = (place.a.as_ref(), place.b.as_ref());
                    let path = cut(&place.path, VALUE_MAX);
                    let gap = if path.is_empty() { "" } else { "  " };
                    let shown = of_place(a, b, place.words.as_deref(), has_colours);
                    Line::new().ink(Ink::Cyan, path).padded(wide.unwrap_or(0).min(40)).plain(gap).and(shown)
                })
                .collect();
            let more = paths.len().saturating_sub(PATHS_MAX) + left_out;
            if more > 0 {
                lines.push(Line::new().dim(format!("… {more} more places; --json shows them")));
            }
            lines
        }
    }
}

fn of_place(a: Option<&Value>, b: Option<&Value>, words: Option<&[Word]>, has_colours: bool) -> Line {
    match (a, b) {
        (Some(one), None) => Line::new().ink(Ink::Red, format!("removed {}", brief(one, VALUE_MAX))),
        (None, Some(other)) => Line::new().ink(Ink::Green, format!("added {}", brief(other, VALUE_MAX))),
        (Some(Value::String(_)), Some(Value::String(_))) => of_texts(a, b, words, has_colours),
        (one, other) => arrow(json_text(one), json_text(other)),
    }
}

/// Two texts: by their words where they share some, else as they are, or by their lengths.
fn of_texts(a: Option<&Value>, b: Option<&Value>, words: Option<&[Word]>, has_colours: bool) -> Line {
    let is_shared = |word: &Word| matches!(word, Word::Same(text) if text.chars().any(char::is_alphanumeric));
    match words {
        Some(words) if words.iter().any(is_shared) => of_words(words, has_colours),
        Some(_) => arrow(json_text(a), json_text(b)),
        None => {
            let bytes = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, str::len);
            Line::new().plain(format!("differs: a text of {} bytes, and one of {} bytes", bytes(a), bytes(b)))
        }
    }
}

fn arrow(a: String, b: String) -> Line {
    Line::new().ink(Ink::Red, a).dim(" → ").ink(Ink::Green, b)
}

fn json_text(value: Option<&Value>) -> String {
    value.map_or("none".to_owned(), |value| brief(value, VALUE_MAX))
}

/// A name without quotes, an error by what it is called, all else as JSON.
fn named_text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => cut(text, VALUE_MAX),
        Some(Value::Object(error)) if error.contains_key("title") && error.contains_key("status") => {
            let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
            let detail = text("detail");
            let gap = if detail.is_empty() { "" } else { ": " };
            cut(&format!("{} {}{gap}{detail}", error["status"], text("title")), VALUE_MAX)
        }
        other => json_text(other),
    }
}

/// The words of two texts on one line: what changed, with a little of what stands around it.
fn of_words(words: &[Word], has_colours: bool) -> Line {
    let mut line = Line::new();
    let mut changes = 0;
    for (at, word) in words.iter().enumerate() {
        line = match word {
            Word::Same(text) => line.plain(around(text, at == 0, at + 1 == words.len())),
            Word::Removed(_) | Word::Added(_) if changes == PIECES_MAX => {
                return line.dim("… and more; --json shows all");
            }
            Word::Removed(text) => {
                changes += 1;
                line.ink(Ink::Red, marked(text, ["[-", "-]"], has_colours))
            }
            Word::Added(text) => {
                changes += 1;
                line.ink(Ink::Green, marked(text, ["{+", "+}"], has_colours))
            }
        };
    }
    line
}

fn marked(text: &str, [before, behind]: [&str; 2], has_colours: bool) -> String {
    let text = cut(text, VALUE_MAX);
    if has_colours { text } else { format!("{before}{text}{behind}") }
}

/// What of an unchanged piece stands next to a change.
fn around(text: &str, is_first: bool, is_last: bool) -> String {
    let length = text.chars().count();
    let head = if is_first { 0 } else { AROUND_MAX };
    let tail = if is_last { 0 } else { AROUND_MAX };
    if length <= head + tail + 1 {
        return text.to_owned();
    }
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{begin}…{end}")
}

/// What only one of the two has, and how much is the same.
fn print_alone(out: &mut Out, found: &Comparison) -> Result<(), Error> {
    let mut lines = Vec::new();
    for (name, keys, ink) in
        [("only in A", &found.only_in_a, Ink::Red), ("only in B", &found.only_in_b, Ink::Green)]
    {
        let mut told: Vec<&str> = keys.iter().take(KEYS_MAX).map(Key::as_str).collect();
        let more = format!("… {} more", keys.len().saturating_sub(KEYS_MAX));
        if keys.len() > KEYS_MAX {
            told.push(&more);
        }
        if !keys.is_empty() {
            lines.push(Line::new().dim(format!("{name}  ")).ink(ink, told.join(", ")));
        }
    }
    if found.equal > 0 {
        let s = if found.equal == 1 { "" } else { "s" };
        lines.push(Line::new().dim(format!("the same   {} step{s} or decision{s}", found.equal)));
    }
    if !lines.is_empty() {
        out.line("")?;
    }
    lines.into_iter().try_for_each(|line| out.line(line))
}

fn print_totals(out: &mut Out, found: &Comparison) -> Result<(), Error> {
    for (name, side) in [("A", &found.a), ("B", &found.b)] {
        let status = side.status.as_str();
        out.line(
            Line::new()
                .dim(format!("{name}  "))
                .ink(Ink::Bold, &*side.workflow_id)
                .dim(format!("@{}  ", side.version))
                .ink(crate::state::status_ink(status), status),
        )?;
    }
    let titles = [table::whole(""), table::number("A"), table::number("B"), table::number("difference")];
    table::print(out, &titles, totals(&found.totals))
}

fn totals(both: &Both<Totals>) -> Vec<Vec<Line>> {
    let row = |name: &str, of: fn(&Totals) -> u64, text: fn(u64) -> String| -> Vec<Line> {
        let (a, b) = (of(&both.a), of(&both.b));
        let sign = if a == b {
            ""
        } else if a < b {
            "+"
        } else {
            "-"
        };
        let difference = format!("{sign}{}", text(a.abs_diff(b)));
        vec![Line::new().dim(name), text(a).into(), text(b).into(), Line::new().dim(difference)]
    };
    let count = |n: u64| n.to_string();
    vec![
        row("steps", |t| t.steps, count),
        row("tokens in", |t| t.tokens.input, count),
        row("tokens out", |t| t.tokens.output, count),
        row("cost", |t| t.micro_usd, dollars),
        row("time", |t| t.duration_ms, span),
    ]
}
