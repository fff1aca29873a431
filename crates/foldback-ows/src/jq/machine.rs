//! Runs the instructions of an expression, one output at a time.
//!
//! It never recurses: what is to be done later lies in `forks`, what is under way in frames on the
//! heap. A variable is written once for each turn of its loop, so coming back to a fork restores
//! the stack and the current value, not the variables: the later loop is always done first.

mod back;
mod memory;

use std::cell::RefCell;
use std::rc::Rc;

use memory::{Frame, Slot, Stack, Track};

use super::access::{self, Chain};
use super::bounds::{CALLS_MAX, Meter};
use super::code::{Argument, At, Code, NOBODY, Op};
use super::fail::{Thrown, fail, quoting};
use super::value::{List, Num, Val};

/// A place to come back to.
struct Fork {
    kind: Resume,
    top: usize,
    kept: usize,
    current: Val,
    frame: Rc<Frame>,
    track: Option<Track>,
    nest: u32,
}

enum Resume {
    /// Goes on at this instruction.
    At(usize),
    /// Gives the next item of an array, and goes on at the instruction.
    Items {
        list: std::sync::Arc<List>,
        next: usize,
        at: usize,
    },
    /// Gives the next member of an object, and goes on at the instruction.
    Members {
        dict: std::sync::Arc<super::value::Dict>,
        next: usize,
        at: usize,
    },
    Range {
        next: Num,
        to: Num,
        by: Num,
        at: usize,
    },
    /// An error goes on at this instruction.
    Try(usize),
    /// The `try` of this fork is over: what fails later is not its error.
    Tried(usize),
    Label(u64),
}

/// An evaluation under way.
pub(crate) struct Machine<'c> {
    code: &'c Code,
    meter: &'c Meter,
    current: Val,
    stack: Stack,
    frame: Rc<Frame>,
    at: usize,
    forks: Vec<Fork>,
    track: Option<Track>,
    nest: u32,
    labels: u64,
    has_begun: bool,
}

/// What an instruction leads to.
enum Next {
    On,
    Back,
    Output(Val),
}

