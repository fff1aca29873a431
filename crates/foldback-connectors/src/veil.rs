//! The veil over secrets: the one place that reveals them for a kind, and takes them out again of
//! everything the kind gives back.
//!
//! Invariant: no kind in this crate is reached but through [`Veiled`]. What a server or a process
//! echoes of a secret is replaced by the secret's name in outputs, errors, reasons and progress.
//! What it never does: look for secrets shorter than [`SHORTEST`] (they would be found in every
//! second word), or in bytes that are encoded once more (an HTTP `raw` answer).

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use foldback_core::{Failure, Outcome};
use foldback_engine::kind::{Call, Performing, StepKind};
use serde_json::Value;

/// Secrets with fewer bytes are not looked for in answers.
pub(crate) const SHORTEST: usize = 6;

/// A kind's work, once its request is revealed.
pub(crate) trait Work: Send + Sync + 'static {
    /// See [`StepKind::run_ahead`].
    const RUN_AHEAD: u32;

    /// Performs one attempt. `request` is the call's request with its secrets filled in; the call
    /// itself still holds `null` in their places.
    fn work(self: Arc<Self>, call: Call, request: Value) -> impl Future<Output = Outcome> + Send;
}

/// A kind whose answers are veiled.
pub(crate) struct Veiled<W>(pub(crate) Arc<W>);

impl<W: Work> StepKind for Veiled<W> {
    fn perform(&self, mut call: Call) -> Performing {
        let inner = self.0.clone();
        Box::pin(async move {
            let request = match call.reveal() {
                Ok(request) => request,
                Err(error) => return failed(error),
            };
            let veil = Arc::new(Veil::over(&call, &request));
            if !veil.is_empty() {
                let (veil, progress) = (veil.clone(), call.progress.clone());
                call.progress = Arc::new(move |text| progress(&veil.text(text)));
            }
            veil.outcome(inner.work(call, request).await)
        })
    }

    fn run_ahead(&self) -> u32 {
        W::RUN_AHEAD
    }
}

/// A failed outcome without more to say than its failure.
pub(crate) fn failed(error: Failure) -> Outcome {
    Outcome::Failed { error, retry_after_ms: None, usage: None }
}

/// The secrets of one call, and what is shown in their places.
#[derive(Default)]
pub(crate) struct Veil {
    hidden: Vec<(String, String)>,
}

impl Veil {
    /// The secrets that a call's request was filled with.
    fn over(call: &Call, request: &Value) -> Veil {
        let mut veil = Veil::default();
        for (pointer, name) in &call.secrets {
            if let Some(value) = request.pointer(pointer).and_then(Value::as_str) {
                veil = veil.hide(value, &format!("[secret {name}]"));
            }
        }
        // A password goes out as base64; a server that echoes headers gives it back like that.
        if call.secrets.keys().any(|pointer| pointer.starts_with("/authentication/")) {
            let part = |name| request.pointer(&format!("/authentication/{name}")).and_then(Value::as_str);
            if let (Some(user), Some(password)) = (part("username"), part("password")) {
                veil = veil.hide(&STANDARD.encode(format!("{user}:{password}")), "[secret authentication]");
            }
        }
        veil
    }

    /// Hides one more value behind a name.
    pub(crate) fn hide(mut self, value: &str, shown: &str) -> Veil {
        if value.len() >= SHORTEST {
            self.hidden.push((value.to_owned(), shown.to_owned()));
            // Longest first, so that a secret that contains another leaves no rest.
            self.hidden.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        }
        self
    }

    fn is_empty(&self) -> bool {
        self.hidden.is_empty()
    }

    /// The text without secrets.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut clean = Cow::Borrowed(text);
        for (value, shown) in &self.hidden {
            if clean.contains(value.as_str()) {
                clean = Cow::Owned(clean.replace(value.as_str(), shown));
            }
        }
        clean
    }

    /// The value without secrets, in its strings and in its names.
    pub(crate) fn value(&self, value: Value) -> Value {
        if self.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(&text).into_owned()),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.value(item)).collect()),
            Value::Object(map) => Value::Object(
                map.into_iter()
                    .map(|(name, value)| (self.text(&name).into_owned(), self.value(value)))
                    .collect(),
            ),
            other => other,
        }
    }

    /// The failure without secrets.
    pub(crate) fn failure(&self, mut error: Failure) -> Failure {
        error.title = self.text(&error.title).into_owned();
        error.detail = error.detail.map(|detail| self.text(&detail).into_owned());
        error
    }

    fn outcome(&self, outcome: Outcome) -> Outcome {
        if self.is_empty() {
            return outcome;
        }
        match outcome {
            Outcome::Completed { output, usage } => Outcome::Completed { output: self.value(output), usage },
            Outcome::Failed { error, retry_after_ms, usage } => {
                Outcome::Failed { error: self.failure(error), retry_after_ms, usage }
            }
            Outcome::Rejected { output, error, usage } => {
                Outcome::Rejected { output: self.value(output), error: self.failure(error), usage }
            }
            Outcome::Unknown { reason } => Outcome::Unknown { reason: self.text(&reason).into_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_answer_echoes_of_a_secret_is_replaced_by_its_name() {
        let veil = Veil::default()
            .hide("canary", "[secret a]")
            .hide("canary-long", "[secret b]")
            .hide("x", "[secret c]");
        assert_eq!(veil.text("x canary-long canary"), "x [secret b] [secret a]");
        assert_eq!(
            veil.value(json!({"canary": ["my canary", 1]})),
            json!({"[secret a]": ["my [secret a]", 1]})
        );
        let shown = veil.outcome(Outcome::Unknown { reason: "sent canary".into() });
        assert_eq!(shown, Outcome::Unknown { reason: "sent [secret a]".into() });
    }
}
