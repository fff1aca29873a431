//! `export` and `import`: a workflow leaves for a file and comes back, byte for byte. The format
//! and its judgement are the facade's; here are files, words and exit codes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use foldback::exchange::{self, ExchangeError, Imported};
use foldback::store::Store;
use serde_json::json;

use crate::args::{Cli, ExportArgs, ImportArgs};
use crate::error::{Error, Exit};
use crate::out::{Out, say};
use crate::reading;

/// Writes a workflow to standard output.
///
/// # Errors
/// No such workflow, something of it is missing, or the store or the output fails.
pub fn export(cli: &Cli, args: &ExportArgs) -> Result<Exit, Error> {
    let store = reading::open(cli)?;
    let row = reading::row(cli, &*store, &args.id)?;
    // Not through `Out`: a file is written as it is, whatever a terminal would make of it.
    let mut out = BufWriter::new(io::stdout().lock());
    match exchange::export(&*store, &row, &mut out) {
        Ok(counts) => {
            say(format!("exported {}: {} events, {} payloads", args.id, counts.events, counts.payloads));
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
    let (id, status, counts) = (&imported.workflow_id, imported.status.as_str(), imported.counts);
    let verb = if imported.is_known { "already here" } else { "imported" };
    say(format!("{verb}: {id} ({status}), {} events, {} payloads", counts.events, counts.payloads));
    if cli.json {
        let mut out = Out::new();
        out.json(&json!({
            "workflow_id": id,
            "status": status,
            "version": counts.events,
            "events": counts.events,
            "payloads": counts.payloads,
        }))?;
        out.flush()?;
    }
    Ok(Exit::Done)
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
