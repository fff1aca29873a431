//! `init`: a commented first pipeline that runs without a model, a key or a network.
//!
//! It never overwrites: either all files are written, or none.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use foldback::core::text::shell_word;
use serde_json::json;

use crate::args::{Cli, InitArgs};
use crate::error::{Error, Exit};
use crate::out::{Line, Out};

const PIPELINE: (&str, &str) = ("pipeline.yaml", include_str!("init/pipeline.yaml"));
const CONFIG: (&str, &str) = ("foldback.toml", include_str!("init/foldback.toml"));
const GITIGNORE: (&str, &str) = (".gitignore", include_str!("init/gitignore"));

/// Writes a first pipeline.
///
/// # Errors
/// A file is there already, or the directory cannot be written.
pub fn init(cli: &Cli, args: &InitArgs) -> Result<Exit, Error> {
    let dir = args.dir.as_deref().unwrap_or(Path::new("."));
    for (name, _) in [PIPELINE, CONFIG] {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(taken(&path));
        }
    }
    std::fs::create_dir_all(dir).map_err(|why| {
        Error::input(format!("{}: {why}", dir.display()), "name a directory that can be written")
    })?;
    let mut written = Vec::new();
    for (name, text) in [PIPELINE, CONFIG] {
        write_new(&dir.join(name), text)?;
        written.push(name);
    }
    // An ignore file of one's own is no reason to refuse, and none to touch it.
    if dir.join(GITIGNORE.0).symlink_metadata().is_err() {
        write_new(&dir.join(GITIGNORE.0), GITIGNORE.1)?;
        written.push(GITIGNORE.0);
    }
    let mut out = Out::new();
    if cli.json {
        out.json(&json!({"dir": dir.display().to_string(), "written": written}))?;
    } else {
        for name in written {
            out.line(Line::new().dim("wrote ").plain(dir.join(name).display().to_string()))?;
        }
        out.line("")?;
        if args.dir.is_some() {
            out.line(
                Line::new().dim("next:  ").plain(format!("cd {}", shell_word(dir.display().to_string()))),
            )?;
        }
        let title = if args.dir.is_some() { "       " } else { "next:  " };
        out.line(Line::new().dim(title).plain("foldback run pipeline.yaml --id first"))?;
        out.line(Line::new().plain("       foldback show first"))?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn taken(path: &Path) -> Error {
    Error::input(
        format!("{} is there already; nothing was written", path.display()),
        "name another directory: foldback init DIR",
    )
}

fn write_new(path: &Path, text: &str) -> Result<(), Error> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|why| match why.kind() {
        ErrorKind::AlreadyExists => taken(path),
        _ => Error::input(format!("{}: {why}", path.display()), "name a directory that can be written"),
    })
}
