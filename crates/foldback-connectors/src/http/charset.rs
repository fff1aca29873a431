//! The charset of an answer: bytes to text, or the finding that they are none.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

/// The text of some bytes under a content type. `None` where they are no text in its charset, or where
/// the charset is not known and they are no UTF-8.
///
/// A byte order mark wins over what the content type says, as browsers have it, and is not part of the
/// text; that of UTF-16 only where the type is one of texts, since other bytes begin like it. What a document says inside itself (`<meta charset>`, an XML declaration) is not looked at.
pub(super) fn text<'b>(content_type: Option<&str>, bytes: &'b [u8]) -> Option<Cow<'b, str>> {
    let marked = Encoding::for_bom(bytes);
    let marked = marked.filter(|(encoding, _)| *encoding == UTF_8 || content_type.is_some_and(is_of_texts));
    let (encoding, mark) = marked.unwrap_or_else(|| {
        let named = content_type.and_then(label).and_then(|label| Encoding::for_label(label.as_bytes()));
        (named.unwrap_or(UTF_8), 0)
    });
    encoding.decode_without_bom_handling_and_without_replacement(bytes.get(mark..)?)
}

/// The charset that a content type names: `text/plain; charset="iso-8859-1"`.
fn label(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })
}

fn is_of_texts(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/") || essence.ends_with("json") || essence.ends_with("xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_in_the_charset_that_is_named() {
        for (content_type, bytes, wanted) in [
            (None, b"caf\xc3\xa9".as_slice(), Some("café")),
            (None, b"caf\xe9", None),
            (Some("text/plain"), b"caf\xe9", None),
            (Some("text/plain; charset=ISO-8859-1"), b"caf\xe9", Some("café")),
            (Some("text/plain;format=flowed; Charset = \"windows-1252\" "), b"\x80 5", Some("€ 5")),
            (Some("text/plain; charset=Shift_JIS"), b"\x83\x65\x83\x58\x83\x67", Some("テスト")),
            (Some("text/plain; charset=gb18030"), b"\xd6\xd0", Some("中")),
            (Some("text/plain; charset=utf-16le"), b"h\0i\0", Some("hi")),
            (Some("application/xml"), b"\xff\xfeh\0i\0", Some("hi")),
            (Some("text/csv; charset=utf-8"), b"\xfe\xff\0h\0i", Some("hi")),
            (Some("application/octet-stream"), b"\xff\xfeh\0i\0", None),
            (None, b"\xff\xfeh\0i\0", None),
            (Some("text/plain; charset=iso-8859-1"), b"\xef\xbb\xbfcaf\xc3\xa9", Some("café")),
            (Some("text/plain; charset=utf-8"), b"\xff", None),
            (Some("text/plain; charset=Shift_JIS"), b"\x83", None),
            (Some("text/plain; charset=no-such"), b"ok", Some("ok")),
            (Some("text/plain; charset=no-such"), b"\xe9", None),
            (Some("text/plain; charset="), b"", Some("")),
        ] {
            assert_eq!(text(content_type, bytes).as_deref(), wanted, "{content_type:?} {bytes:?}");
        }
    }
}
