//! Whom can be asked, where, and by which key: the built-in providers, and those of
//! `foldback.toml`.
//!
//! Invariants: a key is looked up in the environment when it is used, and is never part of the
//! configuration; only its variable's name is told. A provider of a new name and with an address of
//! its own gets no key that the file does not name, so that a key never goes to a stranger. A file that
//! nobody named, but that lies in the folder, leads a key nowhere but to its kind's own service or to
//! this machine, and names no file outside of its folder.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldback_core::redact::RuleText;
use foldback_core::{Redaction, limits};
use serde::Deserialize;
use toml::Spanned;

mod files;
mod provider;

pub use files::file_inside;
use provider::{Entry, provider};
pub(crate) use provider::{Kind, Provider, under, variable};

/// The file that is read where none is named.
const FILE: &str = "foldback.toml";

/// The variable that names the file.
const VARIABLE: &str = "FOLDBACK_CONFIG";

/// Who can be asked.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) providers: BTreeMap<String, Arc<Provider>>,
    redaction: Redaction,
    pub(crate) stand_ins: StandIns,
    definition_folders: Vec<PathBuf>,
    file: Option<PathBuf>,
}

/// Servers that answer in the place of hosts: a host, and the address that `http` asks instead.
pub(crate) type StandIns = BTreeMap<String, SocketAddr>;

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong, with the file and the line.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// A model that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelProblem {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for ModelProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.hint)
    }
}

impl std::error::Error for ModelProblem {}

impl Default for Config {
    /// The built-in providers, from their usual environment variables.
    fn default() -> Config {
        let kinds = [Kind::Openai, Kind::Anthropic, Kind::Gemini, Kind::Ollama];
        let entry = |kind: Kind| (kind.name().to_owned(), Arc::new(Provider::built_in(kind)));
        Config {
            providers: kinds.into_iter().map(entry).collect(),
            redaction: Redaction::default(),
            stand_ins: StandIns::new(),
            definition_folders: Vec::new(),
            file: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    #[serde(default)]
    providers: BTreeMap<String, Spanned<Entry>>,
    #[serde(default)]
    redact: Vec<Spanned<RuleText>>,
    #[serde(default)]
    definitions: Definitions,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definitions {
    #[serde(default)]
    folders: Vec<PathBuf>,
}

impl Config {
    /// The built-in providers and those of a file: of this path, or of the variable `FOLDBACK_CONFIG`.
    /// Who names neither has `./foldback.toml` read where it exists; a file that is named must exist.
    /// One that is merely found is a regular file of the folder, as are the files that it names, and sends a
    /// key only to its kind's own service or to this machine.
    ///
    /// ```toml
    /// [providers.local]
    /// kind = "openai"                          # openai, anthropic, gemini, ollama or scripted
    /// base_url = "http://127.0.0.1:8080/v1"
    /// api_key_env = "LOCAL_KEY"                # the variable's name; "" where no key is needed
    /// stream = true                            # false for a server that cannot stream
    /// prices = "openai"                        # a gateway: whose price list its calls are charged by
    ///                                          # (or a table: input_usd_per_million_tokens = 0.15,
    ///                                          # output_usd_per_million_tokens = 0.60)
    ///
    /// [[redact]]                               # taken out of everything that comes in
    /// name = "card"                            # stands in its place: [redacted card]
    /// pattern = '\b\d{16}\b'                  # or path = "$..card_number"
    ///
    /// [definitions]                            # heard only in a file that is named
    /// folders = ["../prompts"]                 # whence definitions may name files, beside their own folder
    /// ```
    ///
    /// # Errors
    /// A file that cannot be read, a member that is not known, a provider that makes no sense:
    /// with the file and the line, and never with a value that may be a key.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let named = path.map(Path::to_owned).or_else(|| provider::variable(VARIABLE).map(PathBuf::from));
        let is_named = named.is_some();
        let path = match named {
            Some(path) => path,
            None if Path::new(FILE).exists() => PathBuf::from(FILE),
            None => return Ok(Config::default()),
        };
        let refused =
            |why: String, hint: String| ConfigError { message: format!("{}: {why}", path.display()), hint };
        if !is_named {
            // It may have come with the folder, and is read in passing.
            let none = || Ok(Vec::new());
            file_inside(Path::new("."), &path, none, "it leads out of this folder, and nobody named it")
                .map_err(|why| refused(why, format!("remove it, or name it with --config or {VARIABLE}")))?;
        }
        let text = read_bounded(&path).map_err(|why| {
            let hint = format!("name an existing file with --config or {VARIABLE}, or leave both out");
            refused(why, hint)
        })?;
        let mut config = Config::of(&text, &path, is_named)?;
        if !is_named {
            // It may have come with the definition, from a stranger.
            config.definition_folders.clear();
        }
        Ok(Config { file: Some(path), ..config })
    }

    /// The file that was read, where there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Lets a server stand in for a host, as in a test: what `http` would ask of the host is asked of
    /// the server, without TLS and with the host's name in `Host`. The log keeps the address as it
    /// was asked for. Redirects are sent where they lead, to a stand-in where the host has one.
    pub fn with_stand_in(mut self, host: &str, server: SocketAddr) -> Config {
        self.stand_ins.insert(host.to_ascii_lowercase(), server);
        self
    }

    /// The built-in providers and those of a text; errors name `path`, and the file of a scripted
    /// provider lies beside it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        Config::of(text, path, true)
    }

    fn of(text: &str, path: &Path, is_named: bool) -> Result<Config, ConfigError> {
        let line = |at: usize| text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        let error = |at: usize, what: String, hint: &str| ConfigError {
            message: format!("{}:{}: {what}", path.display(), line(at)),
            hint: hint.to_owned(),
        };
        let file: Members = toml::from_str(text).map_err(|why| {
            let at = why.span().map_or(0, |span| span.start);
            let hint = "members are kind, base_url, api_key_env, stream, prices and file, under [providers.NAME]; \
                        path, pattern, replace and name, under [[redact]]; folders, under [definitions]; \
                        a key itself never stands in the file, only its variable's name (api_key_env)";
            error(at, without_values(why.message()), hint)
        })?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let folders = file.definitions.folders.iter().map(|folder| beside.join(folder));
        let mut config = Config { definition_folders: folders.collect(), ..Config::default() };
        for (name, entry) in file.providers {
            let at = entry.span().start;
            let provider = provider(&name, entry.into_inner(), path, is_named)
                .map_err(|(what, hint)| error(at, format!("[providers.{name}]: {what}"), &hint))?;
            config.providers.insert(name, Arc::new(provider));
        }
        let (places, rules): (Vec<usize>, Vec<RuleText>) =
            file.redact.into_iter().map(|rule| (rule.span().start, rule.into_inner())).unzip();
        config.redaction = Redaction::of(&rules).map_err(|(nth, bad)| {
            let at = places.get(nth).copied().unwrap_or_default();
            let member = bad.member.map(|member| format!("`{member}` ")).unwrap_or_default();
            error(at, format!("[[redact]] {member}{}", bad.message), &bad.hint)
        })?;
        Ok(config)
    }

    /// The variables that hold the keys of providers: no process that a step starts inherits them.
    pub(crate) fn key_variables(&self) -> Arc<[String]> {
        self.providers.values().filter_map(|provider| provider.api_key_env.clone()).collect()
    }

    /// Folders from which a definition may name files, beside its own: what a file says that was named, and
    /// none of one that was merely found.
    pub fn definition_folders(&self) -> &[PathBuf] {
        &self.definition_folders
    }

    /// What is redacted in every workflow that runs with this configuration.
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }
}

