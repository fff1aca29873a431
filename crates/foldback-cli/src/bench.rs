//! `bench`: what this machine does, on a file of its own that is removed afterwards.
//!
//! A figure stands beside the bare database loop of the same run on the identical table and
//! indexes, in turn (A B A B), so that the ratio means something on a noisy machine. Payloads do
//! not compress; durability is full; each row says what it ran.

use std::path::Path;

use serde_json::json;

use crate::args::{BenchArgs, Cli};
use crate::error::{Error, Exit};
use crate::out::{Line, Out, say};

mod asleep;
mod engine;
mod fold;
mod log;
mod past;
mod views;

/// How long one measurement lasts, and how often each is taken.
const SECONDS: f64 = 5.0;
const TURNS: usize = 2;
/// Workflows in flight.
const IN_FLIGHT: usize = 1_000;

/// What measures some rows that belong together, in a folder for its files.
type Measure = fn(&Path) -> Result<Vec<Row>, Error>;

/// Every row by name, in the order in which they are printed.
const GROUPS: [(&[&str], Measure); 11] = [
    (&["append"], log::appends),
    (&["steps"], engine::many),
    (&["projected"], engine::projected),
    (&["alone"], engine::alone),
    (&["fold", "fold-json", "fold-file"], fold::folds),
    (&["long", "back", "verify"], engine::long),
    (&["asleep", "due"], asleep::asleep),
    (&["catch-up"], views::caught_up),
    (&["list"], views::listed),
    (&["moment", "fork", "fork-read"], past::million),
    (&["value-256", "value-1k", "value-4k", "value-16k"], log::sizes),
];

/// One figure.
pub struct Row {
    bench: &'static str,
    value: f64,
    unit: &'static str,
    raw: Option<f64>,
    /// To `raw`, unless the note says to what.
    ratio: Option<f64>,
    note: String,
}

impl Row {
    fn new(bench: &'static str, value: f64, unit: &'static str, note: impl Into<String>) -> Row {
        Row { bench, value, unit, raw: None, ratio: None, note: note.into() }
    }

    fn against(self, raw: f64) -> Row {
        Row { raw: Some(raw), ratio: Some(self.value / raw), ..self }
    }
}

/// Runs the rows that were named, or all.
pub fn bench(cli: &Cli, args: &BenchArgs) -> Result<Exit, Error> {
    let known = || GROUPS.iter().flat_map(|(names, _)| *names);
    if let Some(unknown) = args.rows.iter().find(|row| !known().any(|name| name == row)) {
        let names = known().copied().collect::<Vec<_>>().join(", ");
        return Err(Error::input(format!("there is no row {unknown:?}"), format!("the rows are {names}")));
    }
    // Not in the temporary directory: that is often memory, where durability costs nothing.
    let folder = std::path::PathBuf::from(format!("foldback-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| Error::machine(format!("{}: {e}", folder.display())))?;
    let rows = measure(&folder, cli, &args.rows);
    // A folder that cannot be removed is only a nuisance; the figures are good.
    let _left = std::fs::remove_dir_all(&folder);
    rows.map(|()| Exit::Done)
}

fn measure(folder: &Path, cli: &Cli, wanted: &[String]) -> Result<(), Error> {
    let mut out = Out::new();
    say(format!(
        "each row takes up to {:.0} s; a quiet machine gives quiet figures",
        2.0 * SECONDS * TURNS as f64
    ));
    for (names, measure) in GROUPS {
        let is_wanted = |name: &&str| wanted.is_empty() || wanted.iter().any(|w| w == name);
        if !names.iter().any(is_wanted) {
            continue;
        }
        for row in measure(folder)?.iter().filter(|row| is_wanted(&row.bench)) {
            print(&mut out, cli, row)?;
        }
    }
    Ok(())
}

fn print(out: &mut Out, cli: &Cli, row: &Row) -> Result<(), Error> {
    if cli.json {
        out.json(&json!({"bench": row.bench, "value": row.value, "unit": row.unit, "raw": row.raw, "ratio": row.ratio, "note": row.note}))?;
    } else {
        let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let raw = row.raw.map(|raw| format!("of raw {raw:.0}")).unwrap_or_default();
        out.line(Line::new().plain(format!(
            "{:<10} {:>9.0} {:<8} {ratio:>5} {raw:<14} {}",
            row.bench, row.value, row.unit, row.note
        )))?;
    }
    out.flush()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Text that does not compress: 160 hex digits of a xorshift.
fn noise(dice: &mut u64) -> String {
    let mut text = String::with_capacity(160);
    for _ in 0..10 {
        *dice ^= *dice << 13;
        *dice ^= *dice >> 7;
        *dice ^= *dice << 17;
        text.push_str(&format!("{dice:016x}"));
    }
    text
}
