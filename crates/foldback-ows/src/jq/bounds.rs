//! What an expression may cost: every bound of jq in one place, and the meter that counts.
//!
//! Work is counted, never timed, so that an expression that ends on one machine ends on each. The
//! unit is about one value looked at; a text counts one for each 8 bytes.
//!
//! Invariant (why no expression can hang or use up the memory): whatever makes a value pays for
//! all of it but the values it was made from, so what exists is at most the input and what was
//! paid for; whatever compares or copies pays for what it looks at; whatever yields pays for each
//! output; and what nests on the machine's stack is counted while it nests.

use std::cell::Cell;

use jaq_core::{Exn, ValX};
use jaq_json::{Num, Val};

/// Work of one evaluation. About a second at the very most.
pub(crate) const WORK_MAX: u64 = 10_000_000;

/// What one output, one call or one comparison weighs, beside the values looked at.
pub(crate) const TICK: u64 = 10;

/// How deep an expression nests on the stack, its library included: see `depth`.
pub(crate) const DEPTH_MAX: u32 = 120;

/// How deep its recursive calls and updates nest on the stack, in the same unit. Tail calls do
/// not nest. A level takes some 4 kB in a debug build, a fifth of that in a release.
pub(crate) const STACK_MAX: u32 = 260;

/// Nesting of a value that an expression makes.
pub(crate) const VALUE_DEPTH_MAX: u32 = 90;

/// Bytes of an expression's text.
pub(crate) const TEXT_MAX_BYTES: usize = 64 * 1024;

/// Tokens of an expression.
pub(crate) const TOKENS_MAX: usize = 8_000;

/// Nesting of an expression's text, looked at before anything recurses over it: brackets,
/// operators in a row, `if`, `as` and the like.
pub(crate) const NESTING_MAX: usize = 100;

/// Bits of an integer.
const INTEGER_BITS_MAX: u64 = 4_096;

/// Counts the work of one evaluation.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    work: Cell<u64>,
    depth: Cell<u32>,
    weight: u32,
    over: Cell<Option<&'static str>>,
}

/// The exit code that marks a stopped evaluation. `halt` does not exist in expressions, and no
/// `try` catches it.
const STOPPED: i32 = 1;

impl Meter {
    /// A meter for an expression that nests so deep.
    pub fn for_depth(depth: u32) -> Meter {
        Meter { weight: depth, ..Meter::default() }
    }

    /// What was paid for so far.
    pub fn work(&self) -> u64 {
        self.work.get()
    }

