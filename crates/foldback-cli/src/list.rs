//! `list`: which workflows there are, newest first.

use foldback::core::report::{Moment, dollars, nearest};
use foldback::store::{Filter, Store, WorkflowRow};
use serde_json::{Value, json};

use crate::args::{Cli, ListArgs};
use crate::error::{Error, Exit};
use crate::moment::with_seconds;
use crate::out::{Line, Out, say};
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
    let mut out = Out::new();
    if cli.json {
        rows.iter().try_for_each(|row| out.json(&as_json(row)))?;
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
        table::print(&mut out, &columns, rows.iter().map(as_cells).collect())?;
        if is_full {
            out.flush()?;
            say(format!("the newest {}; --limit 0 shows all", args.limit));
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// Workflows, each with its row of the projection `workflows`: null where that has none yet.
///
/// # Errors
/// When the store fails.
pub fn with_figures(store: &dyn Store, filter: &Filter) -> Result<Vec<(WorkflowRow, Value)>, Error> {
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

fn as_json((row, figures): &(WorkflowRow, Value)) -> Value {
    json!({
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
    })
}

fn as_cells((row, figures): &(WorkflowRow, Value)) -> Vec<Line> {
    let figure = |name: &str| figures[name].as_u64();
    vec![
        (&*row.workflow_id).into(),
        row.name.as_str().into(),
        Line::new().ink(status_ink(&row.status), &row.status),
        row.version.to_string().into(),
        figure("steps").map(|steps| steps.to_string()).unwrap_or_default().as_str().into(),
        figure("micro_usd").filter(|&cost| cost > 0).map(dollars).unwrap_or_default().as_str().into(),
        Line::new().dim(with_seconds(row.started_at)),
        Line::new().dim(row.wake_at.map(with_seconds).unwrap_or_default()),
    ]
}
