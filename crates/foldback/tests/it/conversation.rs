//! A conversation: each turn asks with all that was said before. What is stored grows with what is new.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::lists::Shown;
use foldback::core::rehearse::{Rehearsal, crash_anywhere, rehearse, resume};
use foldback::core::verify::verify;
use foldback::core::{Effect, Event, Fact, Hash, Key, Outcome, Step, WorkflowState};
use serde_json::{Value, json};

/// Asks, and asks again with the answer and a further question behind it.
async fn talk(mut ctx: Ctx, input: Value) -> Ended {
    let mut messages = vec![json!({"role": "system", "content": "You answer shortly. ".repeat(20)})];
    for turn in 0..input["turns"].as_u64().unwrap_or(0) {
        let question = format!(
            "question {turn}: {}",
            "what of it? ".repeat(input["words"].as_u64().unwrap_or(1) as usize)
        );
        messages.push(json!({"role": "user", "content": question}));
        let request = json!({"model": "a/b", "messages": messages});
        let answer = ctx.step("ask", Work::new("llm", Effect::Read, request)).await?;
        messages.push(json!({"role": "assistant", "content": answer}));
    }
    Ok(json!(messages.len()))
}

/// Answers with how many messages there were, so that a list that is cut short shows.
fn answer(_: &Key, step: &Step, _: u32) -> Outcome {
    let messages = step.request.to_json()["messages"].as_array().cloned().unwrap_or_default();
    assert!(messages.iter().all(Value::is_object), "every message is at hand: {messages:?}");
    let output = json!(format!("{} messages; {}", messages.len(), "so it is. ".repeat(12)));
    Outcome::Completed { output, usage: None }
}

fn conversation(turns: u64, words: u64) -> Rehearsal {
    rehearse(&Code::new(talk), "c", json!({"turns": turns, "words": words}), &answer)
}

/// Bytes of the events, and of the values beside them, each once.
fn bytes(events: &[Event]) -> usize {
    let mut payloads: BTreeMap<Hash, usize> = BTreeMap::new();
    let mut inline = 0;
    for event in events {
        inline += event.fact.encode().len();
        let stored = event.fact.slots().into_iter().filter_map(|slot| slot.payload());
        payloads.extend(stored.map(|payload| (payload.hash, payload.bytes.len())));
    }
    inline + payloads.values().sum::<usize>()
}

#[test]
fn two_hundred_turns_take_twice_what_a_hundred_take() {
    for words in [1, 12, 120] {
        let (short, long) =
            (bytes(&conversation(100, words).events), bytes(&conversation(200, words).events));
        let ratio = long as f64 / short as f64;
        assert!(ratio <= 2.2, "{words} words: {short} bytes at turn 100, {long} at turn 200");
    }
}

#[test]
fn each_message_is_stored_once_and_each_reference_too() {
    let events = conversation(40, 12).events;
    let mut written = 0;
    for event in &events {
        if let Fact::StepAsked(_) = &event.fact {
            written += event.fact.encode().matches("\"ref\"").count();
        }
    }
    // 81 messages; those of the first turns, before the list is long enough, are told again some times.
    assert!(written < 81 + 8 * 8, "{written} references were written");
}

#[test]
fn a_conversation_goes_on_from_every_version_and_verifies() {
    let whole = crash_anywhere(&Code::new(talk), json!({"turns": 9, "words": 2}), &answer);
    let output = whole.events.last().map(|event| event.fact.plain());
    assert_eq!(output, Some(json!({"output": 19})));
    let folded = WorkflowState::fold("c", &conversation(30, 2).events).unwrap();
    assert_eq!(folded, conversation(30, 2).state);
}

#[test]
fn who_reads_from_the_begin_sees_whole_lists() {
    let events = conversation(20, 2).events;
    let mut lists = Shown::default();
    let mut asked = 0;
    for mut event in events {
        lists.complete(&mut event);
        if let Fact::StepAsked(ask) = &event.fact {
            asked += 1;
            let messages = ask.request.to_json()["messages"].as_array().map(Vec::len);
            assert_eq!(messages, Some(2 * asked), "{}", ask.request.to_json());
        }
    }
    assert_eq!(asked, 20);
}

#[test]
fn a_list_that_goes_on_from_nothing_breaks_the_law() {
    let mut events = conversation(20, 2).events;
    let asked = events.iter().rposition(|event| matches!(event.fact, Fact::StepAsked(_))).unwrap();
    let text = events[asked].fact.encode();
    let before = text.split("\"before\":").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let forged = text.replace(&format!("\"before\":{before}"), "\"before\":2");
    events[asked].fact = Fact::decode("StepAsked", 1, &forged).unwrap();
    let illegal = WorkflowState::fold("c", &events).unwrap_err();
    assert!(illegal.reason.contains("which are not there"), "{illegal}");
}

#[test]
fn a_cut_conversation_is_resumed_with_its_messages_at_hand() {
    let events = conversation(30, 12).events;
    let program: Arc<Code<_>> = Arc::new(Code::new(talk));
    for cut in [20, 41, 60] {
        let resumed = resume(&*program, "c", &events[..cut], &answer);
        assert_eq!(verify(&*program, "c", &resumed.events).map(|n| n > 0), Ok(true));
        assert_eq!(resumed.state.end, conversation(30, 12).state.end);
    }
}

#[test]
fn who_reads_a_log_that_went_back_sees_whole_lists_too() {
    use foldback::core::change::{Changes, Past};
    use foldback::core::rehearse::{Logs, go_back};
    let fails =
        |key: &Key, step: &Step, attempt| match step.request.to_json()["messages"].as_array().map(Vec::len) {
            Some(count) if count > 30 => Outcome::Failed {
                error: foldback::core::Failure::new("t", 404, "no", "no"),
                retry_after_ms: None,
                usage: None,
            },
            _ => answer(key, step, attempt),
        };
    let failed = rehearse(&Code::new(talk), "c", json!({"turns": 20, "words": 2}), &fails).events;
    let asks: Vec<u64> =
        failed.iter().filter(|e| matches!(e.fact, Fact::StepAsked(_))).map(|e| e.version).collect();
    let logs = Logs(BTreeMap::from([("c".into(), failed.clone())]));
    let to = asks[10] - 1;
    let changes = Changes::none(Past { workflow: "c".into(), after: to, up_to: failed.len() as u64 });
    let back = go_back(&Code::new(talk), &logs, ("c", to), changes, &answer, &|_| None);
    let (mut lists, mut counts) = (Shown::default(), Vec::new());
    for mut event in back.events.clone() {
        lists.complete(&mut event);
        if let Fact::StepAsked(ask) = &event.fact {
            counts.push(ask.request.to_json()["messages"].as_array().map(Vec::len));
        }
    }
    let wanted = (1..=asks.len()).chain(11..=20).map(|turn| Some(2 * turn));
    assert_eq!(counts, wanted.collect::<Vec<_>>());
    assert_eq!(WorkflowState::fold("c", &back.events).as_ref(), Ok(&back.state));
    assert!(verify(&Code::new(talk), "c", &back.events).is_ok());
}
