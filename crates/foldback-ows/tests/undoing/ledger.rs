//! What was done and taken back in the world, in which order, and whether that is what the model says.
//! It performs nothing, and reads no log.

use std::collections::{BTreeMap, BTreeSet};

use foldback_core::Key;

use crate::document::Facts;
use crate::model::Model;

/// What took effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// A write of the flow, by what identifies its effect.
    Done { key: Key, id: String },
    /// A write that takes an effect back.
    Undone { key: Key, id: String },
}

/// Effects of the flow that stand, by what identifies them.
pub fn left(order: &[Happened]) -> BTreeSet<String> {
    let mut left = BTreeSet::new();
    for happened in order {
        match happened {
            Happened::Done { id, .. } => left.insert(id.clone()),
            Happened::Undone { key, id } if key.name() == "back" => left.remove(id),
            Happened::Undone { .. } => false,
        };
    }
    left
}

/// What was done and undone in the world is what the model says, in its order, each once. `left` is what
/// stands, also of what was done before `order` begins.
pub fn agrees(
    facts: &Facts,
    model: &Model<'_>,
    order: &[Happened],
    left: &BTreeSet<String>,
) -> Result<(), String> {
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    let mut undone: Vec<String> = Vec::new();
    let mut could_be = BTreeSet::new();
    for happened in order {
        match happened {
            Happened::Done { key, id } if facts.takes_back(key).is_some() => {
                could_be.insert(id.clone());
            }
            Happened::Done { .. } => {}
            Happened::Undone { key, id } => {
                if !seen.insert((key.name().to_owned(), id.clone())) {
                    // An event of Rust code has the name that the code gives it, each time.
                    match id.starts_with("told") {
                        true => continue,
                        false => return Err(format!("`{key}` took effect twice")),
                    }
                }
                let wanted = key.undone().and_then(|of| facts.takes_back(&of).cloned());
                if !wanted.unwrap_or_default().contains(&key.name()) {
                    return Err(format!("`{key}` takes nothing back"));
                }
                // The last of its tasks says that it is taken back.
                if key.name() == "back" {
                    undone.push(id.clone());
                }
            }
        }
    }
    in_order(model, &undone)?;
    // What a walk was at when it was broken off may have come about or not.
    let told = |id: &&String| could_be.contains(*id);
    let standing: Vec<&String> = left.iter().filter(told).collect();
    let wanted: Vec<&String> = model.standing.iter().filter(told).collect();
    match standing == wanted {
        true => Ok(()),
        false => Err(format!("there stands {standing:?}, where the model says {wanted:?}")),
    }
}

/// Each walk took back in the order of the model; walks side by side have none among them. Two tries of
/// one write are one effect, and so are the undos of both.
fn in_order(model: &Model<'_>, undone: &[String]) -> Result<(), String> {
    let mut walks: BTreeMap<&Key, Vec<&String>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (scope, id) in &model.undone {
        if known.insert(id) {
            walks.entry(scope).or_default().push(id);
        }
    }
    for (scope, wanted) in walks {
        let found: Vec<&String> = undone.iter().filter(|id| wanted.contains(id)).collect();
        if found != wanted {
            return Err(format!("the walk of `{scope}` took back {found:?}, the model's {wanted:?}"));
        }
    }
    Ok(())
}
