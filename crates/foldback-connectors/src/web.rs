//! The clients that speak HTTP, for every kind and every provider.
//!
//! Invariants: the cryptography provider is installed before any client is built, and building
//! one never panics. No client ever sends a request twice on its own: whether a request may be
//! repeated is the engine's to decide, and each repetition is a fact in the log.
//!
//! Where a repetition could hide, and why none does here:
//! * reqwest repeats what an HTTP/2 server refused by protocol: `retry::never()` turns it off.
//! * hyper's pool repeats a request on another connection only when not one byte of it had been
//!   given to the old connection (the message is handed back unsent). That is the same as having
//!   waited for the connection, and cannot be counted by a server.
//! * A server may close an idle connection at the very moment a request is written to it. Nobody
//!   knows then whether it arrived; hyper reports an error and does not repeat. For a `read` the engine
//!   makes one more attempt, a fact in the log, on a fresh connection. For a `write` it would be an unknown outcome that stops a workflow for
//!   nothing, so writes take a fresh connection each ([`fresh`]): some 0.1 ms on
//!   loopback, which the commit before each write exceeds many times.

use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, ClientBuilder, Url, redirect, retry};

/// How long a connection (name, TCP, TLS) may take. It is no answer: nothing was sent yet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Idle connections are closed before most servers do it (five seconds is a common default).
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

type Built = Result<Client, String>;

/// The client for `read` and `pure` steps and for models: it keeps its connections. Built at the
/// first use; the error says why it cannot be.
pub(crate) fn pooled() -> Result<&'static Client, String> {
    static POOLED: OnceLock<Built> = OnceLock::new();
    let build = || finish(|| builder().pool_idle_timeout(IDLE_TIMEOUT));
    POOLED.get_or_init(build).as_ref().map_err(Clone::clone)
}

/// The client for `write` steps, and for a `read` that is asked again: one connection a request.
///
/// HTTP/1 only: a connection of one request gains nothing from HTTP/2, and can say
/// `Connection: close`, so that the closed socket lingers at the server and not here.
pub(crate) fn fresh() -> Result<&'static Client, String> {
    static FRESH: OnceLock<Built> = OnceLock::new();
    let build = || finish(|| builder().pool_max_idle_per_host(0).http1_only());
    FRESH.get_or_init(build).as_ref().map_err(Clone::clone)
}

/// Installs the cryptography of the whole process, unless the program has chosen one already.
pub(crate) fn install_cryptography() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // An error says that another provider is installed: then that one is used.
        let _ = rustls_graviola::default_provider().install_default();
    });
}

fn builder() -> ClientBuilder {
    crate::proxy::proxied(Client::builder())
        .user_agent(concat!("foldback/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
}

/// A machine without certificates (a bare container) can still speak plain HTTP, as to a model on
/// loopback; there every `https` server is then unknown, and says so.
fn finish(builder: impl Fn() -> ClientBuilder) -> Built {
    install_cryptography();
    builder().build().or_else(|first| {
        builder().tls_certs_only(Vec::<reqwest::Certificate>::new()).build().map_err(|_| cause(&first))
    })
}

/// What went wrong, through all causes, without the address (it may hold a secret).
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn Error> = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        // Many causes print their own cause too, and some say nothing but whose they are.
        if !text.contains(&part) && !part.starts_with("client error (") {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = error.source();
    }
    if text.is_empty() {
        let kind = match error {
            e if e.is_timeout() => "timed out",
            e if e.is_connect() => "could not connect",
            e if e.is_builder() => "could not be built",
            _ => "failed",
        };
        text.push_str(kind);
    }
    if text.contains("UnknownIssuer") {
        text.push_str(
            " (no certificate authority known here vouches for it; see ca-certificates, SSL_CERT_FILE)",
        );
    }
    text
}

/// Says whether nothing was sent because this machine has no room for a connection.
pub(crate) fn is_no_room(error: &reqwest::Error) -> bool {
    let mut next: Option<&dyn Error> = error.is_connect().then_some(error);
    while let Some(error) = next {
        if error.downcast_ref().is_some_and(crate::request::is_no_room) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The part of an address that is shown: scheme, host and port.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// How long the other side asks to wait, in ms: `retry-after-ms`, or `retry-after` in seconds or
/// as a date.
pub(crate) fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Some(ms.max(0.0).ceil() as u64);
    }
    let after = text("retry-after")?;
    if let Ok(seconds) = after.parse::<f64>() {
        return seconds.is_finite().then(|| (seconds.max(0.0) * 1_000.0).ceil() as u64);
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|at| at.timestamp());
    // By the clock of who asks, which says what time it is there: ours may be set otherwise.
    let now = text("date").and_then(date).unwrap_or_else(jiff::Timestamp::now);
    let ms = date(after)?.as_millisecond() - now.as_millisecond();
    Some(ms.max(0) as u64)
}

/// At most `max` characters of a text, with a sign where it was cut.
pub(crate) fn first_chars(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn building_the_clients_does_not_panic() {
        pooled().expect("a client");
        fresh().expect("a client");
        let bare = || builder().tls_certs_only(Vec::<reqwest::Certificate>::new());
        bare().build().expect("a client without certificates");
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        let parse = |name: &'static str, value: &str| {
            retry_after_ms(&HeaderMap::from_iter([(
                reqwest::header::HeaderName::from_static(name),
                value.parse().expect("a header"),
            )]))
        };
        assert_eq!(parse("retry-after", "3"), Some(3_000));
        assert_eq!(parse("retry-after", "0.5"), Some(500));
        assert_eq!(parse("retry-after-ms", "250"), Some(250));
        assert_eq!(parse("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        let far = parse("retry-after", "Fri, 31 Dec 2100 23:59:59 GMT").expect("a date");
        assert!(far > 1_000_000, "{far}");
        // Both by the clock of the other side, whatever ours says.
        let both =
            [("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")];
        let header = |(name, value): (&'static str, &str)| {
            (reqwest::header::HeaderName::from_static(name), value.parse().expect("a header"))
        };
        assert_eq!(retry_after_ms(&HeaderMap::from_iter(both.map(header))), Some(30_000));
        assert_eq!(parse("retry-after", "soon"), None);
        assert_eq!(parse("retry-after", "NaN"), None);
    }
}
