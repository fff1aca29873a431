//! Images and documents that go to a model with its prompt, as data URIs: what a step answered, or
//! what stands in the definition. Checked before anything is sent; never fetched from anywhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use foldback_core::{Failure, limits};
use serde_json::Value;

use crate::request::wrong;

/// Bytes that are not text, for a model to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// What the bytes are: `image/png`, `application/pdf`.
    pub media_type: String,
    /// The bytes, in base64.
    pub base64: String,
}

/// The attachments of a request.
///
/// # Errors
/// One that is no data URI, is of a type that no provider takes, or is too large with the others.
pub(super) fn read(given: Option<&Vec<Value>>) -> Result<Vec<Attachment>, Failure> {
    let mut attachments = Vec::new();
    let mut bytes = 0;
    for (at, value) in given.into_iter().flatten().enumerate() {
        let refused = |what: &str| wrong("llm", &format!("`attachments[{at}]` {what}"));
        let attachment = value.as_str().and_then(parse).ok_or_else(|| {
            refused("is no data URI; hint: write data:image/png;base64,… or ${ \"data:image/png;base64,\" + $steps.fetch }")
        })?;
        if !attachment.media_type.starts_with("image/") && attachment.media_type != "application/pdf" {
            return Err(refused(&format!("is `{}`, neither an image nor a PDF", attachment.media_type)));
        }
        let decoded = STANDARD.decode(&attachment.base64).map_err(|_| refused("holds no base64"))?;
        bytes += decoded.len();
        if bytes > limits::ATTACHMENTS_MAX_BYTES {
            let most = limits::ATTACHMENTS_MAX_BYTES / (1024 * 1024);
            return Err(refused(&format!("is too large: all of them together have at most {most} MiB")));
        }
        attachments.push(attachment);
    }
    Ok(attachments)
}

/// `data:TYPE;base64,DATA`, with parameters between the two left out.
fn parse(text: &str) -> Option<Attachment> {
    let (head, base64) = text.strip_prefix("data:")?.split_once(',')?;
    let kind = head.strip_suffix(";base64")?;
    let media_type = kind.split(';').next()?.trim().to_ascii_lowercase();
    let is_type = media_type.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty());
    is_type.then(|| Attachment { media_type, base64: base64.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn attachments_as_a_table() {
        for (given, expected) in [
            (json!(["data:image/png;base64,AQID"]), Ok(vec![("image/png", "AQID")])),
            (json!(["data:Application/PDF;name=a.pdf;base64,AQID"]), Ok(vec![("application/pdf", "AQID")])),
            (json!([]), Ok(vec![])),
            (json!(["https://example.com/a.png"]), Err("`attachments[0]` is no data URI; hint:")),
            (json!(["data:image/png;base64,AQID", 7]), Err("`attachments[1]` is no data URI")),
            (json!(["data:image/png,AQID"]), Err("is no data URI")),
            (json!(["data:text/plain;base64,AQID"]), Err("is `text/plain`, neither an image nor a PDF")),
            (json!(["data:image/png;base64,A!"]), Err("holds no base64")),
        ] {
            match (read(given.as_array()), expected) {
                (Ok(found), Ok(expected)) => {
                    let found: Vec<_> = found.iter().map(|a| (&*a.media_type, &*a.base64)).collect();
                    assert_eq!(found, expected);
                }
                (Err(error), Err(part)) => {
                    assert!(error.detail.as_deref().is_some_and(|d| d.contains(part)), "{error:?}");
                }
                (found, expected) => panic!("{given}: {found:?}, not {expected:?}"),
            }
        }
        let large = STANDARD.encode(vec![0; limits::ATTACHMENTS_MAX_BYTES / 2 + 1]);
        let twice =
            json!([format!("data:image/png;base64,{large}"), format!("data:image/png;base64,{large}")]);
        let error = read(twice.as_array()).expect_err("too large");
        assert!(error.detail.is_some_and(|d| d.contains("`attachments[1]` is too large")));
    }
}
