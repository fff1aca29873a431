//! Paths: which parts of its input and its variables an expression looks at.
//!
//! Three uses: a plain path (`.a.b`, `$item.name`) is evaluated here without jq; a condition's
//! paths are the values that are recorded as its reason; and what an expression does not look at
//! is never copied into jq. It only reads parsed expressions and never changes one.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ast::{BinaryOp, Opt, Part, Pattern, Piece, Term, plain_text};
use super::value::Num;

/// A path that stands still: from the input or a variable through members and items.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StaticPath {
    /// The variable, with its `$`; `None` for the input.
    pub base: Option<String>,
    pub steps: Vec<Step>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Member(String),
    Item(i64),
}

impl StaticPath {
    /// The path that a term is, if it is one.
    pub fn of(term: &Term) -> Option<StaticPath> {
        match term {
            Term::Id => Some(StaticPath { base: None, steps: Vec::new() }),
            Term::Var(name, _) => Some(StaticPath { base: Some(name.clone()), steps: Vec::new() }),
            Term::Path(base, Part::Index(index), Opt::Essential) => {
                let mut found = StaticPath::of(base)?;
                found.steps.push(match &**index {
                    Term::Str(None, pieces) => Step::Member(plain_text(pieces)?),
                    Term::Num(Num::Int(number)) => Step::Item(*number),
                    Term::Neg(number) => match &**number {
                        Term::Num(Num::Int(number)) => Step::Item(number.checked_neg()?),
                        _ => return None,
                    },
                    _ => return None,
                });
                Some(found)
            }
            _ => None,
        }
    }

    /// The value at the end of the path, from the base's value.
    pub fn walk<'v>(&self, base: &'v Value) -> Result<&'v Value, String> {
        static NULL: Value = Value::Null;
        let mut at = base;
        for step in &self.steps {
            at = match (at, step) {
                (Value::Null, _) => &NULL,
                (Value::Object(map), Step::Member(name)) => map.get(name).unwrap_or(&NULL),
                (Value::Array(items), Step::Item(index)) => {
                    let back = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
                    let index = if *index < 0 { items.len().checked_sub(back) } else { Some(back) };
                    index.and_then(|i| items.get(i)).unwrap_or(&NULL)
                }
                (other, Step::Member(name)) => {
                    return Err(format!("Cannot index {} with string (\"{name}\")", kind(other)));
                }
                (other, Step::Item(index)) => {
                    return Err(format!("Cannot index {} with number ({index})", kind(other)));
                }
            };
        }
        Ok(at)
    }

    /// The path as a person writes it.
    pub fn text(&self) -> String {
        let mut text = self.base.clone().unwrap_or_default();
        for step in &self.steps {
            match step {
                Step::Member(name) if is_word(name) => text.push_str(&format!(".{name}")),
                Step::Member(name) if text.is_empty() => {
                    text.push_str(&format!(".[{}]", Value::from(name.as_str())))
                }
                Step::Member(name) => text.push_str(&format!("[{}]", Value::from(name.as_str()))),
                Step::Item(index) if text.is_empty() => text.push_str(&format!(".[{index}]")),
                Step::Item(index) => text.push_str(&format!("[{index}]")),
            }
        }
        if text.is_empty() { ".".to_owned() } else { text }
    }

    /// The first step, where it is a member.
    pub fn first_member(&self) -> Option<&str> {
        match self.steps.first() {
            Some(Step::Member(name)) => Some(name),
            Some(Step::Item(_)) | None => None,
        }
    }
}

fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// How much of a value an expression looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Wanted {
    #[default]
    Nothing,
    /// Only these members; all of it when it is no object.
    Members(Vec<Need>),
    All,
}

/// A member that is looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Need {
    pub name: String,
    pub inside: Wanted,
}

impl Wanted {
    fn add(&mut self, steps: &[Step]) {
        let (Some(Step::Member(name)), false) = (steps.first(), *self == Wanted::All) else {
            *self = Wanted::All;
            return;
        };
        if *self == Wanted::Nothing {
            *self = Wanted::Members(Vec::new());
        }
        if let Wanted::Members(needs) = self {
            let at = needs.iter().position(|need| need.name == *name).unwrap_or_else(|| {
                needs.push(Need { name: name.clone(), inside: Wanted::Nothing });
                needs.len() - 1
            });
            needs[at].inside.add(&steps[1..]);
        }
    }
}

/// What an expression looks at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses {
    /// Of its input.
    pub input: Wanted,
    /// Of each variable that it names, free or not.
    pub vars: Vec<(String, Wanted)>,
    /// The paths that stand where the whole expression's input is the input: its reasons.
    pub reasons: BTreeSet<StaticPath>,
    /// Those of them that stand left of a `//`.
    pub alternatives: BTreeSet<StaticPath>,
}

impl Uses {
    pub fn of(term: &Term) -> Uses {
        let mut uses = Uses::default();
        uses.scan(term, true);
        uses
    }

