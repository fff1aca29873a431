//! Values in events: typed slots, never markers inside a person's JSON.
//!
//! A [`Slot`] holds a value inline or by the hash of its stored bytes. Which of the two is
//! settled once, when the fact is made, by the length of its JSON ([`limits::INLINE_MAX_BYTES`]).
//! A slot that is stored may have its value at hand or not; both are the same slot. Pure code
//! never fetches: the engine fills what is missing ([`crate::WorkflowState::missing`]) before a
//! program sees the state.
//!
//! A stored value is its JSON, except that a `data:` URI ([`crate::media`]) is stored as its bytes
//! under its own media type.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::Version;
use crate::hash::Hash;
use crate::limits;
use crate::media;

/// The media type of a value that is JSON.
pub const JSON: &str = "application/json";

/// A value in an event.
#[derive(Clone, Debug)]
pub enum Slot {
    /// The value itself.
    Inline(Arc<Value>),
    /// The hash of its bytes, which lie in `payloads`.
    Stored(StoredRef),
}

/// A value that lies beside the log.
#[derive(Clone, Debug)]
pub struct StoredRef {
    /// The hash of the stored bytes: the payload's address.
    pub hash: Hash,
    /// How many bytes are stored.
    pub bytes: u64,
    /// What the bytes are; [`JSON`] unless said otherwise.
    pub media_type: Option<Arc<str>>,
    /// The value, where it is at hand. Not part of the slot's identity, and never written.
    pub value: Option<Arc<Value>>,
}

impl StoredRef {
    /// Whether what lies there is JSON, as it is unless it says otherwise.
    pub fn is_json(&self) -> bool {
        self.media_type.as_deref().is_none_or(|media_type| media_type == JSON)
    }

    /// The value that the stored bytes stand for: JSON as it is, others as a `data:` URI.
    ///
    /// # Errors
    /// When they should be JSON and are none.
    pub fn read(&self, bytes: &[u8]) -> Result<Value, serde_json::Error> {
        match self.media_type.as_deref() {
            Some(media_type) if !self.is_json() => Ok(Value::String(media::write(media_type, bytes))),
            _ => serde_json::from_slice(bytes),
        }
    }
}

/// What is stored of a value, and as what where it is not JSON.
fn stored_form(value: &Value) -> (Option<&str>, Vec<u8>) {
    match value.as_str().and_then(media::read) {
        // Under the type of JSON these bytes would be read as a value.
        Some((media_type, bytes)) if media_type != JSON => (Some(media_type), bytes),
        _ => (None, serde_json::to_vec(value).expect("a JSON value has a text")),
    }
}

/// A payload to be stored beside the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The hash of `bytes`.
    pub hash: Hash,
    /// What the bytes are.
    pub media_type: String,
    /// The bytes as stored.
    pub bytes: Vec<u8>,
}

impl Slot {
    /// The slot of a value: inline when its JSON is short, else by its hash.
    pub fn of(value: impl Into<Arc<Value>>) -> Slot {
        Slot::bounded(value.into(), limits::INLINE_MAX_BYTES)
    }

    /// The slot of a value with another bound than the usual, in bytes of its JSON.
    pub fn bounded(value: Arc<Value>, inline_max_bytes: usize) -> Slot {
        if is_surely_short(&value) {
            return Slot::Inline(value);
        }
        let (media_type, bytes) = stored_form(&value);
        if bytes.len() <= inline_max_bytes {
            return Slot::Inline(value);
        }
        Slot::stored(media_type.map(Arc::from), &bytes, value.clone())
    }

    /// The slot of a value that may be erased: beside the log however short it is, since only what lies
    /// there can be taken out again. What holds nothing (`null`, nothing in a text, a list or an
    /// object) stays inline.
    pub fn apart(value: Arc<Value>) -> Slot {
        let holds_nothing = match &*value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        if holds_nothing { Slot::Inline(value) } else { Slot::beside(value) }
    }

    /// Puts its value beside the log, as [`Slot::apart`]. What lies there already stays as it is, also where
    /// its value is not at hand.
    pub fn set_apart(&mut self) {
        if let Slot::Inline(value) = self {
            *self = Slot::apart(value.clone());
        }
    }

