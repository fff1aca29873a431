//! Hashes: of stored bytes, of JSON values, and the chain that ties a log together.
//!
//! Every hash is BLAKE3 over *length-framed* parts, so that no two different lists of parts can
//! hash alike by moving a boundary. What is hashed is what was written; an upcast on read never
//! changes a hash.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// 32 bytes of BLAKE3, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first event of a workflow without a parent chains to.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The hash of these bytes alone: the address of a payload.
    pub fn of_bytes(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }

    /// The hash of a list of parts, each framed by its length (u64, little-endian).
    ///
    /// ```
    /// use foldback_core::Hash;
    /// assert_ne!(Hash::of_parts(&[b"ab", b"c"]), Hash::of_parts(&[b"a", b"bc"]));
    /// ```
    pub fn of_parts(parts: &[&[u8]]) -> Hash {
        // One buffer and one call: for the few hundred bytes of an event this is twice as fast
        // as feeding a hasher part by part. Most fit the stack.
        let mut small = [0u8; 512];
        let length = parts.iter().map(|part| part.len() + 8).sum();
        if length > small.len() {
            let mut framed = vec![0; length];
            frame(parts, &mut framed);
            return Hash::of_bytes(&framed);
        }
        frame(parts, &mut small);
        Hash::of_bytes(&small[..length])
    }

    /// The hash of a JSON value in canonical form: object keys sorted, no white space. Two values
    /// that differ only in the order of their keys hash alike.
    pub fn of_json(value: &Value) -> Hash {
        let mut bytes = Vec::with_capacity(128);
        write_canonical(value, &mut bytes);
        Hash::of_bytes(&bytes)
    }

    /// The hash as 64 hex digits.
    pub fn to_hex(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            text.push(DIGITS[(byte >> 4) as usize] as char);
            text.push(DIGITS[(byte & 15) as usize] as char);
        }
        text
    }
}

/// Each part behind its length.
fn frame(parts: &[&[u8]], framed: &mut [u8]) {
    let mut at = 0;
    for part in parts {
        framed[at..at + 8].copy_from_slice(&(part.len() as u64).to_le_bytes());
        framed[at + 8..at + 8 + part.len()].copy_from_slice(part);
        at += 8 + part.len();
    }
}

/// The canonical JSON of a value: object keys sorted by their bytes, no white space.
pub fn canonical_json(value: &Value) -> String {
    let mut bytes = Vec::with_capacity(128);
    write_canonical(value, &mut bytes);
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push(b'{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, key).expect("a Vec takes every byte");
                out.push(b':');
                write_canonical(&map[key], out);
            }
            out.push(b'}');
        }
        leaf => serde_json::to_writer(out, leaf).expect("a Vec takes every byte"),
    }
}

/// The parts of an event that its chain hash covers, in the order in which they are framed.
///
/// Position, shard and epoch are not among them, so a log can be copied to another place and
/// still verifies. The payload enters by the hash of its stored bytes, so it can be erased.
pub struct Link<'a> {
    /// The hash of the event before, [`Hash::ZERO`] for the first, the parent's for a fork's.
    pub previous: &'a Hash,
    /// The text id of the workflow.
    pub workflow_id: &'a str,
    /// The event's version.
    pub version: u64,
    /// The event's id, 16 bytes.
    pub id: &'a [u8; 16],
    /// The event's type, such as `StepCompleted`.
    pub event_type: &'a str,
    /// The version of the type's shape.
    pub schema_version: u32,
    /// Microseconds since 1970.
    pub timestamp: i64,
    /// The stimulus that caused this event; empty bytes for none.
    pub causation_id: &'a [u8],
    /// What ties events of several workflows together; empty bytes for none.
    pub correlation_id: &'a [u8],
    /// Who wrote it.
    pub actor: &'a str,
    /// Whose it is.
    pub tenant: &'a str,
    /// How the payload is coded, `json`.
    pub codec: &'a str,
    /// The key that sealed the payload; empty for none.
    pub key_id: &'a str,
    /// The hash of the payload as stored.
    pub payload_hash: &'a Hash,
}

impl Link<'_> {
    /// The chain hash of the event.
    pub fn hash(&self) -> Hash {
        Hash::of_parts(&[
            &self.previous.0,
            self.workflow_id.as_bytes(),
            &self.version.to_le_bytes(),
            self.id,
            self.event_type.as_bytes(),
            &self.schema_version.to_le_bytes(),
            &self.timestamp.to_le_bytes(),
            self.causation_id,
            self.correlation_id,
            self.actor.as_bytes(),
            self.tenant.as_bytes(),
            self.codec.as_bytes(),
            self.key_id.as_bytes(),
            &self.payload_hash.0,
        ])
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex()[..12])
    }
}

/// A text that is not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAHash;

impl fmt::Display for NotAHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hash is 64 hex digits")
    }
}

impl std::error::Error for NotAHash {}

impl FromStr for Hash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Hash, NotAHash> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotAHash);
        }
        let mut bytes = [0u8; 32];
        for (i, pair) in digits.chunks_exact(2).enumerate() {
            bytes[i] = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Hash(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, NotAHash> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NotAHash),
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        struct Hex;
        impl de::Visitor<'_> for Hex {
            type Value = Hash;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 hex digits")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hash, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_hash_reads_back_what_it_writes() {
        let hash = Hash::of_bytes(b"foldback");
        assert_eq!(hash.to_hex().parse(), Ok(hash));
        assert_eq!("zz".parse::<Hash>(), Err(NotAHash));
        assert_eq!("Z".repeat(64).parse::<Hash>(), Err(NotAHash));
    }

    #[test]
    fn json_hashes_by_meaning_not_by_the_order_of_keys() {
        assert_eq!(
            Hash::of_json(&json!({"a": 1, "b": [{"x": 1, "y": 2}]})),
            Hash::of_json(&json!({"b": [{"y": 2, "x": 1}], "a": 1}))
        );
        assert_ne!(Hash::of_json(&json!([1, 2])), Hash::of_json(&json!([2, 1])));
        assert_eq!(canonical_json(&json!({"b": 1, "a": "ü\n"})), r#"{"a":"ü\n","b":1}"#);
    }
}
