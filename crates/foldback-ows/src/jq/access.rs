//! Looking into values and changing them: by name, by index, by slice, by path.

use std::rc::Rc;
use std::sync::Arc;

use super::bounds::{INDEX_MAX, Meter};
use super::fail::{Thrown, fail, quoted, quoting};
use super::value::{List, Num, Text, Val, order};

/// The steps of a path, the last first.
#[derive(Clone, Default)]
pub(crate) struct Chain(Option<Rc<Link>>);

struct Link {
    step: Val,
    before: Chain,
    length: usize,
}

impl Chain {
    pub fn with(&self, step: Val) -> Chain {
        let length = self.0.as_ref().map_or(0, |link| link.length) + 1;
        Chain(Some(Rc::new(Link { step, before: self.clone(), length })))
    }

    pub fn items(&self) -> Vec<Val> {
        let mut items = Vec::with_capacity(self.0.as_ref().map_or(0, |link| link.length));
        let mut at = self;
        while let Some(link) = &at.0 {
            items.push(link.step.clone());
            at = &link.before;
        }
        items.reverse();
        items
    }
}

/// Long chains are let go link by link.
impl Drop for Chain {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(link) = next {
            next = Rc::into_inner(link).and_then(|mut link| link.before.0.take());
        }
    }
}

fn cannot_index(value: &Val, key: &Val) -> Thrown {
    quoting(
        format!("Cannot index {} with {}", value.kind(), quoted(key)),
        format!("cannot index {} with {}", value.kind(), key.kind()),
    )
}

/// The whole number nearer to zero: floats index as in jq.
fn trunc(number: Num) -> i64 {
    match number {
        Num::Int(n) => n,
        Num::Big(_) => i64::MAX,
        Num::Float(n) => n.trunc() as i64,
    }
}

/// The item at an index, from the end where it is negative.
fn position(index: i64, length: usize) -> Option<usize> {
    let length = length as i64;
    let at = if index < 0 { index.checked_add(length)? } else { index };
    (0..length).contains(&at).then_some(at as usize)
}

/// `value[key]`
pub(crate) fn index(meter: &Meter, value: &Val, key: &Val) -> Result<Val, Thrown> {
    match (value, key) {
        (Val::Obj(dict), Val::Str(name)) => Ok(dict.members.get(name).cloned().unwrap_or_default()),
        (Val::Arr(list), Val::Num(number)) => {
            if number.float().is_nan() {
                return Ok(Val::Null);
            }
            let at = position(trunc(*number), list.items.len());
            Ok(at.map(|at| list.items[at].clone()).unwrap_or_default())
        }
        (Val::Null, Val::Str(_) | Val::Num(_) | Val::Obj(_)) => Ok(Val::Null),
        (Val::Arr(list), Val::Obj(_)) => {
            let (from, to) = bounds_of(key, list.items.len())?;
            meter.pay((to - from) as u64 / 2)?;
            Ok(Val::from(list.items[from..to].to_vec()))
        }
        (Val::Str(text), Val::Obj(_)) => {
            meter.pay(text.len() as u64 / 8)?;
            let is_ascii = text.is_ascii();
            let length = if is_ascii { text.len() } else { text.chars().count() };
            let (from, to) = bounds_of(key, length)?;
            if is_ascii {
                return Ok(Val::from(&text[from..to]));
            }
            Ok(Val::from(text.chars().skip(from).take(to - from).collect::<String>()))
        }
        (Val::Arr(list), Val::Arr(part)) => {
            meter.pay((list.items.len() as u64).saturating_mul(1 + part.items.len() as u64))?;
            Ok(positions(meter, &list.items, &part.items)?.into_iter().map(Val::from).collect())
        }
        (value, key) => Err(cannot_index(value, key)),
    }
}

