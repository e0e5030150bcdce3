//! What a batch has had refused while it is written row by row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use sync_worker_core::collapse::{Refusals, Version};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::name::TableName;
use sync_worker_core::row::Key;
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::Refused;

/// What has been refused so far in this batch.
#[derive(Default)]
pub struct Refusing {
    pub versions: Refusals,
    pub reasons: HashMap<(TableName, Key), Refused>,
    /// Of the writes, those refused for what another row has.
    pub taken: HashSet<usize>,
    /// Of the writes, deletes of rows that come again, where they would take others along: they are written over.
    pub coming_back: HashSet<usize>,
}

impl Refusing {
    /// The newest version of a key counts.
    pub fn refuse(&mut self, schema: &Arc<Schema>, version: Version, class: ErrorClass, reason: String) {
        let name = (schema.table.clone(), version.key.clone());
        self.reasons.insert(name.clone(), Refused { write: version.write, class, reason });
        self.versions.insert(name, (schema.clone(), version));
    }

    pub fn written(&mut self, table: &TableName, key: &Key) {
        if !self.versions.is_empty() {
            let name = (table.clone(), key.clone());
            self.versions.remove(&name);
            self.reasons.remove(&name);
        }
    }

    pub fn truncated(&mut self, table: &TableName) {
        self.versions.retain(|(name, _), _| name != table);
        self.reasons.retain(|(name, _), _| name != table);
    }
}
