//! Variables of the environment whose values no step gives back: the keys of providers.
//!
//! The values are read again for each step: a key that changes is masked from the next step on, and the one before
//! is forgotten then.

use std::sync::{Arc, Mutex, PoisonError};

use super::Veil;

/// A key with fewer bytes is not masked everywhere. A made-up one for a local server (`test`, `ollama`)
/// would take the word out of every output.
const SHORTEST_KEY: usize = 12;

/// The variables, and the veil over the values that they had when it was last needed.
#[derive(Default)]
pub(crate) struct Keys {
    variables: Vec<String>,
    last: Mutex<(Vec<Option<String>>, Arc<Veil>)>,
}

impl Keys {
    /// These variables and further ones.
    pub(crate) fn and(&self, more: impl IntoIterator<Item = String>) -> Keys {
        let mut variables = self.variables.clone();
        variables.extend(more);
        variables.sort();
        variables.dedup();
        Keys { variables, last: Mutex::default() }
    }

    /// The veil over the values that the variables have now.
    pub(crate) fn veil(&self) -> Arc<Veil> {
        let values: Vec<Option<String>> =
            self.variables.iter().map(|name| std::env::var(name).ok()).collect();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != values {
            let keys = self.variables.iter().zip(&values);
            let keys = keys.filter_map(|(name, value)| Some((name, value.as_deref()?.trim())));
            let veil = keys
                .filter(|(_, value)| value.len() >= SHORTEST_KEY)
                .fold(Veil::default(), |veil, (name, value)| veil.hide(value, &format!("[{name}]")));
            *last = (values, Arc::new(veil));
        }
        last.1.clone()
    }
}
