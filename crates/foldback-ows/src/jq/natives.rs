//! The filters that are not written in jq. Each pays for what it looks at and makes.
//!
//! Nothing here reads a clock, the environment, a file or the time zone of the machine.

use std::cmp::Ordering;

use super::bounds::Meter;
use super::fail::{Thrown, about, about_both, fail, quoting};
use super::value::{Members, Num, Val, total_order};
use super::{access, arith, dates, maths, regexes, strings, text};

/// Takes its input and up to three arguments; those behind its arity are null.
pub(crate) type Run = fn(&Meter, Val, [Val; 3]) -> Result<Val, Thrown>;

/// A native filter. Names that begin with `_` are for the library and for operators.
#[derive(Debug)]
pub(crate) struct Native {
    pub name: &'static str,
    pub arity: usize,
    pub run: Run,
}

const fn native(name: &'static str, arity: usize, run: Run) -> Native {
    Native { name, arity, run }
}

static NATIVES: &[Native] = &[
    // The input of an operator is let go first: what its left side holds alone grows in place.
    native("_plus", 2, |m, input, [a, b, _]| {
        drop(input);
        arith::add(m, a, b)
    }),
    native("_minus", 2, |m, _, [a, b, _]| arith::subtract(m, a, b)),
    native("_times", 2, |m, _, [a, b, _]| arith::multiply(m, a, b)),
    native("_by", 2, |m, _, [a, b, _]| arith::divide(m, a, b)),
    native("_rest", 2, |_, _, [a, b, _]| arith::remainder(a, b)),
    native("_less", 2, |m, _, [a, b, _]| arith::compare(m, &a, &b, Ordering::is_lt)),
    native("_lesseq", 2, |m, _, [a, b, _]| arith::compare(m, &a, &b, Ordering::is_le)),
    native("_greater", 2, |m, _, [a, b, _]| arith::compare(m, &a, &b, Ordering::is_gt)),
    native("_greatereq", 2, |m, _, [a, b, _]| arith::compare(m, &a, &b, Ordering::is_ge)),
    native("_equal", 2, |m, _, [a, b, _]| arith::compare(m, &a, &b, Ordering::is_eq)),
    native("_notequal", 2, |m, _, [a, b, _]| arith::compare(m, &a, &b, Ordering::is_ne)),
    native("_negate", 0, |_, value, _| match value {
        Val::Num(number) => Ok(Val::Num(arith::negate(number)?)),
        other => Err(about(&other, "cannot be negated")),
    }),
    native("not", 0, |_, value, _| Ok(Val::Bool(!value.is_true()))),
    native("error", 0, |_, value, _| {
        Err(Thrown::Error(super::fail::Failure { value, plain: "the expression calls `error`".into() }))
    }),
    native("type", 0, |_, value, _| Ok(Val::from(value.kind()))),
    native("length", 0, |m, value, _| {
        m.pay(if let Val::Str(text) = &value { text.len() as u64 / 8 } else { 0 })?;
        match &value {
            Val::Null => Ok(Val::from(0usize)),
            Val::Num(number) if number.float() < 0.0 => Ok(Val::Num(arith::negate(*number)?)),
            Val::Num(_) => Ok(value),
            Val::Str(text) => Ok(Val::from(text.chars().count())),
            Val::Arr(list) => Ok(Val::from(list.items.len())),
            Val::Obj(dict) => Ok(Val::from(dict.members.len())),
            Val::Bool(_) => Err(about(&value, "has no length")),
        }
    }),
    native("utf8bytelength", 0, |_, value, _| match &value {
        Val::Str(text) => Ok(Val::from(text.len())),
        other => Err(about(other, "only strings have UTF-8 byte length")),
    }),
    native("keys", 0, |m, value, _| keys(m, &value, true)),
    native("keys_unsorted", 0, |m, value, _| keys(m, &value, false)),
    native("has", 1, |_, value, [key, ..]| access::has(&value, &key)),
    native("contains", 1, |m, value, [other, ..]| Ok(Val::Bool(contains(m, &value, &other)?))),
    native("setpath", 2, |m, value, [path, new, _]| access::set_path(m, value, &path, new)),
    native("delpaths", 1, |m, value, [paths, ..]| access::delete_paths(m, value, &paths)),
    native("sort", 0, |m, value, _| {
        let items = sorted(m, &value, &value)?;
        Ok(items.into_iter().map(|(_, item)| item).collect())
    }),
    native("_sort_by_impl", 1, |m, value, [keys, ..]| {
        Ok(sorted(m, &value, &keys)?.into_iter().map(|(_, item)| item).collect())
    }),
    native("_group_by_impl", 1, |m, value, [keys, ..]| grouped(m, &value, &keys)),
    native("_unique_by_impl", 1, |m, value, [keys, ..]| {
        let groups = grouped(m, &value, &keys)?;
        let Val::Arr(groups) = &groups else { return Ok(groups) };
        Ok(groups.items.iter().filter_map(first).collect())
    }),
    native("unique", 0, |m, value, _| {
        let groups = grouped(m, &value, &value)?;
        let Val::Arr(groups) = &groups else { return Ok(groups) };
        Ok(groups.items.iter().filter_map(first).collect())
    }),
    native("_min_by_impl", 1, |m, value, [keys, ..]| extreme(m, &value, &keys, true)),
    native("_max_by_impl", 1, |m, value, [keys, ..]| extreme(m, &value, &keys, false)),
    native("min", 0, |m, value, _| extreme(m, &value.clone(), &value, true)),
    native("max", 0, |m, value, _| extreme(m, &value.clone(), &value, false)),
    native("add", 0, add),
    native("reverse", 0, |m, value, _| match &value {
        Val::Arr(list) => {
            m.pay(list.items.len() as u64 / 2)?;
            Ok(list.items.iter().rev().cloned().collect())
        }
        Val::Bool(_) => Err(about(&value, "has no length")),
        other => {
            // As in jq, where the last item is looked for first.
            let length = match other {
                Val::Str(text) => text.chars().count() as f64,
                Val::Obj(dict) => dict.members.len() as f64,
                Val::Num(number) => number.float().abs(),
                _ => 0.0,
            };
            match length > 0.0 {
                true => access::index(m, other, &Val::from(length - 1.0)),
                false => Ok(Val::from(Vec::new())),
            }
        }
    }),
    native("_flatten", 1, |m, value, [depth, ..]| {
        let mut items = Vec::new();
        flatten(m, &value, &depth, &mut items)?;
        Ok(Val::from(items))
    }),
    native("bsearch", 1, |m, value, [wanted, ..]| {
        let Val::Arr(list) = &value else { return Err(about(&value, "cannot be searched from")) };
        // Step by step as in jq: it finds the same in a list that is not sorted.
        let (mut from, mut to, mut work) = (0, list.items.len(), 0);
        let mut found = None;
        while found.is_none() && from < to {
            let at = from.midpoint(to);
            match total_order(&wanted, &list.items[at], &mut work) {
                Ordering::Equal => found = Some(at as i64),
                Ordering::Less => to = at,
                Ordering::Greater => from = at + 1,
            }
        }
        m.pay(work)?;
        Ok(Val::from(found.unwrap_or(-1 - from as i64)))
    }),
    native("tojson", 0, |m, value, _| {
        m.pay(value.weight())?;
        text::to_json(&value).map(Val::from)
    }),
    native("tostring", 0, |m, value, _| {
        m.pay(if let Val::Str(_) = value { 1 } else { value.weight() })?;
        text::to_text(&value)
    }),
    native("fromjson", 0, |m, value, _| match &value {
        Val::Str(text) => {
            m.pay(text.len() as u64 / 2)?;
            from_json(text)
        }
        other => Err(about(other, "only strings can be parsed")),
    }),
    native("tonumber", 0, |m, value, _| match &value {
        Val::Num(_) => Ok(value),
        Val::Str(text) => {
            m.pay(text.len() as u64 / 8)?;
            maths::parse(text).ok_or_else(|| about(&value, "cannot be parsed as a number"))
        }
        other => Err(about(other, "cannot be parsed as a number")),
    }),
    native("toboolean", 0, |_, value, _| match &value {
        Val::Bool(_) => Ok(value),
        Val::Str(text) if &**text == "true" => Ok(Val::Bool(true)),
        Val::Str(text) if &**text == "false" => Ok(Val::Bool(false)),
        other => Err(about(other, "cannot be parsed as a boolean")),
    }),
    native("infinite", 0, |_, _, _| Ok(Val::from(f64::INFINITY))),
    native("nan", 0, |_, _, _| Ok(Val::from(f64::NAN))),
    native("isinfinite", 0, |_, value, _| Ok(is_float(&value, f64::is_infinite))),
    native("isnan", 0, |_, value, _| Ok(is_float(&value, f64::is_nan))),
    native("isnormal", 0, |_, value, _| Ok(is_float(&value, f64::is_normal))),
    native("have_literal_numbers", 0, |_, _, _| Ok(Val::Bool(true))),
    native("startswith", 1, |_, value, [part, ..]| strings::at_end("startswith", &value, &part)),
    native("endswith", 1, |_, value, [part, ..]| strings::at_end("endswith", &value, &part)),
    native("trim", 0, |m, value, _| strings::trim(m, &value, true, true)),
    native("ltrim", 0, |m, value, _| strings::trim(m, &value, true, false)),
    native("rtrim", 0, |m, value, _| strings::trim(m, &value, false, true)),
    native("explode", 0, |m, value, _| strings::explode(m, &value)),
    native("implode", 0, |m, value, _| strings::implode(m, &value)),
    native("ascii_downcase", 0, |m, value, _| strings::ascii_case(m, &value, str::to_ascii_lowercase)),
    native("ascii_upcase", 0, |m, value, _| strings::ascii_case(m, &value, str::to_ascii_uppercase)),
    native("split", 1, |m, value, [by, ..]| match (&value, &by) {
        (Val::Str(text), Val::Str(by)) => strings::split(m, text, by),
        _ => Err(fail("split input and separator must be strings")),
    }),
    native("join", 1, |m, value, [by, ..]| strings::join(m, &value, &by)),
    native("_strindices", 1, |m, value, [part, ..]| strings::indices(m, &value, &part)),
    native("format", 1, |m, value, [name, ..]| match &name {
        Val::Str(text) => match format(&format!("@{}", &**text)) {
            Some(native) => (native.run)(m, value, [Val::Null, Val::Null, Val::Null]),
            None => Err(fail(format!("{} is not a valid format", &**text))),
        },
        other => Err(about(other, "is not a valid format")),
    }),
    native("_match_impl", 3, |m, value, [pattern, flags, test]| {
        regexes::matches(m, &value, &pattern, &flags, test.is_true())
    }),
    native("_gsub_parts", 2, |m, value, [pattern, flags, _]| regexes::parts(m, &value, &pattern, &flags)),
    native("_assembled", 0, |m, value, _| regexes::assembled(m, &value)),
    native("_date", 2, |m, value, [what, with, _]| dates::run(m, &value, &what, &with)),
];

