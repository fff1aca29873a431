//! What an expression says, as a tree. Places are offsets in bytes of its text.

use super::value::Num;

/// A part of an expression: from a value to any number of values.
#[derive(Clone, Debug)]
pub(crate) enum Term {
    /// `.`
    Id,
    /// `..`
    Recurse,
    Num(Num),
    /// A text, with the format of its interpolations (`@csv "…"`).
    Str(Option<(String, usize)>, Vec<Piece>),
    /// `@csv`
    Format(String, usize),
    Arr(Option<Box<Term>>),
    /// Names and values; `{a}` and `{$x}` have no value.
    Obj(Vec<(Term, Option<Term>)>),
    Neg(Box<Term>),
    BinOp(Box<Term>, BinaryOp, Box<Term>),
    Label(String, Box<Term>),
    Break(String, usize),
    /// `reduce source as pattern (init; update)`
    Reduce(Box<Term>, Pattern, Box<[Term; 2]>),
    /// `foreach source as pattern (init; update; extract)`
    Foreach(Box<Term>, Pattern, Box<[Term; 2]>, Option<Box<Term>>),
    Try(Box<Term>, Option<Box<Term>>),
    If(Vec<(Term, Term)>, Option<Box<Term>>),
    Def(Box<Def>, Box<Term>),
    Call(String, Vec<Term>, usize),
    /// `$x`, with its `$`.
    Var(String, usize),
    /// `$__loc__`, with its line.
    Loc(i64),
    Path(Box<Term>, Part, Opt),
}

/// A piece of a text.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Str(String),
    Term(Term),
}

/// One step of a path.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Index(Box<Term>),
    Range(Option<Box<Term>>, Option<Box<Term>>),
    Each,
}

/// Whether a `?` follows a step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opt {
    Optional,
    Essential,
}

/// What binds variables.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// With its `$`.
    Var(String),
    Arr(Vec<Pattern>),
    Obj(Vec<Entry>),
}

/// A member of a pattern: `$x`, `$x: pattern`, `name: pattern`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name: Term,
    pub var: Option<String>,
    pub inside: Option<Pattern>,
}

/// A definition: `def name(args): body;`. An argument with a `$` is a value.
#[derive(Clone, Debug)]
pub(crate) struct Def {
    pub name: String,
    pub args: Vec<String>,
    pub body: Term,
}

/// What stands between two terms.
#[derive(Clone, Debug)]
pub(crate) enum BinaryOp {
    /// `l | r`, or `l as pattern | r`
    Pipe(Option<Pattern>),
    Comma,
    Alt,
    Or,
    And,
    Math(Math),
    Cmp(Cmp),
    Assign,
    Update,
    UpdateMath(Math),
    UpdateAlt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Math {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cmp {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
}

impl Term {
    pub fn text(text: impl Into<String>) -> Term {
        let text = text.into();
        Term::Str(None, if text.is_empty() { Vec::new() } else { vec![Piece::Str(text)] })
    }
}

/// The text of a string without interpolations.
pub(crate) fn plain_text(pieces: &[Piece]) -> Option<String> {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Str(text) => Some(text.as_str()),
            Piece::Term(_) => None,
        })
        .collect()
}
