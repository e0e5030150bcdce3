//! What is left of tables that have been taken out of a one-way pipeline.

use super::{Apply, Session};
use std::collections::BTreeMap;
use sync_worker_core::error::Result;
use sync_worker_core::ledger::BY_WORKER;
use sync_worker_core::name::TableName;
use sync_worker_core::sink::Marker;

/// Keys that are given up in one transaction.
const AT_A_TIME: usize = 1_000;

impl Session {
    /// Gives up what waits of such tables: a table that comes back is copied anew, and nothing older may be
    /// written over that.
    pub(super) async fn give_up_left_tables(&mut self, apply: &Apply) -> Result<()> {
        let left = self.lot.of_others(&apply.scope);
        if left.is_empty() {
            return Ok(());
        }
        let (pipeline, database) = (&apply.id.pipeline, &apply.id.database);
        let mut tables: BTreeMap<&TableName, usize> = BTreeMap::new();
        left.iter().for_each(|(table, _)| *tables.entry(table).or_default() += 1);
        for (table, keys) in tables {
            tracing::warn!(%pipeline, %database, %table, keys, "the table has left the pipeline: what waited of it is given up");
        }
        for names in left.chunks(AT_A_TIME) {
            let marker = Marker { writes: self.marker.writes + 1, ..self.marker.clone() };
            self.commit(apply, marker, Vec::new(), names.to_vec(), None, BY_WORKER).await?;
        }
        Ok(())
    }
}
