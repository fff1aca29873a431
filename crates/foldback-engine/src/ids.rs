//! Event ids and the clock: the edge of the pure core.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use foldback_core::{EventId, Micros};

/// Makes UUIDv7 ids. One per loop; seeded once, so that an id costs no system call.
pub struct EventIds {
    dice: u64,
}

impl EventIds {
    /// A source with this seed.
    pub fn new(seed: u64) -> EventIds {
        EventIds { dice: seed | 1 }
    }

    /// The next id, of this moment.
    pub fn next(&mut self, now: Micros) -> EventId {
        let mut chance = [0u8; 10];
        chance[..8].copy_from_slice(&self.roll().to_le_bytes());
        chance[8..].copy_from_slice(&self.roll().to_le_bytes()[..2]);
        let millis = u64::try_from(now / 1_000).unwrap_or(0);
        EventId(*uuid::Builder::from_unix_timestamp_millis(millis, &chance).as_uuid().as_bytes())
    }

    /// xorshift64*: spreads well enough for ids and costs a nanosecond.
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        self.dice.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Chance, from the system.
pub fn seed() -> u64 {
    let chance = uuid::Uuid::now_v7().as_u128();
    (chance as u64) ^ ((chance >> 64) as u64)
}

/// The clock, in microseconds since 1970. Within a process it never goes back: what was due once
/// stays due, also when the machine's clock is set.
pub fn now() -> Micros {
    static LATEST: AtomicI64 = AtomicI64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX);
    LATEST.fetch_max(now, Ordering::Relaxed).max(now)
}

/// A time-ordered id for a workflow or a command, as text.
pub fn text_id() -> Arc<str> {
    Arc::from(uuid::Uuid::now_v7().to_string())
}
