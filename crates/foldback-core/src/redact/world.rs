//! Redaction of the words of the world: each stimulus, with every outcome, error and answer in it.

use std::sync::Arc;

use super::Redaction;
use crate::change::Changes;
use crate::decide::Stimulus;
use crate::step::{Failure, Outcome, Usage};
use crate::value::Slot;

impl Redaction {
    /// A stimulus without what the rules find, as it may be judged.
    pub fn stimulus(&self, stimulus: Stimulus) -> Stimulus {
        if self.is_empty() {
            return stimulus;
        }
        match stimulus {
            Stimulus::Start { definition, name, file, input, lineage } => {
                Stimulus::Start { definition, name, file, input: self.value(input), lineage }
            }
            Stimulus::Report { key, attempt, outcome, latency_ms } => {
                Stimulus::Report { key, attempt, outcome: self.outcome(outcome), latency_ms }
            }
            Stimulus::Resolve { key, landed } => {
                Stimulus::Resolve { key, landed: landed.map(|output| self.value(output)) }
            }
            Stimulus::Reopen { reason, again, back_to, changes } => Stimulus::Reopen {
                reason: self.text(&reason).into_owned(),
                again,
                back_to,
                changes: changes.map(|changes| Box::new(self.changes(*changes))),
            },
            Stimulus::Fork { lineage, changes } => {
                Stimulus::Fork { lineage, changes: Box::new(self.changes(*changes)) }
            }
            Stimulus::Settle { key, verdict, output, reason } => Stimulus::Settle {
                key,
                verdict,
                output: output.map(|output| self.value(output)),
                reason: self.text(&reason).into_owned(),
            },
            Stimulus::Record { event_type, data } => Stimulus::Record { event_type, data: self.value(data) },
            Stimulus::Pause { reason } => Stimulus::Pause { reason: self.text(&reason).into_owned() },
            Stimulus::Unpause { reason, raised } => {
                Stimulus::Unpause { reason: self.text(&reason).into_owned(), raised }
            }
            Stimulus::Signal { name, data, source, event_id, error } => {
                let error = error.map(|error| Box::new(self.failure(*error)));
                Stimulus::Signal { name, data: self.value(data), source, event_id, error }
            }
            Stimulus::Cancel { reason } => Stimulus::Cancel { reason: self.text(&reason).into_owned() },
            Stimulus::Compensate { reason, from, down_to, again } => {
                Stimulus::Compensate { reason: self.text(&reason).into_owned(), from, down_to, again }
            }
            stimulus @ (Stimulus::Begin { .. }
            | Stimulus::EndCompensation { .. }
            // It stands in the log as it was redacted.
            | Stimulus::Undo { .. }
            | Stimulus::Lost { .. }
            | Stimulus::TimerDue { .. }
            // It stands in a log, and was redacted when it came in.
            | Stimulus::Reuse { .. }
            | Stimulus::Hold { .. }
            | Stimulus::Continue) => stimulus,
        }
    }

    /// What a person changes, without what the rules find; each value in its place.
    pub fn changes(&self, mut changes: Changes) -> Changes {
        for slot in changes.slots_mut() {
            *slot = Slot::Inline(Arc::new(self.value((*slot.get()).clone())));
        }
        changes
    }

    fn outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Completed { output, usage } => {
                Outcome::Completed { output: self.value(output), usage: self.usage(usage) }
            }
            Outcome::Failed { error, retry_after_ms, usage } => {
                Outcome::Failed { error: self.failure(error), retry_after_ms, usage: self.usage(usage) }
            }
            Outcome::Rejected { output, error, usage } => Outcome::Rejected {
                output: self.value(output),
                error: self.failure(error),
                usage: self.usage(usage),
            },
            Outcome::OutOfBudget { usage } => Outcome::OutOfBudget { usage: self.usage(usage) },
            Outcome::Unknown { reason } => Outcome::Unknown { reason: self.quoting(&reason) },
        }
    }

    /// An error, without what the rules find in its words.
    pub fn failure(&self, mut error: Failure) -> Failure {
        error.title = self.quoting(&error.title);
        error.detail = error.detail.map(|detail| self.quoting(&detail).into());
        error
    }

    /// What a provider says of itself; our own counts are no texts.
    fn usage(&self, usage: Option<Usage>) -> Option<Usage> {
        usage.map(|usage| Usage {
            model: self.text(&usage.model).into_owned(),
            finish_reason: usage.finish_reason.map(|reason| self.text(&reason).into_owned()),
            raw: usage.raw.map(|raw| self.value(raw)),
            ..usage
        })
    }
}
