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
        let found = problem(at, message, hint);
        // A function's body is read once for each call of it, and is wrong only once.
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&found) {
            self.problems.push(found);
        }
    }
}

fn problem(at: &Node, message: String, hint: Option<String>) -> Problem {
    Problem { line: at.line, column: at.column, pointer: at.pointer.to_string(), message, hint }
}

/// The known name that looks most like `name`, when one does.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    known
        .into_iter()
        .map(|known| (distance(&wanted, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance * 3 <= known.len().max(wanted.len()) && *distance <= 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The number of letters to change, add, drop or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_name_finds_its_neighbour() {
        let known = ["switch", "set", "endpoint", "temperature"];
        assert_eq!(nearest("swtich", known), Some("switch"));
        assert_eq!(nearest("endpont", known), Some("endpoint"));
        assert_eq!(nearest("Temprature", known), Some("temperature"));
        assert_eq!(nearest("banana", known), None);
    }
}
