//! Sums, products and comparisons. Whole numbers are exact; one that leaves 64 bits is an error and
//! never a float in its place.

use std::cmp::Ordering;
use std::sync::Arc;

use super::bounds::Meter;
use super::fail::{Thrown, about, about_both, fail};
use super::value::{Members, Num, Text, Val, order, total_order};

fn outside() -> Thrown {
    fail("the whole number leaves 64 bits")
}

fn numbers(
    a: Num,
    b: Num,
    whole: impl Fn(i128, i128) -> Option<i128>,
    float: impl Fn(f64, f64) -> f64,
) -> Result<Num, Thrown> {
    match (a.whole(), b.whole()) {
        (Some(x), Some(y)) => whole(x, y).and_then(Num::from_whole).ok_or_else(outside),
        _ => Ok(Num::from(float(a.float(), b.float()))),
    }
}

pub(crate) fn plus(a: Num, b: Num) -> Result<Num, Thrown> {
    numbers(a, b, i128::checked_add, |a, b| a + b)
}

pub(crate) fn negate(number: Num) -> Result<Num, Thrown> {
    match number {
        // jq's zero has a sign too, but not when it is whole.
        Num::Float(n) => Ok(Num::from(-n)),
        whole => whole.whole().and_then(|n| Num::from_whole(-n)).ok_or_else(outside),
    }
}

/// `a + b`
pub(crate) fn add(meter: &Meter, a: Val, b: Val) -> Result<Val, Thrown> {
    match (a, b) {
        (Val::Null, other) | (other, Val::Null) => Ok(other),
        (Val::Num(a), Val::Num(b)) => Ok(Val::Num(plus(a, b)?)),
        (Val::Str(mut a), Val::Str(b)) => {
            meter.pay(b.len() as u64 / 8)?;
            match Arc::get_mut(&mut a.0) {
                Some(text) => text.push_str(&b),
                None => {
                    meter.pay(a.len() as u64 / 8)?;
                    let mut text = String::with_capacity(a.len() + b.len());
                    text.push_str(&a);
                    text.push_str(&b);
                    a = Text::from(text);
                }
            }
            Ok(Val::Str(a))
        }
        (Val::Arr(mut a), Val::Arr(b)) => {
            meter.pay(b.items.len() as u64 / 2)?;
            if Arc::get_mut(&mut a).is_none() {
                meter.pay(a.items.len() as u64 / 2)?;
            }
            let list = Arc::make_mut(&mut a);
            list.depth = list.depth.max(b.depth);
            list.items.extend(b.items.iter().cloned());
            Ok(Val::Arr(a))
        }
        (Val::Obj(mut a), Val::Obj(b)) => {
            meter.pay(b.members.len() as u64)?;
            if Arc::get_mut(&mut a).is_none() {
                meter.pay(a.members.len() as u64)?;
            }
            let dict = Arc::make_mut(&mut a);
            dict.depth = dict.depth.max(b.depth);
            dict.members.extend(b.members.iter().map(|(name, value)| (name.clone(), value.clone())));
            Ok(Val::Obj(a))
        }
        (a, b) => Err(about_both(&a, &b, "cannot be added")),
    }
}

/// `a - b`
pub(crate) fn subtract(meter: &Meter, a: Val, b: Val) -> Result<Val, Thrown> {
    match (a, b) {
        (Val::Num(a), Val::Num(b)) => Ok(Val::Num(numbers(a, b, i128::checked_sub, |a, b| a - b)?)),
        (Val::Arr(a), Val::Arr(b)) => {
            // Sorted once, looked up for each: not the product of both.
            let mut work = (a.items.len() + b.items.len()) as u64;
            let mut gone: Vec<&Val> = b.items.iter().collect();
            gone.sort_by(|x, y| total_order(x, y, &mut work));
            meter.pay(work)?;
            let mut kept = Vec::new();
            for item in &a.items {
                let mut work = 1;
                let found = gone.binary_search_by(|other| total_order(other, item, &mut work)).is_ok();
                meter.pay(work)?;
                // Not a number is equal to nothing, itself included.
                let is_nan = matches!(item, Val::Num(n) if n.float().is_nan());
                if !found || is_nan {
                    kept.push(item.clone());
                }
            }
            Ok(Val::from(kept))
        }
        (a, b) => Err(about_both(&a, &b, "cannot be subtracted")),
    }
}

