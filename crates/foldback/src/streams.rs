//! The plain pattern: streams of domain events. Append with versions, replay to a version; nothing of
//! workflows is needed.
//!
//! One process writes at a time. Where another one owns the store, an append is handed to it and its
//! answer waited for; the caller sees no difference.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use foldback_core::{EventId, Fact, Micros, Version};
use foldback_engine::load::{LoadError, events_of};
use foldback_engine::{Command, Registry, Session, SessionError};
use foldback_store::{Store, StoreError};
use serde_json::Value;

use crate::programs::Definitions;

pub use foldback_engine::Expect;

/// A domain event as it was appended.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainEvent {
    /// Its id.
    pub id: EventId,
    /// Its place in its stream, from 1.
    pub version: Version,
    /// When it was written: microseconds since 1970, UTC.
    pub timestamp: Micros,
    /// What happened: `ORDER_PLACED`.
    pub event_type: Arc<str>,
    /// The data of it.
    pub data: Arc<Value>,
}

/// Why events were not appended.
#[derive(Clone, Debug, PartialEq)]
pub enum AppendError {
    /// The stream is not where the caller expected it.
    Conflict {
        /// Its last version; 0 when there is none.
        actual: Version,
    },
    /// What was to be appended cannot be, in words, with what to do instead.
    Refused {
        /// What is wrong.
        message: String,
        /// What to do instead.
        hint: String,
    },
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::Conflict { actual } => write!(f, "the stream is at version {actual}"),
            AppendError::Refused { message, .. } => f.write_str(message),
            AppendError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AppendError {}

/// A store of streams.
pub struct EventStore {
    store: Arc<dyn Store>,
    runtime: tokio::runtime::Runtime,
}

impl EventStore {
    /// Opens a store, or makes one: `sqlite:PATH`, or `memory:`.
    ///
    /// ```
    /// use foldback::streams::{AppendError, EventStore, Expect};
    /// use serde_json::json;
    ///
    /// let store = EventStore::open("memory:")?;
    /// let events = [("ORDER_PLACED", json!({"total": 40})), ("ORDER_PAID", json!({}))];
    /// assert_eq!(store.append("order-1", Expect::NoStream, events)?, 2);
    /// let late = store.append("order-1", Expect::Exact(1), [("ORDER_SHIPPED", json!({}))]);
    /// assert_eq!(late, Err(AppendError::Conflict { actual: 2 }));
    /// let past = store.replay("order-1", Some(1))?;
    /// assert_eq!(&*past[0].event_type, "ORDER_PLACED");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The file is no store, or cannot be opened.
    pub fn open(url: &str) -> Result<EventStore, StoreError> {
        EventStore::of(foldback_store::open(url)?)
    }

    /// The streams of a store that is open already.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn of(store: Arc<dyn Store>) -> Result<EventStore, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let no_thread =
            |e: std::io::Error| StoreError { message: e.to_string(), hint: None, is_input: false };
        Ok(EventStore { store, runtime: runtime.map_err(no_thread)? })
    }

    /// Appends events, all or none, and returns the last version of the stream when they are on disk.
    ///
    /// # Errors
    /// The stream is not where it was expected, an event has no type of its own, or the store failed.
    pub fn append<T: Into<Arc<str>>>(
        &self,
        stream: &str,
        expected: Expect,
        events: impl IntoIterator<Item = (T, Value)>,
    ) -> Result<Version, AppendError> {
        let events = events.into_iter().map(|(event_type, data)| (event_type.into(), data)).collect();
        let command = Command::Append { workflow_id: Arc::from(stream), expected, events };
        let session = Session {
            store: self.store.clone(),
            kinds: Registry::default(),
            programs: Arc::new(Definitions::default()),
            pool: self.runtime.handle().clone(),
            observer: None,
            actor: Arc::from("library"),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let refused = |refusal: foldback_engine::Refusal| match refusal.conflict {
            Some(actual) => AppendError::Conflict { actual },
            None => AppendError::Refused { message: refusal.message, hint: refusal.hint },
        };
        let mut answers = session.answers(vec![command]).map_err(|error| match error {
            SessionError::Store(error) => AppendError::Store(error),
            SessionError::Refused(refusal) => refused(refusal),
        })?;
        let lost = || {
            AppendError::Store(StoreError {
                message: "the append was not answered".into(),
                hint: Some("read the stream: it was written whole, or not at all".into()),
                is_input: false,
            })
        };
        let accepted = answers.pop().ok_or_else(lost)?.map_err(refused)?;
        accepted.version.ok_or_else(lost)
    }

    /// The domain events of a stream, or of a workflow, up to and with a version (all when `None`), in
    /// order. Empty where there is no such stream.
    ///
    /// # Errors
    /// The log is broken (its hash chain is checked), or the store failed.
    pub fn replay(&self, stream: &str, to_version: Option<Version>) -> Result<Vec<DomainEvent>, LoadError> {
        let most = to_version.unwrap_or(Version::MAX);
        let events = events_of(&*self.store, stream, 0)?;
        let domain = events.into_iter().take_while(|event| event.version <= most).filter_map(|event| {
            let Fact::Recorded { event_type, data, .. } = &event.fact else { return None };
            Some(DomainEvent {
                id: event.id,
                version: event.version,
                timestamp: event.timestamp,
                event_type: event_type.clone(),
                data: data.get(),
            })
        });
        Ok(domain.collect())
    }
}
