//! From tokens to a tree, by the grammar of jq 1.8.
//!
//! From loose to tight: `|`, `,`, `//`, assignments, `or`, `and`, comparisons, sums, products. So
//! `.a = .b // 1` is `(.a = .b) // 1`, as in jq. How deep a tree nests is counted while it grows:
//! nothing that recurses over one meets a deeper one.

mod forms;

use super::Fault;
use super::ast::{BinaryOp, Cmp, Def, Math, Opt, Part, Piece, Term};
use super::bounds::NESTING_MAX;
use super::lex::{Chunk, Tok, Token, lex};
use super::value::Num;

const KEYWORDS: [&str; 18] = [
    "def", "if", "then", "elif", "else", "end", "as", "reduce", "foreach", "try", "catch", "label", "import",
    "include", "and", "or", "module", "__loc__",
];

/// The term that a text is.
pub(crate) fn parse(text: &str) -> Result<Term, Fault> {
    let tokens = lex(text)?;
    let mut parser = Parser { text, tokens: &tokens, at: 0, end: text.len(), deep: 0, height: 0 };
    let term = parser.expression(0, false)?;
    parser.finish()?;
    Ok(term)
}

/// Definitions in a row.
pub(crate) fn parse_defs(text: &str) -> Result<Vec<Def>, Fault> {
    let tokens = lex(text)?;
    let mut parser = Parser { text, tokens: &tokens, at: 0, end: text.len(), deep: 0, height: 0 };
    let mut defs = Vec::new();
    while parser.is_word("def") {
        defs.push(parser.definition()?);
    }
    parser.finish()?;
    Ok(defs)
}

struct Parser<'t> {
    text: &'t str,
    tokens: &'t [Token],
    at: usize,
    /// Where the last token ends.
    end: usize,
    /// How deep the parser is.
    deep: u32,
    /// How deep the last term that was read nests.
    height: u32,
}

