//! Reading of values: texts that are expressions, conditions, templates, URIs.
//!
//! `${ … }` around a whole text makes it an expression, everywhere; where only an expression makes
//! sense (`when`, `if`, `in`, `while`, `from`, `as`), it may be left out.

use serde_json::Value;

use super::{Reader, VARIABLES};
use crate::jq::{self, Filter};
use crate::problem::Problem;
use crate::template::{Template, Uri, UriPart};
use crate::tree::{Data, Node};
use foldback_core::report::nearest;

/// What may stand in a template.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Allow {
    /// Expressions.
    Expressions,
    /// Expressions that see `$output` too: where an output is shaped.
    Output,
    /// Expressions, and secrets as whole values: in the request of a step.
    Secrets,
    /// As `Secrets`, for texts of other languages, in which `${` may stand for something else.
    ForeignText,
}

/// The inside of `${ … }`, and where it begins.
pub(super) fn inside(text: &str) -> Option<(usize, &str)> {
    let trimmed = text.trim_start();
    let start = text.len() - trimmed.len() + 2;
    let inner = trimmed.strip_prefix("${")?.trim_end().strip_suffix('}')?;
    Some((start, inner))
}

impl Reader<'_> {
    /// A condition or another text that is an expression with or without `${ }`.
    pub(super) fn expression(&mut self, node: &Node, what: &str, allow: Allow) -> Option<Filter> {
        let text = match node.as_scalar() {
            // `if: true` reads as a boolean, and is a fine expression.
            Some(Value::Bool(flag)) => {
                return self.filter(node, 0, if *flag { "true" } else { "false" }, allow);
            }
            _ => self.text(node, what)?,
        };
        let (start, inner) = inside(text).unwrap_or((0, text));
        self.filter(node, start, inner, allow)
    }

    fn filter(&mut self, node: &Node, start: usize, text: &str, allow: Allow) -> Option<Filter> {
        if text.contains("$authorization") && jq::names_variable(text, "$authorization") {
            self.report.hinted(
                node,
                "`$authorization` is not supported: no expression sees a credential",
                "write `authentication` at the endpoint: { bearer: { token: ${ $secrets.NAME } } }",
            );
            return None;
        }
        if text.contains("$secrets") && jq::names_variable(text, "$secrets") {
            self.report.hinted(
                node,
                "a secret cannot be computed on",
                "use it as a whole value in the `with`, `environment` or `authentication` of a step: ${ $secrets.NAME }",
            );
            return None;
        }
        let mut variables: Vec<&str> = self.variables().to_vec();
        if allow == Allow::Output {
            variables.push("$output");
        }
        variables.extend(self.bound.iter().map(String::as_str));
        match Filter::new(text, &variables) {
            Ok(filter) => {
                self.check_steps(node, &filter);
                self.check_recorded(node, &filter);
                self.check_described(node, &filter);
                Some(filter)
            }
            Err(fault) => {
                let (line, column) = place_of(node, start + fault.offset);
                let message = format!("the expression is wrong: {}", fault.message);
                let is_mixed = text.contains("${");
                let hint = if is_mixed { Some(MIXED.to_owned()) } else { self.hint_of_side().or(fault.hint) };
                let problem = Problem { line, column, pointer: node.pointer.to_string(), message, hint };
                self.report.found(problem);
                None
            }
        }
    }

    /// `$steps.NAME` must be a task of this list or one around it.
    fn check_steps(&mut self, node: &Node, filter: &Filter) {
        for name in filter.members_of("$steps").flatten().unwrap_or_default() {
            if self.lists.iter().any(|list| list.position(&name).is_some()) || self.report.is_full() {
                continue;
            }
            let known = self.lists.iter().rev().flat_map(|list| list.iter());
            let hint = match nearest(&name, known) {
                Some(near) => format!("did you mean `$steps.{near}`?"),
                None => self.hint_of_side().unwrap_or_else(|| {
                    "a task inside another one is seen by that one's own output only".to_owned()
                }),
            };
            self.report.hinted(
                node,
                format!("`$steps.{name}` is no task of this list or one around it"),
                hint,
            );
        }
    }

    /// Of the task, and of what runs it, expressions see these members.
    fn check_described(&mut self, node: &Node, filter: &Filter) {
        const DESCRIBED: [(&str, &[&str], &str); 2] = [
            (
                "$task",
                &["name", "key", "reference", "input", "definition", "startedAt"],
                "what a task gives is `.` in its output.as, `$output` in its export.as, and `$steps.NAME` behind it",
            ),
            (
                "$runtime",
                &["name"],
                "what a workflow does may not hang on the version that happens to run it: there is $runtime.name",
            ),
        ];
        for (variable, known, hint) in DESCRIBED {
            for name in filter.members_of(variable).flatten().unwrap_or_default() {
                if !known.contains(&name.as_str()) {
                    let near = nearest(&name, known.iter().copied());
                    let hint =
                        near.map_or(hint.to_owned(), |near| format!("did you mean `{variable}.{near}`?"));
                    self.report.hinted(node, format!("`{variable}.{name}` is not supported"), hint);
                }
            }
        }
        let names_definition = |variable| match filter.members_of(variable) {
            None => false,
            Some(members) => members.is_none_or(|members| members.contains("definition")),
        };
        self.sees_definition |= names_definition("$task") || names_definition("$workflow");
    }

    /// A template: texts in `${ }` are expressions, all else stands for itself.
    pub(super) fn template(&mut self, node: &Node, allow: Allow) -> Template {
        match &node.data {
            Data::Scalar(Value::String(text)) => self.text_template(node, text, allow),
            Data::Scalar(value) => Template::constant(value.clone()),
            Data::List(items) => {
                let items: Vec<Template> = items.iter().map(|item| self.template(item, allow)).collect();
                match items.iter().map(|item| item.as_constant().cloned()).collect() {
                    Some(values) => Template::constant(Value::Array(values)),
                    None => Template::List(items),
                }
            }
            Data::Map(members) => {
                let members: Vec<(String, Template)> =
                    members.iter().map(|m| (m.name.clone(), self.template(&m.value, allow))).collect();
                match members
                    .iter()
                    .map(|(name, m)| m.as_constant().map(|v| (name.clone(), v.clone())))
                    .collect()
                {
                    Some(values) => Template::constant(Value::Object(values)),
                    None => Template::Object(members),
                }
            }
        }
    }

    fn text_template(&mut self, node: &Node, text: &str, allow: Allow) -> Template {
        let literal = || Template::constant(Value::String(text.to_owned()));
        let Some((start, inner)) = inside(text) else {
            if text.contains("${") && allow != Allow::ForeignText {
                let is_cut = text.trim_start().starts_with("${") && !text.trim_end().ends_with('}');
                let hint = if is_cut { CUT } else { MIXED };
                self.report.hinted(node, "a text is an expression as a whole or not at all", hint);
            } else if looks_like_a_path(text, &self.bound) && allow != Allow::ForeignText {
                self.report.warning(
                    node,
                    format!("`{text}` stands for itself here"),
                    format!("if it is meant as an expression, write ${{ {text} }}"),
                );
            }
            return literal();
        };
        if matches!(allow, Allow::Secrets | Allow::ForeignText)
            && let Some(name) = secret_name(inner)
        {
            if !self.secrets.contains(&name) {
                let near = nearest(&name, self.secrets.iter().map(String::as_str));
                let hint = near.map_or_else(
                    || "add its name to `use.secrets`".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                self.report.hinted(node, format!("the secret `{name}` is not declared"), hint);
            }
            return Template::Secret(name);
        }
        match self.filter(node, start, inner, allow) {
            Some(filter) => Template::Expression(Box::new(filter)),
            None => literal(),
        }
    }

    /// `from` and `as`: an expression with or without `${ }`, or an object of templates.
    pub(super) fn shaping(&mut self, node: &Node, what: &str, allow: Allow) -> Option<Template> {
        match &node.data {
            Data::Map(_) => Some(self.template(node, allow)),
            Data::Scalar(_) | Data::List(_) => {
                self.expression(node, what, allow).map(|filter| Template::Expression(Box::new(filter)))
            }
        }
    }

    /// An endpoint: an expression, or a text with `{name}` places.
    pub(super) fn uri(&mut self, node: &Node) -> Option<Uri> {
        let text = self.text(node, "an endpoint")?;
        if inside(text).and_then(|(_, inner)| secret_name(inner)).is_some() {
            self.report.hinted(
                node,
                "an endpoint cannot be a secret: the log tells where a request goes",
                "write the address, and the secret where one can stand as a whole value: in `authentication`, in a \
                 header, in a member of `query` or of `body`",
            );
            return None;
        }
        if inside(text).is_some() || text.contains("${") {
            return Some(Uri::Whole(self.template(node, Allow::Expressions)));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let Some(close) = rest[open..].find('}') else {
                self.report.hinted(
                    node,
                    "a `{` of the endpoint is not closed",
                    "write {name} for a member of the input",
                );
                return None;
            };
            let name = &rest[open + 1..open + close];
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
                self.report.hinted(
                    node,
                    format!("`{{{name}}}` is not a name"),
                    "only top-level members of the input can stand in an endpoint; else use ${ \"https://…/\\(.a.b)\" }",
                );
                return None;
            }
            parts.push(UriPart::Text(rest[..open].to_owned()));
            parts.push(UriPart::Name(name.to_owned()));
            rest = &rest[open + close + 1..];
        }
        parts.push(UriPart::Text(rest.to_owned()));
        if text.trim().is_empty() {
            self.report.problem(node, "an endpoint is not empty");
        }
        Some(Uri::Parts(parts))
    }
}

