//! A database taking part: what makes its sources, sinks and readers.

use crate::document::mapping::DocumentMapping;
use crate::error::Result;
use crate::name::{DatabaseName, InstallationId, PipelineName, TableName};
use crate::position::{Checkpoint, Position};
use crate::reader::TableReader;
use crate::schema::Schema;
use crate::sink::Sink;
use crate::source::Source;
use crate::types::Engine;
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A logical table and what it is called at this database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAt {
    pub table: TableName,
    /// As the user wrote it: `schema.table`, or `table` with the engine's default schema.
    pub name: String,
    /// How its rows are documents, where MongoDB is one of the two ends.
    pub document: DocumentMapping,
}

/// What a pipeline wants of a database: names for what it leaves there, and its tables.
#[derive(Clone, Debug)]
pub struct Scope {
    pub installation: InstallationId,
    pub pipeline: PipelineName,
    pub tables: Vec<TableAt>,
    /// Every member is written to by applications: sources tell our own transactions from theirs, and look for full row
    /// images.
    pub two_way: bool,
    /// A folder for transactions too large for memory; the adapter makes it and empties it when it starts.
    pub spill: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Source,
    Target,
}

/// One thing that stands in the way, with the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: `databases.crm`, `databases.crm table public.customer`.
    pub place: String,
    pub problem: String,
    /// A statement or an action that mends it.
    pub cure: String,
    /// Nothing that stops the pipeline.
    pub advice: bool,
}

/// A text column of a key that takes values for one although they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folding {
    pub column: String,
    /// Where two databases of one engine have a collation of the same name, it is the same.
    pub collation: String,
    /// Values that it takes for one, for a message.
    pub alike: &'static str,
    /// The statement that makes the column tell them apart.
    pub cure: String,
    /// Such values are so rare that a pipeline may live with it: a second row is refused and becomes a dead letter.
    pub advice: bool,
}

/// What a database looks like to a pipeline.
#[derive(Debug, Default)]
pub struct Inspection {
    pub findings: Vec<Finding>,
    /// The tables that are there, in the order of the scope.
    pub tables: Vec<Arc<Schema>>,
    /// Rows the tables hold, about, in the same order.
    pub estimates: Vec<u64>,
    /// The columns that a new row must have a value for, in the same order.
    pub required: Vec<Vec<String>>,
    /// The columns that the database generates, in the same order: neither a change nor a table above has them.
    pub generated: Vec<Vec<String>>,
    /// The columns of each key that fold, in the same order; shorter where the rest folds nothing.
    pub folding: Vec<Vec<Folding>>,
    /// Microseconds that the server's clock is ahead of this machine's, about; two-way only.
    pub clock_ahead: Option<i64>,
}

/// Microseconds that a question for a clock may take: what is told is off by half of it at the most.
const CLOCK_ANSWER: i64 = 500_000;

/// Microseconds since 1970-01-01 UTC by this machine's clock.
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

/// How far a server's clock, asked for by `ask` as microseconds since 1970-01-01 UTC, is ahead of this machine's, taken in the
/// middle of the question. None where it took so long to answer that this says nothing.
pub async fn clock_ahead<E>(
    ask: impl Future<Output = std::result::Result<Option<i64>, E>>,
) -> std::result::Result<Option<i64>, E> {
    let begun = now();
    let told = ask.await?;
    let took = now() - begun;
    Ok(told.filter(|_| (0..CLOCK_ANSWER).contains(&took)).map(|told| told - begun - took / 2))
}

#[async_trait]
pub trait Database: Send + Sync {
    fn name(&self) -> &DatabaseName;

    fn engine(&self) -> Engine;

    /// Looks without changing anything: privileges, settings, tables, keys, row images. An error is one that keeps it
    /// from looking at all: unreachable, wrong password.
    async fn inspect(&self, scope: &Scope, role: Role) -> Result<Inspection>;

    /// Microseconds that the server's clock is ahead of this machine's, about; None where it does not tell.
    async fn clock_ahead(&self) -> Result<Option<i64>>;

    /// Opens the change stream, after the checkpoint or, without one, from now on; makes slot and publication where
    /// they are missing. With a checkpoint, a slot that is gone, a log that is purged and another epoch are GAPs.
    /// Returns the source and where it starts.
    async fn source(&self, scope: &Scope, from: Option<&Checkpoint>) -> Result<(Box<dyn Source>, Checkpoint)>;

    /// The same place in the log of a server that has taken over from the one that the checkpoint is of, where that can be
    /// told; else the checkpoint itself. `published`: the last change on the bus, as far as it is known, else the
    /// checkpoint's position. Where the new server lacks it, that is a GAP.
    async fn follow(&self, checkpoint: &Checkpoint, _published: Position) -> Result<Checkpoint> {
        Ok(checkpoint.clone())
    }

    async fn reader(&self, scope: &Scope) -> Result<Box<dyn TableReader>>;

    async fn sink(&self, scope: &Scope) -> Result<Box<dyn Sink>>;

    /// Removes what the pipeline left at a source: slot and publication.
    async fn forget_source(&self, scope: &Scope) -> Result<()>;

    /// A `CREATE TABLE` in this engine's words for a table of another member, or the `ALTER TABLE` for the columns that
    /// `have` lacks. None where nothing is missing.
    fn ddl(&self, at: &TableAt, wanted: &Schema, have: Option<&Schema>) -> Option<String>;
}
