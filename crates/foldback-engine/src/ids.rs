//! Event ids and the clock: the edge of the pure core.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use foldback_core::{EventId, Micros};
use uuid::{NoContext, Timestamp, Uuid};

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
    let chance = id_at(SystemTime::now()).as_u128();
    (chance as u64) ^ ((chance >> 64) as u64)
}

/// The time of day, in microseconds since 1970, as the machine's clock says it; 0 for all that is before.
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

/// Microseconds since the machine was started, those in which it slept included.
#[cfg(target_os = "linux")]
pub fn steady() -> Micros {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    since.tv_sec.saturating_mul(1_000_000).saturating_add(since.tv_nsec / 1_000)
}

/// Microseconds since this was first asked. Whether those count in which the machine slept, the system says.
#[cfg(not(target_os = "linux"))]
pub fn steady() -> Micros {
    static FIRST: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    Micros::try_from(FIRST.elapsed().as_micros()).unwrap_or(Micros::MAX)
}

/// A time-ordered id for a workflow or a command, as text.
pub fn text_id() -> Arc<str> {
    Arc::from(id_at(SystemTime::now()).to_string())
}

/// A time-ordered id of this moment. A clock that stands before 1970 counts as 1970: such ids differ, and
/// have no order.
fn id_at(clock: SystemTime) -> Uuid {
    match clock.duration_since(UNIX_EPOCH) {
        Ok(_) => Uuid::now_v7(),
        Err(_) => Uuid::new_v7(Timestamp::from_unix(NoContext, 0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_before_1970_gives_ids_all_the_same() {
        let clock = UNIX_EPOCH - Duration::from_secs(86_400);
        let ids: std::collections::BTreeSet<Uuid> = (0..100).map(|_| id_at(clock)).collect();
        assert_eq!(ids.len(), 100);
        assert!(now() >= 0);
    }
}
