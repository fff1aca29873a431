//! Gives the binary its version: the crate's, with the commit it is built from and that commit's
//! date (`0.1.0 (1a2b3c4d5 2026-11-30)`), or the crate's alone where there is no git history (a
//! source archive). Never fails a build.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let answer =
        Command::new("git").args(arguments).output().ok().filter(|answer| answer.status.success())?;
    Some(String::from_utf8(answer.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The commit, if this crate is a tracked part of the repository that it lies in.
fn commit() -> Option<String> {
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    git(&["log", "-1", "--abbrev=9", "--date=short", "--format=%h %cd"])
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The log of HEAD changes with every commit and checkout, in a worktree too.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let version = env!("CARGO_PKG_VERSION");
    match commit() {
        Some(commit) => println!("cargo::rustc-env=FOLDBACK_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=FOLDBACK_VERSION={version}"),
    }
}
