//! The change log of an in-memory database, cut into batches wherever a test wants.

use super::MemoryError;
use super::database::MemoryDatabase;
use async_trait::async_trait;
use sync_worker_core::change::Change;
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::position::{Checkpoint, Epoch, Lsn, Position, PostgresPosition};
use sync_worker_core::source::{Source, SourceBatch, TransactionPart};

/// Transactions count from 1.
pub(super) fn position(transaction: u64, ordinal: u64) -> Position {
    Position::Postgres(PostgresPosition { commit: Lsn(transaction * 16), ordinal })
}

/// When a transaction was committed, in microseconds since 1970-01-01.
const COMMIT_TIME: i64 = 1_700_000_000_000_000;

pub(super) struct MemorySource {
    database: MemoryDatabase,
    /// Changes of others are none.
    tables: Vec<TableName>,
    /// Transactions returned whole, and changes returned of the next one.
    done: usize,
    within: usize,
    /// The first batch says where the stream stands, even on an idle database.
    opened: bool,
}

impl MemorySource {
    pub fn new(database: MemoryDatabase, tables: Vec<TableName>, from: &Checkpoint) -> Self {
        let done = from.resume.parse().expect("a checkpoint of this kind of source");
        Self { database, tables, done, within: 0, opened: false }
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn next(&mut self) -> Result<SourceBatch> {
        self.database.pause().await;
        let Self { database, tables, done, within, opened } = self;
        let batch = database.shared.when(|state| {
            if let Some(class) = state.source_faults.pop_front() {
                return Some(Err(MemoryError::new(class, "the connection to the source broke")));
            }
            if *done == state.log.len() && std::mem::replace(opened, true) {
                return None;
            }
            let mut left = state.batch_changes;
            let mut parts = Vec::new();
            while let Some(transaction) = state.log.get(*done).filter(|_| left > 0 || parts.is_empty()) {
                let number = *done as u64 + 1;
                let wanted: Vec<&Change> =
                    transaction.iter().filter(|change| tables.contains(change.table())).collect();
                let changes: Vec<Change> = wanted[*within..].iter().copied().take(left).cloned().collect();
                let ends = !state.ends_apart || changes.is_empty();
                let complete = ends && *within + changes.len() == wanted.len();
                parts.push(TransactionPart {
                    id: format!("{number}").into(),
                    commit_time: COMMIT_TIME,
                    first: position(number, *within as u64),
                    changes,
                    complete,
                    echo: None,
                });
                let taken = parts.last().map_or(0, |part| part.changes.len());
                state.returned += taken as u64;
                left -= taken;
                (*done, *within) = if complete { (*done + 1, 0) } else { (*done, *within + taken) };
            }
            let reached = position(*done as u64, u64::MAX);
            let checkpoint = (*within == 0).then(|| Checkpoint {
                epoch: Epoch(state.epoch.clone()),
                position: reached,
                resume: done.to_string(),
            });
            Some(Ok(SourceBatch { parts, checkpoint, reached }))
        });
        Ok(batch.await?)
    }

    async fn confirm(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.database.shared.change(|state| state.confirmed.push(checkpoint.clone()));
        Ok(())
    }
}
