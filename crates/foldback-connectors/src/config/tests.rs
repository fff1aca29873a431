//! Configurations as tables.

use super::provider::address;
use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/nowhere/foldback.toml"))
}

#[test]
fn the_great_ones_need_no_file() {
    let config = Config::default();
    let shown: Vec<_> = crate::providers(&config)
        .into_iter()
        .map(|status| (status.name, status.kind, status.api_key_env.unwrap_or_default()))
        .collect();
    let row = |name: &str, key: &str| (name.to_owned(), name.to_owned(), key.to_owned());
    let expected = [
        row("anthropic", "ANTHROPIC_API_KEY"),
        row("gemini", "GEMINI_API_KEY"),
        row("ollama", ""),
        row("openai", "OPENAI_API_KEY"),
    ];
    assert_eq!(shown, expected);
    check_model(&config, "ollama/llama3:8b").expect("no key is needed");
}

#[test]
fn a_file_adds_and_changes_providers() {
    let config = parse(
        "[providers.local]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:8080/v1\"\n\
         [providers.openai]\nbase_url = \"http://localhost:1/v1/\"\n\
         [providers.lan]\nkind = \"openai\"\nbase_url = \"http://box:8000/v1\"\napi_key_env = \"\"\n\
         [providers.groq]\nkind = \"openai\"\nbase_url = \"https://api.groq.com/openai/v1\"\napi_key_env = \"CARGO_PKG_NAME\"\n\
         [providers.proxy]\nkind = \"anthropic\"\nbase_url = \"https://proxy.example/anthropic\"\napi_key_env = \"NO_SUCH_VARIABLE_X\"\n",
    )
    .expect("a configuration");
    let local = &config.providers["local"];
    assert_eq!(
        (local.base_url.as_str(), local.is_loopback, local.api_key_env.is_none()),
        ("http://127.0.0.1:8080/v1/", true, true)
    );
    assert_eq!(config.providers["openai"].api_key_env.as_deref(), Some("OPENAI_API_KEY"));
    assert_eq!(config.providers["proxy"].base_url, "https://proxy.example/anthropic/v1/");
    for model in ["local/x", "openai/x", "lan/x", "groq/meta/llama"] {
        check_model(&config, model).unwrap_or_else(|problem| panic!("{model}: {problem}"));
    }
    let (provider, model) = resolve(&config, "groq/meta/llama").expect("known");
    assert_eq!((provider.name.as_str(), model), ("groq", "meta/llama"));
    let problem = check_model(&config, "proxy/claude").expect_err("no key");
    assert!(
        problem.message.contains("NO_SUCH_VARIABLE_X") && problem.hint.contains("NO_SUCH_VARIABLE_X"),
        "{problem}"
    );
}

#[test]
fn models_that_cannot_be_asked() {
    let config = parse("[providers.far]\nkind = \"openai\"\nbase_url = \"https://far.example/v1\"\n")
        .expect("a configuration");
    for (model, part) in [
        ("gpt-5", "not written provider/model"),
        ("/x", "not written provider/model"),
        ("openai/", "not written provider/model"),
        ("nope/x", "unknown provider `nope`"),
        ("far/x", "names no variable"),
    ] {
        let problem = check_model(&config, model).expect_err(model);
        assert!(problem.message.contains(part), "{model}: {problem}");
        assert!(!problem.hint.is_empty());
    }
}

