//! What a store knows of projections beside their rows: which there are, under which name the rows
//! of each version stand, and where one failed.
//!
//! Rows stand under a name of their own for each version (`spend`, `spend#7.1`), so that one can be
//! made beside another. Which of them readers see is one row of the registry: to exchange them is to
//! write that row. What a version means, and how it is folded, is not known here.

use std::sync::Arc;

use foldback_core::Version;

use crate::contract::StoreResult;

/// A version of a projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectionRow {
    /// The projection's name.
    pub name: String,
    /// Whether readers see the rows of this version; of each name at most one is live.
    pub is_live: bool,
    /// Which version it is.
    pub version: String,
    /// The file it was made of; empty for what is built in.
    pub source: String,
    /// The name under which its rows and its checkpoint stand.
    pub rows: String,
    /// Why it stands still, if it does.
    pub failure: Option<ProjectionFailure>,
}

/// Why a projection stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectionFailure {
    /// What is wrong.
    pub message: String,
    /// The event at which it failed, where it was one: workflow and version.
    pub event: Option<(Arc<str>, Version)>,
}

/// The part of a store that knows its projections.
pub trait Projected {
    /// Every version of every projection, by name, the live one first.
    fn projections(&self) -> StoreResult<Vec<ProjectionRow>>;

    /// How many rows stand under a name.
    fn row_count(&self, rows: &str) -> StoreResult<u64>;

    /// Names under which rows of known projections stand, of versions that nobody refers to any more.
    fn strays(&self) -> StoreResult<Vec<String>>;

    /// The position of a shard's last event.
    fn head(&self, shard: u32) -> StoreResult<u64>;
}

/// The name of the projection whose rows stand under a name.
pub(crate) fn projection_of(rows: &str) -> &str {
    rows.split_once('#').map_or(rows, |(name, _)| name)
}
