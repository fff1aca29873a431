//! Members that no task gives: the data that flows, followed through all tasks as far as its shape
//! is known.
//!
//! Where ways meet, a member counts as given when one of them gives it; what a step answers, and
//! what a workflow is given, may be anything unless a schema closes it. So what is told is always
//! null when it runs (or fails), on every way.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldback_core::report::nearest;

use super::shape::{self, Maker, Miss, Object, Shape};
use super::ways::Ways;
use super::{Told, each_task};
use crate::jq::{Filter, StaticPath, Step};
use crate::program::{Body, Definition, Part, StepTask, Task, TaskList};
use crate::template::{Template, Uri, UriPart};
use crate::tree::Node;

/// How many tasks are looked at, each visit counted: loops inside loops are gone round again. Of a longer
/// definition each task is looked at so often.
const WORK_MAX: u32 = 20_000;
const VISITS_MAX: u32 = 8;

/// How often a list is gone round until shapes settle; then nothing is known of it.
const ROUNDS_MAX: usize = 6;

pub(super) fn lint(definition: &Definition, told: &mut Told<'_>) {
    let mut tasks = 0_u32;
    each_task(&definition.tasks, &mut |_| tasks = tasks.saturating_add(1));
    let work = WORK_MAX.max(tasks.saturating_mul(VISITS_MAX));
    let mut look = Look {
        told,
        work,
        context: Shape::Null,
        exported: Shape::Null,
        ended: Shape::Null,
        steps: Vec::new(),
        variables: Vec::new(),
    };
    // The context is what all exports together may give, and an export may be made of the context.
    let mut is_settled = false;
    for _ in 0..ROUNDS_MAX {
        look.exported = Shape::Null;
        look.workflow(definition, false);
        is_settled = look.exported == look.context;
        if is_settled {
            break;
        }
        look.context = look.exported.clone();
    }
    if !is_settled {
        look.context = Shape::Unknown;
    }
    if look.work > 0 {
        look.work = work;
        look.workflow(definition, true);
    }
}

struct Look<'l, 't> {
    told: &'l mut Told<'t>,
    work: u32,
    /// What `$context` may be; null while nothing exports.
    context: Shape,
    exported: Shape,
    /// What the workflow may end with from inside a list.
    ended: Shape,
    /// Outputs by name, of the lists around, the innermost last.
    steps: Vec<BTreeMap<String, Shape>>,
    variables: Vec<(String, Shape)>,
}

/// What an expression of a task sees beside what all see.
struct Sight<'s> {
    dot: &'s Shape,
    input: &'s Shape,
    output: &'s Shape,
}

