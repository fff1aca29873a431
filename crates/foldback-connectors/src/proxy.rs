//! Proxies, as the environment names them: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in
//! capitals or not. Invariant: what stays on this machine never goes through one, whatever they say.

use std::env::var;

use reqwest::{ClientBuilder, NoProxy, Proxy};

/// This machine, in the form of `NO_PROXY`.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1,0.0.0.0";

/// The client with the proxies of the environment. An address that is none is passed over.
pub(crate) fn proxied(builder: ClientBuilder) -> ClientBuilder {
    let spared = spared(first(&["NO_PROXY", "no_proxy"]).as_deref());
    // In a CGI process `HTTP_PROXY` is what a visitor sent as the header `Proxy`.
    let is_cgi = var("REQUEST_METHOD").is_ok();
    let plain: &[&str] =
        if is_cgi { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] };
    let mut builder = builder.no_proxy();
    for (names, proxy) in [
        (plain, Proxy::http::<String> as fn(String) -> reqwest::Result<Proxy>),
        (&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"], Proxy::https::<String>),
    ] {
        if let Some(Ok(proxy)) = first(names).map(proxy) {
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&spared)));
        }
    }
    builder
}

/// The hosts that no proxy is used for: those that a person names, and this machine.
fn spared(named: Option<&str>) -> String {
    match named {
        Some(named) => format!("{named},{THIS_MACHINE}"),
        None => THIS_MACHINE.to_owned(),
    }
}

fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| var(name).ok().filter(|value| !value.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::spared;

    #[test]
    fn this_machine_is_always_spared() {
        assert_eq!(spared(None), "localhost,127.0.0.0/8,::1,0.0.0.0");
        assert_eq!(spared(Some("box, .example")), "box, .example,localhost,127.0.0.0/8,::1,0.0.0.0");
    }
}
