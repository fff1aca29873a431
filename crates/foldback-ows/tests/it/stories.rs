//! Small definitions as stories: each file of `tests/stories` is a definition, an input, how the
//! world answers, and how the workflow ends; some hold the whole log. Each is also cut after every
//! event and gone on with, from the loaded and from the stored form.
//!
//! `UPDATE=1 cargo test -p foldback-ows` writes ends and logs anew; read the difference.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use foldback_core::rehearse::{Rehearsal, crash_anywhere_with_signals, rehearse_with_signals};
use foldback_core::state::{End, Step};
use foldback_core::step::error_type;
use foldback_core::{Failure, Key, Outcome, Status, Usage, text};
use foldback_ows::{OwsProgram, from_canonical, load};
use serde_json::{Value, json};

/// A story's sections by name, in order.
fn sections(story: &str) -> Vec<(String, String)> {
    let mut sections = vec![("definition".to_owned(), String::new())];
    for line in story.lines() {
        match line.strip_prefix("--- ") {
            Some(name) => sections.push((name.to_owned(), String::new())),
            None => {
                let (_, text) = sections.last_mut().expect("the first section is there");
                let _ = writeln!(text, "{line}");
            }
        }
    }
    sections
}

/// How the world answers: by key, the answer to each attempt, the last one for all further ones.
/// `{"fail": STATUS}` fails, `"lost"` is an unknown outcome, `{"tokens": N}` uses so many, `{"cut": N}` is
/// cut off by its budget behind so many.
fn answer(world: &BTreeMap<String, Value>, key: &Key, step: &Step, attempt: u32) -> Outcome {
    let request = step.request.to_json();
    let scripted = world.get(key.as_str()).cloned().unwrap_or_else(|| match &*step.kind {
        "http" => json!({"called": request["uri"], "method": request["method"]}),
        "llm" => json!(format!("answer to {}", request["template"].as_str().unwrap_or("messages"))),
        _ => json!("done"),
    });
    let answers = scripted.as_array().cloned().unwrap_or_else(|| vec![scripted]);
    let nth = usize::try_from(attempt).expect("small").saturating_sub(1).min(answers.len() - 1);
    if answers[nth] == json!("lost") {
        return Outcome::Unknown { reason: "the connection broke".into() };
    }
    let usage =
        |tokens: &Value| Some(Usage { output_tokens: tokens.as_u64().unwrap_or(0), ..Usage::default() });
    if let Some(tokens) = answers[nth].get("cut") {
        return Outcome::OutOfBudget { usage: usage(tokens) };
    }
    if let Some(tokens) = answers[nth].get("tokens") {
        return Outcome::Completed { output: answers[nth].clone(), usage: usage(tokens) };
    }
    match answers[nth].get("fail").and_then(Value::as_u64) {
        Some(status) => Outcome::Failed {
            error: Failure::new(
                error_type::COMMUNICATION,
                u16::try_from(status).expect("a status"),
                "It failed",
                "as told",
            ),
            retry_after_ms: None,
            usage: None,
        },
        None => Outcome::Completed { output: answers[nth].clone(), usage: None },
    }
}

/// How long the world takes for a step, in ms: a millisecond, or as the story says; `null` is for ever.
fn takes(pace: &BTreeMap<String, Option<u64>>, key: &Key) -> Option<u64> {
    pace.get(key.as_str()).copied().unwrap_or(Some(1))
}

fn end_of(rehearsal: &Rehearsal) -> String {
    let status = rehearsal.state.status();
    let end = match &rehearsal.state.end {
        Some(End::Completed { output }) => format!("completed {}", output.get()),
        Some(End::Failed { error }) => format!("failed {}", json!(error.plain())),
        Some(End::Cancelled { reason }) => format!("cancelled {reason}"),
        Some(End::Parked { key, recorded, asked }) => format!("parked {key}: {recorded}, {asked}"),
        None => return status.as_str().to_owned(),
    };
    match status {
        Status::Compensated | Status::Stuck | Status::Unknown => format!("{}: {end}", status.as_str()),
        _ => end,
    }
}

