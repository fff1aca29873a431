//! `list`: which workflows there are, newest first.

use std::collections::{HashMap, HashSet};

use foldback::core::report::{Moment, dollars, nearest};
use foldback::core::{Changes, Status};
use foldback::engine::load::decode;
use foldback::store::{Filter, Store, WorkflowRow};
use serde_json::{Value, json};

use crate::args::{Cli, ListArgs};
use crate::error::{Error, Exit};
use crate::moment::with_seconds;
use crate::now::Now;
use crate::out::{Ink, Line, Out, say};
use crate::state::status_ink;
use crate::{projection, reading, table};

/// Every status that a workflow can have, in this chapter or a later one.
const STATUSES: [&str; 12] = [
    "running",
    "waiting",
    "paused",
    "completed",
    "failed",
    "cancelled",
    "compensating",
    "compensated",
    "stuck",
    "unknown",
    "parked",
    "quarantined",
];

/// Lists workflows.
///
/// # Errors
/// A status that is none, or the store fails.
pub fn list(cli: &Cli, args: &ListArgs) -> Result<Exit, Error> {
    if let Some(status) = &args.status
        && !STATUSES.contains(&status.as_str())
    {
        let hint = match nearest(status, STATUSES) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("a status is one of {}", STATUSES.join(", ")),
        };
        return Err(Error::input(format!("`{status}` is no status"), hint));
    }
    let store = reading::open(cli)?;
    let filter = Filter {
        status: args.status.clone(),
        definition: args.definition.clone(),
        limit: args.limit,
        ..Filter::default()
    };
    projection::up_to_date(cli, &store, "workflows")?;
    let rows = with_figures(&*store, &filter)?;
    let now = Now::of(&*store)?;
    let mut out = Out::new();
    if args.tree {
        tree(cli, &*store, &rows, now, &mut out)?;
    } else if cli.json {
        rows.iter().try_for_each(|row| out.json(&as_json(row, now)))?;
    } else if rows.is_empty() {
        let is_filtered = args.status.is_some() || args.definition.is_some();
        say(if is_filtered { "no workflow is like that" } else { "no workflows yet" });
    } else {
        let is_full = args.limit > 0 && rows.len() == args.limit;
        let columns = [
            table::whole("id"),
            table::text("definition"),
            table::whole("status"),
            table::number("version"),
            table::number("steps"),
            table::number("cost"),
            table::whole("started"),
            table::whole("wakes"),
        ];
        table::print(&mut out, &columns, rows.iter().map(|row| as_cells(row, now)).collect())?;
        if rows.iter().any(|(row, _)| now.interrupts(&row.status) || is_late(row, now)) {
            out.flush()?;
            say(format!("nobody runs what is interrupted or overdue; `{} resume` goes on", cli.again()));
        }
        if is_full {
            out.flush()?;
            say(format!("the newest {}; --limit 0 shows all", args.limit));
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// A workflow, and its row of the projection `workflows`.
type Listed = (WorkflowRow, Value);

/// Workflows, each with its row of the projection `workflows`: null where that has none yet.
///
/// # Errors
/// When the store fails.
pub fn with_figures(store: &dyn Store, filter: &Filter) -> Result<Vec<Listed>, Error> {
    let figures = |row: WorkflowRow| {
        let mut figures = store.projection_row(row.shard, "workflows", &row.workflow_id)?.unwrap_or_default();
        // What has not happened yet stands in no field.
        for name in ["steps", "failed_steps", "input_tokens", "output_tokens", "micro_usd"] {
            if figures.is_object() && figures[name].is_null() {
                figures[name] = 0.into();
            }
        }
        Ok((row, figures))
    };
    store.workflows(filter)?.into_iter().map(figures).collect()
}

/// The rows as a forest: each fork below what it branched from, oldest first, with what was changed in
/// it. A fork whose parent is not among the rows stands by itself.
fn tree(cli: &Cli, store: &dyn Store, rows: &[Listed], now: Now, out: &mut Out) -> Result<(), Error> {
    let known: HashSet<&str> = rows.iter().map(|(row, _)| &*row.workflow_id).collect();
    let mut below: HashMap<&str, Vec<&Listed>> = HashMap::new();
    let mut roots = Vec::new();
    for row in rows {
        match row.0.parent.as_ref().filter(|(parent, ..)| known.contains(parent.as_str())) {
            Some((parent, ..)) => below.entry(parent).or_default().push(row),
            None => roots.push(row),
        }
    }
    // Newest first at the top; below a parent in the order in which they branched. From the inside of
    // a stack, so that no lineage is too deep.
    let mut stack: Vec<(&Listed, String, &str, usize)> =
        roots.into_iter().rev().map(|row| (row, String::new(), "", 0)).collect();
    let mut cells = Vec::new();
    while let Some((row, indent, branch, depth)) = stack.pop() {
        let told = changes_of(store, &row.0)?;
        if cli.json {
            let mut line = as_json(row, now);
            line["depth"] = json!(depth);
            line["changes"] = json!(told);
            out.json(&line)?;
        } else {
            cells.push(as_branch(&row.0, &indent, branch, &told));
        }
        let under = match branch {
            "├─ " => format!("{indent}│  "),
            "└─ " => format!("{indent}   "),
            _ => indent,
        };
        let children = below.get(&*row.0.workflow_id).map_or(&[][..], Vec::as_slice);
        for (at, child) in children.iter().enumerate() {
            // The first of the rows is the newest: it is popped last.
            let branch = if at == 0 { "└─ " } else { "├─ " };
            stack.push((child, under.clone(), branch, depth + 1));
        }
    }
    if cells.is_empty() && !cli.json {
        say("no workflow is like that");
    }
    let columns = [
        table::whole("id"),
        table::whole("status"),
        table::number("version"),
        table::whole("cut"),
        table::text("changed"),
    ];
    if !cells.is_empty() {
        table::print(out, &columns, cells)?;
    }
    Ok(())
}

/// What was changed in a fork: its first own event says it.
fn changes_of(store: &dyn Store, row: &WorkflowRow) -> Result<Vec<String>, Error> {
    let Some((_, cut, _)) = &row.parent else { return Ok(Vec::new()) };
    let first = store.read(&row.workflow_id, *cut, 1)?;
    let event = first.first().and_then(|recorded| decode(recorded).ok());
    Ok(event.and_then(|event| event.fact.changes().map(Changes::told)).unwrap_or_default())
}

fn as_branch(row: &WorkflowRow, indent: &str, branch: &str, told: &[String]) -> Vec<Line> {
    let cut = row.parent.as_ref().map(|(_, cut, _)| format!("at {cut}")).unwrap_or_default();
    vec![
        Line::new().dim(format!("{indent}{branch}")).plain(&*row.workflow_id),
        Line::new().ink(status_ink(&row.status), &row.status),
        row.version.to_string().into(),
        Line::new().dim(cut),
        if told.is_empty() { Line::new().dim(&row.name) } else { told.join(", ").as_str().into() },
    ]
}

/// True for a workflow that should have woken, where nobody wakes it.
fn is_late(row: &WorkflowRow, now: Now) -> bool {
    now.is_unowned() && now.is_overdue(row)
}

fn as_json((row, figures): &Listed, now: Now) -> Value {
    let mut line = json!({
        "workflow_id": row.workflow_id,
        "definition": row.name,
        "status": row.status,
        "version": row.version,
        "started_at": Moment(row.started_at),
        "wake_at": row.wake_at.map(Moment),
        "definition_hash": row.definition.map(|hash| hash.to_hex()),
        "ended_at": figures["ended_at"],
        "steps": figures["steps"],
        "failed_steps": figures["failed_steps"],
        "tokens": {"input": figures["input_tokens"], "output": figures["output_tokens"]},
        "micro_usd": figures["micro_usd"],
        "parent": row.parent.as_ref().map(|(parent, cut, _)| json!({"workflow_id": parent, "cut": cut})),
    });
    let status = serde_json::from_value::<Status>(json!(row.status));
    // Nobody owns what has ended, and a stream without a definition has no status.
    if status.is_ok_and(|status| !status.is_ended()) {
        line["is_owned"] = json!(now.is_owned);
        line["is_overdue"] = json!(now.is_overdue(row));
    }
    line
}

fn as_cells((row, figures): &Listed, now: Now) -> Vec<Line> {
    let status = Line::new().ink(status_ink(&row.status), &row.status);
    let status = if now.interrupts(&row.status) { status.ink(Ink::Yellow, ", interrupted") } else { status };
    let wakes = Line::new().dim(row.wake_at.map(with_seconds).unwrap_or_default());
    let wakes = if is_late(row, now) { wakes.ink(Ink::Yellow, ", overdue") } else { wakes };
    let figure = |name: &str| figures[name].as_u64();
    vec![
        (&*row.workflow_id).into(),
        row.name.as_str().into(),
        status,
        row.version.to_string().into(),
        figure("steps").map(|steps| steps.to_string()).unwrap_or_default().as_str().into(),
        figure("micro_usd").filter(|&cost| cost > 0).map(dollars).unwrap_or_default().as_str().into(),
        Line::new().dim(with_seconds(row.started_at)),
        wakes,
    ]
}
