//! How a parsed expression is made to count: every place that yields, makes, compares or calls is
//! led through a native that pays for it. See `bounds` for why that is enough.
//!
//! It never changes what an expression means, but for the bounds. Tail calls stay tail calls: a
//! call in tail position to a definition around it is left as it is, every other call to a
//! person's definition, and every other recursion, nests and is counted while it does.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::ops::{Cmp, Math};
use jaq_core::path::{Opt, Part, Path};

use super::natives::CHEAP;

type Name<'s> = (&'s str, usize);

/// What is known where a term stands.
pub(crate) struct Rewriter<'s, 'k> {
    /// Names of native filters with their arity.
    pub natives: &'k dyn Fn(&str, usize) -> bool,
    /// Definitions around the term, from the outside.
    pub around: Vec<Name<'s>>,
    /// Definitions made in this expression so far, wherever they are known.
    pub made: Vec<Name<'s>>,
    /// Variables made for `l += r`.
    pub fresh: &'s str,
}

impl<'s> Rewriter<'s, '_> {
    pub fn definition(&mut self, definition: Def<&'s str>, tail: &[Name<'s>]) -> Def<&'s str> {
        let name = (definition.name, definition.args.len());
        let mut tail = tail.to_vec();
        // An argument that is a filter holds the one of the call before it: a tail call with one
        // would make a chain without end. Values hold nothing.
        if definition.args.iter().all(|argument| argument.starts_with('$')) {
            tail.push(name);
        }
        self.around.push(name);
        self.made.push(name);
        let body = self.term(definition.body, &tail);
        self.around.pop();
        // `def f: f;` yields nothing and calls for ever: each call counts.
        Def { body: pipe(native("!tick"), body), ..definition }
    }

    fn inner(&mut self, term: Term<&'s str>) -> Term<&'s str> {
        self.term(term, &[])
    }

    fn boxed(&mut self, term: Term<&'s str>) -> Box<Term<&'s str>> {
        Box::new(self.inner(term))
    }

    /// A term whose every output is counted.
    fn counted(&mut self, term: Term<&'s str>) -> Term<&'s str> {
        match term {
            // These yield once, and cost nothing.
            Term::Id | Term::Num(_) | Term::Var(_) => term,
            term => ticked(self.inner(term)),
        }
    }

    /// `tail`: the definitions to which a call here is a tail call.
    pub fn term(&mut self, term: Term<&'s str>, tail: &[Name<'s>]) -> Term<&'s str> {
        match term {
            Term::Id | Term::Num(_) | Term::Var(_) | Term::Break(_) => term,
            Term::Recurse => ticked(Term::Recurse),
            Term::Str(format, parts) => self.text(format, parts),
            Term::Arr(inner) => weighed(Term::Arr(inner.map(|inner| Box::new(self.counted(*inner))))),
            Term::Obj(entries) => {
                let entries = entries.into_iter().map(|(name, value)| match (name, value) {
                    (name @ Term::Var(_), None) => (name, None),
                    // `{a}` is `{a: .a}`; a name that is computed is computed once for each.
                    (name, None) => {
                        let name = self.inner(name);
                        let value = Term::Path(
                            Box::new(Term::Id),
                            Path(vec![(Part::Index(name.clone()), Opt::Essential)]),
                        );
                        (name, Some(value))
                    }
                    (name, Some(value)) => (self.inner(name), Some(self.counted(value))),
                });
                weighed(Term::Obj(entries.collect()))
            }
            Term::Neg(inner) => Term::Neg(self.boxed(*inner)),
            Term::Label(name, inner) => Term::Label(name, self.boxed(*inner)),
            Term::BinOp(left, op, right) => self.operation(*left, op, *right, tail),
            Term::Fold(name, items, pattern, rest) => {
                let items = Box::new(self.counted(*items));
                let pattern = self.pattern(pattern);
                let is_foreach = name == "foreach";
                let rest = rest.into_iter().enumerate().map(|(i, part)| match i {
                    2 if is_foreach => self.term(part, tail),
                    _ => ticked(self.inner(part)),
                });
                Term::Fold(name, items, pattern, rest.collect())
            }
            Term::TryCatch(inner, handler) => {
                // An error's text may be as long as the value that caused it.
                let handler = handler.map_or_else(|| call("empty", Vec::new()), |handler| *handler);
                let handler = pipe(native("!weigh"), self.inner(handler));
                Term::TryCatch(self.boxed(*inner), Some(Box::new(handler)))
            }
            Term::IfThenElse(branches, otherwise) => {
                let branches = branches
                    .into_iter()
                    .map(|(condition, then)| (self.counted(condition), self.term(then, tail)));
                let branches = branches.collect();
                Term::IfThenElse(branches, otherwise.map(|otherwise| Box::new(self.term(*otherwise, tail))))
            }
            Term::Def(definitions, body) => {
                let definitions =
                    definitions.into_iter().map(|definition| self.definition(definition, tail)).collect();
                Term::Def(definitions, Box::new(self.term(*body, tail)))
            }
            Term::Call(name, arguments) => self.call(name, arguments, tail),
            Term::Path(base, path) => {
                let is_counted = path.0.iter().any(|(part, _)| moves(part));
                let parts = path.0.into_iter().map(|(part, opt)| {
                    let part = match part {
                        Part::Index(index) if is_constant(&index) => Part::Index(index),
                        Part::Index(index) => Part::Index(pipe(self.counted(index), native("!index"))),
                        Part::Range(from, to) => {
                            Part::Range(from.map(|end| self.counted(end)), to.map(|end| self.counted(end)))
                        }
                    };
                    (part, opt)
                });
                let path = Path(parts.collect());
                let path = Term::Path(self.boxed(*base), path);
                if is_counted { ticked(path) } else { path }
            }
        }
    }

    fn operation(
        &mut self,
        left: Term<&'s str>,
        op: BinaryOp<&'s str>,
        right: Term<&'s str>,
        tail: &[Name<'s>],
    ) -> Term<&'s str> {
        match op {
            BinaryOp::Pipe(pattern) => {
                let left = self.counted(left);
                let pattern = pattern.map(|pattern| self.pattern(pattern));
                binary(left, BinaryOp::Pipe(pattern), self.term(right, tail))
            }
            BinaryOp::Comma => binary(self.term(left, tail), op, self.term(right, tail)),
            BinaryOp::Alt => binary(self.inner(left), op, self.term(right, tail)),
            BinaryOp::Or | BinaryOp::And => ticked(binary(self.inner(left), op, self.inner(right))),
            BinaryOp::Math(op) => call(math(op), vec![self.inner(left), self.inner(right)]),
            BinaryOp::Cmp(op) => call(compare(op), vec![self.inner(left), self.inner(right)]),
            // What an update puts in pays for itself; the rest was there before. The input is
            // copied where somebody else holds it too.
            BinaryOp::Assign => {
                let value = weighed(self.inner(right));
                self.update(left, BinaryOp::Assign, value)
            }
            BinaryOp::Update => {
                let value = weighed(self.inner(right));
                self.update(left, BinaryOp::Update, value)
            }
            BinaryOp::UpdateAlt => {
                let value = weighed(self.inner(right));
                self.update(left, BinaryOp::UpdateAlt, value)
            }
            BinaryOp::UpdateMath(op) => {
                let right = self.counted(right);
                let value = weighed(call(math(op), vec![Term::Id, Term::Var(self.fresh)]));
                let update = self.update(left, BinaryOp::Update, value);
                binary(right, BinaryOp::Pipe(Some(Pattern::Var(self.fresh))), update)
            }
        }
    }

    fn update(&mut self, path: Term<&'s str>, op: BinaryOp<&'s str>, value: Term<&'s str>) -> Term<&'s str> {
        let path = ticked(self.inner(path));
        ticked(pipe(native("!weigh_shallow"), binary(path, op, value)))
    }

    /// A text with interpolations is a sum: each step of it pays.
    fn text(
        &mut self,
        format: Option<&'s str>,
        parts: Vec<StrPart<&'s str, Term<&'s str>>>,
    ) -> Term<&'s str> {
        if parts.iter().all(|part| !matches!(part, StrPart::Term(_))) {
            return Term::Str(None, parts);
        }
        let mut sum: Option<Term<&'s str>> = None;
        for part in parts.into_iter().rev() {
            let part = match part {
                StrPart::Term(term) => {
                    let term = weighed(self.inner(term));
                    match format {
                        Some(format) => pipe(term, call(format, Vec::new())),
                        None => Term::Str(None, vec![StrPart::Term(term)]),
                    }
                }
                constant => Term::Str(None, vec![constant]),
            };
            sum = Some(match sum {
                Some(rest) => call("!add", vec![part, rest]),
                None => part,
            });
        }
        ticked(sum.unwrap_or_else(|| Term::Str(None, Vec::new())))
    }

    fn call(&mut self, name: &'s str, arguments: Vec<Term<&'s str>>, tail: &[Name<'s>]) -> Term<&'s str> {
        let arity = arguments.len();
        if matches!((name, arity), ("contains" | "indices", 1)) && !self.made.contains(&(name, arity)) {
            return self.search(name, arguments);
        }
        let is_native = (self.natives)(name, arity) && !self.made.contains(&(name, arity));
        let is_match = is_native && matches!(name, "matches" | "split_matches" | "split_");
        let arguments: Vec<_> = arguments.into_iter().map(|argument| self.counted(argument)).collect();
        if is_match {
            let pattern = arguments.first().cloned().unwrap_or(Term::Id);
            return pipe(call("!weigh_match", vec![pattern]), ticked(call(name, arguments)));
        }
        if is_native {
            let is_cheap = CHEAP.contains(&name) || arity == 0 && name == "length";
            let run = ticked(call(name, arguments));
            let before = if is_cheap { "!weigh_shallow" } else { "!weigh" };
            // Those that pass the input's own parts on must stand in paths, as they are.
            return match matches!(name, "first" | "last" | "limit" | "skip" | "range" | "error_empty") {
                true => run,
                false => pipe(native(before), run),
            };
        }
        // Definitions of the library recurse by tail calls only, or are counted inside; a name that
        // a person gave, or an argument, may lead back to a definition around it.
        let is_flat = super::library::has(name, arity) && !self.made.contains(&(name, arity));
        let call = call(name, arguments);
        match is_flat || tail.contains(&(name, arity)) {
            true => call,
            false => Term::Call("!deep", vec![call]),
        }
    }

    /// `contains` and `indices` may look at each pair of values.
    fn search(&mut self, name: &'s str, arguments: Vec<Term<&'s str>>) -> Term<&'s str> {
        let argument = arguments.into_iter().next().map_or(Term::Id, |argument| self.counted(argument));
        let other = || Term::Var(self.fresh);
        let run = pipe(call("!weigh_product", vec![other()]), call(name, vec![other()]));
        binary(argument, BinaryOp::Pipe(Some(Pattern::Var(self.fresh))), run)
    }

    fn pattern(&mut self, pattern: Pattern<&'s str>) -> Pattern<&'s str> {
        match pattern {
            Pattern::Var(name) => Pattern::Var(name),
            Pattern::Arr(items) => Pattern::Arr(items.into_iter().map(|item| self.pattern(item)).collect()),
            Pattern::Obj(entries) => Pattern::Obj(
                entries
                    .into_iter()
                    .map(|(name, inner)| (pipe(self.counted(name), native("!index")), self.pattern(inner)))
                    .collect(),
            ),
        }
    }
}

/// Whether a part of a path may yield more than once, or copies.
fn moves(part: &Part<Term<&str>>) -> bool {
    match part {
        Part::Index(index) => !is_constant(index),
        Part::Range(..) => true,
    }
}

fn is_constant(index: &Term<&str>) -> bool {
    match index {
        Term::Num(_) => true,
        Term::Neg(inner) => matches!(**inner, Term::Num(_)),
        Term::Str(None, parts) => parts.iter().all(|part| !matches!(part, StrPart::Term(_))),
        _ => false,
    }
}

fn math(op: Math) -> &'static str {
    match op {
        Math::Add => "!add",
        Math::Sub => "!sub",
        Math::Mul => "!mul",
        Math::Div => "!div",
        Math::Rem => "!rem",
    }
}

fn compare(op: Cmp) -> &'static str {
    match op {
        Cmp::Lt => "!lt",
        Cmp::Le => "!le",
        Cmp::Gt => "!gt",
        Cmp::Ge => "!ge",
        Cmp::Eq => "!eq",
        Cmp::Ne => "!ne",
    }
}

fn call<'s>(name: &'s str, arguments: Vec<Term<&'s str>>) -> Term<&'s str> {
    Term::Call(name, arguments)
}

fn native(name: &str) -> Term<&str> {
    Term::Call(name, Vec::new())
}

fn binary<'s>(left: Term<&'s str>, op: BinaryOp<&'s str>, right: Term<&'s str>) -> Term<&'s str> {
    Term::BinOp(Box::new(left), op, Box::new(right))
}

fn pipe<'s>(left: Term<&'s str>, right: Term<&'s str>) -> Term<&'s str> {
    binary(left, BinaryOp::Pipe(None), right)
}

fn ticked(term: Term<&str>) -> Term<&str> {
    pipe(term, native("!tick"))
}

fn weighed(term: Term<&str>) -> Term<&str> {
    pipe(term, native("!weigh"))
}