static FORMATS: &[Native] = &[
    native("@text", 0, |m, value, _| {
        m.pay(if let Val::Str(_) = value { 1 } else { value.weight() })?;
        text::to_text(&value)
    }),
    native("@json", 0, |m, value, _| {
        m.pay(value.weight())?;
        text::to_json(&value).map(Val::from)
    }),
    native("@csv", 0, |m, value, _| strings::row(m, &value, "csv")),
    native("@tsv", 0, |m, value, _| strings::row(m, &value, "tsv")),
    native("@html", 0, |m, value, _| strings::html(m, &value)),
    native("@uri", 0, |m, value, _| strings::uri(m, &value)),
    native("@urid", 0, |m, value, _| strings::urid(m, &value)),
    native("@sh", 0, |m, value, _| strings::shell(m, &value)),
    native("@base64", 0, |m, value, _| strings::base64(m, &value)),
    native("@base64d", 0, |m, value, _| strings::base64d(m, &value)),
];

/// The native of this name.
pub(crate) fn find(name: &str, arity: usize) -> Option<&'static Native> {
    NATIVES
        .iter()
        .find(|native| native.name == name && native.arity == arity)
        .or_else(|| maths::MATHS.iter().find(|native| native.name == name && native.arity == arity))
}

/// The format of this name, with its `@`.
pub(crate) fn format(name: &str) -> Option<&'static Native> {
    FORMATS.iter().find(|native| native.name == name)
}

