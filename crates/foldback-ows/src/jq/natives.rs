//! The native filters of expressions: jaq's own without those that look at the world, and ours,
//! whose names (`!tick`, `!add` …) no person can write, which count and copy.
//!
//! Nothing here reads a clock, the environment, a file or the time zone of the machine.

use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::data::{DataT, HasLut};
use jaq_core::native::{Fun, bome, v};
use jaq_core::{Bind, Cv, Exn, Lut, Native, ValR, ValX, ValXs};
use jaq_json::Val;

use super::bounds::{Meter, TICK, is_small};
use super::value;

/// jq over JSON with a meter at hand.
pub(crate) struct Metered;

/// What an evaluation carries.
#[derive(Clone, Copy)]
pub(crate) struct Tools<'a> {
    pub lut: &'a Lut<Metered>,
    pub meter: &'a Meter,
}

impl DataT for Metered {
    type V<'a> = Val;
    type Data<'a> = Tools<'a>;
}

impl<'a> HasLut<'a, Metered> for Tools<'a> {
    fn lut(&self) -> &'a Lut<Metered> {
        self.lut
    }
}

/// Natives of jaq that are left out: they look at the world, or end the process.
const LEFT_OUT: [&str; 9] = [
    "env",
    "now",
    "halt",
    "localtime",
    "strflocaltime",
    "debug_empty",
    "stderr_empty",
    "fromjson",
    "tobytes",
];

/// Natives that cost next to nothing, or whose argument pays for itself.
pub(crate) const CHEAP: [&str; 22] = [
    "error_empty",
    "path",
    "path_value",
    "range",
    "first",
    "last",
    "limit",
    "skip",
    "floor",
    "round",
    "ceil",
    "has",
    "startswith",
    "endswith",
    "utf8bytelength",
    "pow",
    "log",
    "log2",
    "log10",
    "exp",
    "sqrt",
    "fabs",
];

/// All natives, ours first: the first match counts.
pub(crate) fn all() -> Vec<Fun<Metered>> {
    let theirs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let mut all = ours();
    all.extend(theirs.filter(|(name, ..)| !LEFT_OUT.contains(name)));
    all
}

type Run = for<'a> fn(Cv<'a, Metered>) -> ValXs<'a, Val>;

fn ours() -> Vec<Fun<Metered>> {
    let closure = || -> Box<[Bind]> { [Bind::Fun(())].into() };
    let run = |name, arity, run: Run| (name, arity, Native::<Metered>::new(run));
    vec![
        // Counts what passes; nests are counted where an update nests.
        (
            "!tick",
            v(0),
            Native::<Metered>::new(|cv| pass(cv, |meter, _| meter.pay(TICK)))
                .with_paths(|cv| match cv.0.data().meter.pay(TICK) {
                    Ok(()) => box_once(Ok(cv.1)),
                    Err(stopped) => box_once(Err(stopped)),
                })
                .with_update(|cv, f| {
                    let meter = cv.0.data().meter;
                    match meter.pay(TICK).and_then(|()| meter.deeper_in_update(|| f(cv.1))) {
                        Ok(outputs) => nested(meter, Nests::Update, outputs),
                        Err(stopped) => box_once(Err(stopped)),
                    }
                }),
        ),
        // Counts calls that nest: a tail call never passes here.
        (
            "!deep",
            closure(),
            Native::<Metered>::new(|mut cv| {
                let meter = cv.0.data().meter;
                let (f, context) = cv.0.pop_fun();
                match meter.deeper(|| f.run((context, cv.1))) {
                    Ok(outputs) => nested(meter, Nests::Call, outputs),
                    Err(stopped) => box_once(Err(stopped)),
                }
            })
            .with_paths(|mut cv| {
                let meter = cv.0.data().meter;
                let (f, context) = cv.0.pop_fun();
                match meter.deeper(|| f.paths((context, cv.1))) {
                    Ok(outputs) => nested(meter, Nests::Call, outputs),
                    Err(stopped) => box_once(Err(stopped)),
                }
            })
            .with_update(|mut cv, update| {
                let meter = cv.0.data().meter;
                let (f, context) = cv.0.pop_fun();
                match meter.deeper(|| f.update((context, cv.1), update)) {
                    Ok(outputs) => nested(meter, Nests::Call, outputs),
                    Err(stopped) => box_once(Err(stopped)),
                }
            }),
        ),
        // Pays for all of a value: one that was made, or one that a native will look at.
        run("!weigh", v(0), |cv| pass(cv, Meter::weigh)),
        run("!weigh_shallow", v(0), |cv| pass(cv, Meter::weigh_shallow)),
        run("!weigh_product", v(1), |mut cv| {
            let other = cv.0.pop_var();
            pass(cv, |meter, value| meter.weigh_product(value, &other))
        }),
        run("!weigh_match", v(1), |mut cv| {
            let pattern = cv.0.pop_var();
            pass(cv, |meter, value| meter.weigh_match(value, &pattern))
        }),
        // An index: a container is not one, because searching it is not counted.
        run("!index", v(0), |cv| match cv.1 {
            Val::Arr(_) | Val::Obj(_) => bome(Err(jaq_core::Error::str(
                "an index is a text or a number; to search an array use indices(…)",
            ))),
            value => box_once(Ok(value)),
        }),
        run("!add", v(2), |cv| {
            calculate(
                cv,
                |meter, a, b| {
                    meter.weigh_shallow(a)?;
                    meter.weigh(b)
                },
                |a, b| a + b,
            )
        }),
        run("!sub", v(2), |cv| {
            calculate(
                cv,
                |meter, a, b| match (a, b) {
                    (Val::Arr(_), Val::Arr(_)) => meter.weigh_product(a, b),
                    _ => meter.pay(TICK),
                },
                |a, b| a - b,
            )
        }),
        run("!mul", v(2), |cv| calculate(cv, Meter::weigh_multiplication, |a, b| a * b)),
        run("!div", v(2), |cv| {
            calculate(
                cv,
                |meter, a, b| match (a, b) {
                    (Val::TStr(_) | Val::BStr(_), _) => {
                        meter.weigh_product(a, b)?;
                        meter.weigh_match(a, &Val::Null)
                    }
                    _ => meter.pay(TICK),
                },
                |a, b| a / b,
            )
        }),
        run("!rem", v(2), |cv| {
            calculate(
                cv,
                |meter, a, b| {
                    meter.weigh(a)?;
                    meter.weigh(b)
                },
                |a, b| a % b,
            )
        }),
        run("!lt", v(2), |cv| compare(cv, |a, b| a < b)),
        run("!le", v(2), |cv| compare(cv, |a, b| a <= b)),
        run("!gt", v(2), |cv| compare(cv, |a, b| a > b)),
        run("!ge", v(2), |cv| compare(cv, |a, b| a >= b)),
        run("!eq", v(2), |cv| compare(cv, |a, b| a == b)),
        run("!ne", v(2), |cv| compare(cv, |a, b| a != b)),
        run("fromjson", v(0), |cv| {
            bome(match cv.1.as_utf8_text() {
                Some(text) => value::parse(text).map_err(jaq_core::Error::str),
                None => Err(jaq_core::Error::typ(cv.1, "string")),
            })
        }),
    ]
}

