//! From a file to a loaded definition, with every problem at its line and column.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use foldback::connectors::file_inside;
use foldback::core::text::shell_word;
use foldback::core::{WorkflowState, limits};
use foldback::engine::Start;
use foldback::ows::{Loaded, Problem};
use foldback::programs::start_document;
use serde_json::Value;

use crate::args::Cli;
use crate::drive::load_config;
use crate::error::Error;

/// Hints that are told of one definition: more are `check`'s to tell.
const HINTS_MAX: usize = 3;

/// Reads a definition and the files it names, which lie in its folder or where the configuration allows.
///
/// # Errors
/// The file cannot be read, or `Err` inside: what is wrong with it.
pub fn read(cli: &Cli, file: &Path) -> Result<Result<Loaded, Vec<Problem>>, Error> {
    Ok(parse(cli, file, &source(file)?))
}

/// The text of a definition.
///
/// # Errors
/// The file cannot be read.
pub fn source(file: &Path) -> Result<String, Error> {
    text_of(file).map_err(|e| {
        Error::input(format!("{}: {e}", file.display()), "`foldback init` writes a first pipeline")
    })
}

/// Reads the text of a definition, and the files it names.
pub fn parse(cli: &Cli, file: &Path, source: &str) -> Result<Loaded, Vec<Problem>> {
    // What comes from a pipe lies nowhere: it names files of the folder that we are in.
    let folder = if file.is_file() { file.parent() } else { None };
    let folder = folder.filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    foldback::ows::load(source, &|name| text_inside(cli, folder, name))
}

/// A definition that can be run.
///
/// # Errors
/// As [`read`], with each problem as `FILE:LINE:COLUMN`.
pub fn load(cli: &Cli, file: &Path) -> Result<Loaded, Error> {
    read(cli, file)?.map_err(|problems| {
        let file_shown = shell_word(file.display().to_string());
        let more = format!("`foldback check {file_shown}` shows each line, with every hint");
        told(file, problems, &more)
    })
}

/// The command that starts a definition; the log keeps the place of its file.
pub fn start(file: &Path, loaded: &Loaded, id: &str, input: Value) -> Start {
    let place = std::fs::canonicalize(file).ok().filter(|place| place.is_file());
    let file = place.and_then(|place| place.to_str().map(str::to_owned));
    Start { file, ..start_document(loaded, id, input) }
}

/// The file of a workflow that is no longer what the workflow follows: its place as a person here would
/// write it. `None` where it is as it was, is gone, or is not known. The log may come from a stranger, and name
/// anything: only a regular file is opened.
pub fn changed_file(cli: &Cli, state: &WorkflowState) -> Option<String> {
    let place = Path::new(state.file.as_deref()?);
    if !is_regular(place).ok()? {
        return None;
    }
    let is_as_it_was = match read(cli, place) {
        Ok(Ok(loaded)) => loaded.hash == state.definition,
        Ok(Err(_)) => false,
        Err(_) => return None,
    };
    let here = std::env::current_dir().ok().and_then(|here| std::fs::canonicalize(here).ok());
    let shown = here.and_then(|here| place.strip_prefix(here).ok()).unwrap_or(place);
    (!is_as_it_was).then(|| shown.display().to_string())
}

/// Problems of a file as one error, each with its place. `otherwise` is the hint where none has one, and the
/// last where there are more than are shown.
pub fn told(file: &Path, problems: Vec<Problem>, otherwise: &str) -> Error {
    let lines = problems.iter().map(|p| format!("{}:{}:{}: {}", file.display(), p.line, p.column, p.message));
    let message = lines.collect::<Vec<_>>().join("\n");
    let mut hints: Vec<String> = Vec::new();
    for hint in problems.into_iter().filter_map(|problem| problem.hint) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    let is_cut = hints.len() > HINTS_MAX;
    hints.truncate(HINTS_MAX);
    if hints.is_empty() || is_cut {
        hints.push(otherwise.to_owned());
    }
    Error { code: 2, message, hint: Some(hints.join("\n")) }
}

/// The text of a file that a person names, whatever it is: a file, a pipe, a device. Only its length has a
/// bound.
///
/// # Errors
/// It cannot be read, in words.
pub fn text_of(path: &Path) -> Result<String, String> {
    let most = limits::DEFINITION_MAX_BYTES;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|e| e.to_string())?;
    if bytes.len() > most {
        return Err(format!("is larger than {} MiB", most / (1024 * 1024)));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

/// The text of a file that a definition names. A definition may come from a stranger, so what it names is a
/// regular file inside its own folder, links followed, or in a folder that the configuration allows.
fn text_inside(cli: &Cli, folder: &Path, name: &str) -> Result<String, String> {
    let also = || {
        let config = load_config(cli).map_err(|error| error.message)?;
        Ok(config.definition_folders().to_vec())
    };
    let outside = "it lies outside the definition's folder; a configuration that --config names may allow its \
                   folder: [definitions] folders = [\"DIR\"]";
    let path = file_inside(folder, Path::new(name), also, outside)?;
    text_of(&path)
}

/// Whether a place is a regular file, links followed. Asked before it is opened: a pipe that nobody writes to,
/// or a terminal, would be waited for.
fn is_regular(place: &Path) -> std::io::Result<bool> {
    Ok(place.metadata()?.is_file())
}
