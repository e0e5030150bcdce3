//! Reading a table as it stands: snapshot chunks, verification, repair.

use crate::error::Result;
use crate::name::TableName;
use crate::position::Position;
use crate::row::{Key, Row};
use crate::schema::Schema;
use async_trait::async_trait;
use std::sync::Arc;

/// The rows with `after < key <= up_to`, in the order of the table's key at this database; None is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    pub after: Option<Key>,
    pub up_to: Option<Key>,
}

/// Rows as one consistent read saw them.
#[derive(Debug)]
pub struct Chunk {
    pub schema: Arc<Schema>,
    /// In key order.
    pub rows: Vec<Row>,
    /// At least where the stream stood when the rows were read: every transaction that the read saw is at or below it.
    pub high: Position,
    /// The bound in bytes was met: rows after this key are still to be read.
    pub cut_at: Option<Key>,
}

/// One connection that reads tables. Keys in and out are in this database's own schema.
#[async_trait]
pub trait TableReader: Send {
    /// The table's columns now.
    async fn schema(&mut self, table: &TableName) -> Result<Arc<Schema>>;

    /// About how many rows there are; for progress only.
    async fn estimate(&mut self, table: &TableName) -> Result<u64>;

    /// The key of the `rows`th row after `after`; None when there are fewer.
    async fn boundary(&mut self, table: &TableName, after: Option<&Key>, rows: u64) -> Result<Option<Key>>;

    /// Reads a range, stopping after about `bytes` bytes of rows. Every transaction that the source of this database has
    /// returned before the call is visible to the read; the reader waits for that where it has to.
    async fn read_range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> Result<Chunk>;

    /// Reads the rows that exist among `keys`, in any order, under the same promise.
    async fn read_keys(&mut self, table: &TableName, keys: &[Key]) -> Result<Chunk>;
}
