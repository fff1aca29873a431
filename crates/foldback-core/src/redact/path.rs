//! JSON paths of redaction rules: `$`, `.name`, `['name']`, `[3]`, `.*`, `[*]`, and `..` for any depth.
//! No filters, no slices: a rule names a place, it does not compute one.

use serde_json::Value;

use super::BadRule;
use crate::limits;

const HINT: &str = "such as $.customer.email, $..ssn, $.items[*].card, $['odd name'], $.rows[0]";

/// A place, or many.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path(Vec<Segment>);

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Name(String),
    Index(usize),
    Any,
    /// None or more levels down.
    Deep,
}

impl Path {
    /// Whether a path of members (`None`: an item of a list) may lead to this place: as far as both say, from
    /// their ends.
    pub fn may_be(&self, members: &[Option<&str>]) -> bool {
        let pairs = self.0.iter().rev().zip(members.iter().rev());
        let said = pairs.take_while(|(segment, _)| **segment != Segment::Deep);
        let mut is_said = false;
        let mut said = said.inspect(|_| is_said = true);
        let agrees = said.all(|(segment, member)| match (segment, member) {
            (Segment::Name(name), Some(member)) => name == member,
            (Segment::Index(_), None) | (Segment::Any, _) => true,
            (Segment::Name(_), None) | (Segment::Index(_), Some(_)) | (Segment::Deep, _) => false,
        });
        agrees && is_said
    }

    /// # Errors
    /// It is no path, with the character at which it stops being one.
    pub fn parse(text: &str) -> Result<Path, BadRule> {
        let bad = |at: usize, what: &str| {
            let message =
                format!("`{text}` is no path: {what} at character {}", text[..at].chars().count() + 1);
            BadRule::of("path", message, HINT)
        };
        if text.len() > limits::REDACT_TEXT_MAX_BYTES {
            let message = format!("is longer than {} bytes", limits::REDACT_TEXT_MAX_BYTES);
            return Err(BadRule::of("path", message, HINT));
        }
        let Some(mut rest) = text.strip_prefix('$') else {
            return Err(bad(0, "`$` is expected"));
        };
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            if let Some(deeper) = rest.strip_prefix("..") {
                segments.push(Segment::Deep);
                // `..[*]` goes on with a bracket, `..name` with a name.
                rest = deeper;
                if rest.starts_with('[') {
                    continue;
                }
            } else if let Some(member) = rest.strip_prefix('.') {
                rest = member;
            } else if let Some(inner) = rest.strip_prefix('[') {
                let (segment, left) = bracket(inner).ok_or_else(|| {
                    bad(at, "`[…]` holds a number, `*` or a name in quotes; this one does not")
                })?;
                segments.push(segment);
                rest = left;
                continue;
            } else {
                return Err(bad(at, "`.` or `[` is expected"));
            }
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            match &rest[..end] {
                "" => return Err(bad(text.len() - rest.len(), "a name is expected")),
                "*" => segments.push(Segment::Any),
                name if name.contains(['\'', '"', '*', '?', '(', ')', ']', ' ']) => {
                    return Err(bad(text.len() - rest.len(), "a name like that stands in ['…']"));
                }
                name => segments.push(Segment::Name(name.to_owned())),
            }
            rest = &rest[end..];
        }
        Ok(Path(segments))
    }

    /// The name with which it ends.
    pub fn last_name(&self) -> Option<&str> {
        match self.0.last() {
            Some(Segment::Name(name)) => Some(name),
            Some(Segment::Index(_) | Segment::Any | Segment::Deep) | None => None,
        }
    }

    /// Puts a text in the place of each value that it leads to, but for `null`, which holds nothing.
    pub fn strike(&self, value: &mut Value, with: &str) {
        self.walk(value, vec![0], with);
    }

    /// `at`: the segments that may come next here. All ways to a value are followed at once, so that
    /// `..` costs no more than a walk.
    fn walk(&self, value: &mut Value, mut at: Vec<usize>, with: &str) {
        let mut next = 0;
        while let Some(&place) = at.get(next) {
            next += 1;
            if self.0.get(place) == Some(&Segment::Deep) && !at.contains(&(place + 1)) {
                at.push(place + 1);
            }
        }
        if at.contains(&self.0.len()) {
            if !value.is_null() {
                *value = Value::from(with);
            }
            return;
        }
        let follow = |matches: &dyn Fn(&Segment) -> bool| -> Vec<usize> {
            let mut next: Vec<usize> = Vec::new();
            for &place in &at {
                let goes_on = match &self.0[place] {
                    Segment::Deep => place,
                    segment if matches(segment) => place + 1,
                    _ => continue,
                };
                if !next.contains(&goes_on) {
                    next.push(goes_on);
                }
            }
            next
        };
        match value {
            Value::Object(map) => {
                for (name, child) in map.iter_mut() {
                    let next = follow(&|segment| match segment {
                        Segment::Name(wanted) => wanted == name,
                        Segment::Any => true,
                        Segment::Index(_) | Segment::Deep => false,
                    });
                    if !next.is_empty() {
                        self.walk(child, next, with);
                    }
                }
            }
            Value::Array(items) => {
                for (index, child) in items.iter_mut().enumerate() {
                    let next = follow(&|segment| match segment {
                        Segment::Index(wanted) => *wanted == index,
                        Segment::Any => true,
                        Segment::Name(_) | Segment::Deep => false,
                    });
                    if !next.is_empty() {
                        self.walk(child, next, with);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// What stands in brackets, and what is left behind them.
fn bracket(inner: &str) -> Option<(Segment, &str)> {
    for quote in ['\'', '"'] {
        if let Some(quoted) = inner.strip_prefix(quote) {
            let (name, left) = quoted.split_once(quote)?;
            return Some((Segment::Name(name.to_owned()), left.strip_prefix(']')?));
        }
    }
    let (text, left) = inner.split_once(']')?;
    match text {
        "*" => Some((Segment::Any, left)),
        digits => Some((Segment::Index(digits.parse().ok()?), left)),
    }
}
