//! The plain pattern: append with versions, replay to a version, compensate by event type in reverse.
//!
//!   cargo run -p foldback --example event_store

#![allow(clippy::print_stdout)] // an example shows what it does

use foldback::streams::{AppendError, EventStore, Expect};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = EventStore::open("memory:")?;

    // Append: each says which version it expects to follow.
    let version = store.append("trip-1", Expect::NoStream, [("FLIGHT_BOOKED", json!({"id": "F7"}))])?;
    let version = store.append("trip-1", Expect::Exact(version), [("HOTEL_BOOKED", json!({"id": "H3"}))])?;
    store.append("trip-1", Expect::Exact(version), [("CARD_REFUSED", json!({"total": 410}))])?;

    // Who comes late is told where the stream is, and nothing was written.
    let late = store.append("trip-1", Expect::Exact(version), [("CAR_BOOKED", json!({"id": "C1"}))]);
    assert_eq!(late, Err(AppendError::Conflict { actual: 3 }));

    // Replay: what was true after the second event.
    let booked: Vec<String> =
        store.replay("trip-1", Some(2))?.iter().map(|event| event.event_type.to_string()).collect();
    println!("at version 2: {}", booked.join(", "));

    // Compensate: by event type, newest first; each undo is an event of its own.
    for event in store.replay("trip-1", None)?.iter().rev() {
        let undo = match &*event.event_type {
            "FLIGHT_BOOKED" => "FLIGHT_CANCELLED",
            "HOTEL_BOOKED" => "HOTEL_CANCELLED",
            _ => continue,
        };
        store.append("trip-1", Expect::StreamExists, [(undo, (*event.data).clone())])?;
    }
    for event in store.replay("trip-1", None)? {
        println!("{}  {:<16} {}", event.version, event.event_type, event.data);
    }
    Ok(())
}
