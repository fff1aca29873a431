//! The kinds `shell` and `script`, with real children.

use std::time::{Duration, Instant};

use crate::support::*;
use foldback_core::Effect::{Pure, Write};
use foldback_core::Outcome;
use serde_json::{Value, json};

#[tokio::test]
async fn shell_commands_as_a_table() {
    for (request, expected) in [
        (json!({"command": "echo hello"}), json!("hello")),
        (json!({"command": "echo '{\"a\": 1}'"}), json!("{\"a\": 1}")),
        (json!({"command": "printf '%s|' $1 \"$2\"", "arguments": ["a", "b c"]}), json!("a|b c|")),
        (json!({"command": "echo", "arguments": ["a  b", "$HOME", 3]}), json!("a  b $HOME 3")),
        (
            json!({"command": "echo", "arguments": {"name": "x y", "-v": true, "no": false}}),
            json!("--name=x y -v"),
        ),
        (json!({"command": "cat", "stdin": "as it is"}), json!("as it is")),
        (json!({"command": "cat", "stdin": {"a": [1]}}), json!("{\"a\":[1]}")),
        (json!({"command": "cat"}), json!("")),
        (json!({"command": "echo $A $B", "environment": {"A": "x", "B": {"c": 1}}}), json!("x {\"c\":1}")),
        (json!({"command": "echo out; echo err >&2", "return": "stderr"}), json!("err")),
        (json!({"command": "exit 3", "return": "code"}), json!(3)),
        (
            json!({"command": "echo out; echo err >&2; exit 3", "return": "all"}),
            json!({"code": 3, "stdout": "out", "stderr": "err"}),
        ),
        (json!({"command": "echo out", "return": "none"}), Value::Null),
        (json!({"command": "exec true", "stdin": "x".repeat(1_000_000)}), json!("")),
        // What is no text is whole, its last line break too.
        (json!({"command": "printf '\\377\\n'"}), json!("data:application/octet-stream;base64,/wo=")),
        (
            json!({"command": "printf '\\377'; printf '\\376' >&2", "return": "all"}),
            json!({
                "code": 0,
                "stdout": "data:application/octet-stream;base64,/w==",
                "stderr": "data:application/octet-stream;base64,/g==",
            }),
        ),
        (
            json!({"command": "printf '\\377' >&2", "return": "stderr"}),
            json!("data:application/octet-stream;base64,/w=="),
        ),
    ] {
        assert_eq!(completed(run("shell", request.clone(), Write).await), expected, "{request}");
    }
}

/// JSON that no value can keep as it is: what a script writes by accident must not become another number.
#[tokio::test]
async fn a_scripts_output_that_would_be_changed_is_refused() {
    for (code, wanted) in [
        ("print('{\"id\": 18446744073709551616}')", "outside 64 bits at line 1 column 8"),
        ("print('{\"a\": 1, \"a\": 2}')", "stands twice"),
    ] {
        let (_, _, detail) = failed(run("script", json!({"language": "python", "code": code}), Write).await);
        assert!(detail.contains(wanted), "{code}: {detail}");
    }
    let text = run("script", json!({"language": "python", "code": "print('{ no JSON')"}), Write).await;
    assert_eq!(completed(text), json!("{ no JSON"));
}

