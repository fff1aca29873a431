//! Named places between the writer's statements, where a test ends the process.
//!
//! Builds without debug assertions hold nothing of it: no variable is read, no code is left. Others
//! read `FOLDBACK_FAULT=PLACE:TIMES` once, and are killed, not ended, when the place is passed for
//! that many times. It never returns an error: a killed process has no way to clean up.

/// Passes a named place.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn point(_place: &str) {}

/// Passes a named place.
#[cfg(debug_assertions)]
pub(crate) fn point(place: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let armed = ARMED.get_or_init(|| {
        let wanted = std::env::var("FOLDBACK_FAULT").ok()?;
        let (place, times) = wanted.split_once(':')?;
        Some((place.to_owned(), times.parse().ok()?))
    });
    let Some((wanted, times)) = armed else { return };
    if place == wanted && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *times {
        let own = std::process::id().to_string();
        let _ = std::process::Command::new("kill").args(["-KILL", &own]).status();
        std::process::abort();
    }
}
