//! The kind `http`: where a request may go, and what never leaves.

use std::collections::BTreeMap;

use crate::support::*;
use foldback_core::Effect::{Read, Write};
use serde_json::json;

#[tokio::test]
async fn redirects_are_errors_unless_asked_for() {
    let target = Server::constant("200 OK", "", "there").await;
    let location = format!("location: {}\r\n", target.url("/new"));
    let server = Server::constant("302 Found", &location, "").await;
    let (_, status, detail) = failed(run("http", json!({"uri": server.url("/")}), Read).await);
    assert_eq!(status, 302);
    assert!(detail.contains("redirect: true") && target.seen().is_empty(), "{detail}");

    let request = json!({"method": "POST", "uri": server.url("/"), "body": {"a": 1}, "redirect": true,
        "authentication": {"scheme": "bearer", "token": "token-1"}});
    assert_eq!(completed(run("http", request, Write).await), "there");
    let seen = target.seen();
    assert_eq!(seen[0].line, "GET /new HTTP/1.1", "a POST that is answered by 302 goes on as GET");
    assert_eq!(seen[0].header("authorization"), None, "another origin gets no credentials");
    assert!(seen[0].body.is_empty());

    // 307 keeps method and body, also for a secret one where the origin stays the same.
    let server = Server::start(|n, _| {
        let answer = if n == 0 {
            http("307 Temporary Redirect", "location: /b\r\n", "")
        } else {
            http("200 OK", "", "ok")
        };
        vec![Act::Send(answer)]
    })
    .await;
    let request = json!({"method": "POST", "uri": server.url("/a"), "body": {"a": 1}, "redirect": true});
    assert_eq!(completed(run("http", request, Write).await), "ok");
    assert_eq!(
        (server.seen()[1].line.as_str(), server.seen()[1].json()),
        ("POST /b HTTP/1.1", json!({"a": 1}))
    );

    // A circle ends, with an error: nobody has answered. What names no place is an answer.
    let circle = Server::constant("301 Moved Permanently", "location: /round\r\n", "").await;
    for (method, effect) in [("GET", Read), ("PUT", Write)] {
        let before = circle.seen().len();
        let request = json!({"method": method, "uri": circle.url("/"), "redirect": true});
        let (kind, status, detail) = failed(run("http", request, effect).await);
        assert_eq!((kind.as_str(), status), ("communication", 301));
        assert!(detail.contains("still redirects after 10 redirects"), "{detail}");
        assert_eq!(circle.seen().len() - before, 11);
    }
    let unmoved = Server::constant("304 Not Modified", "", "").await;
    let request = json!({"uri": unmoved.url("/"), "redirect": true, "output": "response"});
    assert_eq!(completed(run("http", request, Read).await)["statusCode"], 304);
}

#[tokio::test]
async fn a_secret_is_sent_and_never_told() {
    // A server that echoes all it gets, in its headers too.
    let echo = |status: &'static str| {
        Server::start(move |_, seen| {
            let all = format!("{} {:?} {}", seen.line, seen.headers, String::from_utf8_lossy(&seen.body));
            let echoed = seen.header("x-key").unwrap_or_default().to_owned();
            vec![Act::Send(http(status, &format!("x-echo: {echoed}\r\ncontent-type: text/plain\r\n"), all))]
        })
    };
    let secrets: BTreeMap<String, String> =
        ["/headers/X-Key", "/authentication/password", "/body/deep/0", "/query/q"]
            .map(|pointer| (pointer.to_owned(), SECRET.to_owned()))
            .into();
    let registry = builtin();
    for status in ["200 OK", "500 Internal Server Error"] {
        let server = echo(status).await;
        for uri in [server.url("/"), "http://127.0.0.1:1/".to_owned(), "http://[".to_owned()] {
            let (mut call, told) = call(
                json!({
                    "method": "POST", "uri": uri, "headers": {"X-Key": null}, "query": {"q": null},
                    "authentication": {"scheme": "basic", "username": "u", "password": null},
                    "body": {"deep": [null]}, "output": "response",
                }),
                Write,
            );
            call.secrets = secrets.clone();
            let outcome = perform(&registry, "http", call).await;
            let shown = format!("{outcome:?} {told:?}");
            assert!(!shown.contains(&canary()), "{shown}");
            assert!(!shown.contains("dTovd29"), "nor its base64: {shown}");
        }
        let seen = &server.seen()[0];
        assert_eq!(seen.header("x-key"), Some(canary().as_str()), "it was sent");
        assert_eq!(seen.json(), json!({"deep": [canary()]}));
    }
    // Another origin does not get it by a redirect.
    let target = Server::constant("200 OK", "", "").await;
    let server =
        Server::constant("307 Temporary Redirect", &format!("location: {}\r\n", target.url("/")), "").await;
    let (mut with_header, _) =
        call(json!({"uri": server.url("/"), "headers": {"X-Key": null}, "redirect": true}), Read);
    with_header.secrets = [("/headers/X-Key".to_owned(), SECRET.to_owned())].into();
    completed(perform(&registry, "http", with_header).await);
    assert_eq!(target.seen()[0].header("x-key"), None);
    let (mut with_body, _) =
        call(json!({"method": "POST", "uri": server.url("/"), "body": null, "redirect": true}), Write);
    with_body.secrets = [("/body".to_owned(), SECRET.to_owned())].into();
    let (_, _, detail) = failed(perform(&registry, "http", with_body).await);
    assert!(detail.contains("not sent on") && target.seen().len() == 1, "{detail}");

    let (mut unset, _) = call(json!({"uri": server.url("/"), "headers": {"X-Key": null}}), Read);
    unset.secrets = [("/headers/X-Key".to_owned(), "no-such-secret".to_owned())].into();
    let (kind, _, detail) = failed(perform(&registry, "http", unset).await);
    assert_eq!(kind, "configuration");
    assert!(detail.contains("FOLDBACK_SECRET_NO_SUCH_SECRET"), "{detail}");
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_loses_and_doubles_nothing() {
    let server = Server::start(|_, _| vec![Act::Send(http("200 OK", "", "x")), Act::Close]).await;
    for n in 1..=30 {
        completed(run("http", json!({"method": "POST", "uri": server.url("/"), "body": n}), Write).await);
        assert_eq!(server.seen().len(), n);
    }
}
