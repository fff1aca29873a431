//! Reading of the document itself: who it is, what it shares (`use`), where it begins.

use foldback_core::redact::RuleText;
use foldback_core::{Recovery, Redaction};
use serde_json::{Value, json};

use super::Reader;
use super::value::Allow;
use crate::program::Definition;
use crate::schema::Schema;
use crate::tree::Node;

const ROOT: [&str; 8] = ["document", "input", "use", "do", "timeout", "output", "schedule", "evaluate"];

impl<'a> Reader<'a> {
    /// The definition, and what a person calls it: "article 0.1.0".
    pub(super) fn document(&mut self, root: &'a Node) -> (Option<Definition>, String) {
        if self.map(root, "a definition").is_none() {
            return (None, String::new());
        }
        self.only(root, "a definition", &ROOT);
        let name = match self.required(root, "a definition", "document") {
            Some(document) => self.identity(document),
            None => String::new(),
        };
        self.refuse(
            root,
            "schedule",
            "`schedule`",
            "start the workflow from outside: cron and `foldback run`, or a service",
        );
        if let Some(evaluate) = root.get("evaluate") {
            self.evaluate(evaluate);
        }
        if let Some(shared) = root.get("use") {
            self.shared(shared);
        }
        let limit = root.get("timeout").and_then(|timeout| self.timeout(timeout));
        let input = root.get("input").and_then(|input| self.from(input));
        let input_schema = self.schema_of(root.get("input"));
        let tasks = match self.required(root, "a definition", "do") {
            Some(list) => self.task_list(list, "do"),
            None => None,
        };
        let output = root.get("output").and_then(|output| self.output_as(output));
        let output_schema = self.schema_of(root.get("output"));
        let definition = tasks.map(|tasks| {
            let is_erasable = root.get("document").is_some_and(|document| self.erasable(document));
            let redaction = std::mem::take(&mut self.redaction);
            let ours = root.get("document").and_then(|document| document.find("/metadata/foldback"));
            let handlers = ours.and_then(|ours| ours.get("on_compensate"));
            let on_compensate = handlers.map(|node| self.on_compensate(node)).unwrap_or_default();
            let document = match self.sees_definition {
                true => root.to_value(),
                false => json!({"document": root.get("document").map_or(Value::Null, Node::to_value)}),
            };
            Definition {
                tasks,
                input,
                output,
                input_schema,
                output_schema,
                limit,
                document,
                is_erasable,
                redaction,
                budget: std::mem::take(&mut self.budget_of_all),
                holds: self.holds,
                on_compensate,
            }
        });
        (definition, name)
    }

    fn identity(&mut self, document: &Node) -> String {
        const MEMBERS: [&str; 8] =
            ["dsl", "namespace", "name", "version", "title", "summary", "tags", "metadata"];
        if self.map(document, "`document`").is_none() {
            return String::new();
        }
        self.only(document, "`document`", &MEMBERS);
        let mut texts = [None; 4];
        for (place, name) in texts.iter_mut().zip(["dsl", "namespace", "name", "version"]) {
            if let Some(node) = self.required(document, "`document`", name) {
                *place = self.text(node, &format!("`{name}`"));
            }
        }
        let [dsl, namespace, name, version] = texts;
        if let (Some(dsl), Some(node)) = (dsl, document.get("dsl"))
            && !dsl.starts_with("1.0.")
        {
            self.report.hinted(node, format!("this is DSL {dsl}; 1.0 is understood"), "write dsl: '1.0.3'");
        }
        for (text, member) in [(namespace, "namespace"), (name, "name")] {
            let is_name = |text: &str| {
                let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
                !text.is_empty()
                    && text.len() <= 63
                    && text.chars().all(is_inner)
                    && !text.starts_with('-')
                    && !text.ends_with('-')
            };
            if let (Some(text), Some(node)) = (text, document.get(member))
                && !is_name(text)
            {
                let hint = "letters, digits and hyphens, at most 63, not at the ends";
                self.report.hinted(node, format!("`{text}` is no {member}"), hint);
            }
        }
        if let (Some(text), Some(node)) = (version, document.get("version"))
            && text.splitn(3, '.').filter(|part| part.starts_with(|c: char| c.is_ascii_digit())).count() != 3
        {
            self.report.hinted(node, format!("`{text}` is no version"), "three numbers: '0.1.0'");
        }
        if let Some(metadata) = document.get("metadata") {
            self.document_metadata(metadata);
        }
        format!("{} {}", name.unwrap_or_default(), version.unwrap_or_default())
    }

