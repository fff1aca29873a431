//! Reading of budgets: how much a workflow, or a scope of it, may use before a person is asked.

use foldback_core::Measure;

use super::Reader;
use crate::program::Limits;
use crate::tree::Node;

/// What a budget may say, and what of it counts time.
const MEMBERS: [&str; 4] = ["tokens", "micro_usd", "wall", "steps"];

impl Reader<'_> {
    /// `budget: { tokens: 20000, micro_usd: 50000, wall: { minutes: 10 }, steps: 100 }`.
    pub(super) fn budget(&mut self, node: Option<&Node>) -> Limits {
        let mut limits = Limits::new();
        let Some(node) = node else { return limits };
        let members = self.map(node, "`budget`").unwrap_or_default();
        self.only(node, "`budget`", &MEMBERS);
        for member in members {
            let what = format!("`{}`", member.name);
            let limit = match member.name.as_str() {
                "wall" => self.duration(&member.value, &what).map(|ms| (Measure::WallMs, ms)),
                name => match Measure::of(name) {
                    Some(measure) => self.number(&member.value, &what).map(|limit| (measure, limit)),
                    None => None,
                },
            };
            if let Some((_, 0)) = limit {
                self.report.hinted(
                    &member.value,
                    format!("{what} of nothing lets nothing begin"),
                    "raise it",
                );
            }
            if let Some((Measure::MicroUsd, _)) = limit {
                self.money.push((member.value.line, member.value.column));
            }
            limits.extend(limit);
        }
        limits
    }
}
