//! The paths that an expression takes for lists, as far as that can be told without evaluating it. For
//! warnings only; evaluation never looks here.

use super::ast::{BinaryOp, Part, Piece, Term};
use super::paths::{StaticPath, Step};

/// What is made for lists.
const OF_LISTS: [&str; 22] = [
    "add",
    "all",
    "any",
    "first",
    "flatten",
    "group_by",
    "index",
    "join",
    "last",
    "length",
    "map",
    "max",
    "max_by",
    "min",
    "min_by",
    "nth",
    "reverse",
    "sort",
    "sort_by",
    "transpose",
    "unique",
    "unique_by",
];

/// The paths whose value is taken for a list.
pub(crate) fn lists(term: &Term) -> Vec<StaticPath> {
    let mut lists = Vec::new();
    if takes_a_list(term) {
        lists.push(StaticPath { base: None, steps: Vec::new() });
    }
    gather(term, &mut lists);
    lists
}

/// Whether an expression begins with what is made for lists.
fn takes_a_list(term: &Term) -> bool {
    match term {
        Term::Call(name, ..) => OF_LISTS.contains(&name.as_str()),
        Term::Path(base, part, _) => match **base {
            Term::Id => goes_into_a_list(part),
            _ => takes_a_list(base),
        },
        Term::BinOp(left, BinaryOp::Pipe(_), _) => takes_a_list(left),
        _ => false,
    }
}

fn goes_into_a_list(part: &Part) -> bool {
    match part {
        Part::Index(index) => matches!(**index, Term::Num(_) | Term::Neg(_)),
        Part::Range(..) => false,
        Part::Each => true,
    }
}

/// Reads on only where the input is still the expression's own.
fn gather(term: &Term, lists: &mut Vec<StaticPath>) {
    match term {
        Term::Path(base, part, _) => {
            let is_member = |step: &Step| matches!(step, Step::Member(_));
            if let Some(found) = StaticPath::of(base).filter(|_| goes_into_a_list(part))
                && found.steps.iter().all(is_member)
            {
                lists.push(found);
            }
            gather(base, lists);
        }
        Term::Str(_, parts) => parts.iter().for_each(|part| {
            if let Piece::Term(term) = part {
                gather(term, lists);
            }
        }),
        Term::Arr(Some(inner)) | Term::Neg(inner) => gather(inner, lists),
        Term::Obj(entries) => entries.iter().filter_map(|(_, v)| v.as_ref()).for_each(|v| gather(v, lists)),
        Term::BinOp(left, BinaryOp::Pipe(_), right) => {
            if let Some(path) = StaticPath::of(left).filter(|_| takes_a_list(right)) {
                lists.push(path);
            }
            gather(left, lists);
        }
        Term::BinOp(left, _, right) => {
            gather(left, lists);
            gather(right, lists);
        }
        Term::If(branches, otherwise) => {
            branches
                .iter()
                .flat_map(|(a, b)| [a, b])
                .chain(otherwise.as_deref())
                .for_each(|t| gather(t, lists));
        }
        _ => {}
    }
}
