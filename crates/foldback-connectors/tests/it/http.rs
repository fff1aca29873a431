//! The kind `http` against servers on loopback.

use std::time::Duration;

use crate::support::*;
use foldback_core::Effect::{Read, Write};
use foldback_core::{Outcome, limits};
use serde_json::{Value, json};

#[tokio::test]
async fn content_is_told_by_its_type() {
    let table: Vec<(&str, &[u8], Value)> = vec![
        ("content-type: application/json\r\n", b"{\"a\": [1, 2.5]}", json!({"a": [1, 2.5]})),
        ("content-type: application/problem+json; charset=utf-8\r\n", b"\xef\xbb\xbf[]", json!([])),
        ("content-type: application/json\r\n", b"", Value::Null),
        ("content-type: text/plain\r\n", b"[1]", json!("[1]")),
        ("content-type: text/plain\r\n", b"", json!("")),
        ("", b"[1]", json!([1])),
        ("", b"hello", json!("hello")),
        ("content-type: image/png\r\n", b"\xff\xd8\x00", json!("data:image/png;base64,/9gA")),
        ("content-type: Image/JPEG; q=1\r\n", b"abc", json!("data:image/jpeg;base64,YWJj")),
        ("content-type: image/svg+xml\r\n", b"<svg/>", json!("<svg/>")),
        ("content-type: application/pdf\r\n", b"%PDF", json!("data:application/pdf;base64,JVBERg==")),
        ("content-type: application/octet-stream\r\n", b"as text", json!("as text")),
        ("content-type: text/plain\r\n", b"\xff", json!("data:text/plain;base64,/w==")),
        ("content-type: a b/c\r\n", b"\xff", json!("data:application/octet-stream;base64,/w==")),
        ("", b"\xff", json!("data:application/octet-stream;base64,/w==")),
        ("content-type: text/plain; charset=iso-8859-1\r\n", b"caf\xe9", json!("café")),
        ("content-type: application/json; charset=windows-1252\r\n", b"[\"\x80\"]", json!(["€"])),
        ("content-type: text/html; charset=Shift_JIS\r\n", b"\x83\x65", json!("テ")),
        ("content-type: text/csv\r\n", b"\xff\xfea\0", json!("a")),
        ("content-type: text/plain; charset=utf-16le\r\n", b"a\0\0", json!("data:text/plain;base64,YQAA")),
        ("content-type: image/svg+xml; charset=latin1\r\n", b"<\xe9/>", json!("<é/>")),
        ("content-type: image/png; charset=latin1\r\n", b"\xe9", json!("data:image/png;base64,6Q==")),
    ];
    for (headers, body, expected) in table {
        let server = Server::constant("200 OK", headers, body).await;
        let output = completed(run("http", json!({"method": "GET", "uri": server.url("/")}), Read).await);
        assert_eq!(output, expected, "{headers:?} {body:?}");
        let raw = json!({"method": "GET", "uri": server.url("/"), "output": "raw"});
        let raw = completed(run("http", raw, Read).await);
        assert_eq!(raw.as_str().map(|text| text.len() % 4), Some(0), "base64: {raw}");
    }
}

/// What no value can keep as it is: refused with its place, with the type of JSON and without one.
#[tokio::test]
async fn an_answer_that_would_be_changed_is_refused() {
    for headers in ["content-type: application/json\r\n", ""] {
        for (body, wanted) in [
            ("{\"id\": 18446744073709551616}", "outside 64 bits at line 1 column 8"),
            ("[1e400]", "outside 64 bits at line 1 column 2"),
            ("{\"a\": 1, \"a\": 2}", "stands twice in one object at line 1"),
        ] {
            let server = Server::constant("200 OK", headers, body).await;
            let request = json!({"method": "GET", "uri": server.url("/")});
            let (_, _, detail) = failed(run("http", request, Read).await);
            assert!(detail.contains(wanted), "{headers:?} {body}: {detail}");
        }
    }
}

