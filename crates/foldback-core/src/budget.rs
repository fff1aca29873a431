//! Budgets: how much a workflow, or a scope of it, may use before a person is asked.
//!
//! A budget never cuts anything off: what is under way goes on, and what would begin next waits, visibly,
//! until the budget is raised. What takes something back is outside of every budget.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::event::{Fact, Raised};
use crate::key::Key;
use crate::limits;
use crate::state::{StepStatus, WorkflowState};
use crate::step::Usage;

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Tokens read and written by models.
    Tokens,
    /// Millionths of a US dollar, as far as prices are known.
    MicroUsd,
    /// Time since its begin, in ms; not while it was paused or had failed.
    WallMs,
    /// Steps completed.
    Steps,
}

impl Measure {
    /// All of them.
    pub const ALL: [Measure; 4] = [Measure::Tokens, Measure::MicroUsd, Measure::WallMs, Measure::Steps];

    /// The word of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::Tokens => "tokens",
            Measure::MicroUsd => "micro_usd",
            Measure::WallMs => "wall_ms",
            Measure::Steps => "steps",
        }
    }

    /// The measure of a word.
    pub fn of(word: &str) -> Option<Measure> {
        Measure::ALL.into_iter().find(|measure| measure.as_str() == word)
    }
}

/// A budget as the state knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// How much there is.
    pub limits: BTreeMap<Measure, u64>,
    /// How much of it was used; wall time is told by `since`.
    pub spent: BTreeMap<Measure, u64>,
    /// From when wall time counts, by the machine's clock.
    pub since: Micros,
    /// What was warned of already.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub warned: BTreeSet<Measure>,
}

impl Budget {
    /// How much of a measure is used.
    pub fn used(&self, measure: Measure, now: Micros) -> u64 {
        match measure {
            Measure::WallMs => u64::try_from(now.saturating_sub(self.since)).unwrap_or(0) / 1_000,
            Measure::Tokens | Measure::MicroUsd | Measure::Steps => {
                self.spent.get(&measure).copied().unwrap_or(0)
            }
        }
    }

    fn used_up(&self, now: Micros) -> Option<(Measure, u64, u64)> {
        let mut limits =
            self.limits.iter().map(|(measure, limit)| (*measure, self.used(*measure, now), *limit));
        limits.find(|(_, used, limit)| used >= limit)
    }
}

impl WorkflowState {
    fn budgets_around<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Budget)> {
        let is_counted = !key.is_aside();
        self.budgets.iter().filter(move |(scope, _)| is_counted && (scope.is_root() || key.is_inside(scope)))
    }

    /// The budget that keeps what stands at this key from beginning, and how much of it is used.
    pub(crate) fn used_up(&self, key: &Key, now: Micros) -> Option<(Key, Measure, u64, u64)> {
        self.budgets_around(key).find_map(|(scope, budget)| {
            let (measure, used, limit) = budget.used_up(now)?;
            Some((scope.clone(), measure, used, limit))
        })
    }

    /// How many tokens a call at this key may use.
    pub fn tokens_left(&self, key: &Key) -> Option<u64> {
        let left = self.budgets_around(key).filter_map(|(_, budget)| {
            let limit = budget.limits.get(&Measure::Tokens)?;
            Some(limit.saturating_sub(budget.used(Measure::Tokens, 0)))
        });
        left.min()
    }

    /// Whether something may begin at this key: nothing does while the workflow is paused, or over a
    /// budget that is used up.
    pub(crate) fn may_begin(&self, key: &Key, now: Micros) -> bool {
        self.pause.is_none() && self.may_move(key) && self.used_up(key, now).is_none()
    }

    pub(crate) fn spend_at(&mut self, key: &Key, usage: Option<&Usage>, steps: u64) {
        if self.budgets.is_empty() || key.is_aside() {
            return;
        }
        let tokens = usage.map_or(0, |usage| usage.input_tokens.saturating_add(usage.output_tokens));
        let micro_usd = usage.and_then(|usage| usage.micro_usd).unwrap_or(0);
        for (scope, budget) in &mut self.budgets {
            if !scope.is_root() && !key.is_inside(scope) {
                continue;
            }
            for (measure, more) in
                [(Measure::Tokens, tokens), (Measure::MicroUsd, micro_usd), (Measure::Steps, steps)]
            {
                if budget.limits.contains_key(&measure) {
                    let spent = budget.spent.entry(measure).or_insert(0);
                    *spent = spent.saturating_add(more);
                }
            }
        }
    }

    pub(crate) fn raise(&mut self, raised: &[Raised]) {
        for Raised { scope, measure, limit } in raised {
            if let Some(budget) = self.budgets.get_mut(scope) {
                budget.limits.insert(*measure, *limit);
                budget.warned.remove(measure);
            }
        }
    }

    /// What is to be said of budgets: that one comes to its end, or is used up while something waits to
    /// begin.
    pub(crate) fn of_budgets(&self, now: Micros) -> Option<Fact> {
        if self.budgets.is_empty() || self.end.is_some() {
            return None;
        }
        // The time of a pause is nobody's.
        let now = self.pause.as_ref().map_or(now, |pause| now.min(pause.since));
        let warning = self.budgets.iter().find_map(|(scope, budget)| {
            let is_near = |(measure, limit): &(&Measure, &u64)| {
                let used = u128::from(budget.used(**measure, now));
                !budget.warned.contains(measure)
                    && used * 100 >= u128::from(**limit) * u128::from(limits::BUDGET_WARNING_PERCENT)
            };
            let (measure, limit) = budget.limits.iter().find(is_near)?;
            let spent = budget.used(*measure, now);
            Some(Fact::BudgetWarned { scope: scope.clone(), measure: *measure, spent, limit: *limit })
        });
        if warning.is_some() || self.pause.is_some() {
            return warning;
        }
        let waits = |key: &&Key| {
            let step = self.step(key).filter(|step| !step.is_given_up);
            step.is_some_and(|step| matches!(step.status, StepStatus::Pending | StepStatus::Backoff))
        };
        let over = self.open.iter().filter(waits).find_map(|key| self.used_up(key, now));
        over.map(|(scope, measure, spent, limit)| Fact::BudgetExceeded { scope, measure, spent, limit })
    }

    /// Whether these budgets may be raised so.
    ///
    /// # Errors
    /// One that there is not, or that would be below what is used.
    pub fn may_raise(&self, raised: &[Raised]) -> Result<(), String> {
        for Raised { scope, measure, limit } in raised {
            let known = self.budgets.get(scope).filter(|budget| budget.limits.contains_key(measure));
            let Some(budget) = known else {
                let place = if scope.is_root() { "the workflow".to_owned() } else { format!("`{scope}`") };
                return Err(format!("{place} has no budget of {}", measure.as_str()));
            };
            let used = budget.used(*measure, self.clock);
            if *limit <= used {
                let measure = measure.as_str();
                return Err(format!("{used} {measure} are used already: a budget of {limit} is below that"));
            }
        }
        Ok(())
    }
}