/// Yields the input when `pay` lets it pass.
fn pass<'a>(
    cv: Cv<'a, Metered>,
    pay: impl FnOnce(&'a Meter, &Val) -> Result<(), Exn<'a, Val>>,
) -> ValXs<'a, Val> {
    let paid = pay(cv.0.data().meter, &cv.1);
    box_once(paid.map(|()| cv.1))
}

/// What it is that nests.
#[derive(Clone, Copy)]
enum Nests {
    Call,
    Update,
}

/// Counts the nesting of an iterator while it works.
fn nested<'a, T: 'a>(
    meter: &'a Meter,
    what: Nests,
    mut outputs: BoxIter<'a, ValX<'a, T, Val>>,
) -> BoxIter<'a, ValX<'a, T, Val>> {
    // One output already made nests no more.
    if outputs.size_hint() == (1, Some(1)) {
        let only = outputs.next();
        return Box::new(only.into_iter());
    }
    Box::new(std::iter::from_fn(move || {
        let next = match what {
            Nests::Call => meter.deeper(|| outputs.next()),
            Nests::Update => meter.deeper_in_update(|| outputs.next()),
        };
        next.unwrap_or_else(|stopped| Some(Err(stopped)))
    }))
}

fn calculate<'a>(
    cv: Cv<'a, Metered>,
    pay: impl FnOnce(&'a Meter, &Val, &Val) -> Result<(), Exn<'a, Val>>,
    run: impl FnOnce(Val, Val) -> ValR<Val>,
) -> ValXs<'a, Val> {
    let (mut context, input) = cv;
    // Let go of the input before adding to a copy of it: an array that nobody else holds grows in place.
    drop(input);
    let right = context.pop_var();
    let left = context.pop_var();
    let meter = context.data().meter;
    drop(context);
    box_once(pay(meter, &left, &right).and_then(|()| run(left, right).map_err(Exn::from)))
}

fn compare<'a>(cv: Cv<'a, Metered>, run: impl FnOnce(&Val, &Val) -> bool) -> ValXs<'a, Val> {
    calculate(
        cv,
        |meter, a, b| match is_small(a) || is_small(b) {
            true => meter.pay(TICK),
            false => {
                meter.weigh(a)?;
                meter.weigh(b)
            }
        },
        |a, b| Ok(Val::from(run(&a, &b))),
    )
}

/// The text of a value, where it is one.
trait AsText {
    fn as_utf8_text(&self) -> Option<&str>;
}

impl AsText for Val {
    fn as_utf8_text(&self) -> Option<&str> {
        match self {
            Val::TStr(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }
}
