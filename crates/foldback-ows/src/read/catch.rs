//! Reading of `try`, `catch`, retry policies and errors.

use super::Reader;
use super::names::Names;
use super::value::{Allow, inside};
use crate::program::{Backoff, ErrorTemplate, RetryTask, TryTask, is_status};
use crate::template::Template;
use crate::tree::Node;
use foldback_core::report::nearest;
use foldback_core::step::error_type;

const ERROR: [&str; 5] = ["type", "status", "title", "detail", "instance"];

impl<'a> Reader<'a> {
    pub(super) fn try_task(&mut self, node: &Node, own: &Node, siblings: &Names) -> Option<TryTask> {
        let body = self.task_list(own, "try");
        let catch = self.required(node, "a `try` task", "catch")?;
        self.map(catch, "`catch`")?;
        self.only(catch, "`catch`", &["errors", "as", "when", "exceptWhen", "retry", "do", "then"]);
        let mut filter = Vec::new();
        if let Some(errors) = catch.get("errors") {
            self.map(errors, "`errors`")?;
            self.only(errors, "`errors`", &["with"]);
            if let Some(with) = errors.get("with") {
                self.map(with, "`errors.with`")?;
                self.only(with, "`errors.with`", &ERROR);
                if let Some(kind) = with.get("type") {
                    self.looks_like_a_type(kind);
                }
                for name in ERROR {
                    filter.extend(with.get(name).map(|node| (name, self.template(node, Allow::Expressions))));
                }
            }
        }
        let as_ = self.variable(catch.get("as"), "error");
        self.bound.push(as_.clone());
        let when = catch.get("when").map(|node| self.expression(node, "`when`", Allow::Expressions));
        let except_when =
            catch.get("exceptWhen").map(|node| self.expression(node, "`exceptWhen`", Allow::Expressions));
        let retry = catch.get("retry").map(|node| self.retry_reference(node));
        let handler = catch.get("do").map(|list| self.task_list(list, "do"));
        self.bound.pop();
        let then = catch.get("then").map(|node| self.flow(Some(node), siblings));
        Some(TryTask {
            body: body?,
            filter,
            as_,
            when: when.unwrap_or_default(),
            except_when: except_when.unwrap_or_default(),
            retry: retry.unwrap_or_default(),
            handler: handler.unwrap_or_default(),
            then,
            compensates: self.compensates(node),
        })
    }

    /// Warns of a short name that is almost one of a standard type: nothing fails with that.
    fn looks_like_a_type(&mut self, node: &Node) {
        let Some(name) = node.as_str().filter(|text| inside(text).is_none() && !text.contains(':')) else {
            return;
        };
        let known = || error_type::ALL.iter().filter_map(|known| known.strip_prefix(error_type::PREFIX));
        if known().any(|known| known == name) {
            return;
        }
        if let Some(near) = nearest(name, known()) {
            let message =
                format!("`{name}` is no type of the specification's: only a `raise` of `{name}` is caught");
            self.report.warning(node, message, format!("did you mean `{near}`?"));
        }
    }

    fn retry_reference(&mut self, node: &Node) -> Option<RetryTask> {
        let Some(name) = node.as_str() else {
            return self.retry_policy(node);
        };
        match self.retries.get(name).copied() {
            Some(policy) => self.retry_policy(policy),
            None => {
                self.unknown_name(
                    node,
                    "retry policy",
                    name,
                    "use.retries",
                    &self.retries.keys().copied().collect::<Vec<_>>(),
                );
                None
            }
        }
    }