/// A file's text. Also `/dev/zero` has an end here.
pub(crate) fn read_bounded(path: &Path) -> Result<String, String> {
    let most = limits::CONFIG_MAX_BYTES;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|why| why.to_string())?;
    if bytes.len() > most {
        return Err(format!("is larger than {most} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

/// A parser's message without the value that it complains about.
pub(crate) fn without_values(message: &str) -> String {
    let is_about_a_value = message.starts_with("invalid type") || message.starts_with("invalid value");
    match (is_about_a_value, message.split_once(", expected")) {
        (true, Some((_, expected))) => format!("a value is not as expected: expected{expected}"),
        (true, None) => "a value is not as expected".to_owned(),
        (false, _) => message.to_owned(),
    }
}

/// The provider and the name of a model that is written `provider/model`.
pub(crate) fn resolve<'a>(
    config: &'a Config,
    model: &'a str,
) -> Result<(&'a Provider, &'a str), ModelProblem> {
    let known = || config.providers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let Some((provider, name)) =
        model.split_once('/').filter(|(provider, name)| !provider.is_empty() && !name.is_empty())
    else {
        return Err(ModelProblem {
            message: format!("the model `{model}` is not written provider/model"),
            hint: format!("as in openai/gpt-5-mini; providers: {}", known()),
        });
    };
    match config.providers.get(provider) {
        Some(provider) => Ok((provider, name)),
        None => Err(ModelProblem {
            message: format!("the model `{model}` names an unknown provider `{provider}`"),
            hint: format!("providers: {}; add [providers.{provider}] to {FILE} for another", known()),
        }),
    }
}

/// Whether a model that is written `provider/model` can be asked: its provider is known, and its
/// key is set where it needs one. Asks nobody.
///
/// # Errors
/// What is missing, by name.
pub fn check_model(config: &Config, model: &str) -> Result<(), ModelProblem> {
    let (provider, _) = resolve(config, model)?;
    provider.key().map(|_| ())
}

/// Whether the price of a model that is written `provider/model` is known, so that a budget in money
/// counts its calls. Asks nobody.
pub fn is_priced(config: &Config, model: &str) -> bool {
    resolve(config, model).is_ok_and(|(provider, name)| crate::llm::is_priced(provider, name))
}

/// What so many tokens, read and written, cost of a model that is written `provider/model`, in millionths of
/// a US dollar; `None` where its price is not known. Asks nobody.
pub fn price(config: &Config, model: &str, input: u64, output: u64) -> Option<u64> {
    let (provider, name) = resolve(config, model).ok()?;
    crate::llm::estimate(provider, name, (input, output))
}

#[cfg(test)]
mod tests;
