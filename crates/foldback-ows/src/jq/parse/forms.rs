//! The larger forms: conditions, loops, definitions, objects, patterns.

use super::super::Fault;
use super::super::ast::{BinaryOp, Def, Entry, Pattern, Term};
use super::super::bounds::NESTING_MAX;
use super::super::lex::Tok;
use super::Parser;

impl Parser<'_> {
    pub(super) fn condition(&mut self) -> Result<Term, Fault> {
        let mut branches = Vec::new();
        let mut height = 0;
        self.need_word("if")?;
        loop {
            let condition = self.expression(0, false)?;
            height = height.max(self.height);
            self.need_word("then")?;
            let then = self.expression(0, false)?;
            // Each further branch stands inside the one before it.
            height = height.max(self.height) + 1;
            branches.push((condition, then));
            if !self.take_word("elif") {
                break;
            }
        }
        let mut otherwise = None;
        if self.take_word("else") {
            otherwise = Some(Box::new(self.expression(0, false)?));
        } else if !self.is_word("end") {
            return self.unexpected("`elif`, `else` or `end`");
        }
        self.need_word("end")?;
        self.grown(height)?;
        Ok(Term::If(branches, otherwise))
    }

    pub(super) fn fold(&mut self, is_reduce: bool) -> Result<Term, Fault> {
        self.at += 1;
        let source = Box::new(self.postfix()?);
        let mut height = self.height;
        self.need_word("as")?;
        let pattern = self.pattern()?;
        height = height.max(self.height);
        self.need_sym("(")?;
        let init = self.expression(0, false)?;
        height = height.max(self.height);
        self.need_sym(";")?;
        let update = self.expression(0, false)?;
        height = height.max(self.height);
        let parts = Box::new([init, update]);
        let mut extract = None;
        if !is_reduce && self.take_sym(";") {
            extract = Some(Box::new(self.expression(0, false)?));
        }
        self.need_sym(")")?;
        self.grown(height)?;
        Ok(match is_reduce {
            true => Term::Reduce(source, pattern, parts),
            false => Term::Foreach(source, pattern, parts, extract),
        })
    }

    pub(super) fn definition(&mut self) -> Result<Def, Fault> {
        self.need_word("def")?;
        let name = match self.peek() {
            Some(Tok::Word(name)) => name.clone(),
            _ => return self.unexpected("identifier"),
        };
        self.at += 1;
        let mut args = Vec::new();
        if self.take_sym("(") {
            loop {
                match self.peek() {
                    Some(Tok::Word(name) | Tok::Var(name)) => args.push(name.clone()),
                    _ => return self.unexpected("argument"),
                }
                self.at += 1;
                if !self.take_sym(";") {
                    break;
                }
            }
            self.need_sym(")")?;
        }
        self.need_sym(":")?;
        let body = self.expression(0, false)?;
        self.need_sym(";")?;
        Ok(Def { name, args, body })
    }

    pub(super) fn object(&mut self) -> Result<Term, Fault> {
        let mut entries = Vec::new();
        let mut height = 0;
        while !self.take_sym("}") {
            let name = self.name()?;
            height = height.max(self.height);
            let value = match (self.take_sym(":"), &name) {
                (true, _) => {
                    let value = self.expression(0, true)?;
                    height = height.max(self.height);
                    Some(value)
                }
                (false, Term::Str(..) | Term::Var(..)) => None,
                (false, Term::Loc(_)) => None,
                (false, _) => return self.unexpected("`:`"),
            };
            entries.push(match (name, value) {
                (Term::Loc(line), None) => (Term::text("__loc__"), Some(Term::Loc(line))),
                entry => entry,
            });
            if !self.take_sym(",") {
                self.need_sym("}")?;
                break;
            }
        }
        self.grown(height)?;
        Ok(Term::Obj(entries))
    }

    /// The name of a member of an object or of a pattern.
    pub(super) fn name(&mut self) -> Result<Term, Fault> {
        self.height = 0;
        match self.peek() {
            Some(Tok::Word(word)) => {
                self.at += 1;
                Ok(Term::text(word.as_str()))
            }
            Some(Tok::Str(_) | Tok::Format(_) | Tok::Var(_) | Tok::Num(_)) => {
                let is_number = matches!(self.peek(), Some(Tok::Num(_)));
                match self.term()? {
                    name if !is_number && !matches!(name, Term::Format(..)) => Ok(name),
                    _ => self.unexpected("a name: write ( … ) around an expression"),
                }
            }
            Some(Tok::Sym("(")) => {
                self.at += 1;
                let name = self.expression(0, false)?;
                self.need_sym(")")?;
                // In brackets it is an expression, whatever it is: it needs a value beside it.
                Ok(Term::BinOp(Box::new(name), BinaryOp::Pipe(None), Box::new(Term::Id)))
            }
            _ => self.unexpected("key"),
        }
    }

    pub(super) fn pattern(&mut self) -> Result<Pattern, Fault> {
        self.deep += 1;
        if self.deep > NESTING_MAX {
            return self.too_deep();
        }
        let mut height = 0;
        let pattern = match self.peek() {
            Some(Tok::Var(name)) => {
                self.at += 1;
                Pattern::Var(name.clone())
            }
            Some(Tok::Sym("[")) => {
                self.at += 1;
                let mut items = Vec::new();
                loop {
                    items.push(self.pattern()?);
                    height = height.max(self.height);
                    if !self.take_sym(",") {
                        break;
                    }
                }
                self.need_sym("]")?;
                Pattern::Arr(items)
            }
            Some(Tok::Sym("{")) => {
                self.at += 1;
                let mut entries = Vec::new();
                loop {
                    let name = self.name()?;
                    height = height.max(self.height);
                    let inside = match self.take_sym(":") {
                        true => {
                            let inside = self.pattern()?;
                            height = height.max(self.height);
                            Some(inside)
                        }
                        false => None,
                    };
                    entries.push(match name {
                        Term::Var(var, _) => {
                            Entry { name: Term::text(var.trim_start_matches('$')), var: Some(var), inside }
                        }
                        _ if inside.is_none() => return self.unexpected("`:`"),
                        name => Entry { name, var: None, inside },
                    });
                    if !self.take_sym(",") {
                        break;
                    }
                }
                self.need_sym("}")?;
                Pattern::Obj(entries)
            }
            _ => return self.unexpected("pattern"),
        };
        if self.is_sym("?") {
            return Err(Fault {
                offset: self.place(),
                message: "`?//`, alternatives of a pattern, cannot be used".into(),
                hint: Some("look at the value with `if`, then name its parts".into()),
            });
        }
        self.deep -= 1;
        self.height = height;
        self.grown(0)?;
        Ok(pattern)
    }
}