/// How tight an operator binds.
fn level(tok: &Tok) -> Option<(u8, BinaryOp)> {
    let math = |level, op| Some((level, BinaryOp::Math(op)));
    let update = |op| Some((3, BinaryOp::UpdateMath(op)));
    let compare = |op| Some((6, BinaryOp::Cmp(op)));
    match tok {
        Tok::Sym("|") => Some((0, BinaryOp::Pipe(None))),
        Tok::Sym(",") => Some((1, BinaryOp::Comma)),
        Tok::Sym("//") => Some((2, BinaryOp::Alt)),
        Tok::Sym("=") => Some((3, BinaryOp::Assign)),
        Tok::Sym("|=") => Some((3, BinaryOp::Update)),
        Tok::Sym("//=") => Some((3, BinaryOp::UpdateAlt)),
        Tok::Sym("+=") => update(Math::Add),
        Tok::Sym("-=") => update(Math::Sub),
        Tok::Sym("*=") => update(Math::Mul),
        Tok::Sym("/=") => update(Math::Div),
        Tok::Sym("%=") => update(Math::Rem),
        Tok::Word(word) if word == "or" => Some((4, BinaryOp::Or)),
        Tok::Word(word) if word == "and" => Some((5, BinaryOp::And)),
        Tok::Sym("<") => compare(Cmp::Lt),
        Tok::Sym("<=") => compare(Cmp::Le),
        Tok::Sym(">") => compare(Cmp::Gt),
        Tok::Sym(">=") => compare(Cmp::Ge),
        Tok::Sym("==") => compare(Cmp::Eq),
        Tok::Sym("!=") => compare(Cmp::Ne),
        Tok::Sym("+") => math(7, Math::Add),
        Tok::Sym("-") => math(7, Math::Sub),
        Tok::Sym("*") => math(8, Math::Mul),
        Tok::Sym("/") => math(8, Math::Div),
        Tok::Sym("%") => math(8, Math::Rem),
        _ => None,
    }
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<&'t Tok> {
        self.tokens.get(self.at).map(|token| &token.tok)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |token| token.at)
    }

    fn is_sym(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Tok::Sym(found)) if *found == symbol)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Tok::Word(found)) if found == word)
    }

    fn take_sym(&mut self, symbol: &str) -> bool {
        let is = self.is_sym(symbol);
        self.at += usize::from(is);
        is
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is = self.is_word(word);
        self.at += usize::from(is);
        is
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, Fault> {
        let found = match self.tokens.get(self.at) {
            Some(token) => format!("`{}`", &self.text[token.at..token.end]),
            None => "the end".to_owned(),
        };
        Err(Fault {
            offset: self.place(),
            message: format!("expected {expected}, found {found}"),
            hint: None,
        })
    }

    fn need_sym(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.take_sym(symbol) { Ok(()) } else { self.unexpected(&format!("`{symbol}`")) }
    }

    fn need_word(&mut self, word: &str) -> Result<(), Fault> {
        if self.take_word(word) { Ok(()) } else { self.unexpected(&format!("`{word}`")) }
    }

    fn need_var(&mut self) -> Result<String, Fault> {
        match self.peek() {
            Some(Tok::Var(name)) => {
                self.at += 1;
                Ok(name.clone())
            }
            _ => self.unexpected("a variable"),
        }
    }

    fn finish(&self) -> Result<(), Fault> {
        if self.at < self.tokens.len() { self.unexpected("the end of the expression") } else { Ok(()) }
    }

    fn too_deep<T>(&self) -> Result<T, Fault> {
        Err(Fault {
            offset: self.place(),
            message: format!("the expression nests more than {NESTING_MAX} deep"),
            hint: Some("split it over several `set` tasks".into()),
        })
    }

    /// Notes that the term just read stands one deeper than what it was made of.
    fn grown(&mut self, other: u32) -> Result<(), Fault> {
        self.height = self.height.max(other) + 1;
        if self.height > NESTING_MAX { self.too_deep() } else { Ok(()) }
    }

    /// An expression of operators that bind at least so tight; in an object no `,`.
    fn expression(&mut self, least: u8, in_object: bool) -> Result<Term, Fault> {
        self.deep += 1;
        if self.deep > NESTING_MAX {
            return self.too_deep();
        }
        let mut left = self.operand(in_object)?;
        while let Some((level, op)) = self.peek().and_then(level) {
            if level < least || (in_object && level == 1) {
                break;
            }
            let before = self.height;
            self.at += 1;
            // `|` and `//` group to the right, assignments and comparisons not at all.
            let right = self.expression(if matches!(level, 0 | 2) { level } else { level + 1 }, in_object)?;
            self.grown(before)?;
            left = Term::BinOp(Box::new(left), op, Box::new(right));
            if matches!(level, 3 | 6)
                && let Some((next, _)) = self.peek().and_then(self::level)
                && next == level
            {
                return self.unexpected("brackets around one of two such operators");
            }
        }
        self.deep -= 1;
        Ok(left)
    }

    /// What stands on either side of an operator.
    fn operand(&mut self, in_object: bool) -> Result<Term, Fault> {
        if self.is_word("def") {
            let def = self.definition()?;
            let height = self.height;
            let body = self.expression(0, in_object)?;
            self.grown(height)?;
            return Ok(Term::Def(Box::new(def), Box::new(body)));
        }
        if self.take_word("label") {
            let name = self.need_var()?;
            self.need_sym("|")?;
            let body = self.expression(0, in_object)?;
            self.grown(0)?;
            return Ok(Term::Label(name, Box::new(body)));
        }
        let term = self.postfix()?;
        if !self.take_word("as") {
            return Ok(term);
        }
        let height = self.height;
        let pattern = self.pattern()?;
        let height = height.max(self.height);
        self.need_sym("|")?;
        let body = self.expression(0, in_object)?;
        self.grown(height)?;
        Ok(Term::BinOp(Box::new(term), BinaryOp::Pipe(Some(pattern)), Box::new(body)))
    }

    /// A term with the steps behind it.
    fn postfix(&mut self) -> Result<Term, Fault> {
        self.deep += 1;
        if self.deep > NESTING_MAX {
            return self.too_deep();
        }
        let mut term = self.term()?;
        loop {
            let before = self.height;
            let part = match self.peek() {
                Some(Tok::Field(name)) => {
                    self.at += 1;
                    Part::Index(Box::new(Term::text(name.as_str())))
                }
                Some(Tok::Sym(".")) => match self.tokens.get(self.at + 1).map(|token| &token.tok) {
                    Some(Tok::Str(_)) => {
                        self.at += 1;
                        Part::Index(Box::new(self.string(None)?))
                    }
                    Some(Tok::Sym("[")) => {
                        self.at += 2;
                        self.bracket()?
                    }
                    _ => break,
                },
                Some(Tok::Sym("[")) => {
                    self.at += 1;
                    self.bracket()?
                }
                Some(Tok::Sym("?")) => {
                    self.at += 1;
                    self.grown(0)?;
                    term = Term::Try(Box::new(term), None);
                    continue;
                }
                _ => break,
            };
            let opt = if self.take_sym("?") { Opt::Optional } else { Opt::Essential };
            self.grown(before)?;
            term = Term::Path(Box::new(term), part, opt);
        }
        self.deep -= 1;
        Ok(term)
    }

    /// What stands in `[ … ]` behind a term, its closing bracket included.
    fn bracket(&mut self) -> Result<Part, Fault> {
        self.height = 0;
        if self.take_sym("]") {
            return Ok(Part::Each);
        }
        if self.take_sym(":") {
            let end = self.expression(0, false)?;
            self.need_sym("]")?;
            return Ok(Part::Range(None, Some(Box::new(end))));
        }
        let first = self.expression(0, false)?;
        if self.take_sym("]") {
            return Ok(Part::Index(Box::new(first)));
        }
        let before = self.height;
        self.need_sym(":")?;
        if self.take_sym("]") {
            return Ok(Part::Range(Some(Box::new(first)), None));
        }
        let end = self.expression(0, false)?;
        self.height = self.height.max(before);
        self.need_sym("]")?;
        Ok(Part::Range(Some(Box::new(first)), Some(Box::new(end))))
    }

    fn term(&mut self) -> Result<Term, Fault> {
        self.height = 0;
        let at = self.place();
        let Some(tok) = self.peek() else {
            return self.unexpected("a term");
        };
        match tok {
            Tok::Num(text) => {
                let number = number(text, at)?;
                self.at += 1;
                Ok(Term::Num(number))
            }
            Tok::Str(_) => self.string(None),
            Tok::Format(name) => {
                self.at += 1;
                match self.peek() {
                    Some(Tok::Str(_)) => self.string(Some((name.clone(), at))),
                    _ => Ok(Term::Format(name.clone(), at)),
                }
            }
            Tok::Field(name) => {
                self.at += 1;
                let opt = if self.take_sym("?") { Opt::Optional } else { Opt::Essential };
                self.grown(0)?;
                Ok(Term::Path(Box::new(Term::Id), Part::Index(Box::new(Term::text(name.as_str()))), opt))
            }
            Tok::Var(name) => {
                self.at += 1;
                match name.as_str() {
                    "$__loc__" => Ok(Term::Loc(self.text[..at].matches('\n').count() as i64 + 1)),
                    _ => Ok(Term::Var(name.clone(), at)),
                }
            }
            Tok::Sym(symbol) => self.symbol(symbol),
            Tok::Word(word) => self.word(word, at),
        }
    }

    fn symbol(&mut self, symbol: &str) -> Result<Term, Fault> {
        match symbol {
            "." => {
                self.at += 1;
                match self.peek() {
                    Some(Tok::Str(_)) => {
                        let name = self.string(None)?;
                        let opt = if self.take_sym("?") { Opt::Optional } else { Opt::Essential };
                        self.grown(0)?;
                        Ok(Term::Path(Box::new(Term::Id), Part::Index(Box::new(name)), opt))
                    }
                    _ => Ok(Term::Id),
                }
            }
            ".." => {
                self.at += 1;
                Ok(Term::Recurse)
            }
            "-" => {
                self.at += 1;
                let inner = self.postfix()?;
                self.grown(0)?;
                Ok(Term::Neg(Box::new(inner)))
            }
            "(" => {
                self.at += 1;
                let inner = self.expression(0, false)?;
                self.need_sym(")")?;
                Ok(inner)
            }
            "[" => {
                self.at += 1;
                if self.take_sym("]") {
                    return Ok(Term::Arr(None));
                }
                let inner = self.expression(0, false)?;
                self.need_sym("]")?;
                self.grown(0)?;
                Ok(Term::Arr(Some(Box::new(inner))))
            }
            "{" => {
                self.at += 1;
                self.object()
            }
            _ => self.unexpected("a term"),
        }
    }

    fn word(&mut self, word: &str, at: usize) -> Result<Term, Fault> {
        match word {
            "if" => self.condition(),
            "try" => {
                self.at += 1;
                let body = self.postfix()?;
                let height = self.height;
                let handler = match self.take_word("catch") {
                    true => Some(Box::new(self.postfix()?)),
                    false => None,
                };
                self.grown(height)?;
                Ok(Term::Try(Box::new(body), handler))
            }
            "reduce" | "foreach" => self.fold(word == "reduce"),
            "break" => {
                self.at += 1;
                let name = self.need_var()?;
                Ok(Term::Break(name, at))
            }
            word if KEYWORDS.contains(&word) => self.unexpected("a term"),
            word => {
                self.at += 1;
                let mut arguments = Vec::new();
                if self.take_sym("(") {
                    let mut height = 0;
                    loop {
                        arguments.push(self.expression(0, false)?);
                        height = height.max(self.height);
                        if !self.take_sym(";") {
                            break;
                        }
                    }
                    self.need_sym(")")?;
                    self.grown(height)?;
                }
                Ok(Term::Call(word.to_owned(), arguments, at))
            }
        }
    }

    fn string(&mut self, format: Option<(String, usize)>) -> Result<Term, Fault> {
        let Some(Token { tok: Tok::Str(chunks), end, .. }) = self.tokens.get(self.at) else {
            return self.unexpected("a text");
        };
        let mut pieces = Vec::new();
        let mut height = 0;
        for chunk in chunks {
            pieces.push(match chunk {
                Chunk::Text(text) => Piece::Str(text.clone()),
                Chunk::Code(tokens) => {
                    let mut inner =
                        Parser { text: self.text, tokens, at: 0, end: *end, deep: self.deep, height: 0 };
                    let term = inner.expression(0, false)?;
                    inner.finish()?;
                    height = height.max(inner.height);
                    Piece::Term(term)
                }
            });
        }
        self.at += 1;
        // Each piece is added to those before it.
        self.height = height + chunks.len() as u32;
        self.grown(0)?;
        Ok(Term::Str(format, pieces))
    }
}

fn number(text: &str, at: usize) -> Result<Num, Fault> {
    Num::parse(text).ok_or_else(|| Fault {
        offset: at,
        message: format!("the number {text} is outside 64 bits"),
        hint: Some(match text.bytes().all(|b| b.is_ascii_digit()) {
            true => "write it as a text, or as a float that need not be exact: 1e20".into(),
            false => "write it as a text".to_owned(),
        }),
    })
}
