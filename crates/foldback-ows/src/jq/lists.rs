//! The paths that an expression takes for lists, as far as that can be told without evaluating it. For
//! warnings only; evaluation never looks here.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::path::Part;

use super::paths::{StaticPath, Step, plain_text};

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
pub(crate) fn lists(term: &Term<&str>) -> Vec<StaticPath> {
    let mut lists = Vec::new();
    if takes_a_list(term) {
        lists.push(StaticPath { base: None, steps: Vec::new() });
    }
    gather(term, &mut lists);
    lists
}

/// Whether an expression begins with what is made for lists.
fn takes_a_list(term: &Term<&str>) -> bool {
    match term {
        Term::Call(name, _) => OF_LISTS.contains(name),
        Term::Path(base, path) => match **base {
            Term::Id => path.0.first().is_some_and(|(part, _)| goes_into_a_list(part)),
            _ => takes_a_list(base),
        },
        Term::BinOp(left, BinaryOp::Pipe(_), _) => takes_a_list(left),
        _ => false,
    }
}

fn goes_into_a_list(part: &Part<Term<&str>>) -> bool {
    match part {
        Part::Index(index) => matches!(index, Term::Num(_) | Term::Neg(_)),
        Part::Range(from, to) => from.is_none() && to.is_none(),
    }
}

/// Reads on only where the input is still the expression's own.
fn gather(term: &Term<&str>, lists: &mut Vec<StaticPath>) {
    match term {
        Term::Path(base, path) => {
            let at = path.0.iter().position(|(part, _)| goes_into_a_list(part));
            let members = path.0.iter().take(at.unwrap_or(0)).map(|(part, _)| match part {
                Part::Index(Term::Str(None, parts)) => plain_text(parts).map(Step::Member),
                Part::Index(_) | Part::Range(..) => None,
            });
            let members: Option<Vec<Step>> = members.collect();
            if let (Some(_), Some(mut found), Some(members)) = (at, StaticPath::of(base), members) {
                found.steps.extend(members);
                lists.push(found);
            }
            gather(base, lists);
        }
        Term::Str(_, parts) => parts.iter().for_each(|part| {
            if let StrPart::Term(term) = part {
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
        Term::IfThenElse(branches, otherwise) => {
            branches
                .iter()
                .flat_map(|(a, b)| [a, b])
                .chain(otherwise.as_deref())
                .for_each(|t| gather(t, lists));
        }
        _ => {}
    }
}
