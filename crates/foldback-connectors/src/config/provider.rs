//! One provider: what it speaks, where it is, and how its key is found.

use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;

use super::files::{file_inside, is_regular};
use super::{ModelProblem, VARIABLE};
use crate::llm::{Prices, Rules};
use crate::proxy;

/// One provider of models.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Where it is asked, with a slash at its end; for a scripted one, its file.
    pub(crate) base_url: String,
    /// The variable of its key.
    pub(crate) api_key_env: Option<String>,
    /// Whether it cannot be asked without a key.
    needs_key: bool,
    /// Whether it runs on this machine.
    pub(crate) is_loopback: bool,
    /// Whether it is its kind's own service, as the price lists know it.
    pub(crate) is_official: bool,
    /// Whether it is asked to stream.
    pub(crate) streams: bool,
    /// By what it is charged, where its address does not say.
    pub(crate) prices: Option<Prices>,
    /// The variable that should say where it is, where that is no address.
    bad_address: Option<&'static str>,
    /// The file that leads its key elsewhere without having been named by anybody: no key is sent then.
    led_by: Option<PathBuf>,
}

/// Which protocol a provider speaks.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Openai,
    Anthropic,
    Gemini,
    Ollama,
    Scripted(Rules),
}

impl Kind {
    pub(crate) const SCRIPTED: &str = "scripted";

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::Openai => "openai",
            Kind::Anthropic => "anthropic",
            Kind::Gemini => "gemini",
            Kind::Ollama => "ollama",
            Kind::Scripted(_) => Kind::SCRIPTED,
        }
    }

    fn of(name: &str) -> Option<Kind> {
        [Kind::Openai, Kind::Anthropic, Kind::Gemini, Kind::Ollama]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// The kind's own service.
    fn home(&self) -> &'static str {
        match self {
            Kind::Openai => "https://api.openai.com/v1/",
            Kind::Anthropic => "https://api.anthropic.com/v1/",
            Kind::Gemini => "https://generativelanguage.googleapis.com/v1beta/",
            Kind::Ollama | Kind::Scripted(_) => "http://127.0.0.1:11434/",
        }
    }

    fn usual_key(&self) -> Option<&'static str> {
        match self {
            Kind::Openai => Some("OPENAI_API_KEY"),
            Kind::Anthropic => Some("ANTHROPIC_API_KEY"),
            Kind::Gemini => Some("GEMINI_API_KEY"),
            Kind::Ollama | Kind::Scripted(_) => None,
        }
    }

    /// The variable that moves the built-in provider elsewhere.
    fn address_variable(&self) -> Option<&'static str> {
        match self {
            Kind::Openai => Some("OPENAI_BASE_URL"),
            Kind::Anthropic => Some("ANTHROPIC_BASE_URL"),
            Kind::Ollama => Some("OLLAMA_HOST"),
            Kind::Gemini | Kind::Scripted(_) => None,
        }
    }
}

/// An environment variable that is set, and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

impl Provider {
    /// A provider of a kind at its own service, or where the environment says.
    pub(super) fn built_in(kind: Kind) -> Provider {
        let moved_to = kind.address_variable().and_then(variable);
        let moved = moved_to.as_deref().and_then(|text| address(&kind, text));
        let bad_address = kind.address_variable().filter(|_| moved_to.is_some() && moved.is_none());
        let home = || (kind.home().to_owned(), matches!(kind, Kind::Ollama));
        let is_official = moved.is_none();
        let (base_url, is_loopback) = moved.unwrap_or_else(home);
        let key = kind.usual_key().map(str::to_owned);
        Provider {
            name: kind.name().to_owned(),
            needs_key: key.is_some() && !(matches!(kind, Kind::Openai) && is_loopback),
            api_key_env: key,
            base_url,
            is_loopback,
            is_official,
            streams: true,
            prices: None,
            bad_address,
            led_by: None,
            kind,
        }
    }

    /// The key, where there is one.
    pub(crate) fn key_if_set(&self) -> Option<String> {
        self.api_key_env.as_deref().and_then(variable)
    }

