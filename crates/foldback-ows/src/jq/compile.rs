//! From a tree to instructions, in jq's order of evaluation: of several arguments the last is the
//! outermost loop, of an object's members the first.

mod forms;

use std::collections::BTreeMap;

use super::ast::{BinaryOp, Cmp, Def, Math, Opt, Part, Term};
use super::code::{Argument, At, Code, Function, NOBODY, Op};
use super::value::{Num, Val, object};
use super::{library, natives};

/// A name that is not known.
#[derive(Debug)]
pub(crate) enum Unknown {
    Filter(String, usize, usize),
    Var(String, usize),
    Label(String, usize),
    Format(String, usize),
}

/// Compiles a term that may name these variables; they are the first slots of the first function.
pub(crate) fn compile(term: &Term, variables: &[&str]) -> Result<Code, Unknown> {
    let mut compiler = Compiler { code: Code::default(), scopes: Vec::new(), library: BTreeMap::new() };
    compiler.begin();
    for name in variables {
        let slot = compiler.fresh();
        compiler.bind(name, Bound::Value(slot));
    }
    compiler.term(term)?;
    compiler.emit(Op::Output);
    compiler.end();
    Ok(compiler.code)
}

/// What a name stands for.
#[derive(Clone, Debug)]
enum Bound {
    Value(u32),
    Label(u32),
    /// An argument that is a filter.
    Argument(u32),
    Function(usize, usize),
}

/// A function that is being compiled.
struct Scope {
    function: usize,
    ops: Vec<Op>,
    slots: u32,
    names: Vec<(String, Bound)>,
}

struct Compiler {
    code: Code,
    scopes: Vec<Scope>,
    /// Functions of the library that were compiled.
    library: BTreeMap<(String, usize), usize>,
}

type Done = Result<(), Unknown>;

impl Compiler {
    fn begin(&mut self) -> usize {
        let function = self.code.functions.len();
        self.code.functions.push(Function::default());
        self.scopes.push(Scope { function, ops: Vec::new(), slots: 0, names: Vec::new() });
        function
    }

    fn end(&mut self) {
        let Some(mut scope) = self.scopes.pop() else { return };
        for at in 0..scope.ops.len() {
            let mut next = at + 1;
            while let Some(Op::Jump(to)) = scope.ops.get(next) {
                next = *to;
            }
            let returns = matches!(scope.ops.get(next), Some(Op::Return));
            if let Op::Call { is_tail, .. } | Op::CallArgument { is_tail, .. } = &mut scope.ops[at] {
                *is_tail = returns;
            }
        }
        self.code.functions[scope.function] = Function { ops: scope.ops, slots: scope.slots };
    }

