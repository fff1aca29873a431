//! Reading of `emit`: the event that a task records, as the specification's CloudEvent.

use foldback_core::event::ENGINE_TYPES;

use super::Reader;
use super::value::{Allow, inside};
use crate::template::Template;
use crate::tree::Node;

/// Attributes of a CloudEvent that are texts. `data` and extensions may be anything.
pub(crate) const TEXTS: [&str; 8] =
    ["id", "source", "specversion", "type", "time", "subject", "datacontenttype", "dataschema"];

impl Reader<'_> {
    pub(super) fn emit(&mut self, own: &Node) -> Option<Template> {
        self.map(own, "`emit`")?;
        self.only(own, "`emit`", &["event"]);
        let event = self.required(own, "`emit`", "event")?;
        self.map(event, "`event`")?;
        self.only(event, "`event`", &["with"]);
        let with = self.required(event, "`event`", "with")?;
        self.map(with, "`with`")?;
        for name in TEXTS {
            if let Some(node) = with.get(name) {
                self.text(node, &format!("`{name}`"))?;
            }
        }
        let event_type = self.required(with, "an event", "type")?;
        if let Some(text) = event_type.as_str().filter(|text| inside(text).is_none())
            && (text.is_empty() || ENGINE_TYPES.contains(&text))
        {
            self.report.hinted(
                event_type,
                format!("`{text}` cannot be the type of an event: it is empty or the engine's own"),
                "name what happened in your domain: com.example.order.placed",
            );
        }
        Some(self.template(with, Allow::Expressions))
    }
}