#[tokio::test]
async fn a_request_is_sent_as_asked() {
    let server = Server::constant(
        "201 Created",
        "content-type: application/json\r\nx-a: 1\r\nx-a: 2\r\n",
        "{\"id\":1}",
    )
    .await;
    let request = json!({
        "method": "post", "uri": server.url("/items?x=1"), "query": {"q": "a b&c", "n": 2, "tags": ["r", "s"], "no": null},
        "headers": {"X-Mine": "yes", "X-None": null}, "body": {"name": "é"}, "output": "response",
        "authentication": {"scheme": "bearer", "token": "t-1"},
    });
    let output = completed(run("http", request, Write).await);
    let seen = &server.seen()[0];
    assert_eq!(seen.line, "POST /items?x=1&q=a+b%26c&n=2&tags=r&tags=s HTTP/1.1");
    assert_eq!(seen.json(), json!({"name": "é"}));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("idempotency-key"), Some("the-idempotency-key"));
    assert_eq!(seen.header("authorization"), Some("Bearer t-1"));
    assert_eq!(seen.header("x-mine"), Some("yes"));
    assert!(seen.header("accept").is_some_and(|accept| accept.starts_with("application/json")));
    assert_eq!(output["statusCode"], 201);
    assert_eq!(output["content"], json!({"id": 1}));
    assert_eq!(output["headers"]["x-a"], "1, 2");
    assert_eq!(output["request"]["method"], "POST");
    assert_eq!(output["request"]["headers"]["x-mine"], "yes");
    assert_eq!(output["request"]["headers"].get("authorization"), None);
}

#[tokio::test]
async fn bodies_follow_the_content_type() {
    let server = Server::constant("204 No Content", "", "").await;
    let text = "text/plain";
    let form = "application/x-www-form-urlencoded";
    for (content_type, body, expected) in [
        (None, json!("text"), "\"text\""),
        (None, json!([1, {"a": null}]), "[1,{\"a\":null}]"),
        (Some(text), json!("as it is"), "as it is"),
        (Some(form), json!({"a": "x y", "b": 1}), "a=x+y&b=1"),
        (Some("application/vnd.x+json"), json!("text"), "\"text\""),
    ] {
        let mut request = json!({"method": "PUT", "uri": server.url("/"), "body": body});
        if let Some(content_type) = content_type {
            request["headers"] = json!({"Content-Type": content_type});
        }
        assert_eq!(completed(run("http", request, Write).await), Value::Null);
        let seen = server.seen().pop().expect("a request");
        assert_eq!(String::from_utf8_lossy(&seen.body), expected);
        assert_eq!(seen.header("content-type"), Some(content_type.unwrap_or("application/json")));
    }
}

#[tokio::test]
async fn a_request_without_a_body_says_so_where_one_is_expected() {
    let server = Server::start(|_, seen| {
        let is_asked = !["GET", "HEAD", "DELETE"].iter().any(|method| seen.line.starts_with(method));
        let has_length = seen.header("content-length").is_some();
        let status = if is_asked == has_length { "204 No Content" } else { "411 Length Required" };
        vec![Act::Send(format!("HTTP/1.1 {status}\r\n\r\n").into_bytes()), Act::Close]
    })
    .await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD"] {
        let request = json!({"method": method, "uri": server.url("/")});
        assert_eq!(completed(run("http", request, Write).await), Value::Null, "{method}");
    }
    // Behind a redirect to GET there is nothing to be expected any more.
    let moved = format!("location: {}\r\n", server.url("/"));
    let first = Server::constant("303 See Other", &moved, "").await;
    let request = json!({"method": "POST", "uri": first.url("/"), "redirect": true});
    assert_eq!(completed(run("http", request, Write).await), Value::Null);
    assert_eq!(first.seen()[0].header("content-length"), Some("0"));
}

#[tokio::test]
async fn a_write_carries_one_key_over_all_its_attempts_and_a_read_none() {
    let server = Server::constant("200 OK", "", "").await;
    let request = json!({"method": "POST", "uri": server.url("/"), "body": {}});
    let registry = builtin();
    for attempt in 1..=3 {
        let (mut call, _) = call(request.clone(), Write);
        call.attempt = attempt;
        completed(perform(&registry, "http", call).await);
    }
    let own = json!({"method": "POST", "uri": server.url("/"), "headers": {"idempotency-key": "mine"}});
    completed(run("http", own, Write).await);
    completed(run("http", json!({"uri": server.url("/")}), Read).await);
    let seen = server.seen();
    let keys: Vec<_> = seen.iter().map(|seen| seen.header("idempotency-key")).collect();
    let key = Some("the-idempotency-key");
    assert_eq!(keys, [key, key, key, Some("mine"), None]);
    let connections: Vec<_> = seen.iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [1, 2, 3, 4, 5], "each write has a connection of its own");
}

