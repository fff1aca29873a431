//! The kind `llm` with all that is asked: other dialects, other providers, keys, a real model.

use crate::support::models::*;
use crate::support::*;
use foldback_connectors::{Config, registry};
use foldback_core::Effect::Read;
use foldback_core::Outcome;
use serde_json::{Value, json};

#[tokio::test]
async fn streams_of_other_dialects_are_understood() {
    // No `[DONE]`, comments between events, and a character cut over two chunks.
    let server = Server::start(|_, _| {
        let first = json!({"model": "m", "choices": [{"delta": {"content": "é"}, "finish_reason": null}]})
            .to_string();
        let last = json!({"model": "m", "choices": [{"delta": {"content": "!"}, "finish_reason": "stop"}]})
            .to_string();
        let text = format!(": hello\r\n\r\ndata: {first}\r\n\r\ndata: {last}\r\n\r\n");
        let at = text.find('é').expect("there") + 1;
        let bytes = |part: &[u8]| {
            let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
            chunk.extend_from_slice(part);
            chunk.extend_from_slice(b"\r\n");
            Act::Send(chunk)
        };
        let (a, b) = text.as_bytes().split_at(at);
        vec![Act::Send(stream_head()), bytes(a), Act::Pause(30), bytes(b), Act::Send(b"0\r\n\r\n".to_vec())]
    })
    .await;
    assert_eq!(completed(ask(&fake(&server), hello()).await), "é!");
}

