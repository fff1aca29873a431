//! `projection list`, `show`, `rebuild` and `add`: the views over all workflows.
//!
//! The engine folds them; here is what a person says and sees. A projection that stands still is told
//! with the event at which it does, wherever it is shown.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldback::core::report::brief;
use foldback::core::text::shell_word;
use foldback::engine::projections::{self, Behind, Stand, Standing, State};
use foldback::engine::projector::{Order, unknown};
use foldback::engine::{Programs, SessionError};
use foldback::ows::load_projection;
use foldback::programs::Definitions;
use foldback::store::{ProjectionFailure, Store};
use serde_json::{Value, json};

use crate::args::{Cli, ProjectionCommand};
use crate::drive::{actor, refused};
use crate::error::{Error, Exit};
use crate::out::{Ink, Line, Out, say};
use crate::{definition, reading, table};

/// How long a reader waits for rows that are behind the log.
const WAIT: Duration = Duration::from_secs(1);

/// How often it is told how far a version is that is being made.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Characters of a row that a line shows.
const ROW_MAX: usize = 160;

/// `projection …`.
///
/// # Errors
/// There is no such projection, the file is wrong, or the store fails.
pub fn projection(cli: &Cli, command: &ProjectionCommand) -> Result<Exit, Error> {
    let store = match command {
        ProjectionCommand::Add { file } => {
            // What is wrong with the file comes first.
            let source = checked(file)?;
            let store = reading::open(cli)?;
            return ordered(cli, &store, Order::Add { source });
        }
        _ => reading::open(cli)?,
    };
    match command {
        ProjectionCommand::List => list(cli, &store),
        ProjectionCommand::Show { name } => show(cli, &store, name),
        ProjectionCommand::Rebuild { name } => ordered(cli, &store, Order::Rebuild { name: name.clone() }),
        ProjectionCommand::Add { .. } => Ok(Exit::Done),
    }
}

/// The projections that this program can make.
pub fn programs() -> Arc<dyn Programs> {
    Arc::new(Definitions::default())
}

/// Waits until the rows of a projection have reached the head of the log; says how far they are behind
/// where that takes too long.
///
/// # Errors
/// When the store fails.
pub fn up_to_date(cli: &Cli, store: &Arc<dyn Store>, name: &str) -> Result<(), Error> {
    let Err(Behind(lag)) = projections::catch_up(store, &programs(), &actor(), name, WAIT)? else {
        return Ok(());
    };
    let events = if lag == 1 { "event" } else { "events" };
    say(format!(
        "the rows of `{name}` are {lag} {events} behind the log; `{} projection list` says why",
        cli.again()
    ));
    Ok(())
}

