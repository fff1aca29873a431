//! Makes the hashes of an exported file right again after a change, as one who forges would: so
//! that a fuzzer gets past them, to what is judged behind. It never looks at what events mean.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use foldback::core::Hash;
use foldback::core::hash::Link;
use serde_json::{Map, Value, json};

/// Renamings at most: each costs a search through each event.
const RENAMED_MAX: usize = 32;

/// The file with versions counted anew and every hash as its content wants it. Lines that are no
/// objects are left out. `None` where the first two lines are not what they must be.
pub fn mended(file: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(file).ok()?;
    let mut lines: Vec<Map<String, Value>> =
        text.split('\n').filter_map(|line| serde_json::from_str(line).ok()).collect();
    if lines.len() < 3 || !lines[0].contains_key("foldback_export") {
        return None;
    }
    let mut renamed: Vec<(String, String)> = Vec::new();
    for line in &mut lines {
        if let Some(Value::String(canonical)) = line.get("canonical") {
            let hash = Hash::of_bytes(canonical.as_bytes()).to_hex();
            rename(line, "definition", &hash, &mut renamed);
        }
    }
    for at in 0..lines.len() - 1 {
        if lines[at].contains_key("foldback_export") {
            let definition = lines[at + 1].get("definition")?.clone();
            lines[at].insert("definition".into(), definition);
            // Who leaves it out wants that judged.
            if lines[at].get("input_hash").is_some_and(|hash| !hash.is_null())
                && let Some(hash) = input_hash(&lines[at..])
            {
                lines[at].insert("input_hash".into(), json!(hash.to_hex()));
            }
        }
    }

    let (mut workflow_id, mut tenant) = (String::new(), String::new());
    let (mut version, mut payloads, mut chain, mut seal) = (0u64, 0u64, Hash::ZERO, Hash::ZERO);
    // Of the document before: a fork hangs on it.
    let mut hashes: BTreeMap<u64, Hash> = BTreeMap::new();
    let mut out = Vec::new();
    for line in &mut lines {
        if line.contains_key("foldback_export") {
            workflow_id = line.get("workflow_id")?.as_str()?.to_owned();
            tenant = line.get("tenant")?.as_str()?.to_owned();
            (version, payloads, chain, seal) = (0, 0, Hash::ZERO, Hash::ZERO);
            if let Some(Value::Object(lineage)) = line.get_mut("lineage") {
                version = lineage.get("cut")?.as_u64()?;
                chain = hashes.get(&version).copied().unwrap_or(Hash::ZERO);
                rename(lineage, "cut_hash", &chain.to_hex(), &mut renamed);
            }
            // What lies up to the cut is shared.
            hashes.retain(|at, _| *at <= version);
        } else if line.contains_key("event") {
            version = version.checked_add(1)?;
            line.insert("event".into(), json!(version));
            chain = chained(line, chain, (&workflow_id, &tenant, version), &renamed)?;
            hashes.insert(version, chain);
        } else if line.contains_key("payload") {
            payloads += 1;
            let bytes = match (line.get("text"), line.get("base64")) {
                (Some(Value::String(text)), None) => Some(text.clone().into_bytes()),
                (None, Some(Value::String(coded))) => STANDARD.decode(coded).ok(),
                _ => None,
            };
            // An erased value has no bytes that could be hashed.
            if let Some(bytes) = bytes {
                rename(line, "payload", &Hash::of_bytes(&bytes).to_hex(), &mut renamed);
            }
        } else if line.contains_key("end") {
            line.insert("end".into(), json!(version));
            line.insert("payloads".into(), json!(payloads));
            line.insert("chain".into(), json!(chain.to_hex()));
            line.insert("lines".into(), json!(seal.to_hex()));
        }
        let text = serde_json::to_vec(line).ok()?;
        seal = Hash::of_parts(&[&seal.0, &text]);
        out.extend_from_slice(&text);
        out.push(b'\n');
    }
    Some(out)
}

/// The hash of the input that the first event of a document brings, where it is at hand.
fn input_hash(document: &[Map<String, Value>]) -> Option<Hash> {
    let first = document.iter().find(|line| line.contains_key("event"))?;
    let payload: Value = serde_json::from_str(first.get("payload")?.as_str()?).ok()?;
    let slot = payload.get("input").or_else(|| payload["changes"].get("input"))?;
    if let Some(value) = slot.get("inline") {
        return Some(Hash::of_json(value));
    }
    let is_it = |line: &&Map<String, Value>| line.get("payload") == slot.get("ref");
    let text = document.iter().find(is_it)?.get("text")?.as_str()?;
    serde_json::from_str(text).ok().map(|value: Value| Hash::of_json(&value))
}

/// Gives a line its true hash, and remembers the one it had.
fn rename(line: &mut Map<String, Value>, name: &str, hash: &str, renamed: &mut Vec<(String, String)>) {
    if let Some(Value::String(before)) = line.insert(name.to_owned(), json!(hash))
        && before != hash
        && before.len() >= 16
        && renamed.len() < RENAMED_MAX
    {
        renamed.push((before, hash.to_owned()));
    }
}

/// An event's hashes, as they follow from the event before it.
fn chained(
    line: &mut Map<String, Value>,
    previous: Hash,
    (workflow_id, tenant, version): (&str, &str, u64),
    renamed: &[(String, String)],
) -> Option<Hash> {
    let mut payload = line.get("payload")?.as_str()?.to_owned();
    for (before, after) in renamed {
        if payload.len() < 100_000 {
            payload = payload.replace(before, after);
        }
    }
    let payload_hash = Hash::of_bytes(payload.as_bytes());
    line.insert("payload".into(), json!(payload));
    line.insert("payload_hash".into(), json!(payload_hash.to_hex()));
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    let id = |name: &str| {
        let digits = text(name).replace('-', "");
        let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        (0..16).map(|i| byte(2 * i)).collect::<Option<Vec<u8>>>()
    };
    let hash = Link {
        previous: &previous,
        workflow_id,
        version,
        id: &id("id")?.try_into().ok()?,
        event_type: text("type"),
        schema_version: line.get("schema_version")?.as_u64()? as u32,
        timestamp: line.get("timestamp")?.as_i64()?,
        causation_id: &id("causation_id").unwrap_or_default(),
        correlation_id: &id("correlation_id").unwrap_or_default(),
        actor: text("actor"),
        tenant,
        codec: text("codec"),
        key_id: text("key_id"),
        payload_hash: &payload_hash,
    }
    .hash();
    line.insert("hash".into(), json!(hash.to_hex()));
    Some(hash)
}
