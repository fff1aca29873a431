//! The ways in which a secret comes back: as it is, percent-encoded, in base64, also in base64 of JSON. A
//! server that echoes a header, a form or a whole request gives it back in one of them. What JSON makes of
//! each is no matter of a list: see `escaped`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;

use super::SHORTEST;

/// Every spelling of a text that is looked for, the text itself among them.
pub(super) fn spellings(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::from([text.to_owned()]);
    for is_kept in [is_unreserved, is_kept_by_scripts] {
        let lower = percent(text, is_kept);
        for spelled in [upper(&lower), lower] {
            found.insert(spelled.replace("%20", "+"));
            found.insert(spelled);
        }
    }
    let quoted = Value::from(text).to_string();
    let quoted = &quoted[1..quoted.len() - 1];
    found.insert(quoted.to_owned());
    for text in [text, quoted] {
        for shift in 0..3 {
            let coded = [STANDARD.encode(shifted(text, shift)), URL_SAFE.encode(shifted(text, shift))];
            // Only the digits that the text alone settles: those at its ends also hold its neighbours.
            let (first, end) = ((shift * 8).div_ceil(6), (shift + text.len()) * 8 / 6);
            found.extend(coded.iter().filter_map(|coded| coded.get(first..end)).map(str::to_owned));
        }
    }
    found.retain(|spelling| spelling.len() >= SHORTEST);
    found
}

fn shifted(text: &str, by: usize) -> Vec<u8> {
    [&vec![0; by], text.as_bytes()].concat()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// What JavaScript's `encodeURIComponent` leaves.
fn is_kept_by_scripts(byte: u8) -> bool {
    is_unreserved(byte) || b"!*'()".contains(&byte)
}

fn percent(text: &str, is_kept: fn(u8) -> bool) -> String {
    let spell = |byte: u8| match is_kept(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    };
    text.bytes().map(spell).collect()
}

/// Hexadecimal digits behind `%` in capitals.
fn upper(percent: &str) -> String {
    let mut parts = percent.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (digits, rest) = part.split_at(2.min(part.len()));
        format!("{text}%{}{rest}", digits.to_ascii_uppercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_again_in_every_spelling() {
        let secret = "p+w/d \"x\"=?ÿ";
        let all = spellings(secret);
        for wanted in [
            "p%2Bw%2Fd%20%22x%22%3D%3F%C3%BF",
            "p%2bw%2fd+%22x%22%3d%3f%c3%bf",
            "p%2Bw%2Fd+%22x%22%3D%3F%C3%BF",
            r#"p+w/d \"x\"=?ÿ"#,
        ] {
            assert!(all.contains(wanted), "{wanted}: {all:?}");
        }
        for before in ["", "a", "ab", "abc", "user:"] {
            for coded in
                [STANDARD.encode(format!("{before}{secret}z")), URL_SAFE.encode(format!("{before}{secret}z"))]
            {
                assert!(all.iter().any(|spelling| coded.contains(spelling.as_str())), "{before}: {coded}");
            }
        }
    }
}
