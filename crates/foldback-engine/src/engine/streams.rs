//! Streams: logs of domain events that are no workflow, and domain events in one that is. Who appends
//! says where it expects the log to be; where it is not, the answer says where it is.

use std::sync::Arc;

use foldback_core::value::{Slot, is_too_deep};
use foldback_core::{Fact, Status, limits};
use foldback_store::{Append, Commit, Expected, NewEvent};
use serde_json::Value;

use super::{Engine, ReplyTo};
use crate::command::{Accepted, Expect, Refusal, Start};

/// Heads of streams kept in memory. Past it all are let go, when nothing is under way.
const STREAMS_KEPT: usize = 65_536;

impl Engine {
    pub(super) fn append(
        &mut self,
        id: &Arc<str>,
        expected: Expect,
        events: Vec<(Arc<str>, Value)>,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        let row = self.row(id)?;
        if row.is_none() {
            Start::check_id(id)?;
        }
        if let Some((event_type, _)) = events.iter().find(|(event_type, _)| !is_domain_type(event_type)) {
            return Err(Refusal::new(
                format!("`{event_type}` is a type of the engine's own"),
                "name a domain event for what happened in your domain, such as CONTENT_GENERATED",
            ));
        }
        if events.iter().any(|(_, data)| is_too_deep(data)) {
            let most = limits::VALUE_DEPTH_MAX;
            return Err(Refusal::new(format!("the data nests deeper than {most} levels"), "flatten it"));
        }
        if row.as_ref().is_some_and(|row| row.definition.is_some()) {
            return self.record_all(id, expected, events, actor, from);
        }
        let head = self.streams.get(id).copied().or(row.map(|row| row.version)).unwrap_or(0);
        if !expected.holds(head) {
            return Err(conflict(id, head));
        }
        let last = head + events.len() as u64;
        let answer = Ok(Accepted { status: Status::Running, attached: head > 0, version: Some(last) });
        if events.is_empty() {
            self.reply(id, from.clone(), answer);
            return Ok(true);
        }
        let mut commit = self.appending(id, head, events, actor);
        if let ReplyTo::Inbox(command) = from {
            commit.consumed.push((command.clone(), serde_json::to_value(&answer).unwrap_or_default()));
        }
        if self.streams.len() >= STREAMS_KEPT && self.under_way == 0 {
            self.streams.clear();
        }
        self.streams.insert(id.clone(), last);
        self.queue(id.clone(), 0, commit, Some((from.clone(), answer)));
        Ok(true)
    }

    fn appending(&mut self, id: &Arc<str>, head: u64, events: Vec<(Arc<str>, Value)>, actor: &str) -> Commit {
        let (now, actor) = (self.clocks().wall, Arc::from(actor));
        let rules = self.around.programs.redaction();
        let mut payloads = Vec::new();
        let mut written = Vec::with_capacity(events.len());
        for (event_type, data) in events {
            let data = Slot::of(rules.value(data));
            payloads.extend(data.payload());
            let fact = Fact::Recorded { event_type: event_type.clone(), key: None, data, handler: None };
            written.push(NewEvent {
                id: self.ids.next(now),
                is_id_supplied: false,
                event_type,
                schema_version: fact.schema_version(),
                payload: fact.encode(),
                timestamp: now,
                causation_id: None,
                correlation_id: None,
                actor: Arc::clone(&actor),
                codec: Arc::from("json"),
                key_id: None,
            });
        }
        let expected = if head == 0 { Expected::NoStream } else { Expected::Exact(head) };
        let append =
            Append { workflow_id: id.clone(), expected, events: written, begins: None, status: None };
        Commit { appends: vec![append], payloads, ..Commit::default() }
    }

    /// In a workflow a domain event is a word to its program too.
    fn record_all(
        &mut self,
        id: &Arc<str>,
        expected: Expect,
        events: Vec<(Arc<str>, Value)>,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        self.take_up(id)?;
        let head = self.live.get(id).map_or(0, |live| live.state.version);
        if !expected.holds(head) {
            return Err(conflict(id, head));
        }
        let mut events = events.into_iter().peekable();
        while let Some((event_type, data)) = events.next() {
            let from = if events.peek().is_none() { from.clone() } else { ReplyTo::Nobody };
            self.record(id, event_type, data, actor, &from)?;
        }
        Ok(true)
    }
}

fn is_domain_type(event_type: &str) -> bool {
    !event_type.is_empty() && !foldback_core::event::ENGINE_TYPES.contains(&event_type)
}

fn conflict(id: &str, actual: u64) -> Refusal {
    let mut refusal = Refusal::new(
        format!("`{id}` is at version {actual}"),
        "read what was appended meanwhile, and decide again",
    );
    refusal.conflict = Some(actual);
    refusal
}