#[test]
fn errors_name_the_line_and_never_a_value() {
    const KEY: &str = "sk-AbCdEf0123456789AbCdEf0123456789";
    for (text, line, part) in [
        ("[providers.x]\nkind = \"openai\"\napi_key = \"KEY\"\n", 3, "unknown field `api_key`"),
        ("[provider.x]\n", 1, "unknown field `provider`"),
        ("\n[providers.x]\nkind = \"KEY\"\n", 2, "`kind` is not known"),
        ("[providers.x]\nbase_url = \"http://x\"\n", 1, "`kind` is missing"),
        ("[providers.x]\nkind = \"openai\"\nbase_url = \"ftp://KEY\"\n", 1, "`base_url` is no http address"),
        ("[providers.x]\nkind = \"openai\"\napi_key_env = \"KEY\"\n", 1, "`api_key_env` is no name"),
        (
            "[providers.x]\nkind = \"openai\"\napi_key_env = \"AbCdEf0123456789AbCdEf\"\n",
            1,
            "`api_key_env` is no name",
        ),
        ("[providers]\nx = \"KEY\"\n", 2, "not as expected"),
        ("[providers.x]\nkind = \"openai\"\nkind = \"openai\"\n", 3, "duplicate"),
        ("[providers.x\n", 1, ""),
        ("[providers.x]\nkind = \"scripted\"\n", 1, "`file` is missing"),
        ("[providers.x]\nkind = \"scripted\"\nfile = \"no.toml\"\n", 1, "no.toml"),
        ("[providers.x]\nkind = \"openai\"\nfile = \"no.toml\"\n", 1, "`file` is for"),
        ("[providers.\"a/b\"]\nkind = \"openai\"\n", 1, "no slash"),
    ] {
        let error = parse(&text.replace("KEY", KEY)).expect_err(text);
        assert!(error.message.starts_with(&format!("/nowhere/foldback.toml:{line}: ")), "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
        assert!(!error.hint.is_empty());
        let shown = format!("{error:?}");
        assert!(!shown.contains("AbCdEf"), "{shown}");
    }
    let missing = Config::load(Some(Path::new("/nowhere/foldback.toml"))).expect_err("no file");
    assert!(missing.message.contains("/nowhere/foldback.toml"), "{missing}");
}

#[test]
fn addresses_as_the_environment_gives_them() {
    for (kind, text, expected) in [
        (Kind::Ollama, "0.0.0.0", Some("http://127.0.0.1:11434/")),
        (Kind::Ollama, "box:1234", Some("http://box:1234/")),
        (Kind::Ollama, "http://box:1234/v1", Some("http://box:1234/")),
        (Kind::Openai, "https://x.example/v1?api-version=1", Some("https://x.example/v1/?api-version=1")),
        (Kind::Openai, "127.0.0.1:8080/v1", Some("http://127.0.0.1:8080/v1/")),
        (Kind::Anthropic, "https://a.example/v1/", Some("https://a.example/v1/")),
        (Kind::Openai, "http://user:password@x.example/v1", None),
        (Kind::Gemini, "unix:///x", None),
    ] {
        let got = address(&kind, text).map(|(url, _)| url);
        assert_eq!(got.as_deref(), expected, "{text}");
    }
}

#[test]
fn a_path_goes_before_the_query() {
    assert_eq!(under("http://x/v1/?a=b", "models"), "http://x/v1/models?a=b");
    assert_eq!(under("http://x/v1/", "models"), "http://x/v1/models");
}

#[tokio::test]
async fn a_probe_tells_what_it_met() {
    let status = |base_url: &str| crate::ProviderStatus {
        name: "x".to_owned(),
        kind: "openai".to_owned(),
        base_url: base_url.to_owned(),
        api_key_env: Some("CARGO_PKG_NAME".to_owned()),
        is_key_set: true,
    };
    let told = crate::probe(&status("http://127.0.0.1:1/")).await.expect_err("nobody is there");
    assert!(told.contains("not reachable"), "{told}");
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\n{\"data\":[{\"id\":\"gpt-1\"}]}",
            Ok("reachable, 1 model"),
        ),
        (
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
            Err("reachable; refuses the key in CARGO_PKG_NAME (401)"),
        ),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 2048];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
        });
        let told = crate::probe(&status(&format!("http://{address}/v1/"))).await;
        assert_eq!(told.as_deref().map_err(String::as_str), expected);
    }
}
