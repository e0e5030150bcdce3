//! Snapshots: what is in the tables, put on the bus in key-range chunks while the stream goes on.
//!
//! Chunks are planned from the key itself, read by several readers at a time, and stored with their bounds before they
//! are read, so that a restart goes on where it was. [`crate::window`] says why a read never beats a change.

use crate::failure::EngineError;
use crate::status::{Entry, SnapshotStatus, State};
use crate::window::{Read, WindowId};
use futures::future::try_join_all;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::error::Result;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::reader::{KeyRange, TableReader};
use sync_worker_core::row::Key;
use sync_worker_core::store::{CaptureId, ChunkState, Store};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

/// What a reader asks of the capture whose stream it reads beside.
pub enum Request {
    /// Opens a window: from now on the capture notes this table's keys.
    Open {
        table: TableName,
        reply: oneshot::Sender<WindowId>,
    },
    /// Hands in what was read in a window.
    Read {
        id: WindowId,
        read: Read,
    },
    Abandon {
        id: WindowId,
    },
}

#[derive(Clone, Debug)]
pub struct SnapshotSettings {
    /// Whether a pipeline that starts anew copies what is there.
    pub initial: bool,
    /// Rows to a chunk.
    pub chunk_rows: u64,
    /// Bytes of rows that a reader holds at the most; a chunk above it is published in pieces.
    pub chunk_bytes: usize,
    /// Chunks read at a time.
    pub parallel: usize,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self { initial: true, chunk_rows: 10_000, chunk_bytes: 8 << 20, parallel: 2 }
    }
}

pub struct Snapshot {
    pub id: CaptureId,
    pub scope: Scope,
    pub database: Arc<dyn Database>,
    pub store: Arc<dyn Store>,
    pub settings: SnapshotSettings,
    pub status: Entry,
    pub requests: mpsc::Sender<Request>,
    pub copied: watch::Sender<Copied>,
}

/// Tables, and databases of which all of a table's rows are durable on the bus.
pub type Copied = BTreeSet<(TableName, DatabaseName)>;

/// A table's chunks: those planned and not done, and how far planning has come.
struct Plan {
    table: TableName,
    waiting: VecDeque<ChunkState>,
    /// Chunks that are being read.
    taken: usize,
    next: u64,
    /// The upper key of the last planned chunk; None before the first.
    upper: Option<Key>,
    complete: bool,
}

impl Plan {
    fn is_copied(&self) -> bool {
        self.complete && self.waiting.is_empty() && self.taken == 0
    }
}

impl Snapshot {
    /// Copies what no earlier run has copied; returns when all of it is durable on the bus.
    pub async fn run(self) -> Result<()> {
        if self.settings.initial {
            self.copy().await?;
        }
        self.status.set(State::Streaming, "");
        Ok(())
    }

    async fn copy(&self) -> Result<()> {
        let (plans, done_rows) = self.plans().await?;
        plans.iter().for_each(|plan| self.tell_copied(plan));
        if plans.iter().all(Plan::is_copied) {
            let done = SnapshotStatus { rows: done_rows, estimate: done_rows, done: true };
            self.status.update(|status| status.snapshot = Some(done));
            return Ok(());
        }
        let mut reader = self.database.reader(&self.scope).await?;
        let mut estimate = 0;
        for table in &self.scope.tables {
            estimate += reader.estimate(&table.table).await?;
        }
        drop(reader);
        let begun = SnapshotStatus { rows: done_rows, estimate: estimate.max(done_rows), done: false };
        self.status.update(|status| status.snapshot = Some(begun));
        tracing::info!(pipeline = %self.id.pipeline, database = %self.id.database, estimate, "snapshot has begun");
        let plans = Mutex::new(plans);
        try_join_all((0..self.settings.parallel.max(1)).map(|_| self.work(&plans))).await?;
        self.status.update(|status| {
            if let Some(snapshot) = &mut status.snapshot {
                snapshot.done = true;
                snapshot.estimate = snapshot.rows;
            }
        });
        tracing::info!(pipeline = %self.id.pipeline, database = %self.id.database, "snapshot is complete");
        Ok(())
    }

    async fn plans(&self) -> Result<(Vec<Plan>, u64)> {
        let stored = self.store.chunks(&self.id).await?;
        let rows = stored.iter().map(|chunk| chunk.rows).sum();
        let plan = |table: &TableName| {
            let chunks: Vec<&ChunkState> = stored.iter().filter(|chunk| chunk.table == *table).collect();
            let last = chunks.last();
            Plan {
                table: table.clone(),
                waiting: chunks.iter().filter(|chunk| !chunk.done).map(|chunk| (*chunk).clone()).collect(),
                taken: 0,
                next: last.map_or(0, |chunk| chunk.number + 1),
                upper: last.and_then(|chunk| chunk.range.up_to.clone()),
                complete: last.is_some_and(|chunk| chunk.range.up_to.is_none()),
            }
        };
        Ok((self.scope.tables.iter().map(|table| plan(&table.table)).collect(), rows))
    }