    pub(super) fn unknown_name(&mut self, node: &Node, what: &str, name: &str, place: &str, known: &[&str]) {
        if self.report.is_full() {
            return;
        }
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("declare it under `{place}`"),
        };
        self.report.hinted(node, format!("there is no {what} `{name}`"), hint);
    }

    pub(super) fn retry_policy(&mut self, node: &Node) -> Option<RetryTask> {
        self.map(node, "a retry policy")?;
        self.only(node, "a retry policy", &["when", "exceptWhen", "delay", "backoff", "limit", "jitter"]);
        let when = node.get("when").map(|node| self.expression(node, "`when`", Allow::Expressions));
        let except_when =
            node.get("exceptWhen").map(|node| self.expression(node, "`exceptWhen`", Allow::Expressions));
        let delay = node.get("delay").map(|node| self.delay(node, "`delay`"));
        let backoff = node.get("backoff").map_or(Some(Backoff::Constant), |node| self.backoff(node));
        let count = node.get("limit").and_then(|limit| self.retry_limit(limit));
        let jitter = node.get("jitter").and_then(|jitter| {
            self.map(jitter, "`jitter`")?;
            self.only(jitter, "`jitter`", &["from", "to"]);
            let from =
                self.required(jitter, "`jitter`", "from").and_then(|node| self.duration(node, "`from`"))?;
            let to = self.required(jitter, "`jitter`", "to").and_then(|node| self.duration(node, "`to`"))?;
            if from > to {
                let hint = "write the shorter one under `from`: jitter: { from: PT1S, to: PT5S }";
                self.report.hinted(
                    jitter,
                    "`jitter` ends before it begins: `from` is longer than `to`",
                    hint,
                );
            }
            Some((from, to))
        });
        Some(RetryTask {
            when: when.unwrap_or_default(),
            except_when: except_when.unwrap_or_default(),
            delay: delay.unwrap_or_default(),
            backoff: backoff?,
            count,
            jitter,
        })
    }

    fn backoff(&mut self, node: &Node) -> Option<Backoff> {
        let members = self.map(node, "`backoff`")?;
        self.only(node, "`backoff`", &["constant", "linear", "exponential"]);
        let [member] = members else {
            self.report.hinted(
                node,
                "`backoff` is one of constant, linear, exponential",
                "write backoff: { exponential: {} }",
            );
            return None;
        };
        let is_empty = member.value.as_map().is_some_and(<[_]>::is_empty)
            || member.value.as_scalar().is_some_and(serde_json::Value::is_null);
        if !is_empty {
            self.report.hinted(
                &member.value,
                "a backoff has no settings of its own",
                "write {}; the factor is 2, the step is the delay",
            );
        }
        match member.name.as_str() {
            "linear" => Some(Backoff::Linear),
            "exponential" => Some(Backoff::Exponential),
            _ => Some(Backoff::Constant),
        }
    }

    fn retry_limit(&mut self, limit: &Node) -> Option<u64> {
        self.map(limit, "`limit`")?;
        self.only(limit, "`limit`", &["attempt", "duration"]);
        self.refuse(limit, "duration", "a limit of all attempts' duration", "use limit.attempt.count");
        let attempt = limit.get("attempt")?;
        self.map(attempt, "`attempt`")?;
        self.only(attempt, "`attempt`", &["count", "duration"]);
        self.refuse(
            attempt,
            "duration",
            "a limit of an attempt's duration",
            "set `timeout` on the call and run tasks inside",
        );
        let count = attempt.get("count")?;
        self.number(count, "`count`")
    }

    /// An error by name or in place.
    pub(super) fn error_reference(&mut self, node: &Node) -> Option<ErrorTemplate> {
        let Some(name) = node.as_str() else {
            return self.error_template(node);
        };
        match self.errors.get(name).copied() {
            Some(error) => self.error_template(error),
            None => {
                self.unknown_name(
                    node,
                    "error",
                    name,
                    "use.errors",
                    &self.errors.keys().copied().collect::<Vec<_>>(),
                );
                None
            }
        }
    }

    pub(super) fn error_template(&mut self, node: &Node) -> Option<ErrorTemplate> {
        self.map(node, "an error")?;
        self.only(node, "an error", &ERROR);
        let type_ =
            self.required(node, "an error", "type").map(|node| self.template(node, Allow::Expressions));
        let status = self.required(node, "an error", "status").map(|node| {
            let is_status = match node.as_str() {
                Some(text) => inside(text).is_some(),
                None => node.as_scalar().and_then(serde_json::Value::as_u64).is_some_and(is_status),
            };
            if !is_status {
                self.report.hinted(
                    node,
                    "`status` is a number from 100 to 599",
                    "as in HTTP: 400 for the caller's fault, 500 for ours; computed: ${ … }",
                );
            }
            self.template(node, Allow::Expressions)
        });
        let mut optional = |name: &str| -> Option<Template> {
            node.get(name).map(|node| self.template(node, Allow::Expressions))
        };
        let (title, detail, instance) = (optional("title"), optional("detail"), optional("instance"));
        Some(ErrorTemplate { type_: type_?, status: status?, title, detail, instance })
    }
}
