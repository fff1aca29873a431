//! Keys: the path that names a task or a step in its workflow, never a counter.
//!
//! ```text
//! publishAll/publish      the task `publish` inside the scope `publishAll`
//! read[3]/fetch           `fetch` in the fourth iteration of the loop `read`
//! draft#2                 the second visit of `draft` (a `then` led back to it)
//! tryPost!2/post          `post` in the second try of the block `tryPost`
//! tryPost!catch/notify    `notify` in the handler of `tryPost`
//! review!if               the decision whether `review` runs
//! charge!undo/refund      `refund` among the tasks that take `charge` back
//! charge!reconcile/look   `look` among the tasks that find out whether `charge` happened
//! ```
//!
//! `[i]` counts from 0, `#n` and `!n` from 2 (the first visit and the first try carry no mark).
//! In the *state* a later visit or try supersedes the earlier one; the log keeps both.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The path that names a task or a step. The empty key is the workflow itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Arc<str>);

/// The characters that a name may not hold, because keys use them.
pub const RESERVED: [char; 5] = ['/', '[', ']', '#', '!'];

/// What follows the key of a scope in the keys of what lies inside it.
const INSIDE: [char; 4] = ['/', '[', '!', '#'];

/// The mark of what takes a step back.
const UNDO: &str = "undo";

/// The mark of what finds out whether a step happened.
const RECONCILE: &str = "reconcile";

impl Key {
    /// The key of the workflow itself.
    pub fn root() -> Key {
        Key(Arc::from(""))
    }

    /// A key from its text. Any text is a key; names are checked where definitions are read.
    pub fn new(text: impl Into<Arc<str>>) -> Key {
        Key(text.into())
    }

    /// The text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the workflow itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of `name` inside this scope.
    ///
    /// ```
    /// use foldback_core::Key;
    /// assert_eq!(Key::root().child("read").item(3).child("fetch").as_str(), "read[3]/fetch");
    /// ```
    pub fn child(&self, name: &str) -> Key {
        if self.is_root() { Key::new(name) } else { Key::new(format!("{}/{name}", self.0)) }
    }

    /// The `index`-th iteration or branch of this scope, from 0.
    pub fn item(&self, index: u64) -> Key {
        Key::new(format!("{}[{index}]", self.0))
    }

    /// The `n`-th visit of this task, from 1.
    pub fn visit(&self, n: u64) -> Key {
        if n < 2 { self.clone() } else { Key::new(format!("{}#{n}", self.0)) }
    }

    /// This key with a mark: `!if`, `!catch`, `!2` …
    pub fn mark(&self, mark: impl fmt::Display) -> Key {
        Key::new(format!("{}!{mark}", self.0))
    }

    /// The scope in which this key stands: all up to the last `/`, the root when there is none.
    pub fn parent(&self) -> Key {
        match self.0.rfind('/') {
            Some(at) => Key::new(&self.0[..at]),
            None => Key::root(),
        }
    }

    /// The last segment with its marks: `fetch` of `read[3]/fetch`.
    pub fn last(&self) -> &str {
        match self.0.rfind('/') {
            Some(at) => &self.0[at + 1..],
            None => &self.0,
        }
    }

    /// The task's name alone: `draft` of `a/draft#2!if`.
    pub fn name(&self) -> &str {
        let last = self.last();
        &last[..last.find(['[', '#', '!']).unwrap_or(last.len())]
    }

    /// The key without its last mark: `draft#2` of `draft#2!if`; itself when it has none.
    pub fn unmarked(&self) -> Key {
        let start = self.0.len() - self.last().len();
        match self.last().find('!') {
            Some(at) => Key::new(&self.0[..start + at]),
            None => self.clone(),
        }
    }

    /// Which visit this is: `(draft, 2)` of `draft#2`, `(draft, 1)` of `draft`.
    pub fn visited(&self) -> (Key, u64) {
        let start = self.0.len() - self.last().len();
        if let Some(at) = self.last().find('#')
            && let Ok(n) = self.0[start + at + 1..].parse()
        {
            return (Key::new(&self.0[..start + at]), n);
        }
        (self.clone(), 1)
    }

