//! Bytes that are no JSON, in a world of JSON values: a `data:` URI (RFC 2397).
//!
//! An image or a PDF is a value like any other, the text `data:TYPE;base64,…`. Where such a value lies
//! beside the log, it lies there as its bytes under its own media type ([`crate::Slot`]): a third
//! smaller, and what any other program expects of a PNG.
//!
//! Invariant: [`write`] of what [`read`] gave is the same text. A URI that is spelled otherwise
//! (capitals, parameters, loose bits at the end) stays text, so that nothing a person wrote changes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The media type and the bytes of a `data:` URI in its one spelling; `None` for any other text.
///
/// ```
/// use foldback_core::media;
/// assert_eq!(media::read("data:image/png;base64,iVBO"), Some(("image/png", vec![0x89, b'P', b'N'])));
/// assert_eq!(media::read("data:image/PNG;base64,iVBO"), None);
/// ```
pub fn read(text: &str) -> Option<(&str, Vec<u8>)> {
    let (media_type, coded) = text.strip_prefix("data:")?.split_once(";base64,")?;
    if !is_media_type(media_type) {
        return None;
    }
    // This engine refuses padding that is missing and bits that are loose: one text for some bytes.
    let bytes = STANDARD.decode(coded).ok()?;
    Some((media_type, bytes))
}

/// The `data:` URI of some bytes.
///
/// ```
/// # use foldback_core::media;
/// assert_eq!(media::write("image/png", &[0x89, b'P', b'N']), "data:image/png;base64,iVBO");
/// ```
pub fn write(media_type: &str, bytes: &[u8]) -> String {
    let mut text = format!("data:{media_type};base64,");
    STANDARD.encode_string(bytes, &mut text);
    text
}

/// Whether this is a type and a subtype in small letters, without parameters (RFC 6838, section 4.2).
pub fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        (1..=127).contains(&name.len())
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"!#$&-^_.+".contains(&c))
    };
    text.split_once('/').is_some_and(|(of, sub)| is_name(of) && is_name(sub))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_is_read() {
        for (text, is_read) in [
            ("data:image/png;base64,AQID", true),
            ("data:application/vnd.a-b+json;base64,", true),
            ("data:application/pdf;base64,AQ==", true),
            // Without its padding, with loose bits, with a line break, in the URL alphabet.
            ("data:application/pdf;base64,AQ", false),
            ("data:application/pdf;base64,AR==", false),
            ("data:application/pdf;base64,AQ\n==", false),
            ("data:image/png;base64,_-8=", false),
            ("data:image/PNG;base64,AQID", false),
            ("DATA:image/png;base64,AQID", false),
            ("data:text/plain;charset=utf-8;base64,AQID", false),
            ("data:image;base64,AQID", false),
            ("data:/;base64,AQID", false),
            ("data:;base64,AQID", false),
            ("data:a/b/c;base64,AQID", false),
            ("data:text/plain,hello", false),
            ("see data:image/png;base64,AQID", false),
        ] {
            let found = read(text);
            assert_eq!(found.is_some(), is_read, "{text}");
            if let Some((media_type, bytes)) = found {
                assert_eq!(write(media_type, &bytes), text);
            }
        }
    }
}
