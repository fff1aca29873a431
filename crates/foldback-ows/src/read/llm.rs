//! Reading of model calls: the members of a request, and a prompt's places and variables.
//!
//! A prompt is text with `{name}` places; it is never put together here.

use foldback_core::{Effect, Recovery, RetryPolicy};
use serde_json::Value;

use super::Reader;
use super::value::{Allow, inside};
use crate::program::{Part, StepTask};
use crate::template::Template;
use crate::tree::{Member, Node};
use foldback_core::report::nearest;
use foldback_core::step::LLM_MEMBERS;

impl Reader<'_> {
    pub(super) fn llm(&mut self, with: &Node) -> Option<StepTask> {
        if with.get("call").is_some() {
            self.report.hinted(
                with,
                "`call: llm` needs `with`",
                "write with: { model: openai/gpt-5-mini, template: … }",
            );
            return None;
        }
        if with.get("tools").is_some() {
            self.refuse(
                with,
                "tools",
                "`tools`",
                "let the model choose by `schema`, and act on it with `switch`",
            );
            return None;
        }
        self.only(with, "`call: llm`", &LLM_MEMBERS);
        if let Some(model) = self.required(with, "`call: llm`", "model") {
            self.model(model, "`model`");
        }
        let others = with.get("fallback").map_or(0, |fallback| self.fallback(fallback));
        match (with.get("template"), with.get("messages")) {
            (Some(template), None) => self.prompt(template, with.get("vars")),
            (None, Some(_)) => {
                if let Some(vars) = with.member("vars") {
                    let at = vars.value.at(vars.key);
                    self.report.hinted(
                        &at,
                        "`vars` belong to a `template`",
                        "write the values into the messages: ${ … }",
                    );
                }
            }
            (Some(_), Some(messages)) => {
                self.report.hinted(
                    messages,
                    "`call: llm` has one of `template` and `messages`",
                    "leave one out",
                );
            }
            (None, None) => self.report.hinted(
                with,
                "`call: llm` needs `template` or `messages`",
                "write template: Write about {topic}.",
            ),
        }
        let mut parts = Vec::new();
        for name in LLM_MEMBERS {
            let Some(node) = with.get(name) else { continue };
            let allow = match name {
                // A prompt may hold whatever it likes; it is an expression only as a whole.
                "template" | "system" => Allow::ForeignText,
                _ => Allow::Expressions,
            };
            let is_expression =
                name != "fallback" && node.as_str().is_some_and(|text| inside(text).is_some());
            let is_right = is_expression
                || match name {
                    "model" | "system" | "template" => node.as_str().is_some(),
                    "vars" | "schema" => node.as_map().is_some(),
                    "fallback" | "attachments" | "messages" => node.as_list().is_some(),
                    _ => node.as_scalar().is_some_and(Value::is_number),
                };
            if !is_right {
                self.report.problem(node, format!("`{name}` cannot be {}", node.kind()));
            }
            let template = match allow {
                Allow::ForeignText if !is_expression => Template::constant(node.to_value()),
                _ => self.template(node, Allow::Expressions),
            };
            parts.push((name, Part::Value(template)));
        }
        Some(StepTask {
            kind: "llm",
            parts,
            arguments: None,
            lists: &["messages", "attachments"],
            effect: Effect::Read,
            recovery: Recovery::Operator,
            is_recovery_said: false,
            timeout_ms: None,
            limit: None,
            computed_limit: None,
            retry: self.retry(Some(RetryPolicy::model_or(others))),
            undo: None,
            reconcile: None,
        })
    }

    /// A model's name; a literal one is checked before the first event.
    fn model(&mut self, model: &Node, what: &str) {
        let Some(text) = self.text(model, what) else { return };
        if inside(text).is_some() {
            return;
        }
        match text.split_once('/') {
            Some((provider, name)) if !provider.is_empty() && !name.is_empty() => {
                let found = (text.to_owned(), model.line, model.column);
                if !self.models.contains(&found) {
                    self.models.push(found);
                }
            }
            _ => self.report.hinted(
                model,
                format!("`{text}` is no model"),
                "write provider/model: openai/gpt-5-mini",
            ),
        }
    }

    /// The models that are asked when the first cannot answer: how many. Their number is part of
    /// what is recorded when the step is asked, so the list stands in the definition as a list.
    fn fallback(&mut self, fallback: &Node) -> u32 {
        let Some(models) = fallback.as_list() else {
            if fallback.as_str().is_some() {
                self.report.hinted(
                    fallback,
                    "`fallback` is a list of models",
                    "write fallback: [anthropic/claude-haiku-4-5]; its items may be expressions",
                );
            }
            return 0;
        };
        models.iter().for_each(|model| self.model(model, "a model of `fallback`"));
        u32::try_from(models.len()).unwrap_or(u32::MAX)
    }

    /// Each `{name}` of a prompt needs a variable, and each variable a place.
    fn prompt(&mut self, template: &Node, vars: Option<&Node>) {
        let Some(text) = template.as_str().filter(|text| inside(text).is_none()) else {
            return;
        };
        let places = places(text);
        let empty: &[Member] = &[];
        let given = match vars {
            None => empty,
            Some(vars) => match vars.as_map() {
                Some(members) => members,
                // Computed variables are known only when they are.
                None => return,
            },
        };
        for name in &places {
            if !given.iter().any(|member| member.name == *name) {
                let hint = match nearest(name, given.iter().map(|m| m.name.as_str())) {
                    Some(near) => {
                        format!("did you mean `{{{near}}}`? To write a brace, double it: {{{{")
                    }
                    None => {
                        format!("add `vars: {{ {name}: … }}`; to write a brace, double it: {{{{")
                    }
                };
                self.report.hinted(
                    template,
                    format!("the template names `{{{name}}}`, and `vars` does not"),
                    hint,
                );
            }
        }
        for member in given {
            if !places.contains(&member.name) {
                let at = member.value.at(member.key);
                let hint = format!("write {{{}}} where it belongs, or leave it out", member.name);
                self.report.warning(&at, format!("the template does not use `{}`", member.name), hint);
            }
        }
    }
}

/// The names in `{name}` places of a prompt. `{{` and `}}` are braces; a brace before anything
/// but a name is one too, so that JSON can stand in a prompt.
fn places(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        rest = &rest[open + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let name = &rest[..end];
        let is_name =
            rest[end..].starts_with('}') && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if is_name && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn a_prompt_names_its_places() {
        assert_eq!(places("Write about {topic} for {who}, {topic}."), ["topic", "who"]);
        assert!(places("{{topic}} {\"a\": 1} {} { x } {1}").is_empty());
    }
}
