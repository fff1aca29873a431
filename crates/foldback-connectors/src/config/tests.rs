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
        ("[providers.x]\nkind = \"openai\"\nprices = \"nonsense\"\n", 1, "`prices` names no price list"),
        ("[providers.x]\nkind = \"openai\"\nprices = 7\n", 1, "`prices`: "),
        ("[providers.x]\nkind = \"openai\"\n[providers.x.prices]\ninput = 0.1\n", 1, "unknown field `input`"),
        (
            "[providers.x]\nkind = \"openai\"\n[providers.x.prices]\ninput_usd_per_million_tokens = 0.1\n",
            1,
            "a price for input and one for output",
        ),
        (
            "[providers.x]\nkind = \"openai\"\n[providers.x.prices]\n",
            1,
            "a price for input and one for output",
        ),
        (
            "[providers.x]\nkind = \"openai\"\n[providers.x.prices]\ninput_usd_per_million_tokens = -1.0\n\
             output_usd_per_million_tokens = 1.0\n",
            1,
            "no price",
        ),
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

/// A configuration that came with a folder leads a key nowhere but home; one that a person named may
/// say more. The variable is one that every test has.
#[test]
fn a_key_goes_where_it_belongs_unless_a_person_named_the_file() {
    let key = "api_key_env = \"CARGO_PKG_NAME\"";
    for (name, address, is_sent) in [
        ("openai", "base_url = \"https://api.openai.com/v1\"", true),
        ("mine", "kind = \"openai\"\nbase_url = \"https://api.openai.com/v1\"", true),
        ("mine", "kind = \"openai\"\nbase_url = \"http://127.0.0.1:8080/v1\"", true),
        ("mine", "kind = \"openai\"\nbase_url = \"http://localhost:8080/v1\"", true),
        ("anthropic", "", true),
        ("openai", "base_url = \"https://api.openai.com.evil.example/v1\"", false),
        // In the clear, or at another port, it is not the provider's own.
        ("openai", "base_url = \"http://api.openai.com/v1\"", false),
        ("openai", "base_url = \"https://api.openai.com:4433/v1\"", false),
        ("anthropic", "base_url = \"https://api.openai.com/v1\"", false),
        ("gemini", "base_url = \"http://192.168.0.7/v1\"", false),
        ("ollama", "base_url = \"http://box:11434\"", false),
        ("mine", "kind = \"openai\"\nbase_url = \"https://gateway.example/v1\"", false),
    ] {
        let text = format!("[providers.{name}]\n{address}\n{key}\n");
        let path = Path::new("foldback.toml");
        let found = Config::of(&text, path, false).expect("a configuration");
        let model = format!("{name}/x");
        match (check_model(&found, &model), is_sent) {
            (Ok(()), true) => {}
            (Err(problem), false) => {
                let told = problem.to_string();
                assert!(told.contains("CARGO_PKG_NAME") && told.contains("--config foldback.toml"), "{told}");
                assert!(!told.contains(env!("CARGO_PKG_NAME")), "{told}");
            }
            (found, _) => panic!("{text}: {found:?}"),
        }
        let status = crate::providers(&found).into_iter().find(|status| status.name == name).expect("known");
        assert_eq!(status.withheld.is_none(), is_sent, "{text}");
        let named = Config::of(&text, path, true).expect("a configuration");
        check_model(&named, &model).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    }
    // Without a key there is nothing to keep back.
    let text = "[providers.lan]\nkind = \"openai\"\nbase_url = \"http://box:8000/v1\"\napi_key_env = \"\"\n";
    let found = Config::of(text, Path::new("foldback.toml"), false).expect("a configuration");
    check_model(&found, "lan/x").expect("no key is needed");
}

/// A configuration that came with a folder names regular files of that folder; one that a person named may
/// name any regular file. Nothing of such a file is told but what is wrong with it.
#[cfg(unix)]
#[test]
fn the_answers_of_a_found_configuration_lie_in_its_folder() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().expect("a directory");
    let home = folder.path().join("home");
    std::fs::create_dir_all(home.join("inside")).expect("made");
    let rules = "[[rules]]\nanswer = \"a\"\n";
    let secret = "password = \"hunter2\"\n";
    std::fs::write(home.join("inside/rules.toml"), rules).expect("written");
    std::fs::write(folder.path().join("outside.toml"), rules).expect("written");
    for name in ["secret", "secret.json"] {
        std::fs::write(folder.path().join(name), secret).expect("written");
        std::fs::write(home.join(name), secret).expect("written");
    }
    symlink("inside/rules.toml", home.join("link.toml")).expect("linked");
    symlink("../outside.toml", home.join("leads-out.toml")).expect("linked");
    symlink("/dev/stdin", home.join("stdin")).expect("linked");
    let made = std::process::Command::new("mkfifo").arg(home.join("pipe")).status();
    assert!(made.expect("mkfifo runs").success());
    let (lies_outside, no_file) = ("it lies outside the folder", "it is no regular file");
    for (file, found, named) in [
        ("inside/rules.toml", "", ""),
        ("inside/../link.toml", "", ""),
        ("leads-out.toml", lies_outside, ""),
        ("../outside.toml", lies_outside, ""),
        ("/dev/zero", lies_outside, no_file),
        ("pipe", no_file, no_file),
        ("inside", no_file, no_file),
        ("no.toml", "No such file", "No such file"),
        ("../secret", lies_outside, "secret: line 1: expected `rules`"),
        ("../secret.json", lies_outside, "secret.json: line 1: it cannot be read as rules"),
        ("secret", "line 1: expected `rules`", "line 1: expected `rules`"),
    ] {
        let text = format!("[providers.x]\nkind = \"scripted\"\nfile = \"{file}\"\n");
        for (is_named, wanted) in [(false, found), (true, named)] {
            match Config::of(&text, &home.join("foldback.toml"), is_named) {
                Ok(_) => assert_eq!(wanted, "", "{file}, named: {is_named}"),
                Err(error) => {
                    let told = format!("{error:?}");
                    assert!(!wanted.is_empty() && told.contains(wanted), "{file}, named: {is_named}: {told}");
                    assert!(!error.hint.is_empty() && !told.contains("hunter2"), "{told}");
                    assert!(!told.contains("password"), "{told}");
                }
            }
        }
    }
    // Standard input is another thing in each process: it lies outside, or is no regular file.
    let stdin = "[providers.x]\nkind = \"scripted\"\nfile = \"stdin\"\n";
    let error = Config::of(stdin, &home.join("foldback.toml"), false).expect_err("no file of the folder");
    assert!(error.message.contains("stdin: "), "{error}");
}

#[test]
fn prices_of_ones_own_are_counted_by_the_million() {
    let config = parse(
        "[providers.lan]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         [providers.lan.prices]\ninput_usd_per_million_tokens = 0.5\noutput_usd_per_million_tokens = 2\n\
         [providers.lan.prices.models.\"big\"]\ninput_usd_per_million_tokens = 1.0\noutput_usd_per_million_tokens = 4.0\n\
         [providers.some]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         [providers.some.prices.models.\"big\"]\ninput_usd_per_million_tokens = 1.0\noutput_usd_per_million_tokens = 4.0\n",
    )
    .expect("a configuration");
    for (model, expected) in
        [("lan/x", true), ("lan/big", true), ("some/big", true), ("some/x", false), ("ollama/x", false)]
    {
        assert_eq!(is_priced(&config, model), expected, "{model}");
    }
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
        withheld: None,
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
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            Ok("reachable, lists no models (404 at models)"),
        ),
        ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", Err("answers 500 at models")),
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