impl<'t> Look<'_, 't> {
    fn workflow(&mut self, definition: &Definition, tells: bool) {
        let given =
            definition.input_schema.as_ref().map_or(Shape::Unknown, |s| shape::of_schema(s.document()));
        let root: &'t Node = self.told.tree;
        let sight = Sight { dot: &given, input: &given, output: &Shape::Null };
        let input = match &definition.input {
            Some(template) => self.shaped(template, root.find("/input/from"), &sight, tells),
            None => given.clone(),
        };
        let end = self.list(&definition.tasks, input.clone(), tells);
        let end = end.or(std::mem::replace(&mut self.ended, Shape::Null));
        if let Some(template) = &definition.output {
            let sight = Sight { dot: &end, input: &input, output: &end };
            self.shaped(template, root.find("/output/as"), &sight, tells);
        }
    }

    /// A list of tasks: what may come out at its end.
    fn list(&mut self, list: &TaskList, input: Shape, tells: bool) -> Shape {
        let mut inputs: Vec<Option<Shape>> = vec![None; list.tasks.len()];
        inputs[0] = Some(input);
        self.steps.push(list.tasks.iter().map(|task| (task.name.clone(), Shape::Unknown)).collect());
        let ways = Ways::of(list);
        let pass_on = |inputs: &mut Vec<Option<Shape>>, index: usize, output: &Shape| {
            for to in &ways.after[index] {
                let known = inputs[*to].take();
                inputs[*to] = Some(known.map_or(output.clone(), |known| known.or(output.clone())));
            }
        };
        // Where all ways lead on, each task's input is known when it is come to.
        let leads_on = ways.leads_on_only();
        for round in 0.. {
            if leads_on {
                break;
            }
            let before = inputs.clone();
            for index in 0..inputs.len() {
                let Some(data) = inputs[index].clone() else { continue };
                let output = self.task(&list.tasks[index], data, false);
                pass_on(&mut inputs, index, &output);
            }
            if inputs == before {
                break;
            }
            if round == ROUNDS_MAX {
                inputs.iter_mut().flatten().for_each(|input| *input = Shape::Unknown);
                break;
            }
        }
        let mut result = Shape::Null;
        for (index, task) in list.tasks.iter().enumerate() {
            let Some(data) = inputs[index].take() else { continue };
            let output = self.task(task, data, tells);
            if leads_on {
                pass_on(&mut inputs, index, &output);
            }
            if ways.leaves[index] {
                self.ended = std::mem::replace(&mut self.ended, Shape::Null).or(output.clone());
                result = result.or(output);
            }
        }
        self.steps.pop();
        result
    }

    /// A task: what it gives, or what came where it may be skipped.
    fn task(&mut self, task: &Task, data: Shape, tells: bool) -> Shape {
        if self.work == 0 {
            return Shape::Unknown;
        }
        self.work -= 1;
        let own: Option<&'t Node> = self.told.tree.find(&task.pointer);
        let node = |place: &str| own.and_then(|own| own.find(place)).or(own);
        let before = Sight { dot: &data, input: &data, output: &Shape::Null };
        if let (Some(condition), true) = (&task.condition, tells) {
            self.check(condition, node("/if"), &before);
        }
        let input = match &task.input {
            Some(template) => self.shaped(template, node("/input/from"), &before, tells),
            None => data.clone(),
        };
        let raw = self.body(task, &input, own, tells);
        let output = match &task.output {
            Some(template) => {
                let sight = Sight { dot: &raw, input: &input, output: &raw };
                self.shaped(template, node("/output/as"), &sight, tells)
            }
            None => raw,
        };
        if let Some(template) = &task.export {
            let sight = Sight { dot: &output, input: &input, output: &output };
            let context = self.shaped(template, node("/export/as"), &sight, tells);
            self.exported = std::mem::replace(&mut self.exported, Shape::Null).or(context);
        }
        if let Some(known) = self.steps.last_mut().and_then(|steps| steps.get_mut(&task.name)) {
            *known = output.clone();
        }
        if task.condition.is_some() { output.or(data) } else { output }
    }

    fn body(&mut self, task: &Task, input: &Shape, own: Option<&'t Node>, tells: bool) -> Shape {
        let node = |place: &str| own.and_then(|own| own.find(place)).or(own);
        let sight = Sight { dot: input, input, output: &Shape::Null };
        match &task.body {
            Body::Set(template) => match self.shaped(template, node("/set"), &sight, tells) {
                Shape::Object(Object { members, .. }) => {
                    let maker = Maker { task: task.pointer.clone(), before: input.names() };
                    Shape::Object(Object { members, maker: Some(maker) })
                }
                other => other,
            },
            Body::Switch(cases) => {
                for (i, case) in cases.iter().enumerate() {
                    if let (Some(when), true) = (&case.when, tells) {
                        self.check(when, node(&format!("/switch/{i}/{}/when", case.name)), &sight);
                    }
                }
                input.clone()
            }
            Body::Raise(_) | Body::Wait(_) => input.clone(),
            Body::Emit(event) => {
                self.shaped(event, node("/emit/event/with"), &sight, tells);
                Shape::Unknown
            }
            Body::Listen(_) => Shape::Unknown,
            Body::Step(step) => self.step(step, own, &sight, tells),
            Body::Do(list) => self.list(list, input.clone(), tells),
            Body::Fork(fork) => {
                // Branches stand alone: what one gives, another does not see.
                for branch in &fork.branches.tasks {
                    let alone = [(branch.name.clone(), Shape::Unknown)];
                    self.steps.push(alone.into_iter().collect());
                    self.task(branch, input.clone(), tells);
                    self.steps.pop();
                }
                Shape::Unknown
            }
            Body::For(body) => {
                let items = self.shaped(&body.items, node("/for/in"), &sight, tells);
                if let (Shape::Last(_, of), true) = (&items, tells) {
                    self.taken_for_a_list(of, node("/for/in"));
                }
                self.variables.push((body.each.clone(), Shape::Unknown));
                self.variables.push((body.at.clone(), Shape::Other));
                let mut data = input.clone();
                let mut last = Shape::Unknown;
                for round in 0.. {
                    last = self.list(
                        &body.body,
                        if body.collects { input.clone() } else { data.clone() },
                        false,
                    );
                    let next = data.clone().or(last.clone());
                    if next == data {
                        break;
                    }
                    data = if round == ROUNDS_MAX { Shape::Unknown } else { next };
                }
                if tells {
                    self.list(&body.body, if body.collects { input.clone() } else { data.clone() }, true);
                    if let Some(condition) = &body.while_ {
                        let sight = Sight { dot: &data, input: &data, output: &Shape::Null };
                        self.check(condition, node("/while"), &sight);
                    }
                }
                self.variables.truncate(self.variables.len() - 2);
                let is_one = match &last {
                    Shape::Object(_) | Shape::Text => true,
                    Shape::Unknown => ends_with_steps(&body.body),
                    Shape::Null | Shape::Other | Shape::Last(..) => false,
                };
                match (body.collects, is_one) {
                    (true, _) => Shape::Other,
                    (false, true) => Shape::Last(Box::new(data), Arc::from(task.name.as_str())),
                    (false, false) => data,
                }
            }
            Body::Try(block) => {
                let done = self.list(&block.body, input.clone(), tells);
                let error = ["type", "status", "title", "detail", "instance"];
                let error = error.map(|name| (name.to_owned(), Shape::Unknown));
                self.variables.push((block.as_.clone(), Shape::object(error.into_iter().collect())));
                let handled = match &block.handler {
                    Some(handler) => self.list(handler, input.clone(), tells),
                    None => input.clone(),
                };
                self.variables.pop();
                done.or(handled)
            }
        }
    }

    fn step(&mut self, step: &StepTask, own: Option<&'t Node>, sight: &Sight<'_>, tells: bool) -> Shape {
        if let Some(arguments) = &step.arguments {
            self.shaped(arguments, own.and_then(|own| own.find("/with")).or(own), sight, tells);
        } else if tells {
            for (name, part) in &step.parts {
                let places = match *name {
                    "uri" => ["/with/endpoint/uri".to_owned(), "/with/endpoint".into(), String::new()],
                    name => {
                        [format!("/with/{name}"), format!("/run/shell/{name}"), format!("/run/script/{name}")]
                    }
                };
                let node = places.iter().find_map(|place| own?.find(place)).or(own);
                match part {
                    Part::Value(template) | Part::Uri(Uri::Whole(template)) => {
                        self.template(template, node, sight);
                    }
                    Part::Uri(Uri::Parts(parts)) => {
                        for part in parts {
                            if let UriPart::Name(name) = part {
                                let path = StaticPath { base: None, steps: vec![Step::Member(name.clone())] };
                                self.path(&path, node, sight);
                            }
                        }
                    }
                    Part::Input => {}
                }
            }
        }
        let constant = |wanted: &str| {
            step.parts.iter().find(|(name, _)| *name == wanted).map(|(_, part)| match part {
                Part::Value(template) => template.as_constant(),
                Part::Uri(_) | Part::Input => None,
            })
        };
        match (step.kind, constant("schema"), constant("output").flatten().and_then(|v| v.as_str())) {
            ("llm", None, _) => Shape::Text,
            ("llm", Some(Some(schema)), _) => shape::of_schema(schema),
            ("http", _, Some("raw")) => Shape::Text,
            ("http", _, Some("response")) => {
                let members = ["request", "headers", "statusCode", "content"];
                Shape::object(members.map(|name| (name.to_owned(), Shape::Unknown)).into_iter().collect())
            }
            _ => Shape::Unknown,
        }
    }

    /// A template's shape, its expressions checked on the way.
    fn shaped(&mut self, template: &Template, at: Option<&'t Node>, sight: &Sight<'_>, tells: bool) -> Shape {
        if tells {
            self.template(template, at, sight);
        }
        shape::of_template(template, &|path| self.see(path, sight))
    }

    fn template(&mut self, template: &Template, at: Option<&'t Node>, sight: &Sight<'_>) {
        match template {
            Template::Constant(_) | Template::Secret(_) => {}
            Template::Expression(filter) => self.check(filter, at, sight),
            Template::Object(members) => members.iter().for_each(|(name, member)| {
                self.template(member, at.and_then(|at| at.get(name)).or(at), sight);
            }),
            Template::List(items) => items.iter().enumerate().for_each(|(i, item)| {
                let inside = at.and_then(|at| at.as_list()?.get(i));
                self.template(item, inside.or(at), sight);
            }),
        }
    }

    fn check(&mut self, filter: &Filter, at: Option<&'t Node>, sight: &Sight<'_>) {
        filter.needs.iter().for_each(|path| self.path(path, at, sight));
        for path in &filter.lists {
            let from = self.see(path, sight);
            if let Ok(Shape::Last(_, of)) = shape::follow(&from, &path.steps) {
                self.taken_for_a_list(of, at);
            }
        }
    }

    /// A loop whose iterations each give something, and whose output is that of the last.
    fn taken_for_a_list(&mut self, of: &str, at: Option<&'t Node>) {
        let message =
            format!("the output of `{of}` is that of its last iteration, and is taken for a list here");
        let hint = format!(
            "metadata: {{ foldback: {{ collect: true }} }} at `{of}` gives the list of the outputs of all iterations"
        );
        self.told.warn(at.unwrap_or(self.told.tree), message, hint);
    }

    /// What a path begins from: of `$steps`, that which it names.
    fn see(&self, path: &StaticPath, sight: &Sight<'_>) -> Shape {
        match path.base.as_deref() {
            None => sight.dot.clone(),
            Some("$input") => sight.input.clone(),
            Some("$output") => sight.output.clone(),
            Some("$context") => self.context.clone(),
            Some("$steps") => {
                let named = path.first_member();
                let known = named.and_then(|name| self.steps.iter().rev().find_map(|list| list.get(name)));
                if let (Some(name), Some(shape)) = (named, known) {
                    return Shape::object([(name.to_owned(), shape.clone())].into_iter().collect());
                }
                let all = self.steps.iter().flatten().take(shape::MEMBERS_MAX + 1);
                Shape::object(all.map(|(name, shape)| (name.clone(), shape.clone())).collect())
            }
            Some("$workflow") => {
                let members = ["id", "definition", "input", "startedAt"];
                Shape::object(members.map(|name| (name.to_owned(), Shape::Unknown)).into_iter().collect())
            }
            Some(name) => {
                let bound = self.variables.iter().rev().find(|(known, _)| known == name);
                bound.map_or(Shape::Unknown, |(_, shape)| shape.clone())
            }
        }
    }

    fn path(&mut self, path: &StaticPath, at: Option<&'t Node>, sight: &Sight<'_>) {
        let at = at.unwrap_or(self.told.tree);
        let base = path.base.as_deref();
        let from = self.see(path, sight);
        if (base, &from) == (Some("$context"), &Shape::Null) {
            let message = format!("`{}` is always null: no task exports anything", path.text());
            return self.told.warn(
                at,
                message,
                "write export: { as: … } at the task that gives it, or read $steps.NAME",
            );
        }
        let Err(Miss { depth, name, there }) = shape::follow(&from, &path.steps) else {
            return;
        };
        if let (Shape::Object(Object { maker: Some(maker), .. }), 0, None | Some("$input")) =
            (there, depth, base)
            && maker.before.as_ref().is_none_or(|before| before.contains(&name))
        {
            return self.dropped(maker, &name, at);
        }
        let (why, hint) = match there {
            Shape::Text => (
                "fails here: what stands before it is a text, which has no members".to_owned(),
                "a model call gives a text unless its `with` has a `schema`; output.as can make an object of it".to_owned(),
            ),
            there => {
                let names = there.names().unwrap_or_default();
                let hint = match nearest(&name, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there is: {}", names.join(", ")),
                };
                (format!("is always null here: nothing before it gives `{name}`"), hint)
            }
        };
        self.told.warn(at, format!("`{}` {why}", path.text()), hint);
    }

    /// A `set` that replaced what a later task needs.
    fn dropped(&mut self, maker: &Maker, name: &str, at: &Node) {
        let tree: &'t Node = self.told.tree;
        let Some(task) = tree.find(&maker.task) else {
            return;
        };
        let place = task.get("set").unwrap_or(task);
        let set = maker.task.rsplit('/').next().unwrap_or_default();
        let message =
            format!("this `set` replaces the data, and `{name}` is gone: line {} needs it", at.line);
        let hint = format!(
            "keep what comes in: set: '${{ . + {{ … }} }}'; or add `{name}` to `{set}`; or read it where it was given, \
             as in $workflow.input.{name}"
        );
        self.told.warn(place, message, hint);
    }
}

/// Whether a list of tasks ends with what a step answers, and no answer of it is a list.
fn ends_with_steps(list: &TaskList) -> bool {
    let ways = Ways::of(list);
    let ends = list.tasks.iter().zip(&ways.leaves).filter(|(_, leaves)| **leaves);
    let mut is_any = false;
    ends.map(|(task, _)| task).all(|task| {
        is_any = true;
        let schema = match &task.body {
            Body::Step(step) => step.parts.iter().find_map(|(name, part)| match part {
                Part::Value(template) if *name == "schema" => template.as_constant(),
                Part::Value(_) | Part::Uri(_) | Part::Input => None,
            }),
            _ => return false,
        };
        task.output.is_none()
            && schema.is_none_or(|schema| schema.get("type").is_none_or(|kind| kind != "array"))
    }) && is_any
}