    /// One reader: takes chunks until none is left.
    async fn work(&self, plans: &Mutex<Vec<Plan>>) -> Result<()> {
        let mut reader = self.database.reader(&self.scope).await?;
        while let Some(mut chunk) = self.next_chunk(plans, reader.as_mut()).await? {
            let mut range = chunk.range.clone();
            loop {
                let (rows, rest) = self.read(reader.as_mut(), &chunk.table, &range).await?;
                chunk.rows += rows;
                self.status.update(|status| {
                    if let Some(snapshot) = &mut status.snapshot {
                        snapshot.rows += rows;
                        snapshot.estimate = snapshot.estimate.max(snapshot.rows);
                    }
                });
                match rest {
                    Some(after) => range.after = Some(after),
                    None => break,
                }
            }
            chunk.done = true;
            let table = chunk.table.clone();
            self.store.save_chunks(&self.id, &[chunk]).await?;
            let mut plans = plans.lock().await;
            if let Some(plan) = plans.iter_mut().find(|plan| plan.table == table) {
                plan.taken -= 1;
                self.tell_copied(plan);
            }
        }
        Ok(())
    }

    fn tell_copied(&self, plan: &Plan) {
        if plan.is_copied() {
            let copied = (plan.table.clone(), self.id.database.clone());
            self.copied.send_if_modified(|all| all.insert(copied));
        }
    }

    /// The next chunk to read, planned and stored where none was waiting.
    async fn next_chunk(&self, plans: &Mutex<Vec<Plan>>, reader: &mut dyn TableReader) -> Result<Option<ChunkState>> {
        let mut plans = plans.lock().await;
        for plan in plans.iter_mut() {
            if let Some(chunk) = plan.waiting.pop_front() {
                plan.taken += 1;
                return Ok(Some(chunk));
            }
            if plan.complete {
                continue;
            }
            let up_to = reader.boundary(&plan.table, plan.upper.as_ref(), self.settings.chunk_rows).await?;
            let range = KeyRange { after: plan.upper.take(), up_to: up_to.clone() };
            let chunk = ChunkState { table: plan.table.clone(), number: plan.next, range, done: false, rows: 0 };
            self.store.save_chunks(&self.id, std::slice::from_ref(&chunk)).await?;
            plan.next += 1;
            plan.taken += 1;
            plan.complete = up_to.is_none();
            plan.upper = up_to;
            return Ok(Some(chunk));
        }
        Ok(None)
    }

    /// Reads a range in a window of its own, again if the table was truncated meanwhile. Returns the rows put on the bus
    /// and, where the bound in bytes cut the read, the key to go on after.
    async fn read(
        &self,
        reader: &mut dyn TableReader,
        table: &TableName,
        range: &KeyRange,
    ) -> Result<(u64, Option<Key>)> {
        loop {
            let id = open(&self.requests, table).await?;
            let chunk = match reader.read_range(table, range, self.settings.chunk_bytes).await {
                Ok(chunk) => chunk,
                Err(error) => {
                    send(&self.requests, Request::Abandon { id }).await?;
                    return Err(error);
                }
            };
            let (rows, rest) = (chunk.rows.len() as u64, chunk.cut_at.clone());
            if hand_in(&self.requests, id, chunk, None).await? {
                return Ok((rows, rest));
            }
        }
    }
}

/// Reads keys as they are now and puts them on the bus, deletes included. Returns how many keys.
pub async fn repair(
    database: Arc<dyn Database>,
    scope: Scope,
    requests: mpsc::Sender<Request>,
    table: TableName,
    keys: Vec<Key>,
) -> Result<u64> {
    let mut reader = database.reader(&scope).await?;
    for asked in keys.chunks(1_000) {
        loop {
            let id = open(&requests, &table).await?;
            let chunk = match reader.read_keys(&table, asked).await {
                Ok(chunk) => chunk,
                Err(error) => {
                    send(&requests, Request::Abandon { id }).await?;
                    return Err(error);
                }
            };
            if hand_in(&requests, id, chunk, Some(asked.to_vec())).await? {
                break;
            }
        }
    }
    Ok(keys.len() as u64)
}

async fn open(requests: &mpsc::Sender<Request>, table: &TableName) -> Result<WindowId> {
    let (reply, opened) = oneshot::channel();
    send(requests, Request::Open { table: table.clone(), reply }).await?;
    Ok(opened.await.map_err(|_| gone())?)
}

/// True once the rows are durable on the bus; false when they must be read again.
async fn hand_in(
    requests: &mpsc::Sender<Request>,
    id: WindowId,
    chunk: sync_worker_core::reader::Chunk,
    asked: Option<Vec<Key>>,
) -> Result<bool> {
    let (done, durable) = oneshot::channel();
    send(requests, Request::Read { id, read: Read { chunk, asked, done } }).await?;
    Ok(durable.await.map_err(|_| gone())?)
}

async fn send(requests: &mpsc::Sender<Request>, request: Request) -> Result<()> {
    Ok(requests.send(request).await.map_err(|_| gone())?)
}

fn gone() -> EngineError {
    EngineError::Stopped("the capture ended while its snapshot was under way")
}
