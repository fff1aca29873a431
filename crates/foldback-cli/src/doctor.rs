//! `doctor`: what is reachable and configured. It writes nothing, and asks no provider that
//! nobody set up.

use std::path::Path;
use std::process::{Command, Stdio};

use foldback::connectors::{Config, ProviderStatus, probe, providers};
use foldback::store::Filter;
use serde::Serialize;
use serde_json::json;

use crate::args::Cli;
use crate::error::{Error, Exit};
use crate::out::{Ink, Line, Out};

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    /// What was looked at.
    name: String,
    /// How it is.
    state: Health,
    /// What was found, in words.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    /// It works.
    Ok,
    /// It is not set up, and need not be.
    Absent,
    /// It is set up and does not work.
    Broken,
}

impl Finding {
    fn new(name: impl Into<String>, state: Health, detail: impl Into<String>) -> Finding {
        Finding { name: name.into(), state, detail: detail.into(), hint: None }
    }

    fn hinted(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }
}

/// Looks at what this machine has for Foldback.
///
/// # Errors
/// When it cannot be printed.
pub fn doctor(cli: &Cli) -> Result<Exit, Error> {
    let mut findings = vec![
        Finding::new(
            "foldback",
            Health::Ok,
            format!("version {}, {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS),
        ),
        store(cli),
        program("python3", "steps of `run: script` with `language: python` need it"),
    ];
    match Config::load(cli.config.as_deref()) {
        Err(error) => {
            findings.push(Finding::new("configuration", Health::Broken, error.message).hinted(error.hint))
        }
        Ok(config) => {
            findings.push(match config.file() {
                Some(file) => Finding::new("configuration", Health::Ok, file.display().to_string()),
                None => Finding::new("configuration", Health::Absent, "no foldback.toml; none is needed"),
            });
            findings.extend(models(&config)?);
        }
    }
    let is_ok = findings.iter().all(|finding| finding.state != Health::Broken);
    let mut out = Out::new();
    if cli.json {
        out.json(&json!({"ok": is_ok, "version": env!("CARGO_PKG_VERSION"), "findings": findings}))?;
    } else {
        findings.iter().try_for_each(|finding| print(&mut out, finding))?;
    }
    out.flush()?;
    Ok(if is_ok { Exit::Done } else { Exit::No })
}

fn print(out: &mut Out, finding: &Finding) -> Result<(), Error> {
    let (mark, ink) = match finding.state {
        Health::Ok => ("✓", Ink::Green),
        Health::Absent => ("–", Ink::Dim),
        Health::Broken => ("✗", Ink::Red),
    };
    out.line(Line::new().ink(ink, mark).plain(format!(" {:<14} {}", finding.name, finding.detail)))?;
    match &finding.hint {
        Some(hint) => out.line(Line::new().dim(format!("                 {hint}"))),
        None => Ok(()),
    }
}

fn store(cli: &Cli) -> Finding {
    let url = cli.store_url();
    let path = url.strip_prefix("sqlite:").unwrap_or(&url);
    let path = path.strip_prefix("//").unwrap_or(path);
    if url.starts_with("sqlite:") && !path.is_empty() && !Path::new(path).exists() {
        return Finding::new(
            "store",
            Health::Absent,
            format!("{url} is not there yet; the first `run` makes it"),
        );
    }
    let looked = foldback::store::open_existing(&url).and_then(|store| store.workflows(&Filter::default()));
    match looked {
        Ok(rows) => {
            let unfinished = rows
                .iter()
                .filter(|row| matches!(row.status.as_str(), "running" | "waiting" | "unknown"))
                .count();
            let events: u64 = rows.iter().map(|row| row.version).sum();
            let mut detail = format!("{url}: {} workflows, {events} events", rows.len());
            if unfinished > 0 {
                detail.push_str(&format!(", {unfinished} unfinished"));
            }
            Finding::new("store", Health::Ok, detail)
        }
        Err(error) => {
            let finding = Finding::new("store", Health::Broken, error.message);
            error.hint.into_iter().fold(finding, Finding::hinted)
        }
    }
}

fn program(name: &str, needed: &str) -> Finding {
    let ran = Command::new(name).arg("--version").stdin(Stdio::null()).output();
    match ran {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Finding::new(name, Health::Ok, text.lines().next().unwrap_or_default().trim())
        }
        Ok(_) | Err(_) => Finding::new(name, Health::Absent, "not on the PATH").hinted(needed),
    }
}

/// The providers: those that somebody set up are asked, and so is what runs on this machine.
fn models(config: &Config) -> Result<Vec<Finding>, Error> {
    let built_in = providers(&Config::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| Error::machine(format!("no runtime could be started: {why}")))?;
    runtime.block_on(async {
        let looks: Vec<_> = providers(config)
            .into_iter()
            .map(|status| {
                let is_from_file = !built_in.contains(&status);
                tokio::spawn(provider(status, is_from_file))
            })
            .collect();
        let mut findings = Vec::new();
        for look in looks {
            findings.push(
                look.await.map_err(|why| Error::machine(format!("a provider could not be asked: {why}")))?,
            );
        }
        Ok(findings)
    })
}

async fn provider(status: ProviderStatus, is_from_file: bool) -> Finding {
    let name = status.name.clone();
    let place = match &status.api_key_env {
        Some(variable) if status.is_key_set => format!("{}, key from {variable}", status.base_url),
        Some(variable) => format!("{}, {variable} is not set", status.base_url),
        None => status.base_url.clone(),
    };
    let is_set_up = is_from_file || status.is_key_set;
    let is_local = status.api_key_env.is_none();
    if !is_set_up && !is_local {
        let variable = status.api_key_env.unwrap_or_default();
        return Finding::new(name, Health::Absent, format!("set {variable} to use {}/MODEL", status.name));
    }
    if let Some(problem) = status.withheld {
        return Finding::new(name, Health::Broken, problem.message).hinted(problem.hint);
    }
    match probe(&status).await {
        Ok(found) => Finding::new(name, Health::Ok, format!("{found} ({place})")),
        Err(why) if is_set_up => Finding::new(name, Health::Broken, format!("{why} ({place})")),
        Err(why) => Finding::new(name, Health::Absent, format!("{why} ({place})")),
    }
}
