//! The steps of the conformance features, and a few of our own: what is given, what is run, what is
//! seen in the output and in the log.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

use cucumber::step::{Collection, Context, Step};
use foldback::connectors::{Config, registry};
use foldback::core::state::End;
use foldback::core::{Event, Fact, Failure, Status};
use foldback::engine::{Command, Session, events_of, state_at};
use foldback::programs::{Definitions, start_document};
use regex::Regex;
use serde_json::Value;

use crate::stand_in::{HOSTS, StandIn, secret};

static STAND_IN: LazyLock<StandIn> = LazyLock::new(StandIn::start);

/// What a scenario knows.
#[derive(Default)]
pub struct World {
    definition: String,
    input: Value,
    ended: Option<Ended>,
}

/// How a workflow ended.
struct Ended {
    status: Status,
    output: Value,
    error: Option<Failure>,
    events: Vec<Event>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.ended.as_ref().map(|ended| foldback::core::text::render(&ended.events));
        write!(f, "{}\n{}", self.definition, log.unwrap_or_default())
    }
}

impl cucumber::World for World {
    type Error = std::convert::Infallible;

    async fn new() -> Result<World, Self::Error> {
        Ok(World::default())
    }
}

impl World {
    fn ended(&self) -> &Ended {
        self.ended.as_ref().expect("the workflow was executed")
    }

