//! `erase`: a value of a workflow goes, and a tombstone says who took it, when and why. The log stays as
//! it is and its chain holds. It says what still holds the value; it never rewrites an event.

use foldback::core::Status;
use foldback::core::text::shell_word;
use foldback::erasure::{EraseError, Plan, Target, erase as carry_out, plan};
use foldback::store::Store;
use serde_json::json;

use crate::args::{Cli, EraseArgs};
use crate::drive::actor;
use crate::error::{Error, Exit};
use crate::out::{Ink, Line, Out, say};
use crate::prune;
use crate::reading;

/// Erases, or says what would be erased.
///
/// # Errors
/// No such workflow or key, a value that stands inline; another process owns the store; it fails.
pub fn erase(cli: &Cli, args: &EraseArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let row = reading::row(cli, &*store, &args.id)?;
    // Planned under the lock: what is planned is what happens.
    let owned = match args.dry_run {
        true => None,
        false => Some(prune::own(&*store, "erase")?),
    };
    let plan = plan(&*store, &row, &Target::from(&*args.target)).map_err(refused)?;
    if let Some(owned) = &owned {
        carry_out(&*store, &plan, owned, prune::now(), &actor(), &args.reason).map_err(refused)?;
    }
    print(cli, args, &*store, &plan)?;
    let status = serde_json::from_value::<Status>(json!(row.status));
    if !cli.json && status.is_ok_and(|status| !status.is_ended()) {
        let (id, status) = (&args.id, &row.status);
        say(format!("`{id}` is {status}: where it needs the value it neither goes on nor is taken back"));
        let (again, id) = (cli.again(), shell_word(id));
        say(format!("hint: `{again} cancel {id}` before, if what it did is to be taken back"));
    }
    Ok(Exit::Done)
}

fn refused(error: EraseError) -> Error {
    match error {
        EraseError::Refused { message, hint } => Error::input(message, hint),
        EraseError::Store(error) => error.into(),
    }
}

fn print(cli: &Cli, args: &EraseArgs, store: &dyn Store, plan: &Plan) -> Result<(), Error> {
    let mut out = Out::new();
    if cli.json {
        let (id, key) = (&args.id, &args.target);
        out.json(&json!({"workflow_id": id, "key": key, "dry_run": args.dry_run, "plan": plan}))?;
        return out.flush();
    }
    for value in &plan.values {
        let mut line = Line::new().ink(Ink::Bold, &value.payload.to_hex()[..12]);
        line = line.plain(format!("  {} bytes", value.bytes));
        if value.is_erased
            && let Some(tombstone) = store.tombstone(0, &value.payload)?
        {
            line = line.dim(format!("  was erased before: {}", reading::erased(&tombstone)));
        }
        out.line(line)?;
        for place in &value.places {
            out.line(Line::from("  ").plain(place.to_string()))?;
        }
        for other in &value.elsewhere {
            let text = format!("  also of {}, {} events: gone there too", other.workflow_id, other.events);
            out.line(Line::new().ink(Ink::Yellow, text))?;
        }
    }
    out.flush()?;
    for place in &plan.inline {
        say(format!("stays: {place} stands inline in the log"));
    }
    for place in &plan.remains {
        say(format!("stays: {place} holds texts of it"));
    }
    let values = plan.values.iter().filter(|value| !value.is_erased).count();
    match args.dry_run {
        true => say(format!("{values} would be erased; without --dry-run they are")),
        false => say(format!("{values} erased")),
    }
    Ok(())
}