    /// Why a key that is set is not sent, and what a person does who wants it to be. A file that lies in
    /// a folder came with the folder: it may name any server, and any variable.
    pub(crate) fn withheld(&self) -> Option<ModelProblem> {
        let (file, variable) = (self.led_by.as_ref()?, self.api_key_env.as_ref()?);
        self.key_if_set()?;
        let (file, place) = (file.display(), self.base_url.split('?').next().unwrap_or_default());
        Some(ModelProblem {
            message: format!(
                "the key in {variable} is not sent to {place} (provider `{}`): {file} was found in this folder, and \
                 nobody named it",
                self.name
            ),
            hint: format!(
                "look at [providers.{}], then say `--config {file}` or set FOLDBACK_CONFIG={file}",
                self.name
            ),
        })
    }

    /// The key, where one is needed or set.
    pub(crate) fn key(&self) -> Result<Option<String>, ModelProblem> {
        if let Some(variable) = self.bad_address {
            return Err(ModelProblem {
                message: format!("{variable} is no http address, or holds a password"),
                hint: format!("set {variable} to an address as in http://127.0.0.1:8080/v1, or unset it"),
            });
        }
        if let Some(problem) = self.withheld() {
            return Err(problem);
        }
        let key = self.key_if_set();
        if key.is_some() || !self.needs_key {
            return Ok(key);
        }
        Err(match &self.api_key_env {
            Some(variable) => ModelProblem {
                message: format!("the provider `{}` needs a key, and {variable} is not set", self.name),
                hint: format!("set {variable} in the environment"),
            },
            None => ModelProblem {
                message: format!("the provider `{}` needs a key, and names no variable for it", self.name),
                hint: format!(
                    "under [providers.{}] set api_key_env to the variable's name, or to \"\" where no key is needed",
                    self.name
                ),
            },
        })
    }

    /// The address that the provider's protocol is spoken at, with a slash at its end.
    pub(crate) fn endpoint(&self) -> String {
        match self.kind {
            // Its OpenAI-compatible side: it knows schemas, seeds and usage in streams.
            Kind::Ollama => under(&self.base_url, "v1/"),
            _ => self.base_url.clone(),
        }
    }
}

/// Whether two addresses are of one server, spoken to in the same way.
fn is_same_origin(a: &str, b: &str) -> bool {
    match (Url::parse(a), Url::parse(b)) {
        (Ok(a), Ok(b)) => a.origin() == b.origin(),
        _ => false,
    }
}

/// A path under an address that ends with a slash and may have a query.
pub(crate) fn under(base: &str, path: &str) -> String {
    match base.split_once('?') {
        Some((base, query)) => format!("{base}{path}?{query}"),
        None => format!("{base}{path}"),
    }
}

/// An address as it is kept, and whether it is on this machine. `None` where it is no address.
pub(super) fn address(kind: &Kind, text: &str) -> Option<(String, bool)> {
    let is_bare = !text.contains("://");
    let mut url = Url::parse(&if is_bare { format!("http://{text}") } else { text.to_owned() }).ok()?;
    // An address with a password would be shown in errors; a key has its own place.
    let is_bare_host = url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !is_bare_host {
        return None;
    }
    if matches!(kind, Kind::Ollama) {
        // OLLAMA_HOST is also what Ollama itself listens on: any host, and its usual port.
        if url.host_str() == Some("0.0.0.0") {
            url.set_host(Some("127.0.0.1")).ok()?;
        }
        if is_bare && url.port().is_none() {
            url.set_port(Some(11434)).ok()?;
        }
    }
    let mut path = url.path().trim_end_matches('/').to_owned();
    match kind {
        Kind::Ollama => path = path.strip_suffix("/v1").unwrap_or(&path).to_owned(),
        // Its own libraries take the address without the version.
        Kind::Anthropic if !path.ends_with("/v1") => path.push_str("/v1"),
        _ => {}
    }
    url.set_path(&format!("{path}/"));
    let is_loopback = proxy::is_loopback(&url);
    Some((url.into(), is_loopback))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    kind: Option<String>,
    base_url: Option<String>,
    api_key_env: Option<String>,
    file: Option<PathBuf>,
    stream: Option<bool>,
    prices: Option<toml::Value>,
}