#[tokio::test]
async fn reads_keep_their_connection() {
    let server = Server::constant("200 OK", "", "x").await;
    for _ in 0..3 {
        completed(run("http", json!({"uri": server.url("/")}), Read).await);
    }
    assert!(server.seen().iter().all(|seen| seen.connection == 1));
}

#[tokio::test]
async fn an_error_status_is_a_known_outcome() {
    let long = "x".repeat(2_000);
    for (status, headers, body, detail, wait) in [
        ("404 Not Found", "", "no such thing", "no such thing", None),
        ("429 Too Many Requests", "retry-after: 2\r\n", "slow", "slow", Some(2_000)),
        (
            "503 Service Unavailable",
            "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            "",
            "has no body",
            Some(0),
        ),
        ("500 Internal Server Error", "content-type: application/json\r\n", "{broken", "{broken", None),
        ("418 I'm a teapot", "", long.as_str(), "xxx…", None),
    ] {
        let server = Server::constant(status, headers, body).await;
        match run("http", json!({"method": "POST", "uri": server.url("/x")}), Write).await {
            Outcome::Failed { error, retry_after_ms, .. } => {
                assert_eq!(error.short_type(), "communication");
                assert!(status.starts_with(&error.status.to_string()), "{error:?}");
                assert!(status.ends_with(&error.title), "{error:?}");
                let told = error.detail.expect("a detail");
                assert!(told.contains(detail) && told.chars().count() <= 501, "{told}");
                assert_eq!(retry_after_ms, wait);
            }
            other => panic!("{status}: {other:?}"),
        }
        assert_eq!(server.seen().len(), 1, "nothing is sent twice");
    }
}