fn tell(path: &Path) -> Result<(), String> {
    let story = std::fs::read_to_string(path).expect("a story can be read");
    let mut sections = sections(&story);
    let find = |name: &str| sections.iter().find(|(n, _)| n == name).map(|(_, text)| text.trim().to_owned());
    let definition = find("definition").unwrap_or_default();
    let input: Value =
        find("input").map_or(json!({}), |text| serde_json::from_str(&text).expect("an input is JSON"));
    let world: BTreeMap<String, Value> = find("world")
        .map_or_else(BTreeMap::new, |text| serde_json::from_str(&text).expect("a world is a JSON object"));
    let pace: BTreeMap<String, Option<u64>> = find("pace")
        .map_or_else(BTreeMap::new, |text| serde_json::from_str(&text).expect("a pace is a JSON object"));
    let signals: Vec<(String, Value)> = find("signals")
        .map_or_else(Vec::new, |text| serde_json::from_str(&text).expect("signals are JSON pairs"));
    let signals: Vec<(&str, Value)> = signals.iter().map(|(name, data)| (&**name, data.clone())).collect();
    let files = |path: &str| match path {
        "prompts/draft.md" => Ok("Write about {topic}.".to_owned()),
        "run.py" => Ok("print('hi')".to_owned()),
        other => Err(format!("there is no {other}")),
    };
    let loaded = load(&definition, &files).map_err(|problems| {
        problems.iter().map(|p| format!("{p} ({})\n", p.hint.as_deref().unwrap_or(""))).collect::<String>()
    })?;
    // A write that an operator has to settle after a crash does not go on by itself.
    let run = |program: &OwsProgram| match find("plain") {
        Some(_) => rehearse_with_signals(
            program,
            "w",
            input.clone(),
            &|key, step, n| answer(&world, key, step, n),
            &|key| takes(&pace, key),
            &signals,
        ),
        None => crash_anywhere_with_signals(
            program,
            input.clone(),
            &|key, step, n| answer(&world, key, step, n),
            &|key| takes(&pace, key),
            &signals,
        ),
    };
    let told = run(&loaded.program);
    let stored = from_canonical(&loaded.canonical).expect("what was stored can be read");
    let again = run(&stored);
    assert_eq!(
        text::render(&told.events),
        text::render(&again.events),
        "the stored form is the same program"
    );
    assert_eq!(load(&loaded.canonical, &files).expect("the stored form is a definition").hash, loaded.hash);

    let (end, log) = (end_of(&told), text::render(&told.events));
    if std::env::var_os("UPDATE").is_some() {
        let mut has_end = false;
        for (name, section) in &mut sections {
            match name.as_str() {
                "end" => (has_end, *section) = (true, format!("{end}\n")),
                "log" => *section = log.clone(),
                _ => {}
            }
        }
        if !has_end {
            sections.push(("end".into(), format!("{end}\n")));
        }
        let text = sections.iter().fold(String::new(), |mut text, (name, section)| {
            if name != "definition" {
                let _ = writeln!(text, "--- {name}");
            }
            text.push_str(section);
            text
        });
        std::fs::write(path, text).expect("a story can be written");
        return Ok(());
    }
    let wanted = find("end").ok_or("the story has no end")?;
    if wanted != end {
        return Err(format!("wanted {wanted}\ngot    {end}\n{log}"));
    }
    match find("log") {
        Some(wanted) if wanted != log.trim() => Err(format!("another log:\n{log}")),
        _ => Ok(()),
    }
}

#[test]
fn every_story_ends_as_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("stories").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    let mut wrong = String::new();
    for path in &paths {
        let told = std::panic::catch_unwind(|| tell(path));
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match told {
            Ok(Ok(())) => {}
            Ok(Err(message)) => drop(writeln!(wrong, "=== {name}\n{message}")),
            Err(_) => drop(writeln!(wrong, "=== {name} panicked")),
        }
    }
    assert!(paths.len() > 30, "stories are missing");
    assert!(wrong.is_empty(), "\n{wrong}");
}