/// One provider of a file, or what is wrong with it and what to do. `is_named` says that a person named
/// the file.
pub(super) fn provider(
    name: &str,
    entry: Entry,
    path: &Path,
    is_named: bool,
) -> Result<Provider, (String, String)> {
    let wrong = |what: &str, hint: &str| Err((what.to_owned(), hint.to_owned()));
    if name.is_empty() || name.contains(['/', ' ']) {
        return wrong("a name has no slash and no space", "models are written NAME/MODEL");
    }
    let kind_name = entry.kind.as_deref().unwrap_or(name);
    if kind_name == Kind::SCRIPTED {
        return scripted(name, entry, path, is_named);
    }
    let Some(kind) = Kind::of(kind_name) else {
        let what = if entry.kind.is_some() { "this `kind` is not known" } else { "`kind` is missing" };
        return wrong(what, "kind is one of openai, anthropic, gemini, ollama, scripted");
    };
    if entry.file.is_some() {
        return wrong("`file` is for kind = \"scripted\"", "leave `file` out");
    }
    let mut provider =
        Provider { name: name.to_owned(), streams: entry.stream.unwrap_or(true), ..Provider::built_in(kind) };
    provider.prices = entry.prices.map(Prices::read).transpose()?;
    if let Some(text) = &entry.base_url {
        let Some((base_url, is_loopback)) = address(&provider.kind, text) else {
            return wrong(
                "`base_url` is no http address, or holds a password",
                "as in http://127.0.0.1:8080/v1",
            );
        };
        let is_home = is_same_origin(&base_url, provider.kind.home());
        let led_by = (!is_named && !is_loopback && !is_home).then(|| path.to_owned());
        provider =
            Provider { base_url, is_loopback, is_official: false, bad_address: None, led_by, ..provider };
        if name != provider.kind.name() {
            provider.api_key_env = None;
        }
    }
    match entry.api_key_env.as_deref() {
        None => {}
        Some("") => provider = Provider { api_key_env: None, needs_key: false, ..provider },
        Some(variable) if is_variable(variable) => provider.api_key_env = Some(variable.to_owned()),
        // It may be the key itself: it is not shown.
        Some(_) => {
            return wrong(
                "`api_key_env` is no name of a variable",
                "put the key into a variable, and its name here",
            );
        }
    }
    let has_none = entry.api_key_env.as_deref() == Some("") || provider.kind.usual_key().is_none();
    let is_local = matches!(provider.kind, Kind::Openai) && provider.is_loopback;
    provider.needs_key = !has_none && !is_local;
    Ok(provider)
}

fn scripted(name: &str, entry: Entry, path: &Path, is_named: bool) -> Result<Provider, (String, String)> {
    let hint = || "kind = \"scripted\" takes `file` and nothing else".to_owned();
    let Some(file) = entry.file else {
        return Err(("`file` is missing".to_owned(), hint()));
    };
    let has_more = entry.stream.is_some() || entry.prices.is_some();
    if entry.base_url.is_some() || entry.api_key_env.is_some() || has_more {
        return Err(("a scripted provider has no address, no key and no prices".to_owned(), hint()));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let is_fit = match is_named {
        true => is_regular(&folder.join(&file)),
        false => {
            let outside = "it lies outside the folder of the configuration, which nobody named";
            file_inside(folder, &file, || Ok(Vec::new()), outside).map(drop)
        }
    };
    let file = folder.join(file);
    is_fit.map_err(|why| {
        let hint = "name a regular file beside the configuration";
        let hint = if is_named {
            hint.to_owned()
        } else {
            format!("{hint}, or name that with --config or {VARIABLE}")
        };
        (format!("{}: {why}", file.display()), hint)
    })?;
    let rules = Rules::load(&file)
        .map_err(|why| (why, "write its rules as [[rules]] contains = …, answer = …".to_owned()))?;
    Ok(Provider {
        name: name.to_owned(),
        kind: Kind::Scripted(rules),
        base_url: file.display().to_string(),
        api_key_env: None,
        needs_key: false,
        is_loopback: true,
        is_official: false,
        streams: true,
        prices: None,
        bad_address: None,
        led_by: None,
    })
}

/// Whether a text can be the name of a variable, and does not look like a key.
fn is_variable(text: &str) -> bool {
    let is_name = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !text.starts_with(|c: char| c.is_ascii_digit());
    let is_mixed =
        text.contains(|c: char| c.is_ascii_lowercase()) && text.contains(|c: char| c.is_ascii_uppercase());
    is_name && !(is_mixed && text.len() > 20)
}
