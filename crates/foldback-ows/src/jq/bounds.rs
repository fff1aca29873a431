//! What an expression may cost: every bound of jq in one place, and the meter that counts.
//!
//! Work is counted, never timed, so that an expression that ends on one machine ends on each. The
//! unit is about one instruction, or one value looked at; a text counts one for each 8 bytes.
//!
//! Invariant (why no expression can hang or use up the memory): each instruction pays; whatever
//! makes, copies or compares a value pays for what it looks at; and nothing recurses on the
//! machine's stack but over values and texts, whose nesting is bounded.

use std::cell::Cell;

use super::fail::Thrown;

/// Work of one evaluation. About a second at the very most.
pub(crate) const WORK_MAX: u64 = 10_000_000;

/// How deep definitions call each other. Tail calls do not nest.
pub(crate) const CALLS_MAX: u32 = 10_000;

/// How many places an evaluation may come back to at once.
pub(crate) const FORKS_MAX: usize = 200_000;

/// Nesting of a value that an expression makes.
pub(crate) const VALUE_DEPTH_MAX: u32 = 90;

/// Bytes of an expression's text.
pub(crate) const TEXT_MAX_BYTES: usize = 64 * 1024;

/// Tokens of an expression.
pub(crate) const TOKENS_MAX: usize = 8_000;

/// Nesting of an expression: brackets, operators in a row, `if`, `as` and the like.
pub(crate) const NESTING_MAX: u32 = 100;

/// Items that an array may be filled up to by writing behind its end.
pub(crate) const INDEX_MAX: usize = 1_000_000;

/// Counts the work of one evaluation.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    work: Cell<u64>,
}

impl Meter {
    /// What was paid for so far.
    pub fn work(&self) -> u64 {
        self.work.get()
    }

    /// Pays for some work.
    pub fn pay(&self, work: u64) -> Result<(), Thrown> {
        let total = self.work.get().saturating_add(work);
        self.work.set(total);
        match total > WORK_MAX {
            true => Err(Thrown::Stop("it does too much work")),
            false => Ok(()),
        }
    }

    /// Refuses a value that nests too deep.
    pub fn nests(&self, depth: u32) -> Result<(), Thrown> {
        match depth > VALUE_DEPTH_MAX {
            true => Err(Thrown::Stop("it makes a value that nests too deep")),
            false => Ok(()),
        }
    }
}
