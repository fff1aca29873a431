//! A recipe as a Rust program and as an OWS document: both front ends are simulated. What only documents
//! know, races and limits, is in Rust branches side by side, and a part whose failure is caught.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::{Failure, Program, Recovery, RetryPolicy};
use serde_json::{Value, json};

use crate::recipe::{Node, Plan};

/// The name of the step kind that the world performs. A document's calls are of this kind.
pub const KIND: &str = "http";

// ---- Rust -------------------------------------------------------------------------------------

/// The recipe as a program in Rust.
pub fn code(recipe: Arc<Node>) -> impl Program + 'static {
    Code::new(move |mut ctx: Ctx, input: Value| {
        let recipe = recipe.clone();
        async move {
            let sum = input["sum"].as_u64().unwrap_or(0);
            let sum = go(&mut ctx, &recipe, sum, 1).await?;
            Ok(json!({ "sum": sum })) as Ended
        }
    })
}

type Going<'a> = Pin<Box<dyn Future<Output = Result<u64, Failure>> + 'a>>;

fn go<'a>(ctx: &'a mut Ctx, node: &'a Node, sum: u64, nth: u64) -> Going<'a> {
    Box::pin(async move {
        match node {
            Node::Step(plan) => {
                let answer = ctx.step(&plan.name, work(plan, sum, nth)).await?;
                Ok(sum + answer["value"].as_u64().unwrap_or(0))
            }
            Node::All(parts) => {
                let mut sum = sum;
                for part in parts {
                    sum = go(ctx, part, sum, nth).await?;
                }
                Ok(sum)
            }
            Node::Side(branches) => {
                let branch =
                    async |mut ctx: Ctx, part: &Node| go(&mut ctx, part, sum, nth).await.map(Value::from);
                let sums = ctx.each("side", branches.iter().collect(), branch).await?;
                Ok(sums.as_array().into_iter().flatten().filter_map(Value::as_u64).sum())
            }
            Node::Times(times, part) => {
                let mut sum = sum;
                for _ in 0..*times {
                    sum = go(ctx, part, sum, nth).await?;
                }
                Ok(sum)
            }
            Node::Caught(part) => Ok(go(ctx, part, sum, nth).await.unwrap_or(sum + 1)),
            Node::Again(tries, part) => {
                for nth in 1..=*tries {
                    if let Ok(sum) = go(ctx, part, sum, nth).await {
                        return Ok(sum);
                    }
                    ctx.sleep("again", 20).await?;
                }
                go(ctx, part, sum, tries + 1).await
            }
            Node::Wait(delay_ms) => {
                ctx.sleep("wait", *delay_ms).await?;
                Ok(sum)
            }
            Node::Either(even, odd) => {
                let is_even = ctx.decide("either", sum.is_multiple_of(2), json!({ "sum": sum }));
                go(ctx, if is_even { even } else { odd }, sum, nth).await
            }
            Node::Long(facts) => {
                for n in 0..*facts {
                    ctx.compute("long", || json!(n));
                }
                Ok(sum)
            }
            Node::Race(branches) => {
                let branch = async |mut ctx: Ctx, part: &Node| {
                    Ok(go(&mut ctx, part, sum, nth).await.map_or(Value::Null, Value::from))
                };
                ctx.each("race", branches.iter().collect(), branch).await?;
                Ok(sum)
            }
            Node::Limited(_, part) => {
                let _inside = go(ctx, part, sum, nth).await;
                Ok(sum)
            }
        }
    })
}

fn work(plan: &Plan, sum: u64, nth: u64) -> Work {
    let mut request = request(plan);
    request["sum"] = json!(sum);
    request["nth"] = json!(nth);
    let attempts = u32::try_from(plan.attempts()).expect("few");
    let policy = RetryPolicy { attempts, delay_ms: 50, max_delay_ms: 400, ..Default::default() };
    Work::new(KIND, plan.effect, request).recovery(plan.recovery).retry(policy)
}

/// What the world has to know of a step. The program adds the sum.
fn request(plan: &Plan) -> Value {
    json!({
        "name": plan.name, "keyed": plan.keyed, "fails": plan.fails, "slack": plan.slack,
        "tries": plan.tries, "hopeless": plan.hopeless,
    })
}

// ---- a document -------------------------------------------------------------------------------

/// The recipe as a document's source.
pub fn document(name: &str, recipe: &Node) -> String {
    let mut scribe = Scribe::default();
    let tasks = scribe.tasks(recipe);
    json!({
        "document": { "dsl": "1.0.3", "namespace": "simulation", "name": name, "version": "1.0.0" },
        "do": tasks,
    })
    .to_string()
}

/// Names tasks.
#[derive(Default)]
struct Scribe(u64);

