//! What a simulated workflow does, drawn from the dice: a small tree, which `fronts` makes a Rust
//! program or an OWS document of. It knows nothing of faults.

use foldback::core::{Effect, Recovery};

use crate::dice::Dice;

/// One part of a workflow. A number, the sum, flows through all of it.
#[derive(Clone, Debug)]
pub enum Node {
    /// A step, whose answer is added to the sum.
    Step(Plan),
    /// One after the other.
    All(Vec<Node>),
    /// Side by side; the sum is that of the branches' sums.
    Side(Vec<Node>),
    /// So many times, one after the other.
    Times(u64, Box<Node>),
    /// A failure inside is caught: the sum from before goes on, with one added.
    Caught(Box<Node>),
    /// A failure inside is tried again, at most so many times.
    Again(u64, Box<Node>),
    /// Waits, in ms.
    Wait(u64),
    /// One of two, by whether the sum is even.
    Either(Box<Node>, Box<Node>),
    /// So many facts without a step: a log that is worth a snapshot.
    Long(u64),
    /// Side by side, until one has completed: the others are given up. The sum from before goes on,
    /// whoever won.
    Race(Vec<Node>),
    /// Given up after so many ms. The sum from before goes on, whether it was in time or failed.
    Limited(u64, Box<Node>),
}

/// A step, and how the world is going to treat it. The world reads that from the request.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub effect: Effect,
    pub recovery: Recovery,
    /// Whether the server honours idempotency keys. One that does not is only safe with a recovery
    /// that asks a person.
    pub keyed: bool,
    /// Answers that are known failures before one that is not.
    pub fails: u64,
    /// Failures that the world may add without using up the policy.
    pub slack: u64,
    /// Fails in the first so many tries of the block around it.
    pub tries: u64,
    /// Never anything but a failure.
    pub hopeless: bool,
}

impl Plan {
    /// Attempts that the step's policy grants: exactly what the world may use up, and no more, so
    /// that one counted twice shows.
    pub fn attempts(&self) -> u64 {
        1 + self.fails + self.slack
    }
}

/// Draws workflows.
pub struct Author<'a> {
    dice: &'a mut Dice,
    steps: u64,
}

/// Where a part stands.
#[derive(Clone, Copy, Default)]
struct Around {
    depth: u32,
    /// Inside a block that is tried again, so many times: writes need a server that honours keys.
    tries: u64,
    /// Inside a block that catches.
    is_caught: bool,
}

impl Author<'_> {
    pub fn draw(dice: &mut Dice) -> Node {
        let is_long = dice.one_in(60);
        let mut author = Author { dice, steps: 0 };
        let mut parts = author.parts(Around::default(), 4);
        if is_long {
            parts.insert(parts.len() / 2, Node::Long(1_010));
        }
        Node::All(parts)
    }

    fn parts(&mut self, around: Around, most: u64) -> Vec<Node> {
        (0..self.dice.within(1, most)).map(|_| self.node(around)).collect()
    }

    fn boxed(&mut self, around: Around) -> Box<Node> {
        Box::new(Node::All(self.parts(around, 2)))
    }

    fn node(&mut self, around: Around) -> Node {
        let inner = Around { depth: around.depth + 1, ..around };
        if around.depth >= 3 || self.steps >= 14 {
            return Node::Step(self.plan(around));
        }
        match self.dice.below(24) {
            0..=9 => Node::Step(self.plan(around)),
            10..=12 => Node::Side((0..self.dice.within(2, 3)).map(|_| *self.boxed(inner)).collect()),
            13 | 14 => Node::Times(self.dice.within(1, 3), self.boxed(inner)),
            15 => Node::Caught(self.boxed(Around { is_caught: true, ..inner })),
            16 if around.tries == 0 => {
                let tries = self.dice.within(1, 2);
                Node::Again(tries, self.boxed(Around { tries, ..inner }))
            }
            17 => Node::Either(self.boxed(inner), self.boxed(inner)),
            20 | 21 => {
                // In one that may lose, a failure ends nothing but itself, unless all fail.
                let inner = Around { is_caught: true, ..inner };
                Node::Race((0..self.dice.within(2, 3)).map(|_| *self.boxed(inner)).collect())
            }
            22 | 23 => self.limited(Around { is_caught: true, ..inner }),
            _ => Node::Wait(self.dice.within(1, 4_000)),
        }
    }

    /// A limit on a block, or on one task.
    fn limited(&mut self, inner: Around) -> Node {
        let limit_ms = self.dice.within(1, 3_000);
        let part = if self.dice.one_in(2) { Node::Step(self.plan(inner)) } else { *self.boxed(inner) };
        Node::Limited(limit_ms, Box::new(part))
    }

    fn plan(&mut self, around: Around) -> Plan {
        self.steps += 1;
        let effect = match self.dice.below(8) {
            0 => Effect::Pure,
            1..=3 => Effect::Read,
            _ => Effect::Write,
        };
        let keyed = around.tries > 0 || self.dice.one_in(2);
        // A server that honours keys leaves the choice; one that does not needs a person.
        let recovery = if keyed && !self.dice.one_in(4) { Recovery::Retry } else { Recovery::Operator };
        let hopeless = self.dice.one_in(if around.is_caught { 3 } else { 60 });
        let has_slack = !hopeless && self.dice.one_in(3);
        Plan {
            name: format!("s{}", self.steps),
            effect,
            recovery,
            keyed,
            fails: if self.dice.one_in(4) { self.dice.within(1, 2) } else { 0 },
            slack: if has_slack { self.dice.within(1, 2) } else { 0 },
            tries: if around.tries > 0 && self.dice.one_in(3) {
                self.dice.within(1, around.tries)
            } else {
                0
            },
            hopeless,
        }
    }
}
