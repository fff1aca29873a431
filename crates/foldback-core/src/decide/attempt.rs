//! The judgement over one attempt: what a report becomes, and what is done about an attempt whose
//! process died. It reads the step's policies, never a clock: chance is derived from the key.

use serde_json::Value;

use crate::event::{AttemptFailed, Fact, Lost, StepCompleted, StepFailed};
use crate::key::Key;
use crate::state::{Step, WorkflowState};
use crate::step::{Effect, Failure, Outcome, Recovery, Usage, backoff_ms, chance, error_type};
use crate::value::{Slot, is_too_deep};
use crate::{Micros, limits};

use super::nesting;

/// The judgement over one attempt.
pub(super) struct Attempt<'a> {
    pub(super) state: &'a WorkflowState,
    pub(super) key: Key,
    pub(super) step: &'a Step,
    pub(super) now: Micros,
}

impl Attempt<'_> {
    /// The fact that its outcome becomes.
    pub(super) fn judge(self, outcome: Outcome, latency_ms: u64) -> Fact {
        let attempt = self.step.attempts;
        match outcome {
            Outcome::Completed { output, usage } | Outcome::Rejected { output, usage, .. }
                if is_too_deep(&output) =>
            {
                let reason = format!("the answer nests deeper than {} levels", limits::VALUE_DEPTH_MAX);
                match self.step.effect {
                    // It may well have happened.
                    Effect::Write => self.unknown(reason),
                    Effect::Pure | Effect::Read => self.failed(nesting(reason), None, usage),
                }
            }
            Outcome::Completed { output, usage } => Fact::StepCompleted(Box::new(StepCompleted {
                key: self.key,
                attempt,
                output: Slot::of(output),
                latency_ms,
                usage,
            })),
            Outcome::Failed { error, retry_after_ms, usage } => self.failed(error, retry_after_ms, usage),
            Outcome::Rejected { output, error, usage } => self.rejected(output, error, usage),
            Outcome::OutOfBudget { usage } => self.out_of_budget(usage),
            Outcome::Unknown { reason } if self.step.effect != Effect::Write => self.unanswered(reason),
            Outcome::Unknown { reason } => self.unknown(reason),
        }
    }

    fn failed(self, error: Failure, retry_after_ms: Option<u64>, usage: Option<Usage>) -> Fact {
        if error.error_type == error_type::NO_ROOM {
            return self.put_off(error);
        }
        let Some(policy) = self.step.retry.as_ref().filter(|_| self.may_go_on()) else {
            return self.step_failed(error, None, usage);
        };
        let asked_ms = retry_after_ms.unwrap_or(0);
        let own_attempts = self.step.own_attempts();
        let may_repeat = !error.non_retryable
            && own_attempts < policy.attempts
            && (policy.statuses.is_empty() || policy.statuses.contains(&error.status));
        let has_next = self.step.variant < policy.variants && policy.variant_statuses.contains(&error.status);
        // Who asks for more patience than the policy has is passed by, where there is another.
        if may_repeat && !(has_next && asked_ms > policy.max_delay_ms) {
            let delay = policy.delay_after(own_attempts.max(1), self.chance());
            let delay_ms = delay.max(asked_ms).min(limits::RETRY_DELAY_MAX_MS);
            return self.again(Again { delay_ms, ..Again::after(error, usage) });
        }
        if has_next {
            let variant = Some(self.step.variant + 1);
            return self.again(Again { variant, ..Again::after(error, usage) });
        }
        self.step_failed(error, None, usage)
    }

    /// No answer came to a step that only looks. Without a policy of its own it looks once more, as it would
    /// after a crash in the middle of it: a server may close a kept connection just as it is asked.
    fn unanswered(self, reason: String) -> Fact {
        let error = Failure::new(error_type::COMMUNICATION, 503, "No answer", reason);
        match self.step.retry.is_none() && self.step.own_attempts() <= 1 && self.may_go_on() {
            true => self.again(Again::after(error, None)),
            false => self.failed(error, None, None),
        }
    }

    /// Nothing was begun, for want of room on this machine: it is begun later, however often.
    fn put_off(self, error: Failure) -> Fact {
        if self.may_go_on() {
            let (base_ms, max_ms) = limits::NO_ROOM_BACKOFF_MS;
            let delay_ms = backoff_ms(base_ms, max_ms, self.step.attempts, self.chance());
            return self.again(Again { delay_ms, ..Again::after(error, None) });
        }
        // Of what was sent before nobody knows, still.
        let was_sent = self.step.effect == Effect::Write && self.step.unknowns + self.step.interruptions > 0;
        if was_sent { self.unknown(error.title) } else { self.step_failed(error, None, None) }
    }

    /// An answer that a budget cut off is asked for again, once there is more: the budget is used up by
    /// it, so the next attempt waits until somebody raises it.
    fn out_of_budget(self, usage: Option<Usage>) -> Fact {
        let used = usage.as_ref().map_or(0, |u| u.input_tokens.saturating_add(u.output_tokens));
        let is_used_up = self.state.tokens_left(&self.key).is_some_and(|left| used >= left);
        let detail =
            "what was left of the budget cut the answer off; it is asked for again with a larger one";
        let error = Failure::new(error_type::RUNTIME, 402, "The budget left too few tokens", detail);
        match is_used_up && self.may_go_on() {
            true => self.again(Again::after(error, usage)),
            false => self.step_failed(error, None, usage),
        }
    }

    fn rejected(self, output: Value, error: Failure, usage: Option<Usage>) -> Fact {
        let repairs = self.step.retry.as_ref().map_or(0, |policy| policy.repairs);
        if self.step.repairs < repairs && self.may_go_on() {
            let rejected = Some(Slot::of(output));
            return self.again(Again { rejected, ..Again::after(error, usage) });
        }
        self.step_failed(error, Some(Slot::of(output)), usage)
    }

    fn unknown(self, reason: String) -> Fact {
        let may_retry = self.step.recovery == Some(Recovery::Retry)
            && self.step.unknowns < limits::UNKNOWN_ATTEMPTS_MAX
            && self.may_go_on();
        if !may_retry {
            return Fact::OutcomeUnknown { key: self.key, attempt: self.step.attempts, reason };
        }
        let (base_ms, max_ms) = limits::UNKNOWN_BACKOFF_MS;
        let delay_ms = backoff_ms(base_ms, max_ms, self.step.unknowns + 1, self.chance());
        let error = Failure::new(error_type::COMMUNICATION, 503, "Outcome unknown, sent again", reason);
        self.again(Again { delay_ms, unknown: true, ..Again::after(error, None) })
    }

    /// Whether the step may begin another attempt at all.
    fn may_go_on(&self) -> bool {
        self.state.may_move(&self.key) && !self.step.is_given_up
    }

    /// The engine of an attempt died under it. `found` says what was found of the attempt since.
    pub(super) fn lost(self, may_start: bool, found: Option<String>) -> Option<Fact> {
        let key = self.key.clone();
        let attempt = self.step.attempts;
        let spent = self.step.interruptions >= limits::INTERRUPTIONS_MAX;
        let reason = format!("the process ended while attempt {attempt} was under way");
        let reason = found.map_or(reason.clone(), |found| format!("{reason}; {found}"));
        let may_repeat = match (self.step.effect, self.step.recovery) {
            (Effect::Pure | Effect::Read, _) | (Effect::Write, Some(Recovery::Retry)) => !spent,
            (Effect::Write, _) => false,
        };
        if may_repeat && self.may_go_on() {
            let under_way_ms =
                self.now.saturating_sub(self.step.began.unwrap_or(self.now)).max(0) as u64 / 1_000;
            let at_most_ms = under_way_ms.min(self.step.timeout_ms.unwrap_or(limits::STEP_TIMEOUT_MS));
            let lost = Some(Lost { attempt, at_most_ms, reason });
            return may_start.then_some(Fact::AttemptStarted { key, attempt: attempt + 1, lost });
        }
        if self.step.effect == Effect::Write {
            return Some(Fact::OutcomeUnknown { key, attempt, reason });
        }
        if !self.state.may_move(&self.key) {
            return None;
        }
        let detail = format!(
            "{reason}; it was interrupted {} times and is not started again",
            self.step.interruptions + 1
        );
        Some(self.step_failed(Failure::new(error_type::RUNTIME, 500, "Interrupted", detail), None, None))
    }

    fn again(self, again: Again) -> Fact {
        let Again { error, delay_ms, rejected, usage, unknown, variant } = again;
        let due = self.now.saturating_add(delay_ms as i64 * 1_000);
        let (error, attempt) = (self.located(error), self.step.attempts);
        let key = self.key;
        Fact::AttemptFailed(Box::new(AttemptFailed {
            key,
            attempt,
            error,
            delay_ms,
            due,
            rejected,
            usage,
            unknown,
            variant,
        }))
    }

    fn step_failed(self, error: Failure, rejected: Option<Slot>, usage: Option<Usage>) -> Fact {
        let (error, attempt) = (self.located(error), self.step.attempts);
        Fact::StepFailed(Box::new(StepFailed { key: self.key, attempt, error, rejected, usage }))
    }

    fn located(&self, mut error: Failure) -> Failure {
        error.key = Some(self.key.clone());
        error.instance = error.instance.or_else(|| self.step.instance.as_deref().map(str::to_owned));
        error
    }

    fn chance(&self) -> u64 {
        chance(&self.state.workflow_id, &self.key, self.step.attempts)
    }
}

/// How a step goes on after an attempt that failed.
struct Again {
    error: Failure,
    delay_ms: u64,
    rejected: Option<Slot>,
    usage: Option<Usage>,
    unknown: bool,
    variant: Option<u32>,
}

impl Again {
    /// At once, and as before.
    fn after(error: Failure, usage: Option<Usage>) -> Again {
        Again { error, delay_ms: 0, rejected: None, usage, unknown: false, variant: None }
    }
}