/// The names that a person may call, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NATIVES.iter().chain(maths::MATHS).map(|native| native.name).filter(|name| !name.starts_with('_'))
}

/// A number with the other sign, where it is one of 64 bits.
pub(crate) fn negated(number: Num) -> Option<Num> {
    arith::negate(number).ok()
}

/// Whether it is a number, and one of that sort.
fn is_float(value: &Val, is_one: fn(f64) -> bool) -> Val {
    Val::Bool(matches!(value, Val::Num(number) if is_one(number.float())))
}

fn keys(meter: &Meter, value: &Val, are_sorted: bool) -> Result<Val, Thrown> {
    match value {
        Val::Arr(list) => {
            meter.pay(list.items.len() as u64)?;
            Ok((0..list.items.len()).map(Val::from).collect())
        }
        Val::Obj(dict) => {
            meter.pay(dict.members.len() as u64)?;
            let mut names: Vec<_> = dict.members.keys().cloned().collect();
            if are_sorted {
                names.sort();
            }
            Ok(names.into_iter().map(Val::Str).collect())
        }
        other => Err(about(other, "has no keys")),
    }
}

fn contains(meter: &Meter, a: &Val, b: &Val) -> Result<bool, Thrown> {
    meter.pay(1)?;
    match (a, b) {
        (Val::Obj(a), Val::Obj(b)) => {
            for (name, b) in &b.members {
                match a.members.get(name) {
                    Some(a) if a.kind() == b.kind() && contains(meter, a, b)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (Val::Arr(a), Val::Arr(b)) => {
            for b in &b.items {
                let mut is_found = false;
                for a in &a.items {
                    if a.kind() == b.kind() && contains(meter, a, b)? {
                        is_found = true;
                        break;
                    }
                    meter.pay(1)?;
                }
                if !is_found {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Val::Str(a), Val::Str(b)) => {
            meter.pay((a.len() + b.len()) as u64 / 8)?;
            Ok(a.contains(&**b))
        }
        (a, b) if a.kind() == b.kind() => {
            let mut work = 0;
            Ok(super::value::order(a, b, &mut work).is_eq())
        }
        (a, b) => Err(about_both(a, b, "cannot have their containment checked")),
    }
}

/// The items of an array in the order of their keys, with the keys.
fn sorted(meter: &Meter, value: &Val, keys: &Val) -> Result<Vec<(Val, Val)>, Thrown> {
    let Val::Arr(list) = value else {
        return Err(match keys {
            Val::Arr(_) => about_both(value, keys, "cannot be sorted, as they are not both arrays"),
            _ => about(value, "cannot be sorted, as it is not an array"),
        });
    };
    let keys: &[Val] = if let Val::Arr(keys) = keys { &keys.items } else { &[] };
    let mut items: Vec<(Val, Val)> = keys.iter().cloned().zip(list.items.iter().cloned()).collect();
    let mut work = items.len() as u64;
    let most = super::bounds::WORK_MAX;
    // Past the bound nothing is compared any more: the order no longer matters.
    items.sort_by(|(a, _), (b, _)| match work > most {
        true => Ordering::Equal,
        false => total_order(a, b, &mut work),
    });
    meter.pay(work)?;
    Ok(items)
}

fn grouped(meter: &Meter, value: &Val, keys: &Val) -> Result<Val, Thrown> {
    let mut groups: Vec<Val> = Vec::new();
    let mut group: Vec<Val> = Vec::new();
    let mut last: Option<Val> = None;
    for (key, item) in sorted(meter, value, keys)? {
        let mut work = 1;
        if let Some(last) = &last
            && super::value::order(last, &key, &mut work).is_ne()
        {
            groups.push(Val::from(std::mem::take(&mut group)));
        }
        meter.pay(work)?;
        group.push(item);
        last = Some(key);
    }
    if !group.is_empty() {
        groups.push(Val::from(group));
    }
    Ok(Val::from(groups))
}

fn first(group: &Val) -> Option<Val> {
    match group {
        Val::Arr(list) => list.items.first().cloned(),
        _ => None,
    }
}

fn extreme(meter: &Meter, value: &Val, keys: &Val, is_least: bool) -> Result<Val, Thrown> {
    let (Val::Arr(list), Val::Arr(keys)) = (value, keys) else {
        return Err(about_both(value, keys, "cannot be iterated over"));
    };
    let mut found: Option<(&Val, &Val)> = None;
    for (key, item) in keys.items.iter().zip(&list.items) {
        let mut work = 1;
        let is_better = match found {
            None => true,
            Some((best, _)) => super::value::order(key, best, &mut work).is_lt() == is_least,
        };
        meter.pay(work)?;
        if is_better {
            found = Some((key, item));
        }
    }
    Ok(found.map(|(_, item)| item.clone()).unwrap_or_default())
}

/// The sum of all items; texts and arrays grow in place.
fn add(meter: &Meter, value: Val, _: [Val; 3]) -> Result<Val, Thrown> {
    let mut sum = Val::Null;
    let mut next = |item: &Val| -> Result<(), Thrown> {
        meter.pay(1)?;
        sum = arith::add(meter, std::mem::take(&mut sum), item.clone())?;
        Ok(())
    };
    match &value {
        Val::Arr(list) => list.items.iter().try_for_each(&mut next)?,
        Val::Obj(dict) => dict.members.values().try_for_each(&mut next)?,
        other => {
            let message = format!("Cannot iterate over {}", super::fail::quoted(other));
            return Err(quoting(message, format!("cannot iterate over {}", other.kind())));
        }
    }
    Ok(sum)
}

/// Items of items, so deep; a depth below zero has no bound.
fn flatten(meter: &Meter, value: &Val, depth: &Val, out: &mut Vec<Val>) -> Result<(), Thrown> {
    let mut next = |item: &Val| -> Result<(), Thrown> {
        meter.pay(1)?;
        match (item, depth) {
            (Val::Arr(_), Val::Num(number)) if number.float() == 0.0 => out.push(item.clone()),
            (Val::Arr(_), _) => {
                let depth = arith::subtract(meter, depth.clone(), Val::from(1usize))?;
                flatten(meter, item, &depth, out)?;
            }
            _ => out.push(item.clone()),
        }
        Ok(())
    };
    match value {
        Val::Arr(list) => list.items.iter().try_for_each(&mut next),
        Val::Obj(dict) => dict.members.values().try_for_each(&mut next),
        other => {
            let message = format!("Cannot iterate over {}", super::fail::quoted(other));
            Err(quoting(message, format!("cannot iterate over {}", other.kind())))
        }
    }
}

/// The value of a JSON text. What JSON has no word for, or says twice, is refused.
fn from_json(text: &str) -> Result<Val, Thrown> {
    match foldback_core::json::parse(text) {
        Ok(value) => Ok(super::value::to_jq(&value)),
        Err(error) => Err(quoting(
            format!("{error} (while parsing '{text}')"),
            "the text is no JSON that can be kept as it is",
        )),
    }
}

/// An object from names and values, for natives.
pub(crate) fn members(entries: Vec<(&str, Val)>) -> Val {
    let members: Members = entries.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Val::from(members)
}