#[tokio::test]
async fn what_did_not_leave_is_known_and_what_may_have_is_not() {
    // A port that nobody listens on.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let free = nobody.local_addr().expect("an address");
    drop(nobody);
    let refused = json!({"method": "POST", "uri": format!("http://{free}/secret-path?token=1")});
    let (kind, status, detail) = failed(run("http", refused, Write).await);
    assert_eq!((kind.as_str(), status), ("communication", 503));
    assert!(detail.contains("refused") && !detail.contains("token"), "{detail}");

    let (_, status, detail) =
        failed(run("http", json!({"uri": "http://no-such-host.invalid/"}), Write).await);
    assert_eq!(status, 503, "{detail}");

    // TLS to a server that does not speak it fails before the request is sent.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let tls = json!({"method": "POST", "uri": format!("https://{address}/")});
    assert_eq!(failed(run("http", tls, Write).await).1, 503);

    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let cut_chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec();
    let json_that_is_none = http("200 OK", "content-type: application/json\r\n", "{oops");
    for (name, acts, reason) in [
        ("closes", vec![], ""),
        ("garbage", vec![b"garbage\r\n\r\n".to_vec()], ""),
        ("cut", vec![cut], "broke off"),
        ("cut chunk", vec![cut_chunk], "broke off"),
        ("no JSON", vec![json_that_is_none], "says it is JSON"),
    ] {
        let acts = std::sync::Arc::new(acts);
        let server = Server::start(move |_, _| {
            acts.iter().map(|bytes| Act::Send(bytes.clone())).chain([Act::Close]).collect()
        })
        .await;
        let told = unknown(run("http", json!({"method": "POST", "uri": server.url("/")}), Write).await);
        assert!(told.contains(reason), "{name}: {told}");
        assert_eq!(server.seen().len(), 1, "{name}: nothing is sent twice");
    }

    // The same answer to a read is a failure that is told.
    let server = Server::constant("200 OK", "content-type: application/json\r\n", "{oops").await;
    assert_eq!(failed(run("http", json!({"uri": server.url("/")}), Read).await).1, 502);

    // A complete status is known, also where its body is cut.
    let server = Server::start(|_, _| {
        vec![Act::Send(b"HTTP/1.1 409 Conflict\r\ncontent-length: 100\r\n\r\nhalf".to_vec()), Act::Close]
    })
    .await;
    let (_, status, detail) =
        failed(run("http", json!({"method": "POST", "uri": server.url("/")}), Write).await);
    assert_eq!((status, detail.as_str()), (409, "half"));
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_with_the_future() {
    let server = Server::start(|_, _| vec![Act::Hang]).await;
    let (call, _) = call(json!({"uri": server.url("/")}), Read);
    let work = builtin().get("http").expect("a kind").perform(call);
    assert!(tokio::time::timeout(Duration::from_millis(200), work).await.is_err());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_is_bounded() {
    let ten = vec![b'x'; 10 * 1024 * 1024];
    let server = Server::constant("200 OK", "content-type: text/plain\r\n", ten).await;
    let output = completed(run("http", json!({"uri": server.url("/")}), Read).await);
    assert_eq!(output.as_str().map(str::len), Some(10 * 1024 * 1024));

    // Endless, and its length not told.
    let endless = || {
        Server::start(|_, _| {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            let piece = chunk(&"x".repeat(1024 * 1024));
            let pieces = (0..64).map(move |_| Act::Send(piece.clone()));
            [Act::Send(head)].into_iter().chain(pieces).collect()
        })
    };
    let (kind, _, detail) = failed(run("http", json!({"uri": endless().await.url("/")}), Read).await);
    assert_eq!(kind, "runtime");
    assert!(detail.contains(&limits::STEP_OUTPUT_MAX_BYTES.to_string()), "{detail}");
    let told = unknown(run("http", json!({"method": "POST", "uri": endless().await.url("/")}), Write).await);
    assert!(told.contains("longer"), "a write that was answered so may have landed: {told}");

    // So are its head, and what stands beside its chunks.
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (name, begin, piece) in [
        ("header", "HTTP/1.1 200 OK\r\nx-a: ".to_owned(), "a"),
        ("headers", "HTTP/1.1 200 OK\r\n".to_owned(), "x-a: 1\r\n"),
        ("extension", format!("{head}1;"), "a"),
        ("trailer", format!("{head}0\r\nx-a: "), "a"),
    ] {
        let (begin, piece) = (begin.into_bytes(), piece.repeat(64 * 1024).into_bytes());
        let server = Server::start(move |_, _| {
            let piece = piece.clone();
            let pieces = (0..1024).map(move |_| Act::Send(piece.clone()));
            [Act::Send(begin.clone())].into_iter().chain(pieces).collect()
        })
        .await;
        let began = std::time::Instant::now();
        unknown(run("http", json!({"method": "POST", "uri": server.url("/")}), Write).await);
        assert!(began.elapsed() < Duration::from_secs(5), "{name}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_a_configuration_failure() {
    for (request, part) in [
        (json!({"method": "GET"}), "`uri` is missing"),
        (json!({"uri": "not an address"}), "`uri` is no absolute address"),
        (json!({"uri": "ftp://x/"}), "starts with `ftp:`"),
        (json!({"uri": "http://x/", "method": "G T"}), "no HTTP method"),
        (json!({"uri": "http://x/", "method": "CONNECT"}), "opens a tunnel"),
        (json!({"uri": "http://x/", "headers": {"Content-Length": 3}}), "leave `Content-Length` out"),
        (json!({"uri": "http://x/", "headers": {"content-length": null}}), "leave `content-length` out"),
        (json!({"uri": "http://x/", "headers": {"Transfer-Encoding": "chunked"}}), "`Transfer-Encoding`"),
        (json!({"uri": "http://x/", "headers": {"CONNECTION": "keep-alive"}}), "leave `CONNECTION` out"),
        (json!({"uri": "http://x/", "headers": {"Upgrade": "h2c"}}), "leave `Upgrade` out"),
        (json!({"uri": "http://x/", "headers": {"a b": "c"}}), "no name of a header"),
        (json!({"uri": "http://x/", "headers": {"a": "c\nd"}}), "value of `a`"),
        (json!({"uri": "http://x/", "headers": ["a"]}), "`headers` is not an object"),
        (json!({"uri": "http://x/", "output": "xml"}), "`output`"),
        (json!({"uri": "http://x/", "redirect": "yes"}), "`redirect`"),
        (json!({"uri": "http://x/", "endpoint": "y"}), "`endpoint` is not known"),
        (json!({"uri": "http://x/", "authentication": {"scheme": "digest"}}), "`digest`"),
        (json!({"uri": "http://x/", "authentication": {"scheme": "bearer"}}), "`authentication.token`"),
        (json!("text"), "no object"),
    ] {
        let (kind, status, detail) = failed(run("http", request.clone(), Write).await);
        assert_eq!((kind.as_str(), status), ("configuration", 400), "{request}");
        assert!(detail.contains(part), "{request}: {detail}");
    }
}
