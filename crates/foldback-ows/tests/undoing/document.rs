//! Random documents, and what is known of each without reading it: which tasks have an undo, which
//! blocks take back what they did. It runs nothing.

use std::collections::{BTreeMap, BTreeSet};

use foldback_core::Key;
use foldback_ows::Loaded;
use serde_json::{Value, json};

use crate::dice::Dice;

/// A document, as it was made.
pub struct Document {
    pub loaded: Loaded,
    pub facts: Facts,
}

/// What the model knows of a document.
#[derive(Default)]
pub struct Facts {
    /// Tasks that can be taken back, with the names of the writes that do it.
    pub undos: BTreeMap<String, Vec<&'static str>>,
    /// Blocks that take back what they did before their handler begins.
    pub compensates: BTreeSet<String>,
    /// Whether a person says what becomes of what was done.
    pub holds: bool,
    /// Whether strands may run side by side.
    pub has_branches: bool,
}

impl Facts {
    /// The names of the writes that take back what was done at a key, where there are any. In Rust the
    /// second use of a name is `t1~2`.
    pub fn takes_back(&self, key: &Key) -> Option<&Vec<&'static str>> {
        self.undos.get(key.name().split('~').next().unwrap_or_default())
    }
}

/// What a document may hold.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Branches side by side.
    pub branches: bool,
    /// Writes of which a person, or tasks of the document, say what became of them.
    pub recoveries: bool,
    /// Limits of time.
    pub limits: bool,
    /// Tasks that wait until somebody says something.
    pub listens: bool,
    /// Budgets, of the whole and of parts.
    pub budgets: bool,
}

pub fn document(dice: &mut Dice, shape: Shape) -> Document {
    let mut making = Making { dice, shape, facts: Facts::default(), serial: 0 };
    let tasks = making.tasks(0);
    let mut ours = json!({"recovery": "retry", "on_compensate": {"TOLD": [
        {"back": {"call": "http", "with": {"method": "POST", "endpoint": "http://x.test/undo",
            "body": {"id": "${ $event.id }"}}}},
    ]}});
    if making.dice.one_in(6) {
        making.facts.holds = true;
        ours["on_failure"] = json!("hold");
    }
    if let Some(budget) = making.budget(4) {
        ours["budget"] = budget;
    }
    let mut document = json!({
        "document": {"dsl": "1.0.3", "namespace": "test", "name": "t", "version": "1.0.0",
            "metadata": {"foldback": ours}},
        "do": tasks,
    });
    if shape.limits && making.dice.one_in(8) {
        document["timeout"] = json!({"after": {"seconds": 5 + making.dice.below(60)}});
    }
    let facts = making.facts;
    let source = document.to_string();
    let loaded = foldback_ows::load(&source, &|_| Err("no files".into()));
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems:?}\n{source}"));
    Document { loaded, facts }
}

struct Making<'a> {
    dice: &'a mut Dice,
    shape: Shape,
    facts: Facts,
    serial: u32,
}

