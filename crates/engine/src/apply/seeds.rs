//! What became at the target of the rows that all members had at the start.

use super::{Apply, Session};
use std::collections::{BTreeMap, HashSet};
use sync_worker_core::ledger::{Conflict, SEED};
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;
use sync_worker_core::sink::Applied;

/// Counted since the session began.
#[derive(Default)]
pub(super) struct Copies {
    tables: BTreeMap<TableName, Counts>,
}

#[derive(Default)]
struct Counts {
    copied: u64,
    /// Rows that came and were there already, what was copied from here included.
    equal: u64,
    differed: u64,
}

impl Copies {
    pub(super) fn differed(&mut self, conflicts: &[Conflict]) {
        for conflict in conflicts.iter().filter(|conflict| conflict.kind == SEED) {
            self.tables.entry(conflict.table.clone()).or_default().differed += 1;
        }
    }
}

impl Session {
    /// Counts what a batch has brought: the places of copied rows among its writes, and their tables.
    pub(super) fn count_copies(&mut self, copies: Vec<(usize, TableName)>, applied: &Applied) {
        let Some(resolving) = &mut self.resolving else { return };
        if copies.is_empty() {
            return;
        }
        let equal: HashSet<usize> = applied.equal.iter().copied().collect();
        let differing = applied.differing.iter().map(|(write, _)| *write);
        let left: HashSet<usize> = differing.chain(applied.refused.iter().map(|refused| refused.write)).collect();
        for (at, table) in copies {
            let counts = resolving.copies.tables.entry(table).or_default();
            counts.equal += u64::from(equal.contains(&at));
            counts.copied += u64::from(!equal.contains(&at) && !left.contains(&at));
        }
    }

    /// Tells of tables whose rows have all been copied, once the target has what came before.
    pub(super) fn report_seeds(&mut self, apply: &Apply, up_to: Offset) {
        let Some(resolving) = &mut self.resolving else { return };
        let Some(stage) = self.assembler.stage() else { return };
        for table in stage.take_seeded(up_to) {
            let Counts { copied, equal, differed } = resolving.copies.tables.remove(&table).unwrap_or_default();
            tracing::info!(pipeline = %apply.id.pipeline, database = %apply.id.database, %table, copied, equal, differed, "the rows of all members are merged");
        }
    }
}
