//! How deep an expression nests on the machine's stack while it is compiled and evaluated,
//! measured on the form that counts (see `rewrite`), library included. It only measures.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Pattern, Term};
use jaq_core::path::Part;

/// The nesting of a term. `library` tells what a call of a definition adds.
pub(crate) fn depth(term: &Term<&str>, library: &dyn Fn(&str, usize) -> u32) -> u32 {
    let of = |term: &Term<&str>| depth(term, library);
    let all = |terms: &[Term<&str>]| terms.iter().map(of).max().unwrap_or(0);
    let inside = match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_) => 0,
        Term::Str(_, parts) => {
            let part = |part: &StrPart<&str, Term<&str>>| match part {
                StrPart::Term(term) => of(term),
                StrPart::Str(_) | StrPart::Char(_) => 0,
            };
            sum(parts.iter().map(part))
        }
        Term::Arr(inner) => inner.as_ref().map_or(0, |inner| of(inner)),
        // An object is a sum of its members.
        Term::Obj(entries) => {
            sum(entries.iter().map(|(name, value)| of(name).max(value.as_ref().map_or(0, of))))
        }
        Term::Neg(inner) | Term::Label(_, inner) => of(inner),
        Term::BinOp(left, op, right) => {
            let pattern = match op {
                BinaryOp::Pipe(Some(pattern)) => pattern_depth(pattern, library),
                BinaryOp::Pipe(None)
                | BinaryOp::Comma
                | BinaryOp::Alt
                | BinaryOp::Or
                | BinaryOp::And
                | BinaryOp::Math(_)
                | BinaryOp::Cmp(_)
                | BinaryOp::Assign
                | BinaryOp::Update
                | BinaryOp::UpdateMath(_)
                | BinaryOp::UpdateAlt => 0,
            };
            of(left).max(of(right)).max(pattern)
        }
        Term::Fold(_, items, pattern, rest) => {
            1 + of(items).max(all(rest)).max(pattern_depth(pattern, library))
        }
        Term::TryCatch(inner, handler) => of(inner).max(handler.as_ref().map_or(0, |handler| of(handler))),
        Term::IfThenElse(branches, otherwise) => {
            let otherwise = otherwise.as_ref().map_or(0, |otherwise| of(otherwise));
            sum(branches.iter().map(|(condition, then)| of(condition).max(of(then))).chain([otherwise]))
        }
        Term::Def(definitions, body) => {
            definitions.iter().map(|definition| of(&definition.body)).max().unwrap_or(0) + of(body)
        }
        Term::Call(name, arguments) => library(name, arguments.len()) + all(arguments),
        Term::Path(base, path) => {
            let parts = path.0.iter().map(|(part, _)| match part {
                Part::Index(index) => of(index),
                Part::Range(from, to) => from.iter().chain(to).map(of).max().unwrap_or(0),
            });
            of(base).max(parts.max().unwrap_or(0)) + u32::try_from(path.0.len()).unwrap_or(u32::MAX) / 4
        }
    };
    inside.saturating_add(1)
}

/// The depth of things that stand in a row, each inside the one before it.
fn sum(parts: impl Iterator<Item = u32>) -> u32 {
    let (count, deepest) = parts.fold((0u32, 0u32), |(count, deepest), part| (count + 1, deepest.max(part)));
    count.saturating_add(deepest)
}

fn pattern_depth(pattern: &Pattern<&str>, library: &dyn Fn(&str, usize) -> u32) -> u32 {
    1 + match pattern {
        Pattern::Var(_) => 0,
        Pattern::Arr(items) => items.iter().map(|item| pattern_depth(item, library)).max().unwrap_or(0),
        Pattern::Obj(entries) => entries
            .iter()
            .map(|(name, inner)| depth(name, library).max(pattern_depth(inner, library)))
            .max()
            .unwrap_or(0),
    }
}
