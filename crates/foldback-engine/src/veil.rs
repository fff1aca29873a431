//! Secrets: the engine fills them into a request before a step kind sees it, and masks them in
//! everything that the kind gives back.
//!
//! It masks outputs, errors, reasons, usage and progress, of every kind, a user's own too. A secret is
//! found as it is, percent-encoded, in base64, in whatever way JSON spells any of these, and where progress
//! cuts it into pieces. It never looks into what is compressed, encrypted or spelled in another way.
//!
//! Invariants:
//! * A [`Registry`](crate::Registry) hands out no kind but behind [`Veiled`].
//! * A secret shorter than [`SHORTEST`] is masked only where it stands alone: it would be found in every
//!   second word.
//! * The keys that [`Registry::hiding`](crate::Registry::hiding) names are masked in every step, whether
//!   or not its request holds them.
//!
//! Modules: `spelling` (how a secret comes back), `escaped` (inside JSON), `flow` (progress in pieces),
//! `keys` (the variables that are masked everywhere).

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use foldback_core::{Failure, Outcome, Usage};
use serde_json::Value;
use url::Url;

use crate::kind::{Call, Performing, StepKind};
use escaped::{Beginnings, Fit, Match, fit};

mod escaped;
mod flow;
mod keys;
mod spelling;

pub use flow::Flow;
pub(crate) use keys::Keys;

/// Secrets with fewer bytes are looked for only where they stand alone.
pub const SHORTEST: usize = 6;

/// A rest of a secret at the end of a text that was cut is taken out from this many bytes on.
const REST_MIN: usize = 4;

/// A step kind of a registry, behind the mask: all of [`StepKind`], but that [`Veiled::perform`] stands
/// before the kind's own.
#[derive(Clone)]
pub struct Veiled {
    pub(crate) kind: Arc<dyn StepKind>,
    pub(crate) keys: Arc<Keys>,
}

/// What else a kind says of itself holds behind the mask too.
impl Deref for Veiled {
    type Target = dyn StepKind;

    fn deref(&self) -> &Self::Target {
        &*self.kind
    }
}

impl Veiled {
    /// Performs one attempt: fills the secrets in, and masks what comes back.
    pub fn perform(&self, mut call: Call) -> Performing {
        if let Err(error) = call.reveal() {
            let outcome = Outcome::Failed { error, retry_after_ms: None, usage: None };
            return Box::pin(std::future::ready(outcome));
        }
        let keys = self.keys.veil();
        let veil = if call.secrets.is_empty() { keys } else { Arc::new(Veil::over(&call, &keys)) };
        if veil.is_empty() {
            return self.kind.perform(call);
        }
        let flow = Flow::new(veil.clone(), call.progress.clone());
        call.progress = flow.progress();
        let kind = self.kind.clone();
        Box::pin(async move {
            let outcome = kind.perform(call).await;
            flow.end();
            veil.outcome(outcome)
        })
    }
}

/// Values that are masked, and the names that are shown in their places.
#[derive(Default)]
pub struct Veil {
    hidden: Vec<Hidden>,
    finder: OnceLock<Finder>,
}

/// Tells in one pass whether anything is to be masked at all: outputs of megabytes hold none of dozens of
/// spellings.
struct Finder {
    /// `None` where there are too many to build it: then each is searched for.
    any: Option<AhoCorasick>,
    /// Where one of them may begin inside JSON.
    beginnings: Beginnings,
    /// Whether one of them could stand in a number.
    is_in_numbers: bool,
}

/// One spelling of a secret.
#[derive(Clone)]
struct Hidden {
    text: String,
    shown: String,
    /// Whether it is too short to be looked for inside a word.
    stands_alone: bool,
}