impl<'c> Machine<'c> {
    pub fn new(code: &'c Code, meter: &'c Meter, input: Val, variables: Vec<Val>) -> Machine<'c> {
        let slots = code.functions.first().map_or(0, |main| main.slots as usize);
        let mut values: Vec<Slot> = variables.into_iter().map(Slot::Value).collect();
        values.resize(slots.max(values.len()), Slot::Empty);
        let frame = Frame { function: 0, slots: RefCell::new(values), parent: None, caller: None, depth: 0 };
        Machine {
            code,
            meter,
            current: input,
            stack: Stack::default(),
            frame: Rc::new(frame),
            at: 0,
            forks: Vec::new(),
            track: None,
            nest: 0,
            labels: 0,
            has_begun: false,
        }
    }

    /// The next output; `None` when there is no more.
    pub fn next(&mut self) -> Result<Option<Val>, Thrown> {
        if self.has_begun && !self.backtrack()? {
            return Ok(None);
        }
        self.has_begun = true;
        loop {
            self.meter.pay(1)?;
            let code = self.code;
            let op = &code.functions[self.frame.function].ops[self.at];
            self.at += 1;
            match self.step(op) {
                Ok(Next::On) => {}
                Ok(Next::Output(value)) => return Ok(Some(value)),
                Ok(Next::Back) => {
                    if !self.backtrack()? {
                        return Ok(None);
                    }
                }
                Err(Thrown::Error(failure)) => self.unwind(failure)?,
                Err(stop) => return Err(stop),
            }
        }
    }

    fn step(&mut self, op: &'c Op) -> Result<Next, Thrown> {
        match op {
            Op::Const(value) => self.current = value.clone(),
            Op::Push => self.stack.push(self.current.clone()),
            Op::PushNull => self.stack.push(Val::Null),
            Op::PushConst(value) => self.stack.push(value.clone()),
            Op::Pop => self.current = self.stack.pop(),
            Op::SubBegin => {
                self.stack.push(self.current.clone());
                self.nest += 1;
            }
            Op::SubEnd => {
                let input = self.stack.pop();
                self.stack.push(std::mem::replace(&mut self.current, input));
                self.nest -= 1;
            }
            Op::Load(at) => self.current = self.load(*at),
            Op::Take(slot) => self.current = self.take(*slot),
            Op::Store(slot) => {
                let value = std::mem::take(&mut self.current);
                self.current = self.stack.pop();
                self.set(*slot, Slot::Value(value));
            }
            Op::StoreOnly(slot) => {
                let value = std::mem::take(&mut self.current);
                self.set(*slot, Slot::Value(value));
            }
            Op::Copy(slot) => self.set(*slot, Slot::Value(self.current.clone())),
            Op::StoreTop(slot) => {
                let value = self.stack.pop();
                self.set(*slot, Slot::Value(value));
            }
            Op::NewArray(slot) => self.set(*slot, Slot::Value(Val::from(Vec::new()))),
            Op::Append(slot) => self.append(*slot)?,
            Op::Index { is_optional } => {
                let key = self.stack.pop();
                return self.index(&key, *is_optional);
            }
            Op::IndexBy { key, is_optional } => return self.index(key, *is_optional),
            Op::Insert => {
                let (value, key, into) = (self.stack.pop(), self.stack.pop(), self.stack.pop());
                let filled = access::insert(self.meter, into, key, value)?;
                self.stack.push(filled);
            }
            Op::Each { is_optional } => return self.each(*is_optional),
            Op::Fork(at) => self.fork(Resume::At(*at))?,
            Op::Jump(at) => self.at = *at,
            Op::JumpFalse(at) => {
                if !self.current.is_true() {
                    self.at = *at;
                }
            }
            Op::Backtrack => return Ok(Next::Back),
            Op::TryBegin { slot, handler } => {
                self.set(*slot, Slot::Mark(self.forks.len()));
                self.fork(Resume::Try(*handler))?;
            }
            Op::TryEnd(slot) => self.end_try(*slot)?,
            Op::Label(slot) => {
                self.labels += 1;
                self.set(*slot, Slot::Label(self.labels));
                self.fork(Resume::Label(self.labels))?;
            }
            Op::Break(at) => {
                if let Slot::Label(label) = self.slot(*at) {
                    while let Some(fork) = self.forks.pop() {
                        if matches!(fork.kind, Resume::Label(found) if found == label) {
                            self.stack.restore(fork.top, fork.kept);
                            break;
                        }
                    }
                }
                return Ok(Next::Back);
            }
            Op::Mark(slot) => self.set(*slot, Slot::Mark(self.forks.len())),
            Op::Cut(slot) => {
                if let Slot::Mark(count) = self.slot(At { up: 0, slot: *slot }) {
                    if let Some(fork) = self.forks.get(count) {
                        self.stack.kept = fork.kept;
                    }
                    self.forks.truncate(count);
                }
            }
            Op::PathBegin(slot) => {
                let began = Track { steps: Chain::default(), at: self.current.clone() };
                let outer = self.track.replace(began);
                self.set(*slot, Slot::Track(outer, self.nest));
                self.nest = 0;
            }
            Op::PathEnd(slot) => self.end_path(*slot)?,
            Op::GetAt { of, path } => {
                let (of, path) = (self.load(At { up: 0, slot: *of }), self.load(At { up: 0, slot: *path }));
                self.current = access::get_path(self.meter, &of, &path)?;
            }
            Op::PutAt { of, path } => {
                let value = std::mem::take(&mut self.current);
                self.put(*of, *path, value)?;
            }
            Op::PutCopyAt { of, path, value } => {
                let value = self.load(At { up: 0, slot: *value });
                self.put(*of, *path, value)?;
            }
            Op::DeletePaths(slot) => {
                let paths = self.take(*slot);
                let value = std::mem::take(&mut self.current);
                self.current = access::delete_paths(self.meter, value, &paths)?;
            }
            Op::GetPath => {
                let path = self.stack.pop();
                let value = access::get_path(self.meter, &self.current, &path)?;
                if self.follows() {
                    self.is_on_path(|input| {
                        let message =
                            format!("Invalid path expression with result {}", super::fail::clipped(input));
                        quoting(message, "invalid path expression")
                    })?;
                    let steps: &[Val] = if let Val::Arr(list) = &path { &list.items } else { &[] };
                    self.meter.pay(steps.len() as u64)?;
                    for step in steps {
                        self.walk(step.clone(), value.clone());
                    }
                }
                self.current = value;
            }
            Op::Range => {
                let (by, to, from) = (self.stack.pop(), self.stack.pop(), self.stack.pop());
                return self.range(&from, &to, &by);
            }
            Op::Native(native) => {
                let mut arguments = [Val::Null, Val::Null, Val::Null];
                for argument in arguments.iter_mut().take(native.arity) {
                    *argument = self.stack.pop();
                }
                let input = std::mem::take(&mut self.current);
                self.current = (native.run)(self.meter, input, arguments)?;
            }
            Op::Call { function, up, arguments, is_tail } => {
                let parent = (*up != NOBODY).then(|| self.up(*up));
                self.enter(*function, parent, arguments, *is_tail)?;
            }
            Op::CallArgument { at, is_tail } => {
                if let Slot::Code(function, frame) = self.slot(*at) {
                    self.enter(function, Some(frame), &[], *is_tail)?;
                }
            }
            Op::Return => {
                if let Some((frame, at)) = self.frame.caller.clone() {
                    (self.frame, self.at) = (frame, at);
                }
            }
            Op::Output => return Ok(Next::Output(self.current.clone())),
        }
        Ok(Next::On)
    }

    fn up(&self, up: u32) -> Rc<Frame> {
        let mut frame = &self.frame;
        for _ in 0..up {
            match &frame.parent {
                Some(parent) => frame = parent,
                None => break,
            }
        }
        frame.clone()
    }

    fn slot(&self, at: At) -> Slot {
        let mut frame = &self.frame;
        for _ in 0..at.up {
            match &frame.parent {
                Some(parent) => frame = parent,
                None => break,
            }
        }
        frame.slots.borrow().get(at.slot as usize).cloned().unwrap_or_default()
    }

    fn load(&self, at: At) -> Val {
        match self.slot(at) {
            Slot::Value(value) => value,
            Slot::Empty | Slot::Code(..) | Slot::Label(_) | Slot::Mark(_) | Slot::Track(..) => Val::Null,
        }
    }

    fn take(&self, slot: u32) -> Val {
        let mut slots = self.frame.slots.borrow_mut();
        match slots.get_mut(slot as usize).map(std::mem::take) {
            Some(Slot::Value(value)) => value,
            _ => Val::Null,
        }
    }

    fn set(&self, slot: u32, value: Slot) {
        if let Some(place) = self.frame.slots.borrow_mut().get_mut(slot as usize) {
            *place = value;
        }
    }

    fn append(&mut self, slot: u32) -> Result<(), Thrown> {
        let value = std::mem::take(&mut self.current);
        let depth = value.depth() + 1;
        self.meter.nests(depth)?;
        let mut slots = self.frame.slots.borrow_mut();
        if let Some(Slot::Value(Val::Arr(list))) = slots.get_mut(slot as usize) {
            let list = std::sync::Arc::make_mut(list);
            list.depth = list.depth.max(depth);
            list.items.push(value);
        }
        Ok(())
    }

    fn put(&mut self, of: u32, path: u32, value: Val) -> Result<(), Thrown> {
        let path = self.load(At { up: 0, slot: path });
        let changed = access::set_path(self.meter, self.take(of), &path, value)?;
        self.set(of, Slot::Value(changed));
        Ok(())
    }

    fn enter(
        &mut self,
        function: usize,
        parent: Option<Rc<Frame>>,
        arguments: &[Argument],
        is_tail: bool,
    ) -> Result<(), Thrown> {
        let called = &self.code.functions[function];
        let mut slots = Vec::with_capacity(called.slots as usize);
        for argument in arguments {
            slots.push(match argument {
                Argument::Code(function) => Slot::Code(*function, self.frame.clone()),
                Argument::Passed(at) => self.slot(*at),
            });
        }
        slots.resize(called.slots as usize, Slot::Empty);
        let (caller, depth) = match is_tail {
            true => (self.frame.caller.clone(), self.frame.depth),
            false => (Some((self.frame.clone(), self.at)), self.frame.depth + 1),
        };
        if depth > CALLS_MAX {
            return Err(Thrown::Stop("its definitions call each other too deep"));
        }
        self.meter.pay(2 + u64::from(called.slots))?;
        self.frame = Rc::new(Frame { function, slots: RefCell::new(slots), parent, caller, depth });
        self.at = 0;
        Ok(())
    }

    fn follows(&self) -> bool {
        self.track.is_some() && self.nest == 0
    }

    /// Fails when the current value is not what the path has led to.
    fn is_on_path(&self, failure: impl FnOnce(&Val) -> Thrown) -> Result<(), Thrown> {
        match &self.track {
            Some(track) if self.nest == 0 && !track.at.is_same(&self.current) => Err(failure(&self.current)),
            _ => Ok(()),
        }
    }

    /// One step of the path that is followed.
    fn walk(&mut self, step: Val, to: Val) {
        if let Some(track) = &mut self.track
            && self.nest == 0
        {
            track.steps = track.steps.with(step);
            track.at = to;
        }
    }

    fn arrive(&mut self, step: Val, value: Val) {
        if self.follows() {
            self.walk(step, value.clone());
        }
        self.current = value;
    }

    fn end_path(&mut self, slot: u32) -> Result<(), Thrown> {
        self.is_on_path(|result| {
            let message = format!("Invalid path expression with result {}", super::fail::clipped(result));
            quoting(message, "invalid path expression")
        })?;
        let steps = self.track.as_ref().map(|track| track.steps.items()).unwrap_or_default();
        self.meter.pay(steps.len() as u64)?;
        self.current = Val::from(steps);
        if let Slot::Track(outer, nest) = self.slot(At { up: 0, slot }) {
            (self.track, self.nest) = (outer, nest);
        }
        Ok(())
    }

    fn index(&mut self, key: &Val, is_optional: bool) -> Result<Next, Thrown> {
        self.is_on_path(|input| {
            let (key, input) = (super::fail::clipped(key), super::fail::clipped(input));
            quoting(
                format!("Invalid path expression near attempt to access element {key} of {input}"),
                "invalid path expression",
            )
        })?;
        match access::index(self.meter, &self.current, key) {
            Ok(value) => {
                self.arrive(key.clone(), value);
                Ok(Next::On)
            }
            Err(Thrown::Error(_)) if is_optional => Ok(Next::Back),
            Err(thrown) => Err(thrown),
        }
    }

    fn each(&mut self, is_optional: bool) -> Result<Next, Thrown> {
        self.is_on_path(|input| {
            let input = super::fail::clipped(input);
            quoting(
                format!("Invalid path expression near attempt to iterate through {input}"),
                "invalid path expression",
            )
        })?;
        let at = self.at;
        let kind = match std::mem::take(&mut self.current) {
            Val::Arr(list) if list.items.is_empty() => return Ok(Next::Back),
            Val::Obj(dict) if dict.members.is_empty() => return Ok(Next::Back),
            Val::Arr(list) => Resume::Items { list, next: 0, at },
            Val::Obj(dict) => Resume::Members { dict, next: 0, at },
            _ if is_optional => return Ok(Next::Back),
            value => {
                let (kind, quoted) = (value.kind(), super::fail::quoted(&value));
                return Err(quoting(
                    format!("Cannot iterate over {quoted}"),
                    format!("cannot iterate over {kind}"),
                ));
            }
        };
        self.fork(kind)?;
        Ok(Next::Back)
    }

    fn range(&mut self, from: &Val, to: &Val, by: &Val) -> Result<Next, Thrown> {
        let (Val::Num(from), Val::Num(to), Val::Num(by)) = (from, to, by) else {
            return Err(fail("Range bounds must be numeric"));
        };
        if [from, to, by].iter().any(|n| n.float().is_nan()) {
            return Err(fail("Range bounds must be numbers"));
        }
        if !is_before(*from, *to, *by) {
            return Ok(Next::Back);
        }
        self.fork(Resume::Range { next: *from, to: *to, by: *by, at: self.at })?;
        Ok(Next::Back)
    }
}

fn is_before(next: Num, to: Num, by: Num) -> bool {
    use std::cmp::Ordering::{Greater, Less};
    match by.float() {
        by if by > 0.0 => next.order(to) == Less,
        by if by < 0.0 => next.order(to) == Greater,
        _ => false,
    }
}
