//! The kind `llm`: requests, answers, rejections and errors, against a fake that speaks as OpenAI.

use std::time::Duration;

use crate::support::models::*;
use crate::support::*;
use foldback_core::Effect::{Read, Write};
use foldback_core::{Failure, Outcome, Usage};
use serde_json::{Value, json};

#[tokio::test]
async fn a_request_is_sent_exactly_and_the_answer_streams() {
    let server = Server::start(|_, _| chat_stream(&["Hel", "lo ", "wörld"], "stop")).await;
    let (call, told) = call(
        json!({
            "model": "fake/some/model-low", "system": "Be brief.",
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}],
            "template": "About {topic}: {data}, {{braces}}", "vars": {"topic": "rust", "data": {"n": [1]}},
            "temperature": 0.25, "seed": 42, "max_tokens": 100,
        }),
        Read,
    );
    let outcome = perform(&fake(&server), "llm", call).await;
    let seen = &server.seen()[0];
    assert_eq!(seen.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(seen.header("authorization"), None, "no key is made up");
    assert_eq!(
        seen.json(),
        json!({
            "model": "some/model-low", "stream": true, "stream_options": {"include_usage": true},
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "About rust: {\"n\":[1]}, {braces}"},
            ],
            "temperature": 0.25, "seed": 42, "max_tokens": 100,
        })
    );
    assert_eq!(*told.lock().expect("a log"), ["Hel", "lo ", "wörld"]);
    let usage = Usage {
        model: "fake-1".to_owned(),
        input_tokens: 7,
        output_tokens: 3,
        finish_reason: Some("stop".to_owned()),
        raw: Some(json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})),
        ..Usage::default()
    };
    assert_eq!(outcome, Outcome::Completed { output: json!("Hello wörld"), usage: Some(usage) });
}

#[tokio::test]
async fn tokens_are_told_before_the_answer_is_complete() {
    let server = Server::start(|_, _| {
        let mut acts = chat_stream(&["first", "second"], "stop");
        acts.insert(2, Act::Hang);
        acts
    })
    .await;
    let (call, told) = call(hello(), Read);
    let registry = fake(&server);
    let work = registry.get("llm").expect("a kind").perform(call);
    assert!(tokio::time::timeout(Duration::from_millis(1_500), work).await.is_err());
    assert_eq!(*told.lock().expect("a log"), ["first"]);
}

#[tokio::test]
async fn an_answer_by_schema_is_parsed_and_the_schema_sent() {
    let server = Server::start(|_, _| chat_stream(&["{\"label\"", ": \"a\"}"], "stop")).await;
    let mut request = hello();
    request["schema"] = schema();
    assert_eq!(completed(ask(&fake(&server), request).await), json!({"label": "a"}));
    let sent = server.seen()[0].json();
    let expected =
        json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema()}});
    assert_eq!(sent["response_format"], expected);
}

#[tokio::test]
async fn an_answer_that_misses_is_rejected_and_repaired() {
    let server = Server::start(|n, _| match n {
        0 => chat_stream(&["{\"label\": ", "\"z\"}"], "stop"),
        1 => chat_stream(&["{\"label\": "], "length"),
        _ => chat_stream(&["{\"label\": \"b\"}"], "stop"),
    })
    .await;
    let registry = fake(&server);
    let mut request = hello();
    request["schema"] = schema();
    let mut rejected: Option<(Value, Failure)> = None;
    for (expected, part) in
        [(json!({"label": "z"}), "\"z\" is not one of"), (json!("{\"label\": "), "cut at its bound")]
    {
        let (mut call, _) = call(request.clone(), Read);
        call.rejected = rejected.take();
        match perform(&registry, "llm", call).await {
            Outcome::Rejected { output, error, usage } => {
                assert_eq!(output, expected);
                assert_eq!((error.short_type(), error.status), ("validation", 400));
                assert!(error.detail.as_deref().is_some_and(|detail| detail.contains(part)), "{error:?}");
                assert_eq!(usage.expect("usage").input_tokens, 7);
                rejected = Some((output, error));
            }
            other => panic!("{other:?}"),
        }
    }
    let (mut call, _) = call(request, Read);
    call.rejected = rejected;
    assert_eq!(completed(perform(&registry, "llm", call).await), json!({"label": "b"}));
    let sent = server.seen()[1].json();
    let messages = sent["messages"].as_array().expect("messages");
    assert_eq!(messages[0], json!({"role": "user", "content": "Hello"}));
    assert_eq!(messages[1], json!({"role": "assistant", "content": "{\"label\":\"z\"}"}));
    let last = messages[2]["content"].as_str().expect("a text");
    assert!(last.contains("\"z\" is not one of") && last.contains("JSON only"), "{last}");
    assert_eq!(
        server.seen()[2].json()["messages"][1]["content"],
        "{\"label\": ",
        "a text goes back as it was"
    );
}

