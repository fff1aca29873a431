//! `test`, `match` and what is made of them: regular expressions that take linear time, without
//! look-around and back references.

use regex::{Regex, RegexBuilder};

use super::bounds::Meter;
use super::fail::{Thrown, about, fail, quoting};
use super::natives::members;
use super::patterns::translated;
use super::value::Val;

struct Flags {
    is_global: bool,
    skips_empty: bool,
    text: String,
}

/// The expression of a pattern and its flags, as jq reads them.
fn compile(meter: &Meter, value: &Val, pattern: &Val, flags: &Val) -> Result<(Regex, Flags), Thrown> {
    let Val::Str(text) = value else {
        return Err(about(value, "cannot be matched, as it is not a string"));
    };
    let Val::Str(pattern) = pattern else {
        return Err(about(pattern, "is not a string"));
    };
    let mut known = Flags { is_global: false, skips_empty: false, text: text.to_string() };
    let ignores_space = matches!(flags, Val::Str(flags) if flags.contains('x'));
    let unreadable =
        |what: String| quoting(format!("Regex failure: {what}"), "the regular expression cannot be read");
    let mut builder = RegexBuilder::new(&translated(pattern, ignores_space).map_err(unreadable)?);
    match flags {
        Val::Null => {}
        Val::Str(flags) => {
            for flag in flags.chars() {
                match flag {
                    'g' => known.is_global = true,
                    'i' => drop(builder.case_insensitive(true)),
                    'x' => drop(builder.ignore_whitespace(true)),
                    's' => {}
                    'n' => known.skips_empty = true,
                    'p' => drop(builder.dot_matches_new_line(true)),
                    'l' => return Err(fail("the flag `l` (longest match) cannot be used")),
                    _ => return Err(fail(format!("{} is not a valid modifier string", &**flags))),
                }
            }
        }
        other => return Err(about(other, "is not a string")),
    }
    meter.pay(size(pattern).saturating_mul(4 + text.len() as u64 / 8))?;
    match builder.size_limit(1 << 20).build() {
        Ok(regex) => Ok((regex, known)),
        Err(error) => Err(unreadable(error.to_string().lines().last().unwrap_or("").trim().to_owned())),
    }
}

/// About how large the machine is that matches: a counted repetition multiplies.
fn size(pattern: &str) -> u64 {
    let mut size = 1 + pattern.len() as u64 / 2;
    for counted in pattern.split('{').skip(1) {
        let numbers = counted.split('}').next().unwrap_or("");
        let largest = numbers.split(',').filter_map(|n| n.trim().parse::<u64>().ok()).max();
        size = size.saturating_mul(largest.unwrap_or(1).max(1));
    }
    size
}

/// Each match with its groups: byte from and to, `None` where a group has none.
type Found = Vec<Vec<Option<(usize, usize)>>>;

fn search(meter: &Meter, regex: &Regex, flags: &Flags) -> Result<Found, Thrown> {
    let text = &flags.text;
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(captures) = regex.captures_at(text, from) {
        let Some(whole) = captures.get(0) else { break };
        meter.pay(1 + captures.len() as u64)?;
        // As in jq, an empty match may follow a match at its end; behind an empty one a letter is skipped.
        from = match whole.is_empty() {
            true => whole.end() + text[whole.end()..].chars().next().map_or(1, char::len_utf8),
            false => whole.end(),
        };
        if !(flags.skips_empty && whole.is_empty()) {
            let groups = captures.iter().map(|group| group.map(|group| (group.start(), group.end())));
            found.push(groups.collect());
        }
        if !flags.is_global || from > text.len() {
            break;
        }
    }
    Ok(found)
}

/// Counts letters up to places that are asked for mostly from left to right.
struct Letters<'t> {
    text: &'t str,
    byte: usize,
    letter: usize,
}

impl Letters<'_> {
    fn up_to(&mut self, byte: usize) -> usize {
        if byte < self.byte {
            return self.letter - self.text[byte..self.byte].chars().count();
        }
        self.letter += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.letter
    }
}

