//! Between JSON values and jq values: nothing else happens here.
//!
//! A number that is whole stays whole: `10 / 2` is 5, not 5.0, as in jq. What JSON has no word for
//! (not a number, infinity) becomes null.

use jaq_json::{Num, Val};
use serde_json::{Map, Number, Value};

use super::paths::{Need, Wanted};

/// A jq value from a JSON value.
pub(crate) fn to_jq(value: &Value) -> Val {
    match value {
        Value::Null => Val::Null,
        Value::Bool(flag) => Val::Bool(*flag),
        Value::Number(number) => Val::Num(number_to_jq(number)),
        Value::String(text) => Val::from(text.clone()),
        Value::Array(items) => items.iter().map(to_jq).collect(),
        Value::Object(map) => {
            Val::obj(map.iter().map(|(name, value)| (Val::from(name.clone()), to_jq(value))).collect())
        }
    }
}

/// As much of a JSON value as an expression looks at: with a megabyte of data at hand, `.score`
/// copies one number.
pub(crate) fn to_jq_pruned(value: &Value, wanted: &Wanted) -> Val {
    match (wanted, value) {
        (Wanted::Nothing, _) => Val::Null,
        (Wanted::Members(needs), Value::Object(map)) => Val::obj(
            needs
                .iter()
                .filter_map(|Need { name, inside }| {
                    map.get(name).map(|value| (Val::from(name.clone()), to_jq_pruned(value, inside)))
                })
                .collect(),
        ),
        (Wanted::Members(_) | Wanted::All, value) => to_jq(value),
    }
}

fn number_to_jq(number: &Number) -> Num {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(n), _, _) => Num::from_integral(n),
        (None, Some(n), _) => Num::from_integral(n),
        (None, None, float) => Num::Float(float.unwrap_or(f64::NAN)),
    }
}

/// A JSON value from a jq value.
pub(crate) fn from_jq(value: Val) -> Result<Value, String> {
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(flag) => Value::Bool(flag),
        Val::Num(number) => number_from_jq(&number),
        Val::BStr(text) | Val::TStr(text) => Value::String(String::from_utf8_lossy(&text).into_owned()),
        Val::Arr(items) => Value::Array(items.iter().cloned().map(from_jq).collect::<Result<_, _>>()?),
        Val::Obj(map) => {
            let mut members = Map::with_capacity(map.len());
            for (name, value) in map.iter() {
                let Val::TStr(name) = name else {
                    return Err(format!("the key {name} of an object is not a text"));
                };
                members.insert(String::from_utf8_lossy(name).into_owned(), from_jq(value.clone())?);
            }
            Value::Object(members)
        }
    })
}

fn number_from_jq(number: &Num) -> Value {
    /// Up to here every whole number is a float of its own.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    let float = |n: f64| match n.is_finite() && n.fract() == 0.0 && n.abs() <= WHOLE_MAX {
        true => Value::from(n as i64),
        false => Number::from_f64(n).map_or(Value::Null, Value::Number),
    };
    match number {
        Num::Int(n) => Value::from(*n as i64),
        Num::Float(n) => float(*n),
        Num::BigInt(n) => match n.to_string().parse::<u64>() {
            Ok(n) => Value::from(n),
            Err(_) => n.to_string().parse().map_or(Value::Null, float),
        },
        Num::Dec(text) => text.parse().map_or(Value::Null, float),
    }
}

/// The value of a JSON text; nested no deeper than a person's JSON may be.
pub(crate) fn parse(text: &str) -> Result<Val, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => Ok(to_jq(&value)),
        Err(error) => Err(format!("cannot parse as JSON: {error}")),
    }
}
