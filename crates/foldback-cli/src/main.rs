//! The `foldback` binary: it greets, and hands over to the room of the command.
//!
//! Data goes to stdout, everything else to stderr. The exit code is a contract, see [`error`].

mod args;
mod audit;
mod bench;
mod check;
mod definition;
mod diff;
mod doctor;
mod drive;
mod ending;
mod erase;
mod error;
mod events;
mod exchange;
mod fork;
mod init;
mod list;
mod manual;
mod moment;
mod now;
mod out;
mod progress;
mod projection;
mod prune;
mod reading;
mod show;
mod state;
mod steps;
mod table;
mod tree;
mod verify;
mod whole;

use std::fs::File;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use args::{Cli, Command};
use error::{Error, Exit};
use out::{say, say_error};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return usage(&without_what_takes_away(refused)),
    };
    match dispatch(&cli) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(mut error) => {
            error.hint = error.hint.map(|hint| cli.with_store(&hint));
            say_error(&error);
            ExitCode::from(error.code)
        }
    }
}

/// Files that a command needs beside those that it was started with: the store, threads, one step. With 25
/// a step may already be put off for want of a file, and where nothing else runs here that would close one,
/// it would be put off for ever: so twice as many and some more.
const FILES_NEEDED: usize = 56;

/// This process may open the files that a command needs. Where it may not, what fails first would blame
/// something else, or panic.
///
/// # Errors
/// It may not.
fn has_room_for_files() -> Result<(), Error> {
    let opened: Result<Vec<File>, std::io::Error> =
        (0..FILES_NEEDED).map(|_| File::open("/dev/null")).collect();
    match opened {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error {
            hint: Some("raise the limit of open files: `ulimit -n 1024`".to_owned()),
            ..Error::machine(format!(
                "this process cannot open the {FILES_NEEDED} files that it needs: {error}"
            ))
        }),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn dispatch(cli: &Cli) -> Result<Exit, Error> {
    has_room_for_files()?;
    match &cli.command {
        Command::Init(args) => init::init(cli, args),
        Command::Doctor => doctor::doctor(cli),
        Command::Check(args) => check::check(cli, args),
        Command::Run(args) => drive::run(cli, args),
        Command::Resume(args) => drive::resume(cli, args),
        Command::List(args) => list::list(cli, args),
        Command::Show(args) => show::show(cli, args),
        Command::Events(args) => events::events(cli, args),
        Command::Replay(args) => events::replay(cli, args),
        Command::State(args) => state::state(cli, args),
        Command::Steps(args) => steps::steps(cli, args),
        Command::Decisions(args) => steps::decisions(cli, args),
        Command::Fork(args) => fork::fork(cli, args),
        Command::Retry(args) => fork::retry(cli, args),
        Command::Compensate(args) => ending::compensate(cli, args),
        Command::Pause(args) => ending::pause(cli, args),
        Command::Unpause(args) => ending::unpause(cli, args),
        Command::Signal(args) => ending::signal(cli, args),
        Command::Cancel(args) => ending::cancel(cli, args),
        Command::Resolve(args) => drive::resolve(cli, args),
        Command::Audit(args) => audit::audit(cli, args),
        Command::Diff(args) => diff::diff(cli, args),
        Command::Verify(args) => verify::verify(cli, args),
        Command::Export(args) => exchange::export(cli, args),
        Command::Import(args) => exchange::import(cli, args),
        Command::Projection(args) => projection::projection(cli, &args.command),
        Command::Prune(args) => prune::prune(cli, args),
        Command::Erase(args) => erase::erase(cli, args),
        Command::Bench(args) => bench::bench(cli, args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
    }
}

/// A mistyped command is never taken for one that takes something away for good.
fn without_what_takes_away(mut refused: clap::Error) -> clap::Error {
    if let Some(ContextValue::Strings(mut names)) = refused.remove(ContextKind::SuggestedSubcommand) {
        names.retain(|name| !matches!(&**name, "erase" | "prune"));
        if !names.is_empty() {
            refused.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(names));
        }
    }
    refused
}

/// What clap answers itself: help and the version are data; all else is bad usage.
fn usage(refused: &clap::Error) -> ExitCode {
    if matches!(refused.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let mut out = out::Out::new();
        let text = refused.to_string();
        let printed = text.lines().try_for_each(|line| out.line(line)).and_then(|()| out.flush());
        return ExitCode::from(printed.map_or_else(|error| error.code, |()| 0));
    }
    let text = refused.to_string();
    text.lines().for_each(say);
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let command = words.find(|word| is_command(word));
    say(match command {
        Some(command) => format!("hint: `foldback {command} --help` tells what it takes"),
        None => "hint: `foldback --help` lists the commands".to_owned(),
    });
    ExitCode::from(2)
}

fn is_command(word: &str) -> bool {
    use clap::CommandFactory;
    Cli::command().get_subcommands().any(|known| known.get_name() == word)
}
