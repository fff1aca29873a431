//! The names of a list's tasks, each found by its text in one step.

use std::collections::HashMap;
use std::fmt;

/// Names that a hint lists.
const SHOWN_MAX: usize = 20;

/// The names of one list, in its order.
pub(super) struct Names {
    names: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Names {
    pub fn of<'n>(names: impl Iterator<Item = &'n str>) -> Names {
        let names: Vec<String> = names.map(str::to_owned).collect();
        let mut positions = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            positions.entry(name.clone()).or_insert(index);
        }
        Names { names, positions }
    }

    /// The index of the first task of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names[..self.names.len().min(SHOWN_MAX)].join(", "))?;
        match self.names.len().checked_sub(SHOWN_MAX) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}