impl Veil {
    /// The secrets in a revealed call's request, and the keys that are masked everywhere.
    fn over(call: &Call, keys: &Veil) -> Veil {
        let (mut veil, request) =
            (Veil { hidden: keys.hidden.clone(), finder: OnceLock::new() }, &call.request);
        for (pointer, name) in &call.secrets {
            if let Some(value) = request.pointer(pointer).and_then(Value::as_str) {
                let shown = format!("[secret {name}]");
                veil = veil.hide(value, &shown).hide_address(value, &shown);
            }
        }
        // A password goes out as base64; a server that echoes headers gives it back like that.
        if call.secrets.keys().any(|pointer| pointer.starts_with("/authentication/")) {
            let part = |name| request.pointer(&format!("/authentication/{name}")).and_then(Value::as_str);
            if let (Some(user), Some(password)) = (part("username"), part("password")) {
                veil = veil.hide(&STANDARD.encode(format!("{user}:{password}")), "[secret authentication]");
            }
        }
        veil
    }

    /// Hides one more value behind a name, in all its spellings.
    pub fn hide(mut self, value: &str, shown: &str) -> Veil {
        if value.is_empty() {
            return self;
        }
        let stands_alone = value.len() < SHORTEST;
        let texts = if stands_alone { [value.to_owned()].into() } else { spelling::spellings(value) };
        let hidden = texts.into_iter().map(|text| Hidden { text, shown: shown.to_owned(), stands_alone });
        self.hidden.extend(hidden);
        // Longest first, so that a secret that contains another leaves no rest.
        self.hidden.sort_by_key(|hidden| std::cmp::Reverse(hidden.text.len()));
        self.finder = OnceLock::new();
        self
    }

    /// What of a secret address goes out on its own: user and password as a header, path and query.
    fn hide_address(self, value: &str, shown: &str) -> Veil {
        let Some(url) = Url::parse(value).ok().filter(Url::has_host) else {
            return self;
        };
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("{}{query}", url.path());
        let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
        let header = STANDARD.encode(format!("{user}:{password}"));
        let header = if user.is_empty() && password.is_empty() { String::new() } else { header };
        let is_root = path.len() <= 1;
        let path = if is_root { String::new() } else { path };
        [header, password, path].into_iter().fold(self, |veil, part| veil.hide(&part, shown))
    }

    fn is_empty(&self) -> bool {
        self.hidden.is_empty()
    }

    fn finder(&self) -> &Finder {
        self.finder.get_or_init(|| {
            let texts = || self.hidden.iter().map(|hidden| hidden.text.as_str());
            let is_numeric = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            Finder {
                any: AhoCorasick::new(texts()).ok(),
                beginnings: Beginnings::of(&self.hidden),
                is_in_numbers: texts().any(is_numeric),
            }
        })
    }

    /// Whether a text may hold one of them.
    fn is_in(&self, text: &str) -> bool {
        self.is_there(text) || self.escaped(text).next().is_some()
    }

    /// Whether a text may hold one of them in the very spelling.
    fn is_there(&self, text: &str) -> bool {
        self.finder().any.as_ref().is_none_or(|any| any.is_match(text))
    }

