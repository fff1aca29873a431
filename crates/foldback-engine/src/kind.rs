//! Step kinds: the edge at which the engine's work is done. The engine never learns what a model
//! or a socket is; it takes kinds by name from a [`Registry`].
//!
//! A kind knows nothing of secrets: the registry hands it out behind a mask (`veil`) that fills them into
//! its request and takes them out of all that it gives back.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use foldback_core::{Effect, Failure, Key, Outcome};
use serde_json::Value;

use crate::veil::{Keys, Veiled};

/// A future that a step kind returns.
pub type Performing = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A look for what is left of an attempt.
pub type Looking = Pin<Box<dyn Future<Output = Remains> + Send>>;

/// What is left of an attempt after its engine died. Each says what was found in words that go on after
/// "attempt 1 …" or stand in a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing was found, or it could not be looked for: `found` says which.
    Nothing {
        /// Such as "no process of it was found on this host".
        found: String,
    },
    /// It was still running, and was ended.
    Ended {
        /// Such as "its process was ended (pid 7)".
        found: String,
    },
    /// It runs, and could not be ended: nothing else may begin in its place.
    Running {
        /// Such as "still runs (pid 7)".
        found: String,
    },
}

/// One kind of step: `http`, `llm`, `shell`, …
pub trait StepKind: Send + Sync {
    /// Performs one attempt. Runs on a thread pool; must not block.
    ///
    /// The request holds its secrets already. Where the outcome or the progress gives one of them back, the
    /// engine puts its name in its place.
    ///
    /// The engine bounds it by the step's timeout. A kind that knows a `write` did not land says
    /// [`Outcome::Failed`]; one that does not know says [`Outcome::Unknown`], never a guess.
    fn perform(&self, call: Call) -> Performing;

    /// Looks for what an attempt has left running after its engine died, and ends it. The engine asks
    /// before it judges such an attempt, and before it begins another one. `None`: an attempt of this
    /// kind never outlives its engine.
    fn end_orphans(&self, _attempt_id: &str) -> Option<Looking> {
        None
    }

    /// How many files one attempt keeps open (connections and pipes are files). So many attempts run at
    /// once as this process may open files for. A kind that cannot begin for want of room says
    /// [`Outcome::Failed`] with the type `error_type::NO_ROOM`, and is asked again later.
    fn files(&self) -> usize {
        1
    }

    /// How many commits may be under way when an attempt starts (only for `read` and `pure`).
    fn run_ahead(&self) -> u32 {
        foldback_core::limits::RUN_AHEAD_OTHER
    }

    /// How long an attempt may take where its step does not say, in ms; at most
    /// [`STEP_TIMEOUT_MS`](foldback_core::limits::STEP_TIMEOUT_MS).
    fn timeout_ms(&self) -> u64 {
        foldback_core::limits::STEP_TIMEOUT_MS
    }
}

/// One attempt to be performed.
#[derive(Clone)]
pub struct Call {
    /// The workflow.
    pub workflow_id: Arc<str>,
    /// The step.
    pub key: Key,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The attempt's name: a hash of store, workflow, key and attempt. Whatever it starts outside of this
    /// process carries it, so that the next engine finds it: [`StepKind::end_orphans`].
    pub attempt_id: String,
    /// Which variant of the request, where its policy has several; 0 is the request as it stands.
    pub variant: u32,
    /// The request: a JSON object. A kind finds it with its secrets filled in, so it is never logged.
    pub request: Value,
    /// JSON pointers in `request` at which a secret stands, with the secret's name.
    pub secrets: BTreeMap<String, String>,
    /// What it does to the world.
    pub effect: Effect,
    /// For a `write`: the same for all attempts of this step, and for nothing else.
    pub idempotency_key: Option<String>,
    /// How long the attempt may take, in ms. The engine ends it then; a kind may use it too.
    pub timeout_ms: u64,
    /// How many tokens the budgets around it leave it, where there are any.
    pub tokens_left: Option<u64>,
    /// The answer that was rejected, and why, where this attempt is a repair round.
    pub rejected: Option<(Value, Failure)>,
    /// Where progress goes as it comes: a model's tokens, a process's lines. Never durable.
    pub progress: Progress,
}

/// Takes progress as it comes.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

impl Call {
    /// Fills the secrets in from the environment: the secret `x` is the variable `FOLDBACK_SECRET_X`,
    /// or `X`.
    ///
    /// # Errors
    /// A secret that is not set, or that has no place in the request.
    pub(crate) fn reveal(&mut self) -> Result<(), Failure> {
        let wrong =
            |title, detail| Failure::new(foldback_core::step::error_type::CONFIGURATION, 400, title, detail);
        for (pointer, name) in &self.secrets {
            let value = secret(name).ok_or_else(|| {
                let variable = variable_of(name);
                let detail = format!("secret `{name}`: set {variable} in the environment of the engine");
                wrong("A secret is not set", detail)
            })?;
            let place = self.request.pointer_mut(pointer).ok_or_else(|| {
                let detail = format!("secret `{name}`: the request has no place at `{pointer}`");
                wrong("A secret has no place", detail)
            })?;
            *place = Value::String(value);
        }
        Ok(())
    }
}

fn variable_of(name: &str) -> String {
    let upper: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("FOLDBACK_SECRET_{upper}")
}

fn secret(name: &str) -> Option<String> {
    let variable = variable_of(name);
    let short = variable.trim_start_matches("FOLDBACK_SECRET_").to_owned();
    std::env::var(variable).or_else(|_| std::env::var(short)).ok()
}

/// The kinds of steps an engine can perform, by name, and the keys that none of them gives back.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: BTreeMap<String, Arc<dyn StepKind>>,
    keys: Arc<Keys>,
    /// The most files that an attempt of any kind keeps open.
    files: usize,
}

impl Registry {
    /// Adds a kind under a name; a later one of the same name replaces it.
    pub fn with(mut self, name: &str, kind: impl StepKind + 'static) -> Registry {
        self.files = self.files.max(kind.files());
        self.kinds.insert(name.to_owned(), Arc::new(kind));
        self
    }

    /// Names variables of the environment that hold keys. In what any step gives back, `[VARIABLE]`
    /// stands in the place of such a key, if the key has at least 12 bytes.
    pub fn hiding(self, variables: impl IntoIterator<Item = String>) -> Registry {
        Registry { keys: Arc::new(self.keys.and(variables)), ..self }
    }

    /// The most files that an attempt of any of its kinds keeps open.
    pub fn files(&self) -> usize {
        self.files
    }

    /// The kind of this name, behind the mask.
    pub fn get(&self, name: &str) -> Option<Veiled> {
        let kind = self.kinds.get(name)?.clone();
        Some(Veiled { kind, keys: self.keys.clone() })
    }
}
