//! `diff`: two workflows side by side. The first divergence on top, then what differs at each key,
//! then what both used.
//!
//! Never compares by itself: that is the core's (`report::diff`). Where colours are seen they say
//! what was taken out and what was put in; elsewhere `[-…-]` and `{+…+}` do.

use std::collections::HashSet;

use foldback::core::report::{
    Ahead, Both, Compared, Comparison, Detailing, Details, Difference, Facet, Figures, Outline, Outlining,
    StepFigures, Tokens, Totals, Word, brief, compare, cut, dollars,
};
use foldback::core::{Key, Status, Version};
use foldback::store::{Store, WorkflowRow};
use serde_json::Value;

use crate::args::{Cli, DiffArgs};
use crate::error::{Error, Exit};
use crate::moment::span;
use crate::out::{Ink, Line, Out};
use crate::reading::{self, Values};
use crate::table;

/// Keys whose differences are shown.
const KEYS_MAX: usize = 40;
/// Places of a value that are shown.
const PATHS_MAX: usize = 12;
/// Characters of a value that are shown.
const VALUE_MAX: usize = 160;
/// Characters of a text that is shown whole, beside another.
const WHOLE_MAX: usize = 2_000;
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
    let store = &*store;
    let (mut a, mut b) = (Half::named(cli, store, &args.a)?, Half::named(cli, store, &args.b)?);
    let (one, other) = (a.outline(cli, store)?, b.outline(cli, store)?);
    let wanted = one.wanted(&other);
    let (one_details, other_details) = (a.details(cli, store, &wanted)?, b.details(cli, store, &wanted)?);
    let mut found = compare((one, one_details), (other, other_details));
    for (half, side) in [(&a, &mut found.a), (&b, &mut found.b)] {
        if half.trouble.is_some() {
            side.status = Status::Quarantined;
        }
    }
    let mut out = Out::new().full(args.full);
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

/// One of the two, up to its version. It is read once in outline, and once more for what differs.
struct Half {
    row: WorkflowRow,
    to: Version,
    ahead: Ahead,
    trouble: Option<Error>,
}

impl Half {
    fn named(cli: &Cli, store: &dyn Store, word: &str) -> Result<Half, Error> {
        let (id, version) = named(store, word)?;
        let row = reading::row(cli, store, id)?;
        let to = reading::version(cli, store, &row, version)?;
        let ahead = reading::ahead(store, id, to)?;
        Ok(Half { row, to, ahead, trouble: None })
    }

    fn outline(&mut self, cli: &Cli, store: &dyn Store) -> Result<Outline, Error> {
        let id = &self.row.workflow_id;
        let mut outlining = Outlining::new(id, &self.ahead);
        let mut values = Values::of(cli, store, &self.row);
        let mut walked = reading::walk(store, id, self.to, Some(&mut values), &mut |_, event| {
            outlining.read(event);
            Ok(())
        })?;
        values.fill_state(&mut walked.state)?;
        values.told(cli);
        self.trouble = reading::trouble(cli, &self.row, &walked);
        Ok(outlining.finish(&walked.state))
    }

