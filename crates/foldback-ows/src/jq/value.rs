//! The values that expressions work on, and the way from and to JSON.
//!
//! Whole numbers are exact in 64 bits, all others are floats. A number that JSON has no word for
//! (not a number, infinity) may stand inside an expression and never leaves it. The members of an
//! object keep the order in which they came, as in jq and in the log.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Number, Value};

use super::paths::{Need, Wanted};

/// A value of an expression.
#[derive(Clone, Debug, Default)]
pub(crate) enum Val {
    #[default]
    Null,
    Bool(bool),
    Num(Num),
    Str(Text),
    Arr(Arc<List>),
    Obj(Arc<Dict>),
}

/// A number. A float that is whole and small enough to be exact is an `Int`, so each number has one form.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Num {
    Int(i64),
    /// Above `i64::MAX`.
    Big(u64),
    Float(f64),
}

/// A text that is shared until it is changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Text(pub Arc<String>);

/// The items of an array.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    pub items: Vec<Val>,
    /// At least how deep it nests.
    pub depth: u32,
}

/// Members of an object by their names, in the order in which they came.
pub(crate) type Members = IndexMap<Text, Val>;

/// The members of an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dict {
    pub members: Members,
    /// At least how deep it nests.
    pub depth: u32,
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(Arc::new(text.to_owned()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(Arc::new(text))
    }
}

impl From<&str> for Val {
    fn from(text: &str) -> Val {
        Val::Str(text.into())
    }
}

impl From<String> for Val {
    fn from(text: String) -> Val {
        Val::Str(text.into())
    }
}

impl From<bool> for Val {
    fn from(flag: bool) -> Val {
        Val::Bool(flag)
    }
}

impl From<i64> for Val {
    fn from(number: i64) -> Val {
        Val::Num(Num::Int(number))
    }
}

impl From<usize> for Val {
    fn from(number: usize) -> Val {
        Val::Num(Num::Int(number as i64))
    }
}

impl From<f64> for Val {
    fn from(number: f64) -> Val {
        Val::Num(Num::from(number))
    }
}

impl From<Vec<Val>> for Val {
    fn from(items: Vec<Val>) -> Val {
        let depth = 1 + items.iter().map(Val::depth).max().unwrap_or(0);
        Val::Arr(Arc::new(List { items, depth }))
    }
}

impl FromIterator<Val> for Val {
    fn from_iter<I: IntoIterator<Item = Val>>(items: I) -> Val {
        Val::from(items.into_iter().collect::<Vec<_>>())
    }
}

impl From<Members> for Val {
    fn from(members: Members) -> Val {
        let depth = 1 + members.values().map(Val::depth).max().unwrap_or(0);
        Val::Obj(Arc::new(Dict { members, depth }))
    }
}

/// An object of a few members.
pub(crate) fn object<const N: usize>(members: [(&str, Val); N]) -> Val {
    Val::from(members.into_iter().map(|(name, value)| (Text::from(name), value)).collect::<Members>())
}

impl Val {
    /// At least how deep it nests.
    pub fn depth(&self) -> u32 {
        match self {
            Val::Arr(list) => list.depth,
            Val::Obj(dict) => dict.depth,
            Val::Null | Val::Bool(_) | Val::Num(_) | Val::Str(_) => 0,
        }
    }

    /// Neither null nor false.
    pub fn is_true(&self) -> bool {
        !matches!(self, Val::Null | Val::Bool(false))
    }

