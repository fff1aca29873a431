//! The larger forms: objects, alternatives, updates, patterns, texts.

use super::super::ast::{BinaryOp, Entry, Math, Pattern, Piece, Term, plain_text};
use super::super::code::{At, Op};
use super::super::value::{Val, object};
use super::{Bound, Compiler, Done};

impl Compiler {
    pub(super) fn object(&mut self, entries: &[(Term, Option<Term>)]) -> Done {
        self.emit(Op::PushConst(object([])));
        for (name, value) in entries {
            match (name, value) {
                (Term::Var(var, _), None) => {
                    self.emit(Op::PushConst(Val::from(var.trim_start_matches('$'))));
                    self.aside(name)?;
                }
                (name, None) => {
                    // `{a}` is `{a: .a}`; a name that is computed is computed once for each.
                    self.aside(name)?;
                    match Compiler::constant(name) {
                        Some(key) => {
                            self.emit(Op::SubBegin);
                            self.emit(Op::IndexBy { key, is_optional: false });
                            self.emit(Op::SubEnd);
                        }
                        None => {
                            let key = self.fresh();
                            self.emit(Op::StoreTop(key));
                            self.emit(Op::SubBegin);
                            self.emit(Op::Load(At { up: 0, slot: key }));
                            self.emit(Op::SubEnd);
                            self.emit(Op::SubBegin);
                            self.emit(Op::SubBegin);
                            self.emit(Op::Load(At { up: 0, slot: key }));
                            self.emit(Op::SubEnd);
                            self.emit(Op::Index { is_optional: false });
                            self.emit(Op::SubEnd);
                        }
                    }
                }
                (name, Some(value)) => {
                    self.aside(name)?;
                    self.aside(value)?;
                }
            }
            self.emit(Op::Insert);
        }
        self.emit(Op::Pop);
        Ok(())
    }

    /// `left // right`: what left gives that is not null or false; right if there is none.
    pub(super) fn alternative(&mut self, left: &Term, right: &Term) -> Done {
        let found = self.fresh();
        self.emit(Op::PushConst(Val::Bool(false)));
        self.emit(Op::StoreTop(found));
        let fork = self.emit(Op::Fork(0));
        self.term(left)?;
        let jump = self.emit(Op::JumpFalse(0));
        self.emit(Op::PushConst(Val::Bool(true)));
        self.emit(Op::StoreTop(found));
        let out = self.emit(Op::Jump(0));
        self.land(jump);
        self.emit(Op::Backtrack);
        self.land(fork);
        self.emit(Op::Push);
        self.emit(Op::Load(At { up: 0, slot: found }));
        let none = self.emit(Op::JumpFalse(0));
        self.emit(Op::Backtrack);
        self.land(none);
        self.emit(Op::Pop);
        self.term(right)?;
        self.land(out);
        Ok(())
    }

    pub(super) fn logic(&mut self, left: &Term, right: &Term, ends: bool) -> Done {
        self.emit(Op::Push);
        self.term(left)?;
        let to_false = self.emit(Op::JumpFalse(0));
        // Left is true.
        let mut outs = Vec::new();
        let other = |c: &mut Compiler, outs: &mut Vec<usize>| -> Done {
            c.emit(Op::Pop);
            c.term(right)?;
            let to_false = c.emit(Op::JumpFalse(0));
            c.emit(Op::Const(Val::Bool(true)));
            outs.push(c.emit(Op::Jump(0)));
            c.land(to_false);
            c.emit(Op::Const(Val::Bool(false)));
            outs.push(c.emit(Op::Jump(0)));
            Ok(())
        };
        let decided = |c: &mut Compiler, outs: &mut Vec<usize>| {
            c.emit(Op::Pop);
            c.emit(Op::Const(Val::Bool(ends)));
            outs.push(c.emit(Op::Jump(0)));
        };
        if ends {
            decided(self, &mut outs);
            self.land(to_false);
            other(self, &mut outs)?;
        } else {
            other(self, &mut outs)?;
            self.land(to_false);
            decided(self, &mut outs);
        }
        outs.into_iter().for_each(|out| self.land(out));
        Ok(())
    }

    /// `paths = value`: each value of the right side, put at all paths.
    pub(super) fn assign(&mut self, paths: &Term, value: &Term) -> Done {
        let (new, of, path, track) = (self.fresh(), self.fresh(), self.fresh(), self.fresh());
        self.aside(value)?;
        self.emit(Op::StoreTop(new));
        self.emit(Op::Copy(of));
        let fork = self.emit(Op::Fork(0));
        self.paths_of(paths, track)?;
        self.emit(Op::StoreOnly(path));
        self.emit(Op::PutCopyAt { of, path, value: new });
        self.emit(Op::Backtrack);
        self.land(fork);
        self.emit(Op::Take(of));
        Ok(())
    }