fn list(cli: &Cli, store: &Arc<dyn Store>) -> Result<Exit, Error> {
    // No lag is told here: it is what the list itself says.
    let _behind = projections::catch_up(store, &programs(), &actor(), "workflows", WAIT)?;
    let standings = projections::standings(&**store)?;
    let mut out = Out::new();
    if cli.json {
        standings.iter().try_for_each(|standing| out.json(&as_json(standing)))?;
    } else if standings.is_empty() {
        say("no projections yet: they are begun when a process first owns the store");
    } else {
        let columns = [
            table::whole("name"),
            table::whole("version"),
            table::whole("state"),
            table::number("position"),
            table::number("lag"),
            table::number("rows"),
        ];
        let stands = standings.iter().flat_map(|standing| standing.live.iter().chain(&standing.next));
        table::print(&mut out, &columns, stands.map(as_cells).collect())?;
        out.flush()?;
        standings.iter().filter_map(|one| Some((one, one.failure()?))).for_each(|(one, failure)| {
            tell_failure(cli, &one.name, failure);
        });
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// A line of a version: the one that readers see, and below it the one that is to take its place.
fn as_cells(stand: &Stand) -> Vec<Line> {
    let state = match (&stand.row.failure, stand.row.is_live) {
        (Some(_), _) => State::Failed,
        (None, true) => State::Live,
        (None, false) => State::Rebuilding,
    };
    let ink = match state {
        State::Live => Ink::Green,
        State::Rebuilding => Ink::Yellow,
        State::Failed => Ink::Red,
    };
    vec![
        stand.row.name.as_str().into(),
        stand.row.version.as_str().into(),
        Line::new().ink(ink, state.as_str()),
        stand.position.to_string().into(),
        stand.lag.to_string().into(),
        stand.rows.to_string().into(),
    ]
}

fn as_json(standing: &Standing) -> Value {
    let stand = |stand: &Stand| {
        json!({
            "version": stand.row.version,
            "position": stand.position,
            "lag": stand.lag,
            "rows": stand.rows,
            "failure": stand.row.failure.as_ref().map(failure_json),
        })
    };
    let shown = standing.live.as_ref().or(standing.next.as_ref());
    json!({
        "name": standing.name,
        "version": shown.map(|stand| stand.row.version.as_str()),
        "state": standing.state().as_str(),
        "position": shown.map(|stand| stand.position),
        "lag": shown.map(|stand| stand.lag),
        "rows": shown.map(|stand| stand.rows),
        "failure": standing.failure().map(failure_json),
        "next": standing.next.as_ref().map(stand),
    })
}

fn failure_json(failure: &ProjectionFailure) -> Value {
    let event = failure.event.as_ref();
    json!({
        "message": failure.message,
        "workflow_id": event.map(|(workflow_id, _)| &**workflow_id),
        "version": event.map(|(_, version)| version),
    })
}

fn tell_failure(cli: &Cli, name: &str, failure: &ProjectionFailure) {
    let again = cli.again();
    match &failure.event {
        Some((workflow_id, version)) => {
            say(format!("`{name}` stands still at version {version} of {workflow_id}: {}", failure.message));
            let id = shell_word(workflow_id);
            say(format!(
                "hint: `{again} events {id} --to {version}` shows the event; mend the file and `{again} projection add` it"
            ));
        }
        None => {
            say(format!("`{name}` stands still: {}", failure.message));
            let name = shell_word(name);
            say(format!("hint: `{again} projection rebuild {name}` tries again with this build"));
        }
    }
}

fn find(cli: &Cli, store: &dyn Store, name: &str) -> Result<Standing, Error> {
    let mut all = projections::standings(store)?;
    match all.iter().position(|standing| standing.name == name) {
        Some(at) => Ok(all.swap_remove(at)),
        None if all.is_empty() => Err(Error::input(
            format!("no projection `{name}` in this store: it has none yet"),
            format!("`{} run FILE` begins the built-in ones", cli.again()),
        )),
        None => Err(refused(unknown(name, all.into_iter().map(|one| one.name).collect()))),
    }
}

fn show(cli: &Cli, store: &Arc<dyn Store>, name: &str) -> Result<Exit, Error> {
    let _begun = projections::catch_up(store, &programs(), &actor(), "workflows", WAIT)?;
    let standing = find(cli, &**store, name)?;
    match (&standing.live, standing.failure()) {
        (_, Some(failure)) => tell_failure(cli, name, failure),
        (None, None) => {
            say(format!("`{name}` is being made: `{} projection list` says how far", cli.again()))
        }
        (Some(_), None) => up_to_date(cli, store, name)?,
    }
    // A version that was never live has rows that nobody should see yet.
    let rows = if standing.live.is_some() { store.projection(name)? } else { Vec::new() };
    let mut out = Out::new();
    if cli.json {
        rows.iter().try_for_each(|(key, value)| out.json(&json!({"key": key, "value": value})))?;
    } else {
        let cells = |(key, value): &(String, Value)| vec![key.as_str().into(), brief(value, ROW_MAX).into()];
        table::print(&mut out, &[table::whole("key"), table::text("row")], rows.iter().map(cells).collect())?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// A file that describes a projection.
fn checked(file: &Path) -> Result<String, Error> {
    let source = definition::text_of(file).map_err(|e| {
        Error::input(format!("{}: {e}", file.display()), "docs/sql.md shows what a projection's file says")
    })?;
    let loaded = load_projection(&source).map_err(|problems| {
        definition::told(file, problems, "a projection has `name`, `events`, `key` and `reduce`")
    })?;
    for warning in loaded.warnings() {
        let hint = warning.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        say(format!(
            "{}:{}:{}: warning: {}{hint}",
            file.display(),
            warning.line,
            warning.column,
            warning.message
        ));
    }
    Ok(source)
}

/// Gives an order, stays until it is done, and says where the projection stands then.
fn ordered(cli: &Cli, store: &Arc<dyn Store>, order: Order) -> Result<Exit, Error> {
    let mut last = Instant::now();
    let mut tell = |way: Option<(u64, u64)>| {
        if last.elapsed() < TELL_EVERY {
            return;
        }
        last = Instant::now();
        say(match way {
            Some((position, head)) => format!("{position} of {head} events"),
            None => "the process that owns the store has not answered yet".to_owned(),
        });
    };
    let done =
        projections::order(store, &programs(), &actor(), order, &mut tell).map_err(|error| match error {
            SessionError::Store(error) => Error::from(error),
            SessionError::Refused(refusal) => refused(refusal),
        })?;
    let standing = find(cli, &**store, &done.name)?;
    let mut out = Out::new();
    if cli.json {
        out.json(&as_json(&standing))?;
    } else {
        let rows = standing.live.as_ref().map_or(0, |live| live.rows);
        let unchanged = if done.is_new { "" } else { ", as it was" };
        let (state, s) = (standing.state().as_str(), if rows == 1 { "" } else { "s" });
        out.line(format!("{} {}: {state}, {rows} row{s}{unchanged}", done.name, done.version).as_str())?;
    }
    out.flush()?;
    let Some(failure) = standing.failure() else { return Ok(Exit::Done) };
    tell_failure(cli, &done.name, failure);
    Ok(Exit::No)
}