impl Making<'_> {
    fn tasks(&mut self, depth: u32) -> Value {
        let count = 1 + self.dice.below(if depth == 0 { 4 } else { 3 });
        let list = (0..count).map(|_| {
            self.serial += 1;
            let name = format!("t{}", self.serial);
            let task = self.task(&name, depth);
            json!({ name: task })
        });
        Value::Array(list.collect())
    }

    fn task(&mut self, name: &str, depth: u32) -> Value {
        let kinds = if depth >= 3 { 8 } else { 15 };
        let listens = self.shape.listens && self.dice.one_in(10);
        let mut task = match self.dice.below(kinds) {
            _ if listens => self.listen(),
            0..=3 => self.undoable(name),
            4 => self.other_write(),
            5 => json!({"call": "http", "with": {"method": "GET", "endpoint": "http://x.test/look"}}),
            6 => self.emit(name),
            7 => json!({"wait": {"seconds": 5}}),
            8 => json!({"do": self.tasks(depth + 1)}),
            9 => json!({"for": {"in": "${ [1, 2] }"}, "do": self.tasks(depth + 1)}),
            10 | 11 if self.shape.branches => self.fork(depth),
            _ => self.block(name, depth),
        };
        if task.get("do").is_some()
            && let Some(budget) = self.budget(6)
        {
            task["metadata"]["foldback"]["budget"] = budget;
        }
        if self.shape.limits && task.get("emit").is_none() && self.dice.one_in(10) {
            task["timeout"] = json!({"after": {"seconds": 1 + self.dice.below(30)}});
        }
        task
    }

    /// A write with an undo: one task, two, behind a look, or with values of its own.
    fn undoable(&mut self, name: &str) -> Value {
        let back = |which: &str| {
            json!({which: {"call": "http", "with": {"method": "POST", "endpoint": "http://x.test/undo",
                "body": {"id": "${ $write.output.id }"}}}})
        };
        let look =
            json!({"look": {"call": "http", "with": {"method": "GET", "endpoint": "http://x.test/look"}}});
        let (names, undo) = match self.dice.below(4) {
            0 => (vec!["back"], json!([back("back")])),
            1 => (vec!["first", "back"], json!([back("first"), back("back")])),
            2 => (vec!["back"], json!([look, back("back")])),
            _ => {
                let mut with = back("back");
                with["back"]["with"]["body"]["tag"] = json!("${ $write.with.tag }");
                (vec!["back"], json!({"with": {"tag": name}, "do": [with]}))
            }
        };
        self.facts.undos.insert(name.to_owned(), names);
        let mut write = self.write();
        write["metadata"]["foldback"]["undo"] = undo;
        write
    }

    fn other_write(&mut self) -> Value {
        let mut write = self.write();
        if self.dice.one_in(2) {
            write["metadata"]["foldback"]["irreversible"] = json!("it is gone");
        }
        write
    }

    fn write(&mut self) -> Value {
        let mut ours = json!({});
        match self.dice.below(6) {
            0 if self.shape.recoveries => ours["recovery"] = json!("operator"),
            1 if self.shape.recoveries => {
                ours["recovery"] = json!({"reconcile": [{"look": {"call": "http",
                    "with": {"method": "GET", "endpoint": "http://x.test/done",
                        "query": {"key": "${ $write.idempotency_key }"}}}}]});
            }
            _ => {}
        }
        // An interrupted attempt makes for other delays, and so for other times in what is emitted.
        if self.dice.one_in(5) && self.shape.recoveries {
            ours["attempts"] = json!(2);
        }
        let mut with = json!({"method": "POST", "endpoint": "http://x.test/do"});
        if self.dice.one_in(3) {
            with["body"] = json!({"was": "${ . }"});
        }
        json!({"call": "http", "with": with, "metadata": {"foldback": ours}})
    }

    fn emit(&mut self, name: &str) -> Value {
        let is_undone = self.dice.one_in(2);
        if is_undone {
            self.facts.undos.insert(name.to_owned(), vec!["back"]);
        }
        let event_type = if is_undone { "TOLD" } else { "OTHER" };
        json!({"emit": {"event": {"with": {"type": event_type}}}})
    }

    fn budget(&mut self, one_in: u64) -> Option<Value> {
        if !self.shape.budgets || !self.dice.one_in(one_in) {
            return None;
        }
        Some(match self.dice.one_in(3) {
            true => json!({"wall": {"seconds": 1 + self.dice.below(30)}}),
            false => json!({"steps": 1 + self.dice.below(5)}),
        })
    }

    /// One of two names, both, or either; or what another workflow tells.
    fn listen(&mut self) -> Value {
        let of = |name: &str| json!({"with": {"type": name}});
        let to = match self.dice.below(6) {
            4 => json!({"one": of("TOLD")}),
            5 => json!({"any": [of("OTHER"), of("go")]}),
            0 => json!({"all": [of("go"), of("ok")]}),
            1 => json!({"any": [of("go"), of("ok")]}),
            2 => json!({"one": of("go")}),
            _ => json!({"one": of("ok")}),
        };
        json!({"listen": {"to": to}})
    }

    fn fork(&mut self, depth: u32) -> Value {
        self.facts.has_branches = true;
        let (a, b) = (self.tasks(depth + 1), self.tasks(depth + 1));
        let mut fork = json!({"branches": [{"a": {"do": a}}, {"b": {"do": b}}]});
        if self.dice.one_in(3) {
            fork["compete"] = json!(true);
        }
        json!({ "fork": fork })
    }

    /// A block, its retries, its handler, and where that leads.
    fn block(&mut self, name: &str, depth: u32) -> Value {
        let mut body = self.tasks(depth + 1);
        let mut catch = json!({});
        let fails = self.dice.one_in(3);
        if let (true, Value::Array(list)) = (fails, &mut body) {
            list.push(json!({format!("{name}fail"): {"raise": {"error": error()}}}));
        }
        if self.dice.one_in(2) {
            let mut handler = self.tasks(depth + 2);
            // What was taken back is then asked for again, where a block around this one is tried again.
            if let (true, Value::Array(list)) = (self.dice.one_in(3), &mut handler) {
                list.push(json!({format!("{name}pass"): {"raise": {"error": error()}}}));
            }
            catch["do"] = handler;
        }
        if self.dice.one_in(3) {
            catch["retry"] = json!({"limit": {"attempt": {"count": 1 + self.dice.below(2)}}});
        }
        // One that always fails, or takes too long, would lead back to itself for ever.
        let text = body.to_string();
        if self.dice.one_in(5) && !text.contains("raise") && !text.contains("timeout") {
            catch["then"] = json!(name);
        }
        let mut block = json!({"try": body, "catch": catch});
        if self.dice.one_in(2) {
            self.facts.compensates.insert(name.to_owned());
            block["metadata"]["foldback"]["compensate"] = json!(true);
        }
        block
    }
}

fn error() -> Value {
    json!({"type": "runtime", "status": 500})
}
