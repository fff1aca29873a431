//! Conditions that compare what the document redacts: they see what stands in its place.

use foldback_core::Redaction;

use super::{Told, each_task};
use crate::jq::{Filter, StaticPath, Step};
use crate::program::{Body, Definition, Task};

/// A condition of a task, and its place below the task.
type Condition<'d> = (&'d Filter, String);

pub(super) fn lint(definition: &Definition, told: &mut Told<'_>) {
    if definition.redaction.is_empty() {
        return;
    }
    each_task(&definition.tasks, &mut |task| {
        for (filter, place) in conditions(task) {
            let found =
                filter.compared().find_map(|path| Some((path, replacement(&definition.redaction, path)?)));
            let Some((path, replacement)) = found else { continue };
            told.at(
                task,
                &[&place],
                format!(
                    "`{}` is redacted before it comes into the log, and this condition compares what stands in its \
                     place: {replacement:?}",
                    path.text()
                ),
                "compare what is not redacted, or have the step that knows the value answer with the comparison",
            );
        }
    });
}

fn replacement<'r>(redaction: &'r Redaction, path: &StaticPath) -> Option<&'r str> {
    // `$steps.NAME` and `$workflow.input` name where a value came from, not a place in it.
    let named = usize::from(matches!(path.base.as_deref(), Some("$steps" | "$workflow")));
    let members: Vec<Option<&str>> = path
        .steps
        .iter()
        .skip(named)
        .map(|step| match step {
            Step::Member(name) => Some(name.as_str()),
            Step::Item(_) => None,
        })
        .collect();
    redaction.replacement_at(&members)
}

fn conditions<'d>(task: &'d Task) -> Vec<Condition<'d>> {
    let mut conditions: Vec<Condition<'d>> = Vec::new();
    let mut add = |filter: &'d Option<Filter>, place: String| {
        conditions.extend(filter.as_ref().map(|filter| (filter, place)));
    };
    add(&task.condition, "/if".into());
    match &task.body {
        Body::For(body) => add(&body.while_, "/while".into()),
        Body::Switch(cases) => {
            for (i, case) in cases.iter().enumerate() {
                let name = case.name.replace('~', "~0").replace('/', "~1");
                add(&case.when, format!("/switch/{i}/{name}/when"));
            }
        }
        Body::Try(block) => {
            add(&block.when, "/catch/when".into());
            add(&block.except_when, "/catch/exceptWhen".into());
            if let Some(retry) = &block.retry {
                add(&retry.when, "/catch/retry/when".into());
                add(&retry.except_when, "/catch/retry/exceptWhen".into());
            }
        }
        Body::Do(_)
        | Body::Fork(_)
        | Body::Set(_)
        | Body::Raise(_)
        | Body::Wait(_)
        | Body::Emit(_)
        | Body::Listen(_)
        | Body::Step(_) => {}
    }
    conditions
}