    /// Runs the workflow to its end; it may not end.
    fn execute(&mut self) {
        let loaded = foldback::ows::load(&self.definition, &|_| Err("no files".into()))
            .unwrap_or_else(|problems| panic!("it does not load: {problems:#?}"));
        assert!(loaded.check_input(&self.input).is_ok(), "the input misses its schema");
        let config =
            HOSTS.iter().fold(Config::default(), |config, host| config.with_stand_in(host, STAND_IN.address));
        let store = foldback::store::open("memory:").expect("a store");
        let pool = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let pool = pool.expect("a runtime");
        let session = Session {
            store: store.clone(),
            kinds: registry(&config),
            programs: Arc::new(Definitions::default()),
            pool: pool.handle().clone(),
            observer: None,
            actor: Arc::from("test"),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let start = start_document(&loaded, "w", self.input.clone());
        // The loop blocks its thread, and this one belongs to the test runner's runtime.
        let rests = std::thread::scope(|scope| {
            let run = scope.spawn(move || session.drive(vec![Command::Start(start)]));
            run.join().expect("the loop does not panic")
        });
        let rests = rests.expect("the engine runs");
        assert_eq!(rests.len(), 1, "{rests:?}");
        let state = state_at(&*store, "w", None).expect("a state").expect("it began");
        let (output, error) = match &state.end {
            Some(End::Completed { output }) => ((*output.get()).clone(), None),
            Some(End::Failed { error }) => (Value::Null, Some(error.clone())),
            Some(End::Cancelled { .. } | End::Parked { .. }) | None => (Value::Null, None),
        };
        let events = events_of(&*store, "w", 0).expect("a log");
        self.ended = Some(Ended { status: state.status(), output, error, events });
        // Steps still under way have nothing to do with the next scenario.
        pool.shutdown_background();
    }

    /// Names of the tasks in the order in which they were first heard of.
    fn order(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for key in self.ended().events.iter().filter_map(|event| event.fact.key()) {
            let name = key.unmarked().name().to_owned();
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn place(&self, name: &str) -> usize {
        let order = self.order();
        order
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| panic!("`{name}` did not run: {order:?}"))
    }
}

/// A doc string without the word that says its language.
pub fn body(docstring: &str) -> &str {
    let text = docstring.trim_start_matches(['\n', '\r']);
    text.strip_prefix("yaml")
        .map_or(text, |rest| rest.trim_start_matches([' ', '\r']).trim_start_matches('\n'))
}

fn yaml(context: &Context) -> Value {
    let text = context.step.docstring.as_deref().expect("a doc string");
    serde_saphyr::from_str(body(text)).unwrap_or_else(|why| panic!("{why}:\n{text}"))
}

/// The value at `a.b.c`.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

/// Two values are alike when numbers are by what they count.
fn assert_alike(got: &Value, wanted: &Value) {
    let is_alike = got == wanted || got.as_f64().zip(wanted.as_f64()).is_some_and(|(a, b)| a == b);
    assert!(is_alike, "got    {got}\nwanted {wanted}");
}

fn complete(world: &World) {
    let ended = world.ended();
    assert_eq!(ended.status, Status::Completed, "{:?}", ended.error);
}

fn fault(world: &World) -> &Failure {
    assert_eq!(world.ended().status, Status::Failed);
    world.ended().error.as_ref().expect("a failure has its error")
}

/// What a step looks like, when it may come, and what it does.
type Row = (Kind, &'static str, Run);

type Run = fn(&mut World, &Context);

enum Kind {
    Given,
    When,
    Then,
}

fn word(context: &Context, nth: usize) -> &str {
    context.matches.get(nth).map_or("", |(_, text)| text.as_str())
}

const ROWS: &[Row] = &[
    (Kind::Given, r"^a workflow with definition:$", |world, context| {
        world.definition = body(context.step.docstring.as_deref().expect("a definition")).to_owned();
    }),
    (Kind::Given, r"^given the workflow input is:$", |world, context| world.input = yaml(context)),
    (Kind::When, r"^the workflow is executed$", |world, _| world.execute()),
    (Kind::Then, r"^the workflow should complete$", |world, _| complete(world)),
    (Kind::Then, r"^the workflow should complete with output:$", |world, context| {
        complete(world);
        assert_alike(&world.ended().output, &yaml(context));
    }),
    (Kind::Then, r"^the workflow should fault$", |world, _| drop(fault(world).clone())),
    (Kind::Then, r"^the workflow should fault with error:$", |world, context| {
        let error = serde_json::to_value(fault(world)).expect("an error is JSON");
        for (name, wanted) in yaml(context).as_object().expect("an error is an object") {
            assert_alike(error.get(name).unwrap_or(&Value::Null), wanted);
        }
    }),
    (Kind::Then, r"^the workflow output should have properties (.+)$", |world, context| {
        for name in word(context, 1).split(',').map(|name| name.trim().trim_matches('\'')) {
            let output = &world.ended().output;
            assert!(at(output, name).is_some_and(|value| !value.is_null()), "no `{name}` in {output}");
        }
    }),
    (Kind::Then, r"^the workflow output should have a '([^']+)' property with value:$", |world, context| {
        let output = &world.ended().output;
        assert_alike(at(output, word(context, 1)).unwrap_or(&Value::Null), &yaml(context));
    }),
    (
        Kind::Then,
        r"^the workflow output should have a '([^']+)' property containing (\d+) items$",
        |world, context| {
            let items = at(&world.ended().output, word(context, 1)).and_then(Value::as_array).map(Vec::len);
            assert_eq!(items, word(context, 2).parse().ok(), "{}", world.ended().output);
        },
    ),
    (Kind::Then, r"^(\S+) should run first$", |world, context| assert_eq!(world.place(word(context, 1)), 0)),
    (Kind::Then, r"^(\S+) should run last$", |world, context| {
        assert_eq!(world.place(word(context, 1)) + 1, world.order().len(), "{:?}", world.order());
    }),
    (Kind::Then, r"^(\S+) should run after (\S+)$", |world, context| {
        assert!(world.place(word(context, 1)) > world.place(word(context, 2)), "{:?}", world.order());
    }),
    // Ours: what only the log knows.
    (Kind::Then, r"^(\S+) should not run$", |world, context| {
        assert!(!world.order().iter().any(|name| name == word(context, 1)), "{:?}", world.order());
    }),
    (Kind::Then, r"^the key '([^']+)' should be in the log$", |world, context| {
        let keys: Vec<&str> = world
            .ended()
            .events
            .iter()
            .filter_map(|event| event.fact.key())
            .map(|key| key.as_str())
            .collect();
        assert!(keys.contains(&word(context, 1)), "{keys:?}");
    }),
    (Kind::Then, r"^the decision '([^']+)' should have chosen '([^']+)'$", |world, context| {
        let chosen = world.ended().events.iter().find_map(|event| match &event.fact {
            Fact::DecisionMade(made) if made.key.as_str() == word(context, 1) => Some(made.chosen.clone()),
            _ => None,
        });
        assert_eq!(chosen.as_deref(), Some(word(context, 2)));
    }),
    (Kind::Then, r"^the log should not hold the secret '([^']+)'$", |world, context| {
        let log = format!("{:?}", world.ended().events);
        let value = secret(word(context, 1));
        assert!(value.len() > 3 && !log.contains(&value), "{log}");
    }),
    (Kind::Then, r"^the log should hold '([^']+)'$", |world, context| {
        let log = format!("{:?}", world.ended().events);
        assert!(log.contains(word(context, 1)), "{log}");
    }),
];

/// All steps, as the runner wants them. A step is a function without a name there, so each looks
/// itself up by its words.
pub fn all() -> Collection<World> {
    static BY_WORDS: LazyLock<Vec<(Regex, Run)>> = LazyLock::new(|| {
        ROWS.iter().map(|(_, words, run)| (Regex::new(words).expect("a regex"), *run)).collect()
    });
    let run: Step<World> = |world, context| {
        Box::pin(async move {
            let (_, run) =
                BY_WORDS.iter().find(|(words, _)| words.is_match(&context.step.value)).expect("known");
            run(world, &context);
        })
    };
    ROWS.iter().fold(Collection::new(), |all, (when, words, _)| {
        let words = Regex::new(words).expect("a regex");
        match when {
            Kind::Given => all.given(None, words, run),
            Kind::When => all.when(None, words, run),
            Kind::Then => all.then(None, words, run),
        }
    })
}