impl Scribe {
    fn name(&mut self, what: &str) -> String {
        self.0 += 1;
        format!("{what}{}", self.0)
    }

    fn tasks(&mut self, node: &Node) -> Vec<Value> {
        let mut tasks = Vec::new();
        self.add(node, &mut tasks);
        tasks
    }

    fn add(&mut self, node: &Node, to: &mut Vec<Value>) {
        let mut task = |name: String, body: Value| to.push(json!({ name: body }));
        match node {
            Node::Step(plan) => task(self.name(&plan.name), call(plan)),
            Node::All(parts) => parts.iter().for_each(|part| self.add(part, to)),
            Node::Side(branches) => {
                let branches: Vec<Value> = branches
                    .iter()
                    .map(|part| json!({ self.name("b"): { "do": self.tasks(part) } }))
                    .collect();
                let output = json!({ "as": "{ sum: (map(.sum) | add) }" });
                task(self.name("side"), json!({ "fork": { "branches": branches }, "output": output }));
            }
            Node::Times(times, part) => {
                let each = json!({ "each": "i", "in": format!("[range({times})]") });
                task(self.name("times"), json!({ "for": each, "do": self.tasks(part) }));
            }
            Node::Caught(part) => {
                let caught = json!([{ self.name("caught"): { "set": { "sum": "${ .sum + 1 }" } } }]);
                task(self.name("guard"), json!({ "try": self.tasks(part), "catch": { "do": caught } }));
            }
            Node::Again(tries, part) => {
                let limit = json!({ "attempt": { "count": tries } });
                let retry = json!({ "delay": { "milliseconds": 20 }, "limit": limit });
                task(self.name("again"), json!({ "try": self.tasks(part), "catch": { "retry": retry } }));
            }
            Node::Wait(delay_ms) => task(self.name("wait"), json!({ "wait": { "milliseconds": delay_ms } })),
            Node::Either(even, odd) => {
                let (a, b, joined) = (self.name("even"), self.name("odd"), self.name("joined"));
                let first = json!({ "when": ".sum % 2 == 0", "then": a });
                let cases = json!([{ "even": first }, { "odd": { "then": b } }]);
                task(self.name("either"), json!({ "switch": cases }));
                task(a, json!({ "do": self.tasks(even), "then": joined }));
                task(b, json!({ "do": self.tasks(odd) }));
                task(joined, json!({ "set": { "sum": "${ .sum }" } }));
            }
            Node::Long(facts) => {
                let each = json!({ "each": "i", "in": format!("[range({})]", facts / 2) });
                let set = json!([{ self.name("set"): { "set": { "sum": "${ .sum }" } } }]);
                task(self.name("long"), json!({ "for": each, "do": set }));
            }
            Node::Race(branches) => {
                let branches: Vec<Value> = branches
                    .iter()
                    .map(|part| json!({ self.name("r"): { "do": self.tasks(part) } }))
                    .collect();
                let race = json!({ "compete": true, "branches": branches });
                task(self.name("race"), json!({ "fork": race, "output": same_sum() }));
            }
            Node::Limited(limit_ms, part) => {
                let timeout = json!({ "after": { "milliseconds": limit_ms } });
                let limited = match (&**part, self.tasks(part)) {
                    // A call of its own: a read's limit is over all its attempts, a write's is each one's.
                    (Node::Step(_), mut tasks) => {
                        let call = tasks[0].as_object_mut().and_then(|task| task.values_mut().next());
                        call.expect("a task")["timeout"] = timeout;
                        tasks
                    }
                    (_, tasks) => vec![json!({ self.name("limited"): { "do": tasks, "timeout": timeout } })],
                };
                let caught = json!([{ self.name("late"): { "set": { "sum": "${ .sum }" } } }]);
                let (guard, catch) = (self.name("limit"), json!({ "do": caught }));
                task(guard, json!({ "try": limited, "catch": catch, "output": same_sum() }));
            }
        }
    }
}

/// The sum from before, whatever came of the task.
fn same_sum() -> Value {
    json!({ "as": "{ sum: $input.sum }" })
}

fn call(plan: &Plan) -> Value {
    let mut body = request(plan);
    body["sum"] = json!("${ .sum }");
    let mut ours = json!({ "effect": plan.effect, "attempts": plan.attempts() });
    if plan.effect == foldback::core::Effect::Write {
        ours["recovery"] = match plan.recovery {
            Recovery::Retry => json!("retry"),
            Recovery::Operator | Recovery::Reconcile => json!("operator"),
        };
    }
    json!({
        "call": "http",
        "with": { "method": "post", "endpoint": format!("https://world.test/{}", plan.name), "body": body },
        "metadata": { "foldback": ours },
        "output": { "as": "{ sum: ($input.sum + .value) }" },
    })
}
