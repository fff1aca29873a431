//! External references: `{ file: … }` in a definition is replaced by the file's content, so that
//! a stored definition never needs its files again.
//!
//! Files are read through the function it is given, and by nothing else. What stands in the
//! resolved form is the text itself; nothing tells it from text that was written in place.

use serde_json::Value;

use crate::problem::Report;
use crate::tree::{Data, Member, Node};

/// Reads the file of a path relative to the definition.
pub(crate) type Read<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Members by which a task, or a definition, is known.
const DOERS: [&str; 11] =
    ["call", "do", "emit", "for", "fork", "listen", "raise", "run", "set", "switch", "try"];

/// Replaces references below this node.
pub(crate) fn resolve(node: &mut Node, read: Read<'_>, report: &mut Report) {
    match &mut node.data {
        Data::Scalar(_) => {}
        Data::List(items) => items.iter_mut().for_each(|item| resolve(item, read, report)),
        Data::Map(members) => {
            let has = |name: &str| members.iter().any(|member| member.name == name);
            let (is_call, is_task) = (has("call"), DOERS.iter().any(|name| has(name)));
            for member in members.iter_mut() {
                match member.name.as_str() {
                    "with" if is_call => prompts(&mut member.value, read, report),
                    "run" => run(&mut member.value, read, report),
                    "input" | "output" | "export" if is_task => schema(&mut member.value, read, report),
                    _ => {}
                }
                // What `set` gives and what a schema says is data, whatever it looks like.
                if !matches!(member.name.as_str(), "set" | "schema") {
                    resolve(&mut member.value, read, report);
                }
            }
        }
    }
}

/// `template: { file }` and `system: { file }` of a model call.
fn prompts(with: &mut Node, read: Read<'_>, report: &mut Report) {
    let Data::Map(members) = &mut with.data else {
        return;
    };
    for member in members.iter_mut().filter(|m| matches!(m.name.as_str(), "template" | "system" | "schema")) {
        let is_schema = member.name == "schema";
        let Some(path) = reference(&member.value) else {
            continue;
        };
        let text = content(&member.value, &path, read, report);
        let value = match is_schema {
            false => Value::String(text),
            // What could not be read is told; an empty one in its place keeps the reading going.
            true if text.is_empty() => Value::Object(Default::default()),
            true => match foldback_core::json::parse(&text) {
                Ok(value) => value,
                Err(error) => {
                    report.hinted(
                        &member.value,
                        format!("`{path}` is not JSON: {error}"),
                        "a schema is JSON Schema",
                    );
                    continue;
                }
            },
        };
        member.value = plant(&member.value, value);
    }
}

fn run(run: &mut Node, read: Read<'_>, report: &mut Report) {
    let Data::Map(members) = &mut run.data else {
        return;
    };
    members.iter_mut().filter(|m| m.name == "script").for_each(|m| script(&mut m.value, read, report));
}

/// `source` of a script: its content becomes the `code`.
fn script(script: &mut Node, read: Read<'_>, report: &mut Report) {
    let Data::Map(members) = &mut script.data else {
        return;
    };
    let Some(at) = members.iter().position(|member| member.name == "source") else {
        return;
    };
    let source = &members[at].value;
    let endpoint = source.get("endpoint").map(|e| e.get("uri").unwrap_or(e)).and_then(Node::as_str);
    let path = reference(source)
        .or_else(|| endpoint.map(|uri| uri.strip_prefix("file://").unwrap_or(uri).to_owned()));
    let Some(path) = path.filter(|path| !path.contains("://")) else {
        return report.hinted(
            source,
            "a script comes from a file",
            "write source: { file: scripts/run.py }, or code: | …",
        );
    };
    if members.iter().any(|member| member.name == "code") {
        return report.hinted(&members[at].value, "`script` has one of `code` and `source`", "leave one out");
    }
    let text = content(source, &path, read, report);
    let mut code: Member = members.remove(at);
    code.value = plant(&code.value, Value::String(text));
    code.name = "code".to_owned();
    members.push(code);
    members.sort_by(|a, b| a.name.cmp(&b.name));
}

/// `schema: { resource: … }`: the file's content becomes the `document`.
fn schema(holder: &mut Node, read: Read<'_>, report: &mut Report) {
    let Data::Map(members) = &mut holder.data else {
        return;
    };
    let Some(schema) = members.iter_mut().find(|member| member.name == "schema") else {
        return;
    };
    let Data::Map(members) = &mut schema.value.data else {
        return;
    };
    let Some(at) = members.iter().position(|member| member.name == "resource") else {
        return;
    };
    let resource = &members[at].value;
    let endpoint = resource.get("endpoint").map(|e| e.get("uri").unwrap_or(e)).and_then(Node::as_str);
    let path = reference(resource)
        .or_else(|| endpoint.map(|uri| uri.strip_prefix("file://").unwrap_or(uri).to_owned()));
    let Some(path) = path.filter(|path| !path.contains("://") && !path.contains("${")) else {
        return report.hinted(
            resource,
            "a schema comes from a file: it is pinned by its content when the definition is loaded",
            "write resource: { endpoint: schemas/input.json }, or document: { … }",
        );
    };
    if members.iter().any(|member| member.name == "document") {
        let hint = "leave one out";
        return report.hinted(resource, "`schema` has one of `document` and `resource`", hint);
    }
    let text = content(resource, &path, read, report);
    // What could not be read was told; one that fits everything in its place keeps the reading going.
    let value = match text.is_empty() {
        true => Value::Bool(true),
        false => match crate::tree::parse(&text) {
            Ok(tree) => tree.to_value(),
            Err(problem) => {
                let message = format!("`{path}`, line {}, is no schema: {}", problem.line, problem.message);
                return report.hinted(resource, message, "a schema is JSON Schema, as JSON or YAML");
            }
        },
    };
    let mut document = members.remove(at);
    document.value = plant(&document.value, value);
    document.name = "document".to_owned();
    members.push(document);
    members.sort_by(|a, b| a.name.cmp(&b.name));
}

/// The path of `{ file: path }`.
fn reference(node: &Node) -> Option<String> {
    match node.as_map() {
        Some([member]) if member.name == "file" => member.value.as_str().map(str::to_owned),
        _ => None,
    }
}

fn content(at: &Node, path: &str, read: Read<'_>, report: &mut Report) -> String {
    match read(path) {
        Ok(text) => text,
        Err(message) => {
            report.hinted(
                at,
                format!("the file `{path}` cannot be read: {message}"),
                "paths are relative to the definition",
            );
            String::new()
        }
    }
}

/// A value at the place of a node.
fn plant(at: &Node, value: Value) -> Node {
    let mut node = at.hollow();
    node.data = match value {
        Value::Object(map) => {
            let key = crate::tree::Place { line: at.line, column: at.column };
            let mut members: Vec<Member> =
                map.into_iter().map(|(name, value)| Member { name, key, value: plant(at, value) }).collect();
            members.sort_by(|a, b| a.name.cmp(&b.name));
            Data::Map(members)
        }
        Value::Array(items) => Data::List(items.into_iter().map(|item| plant(at, item)).collect()),
        scalar => Data::Scalar(scalar),
    };
    node
}

/// The tree of a value that has no source: each node stands at its beginning.
pub(crate) fn tree_of(value: Value) -> Node {
    let root =
        Node { line: 1, column: 1, pointer: "".into(), is_verbatim: false, data: Data::Scalar(Value::Null) };
    let mut tree = plant(&root, value);
    tree.name_pointers("".into());
    tree
}