    /// The name of its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Val::Null => "null",
            Val::Bool(_) => "boolean",
            Val::Num(_) => "number",
            Val::Str(_) => "string",
            Val::Arr(_) => "array",
            Val::Obj(_) => "object",
        }
    }

    /// The same value, seen without looking into it: what a path was followed to.
    pub fn is_same(&self, other: &Val) -> bool {
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Num(a), Val::Num(b)) => a.order(*b) == Ordering::Equal,
            (Val::Str(a), Val::Str(b)) => Arc::ptr_eq(&a.0, &b.0),
            (Val::Arr(a), Val::Arr(b)) => Arc::ptr_eq(a, b),
            (Val::Obj(a), Val::Obj(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// What it weighs by itself, without what its entries hold.
    pub fn size(&self) -> u64 {
        match self {
            Val::Null | Val::Bool(_) | Val::Num(_) => 1,
            Val::Str(text) => 1 + text.len() as u64 / 8,
            Val::Arr(list) => 1 + list.items.len() as u64 / 2,
            Val::Obj(dict) => 1 + dict.members.len() as u64,
        }
    }

    /// What all of it weighs: about one for each value in it, and one for each 8 bytes of text.
    pub fn weight(&self) -> u64 {
        match self {
            Val::Null | Val::Bool(_) | Val::Num(_) | Val::Str(_) => self.size(),
            Val::Arr(list) => list.items.iter().fold(1, |sum, item| sum + item.weight()),
            Val::Obj(dict) => dict
                .members
                .iter()
                .fold(1, |sum, (name, value)| sum + 1 + name.len() as u64 / 8 + value.weight()),
        }
    }
}

/// Up to here every whole number is a float of its own.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

impl From<f64> for Num {
    fn from(number: f64) -> Num {
        match number.fract() == 0.0
            && number.abs() <= WHOLE_MAX
            && !(number == 0.0 && number.is_sign_negative())
        {
            true => Num::Int(number as i64),
            false => Num::Float(number),
        }
    }
}

impl Num {
    pub fn float(self) -> f64 {
        match self {
            Num::Int(n) => n as f64,
            Num::Big(n) => n as f64,
            Num::Float(n) => n,
        }
    }

    /// The whole number that it is, if it is one that is exact.
    pub fn whole(self) -> Option<i128> {
        match self {
            Num::Int(n) => Some(n.into()),
            Num::Big(n) => Some(n.into()),
            Num::Float(_) => None,
        }
    }

    /// A whole number of 64 bits; `None` outside.
    pub fn from_whole(number: i128) -> Option<Num> {
        match (i64::try_from(number), u64::try_from(number)) {
            (Ok(n), _) => Some(Num::Int(n)),
            (Err(_), Ok(n)) => Some(Num::Big(n)),
            (Err(_), Err(_)) => None,
        }
    }

    /// A number of JSON or of an expression as it is written.
    pub fn parse(text: &str) -> Option<Num> {
        if let Ok(n) = text.parse::<i64>() {
            return Some(Num::Int(n));
        }
        if let Ok(n) = text.parse::<u64>() {
            return Some(Num::Big(n));
        }
        let is_whole = text.strip_prefix(['-', '+']).unwrap_or(text).bytes().all(|b| b.is_ascii_digit());
        let float = text.parse::<f64>().ok()?;
        (float.is_finite() && !is_whole).then(|| Num::from(float))
    }

    /// Not a number stands before all numbers.
    pub fn order(self, other: Num) -> Ordering {
        if let (Some(a), Some(b)) = (self.whole(), other.whole()) {
            return a.cmp(&b);
        }
        let (a, b) = (self.float(), other.float());
        if a.is_nan() {
            return Ordering::Less;
        }
        match a.partial_cmp(&b) {
            Some(Ordering::Equal) => match (self.whole(), other.whole()) {
                // A float beside a whole number that a float cannot hold.
                (Some(a), None) => a.cmp(&(b as i128)),
                (None, Some(b)) => (a as i128).cmp(&b),
                _ => Ordering::Equal,
            },
            Some(order) => order,
            None => Ordering::Greater,
        }
    }
}

fn rank(value: &Val) -> u8 {
    match value {
        Val::Null => 0,
        Val::Bool(false) => 1,
        Val::Bool(true) => 2,
        Val::Num(_) => 3,
        Val::Str(_) => 4,
        Val::Arr(_) => 5,
        Val::Obj(_) => 6,
    }
}

/// The order of all values; `work` counts what was looked at.
pub(crate) fn order(a: &Val, b: &Val, work: &mut u64) -> Ordering {
    *work += 1;
    match (a, b) {
        (Val::Num(a), Val::Num(b)) => a.order(*b),
        (Val::Str(a), Val::Str(b)) => {
            *work += a.len().min(b.len()) as u64 / 8;
            a.cmp(b)
        }
        (Val::Arr(a), Val::Arr(b)) => {
            for (a, b) in a.items.iter().zip(&b.items) {
                let order = order(a, b, work);
                if order != Ordering::Equal {
                    return order;
                }
            }
            a.items.len().cmp(&b.items.len())
        }
        (Val::Obj(a), Val::Obj(b)) => {
            // By their names first, then by what stands under them.
            *work += (a.members.len() + b.members.len()) as u64;
            let (a, b) = (sorted(a), sorted(b));
            let names = a.iter().map(|(name, _)| name).cmp(b.iter().map(|(name, _)| name));
            if names != Ordering::Equal {
                return names;
            }
            for ((_, a), (_, b)) in a.into_iter().zip(b) {
                let order = order(a, b, work);
                if order != Ordering::Equal {
                    return order;
                }
            }
            Ordering::Equal
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn sorted(dict: &Dict) -> Vec<(&Text, &Val)> {
    let mut members: Vec<_> = dict.members.iter().collect();
    members.sort_by_key(|&(name, _)| name);
    members
}

/// As [`order`], where each value is equal to itself: for sorting.
pub(crate) fn total_order(a: &Val, b: &Val, work: &mut u64) -> Ordering {
    match order(a, b, work) {
        // Not a number is less than itself.
        Ordering::Less => match order(b, a, work) {
            Ordering::Less => Ordering::Equal,
            _ => Ordering::Less,
        },
        order => order,
    }
}

/// A value from a JSON value.
pub(crate) fn to_jq(value: &Value) -> Val {
    match value {
        Value::Null => Val::Null,
        Value::Bool(flag) => Val::Bool(*flag),
        Value::Number(number) => Val::Num(number_to_jq(number)),
        Value::String(text) => Val::from(text.as_str()),
        Value::Array(items) => items.iter().map(to_jq).collect(),
        Value::Object(map) => Val::from(
            map.iter().map(|(name, value)| (Text::from(name.as_str()), to_jq(value))).collect::<Members>(),
        ),
    }
}

/// As much of a JSON value as an expression looks at: with a megabyte of data at hand, `.score`
/// copies one number.
pub(crate) fn to_jq_pruned(value: &Value, wanted: &Wanted) -> Val {
    match (wanted, value) {
        (Wanted::Nothing, _) => Val::Null,
        (Wanted::Members(needs), Value::Object(map)) => Val::from(
            needs
                .iter()
                .filter_map(|Need { name, inside }| {
                    map.get(name).map(|value| (Text::from(name.as_str()), to_jq_pruned(value, inside)))
                })
                .collect::<Members>(),
        ),
        (Wanted::Members(_) | Wanted::All, value) => to_jq(value),
    }
}

fn number_to_jq(number: &Number) -> Num {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(n), _, _) => Num::Int(n),
        (None, Some(n), _) => Num::Big(n),
        (None, None, float) => Num::from(float.unwrap_or(f64::NAN)),
    }
}

/// A JSON value from a value. What JSON has no word for is refused, with its place.
pub(crate) fn from_jq(value: &Val) -> Result<Value, String> {
    from_at(value, &mut Vec::new())
}

fn from_at(value: &Val, place: &mut Vec<String>) -> Result<Value, String> {
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(flag) => Value::Bool(*flag),
        Val::Num(Num::Int(n)) => Value::from(*n),
        Val::Num(Num::Big(n)) => Value::from(*n),
        Val::Num(Num::Float(n)) => Number::from_f64(*n).map(Value::Number).ok_or_else(|| {
            let at = match place.is_empty() {
                true => String::new(),
                false => format!(" at `{}`", place.concat()),
            };
            format!("the result{at} is {}, which JSON has no word for", nameless(*n))
        })?,
        Val::Str(text) => Value::String(text.to_string()),
        Val::Arr(list) => {
            let mut items = Vec::with_capacity(list.items.len());
            for (i, item) in list.items.iter().enumerate() {
                items.push(match item {
                    Val::Num(Num::Float(_)) | Val::Arr(_) | Val::Obj(_) => {
                        place.push(format!("/{i}"));
                        let item = from_at(item, place)?;
                        place.pop();
                        item
                    }
                    item => from_at(item, place)?,
                });
            }
            Value::Array(items)
        }
        Val::Obj(dict) => {
            let mut members = Map::with_capacity(dict.members.len());
            for (name, item) in &dict.members {
                place.push(format!("/{}", name.replace('~', "~0").replace('/', "~1")));
                members.insert(name.to_string(), from_at(item, place)?);
                place.pop();
            }
            Value::Object(members)
        }
    })
}

/// How a person calls a number without a word in JSON.
pub(crate) fn nameless(number: f64) -> &'static str {
    match (number.is_nan(), number > 0.0) {
        (true, _) => "not a number (nan)",
        (false, true) => "infinite",
        (false, false) => "negative infinite",
    }
}
