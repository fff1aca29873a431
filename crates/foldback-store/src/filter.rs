//! What the stores agree on when they are asked: which workflows a filter lets through.

use foldback_core::Hash;

use crate::contract::{Filter, StoreError, WorkflowRow};

/// What is refused where a store has only shard 0.
pub(crate) fn no_such_shard(shard: u32) -> StoreError {
    StoreError {
        message: format!("there is no shard {shard}: this store has one, 0"),
        hint: None,
        is_input: true,
    }
}

/// The statuses in which a workflow has ended.
pub(crate) const ENDED: [&str; 6] =
    ["completed", "failed", "cancelled", "compensated", "parked", "quarantined"];

/// Whether a text can be the beginning of a hash. Fewer than four digits would take names for
/// hashes too often.
pub(crate) fn may_be_hash(text: &str) -> bool {
    (4..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a person means this definition: by its name with its version, or by its name alone.
fn is_named(name: &str, wanted: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Whether a filter lets a workflow through.
pub(crate) fn passes(filter: &Filter, row: &WorkflowRow) -> bool {
    let is_of = |wanted: &String| {
        let begins = |hash: Hash| hash.to_hex().starts_with(&wanted.to_ascii_lowercase());
        is_named(&row.name, wanted) || (may_be_hash(wanted) && row.definition.is_some_and(begins))
    };
    filter.status.as_ref().is_none_or(|status| row.status == *status)
        && !(filter.only_unfinished && ENDED.contains(&row.status.as_str()))
        && filter.definition.as_ref().is_none_or(is_of)
}
