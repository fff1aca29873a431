//! From a file to a loaded definition, with every problem at its line and column.

use std::path::Path;

use foldback::core::limits;
use foldback::ows::{Loaded, Problem};

use crate::args::quoted;
use crate::error::Error;

/// Hints that are told of one definition: more are `check`'s to tell.
const HINTS_MAX: usize = 3;

/// Reads a definition and the files it names, which lie beside it.
///
/// # Errors
/// The file cannot be read, or `Err` inside: what is wrong with it.
pub fn read(file: &Path) -> Result<Result<Loaded, Vec<Problem>>, Error> {
    let source = text_of(file).map_err(|e| {
        Error::input(format!("{}: {e}", file.display()), "`foldback init` writes a first pipeline")
    })?;
    let folder = file.parent().unwrap_or(Path::new(""));
    Ok(foldback::ows::load(&source, &|path| text_of(&folder.join(path))))
}

/// A definition that can be run.
///
/// # Errors
/// As [`read`], with each problem as `FILE:LINE:COLUMN`.
pub fn load(file: &Path) -> Result<Loaded, Error> {
    read(file)?.map_err(|problems| {
        let more = format!("`foldback check {}` says more", quoted(&file.display().to_string()));
        told(file, problems, &more)
    })
}

/// Problems of a file as one error, each with its place. `otherwise` is the hint where none has one.
pub fn told(file: &Path, problems: Vec<Problem>, otherwise: &str) -> Error {
    let lines = problems.iter().map(|p| format!("{}:{}:{}: {}", file.display(), p.line, p.column, p.message));
    let message = lines.collect::<Vec<_>>().join("\n");
    let mut hints: Vec<String> = problems.into_iter().filter_map(|problem| problem.hint).collect();
    hints.dedup();
    hints.truncate(HINTS_MAX);
    if hints.is_empty() {
        hints.push(otherwise.to_owned());
    }
    Error { code: 2, message, hint: Some(hints.join("\n")) }
}

/// The text of a file from outside, bounded.
///
/// # Errors
/// It cannot be read, in words.
pub fn text_of(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > limits::DEFINITION_MAX_BYTES as u64 {
        return Err(format!("is larger than {} MiB", limits::DEFINITION_MAX_BYTES / (1024 * 1024)));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}
