//! Coming back: to the place of a fork, to the `try` that an error is for.

use super::super::bounds::FORKS_MAX;
use super::super::code::At;
use super::super::fail::{Failure, Thrown};
use super::super::value::Val;
use super::memory::Slot;
use super::{Fork, Machine, Resume, is_before};

impl Machine<'_> {
    pub(super) fn fork(&mut self, kind: Resume) -> Result<(), Thrown> {
        if self.forks.len() >= FORKS_MAX {
            return Err(Thrown::Stop("it has too much left to come back to"));
        }
        let (top, kept) = (self.stack.top, self.stack.kept);
        self.stack.kept = kept.max(top);
        self.forks.push(Fork {
            kind,
            top,
            kept,
            current: self.current.clone(),
            frame: self.frame.clone(),
            track: self.track.clone(),
            nest: self.nest,
        });
        Ok(())
    }

    /// Takes up what is left of a fork.
    pub(super) fn resume(&mut self, fork: &mut Fork) {
        self.stack.restore(fork.top, fork.kept);
        self.current = std::mem::take(&mut fork.current);
        self.frame = fork.frame.clone();
        self.track = fork.track.take();
        self.nest = fork.nest;
    }

    /// As `resume`, of a fork that stays.
    pub(super) fn resume_again(&mut self, fork: &Fork) {
        self.stack.restore(fork.top, fork.kept.max(fork.top));
        self.frame = fork.frame.clone();
        self.track = fork.track.clone();
        self.nest = fork.nest;
    }

    /// Goes on at the last place to come back to; false when there is none.
    pub(super) fn backtrack(&mut self) -> Result<bool, Thrown> {
        while let Some(mut fork) = self.forks.pop() {
            self.meter.pay(1)?;
            match &mut fork.kind {
                Resume::At(at) => {
                    self.at = *at;
                    self.resume(&mut fork);
                    return Ok(true);
                }
                Resume::Items { list, next, at } => {
                    let (index, value) = (*next, list.items[*next].clone());
                    *next += 1;
                    self.at = *at;
                    if *next < list.items.len() {
                        self.resume_again(&fork);
                        self.forks.push(fork);
                    } else {
                        self.resume(&mut fork);
                    }
                    self.arrive(Val::from(index), value);
                    return Ok(true);
                }
                Resume::Members { dict, next, at } => {
                    let Some((name, value)) = dict.members.get_index(*next) else { continue };
                    let (name, value) = (name.clone(), value.clone());
                    *next += 1;
                    self.at = *at;
                    if *next < dict.members.len() {
                        self.resume_again(&fork);
                        self.forks.push(fork);
                    } else {
                        self.resume(&mut fork);
                    }
                    self.arrive(Val::Str(name), value);
                    return Ok(true);
                }
                Resume::Range { next, to, by, at } => {
                    let value = *next;
                    *next = super::super::arith::plus(*next, *by)?;
                    self.at = *at;
                    if is_before(*next, *to, *by) {
                        self.resume_again(&fork);
                        self.forks.push(fork);
                    } else {
                        self.resume(&mut fork);
                    }
                    self.current = Val::Num(value);
                    return Ok(true);
                }
                Resume::Try(_) | Resume::Tried(_) | Resume::Label(_) => {}
            }
        }
        Ok(false)
    }

    /// Looks for the `try` that an error is for.
    pub(super) fn unwind(&mut self, failure: Failure) -> Result<(), Thrown> {
        let mut over = Vec::new();
        while let Some(mut fork) = self.forks.pop() {
            self.meter.pay(1)?;
            match fork.kind {
                // These nest as brackets do.
                Resume::Tried(begin) => over.push(begin),
                Resume::Try(_) if over.last() == Some(&self.forks.len()) => {
                    over.pop();
                }
                Resume::Try(at) => {
                    self.resume(&mut fork);
                    self.at = at;
                    self.current = failure.value;
                    return Ok(());
                }
                Resume::At(_)
                | Resume::Items { .. }
                | Resume::Members { .. }
                | Resume::Range { .. }
                | Resume::Label(_) => {}
            }
        }
        Err(Thrown::Error(failure))
    }

    /// Marks a `try` as over, until something comes back into it.
    pub(super) fn end_try(&mut self, slot: u32) -> Result<(), Thrown> {
        let Slot::Mark(begin) = self.slot(At { up: 0, slot }) else { return Ok(()) };
        if begin + 1 == self.forks.len()
            && let Some(fork) = self.forks.pop()
        {
            // Nothing can come back into it: it is simply over.
            self.stack.kept = fork.kept;
            return Ok(());
        }
        self.fork(Resume::Tried(begin))
    }
}
