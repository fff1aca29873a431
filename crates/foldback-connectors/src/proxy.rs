//! Proxies, as the environment names them: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in
//! capitals or not; and which addresses stay on this machine. Invariant: what stays on it never goes through a
//! proxy, whatever they say.

use std::env::var;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::{ClientBuilder, NoProxy, Proxy, Url};

/// The name of this machine; so is every name that ends in it behind a dot.
const NAME: &str = "localhost";

/// The addresses of this machine, each by so many of its first bits. To ask for no address at all is to ask
/// this machine.
const ADDRESSES: [(IpAddr, u32); 6] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
    // The first two again, as an IPv6 address spells them.
    (IpAddr::V6(Ipv4Addr::new(127, 0, 0, 0).to_ipv6_mapped()), 104),
    (IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()), 128),
];

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

/// The hosts that no proxy is used for, in the form of `NO_PROXY`: those that a person names, and this machine.
fn spared(named: Option<&str>) -> String {
    let own = ADDRESSES.iter().map(|(address, bits)| format!("{address}/{bits}"));
    let all: Vec<String> = named.map(str::to_owned).into_iter().chain([NAME.to_owned()]).chain(own).collect();
    all.join(",")
}

/// Whether an address stays on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let host = host.trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) => ADDRESSES.iter().any(|(own, bits)| begin_alike(*own, address, *bits)),
        Err(_) => host.strip_suffix(NAME).is_some_and(|before| before.is_empty() || before.ends_with('.')),
    }
}

/// Whether two addresses of one kind have their first bits in common.
fn begin_alike(one: IpAddr, other: IpAddr, bits: u32) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u32::from(one) ^ u32::from(other)).leading_zeros() >= bits,
        (IpAddr::V6(one), IpAddr::V6(other)) => (u128::from(one) ^ u128::from(other)).leading_zeros() >= bits,
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| var(name).ok().filter(|value| !value.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_person_names_more_hosts_than_this_machine() {
        let own = spared(None);
        assert_eq!(spared(Some("box, .example")), format!("box, .example,{own}"));
    }

    /// A proxy that answers everything itself, and counts what it was asked.
    fn proxy() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        (address, asked)
    }

    /// What is known as this machine is asked without a proxy, and nothing else.
    #[tokio::test]
    async fn what_stays_on_this_machine_as_a_table() {
        crate::web::install_cryptography();
        let (address, asked) = proxy();
        let proxy = Proxy::http(&address).expect("an address").no_proxy(NoProxy::from_string(&spared(None)));
        let client = reqwest::Client::builder()
            .no_proxy()
            .proxy(proxy)
            .timeout(Duration::from_secs(2))
            .tls_certs_only(Vec::<reqwest::Certificate>::new())
            .build()
            .expect("a client");
        for (host, stays) in [
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("0.0.0.0", true),
            ("[::1]", true),
            ("[::]", true),
            ("[::ffff:127.0.0.1]", true),
            ("[::ffff:0.0.0.0]", true),
            ("localhost", true),
            ("LOCALHOST", true),
            ("a.localhost", true),
            ("128.0.0.1", false),
            ("0.0.0.1", false),
            ("[::2]", false),
            ("[::ffff:128.0.0.1]", false),
            ("[fe80::1]", false),
            ("notlocalhost", false),
            ("localhost.example.com", false),
            ("api.openai.com", false),
        ] {
            // Nothing answers at this port: who is asked without a proxy is not reached.
            let url: Url = format!("http://{host}:9/v1").parse().expect("an address");
            assert_eq!(is_loopback(&url), stays, "{host}");
            let before = asked.load(Ordering::SeqCst);
            let _answered_or_not = client.get(url).send().await;
            let is_proxied = asked.load(Ordering::SeqCst) > before;
            assert_eq!(is_proxied, !stays, "{host}");
        }
    }
}