/// Where a row of items stands in another.
fn positions(meter: &Meter, items: &[Val], part: &[Val]) -> Result<Vec<usize>, Thrown> {
    let mut found = Vec::new();
    if part.is_empty() {
        return Ok(found);
    }
    for (at, window) in items.windows(part.len()).enumerate() {
        let mut work = 0;
        let is_equal = window.iter().zip(part).all(|(a, b)| order(a, b, &mut work).is_eq());
        meter.pay(work)?;
        if is_equal {
            found.push(at);
        }
    }
    Ok(found)
}

/// From and to of a slice, within the length.
fn bounds_of(key: &Val, length: usize) -> Result<(usize, usize), Thrown> {
    let end = |name: &str, otherwise: usize, round: fn(f64) -> f64| -> Result<usize, Thrown> {
        let Val::Obj(dict) = key else { return Ok(otherwise) };
        match dict.members.get(name) {
            Some(Val::Null) => Ok(otherwise),
            Some(Val::Num(number)) => {
                let at = number.float();
                let at = if at < 0.0 { at + length as f64 } else { at };
                // Rounds towards the ends, which is what is wanted here.
                Ok((round(at).max(0.0) as usize).min(length))
            }
            Some(_) | None => Err(fail("Array/string slice indices must be integers")),
        }
    };
    let from = end("start", 0, f64::floor)?;
    let to = end("end", length, f64::ceil)?;
    Ok((from, to.max(from)))
}

/// An object with one more member.
pub(crate) fn insert(meter: &Meter, into: Val, key: Val, value: Val) -> Result<Val, Thrown> {
    let Val::Str(name) = key else {
        return Err(quoting(
            format!("Cannot use {} as object key", quoted(&key)),
            format!("cannot use {} as object key", key.kind()),
        ));
    };
    put_member(meter, into, name, value)
}

fn put_member(meter: &Meter, into: Val, name: Text, value: Val) -> Result<Val, Thrown> {
    let mut dict = match into {
        Val::Obj(dict) => dict,
        _ => Arc::default(),
    };
    let depth = value.depth() + 1;
    meter.nests(depth)?;
    if Arc::get_mut(&mut dict).is_none() {
        meter.pay(1 + dict.members.len() as u64)?;
    }
    let inner = Arc::make_mut(&mut dict);
    inner.depth = inner.depth.max(depth);
    inner.members.insert(name, value);
    Ok(Val::Obj(dict))
}

fn put_item(meter: &Meter, into: Val, index: Num, value: Val) -> Result<Val, Thrown> {
    let mut list = match into {
        Val::Arr(list) => list,
        _ => Arc::default(),
    };
    if index.float().is_nan() {
        return Err(fail("Cannot set array element at NaN index"));
    }
    let index = trunc(index);
    let length = list.items.len();
    let at = match index < 0 {
        true => position(index, length).ok_or_else(|| fail("Out of bounds negative array index"))?,
        false => index as usize,
    };
    if at >= length {
        if at > INDEX_MAX {
            return Err(fail("Array index too large"));
        }
        meter.pay((at - length) as u64 / 2 + 1)?;
    }
    let depth = value.depth() + 1;
    meter.nests(depth)?;
    let inner = unshared(meter, &mut list)?;
    inner.depth = inner.depth.max(depth);
    if at >= inner.items.len() {
        inner.items.resize(at + 1, Val::Null);
    }
    inner.items[at] = value;
    Ok(Val::Arr(list))
}

/// The list itself; a copy of it is paid for.
fn unshared<'l>(meter: &Meter, list: &'l mut Arc<List>) -> Result<&'l mut List, Thrown> {
    if Arc::get_mut(list).is_none() {
        meter.pay(1 + list.items.len() as u64 / 2)?;
    }
    Ok(Arc::make_mut(list))
}