    fn scope(&mut self) -> &mut Scope {
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    fn emit(&mut self, op: Op) -> usize {
        let scope = self.scope();
        scope.ops.push(op);
        scope.ops.len() - 1
    }

    fn here(&mut self) -> usize {
        self.scope().ops.len()
    }

    /// Lets a jump that was emitted lead here.
    fn land(&mut self, at: usize) {
        let here = self.here();
        match &mut self.scope().ops[at] {
            Op::Fork(to) | Op::Jump(to) | Op::JumpFalse(to) | Op::TryBegin { handler: to, .. } => *to = here,
            _ => {}
        }
    }

    fn fresh(&mut self) -> u32 {
        let scope = self.scope();
        scope.slots += 1;
        scope.slots - 1
    }

    fn bind(&mut self, name: &str, bound: Bound) {
        self.scope().names.push((name.to_owned(), bound));
    }

    /// Compiles something that may name what is bound in it.
    fn within(&mut self, work: impl FnOnce(&mut Compiler) -> Done) -> Done {
        let known = self.scope().names.len();
        work(self)?;
        self.scope().names.truncate(known);
        Ok(())
    }

    fn find<T>(&self, name: &str, fits: impl Fn(&Bound) -> Option<T>) -> Option<(u32, T)> {
        self.scopes.iter().rev().enumerate().find_map(|(up, scope)| {
            let found =
                scope.names.iter().rev().filter(|(known, _)| known == name).find_map(|(_, b)| fits(b));
            found.map(|found| (up as u32, found))
        })
    }

    fn constant(term: &Term) -> Option<Val> {
        match term {
            Term::Num(number) => Some(Val::Num(*number)),
            Term::Neg(inner) => match **inner {
                Term::Num(number) => natives::negated(number).map(Val::Num),
                _ => None,
            },
            Term::Str(None, pieces) => super::ast::plain_text(pieces).map(Val::from),
            Term::Arr(None) => Some(Val::from(Vec::new())),
            Term::Obj(entries) if entries.is_empty() => Some(object([])),
            Term::Loc(line) => Some(object([("file", Val::from("<top-level>")), ("line", Val::from(*line))])),
            Term::Call(name, arguments, _) if arguments.is_empty() => match name.as_str() {
                "null" => Some(Val::Null),
                "true" => Some(Val::Bool(true)),
                "false" => Some(Val::Bool(false)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Puts what a term gives onto the stack; the input stays.
    fn aside(&mut self, term: &Term) -> Done {
        // A name that a definition shadows is no constant.
        let is_shadowed = matches!(term, Term::Call(name, ..) if self.find(name, |b| match b {
            Bound::Function(_, 0) | Bound::Argument(_) => Some(()),
            Bound::Function(..) | Bound::Value(_) | Bound::Label(_) => None,
        }).is_some());
        if let (Some(value), false) = (Compiler::constant(term), is_shadowed) {
            self.emit(Op::PushConst(value));
            return Ok(());
        }
        if let Term::Id = term {
            self.emit(Op::Push);
            return Ok(());
        }
        self.emit(Op::SubBegin);
        self.term(term)?;
        self.emit(Op::SubEnd);
        Ok(())
    }

    fn term(&mut self, term: &Term) -> Done {
        match term {
            Term::Id => {}
            Term::Recurse => self.call("recurse", &[], 0)?,
            Term::Num(_) | Term::Arr(None) | Term::Loc(_) => {
                if let Some(value) = Compiler::constant(term) {
                    self.emit(Op::Const(value));
                }
            }
            Term::Str(format, pieces) => self.text(format.as_ref(), pieces)?,
            Term::Format(name, at) => self.format(name, *at)?,
            Term::Arr(Some(inner)) => {
                let array = self.fresh();
                self.emit(Op::NewArray(array));
                let fork = self.emit(Op::Fork(0));
                self.within(|c| c.term(inner))?;
                self.emit(Op::Append(array));
                self.emit(Op::Backtrack);
                self.land(fork);
                self.emit(Op::Take(array));
            }
            Term::Obj(entries) => self.object(entries)?,
            Term::Neg(inner) => match Compiler::constant(term) {
                Some(value) => {
                    self.emit(Op::Const(value));
                }
                None => {
                    self.term(inner)?;
                    self.native("_negate", 0);
                }
            },
            Term::BinOp(left, op, right) => self.operation(left, op, right)?,
            Term::Label(name, body) => {
                let slot = self.fresh();
                self.emit(Op::Label(slot));
                self.within(|c| {
                    c.bind(name, Bound::Label(slot));
                    c.term(body)
                })?;
            }
            Term::Break(name, at) => {
                let found = self.find(name, |bound| match bound {
                    Bound::Label(slot) => Some(*slot),
                    Bound::Value(_) | Bound::Argument(_) | Bound::Function(..) => None,
                });
                let (up, slot) = found.ok_or_else(|| Unknown::Label(name.clone(), *at))?;
                self.emit(Op::Break(At { up, slot }));
            }
            Term::Reduce(source, pattern, parts) => {
                let state = self.fresh();
                self.emit(Op::Push);
                self.term(&parts[0])?;
                self.emit(Op::Store(state));
                let fork = self.emit(Op::Fork(0));
                self.emit(Op::PushNull);
                self.term(source)?;
                self.within(|c| {
                    c.destructure(pattern)?;
                    c.emit(Op::Take(state));
                    c.term(&parts[1])
                })?;
                self.emit(Op::StoreOnly(state));
                self.emit(Op::Backtrack);
                self.land(fork);
                self.emit(Op::Take(state));
            }
            Term::Foreach(source, pattern, parts, extract) => {
                let state = self.fresh();
                self.emit(Op::Push);
                self.term(&parts[0])?;
                self.emit(Op::Store(state));
                let fork = self.emit(Op::Fork(0));
                self.emit(Op::PushNull);
                self.term(source)?;
                self.within(|c| {
                    c.destructure(pattern)?;
                    c.emit(Op::Take(state));
                    c.term(&parts[1])?;
                    c.emit(Op::Copy(state));
                    extract.as_ref().map_or(Ok(()), |extract| c.term(extract))
                })?;
                let out = self.emit(Op::Jump(0));
                self.land(fork);
                self.emit(Op::Backtrack);
                self.land(out);
            }
            Term::Try(body, handler) => {
                let slot = self.fresh();
                let begin = self.emit(Op::TryBegin { slot, handler: 0 });
                self.term(body)?;
                self.emit(Op::TryEnd(slot));
                let out = self.emit(Op::Jump(0));
                self.land(begin);
                match handler {
                    Some(handler) => self.term(handler)?,
                    None => {
                        self.emit(Op::Backtrack);
                    }
                }
                self.land(out);
            }
            Term::If(branches, otherwise) => {
                let mut outs = Vec::new();
                for (condition, then) in branches {
                    self.emit(Op::Push);
                    self.aside(condition)?;
                    // The condition's value is beneath the input: it becomes current.
                    self.emit(Op::Pop);
                    let jump = self.emit(Op::JumpFalse(0));
                    self.emit(Op::Pop);
                    self.term(then)?;
                    outs.push(self.emit(Op::Jump(0)));
                    self.land(jump);
                    self.emit(Op::Pop);
                }
                if let Some(otherwise) = otherwise {
                    self.term(otherwise)?;
                }
                outs.into_iter().for_each(|out| self.land(out));
            }
            Term::Def(def, body) => self.within(|c| {
                c.definition(def)?;
                c.term(body)
            })?,
            Term::Call(name, arguments, at) => self.call(name, arguments, *at)?,
            Term::Var(name, at) => {
                let found = self.find(name, |bound| match bound {
                    Bound::Value(slot) => Some(*slot),
                    Bound::Label(_) | Bound::Argument(_) | Bound::Function(..) => None,
                });
                let (up, slot) = found.ok_or_else(|| Unknown::Var(name.clone(), *at))?;
                self.emit(Op::Load(At { up, slot }));
            }
            Term::Path(base, part, opt) => self.path(base, part, *opt)?,
        }
        Ok(())
    }

    fn path(&mut self, base: &Term, part: &Part, opt: Opt) -> Done {
        let is_optional = opt == Opt::Optional;
        match part {
            Part::Each => {
                self.term(base)?;
                self.emit(Op::Each { is_optional });
            }
            Part::Index(index) => match Compiler::constant(index) {
                Some(key) => {
                    self.term(base)?;
                    self.emit(Op::IndexBy { key, is_optional });
                }
                None => {
                    self.aside(index)?;
                    self.term(base)?;
                    self.emit(Op::Index { is_optional });
                }
            },
            Part::Range(from, to) => {
                self.emit(Op::PushConst(object([])));
                for (name, end) in [("start", from), ("end", to)] {
                    self.emit(Op::PushConst(Val::from(name)));
                    match end {
                        Some(end) => self.aside(end)?,
                        None => {
                            self.emit(Op::PushNull);
                        }
                    }
                    self.emit(Op::Insert);
                }
                self.term(base)?;
                self.emit(Op::Index { is_optional });
            }
        }
        Ok(())
    }

    fn operation(&mut self, left: &Term, op: &BinaryOp, right: &Term) -> Done {
        match op {
            BinaryOp::Pipe(None) => {
                self.term(left)?;
                self.term(right)
            }
            BinaryOp::Pipe(Some(pattern)) => {
                self.emit(Op::Push);
                self.aside(left)?;
                self.emit(Op::Pop);
                self.within(|c| {
                    c.destructure(pattern)?;
                    c.term(right)
                })
            }
            BinaryOp::Comma => {
                let fork = self.emit(Op::Fork(0));
                self.term(left)?;
                let out = self.emit(Op::Jump(0));
                self.land(fork);
                self.term(right)?;
                self.land(out);
                Ok(())
            }
            BinaryOp::Alt => self.alternative(left, right),
            BinaryOp::Or => self.logic(left, right, true),
            BinaryOp::And => self.logic(left, right, false),
            BinaryOp::Math(op) => {
                self.aside(right)?;
                self.aside(left)?;
                self.native(math(*op), 2);
                Ok(())
            }
            BinaryOp::Cmp(op) => {
                self.aside(right)?;
                self.aside(left)?;
                self.native(compare(*op), 2);
                Ok(())
            }
            BinaryOp::Assign => self.assign(left, right),
            BinaryOp::Update => self.update(left, &|c| c.term(right)),
            BinaryOp::UpdateMath(op) => self.update_by(left, right, &|c, value| {
                c.emit(Op::SubBegin);
                c.emit(Op::Load(At { up: 0, slot: value }));
                c.emit(Op::SubEnd);
                c.emit(Op::Push);
                c.native(math(*op), 2);
                Ok(())
            }),
            BinaryOp::UpdateAlt => self.update_by(left, right, &|c, value| {
                let jump = c.emit(Op::JumpFalse(0));
                let out = c.emit(Op::Jump(0));
                c.land(jump);
                c.emit(Op::Load(At { up: 0, slot: value }));
                c.land(out);
                Ok(())
            }),
        }
    }

    fn format(&mut self, name: &str, at: usize) -> Done {
        let native = natives::format(name).ok_or_else(|| Unknown::Format(name.to_owned(), at))?;
        self.emit(Op::Native(native));
        Ok(())
    }

    fn native(&mut self, name: &str, arity: usize) {
        if let Some(native) = natives::find(name, arity) {
            self.emit(Op::Native(native));
        }
    }

    /// Compiles a definition and makes its name known.
    fn definition(&mut self, def: &Def) -> Done {
        let function = self.code.functions.len();
        self.bind(&def.name, Bound::Function(function, def.args.len()));
        self.function(def)?;
        Ok(())
    }

    fn function(&mut self, def: &Def) -> Result<usize, Unknown> {
        let function = self.begin();
        for arg in &def.args {
            let slot = self.fresh();
            self.bind(arg.trim_start_matches('$'), Bound::Argument(slot));
        }
        // A value argument is bound once for each of its values, the first the outermost.
        for (i, arg) in def.args.iter().enumerate().filter(|(_, arg)| arg.starts_with('$')) {
            let slot = self.fresh();
            self.emit(Op::SubBegin);
            self.emit(Op::CallArgument { at: At { up: 0, slot: i as u32 }, is_tail: false });
            self.emit(Op::SubEnd);
            self.emit(Op::StoreTop(slot));
            self.bind(arg, Bound::Value(slot));
        }
        self.term(&def.body)?;
        self.emit(Op::Return);
        self.end();
        Ok(function)
    }

    fn call(&mut self, name: &str, arguments: &[Term], at: usize) -> Done {
        let arity = arguments.len();
        let found = self.find(name, |bound| match bound {
            Bound::Argument(slot) if arity == 0 => Some((None, *slot)),
            Bound::Function(function, takes) if *takes == arity => Some((Some(*function), 0)),
            Bound::Argument(_) | Bound::Function(..) | Bound::Value(_) | Bound::Label(_) => None,
        });
        match found {
            Some((up, (None, slot))) => {
                self.emit(Op::CallArgument { at: At { up, slot }, is_tail: false });
                return Ok(());
            }
            Some((up, (Some(function), _))) => return self.call_function(function, up, arguments),
            None => {}
        }
        match (name, arity) {
            ("empty", 0) => {
                self.emit(Op::Backtrack);
            }
            ("null" | "true" | "false", 0) => {
                let constant = Compiler::constant(&Term::Call(name.to_owned(), Vec::new(), at));
                self.emit(Op::Const(constant.unwrap_or_default()));
            }
            ("not", 0) => self.native("not", 0),
            ("path", 1) => {
                let track = self.fresh();
                self.paths_of(&arguments[0], track)?;
            }
            ("getpath", 1) => {
                self.aside(&arguments[0])?;
                self.emit(Op::GetPath);
            }
            ("range" | "_range", 1..=3) if name == "_range" || arity < 3 => {
                let zero = Term::Num(Num::Int(0));
                let one = Term::Num(Num::Int(1));
                let (from, to, by) = match arguments {
                    [to] => (&zero, to, &one),
                    [from, to] => (from, to, &one),
                    [from, to, by, ..] => (from, to, by),
                    [] => (&zero, &zero, &one),
                };
                self.aside(from)?;
                self.aside(to)?;
                self.aside(by)?;
                self.emit(Op::Range);
            }
            _ => {
                if let Some(native) = natives::find(name, arity) {
                    for argument in arguments.iter().rev() {
                        self.aside(argument)?;
                    }
                    self.emit(Op::Native(native));
                    return Ok(());
                }
                let function = self.library_function(name, arity, at)?;
                // From the library nothing around it is seen.
                self.call_function(function, NOBODY, arguments)?;
            }
        }
        Ok(())
    }

    fn library_function(&mut self, name: &str, arity: usize, at: usize) -> Result<usize, Unknown> {
        let key = (name.to_owned(), arity);
        if let Some(function) = self.library.get(&key) {
            return Ok(*function);
        }
        let Some(def) = library::find(name, arity) else {
            return Err(Unknown::Filter(name.to_owned(), arity, at));
        };
        let around = std::mem::take(&mut self.scopes);
        self.library.insert(key, self.code.functions.len());
        let function = self.function(def);
        self.scopes = around;
        function
    }

    fn call_function(&mut self, function: usize, up: u32, arguments: &[Term]) -> Done {
        let mut handed = Vec::with_capacity(arguments.len());
        for argument in arguments {
            handed.push(self.argument(argument)?);
        }
        self.emit(Op::Call { function, up, arguments: handed.into(), is_tail: false });
        Ok(())
    }

    fn argument(&mut self, argument: &Term) -> Result<Argument, Unknown> {
        if let Term::Call(name, arguments, _) = argument
            && arguments.is_empty()
        {
            let found = self.find(name, |bound| match bound {
                Bound::Argument(slot) => Some(Some(*slot)),
                Bound::Function(_, 0) => Some(None),
                Bound::Function(..) | Bound::Value(_) | Bound::Label(_) => None,
            });
            if let Some((up, Some(slot))) = found {
                return Ok(Argument::Passed(At { up, slot }));
            }
        }
        let function = self.begin();
        self.term(argument)?;
        self.emit(Op::Return);
        self.end();
        Ok(Argument::Code(function))
    }
}

fn math(op: Math) -> &'static str {
    match op {
        Math::Add => "_plus",
        Math::Sub => "_minus",
        Math::Mul => "_times",
        Math::Div => "_by",
        Math::Rem => "_rest",
    }
}

fn compare(op: Cmp) -> &'static str {
    match op {
        Cmp::Lt => "_less",
        Cmp::Le => "_lesseq",
        Cmp::Gt => "_greater",
        Cmp::Ge => "_greatereq",
        Cmp::Eq => "_equal",
        Cmp::Ne => "_notequal",
    }
}
