//! Filling a prompt's template: `{name}` is replaced by a variable, `{{` and `}}` stand for
//! braces, and any other brace for itself, so that JSON in a prompt needs no escaping. Text is put
//! in as it is, other JSON compact. What is put in is never read again as a template, so a variable
//! cannot reach another one. The check of a definition reads templates by the same rule.

use serde_json::{Map, Value};

use crate::request::text_of;

/// The template with its variables filled in.
///
/// # Errors
/// A variable that is not given: with the line, and what there is.
pub(super) fn fill(template: &str, vars: Option<&Map<String, Value>>) -> Result<String, String> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        filled.push_str(&rest[..at]);
        let here = &rest[at..];
        let line = || template[..template.len() - here.len()].matches('\n').count() + 1;
        if let Some(after) = here.strip_prefix("{{") {
            filled.push('{');
            rest = after;
        } else if let Some(after) = here.strip_prefix("}}") {
            filled.push('}');
            rest = after;
        } else if let Some((name, after)) = named(here) {
            let value = vars.and_then(|vars| vars.get(name)).ok_or_else(|| {
                let known: Vec<&str> =
                    vars.into_iter().flat_map(|vars| vars.keys()).map(String::as_str).collect();
                let known = if known.is_empty() {
                    "there is none".to_owned()
                } else {
                    format!("there are {}", known.join(", "))
                };
                format!("`template` line {}: no variable `{name}` in `vars`; {known}", line())
            })?;
            filled.push_str(&text_of(value));
            rest = after;
        } else {
            filled.push_str(&here[..1]);
            rest = &here[1..];
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The name that a text begins with, in braces, and what comes after it.
fn named(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('{')?.split_once('}').filter(|(name, _)| is_name(name))
}

fn is_name(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_as_a_table() {
        let vars = json!({"topic": "rust", "list": [1, {"a": null}], "brace": "{topic}", "leer": null});
        let vars = vars.as_object();
        for (template, expected) in [
            ("About {topic}.", Ok("About rust.")),
            ("{list}{leer}", Ok(r#"[1,{"a":null}]null"#)),
            ("{{topic}} {{{topic}}}", Ok("{topic} {rust}")),
            ("{brace}", Ok("{topic}")),
            ("a } b", Ok("a } b")),
            ("é{topic}é", Ok("érusté")),
            (
                "x\n{nope}",
                Err("`template` line 2: no variable `nope` in `vars`; there are topic, list, brace, leer"),
            ),
            ("{\"a\": {topic}}", Ok("{\"a\": rust}")),
            ("{ topic } {} {", Ok("{ topic } {} {")),
        ] {
            assert_eq!(
                fill(template, vars),
                expected.map(str::to_owned).map_err(str::to_owned),
                "{template}"
            );
        }
        assert!(fill("{a}", None).is_err_and(|why| why.ends_with("there is none")));
    }
}