#[tokio::test]
async fn errors_of_a_provider_as_a_table() {
    for (status, headers, body, expected, wait, part) in [
        (
            "429 Too Many Requests",
            "retry-after: 2\r\n",
            r#"{"error":{"message":"slow down"}}"#,
            ("communication", 429),
            Some(2_000),
            "slow down",
        ),
        (
            "429 Too Many Requests",
            "retry-after-ms: 150\r\n",
            "",
            ("communication", 429),
            Some(150),
            "no explanation",
        ),
        (
            "503 Service Unavailable",
            "",
            r#"{"error":{"message":"Loading model","code":503}}"#,
            ("communication", 503),
            None,
            "Loading model",
        ),
        ("529 Overloaded", "", r#"{"error":"busy"}"#, ("communication", 503), None, "busy"),
        ("400 Bad Request", "", r#"{"detail":"too long"}"#, ("communication", 400), None, "too long"),
        (
            "401 Unauthorized",
            "",
            r#"{"error":{"message":"bad key"}}"#,
            ("authentication", 401),
            None,
            "api_key_env",
        ),
        ("403 Forbidden", "", "<html>", ("authorization", 403), None, "<html>"),
        ("302 Found", "location: http://127.0.0.1:1/\r\n", "", ("communication", 302), None, ""),
    ] {
        let server = Server::constant(status, headers, body).await;
        match ask(&fake(&server), hello()).await {
            Outcome::Failed { error, retry_after_ms, .. } => {
                assert_eq!((error.short_type(), error.status), expected, "{status}: {error:?}");
                assert_eq!(retry_after_ms, wait, "{status}");
                assert!(error.detail.as_deref().is_some_and(|detail| detail.contains(part)), "{error:?}");
            }
            other => panic!("{status}: {other:?}"),
        }
        assert_eq!(server.seen().len(), 1, "{status}: nothing is sent twice");
    }
}

#[tokio::test]
async fn a_broken_connection_is_told_for_what_it_is() {
    let (registry, _directory) =
        configured("[providers.fake]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n");
    // Nobody listens on this machine: told with what to do, worth one more attempt and no third.
    for (attempt, expected) in [(1, 503), (2, 502)] {
        let (mut call, _) = call(hello(), Read);
        call.attempt = attempt;
        let (kind, status, detail) = failed(perform(&registry, "llm", call).await);
        assert_eq!((kind.as_str(), status), ("communication", expected), "{detail}");
        assert!(detail.contains("hint: start the server"), "{detail}");
    }

    // Closed without an answer; cut by force; ended politely, but before the answer was complete.
    let cut = |end: Vec<Act>| {
        let mut acts: Vec<Act> = chat_stream(&["one", "two"], "stop").into_iter().take(3).collect();
        acts.extend(end);
        acts
    };
    let server = Server::start(|_, _| vec![Act::Close]).await;
    let told = unknown(ask(&fake(&server), hello()).await);
    assert!(told.contains("`fake`"), "{told}");
    // An answer that had begun is paid for.
    for end in [vec![], vec![Act::Send(b"0\r\n\r\n".to_vec())]] {
        let end = std::sync::Mutex::new(end);
        let server = Server::start(move |_, _| {
            let mut end = std::mem::take(&mut *end.lock().expect("acts"));
            end.push(Act::Close);
            cut(end)
        })
        .await;
        match ask(&fake(&server), hello()).await {
            Outcome::Failed { error, usage: Some(usage), .. } => {
                let detail = error.detail.unwrap_or_default();
                assert_eq!((error.status, &*error.title), (503, "No answer"), "{detail}");
                assert!(detail.contains("broke off after 6 characters"), "{detail}");
                assert_eq!((usage.input_tokens, usage.output_tokens, usage.is_estimated), (2, 2, true));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(server.seen().len(), 1);
    }
    // Of a call that is said to change the world, nobody knows whether it did.
    let server = Server::start(move |_, _| cut(vec![Act::Close])).await;
    let (call, _) = call(hello(), Write);
    unknown(perform(&fake(&server), "llm", call).await);
    assert_eq!(server.seen().len(), 1);

    // An error in the middle of a stream is the provider's word.
    let server = Server::start(|_, _| {
        let mut acts: Vec<Act> = chat_stream(&["one"], "stop").into_iter().take(2).collect();
        acts.push(Act::Send(chunk("data: {\"error\":{\"code\":503,\"message\":\"out of memory\"}}\n\n")));
        acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
        acts
    })
    .await;
    let (_, status, detail) = failed(ask(&fake(&server), hello()).await);
    assert!(status == 503 && detail.contains("out of memory"), "{status} {detail}");

    let server =
        Server::start(|_, _| vec![Act::Send(stream_head()), Act::Send(chunk("data: {oops\n\n")), Act::Hang])
            .await;
    assert_eq!(failed(ask(&fake(&server), hello()).await).1, 502);
}

#[tokio::test]
async fn requests_that_cannot_be_asked_are_configuration_failures() {
    let registry = builtin();
    for (request, part) in [
        (json!({"template": "x"}), "`model` is missing"),
        (json!({"model": "gpt", "template": "x"}), "not written provider/model"),
        (json!({"model": "nope/x", "template": "x"}), "unknown provider `nope`"),
        (json!({"model": "ollama/x"}), "neither `template` nor `messages`"),
        (json!({"model": "ollama/x", "template": "{y}"}), "no variable `y`"),
        (json!({"model": "ollama/x", "template": "x", "temprature": 1}), "`temprature` is not known"),
        (json!({"model": "ollama/x", "template": "x", "seed": -1}), "`seed`"),
        (json!({"model": "ollama/x", "template": "x", "max_tokens": 1.5}), "`max_tokens`"),
        (json!({"model": "ollama/x", "template": "x", "schema": {"type": "objekt"}}), "`schema`"),
        (json!({"model": "ollama/x", "messages": [{"role": "bot", "content": "x"}]}), "`messages[0]`"),
        (json!({"model": "ollama/x", "messages": [{"role": "user"}]}), "no `content`"),
    ] {
        let (kind, status, detail) = failed(ask(&registry, request.clone()).await);
        assert_eq!((kind.as_str(), status), ("configuration", 400), "{request}");
        assert!(detail.contains(part), "{request}: {detail}");
    }
}
