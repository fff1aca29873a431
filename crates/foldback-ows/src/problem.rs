//! Problems: what is wrong with a definition, where, and what to write instead.
//!
//! A [`Report`] gathers them, so that one look shows all of them. This room never stops at the
//! first problem and never reads a definition itself.
//!
//! Invariant: every problem names a line and a column of the source, from 1.

use std::fmt;

use crate::tree::Node;

/// One thing that is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// Where in the document, as a JSON pointer; empty for the document itself.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for Problem {}

/// At most this many problems are gathered: past it a person mends some first.
const PROBLEMS_MAX: usize = 100;

/// The problems and warnings found so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Report {
    /// A problem at a node.
    pub fn problem(&mut self, at: &Node, message: impl Into<String>) {
        self.add(at, message.into(), None);
    }

    /// A problem at a node, with what to do about it.
    pub fn hinted(&mut self, at: &Node, message: impl Into<String>, hint: impl Into<String>) {
        self.add(at, message.into(), Some(hint.into()));
    }

    /// Something that is allowed and looks like a mistake.
    pub fn warning(&mut self, at: &Node, message: impl Into<String>, hint: impl Into<String>) {
        if self.warnings.len() < PROBLEMS_MAX {
            self.warnings.push(problem(at, message.into(), Some(hint.into())));
        }
    }

    fn add(&mut self, at: &Node, message: String, hint: Option<String>) {
        self.found(problem(at, message, hint));
    }

    /// Whether there are so many problems that no further one is told.
    pub fn is_full(&self) -> bool {
        self.problems.len() >= PROBLEMS_MAX
    }

    /// A problem at a place inside a node.
    pub fn found(&mut self, found: Problem) {
        // A function's body is read once for each call of it, and is wrong only once.
        if !self.is_full() && !self.problems.contains(&found) {
            self.problems.push(found);
        }
    }
}

fn problem(at: &Node, message: String, hint: Option<String>) -> Problem {
    Problem { line: at.line, column: at.column, pointer: at.pointer.to_string(), message, hint }
}

#[cfg(test)]
mod tests {
    use foldback_core::report::nearest;

    #[test]
    fn a_misspelled_name_finds_its_neighbour() {
        let known = ["switch", "set", "endpoint", "temperature"];
        assert_eq!(nearest("swtich", known), Some("switch"));
        assert_eq!(nearest("endpont", known), Some("endpoint"));
        assert_eq!(nearest("Temprature", known), Some("temperature"));
        assert_eq!(nearest("banana", known), None);
    }
}