    fn beside(value: Arc<Value>) -> Slot {
        let (media_type, bytes) = stored_form(&value);
        Slot::stored(media_type.map(Arc::from), &bytes, value.clone())
    }

    fn stored(media_type: Option<Arc<str>>, bytes: &[u8], value: Arc<Value>) -> Slot {
        let (hash, bytes) = (Hash::of_bytes(bytes), bytes.len() as u64);
        Slot::Stored(StoredRef { hash, bytes, media_type, value: Some(value) })
    }

    /// The slot of `null`.
    pub fn null() -> Slot {
        Slot::Inline(Arc::new(Value::Null))
    }

    /// The value, where it is at hand.
    pub fn value(&self) -> Option<&Arc<Value>> {
        match self {
            Slot::Inline(value) => Some(value),
            Slot::Stored(stored) => stored.value.as_ref(),
        }
    }

    /// The value; `null` where it is not at hand. Use it only on a hydrated state.
    pub fn get(&self) -> Arc<Value> {
        self.value().cloned().unwrap_or_default()
    }

    /// How many bytes the value takes in the log, or beside it.
    pub fn bytes(&self) -> u64 {
        match self {
            Slot::Inline(value) => serde_json::to_vec(value).map_or(0, |json| json.len() as u64),
            Slot::Stored(stored) => stored.bytes,
        }
    }

    /// The payload that this slot needs beside the log, when it is stored and at hand.
    pub fn payload(&self) -> Option<Payload> {
        match self {
            Slot::Stored(StoredRef { hash, media_type, value: Some(value), .. }) => Some(Payload {
                hash: *hash,
                media_type: media_type.as_deref().unwrap_or(JSON).to_owned(),
                bytes: stored_form(value).1,
            }),
            _ => None,
        }
    }
}

/// Whether a value nests deeper than [`limits::VALUE_DEPTH_MAX`], so that no event may hold it.
pub fn is_too_deep(value: &Value) -> bool {
    nests_deeper(value, limits::VALUE_DEPTH_MAX)
}

