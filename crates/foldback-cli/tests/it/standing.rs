//! The standing of a workflow at this moment: elapsed times, deadlines, whether anybody runs it, and when there
//! is nothing more to follow. Real processes, real SIGKILL.

use std::io::{BufRead, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::world::{Script, World, published, write};
use foldback::core::rehearse::rehearse;
use foldback::core::{Ask, Fact, Key, Step};
use serde_json::{Value, json};

const HEAD: &str = "document: { dsl: '1.0.3', namespace: t, name: standing, version: '1.0.0' }\ndo:\n";

fn put(world: &World, name: &str, tasks: &str) {
    std::fs::write(world.dir.path().join(name), format!("{HEAD}{tasks}")).expect("a definition");
}

/// Follows a log, in a process of its own.
fn follow(world: &World, id: &str) -> Child {
    let mut command = world.command(&["events", id, "--follow", "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("the binary runs")
}

/// The types of the events that were followed, once there are no more.
fn followed(mut child: Child) -> Vec<String> {
    let begun = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().expect("it is killed");
            panic!("it is followed though nothing more can come");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
    let of_type = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        line["type"].as_str().expect("a type").to_owned()
    };
    text.lines().map(of_type).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not happen within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn milliseconds(document: &Value) -> u64 {
    document["duration_ms"].as_u64().expect("a duration")
}

#[test]
fn a_log_is_followed_until_nothing_more_can_come() {
    let world = World::empty();
    put(&world, "asks.yaml", "  - ask: { listen: { to: { one: { with: { type: go } } } } }\n");
    for (id, ends, last) in [
        ("cancelled", &["cancel", "cancelled"][..], "WorkflowCancelled"),
        ("answered", &["signal", "answered", "go"][..], "WorkflowCompleted"),
    ] {
        assert_eq!(world.run(&["run", "asks.yaml", "--id", id]).code, 0);
        let child = follow(&world, id);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(world.run(ends).code, 0);
        assert_eq!(followed(child).last().map(String::as_str), Some(last));
        // Who comes later sees all of it, and does not wait.
        assert_eq!(followed(follow(&world, id)).last().map(String::as_str), Some(last));
    }
}

#[test]
fn a_log_that_was_reopened_is_followed_to_its_new_end() {
    let world = World::empty();
    let tasks = "  - step: { run: { shell: { command: 'test -e mended && sleep 1' } } }\n";
    put(&world, "fails.yaml", tasks);
    assert_eq!(world.run(&["run", "fails.yaml", "--id", "w"]).code, 1);
    std::fs::write(world.dir.path().join("mended"), "").expect("a file");
    let mut retry = world.command(&["retry", "w"]);
    let mut retry = retry.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    wait_until("the retry", || world.run(&["events", "w", "--json"]).out.contains("WorkflowReopened"));
    let types = followed(follow(&world, "w"));
    assert!(types.contains(&"WorkflowFailed".to_owned()), "{types:?}");
    assert_eq!(types.last().map(String::as_str), Some("WorkflowCompleted"));
    assert!(retry.wait().expect("a child").success());
}

#[test]
fn a_run_that_was_killed_is_interrupted() {
    let world = World::empty();
    put(&world, "long.yaml", "  - step: { run: { shell: { command: 'exec sleep 20' } } }\n");
    let mut run = world.command(&["run", "long.yaml", "--id", "w"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    wait_until("the step", || world.run(&["steps", "w", "--json"]).out.contains("running"));
    let documents = |world: &World| {
        ["show", "state"].map(|command| world.run(&[command, "w", "--json"]).document(0)).to_vec()
    };
    let all = |world: &World| [documents(world), world.run(&["list", "--json"]).lines(0)].concat();
    for document in all(&world) {
        assert_eq!((&document["status"], &document["is_owned"]), (&json!("running"), &json!(true)));
    }
    assert!(!world.run(&["show", "w"]).out.contains("interrupted"));
    run.kill().expect("it is killed");
    run.wait().expect("a child");
    for document in all(&world) {
        assert_eq!((&document["status"], &document["is_owned"]), (&json!("running"), &json!(false)));
    }
    for command in ["show", "state"] {
        let page = world.run(&[command, "w"]).out;
        assert!(page.contains("interrupted: nobody runs it") && page.contains("resume w"), "{page}");
    }
    let list = world.run(&["list"]);
    assert!(list.out.contains("running, interrupted") && list.err.contains("resume"), "{list:?}");
    let mut follow = world.command(&["events", "w", "--follow"]);
    let mut follow = follow.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut told = String::new();
    let err = follow.stderr.take().expect("piped");
    std::io::BufReader::new(err).read_line(&mut told).expect("a line");
    follow.kill().expect("it is killed");
    follow.wait().expect("a child");
    assert!(told.contains("nobody runs `w` now") && told.contains("resume w"), "{told}");
    // A page of the past says nothing of now.
    let past = world.run(&["state", "w", "--at", "1", "--json"]).document(0);
    assert!(past.get("is_owned").is_none(), "{past}");
}

#[test]
fn what_has_ended_is_owned_by_nobody_and_lasted_as_long_as_it_did() {
    let world = World::empty();
    put(&world, "short.yaml", "  - one: { set: { a: 1 } }\n");
    assert_eq!(world.run(&["run", "short.yaml", "--id", "w"]).code, 0);
    std::thread::sleep(Duration::from_millis(1_200));
    let shown = world.run(&["show", "w", "--json"]).document(0);
    assert!(shown.get("is_owned").is_none() && milliseconds(&shown) < 1_000, "{shown}");
}

/// A wait that goes on is as old as it is, and its deadline stands wherever it is looked for; one that has
/// passed says so.
#[test]
fn a_wait_tells_how_long_it_has_been_and_until_when() {
    let world = World::empty();
    let tasks = "  - ask:\n      listen: { to: { one: { with: { type: go } } } }\n      timeout: { after: { seconds: 2 } }\n      \
                 metadata: { foldback: { default: none } }\n";
    put(&world, "asks.yaml", tasks);
    let run = world.run(&["run", "asks.yaml", "--id", "w"]);
    assert!(run.code == 0 && run.err.contains("ask waits for go, until 2"), "{run:?}");
    for command in ["show", "state"] {
        let page = world.run(&[command, "w"]).out;
        assert!(page.contains("until 2") && !page.contains(" ago"), "{page}");
        let waits = world.run(&[command, "w", "--json"]).document(0)["waits"].clone();
        let signal = waits.as_array().expect("waits").iter().find(|wait| wait["for"] == "signal");
        assert!(signal.is_some_and(|wait| wait["due"].is_string()), "{waits}");
    }
    let row = || world.run(&["list", "--json"]).document(0);
    assert!(row()["wake_at"].is_string() && row()["is_overdue"] == json!(false), "{}", row());
    std::thread::sleep(Duration::from_millis(2_200));
    let page = world.run(&["show", "w"]).out;
    assert!(has_seconds(&page, "for ") && page.contains(" ago; nobody runs it"), "{page}");
    assert!(milliseconds(&world.run(&["show", "w", "--json"]).document(0)) >= 2_000);
    assert!(world.run(&["state", "w"]).out.contains(" ago; nobody runs it"));
    assert!(world.run(&["list"]).out.contains("overdue"));
    assert_eq!(row()["is_overdue"], json!(true));
    let waits = world.run(&["state", "w", "--json"]).document(0)["waits"].clone();
    assert!(waits.as_array().expect("waits").iter().all(|wait| wait["is_overdue"] == json!(true)), "{waits}");

    assert_eq!(world.run(&["resume", "w"]).code, 0);
    let page = world.run(&["show", "w"]).out;
    assert!(has_seconds(&page, "waited  ") && !page.contains("waited  0"), "{page}");
}

/// Whether a page says at least two seconds somewhere after these words.
fn has_seconds(page: &str, words: &str) -> bool {
    let told = page.split(words).skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    told.max_by(f64::total_cmp).is_some_and(|seconds| seconds >= 2.0)
}

/// A log that somebody made: whatever its moments are, it can be looked at.
#[test]
fn moments_beyond_all_time_are_shown() {
    let wait = || Ask::Timer { key: Key::from("wait"), delay_ms: 5, finishes: true, limits: false };
    let nothing = |_: &Key, _: &Step, _: u32| published();
    for (n, time) in [i64::MIN, i64::MAX].into_iter().enumerate() {
        let world = World::empty();
        for (id, is_due) in [("due", true), ("began", false)] {
            let mut events = rehearse(&Script(vec![wait()]), id, json!({}), &nothing).events;
            events.truncate(2);
            for event in &mut events {
                match &mut event.fact {
                    Fact::TimerSet { due, .. } if is_due => *due = time,
                    _ if !is_due => event.timestamp = time,
                    _ => {}
                }
            }
            assert!(matches!(events[1].fact, Fact::TimerSet { .. }), "{:?}", events[1]);
            write(&*world.store(), id, &events, Some("waiting"));
            for command in ["show", "state", "steps", "events", "replay", "decisions", "export", "audit"] {
                for words in [&[command, id][..], &["--json", command, id]] {
                    let ran = world.run(words);
                    assert!(
                        matches!(ran.code, 0 | 1) && !ran.err.contains("panick"),
                        "{n}: {words:?}: {ran:?}"
                    );
                }
            }
        }
        assert_eq!(world.run(&["list"]).code, 0, "{n}");
        assert_eq!(world.run(&["prune", "--ended-before", "2027-01-01", "--dry-run"]).code, 0, "{n}");
    }
}
