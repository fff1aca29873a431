//! Files that are named by what may have come from a stranger: a definition, or a configuration that was
//! merely found.
//!
//! Such a file is a regular one inside a folder, links followed. Nothing here opens a file: a pipe that
//! nobody writes to would be waited for, and a terminal would be read.

use std::path::{Path, PathBuf};

/// Where a name leads from a folder, without links: to a regular file inside the folder, or inside one of
/// those that `also` allows, which is asked only then. `outside` is what is said of a file that lies in none.
///
/// # Errors
/// In words: it is not there, lies outside, or is no regular file.
pub fn file_inside(
    folder: &Path,
    name: &Path,
    also: impl FnOnce() -> Result<Vec<PathBuf>, String>,
    outside: &str,
) -> Result<PathBuf, String> {
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    let path = std::fs::canonicalize(folder.join(name)).map_err(|e| e.to_string())?;
    let is_inside =
        |folder: &Path| std::fs::canonicalize(folder).is_ok_and(|folder| path.starts_with(folder));
    if !is_inside(folder) && !also()?.iter().any(|folder| is_inside(folder)) {
        return Err(outside.to_owned());
    }
    is_regular(&path)?;
    Ok(path)
}

/// Whether a path leads to a regular file.
///
/// # Errors
/// In words: it is not there, or is something else.
pub(super) fn is_regular(path: &Path) -> Result<(), String> {
    match path.metadata().map_err(|e| e.to_string())?.is_file() {
        true => Ok(()),
        false => Err("it is no regular file".to_owned()),
    }
}