fn whole_answer() -> Vec<Act> {
    let body = json!({"model": "fake-1", "choices": [{"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}});
    vec![Act::Send(http("200 OK", "content-type: application/json\r\n", body.to_string()))]
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood_at_once() {
    let server = Server::start(|_, _| whole_answer()).await;
    let registry = fake(&server);
    for _ in 0..2 {
        match ask(&registry, hello()).await {
            Outcome::Completed { output, usage: Some(usage) } => {
                assert_eq!(output, "whole");
                assert_eq!((usage.input_tokens, usage.output_tokens, usage.model.as_str()), (4, 1, "fake-1"));
                assert_eq!(usage.finish_reason.as_deref(), Some("stop"));
                assert_eq!(
                    usage.raw,
                    Some(json!({"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}))
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let streamed: Vec<Value> = server.seen().iter().map(|seen| seen.json()["stream"].clone()).collect();
    assert_eq!(streamed, [true, true], "no call is lost to find it out");

    // One that fails to stream once is asked to stream the next time.
    let error = "{\"error\": {\"code\": 503, \"message\": \"busy\"}}";
    let answer = http("200 OK", "content-type: application/json\r\n", error);
    let server = Server::start(move |n, _| {
        if n == 0 { vec![Act::Send(answer.clone())] } else { chat_stream(&["in ", "pieces"], "stop") }
    })
    .await;
    let registry = fake(&server);
    assert_eq!(failed(ask(&registry, hello()).await).1, 503);
    let (call, told) = call(hello(), Read);
    assert_eq!(completed(perform(&registry, "llm", call).await), "in pieces");
    assert_eq!(told.lock().expect("a log").len(), 2);

    let server = Server::start(|_, _| whole_answer()).await;
    let url = server.url("/v1/");
    let text = format!("[providers.fake]\nkind = \"openai\"\nbase_url = \"{url}\"\nstream = false\n");
    assert_eq!(completed(ask(&configured(&text).0, hello()).await), "whole");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_key_is_sent_and_never_told() {
    let canary = canary();
    let echo = |status: &'static str, body: &'static str| {
        Server::start(move |_, seen| {
            let key = seen.header("authorization").unwrap_or_default().to_owned();
            vec![Act::Send(http(status, "content-type: application/json\r\n", body.replace("KEY", &key)))]
        })
    };
    for (status, body) in [
        ("401 Unauthorized", r#"{"error":{"message":"wrong key KEY"}}"#),
        ("500 Internal Server Error", "KEY"),
        ("200 OK", r#"{"choices":[{"message":{"content":"KEY"},"finish_reason":"stop"}]}"#),
    ] {
        let server = echo(status, body).await;
        let url = server.url("/v1");
        let text = format!(
            "[providers.fake]\nkind = \"openai\"\nbase_url = \"{url}\"\napi_key_env = \"CARGO_MANIFEST_DIR\"\nstream = false\n"
        );
        let outcome = ask(&configured(&text).0, hello()).await;
        let shown = format!("{outcome:?}");
        assert!(!shown.contains(&canary) && shown.contains("CARGO_MANIFEST_DIR"), "{shown}");
        assert_eq!(server.seen()[0].header("authorization"), Some(format!("Bearer {canary}").as_str()));
    }
    // Streamed, the key comes cut into pieces: neither the answer nor its progress tells it.
    for size in [1, 5, canary.len() - 1, canary.len()] {
        let server = Server::start(move |_, seen| {
            let key = seen.header("authorization").unwrap_or_default().trim_start_matches("Bearer ");
            let text = format!("Your key is {key}, is it not?");
            let pieces: Vec<&str> =
                text.as_bytes().chunks(size).map(|piece| str::from_utf8(piece).expect("ASCII")).collect();
            chat_stream(&pieces, "stop")
        })
        .await;
        let url = server.url("/v1");
        let text = format!(
            "[providers.fake]\nkind = \"openai\"\nbase_url = \"{url}\"\napi_key_env = \"CARGO_MANIFEST_DIR\"\n"
        );
        let (call, told) = call(hello(), Read);
        let output = completed(perform(&configured(&text).0, "llm", call).await);
        let told = told.lock().expect("a log").concat();
        assert!(!told.contains(&canary), "pieces of {size}: {told}");
        assert_eq!(told, "Your key is [CARGO_MANIFEST_DIR], is it not?", "pieces of {size}");
        assert_eq!(output, told.as_str(), "pieces of {size}");
    }
}

#[tokio::test]
async fn anthropic_gemini_and_ollama_are_spoken_to() {
    let events = |events: Vec<(&'static str, Value)>| -> Vec<Act> {
        let mut acts = vec![Act::Send(stream_head())];
        for (name, data) in events {
            let name = if name.is_empty() { String::new() } else { format!("event: {name}\n") };
            acts.push(Act::Send(chunk(&format!("{name}data: {data}\n\n"))));
        }
        acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
        acts
    };
    let provider = |kind: &str, url: String| {
        let text = format!(
            "[providers.p]\nkind = \"{kind}\"\nbase_url = \"{url}\"\napi_key_env = \"CARGO_MANIFEST_DIR\"\n"
        );
        configured(&text).0
    };
    let request =
        json!({"model": "p/m-1", "system": "s", "template": "t", "schema": schema(), "max_tokens": 9});

    let answer = move || {
        vec![
            (
                "message_start",
                json!({"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 11, "output_tokens": 1}}}),
            ),
            (
                "content_block_start",
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            ),
            (
                "content_block_delta",
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "{\"label\":\"a\"}"}}),
            ),
            ("content_block_stop", json!({"type": "content_block_stop", "index": 0})),
            (
                "message_delta",
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}),
            ),
            ("message_stop", json!({"type": "message_stop"})),
        ]
    };
    let server = Server::start(move |_, _| events(answer())).await;
    match ask(&provider("anthropic", server.url("")), request.clone()).await {
        Outcome::Completed { output, usage: Some(usage) } => {
            assert_eq!(output, json!({"label": "a"}));
            assert_eq!((usage.model.as_str(), usage.input_tokens, usage.output_tokens), ("claude-x", 11, 5));
            assert_eq!(usage.raw, Some(json!({"input_tokens": 11, "output_tokens": 5})));
        }
        other => panic!("{other:?}"),
    }
    let seen = &server.seen()[0];
    assert_eq!(seen.line, "POST /v1/messages HTTP/1.1");
    assert_eq!(seen.header("x-api-key"), Some(canary().as_str()));
    assert_eq!(seen.json()["max_tokens"], 9);
    assert_eq!(
        seen.json()["output_config"]["format"]["schema"]["required"],
        json!(["label"]),
        "{}",
        seen.json()
    );

    // A server of that protocol that needs no key is asked at the same place.
    let server = Server::start(move |_, _| events(answer())).await;
    let keyless = format!(
        "[providers.p]\nkind = \"anthropic\"\nbase_url = \"{}\"\napi_key_env = \"\"\n",
        server.url("")
    );
    assert_eq!(completed(ask(&configured(&keyless).0, request.clone()).await), json!({"label": "a"}));
    assert_eq!(server.seen()[0].line, "POST /v1/messages HTTP/1.1");
    assert_eq!(server.seen()[0].header("x-api-key"), None);

    let overloaded = || {
        vec![(
            "error",
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        )]
    };
    let server = Server::start(move |_, _| events(overloaded())).await;
    let (_, status, detail) = failed(ask(&provider("anthropic", server.url("")), request.clone()).await);
    assert!(status == 503 && detail.contains("Overloaded"), "{status} {detail}");

    let gemini = |finish: Value| {
        vec![(
            "",
            json!({"modelVersion": "gemini-x", "candidates": [{"content": {"parts": [{"text": "{\"label\":\"b\"}"}]}, "finishReason": finish}],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}}),
        )]
    };
    let server =
        Server::start(move |n, _| events(gemini(if n == 0 { json!("STOP") } else { Value::Null }))).await;
    let registry = provider("gemini", server.url("/v1beta"));
    match ask(&registry, request.clone()).await {
        Outcome::Completed { output, usage: Some(usage) } => {
            assert_eq!(output, json!({"label": "b"}));
            assert_eq!((usage.model.as_str(), usage.input_tokens, usage.output_tokens), ("gemini-x", 3, 2));
        }
        other => panic!("{other:?}"),
    }
    assert!(
        server.seen()[0].line.starts_with("POST /v1beta/models/m-1:streamGenerateContent"),
        "{:?}",
        server.seen()
    );
    assert_eq!(failed(ask(&registry, request.clone()).await).1, 503);

    let server = Server::start(|_, _| chat_stream(&["{\"label\":\"a\"}"], "stop")).await;
    let text = format!("[providers.p]\nkind = \"ollama\"\nbase_url = \"{}\"\n", server.url(""));
    assert_eq!(completed(ask(&configured(&text).0, request).await), json!({"label": "a"}));
    assert_eq!(server.seen()[0].line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(server.seen()[0].json()["response_format"]["type"], "json_schema");
}

#[tokio::test]
async fn a_scripted_provider_answers_by_rule() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(
        directory.path().join("answers.toml"),
        "[[rules]]\ncontains = \"weather\"\nstatus = 429\nretry_after_ms = 7\nanswer = \"slow\"\ntimes = 1\n\
         [[rules]]\ncontains = \"weather\"\nanswer = { label = \"a\" }\n\
         [[rules]]\ncontains = \"long\"\nanswer = \"two words\"\ndelay_ms = 20\n",
    )
    .expect("a file");
    let path = directory.path().join("foldback.toml");
    std::fs::write(&path, "[providers.s]\nkind = \"scripted\"\nfile = \"answers.toml\"\n").expect("a file");
    let registry = registry(&Config::load(Some(&path)).expect("a configuration"));
    let ask_for = |template: &str, schema: Value| {
        ask(&registry, json!({"model": "s/m", "template": template, "schema": schema}))
    };
    match ask_for("the weather", Value::Null).await {
        Outcome::Failed { error, retry_after_ms: Some(7), .. } => assert_eq!(error.status, 429),
        other => panic!("{other:?}"),
    }
    assert_eq!(completed(ask_for("the weather", schema()).await), json!({"label": "a"}));
    assert_eq!(completed(ask_for("the weather", Value::Null).await), "{\"label\":\"a\"}");
    assert_eq!(completed(ask_for("long", Value::Null).await), "two words");
    assert_eq!(failed(ask_for("else", Value::Null).await).0, "configuration");
}

/// Against a real server: `FOLDBACK_TEST_LLM_URL=http://127.0.0.1:18080/v1`, and its model's name
/// in `FOLDBACK_TEST_LLM_MODEL` where it matters. `scripts/real_model_test.sh` starts one.
#[tokio::test]
#[ignore = "needs a model server: scripts/real_model_test.sh"]
async fn a_real_model_answers() {
    let url = std::env::var("FOLDBACK_TEST_LLM_URL").expect("FOLDBACK_TEST_LLM_URL says where it is");
    let model =
        std::env::var("FOLDBACK_TEST_LLM_MODEL").unwrap_or_else(|_| "smollm2-135m-instruct".to_owned());
    // The same server speaks both protocols.
    let speaking = |kind: &str| {
        let place = if kind == "openai" { url.as_str() } else { url.trim_end_matches("/v1") };
        configured(&format!(
            "[providers.real]\nkind = \"{kind}\"\nbase_url = \"{place}\"\napi_key_env = \"\"\n"
        ))
    };
    for kind in ["openai", "anthropic"] {
        let (registry, _directory) = speaking(kind);
        // A seed, where the protocol has one; else nothing is left to chance.
        let chance =
            if kind == "openai" { json!({"seed": 7, "temperature": 0.8}) } else { json!({"temperature": 0}) };
        let mut request = json!({"model": format!("real/{model}"), "template": "The capital of France is", "max_tokens": 24});
        request.as_object_mut().expect("an object").extend(chance.as_object().expect("an object").clone());
        let (mut texts, mut read) = (Vec::new(), Vec::new());
        for system in [None, None, Some("You are a pirate.")] {
            if let Some(system) = system {
                request["system"] = json!(system);
            }
            let (call, told) = call(request.clone(), Read);
            match perform(&registry, "llm", call).await {
                Outcome::Completed { output, usage: Some(usage) } => {
                    let told = told.lock().expect("a log");
                    assert!(told.len() > 1, "{kind}: it streams: {told:?}");
                    assert_eq!(Value::String(told.concat()), output, "{kind}");
                    assert!(
                        usage.input_tokens > 0 && usage.output_tokens > 0 && usage.raw.is_some(),
                        "{kind}: {usage:?}"
                    );
                    assert!(usage.output_tokens <= 24, "{kind}: {usage:?}");
                    texts.push(output);
                    read.push(usage.input_tokens);
                }
                other => panic!("{kind}: {other:?}"),
            }
        }
        assert_eq!(texts[0], texts[1], "{kind}: one request, one text");
        assert_eq!(read[0], read[1], "{kind}");
        // What the system prompt says arrives: it is counted, and it changes what is answered.
        assert!(read[2] != read[1] && texts[2] != texts[1], "{kind}: {read:?} {texts:?}");
    }
    let (registry, _directory) = speaking("openai");
    let by_schema = json!({"model": format!("real/{model}"), "template": "Classify: 'My invoice is wrong.'", "schema": schema(), "max_tokens": 40});
    let output = completed(ask(&registry, by_schema).await);
    assert!(["a", "b"].contains(&output["label"].as_str().unwrap_or_default()), "{output}");
    let cut = json!({"model": format!("real/{model}"), "template": "Classify.", "schema": schema(), "max_tokens": 2});
    assert!(matches!(ask(&registry, cut).await, Outcome::Rejected { .. }));
    // A cut that was asked for is marked; one before the first word of JSON is rejected, as above.
    let cut = json!({"model": format!("real/{model}"), "template": "Count to ten.", "max_tokens": 2});
    for kind in ["openai", "anthropic"] {
        let (registry, _directory) = speaking(kind);
        match ask(&registry, cut.clone()).await {
            Outcome::Completed { usage: Some(usage), .. } => {
                assert_eq!(usage.finish_reason.as_deref(), Some("length"), "{kind}: {usage:?}");
                assert!(
                    (1..=2).contains(&usage.output_tokens) && usage.micro_usd.is_none(),
                    "{kind}: {usage:?}"
                );
            }
            other => panic!("{kind}: {other:?}"),
        }
    }
}
