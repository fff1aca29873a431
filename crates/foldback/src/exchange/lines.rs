//! The lines of an exported file, as data. The first field of a line names its kind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use foldback_core::value::Payload;
use foldback_core::{EventId, Hash, Lineage, Micros, Version};
use foldback_store::{Definition, NewEvent, Recorded, Tombstone, WorkflowRow};
use serde::{Deserialize, Serialize};

/// The version of the format that is written and read.
pub const FORMAT: u32 = 1;

/// The first line of a document: what is in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub foldback_export: u32,
    pub workflow_id: String,
    pub tenant: String,
    pub name: String,
    pub definition: Hash,
    pub input_hash: Option<Hash>,
    /// Where a fork comes from: behind this cut stand its own events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

impl Header {
    pub fn of(row: &WorkflowRow, definition: Hash) -> Header {
        Header {
            foldback_export: FORMAT,
            workflow_id: row.workflow_id.to_string(),
            tenant: row.tenant.clone(),
            name: row.name.clone(),
            definition,
            input_hash: row.input_hash,
            lineage: row.parent.clone().map(|(parent, cut, cut_hash)| Lineage { parent, cut, cut_hash }),
        }
    }
}

/// A definition: the second line, and before an event that is the first to follow another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionLine {
    pub definition: Hash,
    pub kind: String,
    pub name: String,
    pub canonical: String,
    pub source: String,
}

impl From<Definition> for DefinitionLine {
    fn from(d: Definition) -> DefinitionLine {
        DefinitionLine {
            definition: d.hash,
            kind: d.kind,
            name: d.name,
            canonical: d.canonical,
            source: d.source,
        }
    }
}

impl From<DefinitionLine> for Definition {
    fn from(d: DefinitionLine) -> Definition {
        Definition {
            hash: d.definition,
            kind: d.kind,
            name: d.name,
            canonical: d.canonical,
            source: d.source,
        }
    }
}

/// A value beside the log: text where it is UTF-8, else base64.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadLine {
    pub payload: Hash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// An erased value has this in place of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<Erased>,
}

/// What is known of a value that was erased.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erased {
    pub bytes: u64,
    pub at: Micros,
    pub actor: String,
    pub reason: String,
}

/// A value, or what stands in its place.
#[derive(PartialEq)]
pub enum Value {
    There(Payload),
    Erased(Tombstone),
}

impl From<Payload> for PayloadLine {
    fn from(payload: Payload) -> PayloadLine {
        let (text, base64) = match String::from_utf8(payload.bytes) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        PayloadLine {
            payload: payload.hash,
            media_type: Some(payload.media_type),
            text,
            base64,
            erased: None,
        }
    }
}

impl From<Tombstone> for PayloadLine {
    fn from(tombstone: Tombstone) -> PayloadLine {
        let Tombstone { hash, media_type, bytes, at, actor, reason } = tombstone;
        PayloadLine {
            payload: hash,
            media_type: Some(media_type),
            text: None,
            base64: None,
            erased: Some(Erased { bytes, at, actor, reason }),
        }
    }
}

impl PayloadLine {
    pub fn into_value(self) -> Result<Value, String> {
        let media_type = self.media_type.ok_or("its `media_type` is missing")?;
        if let Some(Erased { bytes, at, actor, reason }) = self.erased {
            if self.text.is_some() || self.base64.is_some() {
                return Err("it was erased, and yet its bytes stand there".into());
            }
            return Ok(Value::Erased(Tombstone { hash: self.payload, media_type, bytes, at, actor, reason }));
        }
        let bytes = match (self.text, self.base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(coded)) => {
                let bytes = STANDARD.decode(coded).map_err(|e| format!("its base64 is broken: {e}"))?;
                if std::str::from_utf8(&bytes).is_ok() {
                    return Err("it is text and written as base64".into());
                }
                bytes
            }
            _ => return Err("it needs either `text` or `base64`".into()),
        };
        if Hash::of_bytes(&bytes) != self.payload {
            return Err("its bytes do not match its hash".into());
        }
        Ok(Value::There(Payload { hash: self.payload, media_type, bytes }))
    }
}

/// An event with its whole envelope, the payload as the text that was stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventLine {
    pub event: Version,
    pub id: String,
    pub is_id_supplied: bool,
    #[serde(rename = "type")]
    pub event_type: String,
    pub schema_version: u32,
    pub payload: String,
    pub timestamp: Micros,
    pub causation_id: Option<String>,
    pub correlation_id: Option<String>,
    pub actor: String,
    pub codec: String,
    pub key_id: Option<String>,
    pub payload_hash: Hash,
    pub hash: Hash,
}

impl From<&Recorded> for EventLine {
    fn from(recorded: &Recorded) -> EventLine {
        let event = &recorded.event;
        EventLine {
            event: recorded.version,
            id: event.id.to_string(),
            is_id_supplied: event.is_id_supplied,
            event_type: event.event_type.to_string(),
            schema_version: event.schema_version,
            payload: event.payload.clone(),
            timestamp: event.timestamp,
            causation_id: event.causation_id.map(|id| id.to_string()),
            correlation_id: event.correlation_id.map(|id| id.to_string()),
            actor: event.actor.to_string(),
            codec: event.codec.to_string(),
            key_id: event.key_id.as_deref().map(str::to_owned),
            payload_hash: recorded.payload_hash,
            hash: recorded.hash,
        }
    }
}

impl EventLine {
    /// The event as the log holds it. Its position is the store's to give.
    pub fn into_recorded(self, workflow_id: &str, tenant: &str) -> Result<Recorded, String> {
        Ok(Recorded {
            position: 0,
            workflow_id: workflow_id.into(),
            version: self.event,
            event: NewEvent {
                id: id_of(&self.id)?,
                is_id_supplied: self.is_id_supplied,
                event_type: self.event_type.into(),
                schema_version: self.schema_version,
                payload: self.payload,
                timestamp: self.timestamp,
                causation_id: self.causation_id.as_deref().map(id_of).transpose()?,
                correlation_id: self.correlation_id.as_deref().map(id_of).transpose()?,
                actor: self.actor.into(),
                codec: self.codec.into(),
                key_id: self.key_id.map(Into::into),
            },
            tenant: tenant.into(),
            payload_hash: self.payload_hash,
            hash: self.hash,
        })
    }
}

fn id_of(text: &str) -> Result<EventId, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut bytes = [0; 16];
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    let read: Vec<u8> = pairs.collect::<Option<_>>().unwrap_or_default();
    if read.len() != 16 {
        return Err(format!("{text:?} is no event id"));
    }
    bytes.copy_from_slice(&read);
    let id = EventId(bytes);
    // One spelling alone, so that what is exported again is the same file.
    if id.to_string() == text { Ok(id) } else { Err(format!("{text:?} is no event id")) }
}

/// The last line of a document: a file without it was cut off.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The last version.
    pub end: Version,
    pub payloads: u64,
    /// The chain hash of the last event.
    pub chain: Hash,
    /// The hash over all lines before this one.
    pub lines: Hash,
}

/// The running hash over lines: each takes the one before it in.
#[derive(Clone, Copy)]
pub struct Seal(pub Hash);

impl Seal {
    pub fn new() -> Seal {
        Seal(Hash::ZERO)
    }

    pub fn take(&mut self, line: &[u8]) {
        self.0 = Hash::of_parts(&[&self.0.0, line]);
    }
}
