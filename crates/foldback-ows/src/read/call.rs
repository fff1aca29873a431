//! Reading of `call` tasks: HTTP, models, and functions that the definition declares.

use foldback_core::{Effect, Recovery};
use serde_json::Value;

use super::Reader;
use super::value::{Allow, inside};
use crate::program::{Part, StepTask};
use crate::template::Template;
use crate::tree::{Data, Member, Node};
use foldback_core::report::nearest;
use foldback_core::step::{FRAMING_HEADERS, LLM_MEMBERS};

const HTTP: [&str; 8] =
    ["method", "endpoint", "headers", "query", "body", "output", "redirect", "authentication"];
/// Members that a call and the function it calls may both give; the call's win one by one.
const MERGED: [&str; 3] = ["headers", "query", "vars"];
const METHODS: [&str; 8] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"];

/// Calls of other worlds, and what to use instead.
const REFUSED: [(&str, &str); 5] = [
    ("grpc", "call the service's HTTP gateway with `call: http`, or a client with `run: shell`"),
    ("openapi", "write the operation's method and endpoint out: `call: http`"),
    ("asyncapi", "publish through an HTTP gateway with `call: http`"),
    ("mcp", "planned; until then run the tool with `run: shell`"),
    ("a2a", "call the agent's endpoint with `call: http`"),
];

/// Whether a call is to a model: `llm`, `llm:1.0.0@default`.
fn is_llm(name: &str) -> bool {
    name == "llm" || name.strip_prefix("llm:").is_some_and(|rest| rest.ends_with("@default"))
}

impl<'a> Reader<'a> {
    pub(super) fn call(&mut self, node: &Node, own: &Node) -> Option<StepTask> {
        let name = self.text(own, "`call`")?;
        if let Some(function) = self.functions.get(name).copied() {
            return self.function_call(node, function);
        }
        let with = node.get("with");
        if let Some(with) = with {
            self.map(with, "`with`")?;
        }
        let step = match name {
            "http" => self.http(with.unwrap_or(node)),
            name if is_llm(name) => self.llm(with.unwrap_or(node)),
            name => {
                self.unknown_call(own, name);
                None
            }
        }?;
        Some(self.with_settings(step, node))
    }