/// `a * b`
pub(crate) fn multiply(meter: &Meter, a: Val, b: Val) -> Result<Val, Thrown> {
    match (a, b) {
        (Val::Num(a), Val::Num(b)) => Ok(Val::Num(numbers(a, b, i128::checked_mul, |a, b| a * b)?)),
        (Val::Str(text), Val::Num(times)) | (Val::Num(times), Val::Str(text)) => {
            let times = times.float();
            if times.is_nan() || times < 0.0 {
                return Ok(Val::Null);
            }
            // Rounds towards the bounds of the type, which is what is wanted here.
            let times = times as u64;
            meter.pay((text.len() as u64).saturating_mul(times) / 8)?;
            Ok(Val::from(text.repeat(times as usize)))
        }
        (Val::Obj(a), Val::Obj(b)) => merge(meter, Val::Obj(a), Val::Obj(b)),
        (a, b) => Err(about_both(&a, &b, "cannot be multiplied")),
    }
}

/// Objects merged at every level; the right one wins.
fn merge(meter: &Meter, a: Val, b: Val) -> Result<Val, Thrown> {
    match (a, b) {
        (Val::Obj(a), Val::Obj(b)) => {
            meter.pay((a.members.len() + b.members.len()) as u64)?;
            let mut members: Members = a.members.clone();
            for (name, value) in &b.members {
                match (members.get_mut(name), value) {
                    (Some(old @ Val::Obj(_)), Val::Obj(_)) => {
                        *old = merge(meter, std::mem::take(old), value.clone())?;
                    }
                    (Some(old), _) => *old = value.clone(),
                    (None, _) => drop(members.insert(name.clone(), value.clone())),
                }
            }
            Ok(Val::from(members))
        }
        (_, b) => Ok(b),
    }
}

/// `a / b`
pub(crate) fn divide(meter: &Meter, a: Val, b: Val) -> Result<Val, Thrown> {
    match (a, b) {
        (Val::Num(x), Val::Num(y)) => {
            if y.float() == 0.0 {
                let what = "cannot be divided because the divisor is zero";
                return Err(about_both(&Val::Num(x), &Val::Num(y), what));
            }
            match (x.whole(), y.whole()) {
                (Some(x), Some(y)) if x % y == 0 => Num::from_whole(x / y).map(Val::Num).ok_or_else(outside),
                _ => Ok(Val::from(x.float() / y.float())),
            }
        }
        (Val::Str(text), Val::Str(by)) => super::strings::split(meter, &text, &by),
        (a, b) => Err(about_both(&a, &b, "cannot be divided")),
    }
}

/// `a % b`: of whole parts, with the sign of the left.
pub(crate) fn remainder(a: Val, b: Val) -> Result<Val, Thrown> {
    let (Val::Num(x), Val::Num(y)) = (&a, &b) else {
        return Err(about_both(&a, &b, "cannot be divided (remainder)"));
    };
    if x.float().is_nan() || y.float().is_nan() {
        return Ok(Val::from(f64::NAN));
    }
    // Rounds towards the bounds of the type, as jq does.
    let whole = |n: Num| n.whole().unwrap_or(i128::from(n.float() as i64));
    match whole(*y) {
        0 => Err(about_both(&a, &b, "cannot be divided (remainder) because the divisor is zero")),
        y => Num::from_whole(whole(*x) % y.abs()).map(Val::Num).ok_or_else(outside),
    }
}

/// A comparison; `is` says which orders it holds for.
pub(crate) fn compare(meter: &Meter, a: &Val, b: &Val, is: fn(Ordering) -> bool) -> Result<Val, Thrown> {
    let mut work = 0;
    let found = is(order(a, b, &mut work));
    meter.pay(work)?;
    Ok(Val::Bool(found))
}

/// The number in a value; any other is an error.
pub(crate) fn number(value: &Val) -> Result<Num, Thrown> {
    match value {
        Val::Num(number) => Ok(*number),
        other => Err(about(other, "number required")),
    }
}