    fn details(&self, cli: &Cli, store: &dyn Store, wanted: &HashSet<Key>) -> Result<Details, Error> {
        let mut detailing = Detailing::new(wanted, &self.ahead);
        if !wanted.is_empty() {
            let mut values = Values::of(cli, store, &self.row);
            reading::walk(store, &self.row.workflow_id, self.to, Some(&mut values), &mut |_, event| {
                detailing.read(event);
                Ok(())
            })?;
        }
        Ok(detailing.finish())
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
    let keys_max = out.most(KEYS_MAX);
    let mut rest = &found.differences[..];
    let mut told = 0;
    while let Some(difference) = rest.first() {
        let block = rest.iter().take_while(|other| other.key == difference.key).count();
        if told < keys_max {
            let figures = found.figures.iter().find(|figures| figures.key == difference.key);
            print_block(out, &rest[..block], figures)?;
        }
        told += 1;
        rest = &rest[block..];
    }
    if told > keys_max {
        out.line("")?;
        out.line(Line::new().dim(format!("… {} more keys differ; --full shows all", told - keys_max)))?;
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
    let shown = Shown { has_colours: out.has_colours(), is_full: out.most(1) > 1 };
    for difference in block {
        for (at, line) in lines_of(difference, &shown).into_iter().enumerate() {
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
fn lines_of(difference: &Difference, shown: &Shown) -> Vec<Line> {
    let (a, b) = (difference.a.as_deref(), difference.b.as_deref());
    match &difference.compared {
        Compared::Whole {} => vec![arrow(named_text(a, shown), named_text(b, shown))],
        Compared::Words { words } => of_texts(a, b, Some(words), shown),
        Compared::Lengths { .. } => of_texts(a, b, None, shown),
        Compared::Paths { paths, left_out } => {
            let most = shown.most(PATHS_MAX);
            let wide = paths.iter().take(most).map(|place| Line::from(&*place.path).width()).max();
            let wide = wide.unwrap_or(0).min(40);
            let mut lines = Vec::new();
            for place in paths.iter().take(most) {
                let (a, b) = (place.a.as_ref(), place.b.as_ref());
                let path = cut(&place.path, shown.most(VALUE_MAX));
                let gap = if path.is_empty() { "" } else { "  " };
                for (at, line) in of_place(a, b, place.words.as_deref(), shown).into_iter().enumerate() {
                    let path = if at == 0 { path.as_str() } else { "" };
                    lines.push(Line::new().ink(Ink::Cyan, path).padded(wide).plain(gap).and(line));
                }
            }
            let more = paths.len().saturating_sub(most) + left_out;
            if more > 0 {
                lines.push(Line::new().dim(format!("… {more} more places; --full shows them")));
            }
            lines
        }
    }
}

fn of_place(a: Option<&Value>, b: Option<&Value>, words: Option<&[Word]>, shown: &Shown) -> Vec<Line> {
    let most = shown.most(VALUE_MAX);
    match (a, b) {
        (Some(one), None) => vec![Line::new().ink(Ink::Red, format!("removed {}", brief(one, most)))],
        (None, Some(other)) => vec![Line::new().ink(Ink::Green, format!("added {}", brief(other, most)))],
        (Some(Value::String(_)), Some(Value::String(_))) => of_texts(a, b, words, shown),
        (one, other) => vec![arrow(json_text(one, shown), json_text(other, shown))],
    }
}

/// Two texts: by their words where they have much in common, else both whole, or by their lengths.
fn of_texts(a: Option<&Value>, b: Option<&Value>, words: Option<&[Word]>, shown: &Shown) -> Vec<Line> {
    match words {
        Some(words) if has_much_in_common(words) => vec![of_words(words, shown)],
        Some(_) => whole(a, b, shown),
        None if shown.is_full => whole(a, b, shown),
        None => {
            let bytes = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, str::len);
            let text = format!("differs: a text of {} bytes, and one of {} bytes", bytes(a), bytes(b));
            vec![Line::new().plain(text)]
        }
    }
}

/// Whether at least two fifths of what is written in the longer text stand in both: below that, changed words
/// between kept ones read as neither text.
fn has_much_in_common(words: &[Word]) -> bool {
    let letters = |text: &String| text.chars().filter(|c| c.is_alphanumeric()).count();
    let (mut same, mut removed, mut added) = (0, 0, 0);
    for word in words {
        match word {
            Word::Same(text) => same += letters(text),
            Word::Removed(text) => removed += letters(text),
            Word::Added(text) => added += letters(text),
        }
    }
    same * 5 >= (same + removed.max(added)) * 2 && same > 0
}

/// Both, one below the other.
fn whole(a: Option<&Value>, b: Option<&Value>, shown: &Shown) -> Vec<Line> {
    let short = [a, b].into_iter().flatten().all(|value| value.to_string().chars().count() <= VALUE_MAX / 2);
    if short {
        return vec![arrow(json_text(a, shown), json_text(b, shown))];
    }
    let text =
        |value: Option<&Value>| value.map_or("none".to_owned(), |value| brief(value, shown.most(WHOLE_MAX)));
    vec![
        Line::new().ink(Ink::Red, format!("- {}", text(a))),
        Line::new().ink(Ink::Green, format!("+ {}", text(b))),
    ]
}

fn arrow(a: String, b: String) -> Line {
    Line::new().ink(Ink::Red, a).dim(" → ").ink(Ink::Green, b)
}

fn json_text(value: Option<&Value>, shown: &Shown) -> String {
    value.map_or("none".to_owned(), |value| brief(value, shown.most(VALUE_MAX)))
}

/// How differences are shown.
struct Shown {
    has_colours: bool,
    is_full: bool,
}

impl Shown {
    fn most(&self, count: usize) -> usize {
        if self.is_full { usize::MAX } else { count }
    }
}

/// A name without quotes, an error by what it is called, all else as JSON.
fn named_text(value: Option<&Value>, shown: &Shown) -> String {
    let most = shown.most(VALUE_MAX);
    match value {
        Some(Value::String(text)) => cut(text, most),
        Some(Value::Object(error)) if error.contains_key("title") && error.contains_key("status") => {
            let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
            let detail = text("detail");
            let gap = if detail.is_empty() { "" } else { ": " };
            cut(&format!("{} {}{gap}{detail}", error["status"], text("title")), most)
        }
        other => json_text(other, shown),
    }
}

/// The words of two texts on one line: what changed, with a little of what stands around it.
fn of_words(words: &[Word], shown: &Shown) -> Line {
    let mut line = Line::new();
    let mut changes = 0;
    for (at, word) in words.iter().enumerate() {
        line = match word {
            Word::Same(text) => line.plain(if shown.is_full {
                text.clone()
            } else {
                around(text, at == 0, at + 1 == words.len())
            }),
            Word::Removed(_) | Word::Added(_) if changes == shown.most(PIECES_MAX) => {
                return line.dim("… and more; --full shows all");
            }
            Word::Removed(text) => {
                changes += 1;
                line.ink(Ink::Red, marked(text, ["[-", "-]"], shown))
            }
            Word::Added(text) => {
                changes += 1;
                line.ink(Ink::Green, marked(text, ["{+", "+}"], shown))
            }
        };
    }
    line
}

fn marked(text: &str, [before, behind]: [&str; 2], shown: &Shown) -> String {
    let text = cut(text, shown.most(VALUE_MAX));
    if shown.has_colours { text } else { format!("{before}{text}{behind}") }
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
    let has_fork = [&found.a, &found.b].iter().any(|side| side.workflow_id.contains('~'));
    table::print(out, &titles, totals(&found.totals, has_fork))
}

/// The table of totals. Those of a fork are of its whole way: `show` and `list` count what it did itself.
fn totals(both: &Both<Totals>, has_fork: bool) -> Vec<Vec<Line>> {
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
    let mut rows = vec![
        row(if has_fork { "steps, with shared" } else { "steps" }, |t| t.steps, count),
        // What was taken from a log was paid for there: it is neither spent again nor saved.
        row("tokens in", |t| t.tokens.input + t.reused_tokens.input, count),
        row("tokens out", |t| t.tokens.output + t.reused_tokens.output, count),
        row("cost", |t| t.micro_usd + t.reused_micro_usd, dollars),
    ];
    if [both.a, both.b].iter().any(|totals| totals.reused_tokens != Tokens::default()) {
        rows.push(row("  in reused", |t| t.reused_tokens.input, count));
        rows.push(row("  out reused", |t| t.reused_tokens.output, count));
        rows.push(row("  cost reused", |t| t.reused_micro_usd, dollars));
    }
    rows.push(row("time", |t| t.duration_ms, span));
    rows
}
