//! Reading of tasks and lists of tasks: their names, what all tasks share, and where they lead.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use foldback_core::{key, limits};

use super::Reader;
use super::names::Names;
use super::value::Allow;
use crate::program::{Body, Case, Flow, ForTask, ForkTask, Schemas, Task, TaskList};
use crate::tree::{Data, Node};
use foldback_core::report::nearest;

/// What all tasks may say.
const COMMON: [&str; 7] = ["if", "input", "output", "export", "timeout", "then", "metadata"];

/// The kinds of tasks, each with what else it may say. A kind that stands before another wins
/// where both could be meant: `for` has a `do`.
const KINDS: [(&str, &[&str]); 12] = [
    ("for", &["while", "do"]),
    ("try", &["catch"]),
    ("call", &["with"]),
    ("do", &[]),
    ("fork", &[]),
    ("emit", &[]),
    ("listen", &["foreach"]),
    ("raise", &[]),
    ("run", &[]),
    ("set", &[]),
    ("switch", &[]),
    ("wait", &[]),
];

/// Words that say where to go, and so are no names.
const FLOW_WORDS: [&str; 3] = ["continue", "exit", "end"];

/// Bytes of a key that an index, a visit and a mark may add to a name.
const KEY_SLACK: usize = 48;

impl Reader<'_> {
    /// A list of named tasks.
    pub(super) fn task_list(&mut self, node: &Node, what: &str) -> Option<TaskList> {
        let items = self.list(node, &format!("`{what}`"));
        if items.is_empty() && node.as_list().is_some() {
            self.report.problem(node, format!("`{what}` has no tasks"));
        }
        let named: Vec<(&str, &Node)> = items.iter().filter_map(|item| self.named_item(item)).collect();
        let names = Rc::new(Names::of(named.iter().map(|(name, _)| *name)));
        self.lists.push(names.clone());
        let mut tasks = Vec::new();
        for (i, (name, node)) in named.iter().enumerate() {
            if let Some(first) = names.position(name).filter(|first| *first < i) {
                let hint = "names are keys, and `then` and `$steps` look for them in this list: each task of a list has \
                            its own (in another list the same name is fine)";
                let line = named[first].1.line;
                let message =
                    format!("two tasks of this list are called `{name}`; the first is on line {line}");
                self.report.hinted(node, message, hint);
            }
            self.key_bytes += name.len() + KEY_SLACK;
            if self.key_bytes > limits::KEY_MAX_BYTES {
                self.report.hinted(
                    node,
                    "the names down to this task are too long together",
                    "shorten them, or nest less",
                );
            }
            tasks.extend(self.task(name, node, &names));
            self.key_bytes -= name.len() + KEY_SLACK;
        }
        self.lists.pop();
        (tasks.len() == items.len()).then(|| TaskList::of(tasks))
    }

    /// The one member of a list's item, its name checked.
    fn named_item<'n>(&mut self, item: &'n Node) -> Option<(&'n str, &'n Node)> {
        let members = self.map(item, "an item of a task list")?;
        let [member] = members else {
            let hint = "begin each with `- name:` and indent what belongs to it";
            self.report.hinted(item, format!("an item holds one task, not {}", members.len()), hint);
            return None;
        };
        let at = member.value.at(member.key);
        let name = member.name.as_str();
        if let Some(control) = name.chars().find(|c| c.is_control()) {
            self.report.hinted(
                &at,
                format!("the name {name:?} holds the control character U+{:04X}", u32::from(control)),
                "names are keys, which are shown and typed: take it out",
            );
        } else if name.is_empty() || name.contains(key::RESERVED) {
            self.report.hinted(
                &at,
                format!("`{name}` is no name"),
                "names are keys: they are not empty and have none of / [ ] # !",
            );
        } else if FLOW_WORDS.contains(&name) {
            self.report.hinted(
                &at,
                format!("`{name}` says where to go and is no name"),
                "choose another name",
            );
        } else if name.len() > 128 {
            self.report.hinted(&at, "the name is too long", "at most 128 bytes");
        }
        Some((name, &member.value))
    }

    fn task(&mut self, name: &str, node: &Node, siblings: &Names) -> Option<Task> {
        let members = self.map(node, &format!("the task `{name}`"))?;
        let given = |kind: &str| members.iter().any(|member| member.name == kind);
        let found: Vec<_> = KINDS.iter().filter(|(kind, _)| given(kind)).collect();
        let Some((kind, more)) = found.first() else {
            let words: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
            let near =
                members.iter().find_map(|m| nearest(&m.name, words.iter().copied()).map(|near| (m, near)));
            match near.filter(|(m, _)| !COMMON.contains(&m.name.as_str())) {
                Some((member, near)) => {
                    let at = member.value.at(member.key);
                    self.report.hinted(
                        &at,
                        format!("there is no task `{}`", member.name),
                        format!("did you mean `{near}`?"),
                    );
                }
                None => {
                    let hint = format!("one of: {}", words.join(", "));
                    self.report.hinted(node, format!("the task `{name}` does not say what it does"), hint);
                }
            }
            return None;
        };
        let known: Vec<&str> = COMMON.iter().copied().chain([*kind]).chain(more.iter().copied()).collect();
        self.only(node, &format!("the {kind} task `{name}`"), &known);
        let problems = self.report.problems.len();
        let condition = node.get("if").and_then(|node| self.expression(node, "`if`", Allow::Expressions));
        let input = node.get("input").and_then(|node| self.from(node));
        let body = self.body(kind, node, siblings);
        let output = node.get("output").and_then(|node| self.output_as(node));
        let export = node.get("export").and_then(|node| self.output_as(node));
        let schemas = Schemas {
            input: self.schema_of(node.get("input")),
            output: self.schema_of(node.get("output")),
            export: self.schema_of(node.get("export")),
        };
        if let (Some(_), None, Some(export)) = (&schemas.export, &export, node.get("export")) {
            let hint = "write what is exported: as: '${ $context + . }'";
            self.report.hinted(export, "a schema of `export` needs `as`", hint);
        }
        let then = self.flow(node.get("then"), siblings);
        let is_erasable = self.erasable(node);
        let budget = match matches!(*kind, "do" | "for" | "fork" | "try") {
            true => self.budget(node.find("/metadata/foldback/budget")),
            false => Default::default(),
        };
        let mut limit = None;
        if !matches!(*kind, "call" | "run") {
            limit = node.get("timeout").and_then(|timeout| self.timeout(timeout));
            self.other_metadata(node);
        }
        if self.report.problems.len() > problems {
            return None;
        }
        let pointer: Arc<str> = node.pointer.clone();
        let name = name.to_owned();
        let mut body = body?;
        self.check_side_task(&name, node, &body);
        if self.report.problems.len() > problems {
            return None;
        }
        let limit = match &mut body {
            Body::Step(step) => step.take_limit(),
            // These are over in the turn in which they begin: there is nothing to cut off.
            Body::Set(_) | Body::Switch(_) | Body::Raise(_) | Body::Emit(_) => None,
            Body::Do(_) | Body::For(_) | Body::Fork(_) | Body::Try(_) | Body::Wait(_) | Body::Listen(_) => {
                limit
            }
        };
        Some(Task {
            name,
            pointer,
            condition,
            input,
            output,
            export,
            schemas,
            then,
            limit,
            is_erasable,
            budget,
            body,
        })
    }

    fn body(&mut self, kind: &str, node: &Node, siblings: &Names) -> Option<Body> {
        let own = node.get(kind)?;
        match kind {
            "for" => self.for_task(node, own).map(|task| Body::For(Box::new(task))),
            "try" => self.try_task(node, own, siblings).map(|task| Body::Try(Box::new(task))),
            "call" => self.call(node, own).map(|step| Body::Step(Box::new(step))),
            "run" => self.run(node, own).map(|step| Body::Step(Box::new(step))),
            "do" => self.task_list(own, "do").map(Body::Do),
            "fork" => self.fork(own).map(Body::Fork),
            "raise" => {
                self.map(own, "`raise`")?;
                self.only(own, "`raise`", &["error"]);
                let error = self.required(own, "`raise`", "error")?;
                self.error_reference(error).map(Body::Raise)
            }
            "set" => self.set(own).map(Body::Set),
            "switch" => self.switch(own, siblings).map(Body::Switch),
            "wait" => self.delay(own, "`wait`").map(Body::Wait),
            "emit" => self.emit(own).map(Body::Emit),
            "listen" => self.listen(node, own).map(|task| Body::Listen(Box::new(task))),
            _ => None,
        }
    }

    fn set(&mut self, own: &Node) -> Option<crate::template::Template> {
        let is_expression = own.as_str().is_some_and(|text| super::value::inside(text).is_some());
        match &own.data {
            Data::Map(members) if !members.is_empty() => Some(self.template(own, Allow::Expressions)),
            Data::Scalar(_) if is_expression => Some(self.template(own, Allow::Expressions)),
            Data::Scalar(_) | Data::List(_) | Data::Map(_) => {
                self.report.hinted(
                    own,
                    "`set` takes an object or an expression",
                    "write set: { name: value } or set: ${ … }",
                );
                None
            }
        }
    }

    fn for_task(&mut self, node: &Node, own: &Node) -> Option<ForTask> {
        self.map(own, "`for`")?;
        self.only(own, "`for`", &["each", "in", "at"]);
        let each = self.variable(own.get("each"), "item");
        let at = self.variable(own.get("at"), "index");
        if each == at {
            let hint = "the item and its index each have a name of their own";
            self.report.hinted(own, format!("`each` and `at` are both `{each}`"), hint);
        }
        let items = self.required(own, "`for`", "in").and_then(|node| match &node.data {
            Data::List(_) => Some(self.template(node, Allow::Expressions)),
            Data::Scalar(_) | Data::Map(_) => self.shaping(node, "`in`", Allow::Expressions),
        });
        self.bound.extend([each.clone(), at.clone()]);
        let while_ = node.get("while").map(|node| self.expression(node, "`while`", Allow::Expressions));
        let body = match self.required(node, "a `for` task", "do") {
            Some(list) => self.task_list(list, "do"),
            None => None,
        };
        self.bound.truncate(self.bound.len() - 2);
        let hint = "true gives the list of the iterations' outputs; without it the output is that of the last iteration";
        let collects = self.flag(node, "collect", hint);
        Some(ForTask { each, at, items: items?, while_: while_.unwrap_or_default(), body: body?, collects })
    }

    /// The name of a variable, with its `$`.
    pub(super) fn variable(&mut self, node: Option<&Node>, otherwise: &str) -> String {
        let name = node.and_then(|node| self.text(node, "the name of a variable")).unwrap_or(otherwise);
        let name = name.strip_prefix('$').unwrap_or(name);
        let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let full = format!("${name}");
        if let Some(node) = node {
            if !is_word {
                self.report.hinted(
                    node,
                    format!("`{name}` is no name of a variable"),
                    "letters, digits and _",
                );
            } else if super::VARIABLES.contains(&full.as_str())
                || matches!(name, "output" | "secrets" | "ENV")
            {
                self.report.hinted(node, format!("`${name}` has a meaning already"), "choose another name");
            }
        }
        full
    }

    fn fork(&mut self, own: &Node) -> Option<ForkTask> {
        self.map(own, "`fork`")?;
        self.only(own, "`fork`", &["branches", "compete"]);
        let is_race = match own.get("compete").map(|node| (node, node.as_scalar())) {
            None => false,
            Some((_, Some(serde_json::Value::Bool(is_race)))) => *is_race,
            Some((node, _)) => {
                let hint = "true: the first branch that completes ends the others; false: all run";
                self.report.hinted(node, format!("`compete` is true or false, not {}", node.kind()), hint);
                false
            }
        };
        let branches = self.required(own, "`fork`", "branches")?;
        // A branch stands alone: it sees the tasks around the fork, not the other branches.
        let list = self.task_list(branches, "branches")?;
        for (item, task) in branches.as_list().unwrap_or_default().iter().zip(&list.tasks) {
            let leads_on = match &task.body {
                Body::Switch(cases) => cases.iter().any(|case| case.then != Flow::Continue),
                Body::Try(block) => block.then.is_some_and(|then| then != Flow::Continue),
                Body::Do(_)
                | Body::For(_)
                | Body::Fork(_)
                | Body::Set(_)
                | Body::Raise(_)
                | Body::Wait(_)
                | Body::Emit(_)
                | Body::Listen(_)
                | Body::Step(_) => false,
            };
            if task.then != Flow::Continue || leads_on {
                let at = item.as_map().and_then(|m| m.first()).map_or(item, |m| &m.value);
                self.report.hinted(
                    at,
                    "a branch of a fork leads nowhere",
                    "leave `then` out, or put the tasks into a `do` inside the branch",
                );
            }
        }
        Some(ForkTask { branches: list, is_race })
    }

    fn switch(&mut self, own: &Node, siblings: &Names) -> Option<Vec<Case>> {
        let items = self.list(own, "`switch`");
        if items.is_empty() && own.as_list().is_some() {
            self.report.problem(own, "`switch` has no cases");
        }
        let mut cases: Vec<Case> = Vec::new();
        let (mut known, mut has_default) = (HashSet::new(), false);
        for item in items {
            let Some([member]) = self.map(item, "a case") else {
                self.report.hinted(item, "an item holds one case", "begin each with `- name:`");
                continue;
            };
            let (name, node) = (member.name.as_str(), &member.value);
            if self.map(node, &format!("the case `{name}`")).is_none() {
                continue;
            }
            self.only(node, &format!("the case `{name}`"), &["when", "then"]);
            self.required(node, &format!("the case `{name}`"), "then");
            let when = node.get("when").map(|node| self.expression(node, "`when`", Allow::Expressions));
            let when_text = node.get("when").and_then(Node::as_str).unwrap_or_default();
            let when_text =
                super::value::inside(when_text).map_or(when_text, |(_, inner)| inner).trim().to_owned();
            let then = self.flow(node.get("then"), siblings);
            let at = node.at(member.key);
            if !known.insert(name) {
                self.report.hinted(
                    &at,
                    format!("two cases are called `{name}`"),
                    "their names tell decisions apart",
                );
            }
            if has_default && when.is_none() {
                self.report.hinted(
                    &at,
                    "a switch has one case without `when`",
                    "it is the default; give this one a condition",
                );
            }
            has_default |= when.is_none();
            let when = when.unwrap_or_default();
            cases.push(Case { name: name.to_owned(), when, when_text, then });
        }
        (cases.len() == items.len()).then_some(cases)
    }

    /// Where `then` leads.
    pub(super) fn flow(&mut self, node: Option<&Node>, siblings: &Names) -> Flow {
        let Some(node) = node else {
            return Flow::Continue;
        };
        match self.text(node, "`then`") {
            Some("continue") | None => Flow::Continue,
            Some("exit") => Flow::Exit,
            Some("end") => Flow::End,
            Some(name) => match siblings.position(name) {
                Some(index) => Flow::To(index),
                None if self.report.is_full() => Flow::Continue,
                None => {
                    let hint = match nearest(name, siblings.iter().chain(FLOW_WORDS)) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("tasks of this list: {siblings}; or continue, exit, end"),
                    };
                    self.report.hinted(node, format!("there is no task `{name}` in this list"), hint);
                    Flow::Continue
                }
            },
        }
    }

    /// `metadata.foldback.erasable` of any task, or of the document.
    pub(super) fn erasable(&mut self, node: &Node) -> bool {
        self.flag(node, "erasable", "true keeps the values where `foldback erase` can take them")
    }

    /// `metadata.foldback.compensate` of a `try`: what it did is taken back when its error is caught.
    pub(super) fn compensates(&mut self, node: &Node) -> bool {
        self.flag(node, "compensate", "true takes back what the block did when its error is caught")
    }

    /// A member of `metadata.foldback` of a task that is true or false, and false where it is not there.
    fn flag(&mut self, node: &Node, name: &str, hint: &str) -> bool {
        let ours = node.get("metadata").and_then(|metadata| metadata.get("foldback"));
        let Some(flag) = ours.and_then(|ours| ours.get(name)) else { return false };
        match flag.as_scalar() {
            Some(serde_json::Value::Bool(is_set)) => *is_set,
            _ => {
                let message = format!("`{name}` is true or false, not {}", flag.kind());
                self.report.hinted(flag, message, hint);
                false
            }
        }
    }

    /// `metadata` of a task that is no step: of ours, it may say `erasable`; what has tasks inside also
    /// `budget`, a `for` also `collect`, a `try` also `compensate`, a `listen` also `schema` and `default`.
    fn other_metadata(&mut self, node: &Node) {
        let Some(metadata) = node.get("metadata") else {
            return;
        };
        let has = |kind: &str| node.get(kind).is_some();
        let is_known = |name: &str| match name {
            "erasable" => true,
            "compensate" => has("try"),
            "collect" => has("for"),
            "budget" => ["do", "for", "fork", "try"].into_iter().any(has),
            "schema" | "default" => has("listen"),
            _ => false,
        };
        if self.map(metadata, "`metadata`").is_some()
            && let Some(ours) = metadata.member("foldback")
            && ours.value.as_map().is_none_or(|members| members.iter().any(|m| !is_known(&m.name)))
        {
            let at = ours.value.at(ours.key);
            self.report.hinted(
                &at,
                "this stands in `metadata.foldback` of call and run tasks",
                "move it to the task that does the work; here may stand `erasable`, in a scope also `budget`, in a \
                 `for` also `collect`, in a `try` also `compensate`, in a `listen` also `schema` and `default`",
            );
        }
    }
}