    fn document_metadata(&mut self, metadata: &Node) {
        if self.map(metadata, "`metadata`").is_none() {
            return;
        }
        let Some(ours) = metadata.get("foldback") else {
            return;
        };
        if self.map(ours, "`metadata.foldback`").is_none() {
            return;
        }
        self.only(
            ours,
            "`document.metadata.foldback`",
            &["recovery", "attempts", "erasable", "redact", "on_failure", "on_compensate", "budget"],
        );
        self.attempts = ours.get("attempts").and_then(|attempts| self.attempts(attempts));
        if let Some(on_failure) = ours.get("on_failure") {
            self.holds = self.word(on_failure, "`on_failure`", &["compensate", "hold"]) == Some("hold");
        }
        if let Some(recovery) = ours.get("recovery") {
            self.recovery = self.recovery_word(recovery);
        }
        self.budget_of_all = self.budget(ours.get("budget"));
        if let Some(rules) = ours.get("redact") {
            self.redact(rules);
        }
    }

    /// `redact`: rules by which everything that comes in is redacted.
    fn redact(&mut self, node: &Node) {
        const MEMBERS: [&str; 4] = ["path", "pattern", "replace", "name"];
        let items = self.list(node, "`redact`");
        let mut rules = Vec::new();
        for item in items {
            if self.map(item, "a rule of `redact`").is_none() {
                continue;
            }
            self.only(item, "a rule of `redact`", &MEMBERS);
            let mut text = |name: &str| {
                let member = item.get(name)?;
                self.text(member, &format!("`{name}`")).map(str::to_owned)
            };
            let [path, pattern, replace, name] = MEMBERS.map(&mut text);
            rules.push(RuleText { path, pattern, replace, name });
        }
        match Redaction::of(&rules) {
            Ok(redaction) => self.redaction = redaction,
            Err((at, bad)) => {
                let item = items.get(at).unwrap_or(node);
                let place = bad.member.and_then(|member| item.get(member)).unwrap_or(item);
                let what = bad.member.map(|member| format!("`{member}` ")).unwrap_or_default();
                self.report.hinted(place, format!("{what}{}", bad.message), bad.hint);
            }
        }
    }

    pub(super) fn recovery_word(&mut self, node: &Node) -> Option<Recovery> {
        match self.word(node, "`recovery`", &["retry", "operator"])? {
            "retry" => Some(Recovery::Retry),
            _ => Some(Recovery::Operator),
        }
    }

    fn evaluate(&mut self, evaluate: &Node) {
        if self.map(evaluate, "`evaluate`").is_none() {
            return;
        }
        self.only(evaluate, "`evaluate`", &["language", "mode"]);
        if let Some(language) = evaluate.get("language") {
            self.word(language, "the language of expressions", &["jq"]);
        }
        if let Some(mode) = evaluate.get("mode") {
            self.word(mode, "the mode of expressions", &["strict"]);
        }
    }