#[tokio::test]
async fn a_script_of_five_lines() {
    let code = "import json, sys, os\n\
                data = json.load(sys.stdin)\n\
                data['sum'] = sum(data['numbers'])\n\
                data['args'] = sys.argv[1:]\n\
                print(json.dumps(data))";
    let request = json!({"language": "python", "code": code, "arguments": ["a", "b c"], "stdin": {"numbers": [1, 2, 3]}});
    let expected = json!({"numbers": [1, 2, 3], "sum": 6, "args": ["a", "b c"]});
    assert_eq!(completed(run("script", request.clone(), Pure).await), expected);

    // Too long for the command line: by a file, with the same result.
    let mut long = request;
    long["code"] = json!(format!("{code}\n#{}", "x".repeat(200_000)));
    assert_eq!(completed(run("script", long, Pure).await), expected);

    let text = json!({"language": "sh", "code": "echo not json $1", "arguments": ["x"]});
    assert_eq!(completed(run("script", text, Pure).await), json!("not json x"));
    if std::process::Command::new("node").arg("--version").output().is_ok() {
        for filler in ["", "x"] {
            let code =
                format!("console.log(JSON.stringify(process.argv.slice(2)))//{}", filler.repeat(200_000));
            let node = json!({"language": "javascript", "code": code, "arguments": ["a", "-v"]});
            assert_eq!(completed(run("script", node, Pure).await), json!(["a", "-v"]));
        }
    }
}

#[tokio::test]
async fn a_child_knows_its_step_and_no_secret_that_it_was_not_given() {
    let command =
        "echo $FOLDBACK_WORKFLOW_ID $FOLDBACK_KEY $FOLDBACK_ATTEMPT_NUMBER $FOLDBACK_IDEMPOTENCY_KEY";
    let output = completed(run("shell", json!({"command": command}), Write).await);
    assert_eq!(output, "w-1 main/step 1 the-idempotency-key");

    let (mut call, told) =
        call(json!({"command": "echo $KEY; echo $KEY >&2; exit 1", "environment": {"KEY": null}}), Write);
    call.secrets = [("/environment/KEY".to_owned(), SECRET.to_owned())].into();
    let outcome = perform(&builtin(), "shell", call).await;
    let shown = format!("{outcome:?} {told:?}");
    assert!(!shown.contains(&canary()) && shown.contains("[secret cargo_manifest_dir]"), "{shown}");
}

#[tokio::test]
async fn failures_as_a_table() {
    for (kind, request, expected, part) in [
        ("shell", json!({"command": "echo why >&2; exit 7"}), "runtime", "exit code 7\nwhy"),
        ("shell", json!({"command": "kill -9 $$"}), "runtime", "signal 9"),
        ("shell", json!({"command": "kill -9 $$", "return": "code"}), "runtime", "signal 9"),
        ("shell", json!({"command": "no-such-program-x"}), "runtime", "exit code 127"),
        ("shell", json!({"command": "seq 1 100 >&2; exit 1"}), "runtime", "\n81\n"),
        ("shell", json!({}), "configuration", "`command` is missing"),
        ("shell", json!({"command": "x", "return": "y"}), "configuration", "`return`"),
        ("shell", json!({"command": "x", "cwd": "/"}), "configuration", "`cwd` is not known"),
        ("shell", json!({"command": "x", "environment": {"A=B": "c"}}), "configuration", "`A=B`"),
        (
            "shell",
            json!({"command": "x", "environment": {"FOLDBACK_KEY": "c"}}),
            "configuration",
            "`FOLDBACK_KEY`",
        ),
        (
            "shell",
            json!({"command": "x", "environment": {"FOLDBACK_ATTEMPT": "c"}}),
            "configuration",
            "which step",
        ),
        (
            "shell",
            json!({"command": "x", "environment": {"FOLDBACK_ATTEMPT_NUMBER": "c"}}),
            "configuration",
            "which step",
        ),
        (
            "script",
            json!({"language": "sh", "code": "x", "environment": {"FOLDBACK_IDEMPOTENCY_KEY": "c"}}),
            "configuration",
            "which step",
        ),
        ("shell", json!({"command": "x", "arguments": ["a\u{0}"]}), "configuration", "NUL"),
        ("script", json!({"language": "cobol", "code": ""}), "configuration", "`cobol`"),
        ("script", json!({"language": "python"}), "configuration", "`code` is missing"),
        ("shell", json!({"command": "printf 'a\\377b' >&2; exit 1"}), "runtime", "a\u{fffd}b"),
        (
            "script",
            json!({"language": "python", "code": "raise Exception('boom')"}),
            "runtime",
            "Exception: boom",
        ),
    ] {
        let (short, _, detail) = failed(run(kind, request.clone(), Write).await);
        assert_eq!(short, expected, "{request}: {detail}");
        assert!(detail.contains(part), "{request}: {detail}");
        assert!(detail.lines().count() <= 21, "{detail}");
    }
}

