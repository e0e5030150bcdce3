//! Reads of an in-memory database's tables, which a test can hold back between the look and the answer.

use super::database::{MemoryDatabase, State};
use async_trait::async_trait;
use std::sync::Arc;
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::reader::{Chunk, KeyRange, TableReader};
use sync_worker_core::row::{Key, Row};
use sync_worker_core::schema::Schema;

pub(super) struct MemoryReader {
    database: MemoryDatabase,
}

impl MemoryReader {
    pub fn new(database: MemoryDatabase) -> Self {
        Self { database }
    }

    async fn answer(&self, read: impl FnOnce(&State) -> Chunk) -> Chunk {
        self.database.pause().await;
        let chunk = self.database.shared.change(|state| {
            state.reads += 1;
            read(state)
        });
        self.database.pause().await;
        self.database.shared.when(|state| (!state.reads_held).then_some(())).await;
        chunk
    }
}

fn of<'a>(state: &'a State, table: &'a TableName) -> impl Iterator<Item = (&'a Key, &'a Row)> {
    state.rows.iter().filter(move |((name, _), _)| name == table).map(|((_, key), row)| (key, row))
}

fn schema_of(state: &State, table: &TableName) -> Arc<Schema> {
    state.schemas.get(table).cloned().expect("a table that the test has made")
}

#[async_trait]
impl TableReader for MemoryReader {
    async fn schema(&mut self, table: &TableName) -> Result<Arc<Schema>> {
        Ok(schema_of(&self.database.shared.lock(), table))
    }

    async fn estimate(&mut self, table: &TableName) -> Result<u64> {
        Ok(of(&self.database.shared.lock(), table).count() as u64)
    }

    async fn boundary(&mut self, table: &TableName, after: Option<&Key>, rows: u64) -> Result<Option<Key>> {
        let state = self.database.shared.lock();
        let mut keys = of(&state, table).map(|(key, _)| key).filter(|key| after.is_none_or(|after| *key > after));
        Ok(keys.nth(usize::try_from(rows).unwrap_or(usize::MAX).saturating_sub(1)).cloned())
    }

    async fn read_range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> Result<Chunk> {
        let read = |state: &State| {
            let inside = |key: &Key| {
                range.after.as_ref().is_none_or(|after| key > after)
                    && range.up_to.as_ref().is_none_or(|up_to| key <= up_to)
            };
            let (mut rows, mut size, mut cut_at) = (Vec::new(), 0, None);
            let mut there = of(state, table).filter(|(key, _)| inside(key)).peekable();
            while let Some((key, row)) = there.next() {
                size += row.as_bytes().len();
                rows.push(row.clone());
                if size >= bytes && there.peek().is_some() {
                    cut_at = Some(key.clone());
                    break;
                }
            }
            Chunk { schema: schema_of(state, table), rows, high: state.head(), cut_at }
        };
        Ok(self.answer(read).await)
    }

    async fn read_keys(&mut self, table: &TableName, keys: &[Key]) -> Result<Chunk> {
        let read = |state: &State| {
            let rows = keys.iter().filter_map(|key| state.rows.get(&(table.clone(), key.clone())).cloned()).collect();
            Chunk { schema: schema_of(state, table), rows, high: state.head(), cut_at: None }
        };
        Ok(self.answer(read).await)
    }
}