const CUT: &str =
    "it does not end with `}`; in YAML ` #` begins a comment: put the expression into single quotes";

const MIXED: &str = "write the whole text as one expression: ${ \"abc \\(.x) def\" }";

/// The name in `$secrets.NAME`, if the expression is nothing else.
fn secret_name(text: &str) -> Option<String> {
    let path = jq::static_path(text)?;
    (path.base.as_deref() == Some("$secrets") && path.steps.len() == 1)
        .then(|| path.first_member().map(str::to_owned))?
}

/// Whether a plain text looks as if its `${ }` was forgotten.
fn looks_like_a_path(text: &str, bound: &[String]) -> bool {
    let is_known = |name: &str| VARIABLES.contains(&name) || bound.iter().any(|b| b == name);
    match jq::static_path(text) {
        Some(path) => match &path.base {
            Some(name) => is_known(name),
            None => {
                !path.steps.is_empty()
                    && !text.ends_with(['.', ']'])
                    && path.first_member().is_some_and(|m| !is_suffix(m))
            }
        },
        None => false,
    }
}

/// Names of files begin with a dot too.
fn is_suffix(name: &str) -> bool {
    matches!(
        name,
        "md" | "txt" | "json" | "yaml" | "yml" | "csv" | "html" | "pdf" | "env" | "git" | "py" | "js" | "sh"
    )
}

/// The place of a byte in a text that stands in the source as it is.
pub(super) fn place_of(node: &Node, offset: usize) -> (u32, u32) {
    let Some(text) = node.as_str().filter(|_| node.is_verbatim) else {
        return (node.line, node.column);
    };
    let before = text.get(..offset).unwrap_or(text);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    match before.rfind('\n') {
        Some(_) => (node.line + number(before.matches('\n').count()), 1),
        None => (node.line, node.column + number(before.chars().count())),
    }
}
