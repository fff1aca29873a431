//! Looking at JSON without making the value: small bytes may be large in memory.

use serde::de::{MapAccess, SeqAccess, Visitor};

/// Whether these bytes are JSON that a reader of the log can read, without making the value: small
/// bytes may be large in memory.
pub fn whole_json(bytes: &[u8]) -> Result<(), String> {
    foldback_core::json::numbers_fit(bytes).map_err(|error| error.to_string())?;
    serde_json::from_slice::<Looked>(bytes).map(|_| ()).map_err(|error| error.to_string())
}

/// Any JSON value, looked at and let go. Unlike serde's own `IgnoredAny` it is as strict as a reader:
/// about nesting, numbers and texts.
struct Looked;

impl<'de> serde::Deserialize<'de> for Looked {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Looked, D::Error> {
        from.deserialize_any(Looked)
    }
}

impl<'de> Visitor<'de> for Looked {
    type Value = Looked;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Looked, A::Error> {
        while items.next_element::<Looked>()?.is_some() {}
        Ok(Looked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Looked, A::Error> {
        let mut names = std::collections::BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value::<Looked>()?;
            if let Some(twice) = names.replace(name) {
                return Err(serde::de::Error::custom(format!(
                    "the member {twice:?} stands twice in one object"
                )));
            }
        }
        Ok(Looked)
    }
}