    /// Where a text that may be part of JSON holds one of them. A text without a backslash holds each as it is.
    fn escaped<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Match> + 'a {
        let looked_at = if text.contains('\\') { text } else { "" };
        self.finder().beginnings.in_text(&self.hidden, looked_at)
    }

    /// Whether a value may hold one of them, in its strings, its names or its numbers.
    fn is_inside(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.is_in(text),
            Value::Array(items) => items.iter().any(|item| self.is_inside(item)),
            Value::Object(map) => map.iter().any(|(name, value)| self.is_in(name) || self.is_inside(value)),
            Value::Number(number) => self.finder().is_in_numbers && self.is_in(&number.to_string()),
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// The text without secrets.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut clean = Cow::Borrowed(text);
        if self.is_empty() {
            return clean;
        }
        let escaped: Vec<Match> = self.escaped(text).collect();
        if !escaped.is_empty() {
            clean = Cow::Owned(escaped::replaced(text, &self.hidden, escaped));
        }
        if !self.is_there(&clean) {
            return clean;
        }
        for hidden in &self.hidden {
            if clean.contains(hidden.text.as_str()) {
                clean = Cow::Owned(hidden.replaced(&clean));
            }
        }
        clean
    }

    /// How much of a text can be shown while more is to come: what is behind may be the beginning of
    /// a secret.
    fn settled(&self, text: &str) -> usize {
        let is_json = text.contains('\\');
        let may_go_on = |at: usize| {
            let rest = &text[at..];
            self.hidden.iter().any(|hidden| {
                let is_begun = hidden.text.starts_with(rest);
                // Whether a short one stands alone is known with the next character.
                (is_begun && (hidden.stands_alone || hidden.text.len() > rest.len()))
                    || is_json
                        && match fit(&hidden.text, rest) {
                            Fit::Begun(_) => true,
                            Fit::Whole(length) => hidden.stands_alone && length == rest.len(),
                            Fit::Not => false,
                        }
            })
        };
        let longest = self.hidden.first().map_or(0, |hidden| hidden.text.len());
        let longest = longest * if is_json { escaped::LONGEST_FOR_A_BYTE } else { 1 };
        let from = text.len().saturating_sub(longest);
        let mut starts = text.char_indices().map(|(at, _)| at).filter(|at| *at >= from);
        let mut cut = starts.find(|at| may_go_on(*at)).unwrap_or(text.len());
        // Nor through the middle of one.
        let escaped: Vec<Match> = self.escaped(text).collect();
        let over = |cut: usize| {
            let as_it_is = self.hidden.iter().find_map(|hidden| hidden.over(text, cut));
            let found = || escaped.iter().find(|found| found.at < cut && cut < found.end);
            as_it_is.or_else(|| found().map(|found| found.at))
        };
        while let Some(start) = over(cut) {
            cut = start;
        }
        cut
    }

    /// The value without secrets, in its strings and in its names.
    pub fn value(&self, value: Value) -> Value {
        if self.is_empty() || !self.is_inside(&value) {
            return value;
        }
        self.masked(value)
    }

    fn masked(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text).into_owned()),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.masked(item)).collect()),
            Value::Object(map) => Value::Object(
                map.into_iter()
                    .map(|(name, value)| (self.text(&name).into_owned(), self.masked(value)))
                    .collect(),
            ),
            Value::Number(number) => {
                let text = number.to_string();
                match self.text(&text) {
                    clean if clean == text => Value::Number(number),
                    clean => Value::String(clean.into_owned()),
                }
            }
            Value::Null | Value::Bool(_) => value,
        }
    }

    /// The failure without secrets.
    pub fn failure(&self, mut error: Failure) -> Failure {
        error.title = self.text(&error.title).into_owned();
        error.detail = error.detail.map(|detail| self.excerpt(&detail).into());
        error
    }

    /// A text that may have been cut out of a longer one, without secrets and without what a cut left
    /// of one at either end.
    pub fn excerpt(&self, text: &str) -> String {
        // Behind the first line of a process's error stands the end of what it wrote.
        let parts: Vec<String> = self.text(text).splitn(2, '\n').map(|part| self.unfrayed(part)).collect();
        parts.join("\n")
    }

    fn unfrayed(&self, clean: &str) -> String {
        let (from, to) =
            (clean.len() - clean.trim_start_matches('…').len(), clean.trim_end_matches('…').len());
        let inner = clean.get(from..to).unwrap_or_default();
        let (mut head, mut tail) = (0, 0);
        for hidden in self.hidden.iter().filter(|hidden| !hidden.stands_alone) {
            tail = tail.max(escaped::begun_at_end(&hidden.text, inner, REST_MIN));
            head = head.max(escaped::ended_at_begin(&hidden.text, inner, REST_MIN));
        }
        let kept = inner.get(head..inner.len() - tail).unwrap_or_default();
        format!("{}{kept}{}", &clean[..from], &clean[to.max(from)..])
    }

    /// What a provider says of itself.
    pub fn usage(&self, usage: Usage) -> Usage {
        Usage {
            model: self.text(&usage.model).into_owned(),
            finish_reason: usage.finish_reason.map(|reason| self.text(&reason).into_owned()),
            raw: usage.raw.map(|raw| self.value(raw)),
            ..usage
        }
    }

    fn outcome(&self, outcome: Outcome) -> Outcome {
        if self.is_empty() {
            return outcome;
        }
        match outcome {
            Outcome::Completed { output, usage } => {
                Outcome::Completed { output: self.value(output), usage: usage.map(|usage| self.usage(usage)) }
            }
            Outcome::Failed { error, retry_after_ms, usage } => {
                let usage = usage.map(|usage| self.usage(usage));
                Outcome::Failed { error: self.failure(error), retry_after_ms, usage }
            }
            Outcome::OutOfBudget { usage } => {
                Outcome::OutOfBudget { usage: usage.map(|usage| self.usage(usage)) }
            }
            Outcome::Rejected { output, error, usage } => {
                let (error, usage) = (self.failure(error), usage.map(|usage| self.usage(usage)));
                Outcome::Rejected { output: self.value(output), error, usage }
            }
            Outcome::Unknown { reason } => Outcome::Unknown { reason: self.excerpt(&reason) },
        }
    }
}

