//! `export` and `import`: a workflow leaves for a file and comes back, byte for byte. The format
//! and its judgement are the facade's; here are files, words and exit codes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use foldback::core::text::shell_word;
use foldback::exchange::{self, Counts, ExchangeError, Exported, Imported};
use foldback::store::Store;
use serde_json::{Value, json};

use crate::args::{Cli, ExportArgs, ImportArgs};
use crate::error::{Error, Exit};
use crate::out::{JsonLines, Out, say};
use crate::reading;

/// Writes a workflow to standard output.
///
/// # Errors
/// No such workflow, something of it is missing, or the store or the output fails.
pub fn export(cli: &Cli, args: &ExportArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let row = reading::row(cli, &*store, &args.id)?;
    let mut out = JsonLines::new();
    match exchange::export(&*store, &row, &mut out) {
        Ok(Exported { counts, ancestors }) => {
            // Whoever gets the file gets their logs too, also what they did behind the cut.
            let behind = match ancestors.is_empty() {
                true => String::new(),
                false => format!("; before it all of {}, whose past it shares", ancestors.join(", ")),
            };
            let Counts { events, payloads } = counts;
            say(format!("exported {}: {events} events, {payloads} payloads{behind}", args.id));
            if out.has_escaped() {
                let (again, id) = (cli.again(), shell_word(&args.id));
                say(format!(
                    "note: what a terminal obeys is written as escapes; `{again} export {id} > FILE` writes the file"
                ));
            }
            Ok(Exit::Done)
        }
        Err(ExchangeError::Io(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(told(error, "standard output")),
    }
}

/// Reads a workflow from a file.
///
/// # Errors
/// The file is none, or is refused; another process owns the store; or the store fails.
pub fn import(cli: &Cli, args: &ImportArgs) -> Result<Exit, Error> {
    let imported = read_into(&args.file, || Ok(foldback::store::open(&cli.store_url())?))?.1;
    for ancestor in &imported.ancestors {
        told_of(ancestor);
    }
    told_of(&imported);
    if cli.json {
        let mut out = Out::new();
        let mut document = as_json(&imported);
        document["ancestors"] = imported.ancestors.iter().map(as_json).collect();
        out.json(&document)?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

fn told_of(imported: &Imported) {
    let verb = if imported.is_known { "already here" } else { "imported" };
    let Imported { workflow_id: id, status, counts, unchecked, .. } = imported;
    let (status, events, payloads) = (status.as_str(), counts.events, counts.payloads);
    let unchecked = match unchecked {
        0 => String::new(),
        1 => "; 1 request not checkable: erased".to_owned(),
        n => format!("; {n} requests not checkable: erased"),
    };
    say(format!("{verb}: {id} ({status}), {events} events, {payloads} payloads{unchecked}"));
}

fn as_json(imported: &Imported) -> Value {
    json!({
        "workflow_id": imported.workflow_id,
        "status": imported.status.as_str(),
        "version": imported.version,
        "events": imported.counts.events,
        "payloads": imported.counts.payloads,
        "not_checkable": imported.unchecked,
        "was_there": imported.is_known,
    })
}

/// Reads a workflow from a file into a store, which is opened when the file is there.
///
/// # Errors
/// As [`import`].
pub fn read_into(
    file: &Path,
    store: impl FnOnce() -> Result<Arc<dyn Store>, Error>,
) -> Result<(Arc<dyn Store>, Imported), Error> {
    let mut opened = open(file)?;
    let store = store()?;
    let imported = exchange::import(&*store, &mut *opened);
    let imported = imported.map_err(|error| told(error, &file.display().to_string()))?;
    Ok((store, imported))
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, Error> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file).map_err(|error| {
        Error::input(
            format!("{} cannot be read: {error}", file.display()),
            "name a file that `foldback export` wrote",
        )
    })?;
    Ok(Box::new(BufReader::new(opened)))
}

fn told(error: ExchangeError, name: &str) -> Error {
    match error {
        ExchangeError::Refused { message, hint } => Error::input(message, hint),
        ExchangeError::Io(error) if error.kind() == ErrorKind::IsADirectory => {
            Error::input(format!("{name} is a directory"), "name a file that `foldback export` wrote")
        }
        ExchangeError::Io(error) => Error::machine(format!("{name}: {error}")),
        ExchangeError::Store(error) => error.into(),
    }
}
