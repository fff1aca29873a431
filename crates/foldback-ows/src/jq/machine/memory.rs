//! What an evaluation keeps: the frames of running functions, and the values beneath the current one.

use std::cell::RefCell;
use std::rc::Rc;

use super::super::access::Chain;
use super::super::value::Val;

/// A running function.
pub(super) struct Frame {
    pub function: usize,
    pub slots: RefCell<Vec<Slot>>,
    /// The frame of the function that it is written in.
    pub parent: Option<Rc<Frame>>,
    /// Where it returns to.
    pub caller: Option<(Rc<Frame>, usize)>,
    pub depth: u32,
}

#[derive(Clone, Default)]
pub(super) enum Slot {
    #[default]
    Empty,
    Value(Val),
    /// Code, and the frame that it is written in.
    Code(usize, Rc<Frame>),
    Label(u64),
    Mark(usize),
    Track(Option<Track>, u32),
}

/// A path that is being followed.
#[derive(Clone)]
pub(super) struct Track {
    pub steps: Chain,
    pub at: Val,
}

/// Frames may hold each other in long chains: they are let go one by one.
impl Drop for Frame {
    fn drop(&mut self) {
        let mut held = Vec::new();
        release(self, &mut held);
        while let Some(frame) = held.pop() {
            if let Some(mut frame) = Rc::into_inner(frame) {
                release(&mut frame, &mut held);
            }
        }
    }
}

fn release(frame: &mut Frame, held: &mut Vec<Rc<Frame>>) {
    held.extend(frame.parent.take());
    held.extend(frame.caller.take().map(|(caller, _)| caller));
    for slot in frame.slots.get_mut() {
        if let Slot::Code(_, frame) = std::mem::take(slot) {
            held.push(frame);
        }
    }
}

/// The values beneath the current one. Those that a fork comes back to are kept until it has.
#[derive(Default)]
pub(super) struct Stack {
    nodes: Vec<(Val, usize)>,
    /// The place of the top, from 1.
    pub top: usize,
    /// Up to here nothing is overwritten.
    pub kept: usize,
}

impl Stack {
    pub fn push(&mut self, value: Val) {
        self.nodes.truncate(self.top.max(self.kept));
        self.nodes.push((value, self.top));
        self.top = self.nodes.len();
    }

    pub fn pop(&mut self) -> Val {
        let Some(at) = self.top.checked_sub(1) else { return Val::Null };
        if self.top > self.kept
            && let Some((value, next)) = self.nodes.pop()
        {
            self.top = next;
            return value;
        }
        let (value, next) = &self.nodes[at];
        self.top = *next;
        value.clone()
    }

    pub fn restore(&mut self, top: usize, kept: usize) {
        (self.top, self.kept) = (top, kept);
        self.nodes.truncate(top.max(kept));
    }
}
