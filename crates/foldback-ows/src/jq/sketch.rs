//! What can be told of an expression without evaluating it: the members that it certainly reads,
//! and the outline of the value it makes. For warnings only; evaluation never looks here.

use super::ast::{BinaryOp, Math, Piece, Term, plain_text};
use super::paths::StaticPath;

/// The outline of a value.
#[derive(Clone, Debug, Default)]
pub(crate) enum Sketch {
    /// Nothing is known.
    #[default]
    Unknown,
    /// What stands at a path.
    Path(StaticPath),
    Object(Vec<(String, Sketch)>),
    Text,
    /// A number, a boolean, a list.
    Other,
    /// `a + b`.
    Sum(Box<Sketch>, Box<Sketch>),
    /// One of two.
    Either(Box<Sketch>, Box<Sketch>),
}

/// Outlines deeper than this are not drawn.
const DEPTH_MAX: usize = 8;

impl Sketch {
    pub fn of(term: &Term) -> Sketch {
        draw(term, DEPTH_MAX)
    }
}

fn draw(term: &Term, depth: usize) -> Sketch {
    if let Some(path) = StaticPath::of(term) {
        return Sketch::Path(path);
    }
    let Some(depth) = depth.checked_sub(1) else {
        return Sketch::Unknown;
    };
    let inner = |term: &Term| Box::new(draw(term, depth));
    match term {
        Term::Str(..) => Sketch::Text,
        Term::Num(_) | Term::Neg(_) | Term::Arr(_) | Term::BinOp(_, BinaryOp::Cmp(_), _) => Sketch::Other,
        Term::Obj(entries) => {
            let members = entries.iter().map(|(name, value)| match (name, value) {
                (Term::Var(name, _), None) => {
                    let path = StaticPath { base: Some(name.clone()), steps: Vec::new() };
                    Some((name.trim_start_matches('$').to_owned(), Sketch::Path(path)))
                }
                (Term::Str(None, parts), value) => {
                    let name = plain_text(parts)?;
                    let value = value.as_ref().map_or(Sketch::Unknown, |value| draw(value, depth));
                    Some((name, value))
                }
                _ => None,
            });
            members.collect::<Option<_>>().map_or(Sketch::Unknown, Sketch::Object)
        }
        Term::BinOp(left, BinaryOp::Math(Math::Add), right) => Sketch::Sum(inner(left), inner(right)),
        Term::BinOp(left, BinaryOp::Alt, right) => Sketch::Either(inner(left), inner(right)),
        Term::If(branches, Some(otherwise)) => branches
            .iter()
            .fold(draw(otherwise, depth), |all, (_, then)| Sketch::Either(Box::new(all), inner(then))),
        _ => Sketch::Unknown,
    }
}

/// The paths that an expression reads and that a value is needed for: not those behind which it says
/// what to take where there is nothing (`.a // 1`, `.a?`, `.a == null`, `.list + [1]`).
pub(crate) fn needs(term: &Term) -> Vec<StaticPath> {
    let mut needs = Vec::new();
    gather(term, &mut needs);
    needs
}

/// Reads on only where the input is still the expression's own.
fn gather(term: &Term, needs: &mut Vec<StaticPath>) {
    if let Some(path) = StaticPath::of(term) {
        if !path.steps.is_empty() && !needs.contains(&path) {
            needs.push(path);
        }
        return;
    }
    match term {
        Term::Str(_, parts) => parts.iter().for_each(|part| {
            if let Piece::Term(term) = part {
                gather(term, needs);
            }
        }),
        Term::Arr(Some(inner)) | Term::Neg(inner) => gather(inner, needs),
        Term::Obj(entries) => entries.iter().filter_map(|(_, v)| v.as_ref()).for_each(|v| gather(v, needs)),
        Term::BinOp(left, op, right) => match op {
            BinaryOp::Alt => gather(right, needs),
            BinaryOp::Pipe(_) => gather(left, needs),
            BinaryOp::Cmp(_) if is_null(left) || is_null(right) => {}
            BinaryOp::Math(Math::Add) if starts_from_nothing(left) || starts_from_nothing(right) => {}
            // `.a and …`, `.a or …` ask whether there is something.
            BinaryOp::And | BinaryOp::Or => {}
            BinaryOp::Math(_) | BinaryOp::Cmp(_) | BinaryOp::Comma => {
                gather(left, needs);
                gather(right, needs);
            }
            BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => {}
        },
        Term::If(branches, _) => {
            // Only the first condition is certainly looked at.
            if let Some((condition, _)) = branches.first() {
                gather(condition, needs);
            }
        }
        Term::Path(base, ..) => gather(base, needs),
        _ => {}
    }
}

fn is_null(term: &Term) -> bool {
    matches!(term, Term::Call(name, arguments, _) if name == "null" && arguments.is_empty())
}

/// `null + [1]` is `[1]`: a list, an object or a number that is added to may not be there yet.
fn starts_from_nothing(term: &Term) -> bool {
    matches!(term, Term::Arr(_) | Term::Obj(_) | Term::Num(_))
}