    fn var(&mut self, name: &str, steps: &[Step]) {
        let at = self.vars.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.vars.push((name.to_owned(), Wanted::Nothing));
            self.vars.len() - 1
        });
        self.vars[at].1.add(steps);
    }

    fn found(&mut self, path: StaticPath, is_root: bool) {
        match &path.base {
            Some(name) => self.var(&name.clone(), &path.steps),
            None if is_root => self.input.add(&path.steps),
            None => {}
        }
        if is_root || path.base.is_some() {
            self.reasons.insert(path);
        }
    }

    /// `is_root`: whether this term's input is the expression's own.
    fn scan(&mut self, term: &Term, is_root: bool) {
        if let Some(path) = StaticPath::of(term) {
            return self.found(path, is_root);
        }
        match term {
            Term::Id | Term::Var(..) | Term::Num(_) | Term::Break(..) | Term::Loc(_) => {}
            Term::Recurse | Term::Format(..) => self.whole(is_root),
            Term::Str(_, pieces) => {
                for piece in pieces {
                    if let Piece::Term(term) = piece {
                        self.scan(term, is_root);
                    }
                }
            }
            Term::Arr(None) => {}
            Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => self.scan(inner, is_root),
            Term::Obj(entries) => entries.iter().for_each(|(name, value)| match (name, value) {
                (Term::Var(var, _), None) => self.var(var, &[]),
                (name, None) => {
                    self.whole(is_root);
                    self.scan(name, is_root);
                }
                (name, Some(value)) => {
                    self.scan(name, is_root);
                    self.scan(value, is_root);
                }
            }),
            Term::BinOp(left, op, right) => self.operation(left, op, right, is_root),
            Term::Reduce(items, pattern, parts) => {
                // What `reduce` starts from sees the input; its rest sees what was made of it.
                self.scan(items, is_root);
                self.pattern(pattern);
                self.scan(&parts[0], is_root);
                self.scan(&parts[1], false);
            }
            Term::Foreach(items, pattern, parts, extract) => {
                self.scan(items, is_root);
                self.pattern(pattern);
                self.scan(&parts[0], is_root);
                self.scan(&parts[1], false);
                extract.iter().for_each(|extract| self.scan(extract, false));
            }
            Term::Try(inner, handler) => {
                self.scan(inner, is_root);
                if let Some(handler) = handler {
                    self.scan(handler, false);
                }
            }
            Term::If(branches, otherwise) => {
                for (condition, then) in branches {
                    self.scan(condition, is_root);
                    self.scan(then, is_root);
                }
                match otherwise {
                    Some(otherwise) => self.scan(otherwise, is_root),
                    None => self.whole(is_root),
                }
            }
            Term::Def(definition, body) => {
                self.whole(is_root);
                self.scan(&definition.body, false);
                self.scan(body, is_root);
            }
            Term::Call(name, arguments, _) => {
                if !(arguments.is_empty()
                    && matches!(name.as_str(), "true" | "false" | "null" | "empty" | "nan" | "infinite"))
                {
                    self.whole(is_root);
                }
                arguments.iter().for_each(|argument| self.scan(argument, false));
            }
            Term::Path(base, part, _) => {
                // The part of the path up to the first that moves.
                self.scan(base, is_root);
                if StaticPath::of(base).is_some_and(|base| base.base.is_none()) {
                    self.whole(is_root);
                }
                match part {
                    Part::Index(index) => self.scan(index, is_root),
                    Part::Range(from, to) => from.iter().chain(to).for_each(|end| self.scan(end, is_root)),
                    Part::Each => {}
                }
            }
        }
    }

    fn operation(&mut self, left: &Term, op: &BinaryOp, right: &Term, is_root: bool) {
        self.scan(left, is_root);
        if let (BinaryOp::Alt, Some(path)) = (op, StaticPath::of(left))
            && (is_root || path.base.is_some())
        {
            self.alternatives.insert(path);
        }
        match op {
            BinaryOp::Pipe(None) => self.scan(right, false),
            BinaryOp::Pipe(Some(pattern)) => {
                self.pattern(pattern);
                self.scan(right, is_root);
            }
            BinaryOp::Comma
            | BinaryOp::Alt
            | BinaryOp::Or
            | BinaryOp::And
            | BinaryOp::Math(_)
            | BinaryOp::Cmp(_) => self.scan(right, is_root),
            // An update gives the whole input back, changed.
            BinaryOp::Assign | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt => {
                self.whole(is_root);
                self.scan(right, is_root);
            }
            BinaryOp::Update => {
                self.whole(is_root);
                self.scan(right, false);
            }
        }
    }

    fn pattern(&mut self, pattern: &Pattern) {
        match pattern {
            Pattern::Var(_) => {}
            Pattern::Arr(items) => items.iter().for_each(|item| self.pattern(item)),
            Pattern::Obj(entries) => entries.iter().for_each(|entry| {
                self.scan(&entry.name, false);
                entry.inside.iter().for_each(|inside| self.pattern(inside));
            }),
        }
    }

    fn whole(&mut self, is_root: bool) {
        if is_root {
            self.input = Wanted::All;
        }
    }
}