    fn unknown_call(&mut self, own: &Node, name: &str) {
        if let Some((_, hint)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return self.report.hinted(own, format!("`call: {name}` is not supported"), *hint);
        }
        if name.contains('@') || name.contains("://") {
            return self.report.hinted(
                own,
                "functions of a catalog are not supported",
                "declare the function under `use.functions`",
            );
        }
        let known: Vec<&str> = self.functions.keys().copied().chain(["http", "llm"]).collect();
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "call http, llm, or a function declared under `use.functions`".to_owned(),
        };
        self.report.hinted(own, format!("there is no function `{name}`"), hint);
    }

    /// A function as it is declared, so that its problems show even where nobody calls it.
    pub(super) fn check_function(&mut self, name: &str, node: &'a Node) {
        if self.map(node, &format!("the function `{name}`")).is_none() {
            return;
        }
        if let Some(kind) =
            ["input", "output", "export", "if", "then"].into_iter().find(|kind| node.get(kind).is_some())
        {
            self.refuse(node, kind, &format!("`{kind}` of a function"), "say it at the tasks that call it");
        }
        if matches!(name, "http") || is_llm(name) || REFUSED.iter().any(|(refused, _)| *refused == name) {
            self.report.hinted(
                node,
                format!("`{name}` is a call of its own"),
                "give the function another name",
            );
        }
        if node.get("call").is_none() && node.get("run").is_none() {
            let hint = "a function is one `call: http`, `call: llm` or `run`";
            self.report.hinted(node, format!("the function `{name}` does nothing that can be called"), hint);
        }
    }

    /// A function's call with what this task adds: members of the call itself are replaced, all
    /// else joins the input that its expressions and its endpoint see.
    fn function_call(&mut self, node: &Node, function: &Node) -> Option<StepTask> {
        let given: &[Member] = match node.get("with") {
            Some(with) => self.map(with, "`with`")?,
            None => &[],
        };
        let inner = function.get("call").and_then(Node::as_str).unwrap_or_default();
        let known: &[&str] = match (inner, function.get("run")) {
            ("http", None) => &HTTP,
            (name, None) if is_llm(name) => &LLM_MEMBERS,
            (_, Some(_)) => &[],
            (name, None) => {
                if let Some(call) = function.get("call") {
                    self.report.hinted(
                        call,
                        format!("a function calls http or llm, not `{name}`"),
                        "call the other function in the task itself",
                    );
                }
                return None;
            }
        };
        let (own, arguments): (Vec<Member>, Vec<Member>) =
            given.iter().cloned().partition(|member| known.contains(&member.name.as_str()));
        let step = match function.get("run") {
            Some(run) => self.run(function, run),
            None => {
                let with = function.get("with").unwrap_or(function);
                let merged = merge(with, own);
                match inner {
                    "http" => self.http(&merged),
                    _ => self.llm(&merged),
                }
                .map(|step| self.with_settings(step, function))
            }
        };
        let arguments = match arguments.is_empty() {
            true => None,
            false => {
                let object = Node { data: Data::Map(arguments), ..node.hollow() };
                Some(self.template(&object, Allow::Expressions))
            }
        };
        step.map(|step| self.with_settings(StepTask { arguments, ..step }, node))
    }

    fn http(&mut self, with: &Node) -> Option<StepTask> {
        if with.get("call").is_some() {
            self.report.hinted(
                with,
                "`call: http` needs `with`",
                "write with: { method: get, endpoint: https://… }",
            );
            return None;
        }
        self.only(with, "`call: http`", &HTTP[..7]);
        let method = self.required(with, "`call: http`", "method").and_then(|node| {
            let text = self.text(node, "`method`")?.to_ascii_uppercase();
            let method = METHODS.iter().find(|method| **method == text).copied();
            if method.is_none() {
                let hint = nearest(&text, METHODS).map_or_else(
                    || format!("one of: {}", METHODS.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                self.report.hinted(node, format!("`{text}` is no method"), hint);
            }
            method
        });
        let endpoint = self.required(with, "`call: http`", "endpoint")?;
        let mut parts = Vec::new();
        match endpoint.as_map() {
            Some(_) => {
                self.only(endpoint, "an endpoint", &["uri", "authentication"]);
                let uri = self.required(endpoint, "an endpoint", "uri").and_then(|node| self.uri(node));
                parts.push(("uri", Part::Uri(uri?)));
                if let Some(authentication) = endpoint.get("authentication") {
                    let authentication = self.authentication(authentication)?;
                    parts.push(("authentication", Part::Value(authentication)));
                }
            }
            None => parts.push(("uri", Part::Uri(self.uri(endpoint)?))),
        }
        for name in ["headers", "query", "body"] {
            let Some(node) = with.get(name) else { continue };
            let is_expression = node.as_str().is_some_and(|text| inside(text).is_some());
            if name != "body" && node.as_map().is_none() && !is_expression {
                self.report.problem(node, format!("`{name}` is an object, not {}", node.kind()));
            }
            if name == "headers" {
                self.framing_headers(node);
            }
            parts.push((name, Part::Value(self.template(node, Allow::Secrets))));
        }
        let output = match with.get("output") {
            Some(node) => self.word(node, "`output`", &["content", "response", "raw"])?,
            None => "content",
        };
        parts.push(("output", Part::Value(Template::constant(Value::from(output)))));
        if let Some(redirect) = with.get("redirect") {
            if !matches!(redirect.as_scalar(), Some(Value::Bool(_))) {
                self.report.problem(redirect, "`redirect` is true or false");
            }
            parts.push(("redirect", Part::Value(Template::constant(redirect.to_value()))));
        }
        let method = method?;
        parts.push(("method", Part::Value(Template::constant(Value::from(method)))));
        let effect = match method {
            "GET" | "HEAD" | "OPTIONS" | "TRACE" => Effect::Read,
            _ => Effect::Write,
        };
        // HTTP defines PUT and DELETE so that sending them twice is like sending them once.
        let recovery = match (self.recovery, method) {
            (Some(recovery), _) => recovery,
            (None, "PUT" | "DELETE") => Recovery::Retry,
            (None, _) => Recovery::Operator,
        };
        Some(StepTask {
            kind: "http",
            parts,
            arguments: None,
            lists: &[],
            effect,
            recovery,
            is_recovery_said: self.recovery.is_some(),
            timeout_ms: None,
            limit: None,
            computed_limit: None,
            retry: self.retry(None),
            undo: None,
            reconcile: None,
        })
    }

    /// Refuses headers that only the HTTP client can write rightly.
    fn framing_headers(&mut self, headers: &Node) {
        for member in headers.as_map().unwrap_or_default() {
            if FRAMING_HEADERS.contains(&member.name.to_ascii_lowercase().as_str()) {
                let at = member.value.at(member.key);
                let message = format!("the header `{}` is not a definition's to set", member.name);
                let hint =
                    "leave it out: how a request is framed and its connection kept follows from its body";
                self.report.hinted(&at, message, hint);
            }
        }
    }

    fn authentication(&mut self, node: &Node) -> Option<Template> {
        const HINT: &str =
            "write { bearer: { token: ${ $secrets.NAME } } } or { basic: { username: …, password: … } }";
        let members = self.map(node, "`authentication`")?;
        let [member] = members else {
            self.report.hinted(node, "`authentication` has one scheme", HINT);
            return None;
        };
        let names: &[&str] = match member.name.as_str() {
            "bearer" => &["token"],
            "basic" => &["username", "password"],
            other => {
                self.report.hinted(
                    &member.value.at(member.key),
                    format!("the authentication `{other}` is not supported"),
                    HINT,
                );
                return None;
            }
        };
        self.map(&member.value, "the authentication")?;
        if let Some(secret) = member.value.get("use") {
            self.report.hinted(secret, "a secret that holds a whole authentication is not supported", HINT);
            return None;
        }
        self.only(&member.value, "the authentication", names);
        let mut object = vec![("scheme".to_owned(), Template::constant(Value::from(member.name.as_str())))];
        for name in names {
            let value = self.required(&member.value, "the authentication", name)?;
            self.text(value, &format!("`{name}`"))?;
            object.push(((*name).to_owned(), self.template(value, Allow::Secrets)));
        }
        Some(Template::Object(object))
    }
}

/// A function's `with` with the call's members put over it.
fn merge(with: &Node, own: Vec<Member>) -> Node {
    let mut members: Vec<Member> = with.as_map().unwrap_or_default().to_vec();
    for member in own {
        match members.iter_mut().find(|known| known.name == member.name) {
            Some(known) if MERGED.contains(&member.name.as_str()) && known.value.as_map().is_some() => {
                let inner = member.value.as_map().unwrap_or_default().to_vec();
                known.value = merge(&known.value, inner);
            }
            Some(known) => *known = member,
            None => members.push(member),
        }
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Node { data: Data::Map(members), ..with.hollow() }
}
