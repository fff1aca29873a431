//! A secret inside JSON: any of its characters may stand there as it is or behind a backslash, and each
//! writer of JSON chooses for itself (`\/`, `\u0026`, `\u00E4`). So no list of spellings is made: the text is
//! read as JSON is, from every place at which a secret may begin.
//!
//! It never decides what is shown, and never reads JSON as a whole: what it looks at may be a part of it.

use std::collections::BTreeMap;

use super::Hidden;

/// The longest spelling of one character, for each byte of it: `\u0041`. A surrogate pair is shorter.
pub(super) const LONGEST_FOR_A_BYTE: usize = 6;

/// Escapes of one letter, and what they mean.
const SHORT: [(u8, char); 8] = [
    (b'"', '"'),
    (b'\\', '\\'),
    (b'/', '/'),
    (b'b', '\u{8}'),
    (b'f', '\u{c}'),
    (b'n', '\n'),
    (b'r', '\r'),
    (b't', '\t'),
];

/// What stands at the beginning of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A character, and the bytes that spell it.
    Char(char, usize),
    /// The text ends inside an escape.
    Cut,
    /// There is no text.
    End,
}

fn next(text: &str) -> Next {
    let Some(rest) = text.strip_prefix('\\') else {
        return text.chars().next().map_or(Next::End, |c| Next::Char(c, c.len_utf8()));
    };
    match rest.bytes().next() {
        None => Next::Cut,
        Some(b'u') => next_unicode(text),
        Some(letter) => match SHORT.iter().find(|(known, _)| *known == letter) {
            Some((_, meant)) => Next::Char(*meant, 2),
            // No escape: the backslash stands for itself.
            None => Next::Char('\\', 1),
        },
    }
}

/// Four hexadecimal digits, and four more where they are half of a character.
fn next_unicode(text: &str) -> Next {
    let first = match unit(text) {
        Ok(Some(unit)) => unit,
        Ok(None) => return Next::Char('\\', 1),
        Err(Short) => return Next::Cut,
    };
    if !(0xd800..0xdc00).contains(&first) {
        return Next::Char(char::from_u32(first).unwrap_or('\u{fffd}'), 6);
    }
    match unit(&text[6..]) {
        Ok(Some(second @ 0xdc00..0xe000)) => {
            let c = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            Next::Char(c.unwrap_or('\u{fffd}'), 12)
        }
        Ok(_) => Next::Char('\u{fffd}', 6),
        Err(Short) => Next::Cut,
    }
}

/// A text that ends before it is known whether it is an escape.
struct Short;

/// The number in `\u1234`; `None` where something else stands.
fn unit(text: &str) -> Result<Option<u32>, Short> {
    let bytes = text.as_bytes();
    let is_as_begun = bytes.iter().take(6).enumerate().all(|(at, byte)| match at {
        0 => *byte == b'\\',
        1 => *byte == b'u',
        _ => byte.is_ascii_hexdigit(),
    });
    match (is_as_begun, bytes.len() < 6) {
        (false, _) => Ok(None),
        (true, true) => Err(Short),
        (true, false) => Ok(u32::from_str_radix(&text[2..6], 16).ok()),
    }
}

/// How far a text begins with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// These bytes of the text are the whole of it.
    Whole(usize),
    /// The text ends behind these bytes of the secret.
    Begun(usize),
    /// Something else stands there.
    Not,
}

pub(super) fn fit(secret: &str, text: &str) -> Fit {
    let mut at = 0;
    for (begun, wanted) in secret.char_indices() {
        match next(&text[at..]) {
            Next::Char(c, length) if c == wanted => at += length,
            Next::Char(..) => return Fit::Not,
            Next::Cut | Next::End => return Fit::Begun(begun),
        }
    }
    Fit::Whole(at)
}

/// A secret that was found: where, over how many bytes, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) at: usize,
    pub(super) end: usize,
    pub(super) nth: usize,
}

/// By which bytes secrets begin, so that few places have to be looked at.
pub(super) struct Beginnings(Vec<Vec<usize>>);

impl Beginnings {
    pub(super) fn of(hidden: &[Hidden]) -> Beginnings {
        let mut by_byte = vec![Vec::new(); 256];
        for (nth, hidden) in hidden.iter().enumerate() {
            if let Some(byte) = hidden.text.bytes().next() {
                by_byte[usize::from(byte)].push(nth);
            }
        }
        Beginnings(by_byte)
    }

    /// Every place of a text at which one of them stands, in whatever spelling.
    pub(super) fn in_text<'a>(
        &'a self,
        hidden: &'a [Hidden],
        text: &'a str,
    ) -> impl Iterator<Item = Match> + 'a {
        text.char_indices().flat_map(move |(at, _)| {
            let first = match next(&text[at..]) {
                Next::Char(c, _) => c.encode_utf8(&mut [0; 4]).bytes().next(),
                Next::Cut | Next::End => None,
            };
            let likely = first.map(|byte| &*self.0[usize::from(byte)]).unwrap_or_default();
            likely.iter().filter_map(move |nth| {
                let Fit::Whole(length) = fit(&hidden[*nth].text, &text[at..]) else { return None };
                let end = at + length;
                let is_in_a_word = hidden[*nth].stands_alone && !stands_alone(text, at, end);
                (!is_in_a_word).then_some(Match { at, end, nth: *nth })
            })
        })
    }
}