    fn shared(&mut self, shared: &'a Node) {
        const MEMBERS: [&str; 8] = [
            "authentications",
            "catalogs",
            "errors",
            "extensions",
            "functions",
            "retries",
            "secrets",
            "timeouts",
        ];
        if self.map(shared, "`use`").is_none() {
            return;
        }
        self.only(shared, "`use`", &MEMBERS);
        let inline = "write `authentication` at the endpoint: { bearer: { token: ${ $secrets.NAME } } }";
        self.refuse(shared, "authentications", "`use.authentications`", inline);
        self.refuse(shared, "catalogs", "`use.catalogs`", "declare the function under `use.functions`");
        self.refuse(
            shared,
            "extensions",
            "`use.extensions`",
            "write the tasks before or after where they belong",
        );
        let secrets = match shared.get("secrets") {
            Some(node) => self.list(node, "`use.secrets`"),
            None => &[],
        };
        for item in secrets {
            if let Some(name) = self.text(item, "the name of a secret") {
                self.secrets.push(name.to_owned());
            }
        }
        self.functions = self.named(shared, "functions");
        self.errors = self.named(shared, "errors");
        self.retries = self.named(shared, "retries");
        self.timeouts = self.named(shared, "timeouts");
        self.check_shared();
    }

    /// What is shared is read here too, so that it is right even where nothing uses it.
    fn check_shared(&mut self) {
        for node in self.errors.clone().into_values() {
            self.error_template(node);
        }
        for node in self.retries.clone().into_values() {
            self.retry_policy(node);
        }
        for node in self.timeouts.clone().into_values() {
            self.timeout_definition(node);
        }
        for (name, node) in self.functions.clone() {
            self.check_function(name, node);
        }
    }

    fn named(&mut self, shared: &'a Node, member: &str) -> std::collections::BTreeMap<&'a str, &'a Node> {
        let Some(node) = shared.get(member) else {
            return Default::default();
        };
        let members = self.map(node, &format!("`use.{member}`")).unwrap_or_default();
        members.iter().map(|m| (m.name.as_str(), &m.value)).collect()
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match node.as_list() {
            Some(items) => items,
            None => {
                self.report.problem(node, format!("{what} is a list, not {}", node.kind()));
                &[]
            }
        }
    }

    /// `input: {from: …}`.
    pub(super) fn from(&mut self, input: &Node) -> Option<crate::template::Template> {
        self.map(input, "`input`")?;
        self.only(input, "`input`", &["from", "schema"]);
        let from = input.get("from")?;
        self.shaping(from, "`from`", Allow::Expressions)
    }

    /// `output: {as: …}` and `export: {as: …}`.
    pub(super) fn output_as(&mut self, output: &Node) -> Option<crate::template::Template> {
        self.map(output, "`output` or `export`")?;
        self.only(output, "`output` or `export`", &["as", "schema"]);
        let as_ = output.get("as")?;
        self.shaping(as_, "`as`", Allow::Output)
    }

    /// `schema: {document: …}` of an `input`, `output` or `export`. Where it names a file, the file
    /// was put in its place before (see `resolve`).
    pub(super) fn schema_of(&mut self, holder: Option<&Node>) -> Option<Schema> {
        const FORMATS: [&str; 2] = ["json", "json:"];
        let schema = holder?.get("schema")?;
        self.map(schema, "`schema`")?;
        self.only(schema, "`schema`", &["format", "document", "resource"]);
        if let Some(format) = schema.get("format") {
            let text = self.text(format, "`format`")?;
            if text != FORMATS[0] && !text.starts_with(FORMATS[1]) {
                let hint = "write format: json, and JSON Schema; or leave `format` out";
                self.report.hinted(format, format!("schemas in `{text}` are not supported"), hint);
                return None;
            }
        }
        if schema.get("resource").is_some() {
            // It could not be resolved; the reason was told.
            return None;
        }
        let document = self.required(schema, "`schema`", "document")?;
        match Schema::new(document.to_value()) {
            Ok(schema) => Some(schema),
            Err(fault) => {
                let at = document.find(&fault.pointer).unwrap_or(document);
                self.report.hinted(at, fault.message, fault.hint);
                None
            }
        }
    }
}
