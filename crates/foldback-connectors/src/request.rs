//! Reading a step's request: a JSON object whose members are known by name.
//!
//! Every error names the member and never shows its value: it may hold a secret.

use std::borrow::Cow;
use std::io;

use foldback_core::Failure;
use foldback_core::step::error_type;
use serde_json::{Map, Value};

/// The members of a request. One that is `null` counts as not given.
pub(crate) struct Members<'a> {
    kind: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Members<'a> {
    /// The members of a kind's request.
    ///
    /// # Errors
    /// A request that is no object, or has a member that is not in `known`.
    pub(crate) fn of(kind: &'static str, request: &'a Value, known: &[&str]) -> Result<Members<'a>, Failure> {
        let Value::Object(map) = request else {
            return Err(wrong(kind, "the request is no object"));
        };
        if let Some(name) = map.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(wrong(kind, &format!("`{name}` is not known; known are {}", known.join(", "))));
        }
        Ok(Members { kind, map })
    }

    /// A member of any type.
    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        name: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| wrong(self.kind, &format!("`{name}` is not {what}")))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, Failure> {
        self.typed(name, "a text", Value::as_str)
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, Failure> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, Failure> {
        self.typed(name, "a number", Value::as_f64)
    }

    pub(crate) fn count(&self, name: &str) -> Result<Option<u64>, Failure> {
        let whole = |value: &Value| {
            let float =
                || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=9e15).contains(n)).map(|n| n as u64);
            value.as_u64().or_else(float)
        };
        self.typed(name, "a whole number, 0 or more", whole)
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, Failure> {
        self.typed(name, "an object", Value::as_object)
    }

    pub(crate) fn list(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Failure> {
        self.typed(name, "a list", Value::as_array)
    }
}

/// A request that cannot be performed.
pub(crate) fn wrong(kind: &str, what: &str) -> Failure {
    Failure::new(error_type::CONFIGURATION, 400, "Bad request", format!("{kind}: {what}"))
}

/// Says whether an error means that this machine has no room now: no more open files, processes or memory.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::AGAIN];
    Errno::from_io_error(error).is_some_and(|errno| lacks.contains(&errno))
}

/// An attempt that was not begun for want of room on this machine.
pub(crate) fn no_room(detail: String) -> Failure {
    let detail = format!("{detail}; hint: raise `ulimit -n`, or end what else runs here");
    Failure::new(error_type::NO_ROOM, 503, "No room on this machine", detail)
}

/// A value as text: a string as it is, other JSON compact.
pub(crate) fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_room_is_told_from_all_else_that_may_be_wrong() {
        for (number, expected) in [(24, true), (23, true), (12, true), (2, false), (13, false), (111, false)]
        {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(is_no_room(&error), expected, "{error}");
        }
        assert!(!is_no_room(&io::Error::other("no number")));
        assert_eq!(no_room("x".into()).error_type, error_type::NO_ROOM);
    }
}