fn nests_deeper(value: &Value, most: usize) -> bool {
    match value {
        Value::Array(items) => most == 0 || items.iter().any(|item| nests_deeper(item, most - 1)),
        Value::Object(map) => most == 0 || map.values().any(|item| nests_deeper(item, most - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Scalars and empty containers need no measuring.
fn is_surely_short(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() < limits::INLINE_MAX_BYTES / 8,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Slot) -> bool {
        match (self, other) {
            (Slot::Inline(a), Slot::Inline(b)) => a == b,
            (Slot::Stored(a), Slot::Stored(b)) => {
                a.hash == b.hash && a.bytes == b.bytes && a.media_type == b.media_type
            }
            _ => false,
        }
    }
}

impl From<Value> for Slot {
    fn from(value: Value) -> Slot {
        Slot::of(value)
    }
}

/// One part of a request: a value, or a list of values each stored on its own (the messages of a
/// chat, the schemas of its tools), so that what two requests share is stored once.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// One value.
    One(Slot),
    /// A list of values, each a slot of its own.
    Many(Vec<Slot>),
    /// A list that goes on from one that was asked with before, as an event holds it: see
    /// [`crate::lists`].
    Grown {
        /// The version of the ask whose list it goes on from.
        before: Version,
        /// How many of that list's items it begins with.
        first: u64,
        /// The items behind them.
        more: Vec<Slot>,
    },
}

/// What a step asks of the world, as data: named parts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Request {
    /// The parts by name.
    pub parts: BTreeMap<String, Part>,
}

impl Request {
    /// A request from a JSON object, each member one part; `lists` names the members that are
    /// lists of values stored on their own.
    ///
    /// A value that is no object becomes the single part `value`.
    pub fn from_json(value: Value, lists: &[&str]) -> Request {
        let Value::Object(map) = value else {
            return Request { parts: BTreeMap::from([("value".into(), Part::One(Slot::of(value)))]) };
        };
        if map.len() == 1 && map.contains_key("") {
            // In parts it would read as a whole one.
            return Request::whole(Value::Object(map));
        }
        let part = |(name, value): (String, Value)| match value {
            Value::Array(items) if lists.contains(&name.as_str()) => {
                (name, Part::Many(items.into_iter().map(|v| Slot::bounded(Arc::new(v), 64)).collect()))
            }
            value => (name, Part::One(Slot::of(value))),
        };
        Request { parts: map.into_iter().map(part).collect() }
    }

    /// A request that may be erased: one value beside the log, under the empty name. In parts, its
    /// small ones (`"GET"`) would be shared with every other such request, and erased with them.
    pub fn whole(value: Value) -> Request {
        Request { parts: BTreeMap::from([(String::new(), Part::One(Slot::apart(Arc::new(value))))]) }
    }

    /// A member that is a text; `None` where there is none, or its value is not at hand.
    pub fn text(&self, name: &str) -> Option<Arc<str>> {
        let text = |value: &Value| value.as_str().map(Arc::from);
        match (self.parts.get(name), self.whole_slot()) {
            (Some(Part::One(slot)), _) => slot.value().and_then(|value| text(value)),
            (None, Some(whole)) => whole.value().and_then(|value| text(value.get(name)?)),
            (Some(Part::Many(_) | Part::Grown { .. }) | None, _) => None,
        }
    }

    /// The slot of a [`Request::whole`].
    fn whole_slot(&self) -> Option<&Slot> {
        match self.parts.first_key_value() {
            Some((name, Part::One(slot))) if name.is_empty() && self.parts.len() == 1 => Some(slot),
            _ => None,
        }
    }

    /// The request as one JSON object. Parts that are not at hand read `null`.
    pub fn to_json(&self) -> Value {
        if let Some(slot) = self.whole_slot() {
            return (*slot.get()).clone();
        }
        let value = |part: &Part| match part {
            Part::One(slot) => (*slot.get()).clone(),
            Part::Many(slots) => Value::Array(slots.iter().map(|s| (*s.get()).clone()).collect()),
            Part::Grown { before, first, more } => {
                let more: Vec<Value> = more.iter().map(|s| (*s.get()).clone()).collect();
                json!({"before": before, "first": first, "more": more})
            }
        };
        Value::Object(self.parts.iter().map(|(name, part)| (name.clone(), value(part))).collect())
    }

    /// Every slot of the request.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.parts.values().flat_map(|part| match part {
            Part::One(slot) => std::slice::from_ref(slot),
            Part::Many(slots) | Part::Grown { more: slots, .. } => slots.as_slice(),
        })
    }

    /// Every slot of the request, to be filled.
    pub fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.parts.values_mut().flat_map(|part| match part {
            Part::One(slot) => std::slice::from_mut(slot),
            Part::Many(slots) | Part::Grown { more: slots, .. } => slots.as_mut_slice(),
        })
    }
}

/// Written as `{"inline": VALUE}` or `{"ref": HASH, "bytes": N}`, with `media_type` where it is
/// not JSON.
impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        match self {
            Slot::Inline(value) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("inline", &**value)?;
                map.end()
            }
            Slot::Stored(stored) => {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("ref", &stored.hash)?;
                map.serialize_entry("bytes", &stored.bytes)?;
                if let Some(media_type) = &stored.media_type {
                    map.serialize_entry("media_type", &**media_type)?;
                }
                map.end()
            }
        }
    }
}

struct SlotVisitor;

impl<'de> Visitor<'de> for SlotVisitor {
    type Value = Slot;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a slot: {\"inline\": …} or {\"ref\": …, \"bytes\": …}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Slot, A::Error> {
        let first = map.next_key::<Member>()?;
        SlotVisitor::read(first, map)
    }
}

/// The name of a member of a slot or a part, from a text that may be borrowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Inline,
    Ref,
    Bytes,
    MediaType,
    Before,
    First,
    More,
}