    pub(super) fn paths_of(&mut self, paths: &Term, track: u32) -> Done {
        self.emit(Op::PathBegin(track));
        self.within(|c| c.term(paths))?;
        self.emit(Op::PathEnd(track));
        Ok(())
    }

    /// `paths |= work`: the first that work gives at each path; a path for which it gives nothing goes.
    pub(super) fn update(&mut self, paths: &Term, work: &dyn Fn(&mut Compiler) -> Done) -> Done {
        let (of, gone, path, track, mark) =
            (self.fresh(), self.fresh(), self.fresh(), self.fresh(), self.fresh());
        self.emit(Op::Copy(of));
        self.emit(Op::NewArray(gone));
        let fork = self.emit(Op::Fork(0));
        self.paths_of(paths, track)?;
        self.emit(Op::StoreOnly(path));
        self.emit(Op::Mark(mark));
        let none = self.emit(Op::Fork(0));
        self.emit(Op::SubBegin);
        self.emit(Op::GetAt { of, path });
        self.within(work)?;
        self.emit(Op::SubEnd);
        self.emit(Op::Pop);
        self.emit(Op::PutAt { of, path });
        self.emit(Op::Cut(mark));
        self.emit(Op::Backtrack);
        self.land(none);
        self.emit(Op::Load(At { up: 0, slot: path }));
        self.emit(Op::Append(gone));
        self.emit(Op::Backtrack);
        self.land(fork);
        self.emit(Op::Take(of));
        self.emit(Op::DeletePaths(gone));
        Ok(())
    }

    /// `paths op= value`: one result for each value of the right side.
    pub(super) fn update_by(
        &mut self,
        paths: &Term,
        value: &Term,
        work: &dyn Fn(&mut Compiler, u32) -> Done,
    ) -> Done {
        let slot = self.fresh();
        self.aside(value)?;
        self.emit(Op::StoreTop(slot));
        self.update(paths, &|c| work(c, slot))
    }

    /// Binds the variables of a pattern to parts of the current value, which is dropped for the one
    /// beneath it.
    pub(super) fn destructure(&mut self, pattern: &Pattern) -> Done {
        match pattern {
            Pattern::Var(name) => {
                let slot = self.fresh();
                self.emit(Op::Store(slot));
                self.bind(name, Bound::Value(slot));
            }
            Pattern::Arr(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.emit(Op::Push);
                    self.emit(Op::SubBegin);
                    self.emit(Op::IndexBy { key: Val::from(i), is_optional: false });
                    self.emit(Op::SubEnd);
                    self.emit(Op::Pop);
                    // An item of what is no array is an error, of what is no path none.
                    self.destructure(item)?;
                }
                self.emit(Op::Pop);
            }
            Pattern::Obj(entries) => {
                for Entry { name, var, inside } in entries {
                    let key = self.fresh();
                    self.aside(name)?;
                    self.emit(Op::StoreTop(key));
                    self.emit(Op::Push);
                    self.emit(Op::SubBegin);
                    self.emit(Op::SubBegin);
                    self.emit(Op::Load(At { up: 0, slot: key }));
                    self.emit(Op::SubEnd);
                    self.emit(Op::Index { is_optional: false });
                    self.emit(Op::SubEnd);
                    self.emit(Op::Pop);
                    if let (Some(var), Some(_)) = (var, inside) {
                        let slot = self.fresh();
                        self.emit(Op::Copy(slot));
                        self.bind(var, Bound::Value(slot));
                    }
                    match (var, inside) {
                        (_, Some(inside)) => self.destructure(inside)?,
                        (Some(var), None) => {
                            let slot = self.fresh();
                            self.emit(Op::Store(slot));
                            self.bind(var, Bound::Value(slot));
                        }
                        (None, None) => {
                            self.emit(Op::Pop);
                        }
                    }
                }
                self.emit(Op::Pop);
            }
        }
        Ok(())
    }

    pub(super) fn text(&mut self, format: Option<&(String, usize)>, pieces: &[Piece]) -> Done {
        let mut so_far = Term::text("");
        if let Some(text) = plain_text(pieces) {
            self.emit(Op::Const(Val::from(text)));
            return Ok(());
        }
        // A sum, as jq has it: the last interpolation is the outermost loop.
        for (i, piece) in pieces.iter().enumerate() {
            let next = match piece {
                Piece::Str(text) => Term::text(text.as_str()),
                Piece::Term(term) => {
                    let written = match format {
                        Some((name, at)) => Term::Format(name.clone(), *at),
                        None => Term::Format("@text".into(), 0),
                    };
                    Term::BinOp(Box::new(term.clone()), BinaryOp::Pipe(None), Box::new(written))
                }
            };
            so_far = match (i, &next) {
                (0, Term::Str(..)) => next,
                _ => Term::BinOp(Box::new(so_far), BinaryOp::Math(Math::Add), Box::new(next)),
            };
        }
        self.term(&so_far)
    }
}