impl Hidden {
    fn replaced(&self, text: &str) -> String {
        if !self.stands_alone {
            return text.replace(&self.text, &self.shown);
        }
        let (mut clean, mut end) = (String::with_capacity(text.len()), 0);
        for (at, found) in text.match_indices(&self.text) {
            let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
            let (before, behind) = (text[..at].chars().next_back(), text[at + found.len()..].chars().next());
            if !is_word(before) && !is_word(behind) {
                clean.push_str(&text[end..at]);
                clean.push_str(&self.shown);
                end = at + found.len();
            }
        }
        clean + &text[end..]
    }

    /// Where it begins, if it lies over a cut.
    fn over(&self, text: &str, cut: usize) -> Option<usize> {
        let mut found = text.match_indices(&self.text).map(|(at, _)| at);
        found.find(|at| *at < cut && cut < at + self.text.len())
    }
}

/// A part of an address without its percent signs.
fn decoded(part: &str) -> String {
    // A plus is itself in a name or a password, and a space in the query that decodes it here.
    let query = Url::parse(&format!("http://x/?x={}", part.replace('+', "%2B")));
    let value = query.ok().and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned()));
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_answer_echoes_of_a_secret_is_replaced_by_its_name() {
        let veil = Veil::default()
            .hide("canary", "[secret a]")
            .hide("canary-long", "[secret b]")
            .hide("x", "[secret c]");
        assert_eq!(veil.text("xx canary-long canary"), "xx [secret b] [secret a]");
        assert_eq!(
            veil.value(json!({"canary": ["my canary", 1]})),
            json!({"[secret a]": ["my [secret a]", 1]})
        );
        assert_eq!(
            veil.value(json!([{"n": 4711}, "xx x, x"])),
            json!([{"n": 4711}, "xx [secret c], [secret c]"])
        );
        assert_eq!(
            Veil::default().hide("4711", "[pin]").value(json!([4711, 47110])),
            json!(["[pin]", 47110])
        );
        let shown = veil.outcome(Outcome::Unknown { reason: "sent canary".into() });
        assert_eq!(shown, Outcome::Unknown { reason: "sent [secret a]".into() });
    }

    #[test]
    fn of_a_secret_address_the_parts_are_hidden_too() {
        let address = "https://ann:p%2Bw-4711@hooks.example/services/T0/B1?token=abcdef";
        let veil = Veil::default().hide(address, "[s]").hide_address(address, "[s]");
        let basic = STANDARD.encode("ann:p+w-4711");
        for part in [address, "p+w-4711", "p%2Bw-4711", "/services/T0/B1?token=abcdef", &basic] {
            assert_eq!(veil.text(&format!("sent {part} to")), "sent [s] to");
        }
        assert_eq!(veil.text("https://hooks.example"), "https://hooks.example");
    }

    #[test]
    fn what_a_cut_left_of_a_secret_goes_too() {
        let veil = Veil::default().hide("canary-long", "[secret]");
        for (text, wanted) in [
            ("sent canary-lo…", "sent …"),
            ("sent canary-lo", "sent "),
            ("…ry-long was refused", "… was refused"),
            ("ry-long: canary-long, cana…", ": [secret], …"),
            ("exit code 3\nry-long is wrong", "exit code 3\n is wrong"),
            ("can you", "can you"),
            ("…", "…"),
            ("", ""),
        ] {
            assert_eq!(veil.excerpt(text), wanted, "{text}");
        }
    }
}
