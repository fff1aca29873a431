//! The rows of one version of a projection while it is folded: read when they are first touched, kept
//! for a while, handed over to the commit.

use std::collections::HashMap;
use std::sync::Arc;

use foldback_core::projection::Rows;
use foldback_store::{Commit, Store, StoreError, StoreResult};
use serde_json::Value;

/// Rows kept in memory, so that a busy one is not read again for each page.
const KEPT_ROWS: usize = 20_000;

pub(super) struct Table {
    store: Arc<dyn Store>,
    shard: u32,
    /// The name under which they stand.
    pub name: String,
    rows: HashMap<String, Row>,
    /// Whether there is no row in the store yet, so that none needs to be looked for.
    is_new: bool,
    failed: Option<StoreError>,
}

#[derive(Default)]
struct Row {
    value: Value,
    is_changed: bool,
}

impl Rows for Table {
    fn change(&mut self, key: &str, how: &mut dyn FnMut(&mut Value)) {
        if !self.rows.contains_key(key) {
            let value = self.stored(key);
            self.rows.insert(key.to_owned(), Row { value, is_changed: false });
        }
        if let Some(row) = self.rows.get_mut(key) {
            how(&mut row.value);
            row.is_changed = true;
        }
    }
}

impl Table {
    pub fn new(store: Arc<dyn Store>, shard: u32, name: String, at: u64) -> Table {
        Table { store, shard, name, rows: HashMap::new(), is_new: at == 0, failed: None }
    }

    fn stored(&mut self, key: &str) -> Value {
        if self.is_new {
            return Value::Null;
        }
        let found = self.store.projection_row(self.shard, &self.name, key).unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            None
        });
        found.unwrap_or_default()
    }

    /// Adds the changed rows to a commit.
    pub fn hand_over(&mut self, commit: &mut Commit) -> StoreResult<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        for (key, row) in self.rows.iter_mut().filter(|(_, row)| row.is_changed) {
            row.is_changed = false;
            let value = Some(&row.value).filter(|value| !value.is_null()).cloned();
            commit.projection_rows.push((self.name.clone(), key.clone(), value));
        }
        // While nothing was let go, what is not in memory is not in the store.
        if self.rows.len() > KEPT_ROWS {
            self.rows.clear();
            self.is_new = false;
        }
        Ok(())
    }
}