/// The text with what was found replaced by its name: the longest first, and none that lies over another.
pub(super) fn replaced(text: &str, hidden: &[Hidden], mut found: Vec<Match>) -> String {
    // The secrets are sorted: the longest has the smallest number.
    found.sort_by_key(|found| (found.nth, found.at));
    let mut kept: BTreeMap<usize, Match> = BTreeMap::new();
    for found in found {
        let before = kept.range(..=found.at).next_back();
        let behind = kept.range(found.at..).next();
        let is_free = before.is_none_or(|(_, before)| before.end <= found.at)
            && behind.is_none_or(|(at, _)| found.end <= *at);
        if is_free {
            kept.insert(found.at, found);
        }
    }
    let (mut clean, mut end) = (String::with_capacity(text.len()), 0);
    for found in kept.values() {
        clean.push_str(&text[end..found.at]);
        clean.push_str(&hidden[found.nth].shown);
        end = found.end;
    }
    clean + &text[end..]
}

/// Whether no word goes on at either end.
fn stands_alone(text: &str, at: usize, end: usize) -> bool {
    let behind = match next(&text[end..]) {
        Next::Char(c, _) => Some(c),
        Next::Cut | Next::End => None,
    };
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    !is_word(before(&text[..at])) && !is_word(behind)
}

/// The last character of a text, where that ends in an escape the one that is meant: `\n4711` is no word.
fn before(text: &str) -> Option<char> {
    let escape = [2, 6, 12].iter().find_map(|length| {
        let tail = text.get(text.len().checked_sub(*length)?..)?;
        match next(tail) {
            Next::Char(c, whole) if whole == *length => Some(c),
            _ => None,
        }
    });
    escape.or_else(|| text.chars().next_back())
}

/// Bytes at the end of a text that are the beginning of a secret, as it is or inside JSON: `least` bytes of
/// the secret or more.
pub(super) fn begun_at_end(secret: &str, text: &str, least: usize) -> usize {
    let from = text.len().saturating_sub(secret.len() * LONGEST_FOR_A_BYTE);
    let mut starts = text.char_indices().map(|(at, _)| at).filter(|at| *at >= from);
    let is_begun = |rest: &str| {
        let is_as_it_is = (least..secret.len()).contains(&rest.len()) && secret.starts_with(rest);
        is_as_it_is || matches!(fit(secret, rest), Fit::Begun(bytes) if bytes >= least)
    };
    starts.find(|at| is_begun(&text[*at..])).map_or(0, |at| text.len() - at)
}

/// Bytes at the beginning of a text that are the end of a secret, as it is or inside JSON: `least` bytes of
/// the secret or more.
pub(super) fn ended_at_begin(secret: &str, text: &str, least: usize) -> usize {
    let (mut longest, mut last) = (0, None);
    // A secret of kilobytes has few different characters.
    let mut cuts: BTreeMap<char, Vec<usize>> = BTreeMap::new();
    let starts = secret.char_indices().take_while(|(at, _)| secret.len() - at >= least);
    for (at, c) in starts {
        let Some(last) = last.replace(c) else { continue };
        let rest = &secret[at..];
        if text.starts_with(rest) {
            longest = longest.max(rest.len());
        }
        // The cut may have gone through the spelling of the character before.
        for cut in &*cuts.entry(last).or_insert_with(|| cuts_through(last, text)) {
            if let Fit::Whole(length) = fit(rest, &text[*cut..]) {
                longest = longest.max(cut + length);
            }
        }
    }
    longest
}

