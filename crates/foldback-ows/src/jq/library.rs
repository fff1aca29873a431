//! The definitions that every expression may call (`map`, `select`, `to_entries` …): jaq's own,
//! made to count, and of each expression only those that it calls.
//!
//! Read once in a process and never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use jaq_core::load::parse::Def;

use super::depth::depth;
use super::natives;
use super::paths::Uses;
use super::rewrite::Rewriter;

struct Entry {
    definition: Def<&'static str>,
    calls: BTreeSet<(String, usize)>,
    depth: u32,
}

/// The variable for `l += r` in the library and in expressions.
pub(crate) const FRESH: &str = "$!r";

fn raw() -> &'static [Def<&'static str>] {
    static RAW: OnceLock<Vec<Def<&'static str>>> = OnceLock::new();
    RAW.get_or_init(|| jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs()).collect())
}

/// Whether the library defines this name.
pub(crate) fn has(name: &str, arity: usize) -> bool {
    static NAMES: OnceLock<BTreeSet<(&'static str, usize)>> = OnceLock::new();
    NAMES.get_or_init(|| raw().iter().map(|d| (d.name, d.args.len())).collect()).contains(&(name, arity))
}

/// Whether a native of this name exists.
pub(crate) fn is_native(name: &str, arity: usize) -> bool {
    static NAMES: OnceLock<BTreeSet<(&'static str, usize)>> = OnceLock::new();
    let names =
        NAMES.get_or_init(|| natives::all().into_iter().map(|(name, args, _)| (name, args.len())).collect());
    names.contains(&(name, arity))
}

/// Names that a person may call, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    raw().iter().map(|definition| definition.name)
}

fn entries() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let mut entries: Vec<Entry> = Vec::new();
        for definition in raw() {
            let calls = Uses::of(&definition.body).calls;
            let mut rewriter =
                Rewriter { natives: &is_native, around: Vec::new(), made: Vec::new(), fresh: FRESH };
            let definition = rewriter.definition(definition.clone(), &[]);
            let known = |name: &str, arity: usize| depth_in(&entries, name, arity);
            let depth = depth(&definition.body, &known);
            entries.push(Entry { definition, calls, depth });
        }
        entries
    })
}

fn depth_in(entries: &[Entry], name: &str, arity: usize) -> u32 {
    let is_it = |entry: &&Entry| entry.definition.name == name && entry.definition.args.len() == arity;
    entries.iter().rev().find(is_it).map_or(0, |entry| entry.depth)
}

/// How deep a call of a definition of the library nests; 0 for all other calls.
pub(crate) fn depth_of(name: &str, arity: usize) -> u32 {
    static DEPTHS: OnceLock<BTreeMap<(&'static str, usize), u32>> = OnceLock::new();
    let depths = DEPTHS.get_or_init(|| {
        let depth = |entry: &Entry| ((entry.definition.name, entry.definition.args.len()), entry.depth);
        entries().iter().map(depth).collect()
    });
    depths.get(&(name, arity)).copied().unwrap_or(0)
}

/// The definitions that these calls need, in the order in which they stand in the library.
pub(crate) fn needed(calls: &BTreeSet<(String, usize)>) -> Vec<Def<&'static str>> {
    let mut wanted: BTreeSet<(String, usize)> = calls.clone();
    // Rewriting may call these.
    wanted.insert(("empty".into(), 0));
    let mut needed: Vec<&Entry> = Vec::new();
    // A definition calls only what stands before it, so one walk from the end finds all.
    for entry in entries().iter().rev() {
        if wanted.contains(&(entry.definition.name.to_owned(), entry.definition.args.len())) {
            wanted.extend(entry.calls.iter().cloned());
            needed.push(entry);
        }
    }
    needed.into_iter().rev().map(|entry| entry.definition.clone()).collect()
}
