//! Two values side by side: texts word by word, all else place by place.
//!
//! The work is bounded and counted ([`limits::DIFF_TEXT_MAX_BYTES`] and what stands beside it):
//! past a bound it is said that something differs, and how much. Lists are paired after what their
//! begins and ends have in common, so that one more message is one more, and not a list of changes.

use serde::Serialize;
use serde_json::{Map, Number, Value};
use similar::{ChangeTag, TextDiff};

use crate::limits;

/// How two values differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Compared {
    /// Nothing more to see: names, or one side has none.
    Whole {},
    /// Two texts.
    Words {
        /// The pieces in order. What is the same and removed is the one text, what is the same and
        /// added the other.
        words: Vec<Word>,
    },
    /// Two texts of which one is too long for that.
    Lengths {
        /// Bytes of the one.
        a_bytes: usize,
        /// Bytes of the other.
        b_bytes: usize,
    },
    /// Two values of which one at least is no text.
    Paths {
        /// The places, in the order of the one, then what only the other has.
        paths: Vec<PathChange>,
        /// How many more there are.
        #[serde(skip_serializing_if = "is_zero")]
        left_out: usize,
    },
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A piece of two texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Both have it.
    Same(String),
    /// Only the one has it.
    Removed(String),
    /// Only the other has it.
    Added(String),
}

/// A place at which two values differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathChange {
    /// Where: a JSON pointer. Behind something that was put into a list or taken out, it is the
    /// place in the value that has it.
    pub path: String,
    /// What the one has; left out where it has nothing there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Value>,
    /// What the other has; left out where it has nothing there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Value>,
    /// Word by word, where both are texts and neither is too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<Word>>,
}

/// What a comparison has looked at word by word so far.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: usize,
}

impl Texts {
    /// Two texts word by word; `None` past a bound.
    fn compare(&mut self, a: &str, b: &str) -> Option<Vec<Word>> {
        let bytes = self.bytes + a.len() + b.len();
        if a.len().max(b.len()) > limits::DIFF_TEXT_MAX_BYTES || bytes > limits::DIFF_TEXTS_MAX_BYTES {
            return None;
        }
        self.bytes = bytes;
        Some(words(a, b))
    }
}

/// How two values differ that do.
pub(super) fn compare(a: &Value, b: &Value, texts: &mut Texts) -> Compared {
    if let (Value::String(one), Value::String(other)) = (a, b) {
        return match texts.compare(one, other) {
            Some(words) => Compared::Words { words },
            None => Compared::Lengths { a_bytes: one.len(), b_bytes: other.len() },
        };
    }
    let mut walk = Walk { texts, paths: Vec::new(), left_out: 0 };
    walk.values(&mut String::new(), a, b);
    Compared::Paths { paths: walk.paths, left_out: walk.left_out }
}

/// Whether two values mean the same: `1` is `1.0`, and members have no order.
pub(super) fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => is_equal_number(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_equal(a, b)))
        }
        (a, b) => a == b,
    }
}

fn is_equal_number(a: &Number, b: &Number) -> bool {
    // Two whole numbers are what they are: as floats, large neighbours would be one.
    let are_whole = !a.is_f64() && !b.is_f64();
    a == b || (!are_whole && a.as_f64() == b.as_f64())
}

/// A walk through two values at once.
struct Walk<'a> {
    texts: &'a mut Texts,
    paths: Vec<PathChange>,
    left_out: usize,
}

impl Walk<'_> {
    fn values(&mut self, path: &mut String, a: &Value, b: &Value) {
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => self.objects(path, a, b),
            (Value::Array(a), Value::Array(b)) => self.lists(path, a, b),
            (a, b) if is_equal(a, b) => {}
            (a, b) => self.found(path, Some(a), Some(b)),
        }
    }

    fn objects(&mut self, path: &mut String, a: &Map<String, Value>, b: &Map<String, Value>) {
        for (name, one) in a {
            self.below(path, name, |walk, path| match b.get(name) {
                Some(other) => walk.values(path, one, other),
                None => walk.found(path, Some(one), None),
            });
        }
        for (name, other) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
            self.below(path, name, |walk, path| walk.found(path, None, Some(other)));
        }
    }

    fn lists(&mut self, path: &mut String, a: &[Value], b: &[Value]) {
        let begin = a.iter().zip(b).take_while(|(a, b)| is_equal(a, b)).count();
        let (a, b) = (&a[begin..], &b[begin..]);
        let end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| is_equal(a, b)).count();
        let (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
        for at in 0..a.len().max(b.len()) {
            self.below(path, &(begin + at).to_string(), |walk, path| match (a.get(at), b.get(at)) {
                (Some(one), Some(other)) => walk.values(path, one, other),
                (one, other) => walk.found(path, one, other),
            });
        }
    }

    /// Goes one step down and back.
    fn below(&mut self, path: &mut String, name: &str, look: impl FnOnce(&mut Self, &mut String)) {
        let length = path.len();
        path.push('/');
        for letter in name.chars() {
            match letter {
                '~' => path.push_str("~0"),
                '/' => path.push_str("~1"),
                other => path.push(other),
            }
        }
        look(self, path);
        path.truncate(length);
    }

    fn found(&mut self, path: &str, a: Option<&Value>, b: Option<&Value>) {
        if self.paths.len() == limits::DIFF_PATHS_MAX {
            self.left_out += 1;
            return;
        }
        let words = match (a, b) {
            (Some(Value::String(one)), Some(Value::String(other))) => self.texts.compare(one, other),
            _ => None,
        };
        self.paths.push(PathChange { path: path.to_owned(), a: a.cloned(), b: b.cloned(), words });
    }
}

/// Two texts word by word. A blank between two words that both changed goes with them: `[-a b-]`
/// reads better than `[-a-] [-b-]`.
fn words(a: &str, b: &str) -> Vec<Word> {
    let mut pieces = Pieces::default();
    for change in TextDiff::from_unicode_words(a, b).iter_all_changes() {
        let text = change.value();
        match change.tag() {
            ChangeTag::Equal => pieces.same(text),
            ChangeTag::Delete => pieces.changing().0.push_str(text),
            ChangeTag::Insert => pieces.changing().1.push_str(text),
        }
    }
    pieces.settle();
    pieces.words
}

#[derive(Default)]
struct Pieces {
    words: Vec<Word>,
    removed: String,
    added: String,
    /// The blank behind what changed, until it is known what follows.
    gap: String,
}

impl Pieces {
    fn same(&mut self, text: &str) {
        let is_between = !self.removed.is_empty() && !self.added.is_empty() && text.trim().is_empty();
        if is_between {
            self.gap.push_str(text);
            return;
        }
        self.settle();
        self.push_same(text);
    }

    fn push_same(&mut self, text: &str) {
        match self.words.last_mut() {
            Some(Word::Same(before)) => before.push_str(text),
            Some(Word::Removed(_) | Word::Added(_)) | None => self.words.push(Word::Same(text.to_owned())),
        }
    }

    fn changing(&mut self) -> (&mut String, &mut String) {
        let gap = std::mem::take(&mut self.gap);
        self.removed.push_str(&gap);
        self.added.push_str(&gap);
        (&mut self.removed, &mut self.added)
    }

    fn settle(&mut self) {
        let (removed, added) = (std::mem::take(&mut self.removed), std::mem::take(&mut self.added));
        if !removed.is_empty() {
            self.words.push(Word::Removed(removed));
        }
        if !added.is_empty() {
            self.words.push(Word::Added(added));
        }
        let gap = std::mem::take(&mut self.gap);
        if !gap.is_empty() {
            self.push_same(&gap);
        }
    }
}