    /// The scope and the index of an iteration or a branch: `(read, 3)` of `read[3]`.
    pub fn itemed(&self) -> Option<(Key, u64)> {
        let open = self.0.rfind('[')?;
        let index = self.0.get(open + 1..)?.strip_suffix(']')?.parse().ok()?;
        Some((Key::new(&self.0[..open]), index))
    }

    /// The key under which the steps stand that take this one back.
    pub fn undo(&self) -> Key {
        self.mark(UNDO)
    }

    /// The key under which the steps stand that find out whether this one happened.
    pub fn reconcile(&self) -> Key {
        self.mark(RECONCILE)
    }

    /// The key of a failure of this task that no step's fact holds.
    pub fn failed(&self) -> Key {
        self.mark("failed")
    }

    /// What is taken back where this key stands: `charge` of `charge!undo/refund`.
    pub fn undone(&self) -> Option<Key> {
        self.before_mark(UNDO)
    }

    /// Whether this is the key of an undo itself: `charge!undo`.
    pub fn is_undo(&self) -> bool {
        self.undone().is_some_and(|step| step.undo() == *self)
    }

    /// What is being looked for where this key stands: `charge` of `charge!reconcile/look`.
    pub fn reconciled(&self) -> Option<Key> {
        self.before_mark(RECONCILE)
    }

    /// Whether it stands beside the flow: in what takes a step back, or finds out whether it happened.
    pub fn is_aside(&self) -> bool {
        self.undone().is_some() || self.reconciled().is_some()
    }

    fn before_mark(&self, mark: &str) -> Option<Key> {
        let mut marks = self.0.match_indices('!');
        marks.find_map(|(at, _)| {
            let inside = self.0[at + 1..].strip_prefix(mark)?;
            (inside.is_empty() || inside.starts_with(['/', '!'])).then(|| Key::new(&self.0[..at]))
        })
    }

    /// The key without the numbers of tries, `!2`: what all tries of a step have in common, and so
    /// what its idempotency key is made of.
    pub fn without_tries(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        let mut rest = &*self.0;
        while let Some(at) = rest.find('!') {
            text.push_str(&rest[..at]);
            let mark = &rest[at + 1..];
            let digits = mark.len() - mark.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 {
                text.push('!');
            }
            rest = &mark[digits..];
        }
        text.push_str(rest);
        text
    }

    /// Whether this key lies inside `scope`: below it, an item of it, a try of it or a mark on it.
    pub fn is_inside(&self, scope: &Key) -> bool {
        if scope.is_root() {
            return !self.is_root();
        }
        match self.0.strip_prefix(&*scope.0) {
            Some(rest) => rest.starts_with(INSIDE),
            None => false,
        }
    }

    /// How the keys begin that lie inside this scope; in their order, those that begin alike stand together.
    pub(crate) fn begins_inside(&self) -> Vec<String> {
        match self.is_root() {
            true => vec![String::new()],
            false => INSIDE.iter().map(|mark| format!("{self}{mark}")).collect(),
        }
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Key {
        Key::new(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        let key = Key::root().child("a").item(3).child("draft").visit(2).mark("if");
        assert_eq!(key.as_str(), "a[3]/draft#2!if");
        assert_eq!(key.parent().as_str(), "a[3]");
        assert_eq!(key.name(), "draft");
        assert_eq!(key.unmarked().as_str(), "a[3]/draft#2");
        assert_eq!(key.unmarked().visited(), (Key::from("a[3]/draft"), 2));
        assert_eq!(key.parent().itemed(), Some((Key::from("a"), 3)));
        assert_eq!(Key::from("a").itemed(), None);
        assert_eq!(Key::from("charge#2").undo().child("refund").as_str(), "charge#2!undo/refund");
        assert_eq!(Key::from("a[1]/charge!undo/refund!timeout").undone(), Some(Key::from("a[1]/charge")));
        assert_eq!(Key::from("a!undone").undone(), None);
        assert!(key.is_inside(&Key::from("a")));
        assert!(!Key::from("ab").is_inside(&Key::from("a")));
        assert!(Key::from("a").is_inside(&Key::root()));
    }

    #[test]
    fn tries_leave_no_trace_in_what_they_share() {
        assert_eq!(Key::from("t!2/post").without_tries(), "t/post");
        assert_eq!(Key::from("t/post").without_tries(), "t/post");
        assert_eq!(Key::from("t!catch/x!3/y").without_tries(), "t!catch/x/y");
    }
}
