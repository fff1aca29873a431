//! What readers make of a log event by event is what they make of it as a whole: rows, trees, comparisons.

use foldback::core::Event;
use foldback::core::report::{Ahead, Growing, Past, Rows, diff, steps, tree};

/// Reads a log in both ways.
///
/// # Errors
/// They differ.
pub fn check(id: &str, events: &[Event]) -> Result<(), String> {
    let mut ahead = Ahead::default();
    events.iter().for_each(|event| ahead.read(event));
    let (mut rows, mut handed) = (Rows::knowing(&ahead), Vec::new());
    let mut growing = Growing::new(usize::MAX, &ahead);
    for event in events {
        rows.read(event);
        handed.extend(rows.ready());
        growing.read(event);
    }
    handed.extend(rows.finish());
    let whole = steps(events);
    if let Some(at) = (0..handed.len().max(whole.len())).find(|at| handed.get(*at) != whole.get(*at)) {
        return Err(format!(
            "{id}: row {at} is handed out as {:?}, and is {:?}",
            handed.get(at),
            whole.get(at)
        ));
    }
    if growing.finish().nodes != tree(events) {
        return Err(format!("{id}: its tree is another one when it grows"));
    }
    let past = Past { workflow_id: id, events };
    if !diff(past, past).is_same {
        return Err(format!("{id}: it is not the same as itself"));
    }
    Ok(())
}