fn put_slice(meter: &Meter, into: Val, key: &Val, value: Val) -> Result<Val, Thrown> {
    let mut list = match into {
        Val::Arr(list) => list,
        _ => Arc::default(),
    };
    let (from, to) = bounds_of(key, list.items.len())?;
    let Val::Arr(new) = value else {
        return Err(fail("A slice of an array can only be assigned another array"));
    };
    meter.pay(1 + (list.items.len() + new.items.len()) as u64 / 2)?;
    meter.nests(new.depth)?;
    let inner = unshared(meter, &mut list)?;
    inner.depth = inner.depth.max(new.depth);
    inner.items.splice(from..to, new.items.iter().cloned());
    Ok(Val::Arr(list))
}

fn steps(path: &Val) -> Result<&[Val], Thrown> {
    match path {
        Val::Arr(list) => Ok(&list.items),
        _ => Err(fail("Path must be specified as an array")),
    }
}

/// What stands at a path; null behind null.
pub(crate) fn get_path(meter: &Meter, value: &Val, path: &Val) -> Result<Val, Thrown> {
    let mut at = value.clone();
    for step in steps(path)? {
        meter.pay(1)?;
        if let Val::Null = at {
            return Ok(Val::Null);
        }
        at = index(meter, &at, step)?;
    }
    Ok(at)
}

/// The value with another one at the path.
pub(crate) fn set_path(meter: &Meter, value: Val, path: &Val, new: Val) -> Result<Val, Thrown> {
    put_along(meter, value, steps(path)?, new)
}

fn put_along(meter: &Meter, value: Val, path: &[Val], new: Val) -> Result<Val, Thrown> {
    let Some((step, rest)) = path.split_first() else { return Ok(new) };
    meter.pay(1)?;
    if path.len() > super::bounds::VALUE_DEPTH_MAX as usize {
        return Err(Thrown::Stop("it makes a value that nests too deep"));
    }
    // The inner value is taken out while it is changed, so that it is not copied.
    match (value, step) {
        (Val::Obj(mut dict), Val::Str(name)) => {
            let inner = match Arc::get_mut(&mut dict) {
                Some(dict) => dict.members.get_mut(name).map(std::mem::take).unwrap_or_default(),
                None => dict.members.get(name).cloned().unwrap_or_default(),
            };
            put_member(meter, Val::Obj(dict), name.clone(), put_along(meter, inner, rest, new)?)
        }
        (Val::Null, Val::Str(name)) => {
            put_member(meter, Val::Null, name.clone(), put_along(meter, Val::Null, rest, new)?)
        }
        (Val::Arr(mut list), Val::Num(number)) => {
            let at = position(trunc(*number), list.items.len());
            let inner = match (at, Arc::get_mut(&mut list)) {
                (Some(at), Some(list)) => std::mem::take(&mut list.items[at]),
                (Some(at), None) => list.items[at].clone(),
                (None, _) => Val::Null,
            };
            put_item(meter, Val::Arr(list), *number, put_along(meter, inner, rest, new)?)
        }
        (Val::Null, Val::Num(number)) => {
            put_item(meter, Val::Null, *number, put_along(meter, Val::Null, rest, new)?)
        }
        (value @ (Val::Arr(_) | Val::Null), Val::Obj(_)) => {
            let inner = index(meter, &value, step)?;
            put_slice(meter, value, step, put_along(meter, inner, rest, new)?)
        }
        (Val::Str(_), Val::Obj(_)) => Err(fail("Cannot update string slices")),
        (Val::Arr(_), Val::Arr(_)) => Err(fail("Cannot update field at array index of array")),
        (value, step) => Err(cannot_index(&value, step)),
    }
}

/// The value without what stands at these paths, all of them as they are before the first is gone.
pub(crate) fn delete_paths(meter: &Meter, value: Val, paths: &Val) -> Result<Val, Thrown> {
    let Val::Arr(list) = paths else {
        return Err(fail("Paths must be specified as an array"));
    };
    let mut sorted: Vec<&Val> = list.items.iter().collect();
    let mut work = sorted.len() as u64;
    sorted.sort_by(|a, b| super::value::total_order(a, b, &mut work));
    meter.pay(work)?;
    let mut all = Vec::with_capacity(sorted.len());
    for path in sorted {
        match path {
            Val::Arr(steps) if steps.items.is_empty() => return Ok(Val::Null),
            Val::Arr(steps) => all.push(steps.items.as_slice()),
            other => return Err(fail(format!("Path must be specified as array, not {}", other.kind()))),
        }
    }
    delete_sorted(meter, value, &all)
}

