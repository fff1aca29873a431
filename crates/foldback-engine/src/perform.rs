//! Performers: where attempts run. Each reports exactly once, whatever happens to it.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use foldback_core::step::error_type;
use foldback_core::{Effect, Failure, Key, Outcome};

use crate::engine::Message;
use crate::kind::Remains;
use crate::machine::{Attempt, Look};

/// Starts an attempt on the thread pool. Its report comes back as a [`Message::Report`].
pub fn perform(pool: &tokio::runtime::Handle, attempt: Attempt, to: Sender<Message>) {
    let Attempt { kind, kind_name, call, stop, flight } = attempt;
    let mut report = Reporting {
        to: Some(to),
        workflow_id: call.workflow_id.clone(),
        key: call.key.clone(),
        attempt: call.attempt,
        effect: call.effect,
        flight,
        began: Instant::now(),
    };
    let Some(kind) = kind else {
        let detail = format!("no step kind `{kind_name}` is registered in this process");
        report.send(failed(Failure::new(error_type::CONFIGURATION, 400, "Unknown step kind", detail)));
        return;
    };
    if call.timeout_ms == 0 {
        let detail = "`timeout_ms` is 0, which leaves no time to begin: nothing was sent";
        report.send(failed(Failure::new(error_type::CONFIGURATION, 400, "No time to begin", detail)));
        return;
    }
    pool.spawn(async move {
        let limit = Duration::from_millis(call.timeout_ms);
        let (timeout_ms, effect) = (call.timeout_ms, call.effect);
        let outcome = tokio::select! {
            performed = tokio::time::timeout(limit, kind.perform(call)) => {
                performed.unwrap_or_else(|_| out_of_time(effect, timeout_ms))
            }
            () = told(stop) => given_up(effect),
        };
        report.send(outcome);
    });
}

/// Looks for what is left of an attempt on the thread pool. What is found comes back as a
/// [`Message::Looked`].
pub fn look(pool: &tokio::runtime::Handle, look: Look, to: Sender<Message>) {
    let Look { workflow_id, key, attempt, looking } = look;
    pool.spawn(async move {
        // On a task of its own: one that panics costs this look, and is no reason to wait for ever.
        let broke_off = || Remains::Nothing { found: "the look for what is left of it broke off".to_owned() };
        let remains = tokio::spawn(looking).await.unwrap_or_else(|_| broke_off());
        // The loop may be gone; the next owner looks again.
        let _gone = to.send(Message::Looked { workflow_id, key, attempt, remains });
    });
}

fn out_of_time(effect: Effect, timeout_ms: u64) -> Outcome {
    let detail = format!("no answer within {timeout_ms} ms");
    match effect {
        Effect::Write => Outcome::Unknown { reason: detail },
        Effect::Pure | Effect::Read => failed(Failure::new(error_type::TIMEOUT, 408, "Timeout", detail)),
    }
}

/// Comes back when the attempt was told to stop, and never when the teller is gone.
async fn told(stop: tokio::sync::oneshot::Receiver<()>) {
    if stop.await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn given_up(effect: Effect) -> Outcome {
    let detail = "it was given up while it was under way".to_owned();
    match effect {
        Effect::Write => Outcome::Unknown { reason: detail },
        Effect::Pure | Effect::Read => failed(Failure::new(error_type::TIMEOUT, 408, "Given up", detail)),
    }
}

fn failed(error: Failure) -> Outcome {
    Outcome::Failed { error, retry_after_ms: None, usage: None }
}

/// Owed from the moment an attempt starts: dropped without having been sent (the kind panicked,
/// the pool shut down), it says so.
struct Reporting {
    to: Option<Sender<Message>>,
    workflow_id: Arc<str>,
    key: Key,
    attempt: u32,
    effect: Effect,
    flight: u64,
    began: Instant,
}

impl Reporting {
    fn send(&mut self, outcome: Outcome) {
        let Some(to) = self.to.take() else { return };
        let latency_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // The loop may be gone; then nobody is owed a report, and the next owner finds the
        // attempt under way in the log.
        let _gone = to.send(Message::Report {
            workflow_id: self.workflow_id.clone(),
            key: self.key.clone(),
            attempt: self.attempt,
            outcome,
            latency_ms,
            flight: self.flight,
        });
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        let reason = "the step's code panicked, or its process is ending".to_owned();
        let outcome = match self.effect {
            Effect::Write => Outcome::Unknown { reason },
            Effect::Pure | Effect::Read => {
                failed(Failure::new(error_type::RUNTIME, 500, "The step broke off", reason).non_retryable())
            }
        };
        self.send(outcome);
    }
}