/// The objects that `match` gives; or whether there is one.
pub(crate) fn matches(
    meter: &Meter,
    value: &Val,
    pattern: &Val,
    flags: &Val,
    is_test: bool,
) -> Result<Val, Thrown> {
    let (regex, flags) = compile(meter, value, pattern, flags)?;
    if is_test {
        return Ok(Val::Bool(!search(meter, &regex, &Flags { is_global: false, ..flags })?.is_empty()));
    }
    let text = &flags.text;
    let mut letters = Letters { text, byte: 0, letter: 0 };
    let mut out = Vec::new();
    for found in search(meter, &regex, &flags)? {
        let mut groups = Vec::new();
        for (at, (group, name)) in found.iter().zip(regex.capture_names()).enumerate() {
            let mut entries = match group {
                Some((from, to)) => {
                    let offset = letters.up_to(*from);
                    let part = &text[*from..*to];
                    meter.pay(1 + part.len() as u64 / 8)?;
                    vec![
                        ("offset", Val::from(offset)),
                        ("length", Val::from(part.chars().count())),
                        ("string", Val::from(part)),
                    ]
                }
                None => {
                    vec![("offset", Val::from(-1i64)), ("length", Val::from(0usize)), ("string", Val::Null)]
                }
            };
            if at > 0 {
                entries.push(("name", name.map(Val::from).unwrap_or_default()));
            }
            groups.push(members(entries));
        }
        let captures: Val = groups.split_off(1.min(groups.len())).into_iter().collect();
        if let Some(Val::Obj(whole)) = groups.pop() {
            let mut whole = whole.members.clone();
            whole.insert("captures".into(), captures);
            out.push(Val::from(whole));
        }
    }
    Ok(Val::from(out))
}

/// For `sub` and `gsub`: pairs of the text before a match and what the match captured, and the rest.
pub(crate) fn parts(meter: &Meter, value: &Val, pattern: &Val, flags: &Val) -> Result<Val, Thrown> {
    let (regex, flags) = compile(meter, value, pattern, flags)?;
    let text = &flags.text;
    let mut out = Vec::new();
    let mut from = 0;
    for found in search(meter, &regex, &flags)? {
        let Some(Some((start, end))) = found.first() else { continue };
        let mut captured = Vec::new();
        for (group, name) in found.iter().zip(regex.capture_names()) {
            if let Some(name) = name {
                let part = group.map(|(from, to)| Val::from(&text[from..to])).unwrap_or_default();
                meter.pay(part.size())?;
                captured.push((name, part));
            }
        }
        out.push([Val::from(&text[from..*start]), members(captured)].into_iter().collect());
        from = *end;
    }
    meter.pay(text.len() as u64 / 8)?;
    out.push([Val::from(&text[from..])].into_iter().collect());
    Ok(Val::from(out))
}

/// The texts that `sub` gives, from its parts with what is put in the place of each.
pub(crate) fn assembled(meter: &Meter, value: &Val) -> Result<Val, Thrown> {
    let parts = match value {
        Val::Arr(list) => list.items.as_slice(),
        _ => &[],
    };
    let mut texts: Vec<Val> = Vec::new();
    for part in parts {
        let Val::Arr(part) = part else { continue };
        let before = part.items.first().cloned().unwrap_or_default();
        match part.items.get(1) {
            Some(Val::Arr(new)) => {
                for (i, new) in new.items.iter().enumerate() {
                    meter.pay(1)?;
                    let piece = super::arith::add(meter, before.clone(), new.clone())?;
                    match texts.get_mut(i) {
                        Some(text) => *text = super::arith::add(meter, std::mem::take(text), piece)?,
                        None => texts.push(piece),
                    }
                }
            }
            _ => {
                for text in &mut texts {
                    *text = super::arith::add(meter, std::mem::take(text), before.clone())?;
                }
            }
        }
    }
    Ok(Val::from(texts))
}