/// Paths of one step or more, those with the same first step beside each other.
fn delete_sorted(meter: &Meter, mut value: Val, mut paths: &[&[Val]]) -> Result<Val, Thrown> {
    let mut gone = Vec::new();
    while let Some(first) = paths.first() {
        let step = &first[0];
        let mut work = 0;
        let same = |path: &&&[Val]| order(&path[0], step, &mut work).is_eq();
        // Not a number is equal to nothing; it stands for itself.
        let count = paths.iter().take_while(same).count().max(1);
        meter.pay(1 + work)?;
        let (here, rest) = paths.split_at(count);
        paths = rest;
        if first.len() == 1 {
            // All of it goes: what is inside it needs no word.
            gone.push(step);
            continue;
        }
        let inner = index(meter, &value, step)?;
        if let Val::Null = inner {
            continue;
        }
        let inside: Vec<&[Val]> = here.iter().map(|path| &path[1..]).collect();
        let inner = delete_sorted(meter, inner, &inside)?;
        value = put_along(meter, value, std::slice::from_ref(step), inner)?;
    }
    delete_keys(meter, value, &gone)
}

/// Members, items and slices, as they are counted before the first is gone.
fn delete_keys(meter: &Meter, value: Val, keys: &[&Val]) -> Result<Val, Thrown> {
    if keys.is_empty() {
        return Ok(value);
    }
    match value {
        Val::Null => Ok(Val::Null),
        Val::Obj(mut dict) => {
            if Arc::get_mut(&mut dict).is_none() {
                meter.pay(1 + dict.members.len() as u64)?;
            }
            meter.pay(keys.len() as u64)?;
            let members = &mut Arc::make_mut(&mut dict).members;
            for key in keys {
                let Val::Str(name) = key else {
                    return Err(fail(format!("Cannot delete {} field of object", key.kind())));
                };
                meter.pay(members.len() as u64 / 8)?;
                members.shift_remove(name);
            }
            Ok(Val::Obj(dict))
        }
        Val::Arr(list) => {
            meter.pay(1 + list.items.len() as u64)?;
            let mut is_gone = vec![false; list.items.len()];
            for key in keys {
                match key {
                    Val::Num(number) if number.float().is_nan() => {}
                    Val::Num(number) => {
                        if let Some(at) = position(trunc(*number), list.items.len()) {
                            is_gone[at] = true;
                        }
                    }
                    Val::Obj(_) => {
                        let (from, to) = bounds_of(key, list.items.len())?;
                        meter.pay((to - from) as u64)?;
                        is_gone[from..to].fill(true);
                    }
                    other => {
                        return Err(fail(format!("Cannot delete {} element of array", other.kind())));
                    }
                }
            }
            let kept = list.items.iter().zip(&is_gone).filter(|(_, is_gone)| !**is_gone);
            Ok(kept.map(|(item, _)| item.clone()).collect())
        }
        other => Err(fail(format!("Cannot delete fields from {}", other.kind()))),
    }
}

/// Whether there is something at a key.
pub(crate) fn has(value: &Val, key: &Val) -> Result<Val, Thrown> {
    match (value, key) {
        (Val::Null, _) => Ok(Val::Bool(false)),
        (Val::Obj(dict), Val::Str(name)) => Ok(Val::Bool(dict.members.contains_key(name))),
        (Val::Arr(list), Val::Num(number)) => {
            let at = number.float();
            Ok(Val::Bool(at >= 0.0 && at < list.items.len() as f64))
        }
        (value, key) => Err(fail(format!("Cannot check whether {} has a {} key", value.kind(), key.kind()))),
    }
}
