//! `completions` and `man`: text for shells and readers of manuals, made from the command line as
//! [`Cli`] declares it, so that neither can disagree with it. Reads no store and no configuration.

use std::path::Path;

use clap::{Command, CommandFactory};

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::error::{Error, Exit};
use crate::out::{Out, say};

/// `foldback completions SHELL`
pub fn completions(args: &CompletionsArgs) -> Result<Exit, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "foldback", &mut script);
    print(&script)
}

/// `foldback man [DIR]`
pub fn man(args: &ManArgs) -> Result<Exit, Error> {
    let command = Cli::command();
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(|why| Error::machine(why.to_string()))?;
        return print(&page);
    };
    let pages = write_pages(command, dir).map_err(|why| {
        Error::input(
            format!("cannot write manual pages to {}: {why}", dir.display()),
            "name a directory that can be written, as in `foldback man ~/.local/share/man/man1`",
        )
    })?;
    say(format!("wrote {pages} manual pages to {}", dir.display()));
    Ok(Exit::Done)
}

/// Writes a page for the program and one for each command, and says how many.
fn write_pages(command: Command, dir: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)?;
    let is_ours = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("foldback");
    Ok(std::fs::read_dir(dir)?.filter_map(Result::ok).filter(is_ours).count())
}

fn print(text: &[u8]) -> Result<Exit, Error> {
    let mut out = Out::new();
    out.trusted(text)?;
    out.flush()?;
    Ok(Exit::Done)
}
