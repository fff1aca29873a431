//! Random programs in Rust that take back what they did, as the documents of `document` do: what each can
//! take back is known without running it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use foldback::code::{Code, Ctx, Done, Ended, Work};
use foldback::core::{Effect, Failure, Program, Recovery};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::document::Facts;
use crate::fronts::KIND;

/// One part of a program.
#[derive(Debug)]
enum Part {
    /// A write, and how it is sent.
    Write(String, Sent),
    /// An event of the domain, by the effect that was done last; behind being taken back it is another.
    Told(String),
    Look(String),
    Wait,
    Hear(&'static str),
    Side(Vec<Vec<Part>>),
    Times(u64, Vec<Part>),
    /// A failure inside is caught.
    Caught(Vec<Part>),
    Fail,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    has_undo: bool,
    recovery: Recovery,
}

/// A program, what the model has to know of it, and how it reads.
pub fn orders(dice: &mut Dice) -> (impl Program + 'static, Facts, String) {
    let mut author = Author { dice, facts: Facts::default(), serial: 0 };
    let parts = Arc::new(author.parts(0));
    author.facts.holds = author.dice.one_in(6);
    let (facts, source) = (author.facts, format!("{parts:?}"));
    let code = Code::new(move |mut ctx: Ctx, _input: Value| {
        let parts = parts.clone();
        async move { go(&mut ctx, &parts, Value::Null).await }
    });
    let code = code.undo("back", back).undo("find", find).on_compensate("TOLD", back);
    (if facts.holds { code.hold() } else { code }, facts, source)
}

/// Takes back a write, or an event.
async fn back(mut ctx: Ctx, done: Done) -> Ended {
    let what = if done.output.is_null() { &done.given } else { &done.output };
    let request = json!({"uri": "http://x.test/undo", "body": {"id": what["id"]}});
    ctx.step("back", Work::new(KIND, Effect::Write, request).recovery(Recovery::Retry)).await
}

async fn find(mut ctx: Ctx, done: Done) -> Ended {
    let request = json!({"uri": "http://x.test/done", "query": {"key": done.idempotency_key}});
    ctx.step("look", Work::new(KIND, Effect::Read, request)).await
}

type Going<'a> = Pin<Box<dyn Future<Output = Ended> + 'a>>;

/// What was done last flows through all of it.
fn go<'a>(ctx: &'a mut Ctx, parts: &'a [Part], last: Value) -> Going<'a> {
    Box::pin(async move {
        let mut last = last;
        for part in parts {
            last = one(ctx, part, last).await?;
        }
        Ok(last)
    })
}

async fn one(ctx: &mut Ctx, part: &Part, last: Value) -> Ended {
    match part {
        Part::Write(name, sent) => {
            let request = json!({"uri": "http://x.test/do", "body": {"was": last}});
            let work = Work::new(KIND, Effect::Write, request);
            let work = match sent.recovery {
                Recovery::Reconcile => work.reconcile("find", json!({})),
                recovery => work.recovery(recovery),
            };
            ctx.step(name, if sent.has_undo { work.undo("back", json!({})) } else { work }).await
        }
        Part::Told(name) => {
            let done = ctx.step(&format!("{name}w"), plain()).await?;
            // One that was only taken for done has no name of its own.
            if !done["id"].is_null() {
                ctx.record(name, "TOLD", json!({"id": format!("told {}", done["id"])}));
            }
            Ok(last)
        }
        Part::Look(name) => {
            let request = json!({"uri": "http://x.test/look"});
            ctx.step(name, Work::new(KIND, Effect::Read, request)).await
        }
        Part::Wait => ctx.sleep("wait", 5_000).await.map(|_| last),
        Part::Hear(signal) => ctx.listen("hear", signal).await.map(|_| last),
        Part::Side(branches) => {
            let branch = async |mut ctx: Ctx, parts: &Vec<Part>| go(&mut ctx, parts, last.clone()).await;
            ctx.each("side", branches.iter().collect(), branch).await
        }
        Part::Times(times, parts) => {
            let mut last = last;
            for _ in 0..*times {
                last = go(ctx, parts, last).await?;
            }
            Ok(last)
        }
        Part::Caught(parts) => Ok(go(ctx, parts, last.clone()).await.unwrap_or(last)),
        Part::Fail => Err(Failure::new("simulated", 500, "It failed", "as told")),
    }
}

/// A write that cannot be taken back.
fn plain() -> Work {
    Work::new(KIND, Effect::Write, json!({"uri": "http://x.test/do"})).recovery(Recovery::Retry)
}

struct Author<'a> {
    dice: &'a mut Dice,
    facts: Facts,
    serial: u64,
}

impl Author<'_> {
    fn parts(&mut self, depth: u32) -> Vec<Part> {
        (0..self.dice.within(1, if depth == 0 { 4 } else { 3 })).map(|_| self.part(depth)).collect()
    }

    fn part(&mut self, depth: u32) -> Part {
        self.serial += 1;
        let name = format!("t{}", self.serial);
        match self.dice.below(if depth >= 3 { 9 } else { 15 }) {
            0..=4 => self.write(name),
            5 => {
                self.facts.undos.insert(name.clone(), vec!["back"]);
                Part::Told(name)
            }
            6 => Part::Look(name),
            7 => Part::Wait,
            8 => match self.dice.below(4) {
                0 => Part::Fail,
                1 => Part::Hear("go"),
                2 => Part::Hear("ok"),
                _ => self.write(name),
            },
            9 | 10 => {
                self.facts.has_branches = true;
                Part::Side((0..2).map(|_| self.parts(depth + 1)).collect())
            }
            11 | 12 => Part::Times(self.dice.within(1, 2), self.parts(depth + 1)),
            _ => Part::Caught(self.parts(depth + 1)),
        }
    }

    fn write(&mut self, name: String) -> Part {
        let has_undo = !self.dice.one_in(4);
        if has_undo {
            self.facts.undos.insert(name.clone(), vec!["back"]);
        }
        let recovery = match self.dice.below(6) {
            0 => Recovery::Operator,
            1 => Recovery::Reconcile,
            _ => Recovery::Retry,
        };
        Part::Write(name, Sent { has_undo, recovery })
    }
}