#[tokio::test]
async fn output_is_bounded() {
    let started = Instant::now();
    let (kind, _, detail) = failed(run("shell", json!({"command": "yes"}), Write).await);
    assert_eq!(kind, "runtime");
    assert!(detail.contains("more than"), "{detail}");
    assert!(started.elapsed() < Duration::from_secs(10));
    // stderr is kept at its end, and never an error by its length.
    let noisy = json!({"command": "yes noise | head -c 5000000 >&2; echo last >&2", "return": "stderr"});
    let kept = completed(run("shell", noisy, Write).await);
    let kept = kept.as_str().expect("a text");
    assert!(kept.ends_with("last") && kept.len() <= 1024 * 1024, "{}", kept.len());
    // The cut goes through no character.
    let wide =
        json!({"command": "yes é | tr -d '\\n' | head -c 3000001 >&2; printf x >&2", "return": "stderr"});
    let kept = completed(run("shell", wide, Write).await);
    assert!(
        kept.as_str().is_some_and(|kept| kept.starts_with("data:")),
        "half a character at the end is none"
    );
    let wide =
        json!({"command": "yes é | tr -d '\\n' | head -c 3000000 >&2; printf x >&2", "return": "stderr"});
    let kept = completed(run("shell", wide, Write).await);
    assert!(
        kept.as_str().is_some_and(|kept| kept.starts_with('é') && kept.ends_with("éx")),
        "at its beginning"
    );
}

#[tokio::test]
async fn stderr_is_told_line_by_line_as_it_comes() {
    let (call, told) = call(json!({"command": "echo one >&2; sleep 0.3; echo two >&2; sleep 5"}), Write);
    let work = builtin().get("shell").expect("a kind").perform(call);
    let _ = tokio::time::timeout(Duration::from_millis(900), work).await;
    assert_eq!(*told.lock().expect("a log"), ["one\n", "two\n"]);
}

fn is_running(pid: &str) -> bool {
    // A zombie still has an entry, with the state Z.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

async fn ends(pid: &str) -> bool {
    for _ in 0..100 {
        if !is_running(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn a_step_that_is_given_up_leaves_no_process_behind() {
    let (call, told) = call(json!({"command": "sleep 60 & echo $! >&2; echo $$ >&2; sleep 60"}), Write);
    let work = builtin().get("shell").expect("a kind").perform(call);
    assert!(tokio::time::timeout(Duration::from_millis(500), work).await.is_err());
    let pids: Vec<String> = told.lock().expect("a log").iter().map(|line| line.trim().to_owned()).collect();
    assert_eq!(pids.len(), 2, "{pids:?}");
    for pid in &pids {
        assert!(ends(pid).await, "{pid} still runs");
    }
    // Collected too: no zombie.
    for _ in 0..100 {
        if !std::path::Path::new(&format!("/proc/{}", pids[1])).exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} is a zombie", pids[1]);
}

#[tokio::test]
async fn what_a_child_leaves_in_the_background_ends_with_it() {
    let started = Instant::now();
    let outcome = run("shell", json!({"command": "sleep 60 & echo $!"}), Write).await;
    let pid = completed(outcome);
    assert!(started.elapsed() < Duration::from_secs(5), "its pipes do not hold the step");
    assert!(ends(pid.as_str().expect("a text")).await);
}

#[tokio::test]
async fn noop_answers_its_value() {
    assert_eq!(completed(run("noop", json!({"value": {"a": 1}}), Pure).await), json!({"a": 1}));
    assert!(matches!(
        run("noop", json!({}), Pure).await,
        Outcome::Completed { output: Value::Null, usage: None }
    ));
}