/// How many bytes at the beginning of a text a cut may have left of an escape of this character.
fn cuts_through(c: char, text: &str) -> Vec<usize> {
    let is_letter = |(letter, meant): &&(u8, char)| *meant == c && text.bytes().next() == Some(*letter);
    let letter = SHORT.iter().find(is_letter).map(|_| 1);
    let escape: String = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    let is_rest =
        |bytes: &usize| text.get(..*bytes).is_some_and(|rest| escape.ends_with(&rest.to_ascii_lowercase()));
    (0..escape.len()).filter(is_rest).chain(letter).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::super::{Flow, Veil};
    use super::*;

    #[test]
    fn escapes_are_read_as_json_reads_them() {
        for (text, wanted) in [
            ("a", Next::Char('a', 1)),
            ("\\/x", Next::Char('/', 2)),
            ("\\\\x", Next::Char('\\', 2)),
            ("\\n", Next::Char('\n', 2)),
            ("\\u0026", Next::Char('&', 6)),
            ("\\u00e4b", Next::Char('ä', 6)),
            ("\\u00E4", Next::Char('ä', 6)),
            ("\\ud83d\\ude00!", Next::Char('😀', 12)),
            ("\\ud83dx", Next::Char('\u{fffd}', 6)),
            ("\\ud83d\\u0041", Next::Char('\u{fffd}', 6)),
            ("\\d", Next::Char('\\', 1)),
            ("\\u00x6", Next::Char('\\', 1)),
            ("\\uä", Next::Char('\\', 1)),
            ("\\", Next::Cut),
            ("\\u", Next::Cut),
            ("\\u00", Next::Cut),
            ("\\ud83d", Next::Cut),
            ("\\ud83d\\u", Next::Cut),
            ("", Next::End),
        ] {
            assert_eq!(next(text), wanted, "{text}");
        }
    }

    /// A secret with characters that writers of JSON spell differently.
    const SECRET: &str = "p/w&<x>'\"\\ä😀+7";

    /// The secret as each of them writes it.
    fn spellings() -> Vec<(&'static str, String)> {
        let every = |unit: fn(u16) -> String| SECRET.encode_utf16().map(unit).collect::<String>();
        vec![
            ("nobody", SECRET.to_owned()),
            ("serde_json", "p/w&<x>'\\\"\\\\ä😀+7".to_owned()),
            ("PHP", "p\\/w&<x>'\\\"\\\\\\u00e4\\ud83d\\ude00+7".to_owned()),
            ("Go", "p/w\\u0026\\u003cx\\u003e'\\\"\\\\ä😀+7".to_owned()),
            ("Python", "p/w&<x>'\\\"\\\\\\u00e4\\ud83d\\ude00+7".to_owned()),
            (".NET", "p/w\\u0026\\u003Cx\\u003E\\u0027\\u0022\\\\\\u00E4\\uD83D\\uDE00\\u002B7".to_owned()),
            ("every character", every(|unit| format!("\\u{unit:04x}"))),
            ("every character, in capitals", every(|unit| format!("\\u{unit:04X}"))),
        ]
    }

    fn veil() -> Veil {
        Veil::default().hide(SECRET, "[secret]").hide("a/b", "[short]").hide("canary", "[other]")
    }

    #[test]
    fn a_secret_is_known_again_however_json_spells_it() {
        let veil = veil().hide("cC93JjwrPi8/", "[coded]");
        for (writer, spelled) in spellings() {
            for (before, behind) in [("", ""), ("{\"got\":\"", "\"}"), ("C:\\", "\\n"), ("\\\\", "\\")] {
                let text = format!("{before}{spelled}{behind}");
                assert_eq!(veil.text(&text), format!("{before}[secret]{behind}"), "{writer}: {text}");
                assert_eq!(veil.value(json!({&text: [&text]})).to_string().matches("[secret]").count(), 2);
            }
        }
        for (text, wanted) in [
            // What is percent-encoded or in base64 may stand inside JSON too.
            (r#"{"a":"cC93JjwrPi8\/"}"#, r#"{"a":"[coded]"}"#),
            (r#"{"a":"cC93Jjwr\u0050i8\/"}"#, r#"{"a":"[coded]"}"#),
            // A longer one that holds a shorter one leaves no rest; a short one stands alone.
            (r#""a\/b\na\/b, xa\/b""#, r#""[short]\n[short], xa\/b""#),
            (r#""\u0063anary \canary""#, r#""[other] \[other]""#),
            (r#""c\u0061nary\/canary""#, r#""[other]\/[other]""#),
            (r#""a\u006eary""#, r#""a\u006eary""#),
        ] {
            assert_eq!(veil.text(text), wanted, "{text}");
        }
    }

    #[test]
    fn in_pieces_too() {
        for (writer, spelled) in spellings() {
            let text = format!("{{\"got\": \"{spelled}\", \"again\": \"{spelled}\\n\"}} \\");
            let wanted = "{\"got\": \"[secret]\", \"again\": \"[secret]\\n\"} \\";
            let veil = Arc::new(veil());
            for size in 1..text.len() {
                let shown = Arc::new(Mutex::new(String::new()));
                let sink = shown.clone();
                let flow =
                    Flow::new(veil.clone(), Arc::new(move |piece| sink.lock().unwrap().push_str(piece)));
                let progress = flow.progress();
                let mut rest = text.as_str();
                while !rest.is_empty() {
                    let mut end = size.min(rest.len());
                    while !rest.is_char_boundary(end) {
                        end += 1;
                    }
                    progress(&rest[..end]);
                    rest = &rest[end..];
                }
                flow.end();
                assert_eq!(*shown.lock().unwrap(), wanted, "{writer}, pieces of {size}");
            }
        }
    }

    #[test]
    fn what_a_cut_left_of_it_goes_too() {
        let veil = veil();
        for (writer, spelled) in spellings() {
            let from: Vec<usize> = spelled.char_indices().map(|(at, _)| at).skip(1).collect();
            for at in from {
                let (head, tail) = spelled.split_at(at);
                let shown = (veil.excerpt(&format!("got {head}…")), veil.excerpt(&format!("…{tail}, said")));
                // Four bytes of the secret, however they are spelled.
                let is_long = |part: &str| part.len() >= 4 * LONGEST_FOR_A_BYTE;
                assert!(!is_long(head) || shown.0 == "got …", "{writer}: {head}: {shown:?}");
                assert!(!is_long(tail) || shown.1 == "…, said", "{writer}: {tail}: {shown:?}");
            }
        }
    }
}
