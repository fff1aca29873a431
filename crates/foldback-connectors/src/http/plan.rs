//! What an `http` call asks for, read from its request. Pure: no I/O here.

use std::collections::BTreeSet;

use foldback_core::Failure;
use foldback_core::step::FRAMING_HEADERS;
use foldback_engine::kind::Call;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::{Map, Value, json};

use super::bad_request;
use crate::request::{Members, text_of};

/// The header that carries the idempotency key of a `write`.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What of the answer becomes the step's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The content, parsed where it is JSON.
    Content,
    /// The whole answer.
    Response,
    /// The bytes, as base64.
    Raw,
}

/// One request, ready to be sent.
pub(super) struct Plan {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
    pub(super) output: Output,
    /// Whether redirects are followed.
    pub(super) redirect: bool,
    /// Headers that hold a secret: never sent to another host, never shown.
    pub(super) secret_headers: BTreeSet<String>,
    /// Whether the body holds a secret.
    pub(super) has_secret_body: bool,
    /// The request as `output: response` shows it: without secrets.
    pub(super) shown: Value,
}

impl Plan {
    /// Reads a revealed request; `call` says what in it is secret.
    ///
    /// # Errors
    /// A failure of type configuration that names the member. Values that may be secret are not
    /// in it.
    pub(super) fn read(call: &Call, request: &Value) -> Result<Plan, Failure> {
        const KNOWN: [&str; 8] =
            ["method", "uri", "headers", "query", "body", "output", "redirect", "authentication"];
        let members = Members::of("http", request, &KNOWN)?;
        let method = members.text("method")?.unwrap_or("GET").to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| bad_request(format!("`method` is `{method}`: no HTTP method")))?;
        if method == Method::CONNECT {
            return Err(bad_request("`method` is `CONNECT`, which opens a tunnel and asks nothing"));
        }
        let url = address(&members)?;
        let mut headers = HeaderMap::new();
        for (name, value) in members.object("headers")?.into_iter().flatten() {
            if FRAMING_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                let why = "how a request is framed and its connection kept follows from its body";
                return Err(bad_request(format!("`headers`: leave `{name}` out: {why}")));
            }
            if !value.is_null() {
                headers.append(header_name(name)?, header_value(name, &text_of(value))?);
            }
        }
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json, */*;q=0.8"));
        if let Some(authorization) = authorization(&members)? {
            headers.insert(AUTHORIZATION, authorization);
        }
        if let Some(key) = &call.idempotency_key {
            headers.entry(IDEMPOTENCY_KEY).or_insert(header_value(IDEMPOTENCY_KEY, key)?);
        }
        let body = body(&members, &mut headers)?;
        let output = match members.text("output")? {
            None | Some("content") => Output::Content,
            Some("response") => Output::Response,
            Some("raw") => Output::Raw,
            Some(_) => return Err(bad_request("`output` is none of content, response, raw")),
        };
        let secret_headers = secret_headers(call);
        for (name, value) in &mut headers {
            value.set_sensitive(name == AUTHORIZATION || secret_headers.contains(name.as_str()));
        }
        let shown = shown(call, request, &method, &headers, &secret_headers);
        Ok(Plan {
            method,
            url,
            headers,
            body,
            output,
            redirect: members.boolean("redirect")?.unwrap_or(false),
            secret_headers,
            has_secret_body: call
                .secrets
                .keys()
                .any(|pointer| pointer == "/body" || pointer.starts_with("/body/")),
            shown,
        })
    }
}

fn address(members: &Members<'_>) -> Result<Url, Failure> {
    let uri = members.text("uri")?.ok_or_else(|| bad_request("`uri` is missing"))?;
    let mut url =
        Url::parse(uri).map_err(|why| bad_request(format!("`uri` is no absolute address: {why}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad_request(format!("`uri` starts with `{}:`; http and https are known", url.scheme())));
    }
    if let Some(query) = members.object("query")? {
        add_query(&mut url, query);
    }
    Ok(url)
}

/// A list gives its parameter once for each item; `null` leaves it out.
fn add_query(url: &mut Url, query: &Map<String, Value>) {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for (name, value) in query {
        match value {
            Value::Null => {}
            Value::Array(items) => {
                pairs.extend(items.iter().map(|item| (name.as_str(), text_of(item).into_owned())))
            }
            value => pairs.push((name, text_of(value).into_owned())),
        }
    }
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
}

fn header_name(name: &str) -> Result<HeaderName, Failure> {
    name.parse().map_err(|_| bad_request(format!("`headers`: `{name}` is no name of a header")))
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, Failure> {
    let name = name.to_owned();
    // The value may be a secret: only the name is told.
    HeaderValue::from_str(value)
        .or_else(|_| HeaderValue::from_bytes(value.as_bytes()))
        .map_err(|_| bad_request(format!("`headers`: the value of `{name}` cannot be sent in a header")))
}

fn authorization(members: &Members<'_>) -> Result<Option<HeaderValue>, Failure> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let Some(authentication) = members.object("authentication")? else {
        return Ok(None);
    };
    let part = |name: &str| {
        authentication
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| bad_request(format!("`authentication.{name}` is missing, or no text")))
    };
    let value = match part("scheme")?.to_ascii_lowercase().as_str() {
        "bearer" => format!("Bearer {}", part("token")?),
        "basic" => {
            format!("Basic {}", STANDARD.encode(format!("{}:{}", part("username")?, part("password")?)))
        }
        other => {
            return Err(bad_request(format!(
                "`authentication.scheme` is `{other}`; bearer and basic are known"
            )));
        }
    };
    header_value("authorization", &value).map(Some)
}

/// The body's bytes, with the content type where none is given: text is sent as it is under any
/// content type but JSON, an object as a form where the header says so, all else as JSON.
fn body(members: &Members<'_>, headers: &mut HeaderMap) -> Result<Option<Vec<u8>>, Failure> {
    let Some(body) = members.value("body") else {
        return Ok(None);
    };
    let content_type =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase);
    let is_json = content_type.as_deref().is_none_or(is_json_type);
    if let (Value::String(text), false) = (body, is_json) {
        return Ok(Some(text.clone().into_bytes()));
    }
    if let (Value::Object(form), Some(true)) =
        (body, content_type.as_deref().map(|t| t.starts_with("application/x-www-form-urlencoded")))
    {
        let mut url = Url::parse("http://form.invalid/").map_err(|why| bad_request(why.to_string()))?;
        add_query(&mut url, form);
        return Ok(Some(url.query().unwrap_or_default().as_bytes().to_vec()));
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    serde_json::to_vec(body).map(Some).map_err(|why| bad_request(format!("`body`: {why}")))
}

/// Whether a content type is JSON: `application/json`, `application/problem+json`, …
pub(super) fn is_json_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

fn secret_headers(call: &Call) -> BTreeSet<String> {
    let named = call.secrets.keys().filter_map(|pointer| pointer.strip_prefix("/headers/"));
    let mut names: BTreeSet<String> =
        named.map(|name| name.replace("~1", "/").replace("~0", "~").to_ascii_lowercase()).collect();
    names.insert(AUTHORIZATION.as_str().to_owned());
    names
}

/// The request as it may be shown: of what is secret, neither value nor place.
fn shown(
    call: &Call,
    request: &Value,
    method: &Method,
    headers: &HeaderMap,
    secret: &BTreeSet<String>,
) -> Value {
    let open = |name: &str| {
        let mut value = request.get(name).cloned().unwrap_or_default();
        let inside = format!("/{name}");
        for pointer in call.secrets.keys().filter_map(|pointer| pointer.strip_prefix(&inside)) {
            if let Some(place) = value.pointer_mut(pointer) {
                *place = Value::Null;
            }
        }
        value
    };
    let uri = open("uri").as_str().and_then(|uri| Url::parse(uri).ok()).map(|mut url| {
        if let Some(query) = open("query").as_object() {
            add_query(&mut url, query);
        }
        let _ = url.set_password(None);
        Value::String(url.into())
    });
    let headers = headers.iter().filter(|(name, _)| !secret.contains(name.as_str())).map(|(name, value)| {
        (name.as_str().to_owned(), Value::from(String::from_utf8_lossy(value.as_bytes())))
    });
    json!({"method": method.as_str(), "uri": uri, "headers": headers.collect::<Map<String, Value>>()})
}
