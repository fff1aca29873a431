//! Reading of what steps share (effect, recovery, timeout, retries) and of `run` tasks: shell
//! commands and scripts.

use foldback_core::step::STEP_VARIABLES;
use foldback_core::{Effect, Recovery, RetryPolicy};
use serde_json::Value;

use super::Reader;
use super::value::Allow;
use crate::program::{Delay, Part, StepTask};
use crate::template::Template;
use crate::tree::Node;

/// A policy with so many attempts; where there is none yet, of every known failure.
fn tried(policy: Option<RetryPolicy>, attempts: u32) -> RetryPolicy {
    let policy =
        policy.unwrap_or(RetryPolicy { delay_ms: 500, max_delay_ms: 60_000, ..RetryPolicy::default() });
    RetryPolicy { attempts, ..policy }
}

/// What `metadata.foldback` may say of a step.
const STEP_METADATA: [&str; 7] =
    ["effect", "recovery", "timeout_ms", "attempts", "erasable", "undo", "irreversible"];

impl Reader<'_> {
    pub(super) fn run(&mut self, node: &Node, own: &Node) -> Option<StepTask> {
        self.map(own, "`run`")?;
        self.only(own, "`run`", &["shell", "script", "container", "workflow", "await", "return"]);
        self.refuse(
            own,
            "container",
            "`run: container`",
            "run the container from a shell command: run: { shell: { command: docker run … } }",
        );
        self.refuse(own, "workflow", "`run: workflow`", "planned; until then put the tasks into a `do`");
        if own.get("await").is_some_and(|node| node.as_scalar() != Some(&Value::Bool(true))) {
            self.refuse(own, "await", "`await: false`", "leave it out: a step is over when its process is");
        }
        let output = match own.get("return") {
            Some(node) => self.word(node, "`return`", &["stdout", "stderr", "code", "all", "none"])?,
            None => "stdout",
        };
        let (kind, mut parts) = match (own.get("shell"), own.get("script")) {
            (Some(shell), None) => ("shell", self.shell(shell)?),
            (None, Some(script)) => ("script", self.script(script)?),
            (Some(_), Some(_)) => {
                self.report.problem(own, "`run` has one of `shell` and `script`");
                return None;
            }
            (None, None) => {
                if !["container", "workflow"].iter().any(|name| own.get(name).is_some()) {
                    self.report.hinted(
                        own,
                        "`run` does not say what",
                        "write shell: { command: … } or script: { language: python, code: … }",
                    );
                }
                return None;
            }
        };
        parts.push(("return", Part::Value(Template::constant(Value::from(output)))));
        let step = StepTask {
            kind,
            parts,
            arguments: None,
            lists: &[],
            effect: Effect::Write,
            recovery: self.recovery.unwrap_or(Recovery::Operator),
            is_recovery_said: self.recovery.is_some(),
            timeout_ms: None,
            limit: None,
            computed_limit: None,
            retry: self.retry(None),
            undo: None,
            reconcile: None,
        };
        Some(self.with_settings(step, node))
    }

    fn shell(&mut self, shell: &Node) -> Option<Vec<(&'static str, Part)>> {
        self.map(shell, "`shell`")?;
        self.only(shell, "`shell`", &["command", "arguments", "environment", "stdin"]);
        let command = self.required(shell, "`shell`", "command")?;
        self.text(command, "`command`")?;
        let mut parts = vec![("command", Part::Value(self.template(command, Allow::ForeignText)))];
        parts.extend(self.process(shell));
        Some(parts)
    }

    fn script(&mut self, script: &Node) -> Option<Vec<(&'static str, Part)>> {
        self.map(script, "`script`")?;
        self.only(script, "`script`", &["language", "code", "source", "arguments", "environment", "stdin"]);
        let language = self
            .required(script, "`script`", "language")
            .and_then(|node| self.word(node, "`language`", &["python"]));
        let code = match script.get("code") {
            Some(code) => {
                self.text(code, "`code`")?;
                // Code is code, whatever it looks like.
                code.to_value()
            }
            None => {
                if script.get("source").is_none() {
                    self.report.hinted(
                        script,
                        "`script` needs `code`",
                        "write code: | … or source: { file: … }",
                    );
                }
                return None;
            }
        };
        let mut parts = vec![
            ("language", Part::Value(Template::constant(Value::from(language?)))),
            ("code", Part::Value(Template::constant(code))),
        ];
        parts.extend(self.process(script));
        if script.get("stdin").is_none() {
            parts.push(("stdin", Part::Input));
        }
        Some(parts)
    }

    fn process(&mut self, node: &Node) -> Vec<(&'static str, Part)> {
        let mut parts = Vec::new();
        if let Some(arguments) = node.get("arguments") {
            if arguments.as_list().is_none()
                && arguments.as_str().is_none_or(|t| super::value::inside(t).is_none())
            {
                self.report.hinted(arguments, "`arguments` is a list", "write arguments: [ first, second ]");
            }
            parts.push(("arguments", Part::Value(self.template(arguments, Allow::ForeignText))));
        }
        if let Some(environment) = node.get("environment") {
            let is_expression = environment.as_str().is_some_and(|t| super::value::inside(t).is_some());
            if environment.as_map().is_none() && !is_expression {
                self.report
                    .problem(environment, format!("`environment` is an object, not {}", environment.kind()));
            }
            for member in environment.as_map().unwrap_or_default() {
                if STEP_VARIABLES.contains(&member.name.as_str()) {
                    let at = member.value.at(member.key);
                    let message = format!("`{}` tells the process which step it is", member.name);
                    self.report.hinted(&at, message, "choose another name: this one is the engine's");
                }
            }
            parts.push(("environment", Part::Value(self.template(environment, Allow::ForeignText))));
        }
        if let Some(stdin) = node.get("stdin") {
            parts.push(("stdin", Part::Value(self.template(stdin, Allow::ForeignText))));
        }
        parts
    }

    /// The step with what its task says about timeout, effect, recovery and attempts.
    pub(super) fn with_settings(&mut self, mut step: StepTask, node: &Node) -> StepTask {
        if let Some(timeout) = node.get("timeout") {
            step.limit = self.timeout(timeout).or(step.limit.take());
        }
        let Some(metadata) = node.get("metadata") else {
            return step;
        };
        if self.map(metadata, "`metadata`").is_none() {
            return step;
        }
        let Some(ours) = metadata.get("foldback") else {
            return step;
        };
        if self.map(ours, "`metadata.foldback`").is_none() {
            return step;
        }
        self.only(ours, "`metadata.foldback`", &STEP_METADATA);
        if let Some(effect) = ours.get("effect") {
            step.effect = match self.word(effect, "`effect`", &["pure", "read", "write"]) {
                Some("pure") => Effect::Pure,
                Some("read") => Effect::Read,
                Some("write") => Effect::Write,
                Some(_) | None => step.effect,
            };
        }
        if let Some(recovery) = ours.get("recovery") {
            if step.effect != Effect::Write {
                let hint = "a step that changes nothing is simply run again; set effect: write if it does";
                self.report.hinted(recovery, "`recovery` is for steps that write", hint);
            }
            step.recovery = match recovery.as_map() {
                Some(_) => {
                    self.only(recovery, "`recovery`", &["reconcile"]);
                    let tasks = self.required(recovery, "`recovery`", "reconcile");
                    step.reconcile = tasks.and_then(|tasks| self.reconcile(tasks)).or(step.reconcile);
                    Recovery::Reconcile
                }
                None => self.recovery_word(recovery).unwrap_or(step.recovery),
            };
            step.is_recovery_said = true;
        }
        let undo = match (ours.get("undo"), ours.get("irreversible")) {
            (Some(_), Some(irreversible)) => {
                let hint = "keep `undo` where it can be taken back, `irreversible` where it cannot";
                self.report.hinted(irreversible, "a step has one of `undo` and `irreversible`", hint);
                None
            }
            (Some(undo), None) => self.undo(undo).map(|read| (undo, read)),
            (None, Some(irreversible)) => self.irreversible(irreversible).map(|read| (irreversible, read)),
            (None, None) => None,
        };
        if let Some((node, undo)) = undo {
            if step.effect != Effect::Write {
                let hint = "a step that changes nothing needs no undo; set effect: write if it does";
                self.report.hinted(node, "`undo` and `irreversible` are for steps that write", hint);
            }
            step.undo = Some(undo);
        }
        if let Some(timeout) = ours.get("timeout_ms") {
            step.timeout_ms = self.number(timeout, "`timeout_ms`").or(step.timeout_ms);
            if step.timeout_ms == Some(0) {
                let hint = "write how long an attempt may take, in ms: timeout_ms: 30000";
                self.report.hinted(timeout, "`timeout_ms: 0` leaves no time to begin", hint);
            }
        }
        if let Some(count) = ours.get("attempts").and_then(|attempts| self.attempts(attempts)) {
            step.retry = Some(tried(step.retry.take(), count));
        }
        step
    }

    /// `attempts`: how often a step is tried in all.
    pub(super) fn attempts(&mut self, node: &Node) -> Option<u32> {
        let count = self.number(node, "`attempts`")?;
        if count == 0 {
            self.report.problem(node, "`attempts` is at least 1");
        }
        Some(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// The policy of a step that says nothing of its own: that of its kind, with the attempts of the
    /// document.
    pub(super) fn retry(&self, policy: Option<RetryPolicy>) -> Option<RetryPolicy> {
        match self.attempts {
            Some(count) => Some(tried(policy, count)),
            None => policy,
        }
    }

    /// A timeout by name or in place, in ms.
    pub(super) fn timeout(&mut self, node: &Node) -> Option<Delay> {
        let Some(name) = node.as_str() else {
            return self.timeout_definition(node);
        };
        match self.timeouts.get(name).copied() {
            Some(timeout) => self.timeout_definition(timeout),
            None => {
                self.unknown_name(
                    node,
                    "timeout",
                    name,
                    "use.timeouts",
                    &self.timeouts.keys().copied().collect::<Vec<_>>(),
                );
                None
            }
        }
    }

    pub(super) fn timeout_definition(&mut self, node: &Node) -> Option<Delay> {
        self.map(node, "a timeout")?;
        self.only(node, "a timeout", &["after"]);
        let after = self.required(node, "a timeout", "after")?;
        let limit = self.delay(after, "`after`")?;
        if let Delay::Ms(0) = limit {
            self.report.hinted(
                after,
                "a timeout of nothing leaves no time to begin",
                "write {seconds: 30} or PT30S",
            );
        }
        Some(limit)
    }
}