    /// Which bound was passed, if one was.
    pub fn over(&self) -> Option<&'static str> {
        self.over.get()
    }

    /// Stops the evaluation.
    pub fn stop<'a>(&self, bound: &'static str) -> Exn<'a, Val> {
        self.over.set(Some(self.over.get().unwrap_or(bound)));
        Exn::halt(STOPPED)
    }

    /// Pays for some work.
    pub fn pay<'a>(&self, work: u64) -> Result<(), Exn<'a, Val>> {
        let total = self.work.get().saturating_add(work);
        self.work.set(total);
        match total > WORK_MAX || self.over.get().is_some() {
            true => Err(self.stop("it does too much work")),
            false => Ok(()),
        }
    }

    /// Pays for all of a value.
    pub fn weigh<'a>(&self, value: &Val) -> Result<(), Exn<'a, Val>> {
        self.weigh_at(value, 0)
    }

    fn weigh_at<'a>(&self, value: &Val, depth: u32) -> Result<(), Exn<'a, Val>> {
        if depth > VALUE_DEPTH_MAX {
            return Err(self.stop("it makes a value that nests too deep"));
        }
        match value {
            Val::Null | Val::Bool(_) => self.pay(1),
            Val::Num(Num::BigInt(n)) if n.bits() > INTEGER_BITS_MAX => {
                Err(self.stop("it makes an integer that is too large"))
            }
            Val::Num(_) => self.pay(1),
            Val::BStr(text) | Val::TStr(text) => self.pay(1 + text.len() as u64 / 8),
            Val::Arr(items) => {
                self.pay(1)?;
                items.iter().try_for_each(|item| self.weigh_at(item, depth + 1))
            }
            Val::Obj(map) => {
                self.pay(1)?;
                map.iter().try_for_each(|(key, item)| {
                    self.weigh_at(key, depth + 1)?;
                    self.weigh_at(item, depth + 1)
                })
            }
        }
    }

    /// Pays for a copy of the value's own entries.
    pub fn weigh_shallow<'a>(&self, value: &Val) -> Result<(), Exn<'a, Val>> {
        self.pay(shallow(value))
    }

    /// Pays for the product of two values: what searching the one in the other may cost.
    pub fn weigh_product<'a>(&self, a: &Val, b: &Val) -> Result<(), Exn<'a, Val>> {
        let before = self.work.get();
        self.weigh(a)?;
        let first = self.work.get() - before;
        self.weigh(b)?;
        let second = self.work.get() - before - first;
        self.pay(first.saturating_mul(second))
    }

    /// Pays for matching an expression of letters against a text. A counted repetition makes the
    /// machine that matches as many times larger.
    pub fn weigh_match<'a>(&self, text: &Val, pattern: &Val) -> Result<(), Exn<'a, Val>> {
        let length = |value: &Val| match value {
            Val::BStr(text) | Val::TStr(text) => text.len() as u64,
            _ => 1,
        };
        let mut size = 1 + length(pattern);
        if let Val::TStr(pattern) | Val::BStr(pattern) = pattern {
            let text = String::from_utf8_lossy(pattern);
            for counted in text.split('{').skip(1) {
                let numbers = counted.split('}').next().unwrap_or("");
                let largest = numbers.split(',').filter_map(|n| n.trim().parse::<u64>().ok()).max();
                size = size.saturating_mul(largest.unwrap_or(1).max(1));
            }
        }
        self.pay(size.saturating_mul(4 + length(text) / 8))
    }

    /// Runs `work` one call deeper on the machine's stack.
    pub fn deeper<'a, T>(&self, work: impl FnOnce() -> T) -> Result<T, Exn<'a, Val>> {
        self.deeper_by(self.weight, work)
    }

    /// Runs `work` one step of an update deeper.
    pub fn deeper_in_update<'a, T>(&self, work: impl FnOnce() -> T) -> Result<T, Exn<'a, Val>> {
        /// What a step of a path nests while it is updated.
        const UPDATE_DEPTH: u32 = 8;
        self.deeper_by(UPDATE_DEPTH, work)
    }

    fn deeper_by<'a, T>(&self, by: u32, work: impl FnOnce() -> T) -> Result<T, Exn<'a, Val>> {
        let before = self.depth.get();
        let depth = before.saturating_add(by);
        if depth > STACK_MAX {
            return Err(self.stop("its definitions call each other too deep"));
        }
        self.depth.set(depth);
        let result = work();
        self.depth.set(before);
        Ok(result)
    }

    /// Pays before two values are multiplied: what comes out may be far larger than what goes in.
    pub fn weigh_multiplication<'a>(&self, a: &Val, b: &Val) -> Result<(), Exn<'a, Val>> {
        let bits = |n: &Num| match n {
            Num::BigInt(n) => n.bits(),
            Num::Int(_) | Num::Float(_) | Num::Dec(_) => 64,
        };
        match (a, b) {
            (Val::Num(a), Val::Num(b)) if bits(a) + bits(b) > INTEGER_BITS_MAX => {
                Err(self.stop("it makes an integer that is too large"))
            }
            (Val::TStr(text) | Val::BStr(text), Val::Num(times))
            | (Val::Num(times), Val::TStr(text) | Val::BStr(text)) => {
                let times = times_of(times);
                self.pay((1 + text.len() as u64 / 8).saturating_mul(times / 8 + 1))?;
                self.pay((text.len() as u64).saturating_mul(times) / 8)
            }
            (a, b) => {
                self.weigh(a)?;
                self.weigh(b)
            }
        }
    }
}

fn times_of(times: &Num) -> u64 {
    match times {
        Num::Int(n) => u64::try_from(*n).unwrap_or(0),
        // Rounds towards the bounds of the type, which is what is wanted here.
        Num::Float(n) => *n as u64,
        Num::BigInt(_) | Num::Dec(_) => u64::MAX,
    }
}

/// What a value weighs without what its entries hold.
fn shallow(value: &Val) -> u64 {
    match value {
        Val::Null | Val::Bool(_) | Val::Num(_) => 1,
        Val::BStr(text) | Val::TStr(text) => 1 + text.len() as u64 / 8,
        // Mostly nobody else holds it and nothing is copied.
        Val::Arr(items) => 1 + items.len() as u64 / 64,
        Val::Obj(map) => 1 + map.len() as u64 / 32,
    }
}

/// Whether a value is a scalar that costs next to nothing to compare.
pub(crate) fn is_small(value: &Val) -> bool {
    match value {
        Val::Null | Val::Bool(_) => true,
        Val::Num(n) => matches!(n, Num::Int(_) | Num::Float(_)),
        Val::BStr(text) | Val::TStr(text) => text.len() < 64,
        Val::Arr(items) => items.is_empty(),
        Val::Obj(map) => map.is_empty(),
    }
}

/// Turns a result that no caller sees, a tail call or a break, into one that it does.
pub(crate) fn settle<'a>(meter: &Meter, result: ValX<'a, Val>) -> Result<Val, String> {
    result.map_err(|exception| match (meter.over(), exception.get_err()) {
        (Some(bound), _) => format!("the expression was stopped: {bound}"),
        (None, Ok(error)) => match error.into_val() {
            Val::TStr(text) => clip(&String::from_utf8_lossy(&text)),
            value => clip(&value.to_string()),
        },
        (None, Err(_)) => "the expression was stopped".to_owned(),
    })
}

/// A message short enough to be recorded.
fn clip(message: &str) -> String {
    const MESSAGE_MAX_CHARS: usize = 300;
    match message.char_indices().nth(MESSAGE_MAX_CHARS) {
        Some((at, _)) => format!("{}…", &message[..at]),
        None => message.to_owned(),
    }
}
