//! Projections from outside: where each stands, giving orders, and waiting until one is up to date.
//! For commands and programs that own no shard.
//!
//! Where another process owns the shard, its projector does the work and this only looks. Where nobody
//! does, the shard is taken for a moment and the work is done here; it is given back as soon as
//! somebody wants it for something else. Nothing here waits in silence: what is behind is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldback_store::{
    InboxCommand, Ownership, ProjectionFailure, ProjectionRow, Store, StoreError, StoreResult,
};

use crate::Programs;
use crate::ids;
use crate::projector::{Letter, Order, OrderAnswer, Ordered, Projector, is_order};
use crate::session::SessionError;

/// How often it is looked whether another process has got on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long the shard is kept while an order is carried out here, before others may have it.
const WORK_FOR: Duration = Duration::from_millis(200);

/// How long others have to take it, where they want it: twice as long as they take to look.
const YIELD_FOR: Duration = Duration::from_millis(50);

/// Where a projection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its rows follow the log.
    Live,
    /// Another version of it, or the same anew, is being made.
    Rebuilding,
    /// It stands still at an event.
    Failed,
}

impl State {
    /// The word that scripts rely on.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Live => "live",
            State::Rebuilding => "rebuilding",
            State::Failed => "failed",
        }
    }
}

/// One version of a projection, and how far it is.
#[derive(Clone, Debug)]
pub struct Stand {
    /// What the registry says.
    pub row: ProjectionRow,
    /// The position up to which it has read.
    pub position: u64,
    /// How far that is behind the head.
    pub lag: u64,
    /// How many rows it has.
    pub rows: u64,
}

/// A projection: the version that readers see, and the one that is made beside it.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// What readers see; `None` until it was made once.
    pub live: Option<Stand>,
    /// What is to take its place.
    pub next: Option<Stand>,
}

impl Standing {
    /// The state as one word.
    pub fn state(&self) -> State {
        match (&self.next, &self.live) {
            (Some(next), _) if next.row.failure.is_some() => State::Failed,
            (Some(_), _) => State::Rebuilding,
            (None, Some(live)) if live.row.failure.is_some() => State::Failed,
            (None, _) => State::Live,
        }
    }

    /// Why it stands still, if it does.
    pub fn failure(&self) -> Option<&ProjectionFailure> {
        // What is being made mends what stood still before.
        self.next.as_ref().or(self.live.as_ref()).and_then(|newest| newest.row.failure.as_ref())
    }
}

/// Every projection of a store, by name.
///
/// # Errors
/// When the store fails.
pub fn standings(store: &dyn Store) -> StoreResult<Vec<Standing>> {
    let mut all: Vec<Standing> = Vec::new();
    for row in store.projections()? {
        let position = store.checkpoint(0, &row.rows)?;
        let lag = store.head(0)?.saturating_sub(position);
        let rows = store.row_count(&row.rows)?;
        if all.last().is_none_or(|last| last.name != row.name) {
            all.push(Standing { name: row.name.clone(), live: None, next: None });
        }
        let is_live = row.is_live;
        let stand = Some(Stand { row, position, lag, rows });
        if let Some(standing) = all.last_mut() {
            *(if is_live { &mut standing.live } else { &mut standing.next }) = stand;
        }
    }
    Ok(all)
}

/// How far behind the head, as it was at the beginning, a projection's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind(pub u64);

/// Waits until what readers see of a projection has reached the present head of the log, so long at
/// most; the work is done here where nobody owns the shard.
///
/// # Errors
/// `Ok(Err(…))`: how far it is behind all the same. When the store cannot be read.
pub fn catch_up(
    store: &Arc<dyn Store>,
    programs: &Arc<dyn Programs>,
    actor: &str,
    projection: &str,
    within: Duration,
) -> StoreResult<Result<(), Behind>> {
    let (head, until) = (store.head(0)?, Instant::now() + within);
    let lag = || -> StoreResult<(u64, bool)> {
        let live = store.projections()?.into_iter().find(|row| row.name == projection && row.is_live);
        let at = live.as_ref().map_or(Ok(0), |row| store.checkpoint(0, &row.rows))?;
        Ok((head.saturating_sub(at), live.is_some_and(|row| row.failure.is_some())))
    };
    let work = |ownership: &Ownership| -> StoreResult<()> {
        let mut projector = Projector::new(store.clone(), programs.clone(), 0, ownership.epoch)?;
        while lag()?.0 > 0 && Instant::now() < until && projector.step()? > 0 {}
        Ok(())
    };
    loop {
        let (behind, stands_still) = lag()?;
        if behind == 0 {
            return Ok(Ok(()));
        }
        if stands_still || Instant::now() >= until {
            return Ok(Err(Behind(behind)));
        }
        // A store that can only be read, or is full, has nobody who catches up; what is there is read.
        match store.acquire(0, actor) {
            Ok(Some(ownership)) => {
                let _told_by_the_lag = work(&ownership);
                drop(ownership);
                let (behind, _) = lag()?;
                return Ok(if behind == 0 { Ok(()) } else { Err(Behind(behind)) });
            }
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Err(_) => return Ok(Err(Behind(behind))),
        }
    }
}

/// Gives an order and stays until it is done: the version that it asks for is live, or has failed. It
/// is durable from the beginning: who goes away earlier leaves it to the next owner. `told` is called
/// now and then: how far the version has read, and of how many events, once the order was taken.
///
/// # Errors
/// The order is refused, or the store fails.
pub fn order(
    store: &Arc<dyn Store>,
    programs: &Arc<dyn Programs>,
    actor: &str,
    order: Order,
    told: &mut dyn FnMut(Option<(u64, u64)>),
) -> Result<Ordered, SessionError> {
    let id = ids::text_id().to_string();
    let body = serde_json::to_value(Letter { projection: order }).map_err(|e| machine(e.to_string()))?;
    store.send(InboxCommand { id: id.clone(), shard: 0, actor: actor.to_owned(), body })?;
    loop {
        let answer = store.answer(&id)?.map(serde_json::from_value::<OrderAnswer>).transpose();
        let answer = answer.map_err(|e| machine(format!("an answer that cannot be read: {e}")))?;
        let way = match answer {
            None => None,
            Some(answer) => {
                let ordered = answer?;
                let rows = store.projections()?;
                let is_under_way =
                    |row: &&ProjectionRow| row.name == ordered.name && !row.is_live && row.failure.is_none();
                let Some(next) = rows.iter().find(is_under_way) else { return Ok(ordered) };
                Some((store.checkpoint(0, &next.rows)?, store.head(0)?))
            }
        };
        told(way);
        match store.acquire(0, actor)? {
            Some(ownership) => {
                let mut projector = Projector::new(store.clone(), programs.clone(), 0, ownership.epoch)?;
                let until = Instant::now() + WORK_FOR;
                while Instant::now() < until && projector.step()? > 0 && !is_wanted(&**store)? {}
                drop(ownership);
                if is_wanted(&**store)? {
                    std::thread::sleep(YIELD_FOR);
                }
            }
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Whether somebody wants the shard for more than its projections.
fn is_wanted(store: &dyn Store) -> StoreResult<bool> {
    Ok(store.commands(0)?.iter().any(|row| !is_order(&row.body)))
}

fn machine(message: String) -> SessionError {
    SessionError::Store(StoreError { message, hint: None, is_input: false })
}