const MEMBERS: &[&str] = &["inline", "ref", "bytes", "media_type", "before", "first", "more"];

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Member, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Member;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member of a slot")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Member, E> {
                Ok(match name {
                    "inline" => Member::Inline,
                    "ref" => Member::Ref,
                    "bytes" => Member::Bytes,
                    "media_type" => Member::MediaType,
                    "before" => Member::Before,
                    "first" => Member::First,
                    "more" => Member::More,
                    other => return Err(E::unknown_field(other, MEMBERS)),
                })
            }
        }
        deserializer.deserialize_identifier(Name)
    }
}

impl SlotVisitor {
    /// A slot whose first member's name was read already.
    fn read<'de, A: MapAccess<'de>>(first: Option<Member>, mut map: A) -> Result<Slot, A::Error> {
        let (mut hash, mut bytes, mut media_type) = (None, 0, None);
        let mut next = first;
        while let Some(name) = next {
            match name {
                Member::Inline => {
                    let value = Slot::Inline(map.next_value()?);
                    return match map.next_key::<Member>()? {
                        None => Ok(value),
                        Some(_) => Err(de::Error::custom("nothing stands beside `inline`")),
                    };
                }
                Member::Ref => hash = Some(map.next_value()?),
                Member::Bytes => bytes = map.next_value()?,
                Member::MediaType => media_type = Some(map.next_value()?),
                Member::Before | Member::First | Member::More => {
                    return Err(de::Error::custom("a list that goes on from another is no slot"));
                }
            }
            next = map.next_key::<Member>()?;
        }
        let hash = hash.ok_or_else(|| de::Error::missing_field("ref"))?;
        Ok(Slot::Stored(StoredRef { hash, bytes, media_type, value: None }))
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Slot, D::Error> {
        deserializer.deserialize_map(SlotVisitor)
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Part::One(slot) => slot.serialize(serializer),
            Part::Many(slots) => slots.serialize(serializer),
            Part::Grown { before, first, more } => {
                use serde::ser::SerializeMap;
                let mut map = serializer.serialize_map(Some(3))?;
                map.serialize_entry("before", before)?;
                map.serialize_entry("first", first)?;
                map.serialize_entry("more", more)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Part, D::Error> {
        struct PartVisitor;
        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Part;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a slot, a list of slots, or a list that goes on from another")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
                let name = map.next_key::<Member>()?;
                if name != Some(Member::Before) {
                    return SlotVisitor::read(name, map).map(Part::One);
                }
                let before = map.next_value()?;
                let (mut first, mut more) = (None, None);
                while let Some(name) = map.next_key::<Member>()? {
                    match name {
                        Member::First => first = Some(map.next_value()?),
                        Member::More => more = Some(map.next_value()?),
                        _ => return Err(de::Error::custom("`before` has `first` and `more` beside it")),
                    }
                }
                let first = first.ok_or_else(|| de::Error::missing_field("first"))?;
                let more = more.ok_or_else(|| de::Error::missing_field("more"))?;
                Ok(Part::Grown { before, first, more })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Part, A::Error> {
                let mut slots = Vec::new();
                while let Some(slot) = seq.next_element()? {
                    slots.push(slot);
                }
                Ok(Part::Many(slots))
            }
        }
        deserializer.deserialize_any(PartVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_never_confused_with_what_a_person_wrote() {
        // A person's value that looks like a reference stays a value.
        let slot = Slot::of(json!({"ref": "x", "bytes": 1}));
        let text = serde_json::to_string(&slot).unwrap();
        assert_eq!(text, r#"{"inline":{"ref":"x","bytes":1}}"#);
        assert_eq!(serde_json::from_str::<Slot>(&text).unwrap(), slot);
        assert!(serde_json::from_str::<Slot>(r#"{"inline":1,"ref":"x"}"#).is_err());
        assert!(serde_json::from_str::<Slot>(r#"{"bytes":1}"#).is_err());
    }

    #[test]
    fn a_slot_is_read_from_a_text_and_from_a_value() {
        let slots = [
            Slot::of(json!({"ref": 1})),
            Slot::Stored(StoredRef { hash: Hash::ZERO, bytes: 3, media_type: None, value: None }),
        ];
        for slot in slots {
            let value = serde_json::to_value(&slot).unwrap();
            assert_eq!(serde_json::from_value::<Slot>(value).unwrap(), slot);
            let part = Part::Grown { before: 3, first: 9, more: vec![slot] };
            let value = serde_json::to_value(&part).unwrap();
            assert_eq!(serde_json::from_value::<Part>(value.clone()).unwrap(), part);
            assert_eq!(serde_json::from_str::<Part>(&value.to_string()).unwrap(), part);
        }
        assert!(serde_json::from_str::<Part>(r#"{"before":1,"first":2}"#).is_err());
        assert!(serde_json::from_str::<Part>(r#"{"first":2,"before":1,"more":[]}"#).is_err());
    }

    #[test]
    fn a_long_value_is_stored_once_by_its_hash() {
        let value = json!("x".repeat(limits::INLINE_MAX_BYTES + 1));
        let slot = Slot::of(value.clone());
        let payload = slot.payload().expect("stored");
        assert_eq!(payload.hash, Hash::of_bytes(&payload.bytes));
        let text = serde_json::to_string(&slot).unwrap();
        assert!(text.len() < 120, "{text}");
        let back: Slot = serde_json::from_str(&text).unwrap();
        assert_eq!(back, slot, "a slot without its value at hand is the same slot");
        assert_eq!(back.value(), None);
        assert_eq!(*slot.get(), value);
    }

    #[test]
    fn an_image_is_stored_as_its_bytes() {
        let pixels: Vec<u8> = (0..3_000u32).map(|i| (i * 31) as u8).collect();
        let image = json!(media::write("image/png", &pixels));
        for slot in [Slot::of(image.clone()), Slot::apart(Arc::new(image.clone()))] {
            let payload = slot.payload().expect("stored");
            assert_eq!((payload.media_type.as_str(), &payload.bytes), ("image/png", &pixels));
            assert_eq!(payload.hash, Hash::of_bytes(&pixels));
            let back: Slot = serde_json::from_str(&serde_json::to_string(&slot).unwrap()).unwrap();
            assert_eq!(back, slot);
            let Slot::Stored(stored) = back else { panic!("it was stored") };
            assert_eq!(stored.read(&payload.bytes).unwrap(), image);
        }
        // What says that it is JSON, and is spelled as bytes, stays the text it was.
        let odd = json!(media::write(JSON, &pixels));
        let slot = Slot::of(odd.clone());
        let (Slot::Stored(stored), Some(payload)) = (&slot, slot.payload()) else { panic!("it is stored") };
        assert_eq!((stored.read(&payload.bytes).unwrap(), stored.media_type.clone()), (odd, None));
    }

    #[test]
    fn a_request_that_may_be_erased_is_one_value_and_reads_the_same() {
        let requests = [json!({"method": "GET", "a": [1]}), json!({"": 1}), json!({"": {"": []}}), json!(7)];
        for request in requests {
            let whole = Request::whole(request.clone());
            assert_eq!(whole.slots().filter_map(Slot::payload).count(), 1, "{request}");
            assert_eq!(whole.to_json(), request);
        }
        let odd = json!({"": [1, 2]});
        assert_eq!(Request::from_json(odd.clone(), &[]).to_json(), odd);
    }

    #[test]
    fn what_may_be_erased_lies_beside_the_log_unless_it_holds_nothing() {
        for (value, lies_beside) in [
            (json!(null), false),
            (json!(""), false),
            (json!([]), false),
            (json!({}), false),
            (json!(false), true),
            (json!(0), true),
            (json!("x"), true),
            (json!([null]), true),
        ] {
            let slot = Slot::apart(Arc::new(value.clone()));
            assert_eq!(matches!(slot, Slot::Stored(_)), lies_beside, "{value}");
            assert_eq!(*slot.get(), value);
        }
    }

    #[test]
    fn messages_of_a_chat_are_slots_of_their_own() {
        let long = "m".repeat(100);
        let request = json!({"model": "a/b", "messages": [{"role": "user", "content": long}, "hi"]});
        let typed = Request::from_json(request.clone(), &["messages"]);
        assert_eq!(typed.slots().filter_map(Slot::payload).count(), 1);
        let text = serde_json::to_string(&typed).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), typed);
        assert_eq!(Hash::of_json(&typed.to_json()), Hash::of_json(&request));
    }
}
