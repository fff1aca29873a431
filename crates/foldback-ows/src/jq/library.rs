//! The definitions that every expression may call (`map`, `select`, `to_entries` …), read once in a
//! process; of each expression only those that it calls are compiled.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::ast::Def;
use super::natives;
use super::parse::parse_defs;

fn all() -> &'static BTreeMap<(String, usize), Def> {
    static ALL: OnceLock<BTreeMap<(String, usize), Def>> = OnceLock::new();
    ALL.get_or_init(|| {
        // A test reads it: it is never empty.
        let defs = parse_defs(include_str!("library.jq")).unwrap_or_default();
        defs.into_iter().map(|def| ((def.name.clone(), def.args.len()), def)).collect()
    })
}

/// The definition of this name.
pub(crate) fn find(name: &str, arity: usize) -> Option<&'static Def> {
    all().get(&(name.to_owned(), arity))
}

/// Names that a person may call, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let defined = all().keys().map(|(name, _)| name.as_str()).filter(|name| !name.starts_with('_'));
    defined.chain(natives::names()).chain(["empty", "path", "getpath", "range"])
}
