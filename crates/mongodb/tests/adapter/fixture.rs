//! A database per test, streams and batches in few words.

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bson::{Document, doc};
use futures::TryStreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use sync_worker_core::bus::Flush;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Database as _, Scope, TableAt};
use sync_worker_core::name::TableName;
use sync_worker_core::position::{Checkpoint, Position};
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::sink::{Applied, Marker, Parking, Refused, Sink, Write, WriteBatch};
use sync_worker_core::source::{Source, SourceBatch};
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};
use sync_worker_mongodb::{Config, Mongodb};

pub const INT: ColumnType = ColumnType::Int { bits: 64, unsigned: false };
pub const TEXT: ColumnType = ColumnType::Text { limit: TextLimit::None, padded: false };
pub const U: Cell<'static> = Cell::Unchanged;

const DEADLINE: Duration = Duration::from_secs(20);

pub fn int(value: i64) -> Cell<'static> {
    Cell::Present(Value::Int(value))
}

pub fn text(value: &str) -> Cell<'_> {
    Cell::Present(Value::Text(value))
}

pub fn row(cells: &[Cell<'_>]) -> Row {
    let mut builder = RowBuilder::default();
    cells.iter().for_each(|cell| builder.push(*cell));
    builder.finish()
}

pub struct Fixture {
    pub client: mongodb::Client,
    pub database: mongodb::Database,
    pub mongodb: Mongodb,
    pub scope: Scope,
}

impl Fixture {
    pub async fn new(collections: &[&str]) -> Result<Option<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(server) = std::env::var("SYNC_WORKER_TEST_MONGODB") else {
            eprintln!("skipped: SYNC_WORKER_TEST_MONGODB names no server; `make test` starts one");
            return Ok(None);
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        let name = format!("test_{}_{now}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let client = mongodb::Client::with_uri_str(&server).await?;
        let database = client.database(&name);
        for collection in collections {
            database.create_collection(*collection).await?;
        }
        let tables = collections.iter().map(|name| TableAt {
            table: (*name).into(),
            name: (*name).to_owned(),
            document: Default::default(),
        });
        let scope = Scope {
            installation: name.as_str().into(),
            pipeline: "p".into(),
            tables: tables.collect(),
            spill: std::env::temp_dir(),
        };
        let (base, query) = server.split_once('?').unwrap_or((&server, ""));
        let base = base.trim_end_matches('/');
        let mongodb = Mongodb::new("shop".into(), Config::new(format!("{base}/{name}?{query}")))?;
        Ok(Some(Self { client, database, mongodb, scope }))
    }

    pub fn rows(&self, name: &str) -> mongodb::Collection<Document> {
        self.database.collection(name)
    }

    /// All documents of a collection, by their keys.
    pub async fn all(&self, name: &str) -> Result<Vec<Document>> {
        Ok(self.rows(name).find(doc! {}).sort(doc! { "_id": 1 }).await?.try_collect().await?)
    }

    pub async fn open(&self, from: Option<&Checkpoint>) -> Result<Stream> {
        let opened = self.mongodb.source(&self.scope, from).await;
        let (source, start) = opened.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(Stream { source, last: start.position, checkpoint: start, changes: Vec::new(), transactions: Vec::new() })
    }

    pub async fn post_images(&self, name: &str) -> Result<()> {
        let images = doc! { "enabled": true };
        self.database.run_command(doc! { "collMod": name, "changeStreamPreAndPostImages": images }).await?;
        Ok(())
    }

    pub async fn sink(&self) -> Result<Writer> {
        let mut sink = self.mongodb.sink(&self.scope).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let progress = sink.take_over("log").await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(Writer { sink, marker: progress.marker, parked: progress.parked.len() })
    }
}

pub struct Stream {
    pub source: Box<dyn Source>,
    last: Position,
    pub checkpoint: Checkpoint,
    pub changes: Vec<(Position, Change)>,
    /// How many changes each complete transaction had.
    pub transactions: Vec<usize>,
}

impl Stream {
    pub async fn batch(&mut self) -> Result<SourceBatch> {
        let batch = tokio::time::timeout(DEADLINE, self.source.next()).await.context("no batch in time")?;
        let batch = batch.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        for part in &batch.parts {
            for (ordinal, change) in (part.first.ordinal()..).zip(&part.changes) {
                let position = part.first.with_ordinal(ordinal);
                if position <= self.last {
                    bail!("position {position} came after {}", self.last);
                }
                self.last = position;
                self.changes.push((position, change.clone()));
            }
            if part.complete {
                self.transactions.push(part.changes.len());
            }
        }
        if let Some(checkpoint) = &batch.checkpoint {
            assert!(checkpoint.position >= self.checkpoint.position, "a checkpoint went backwards");
            assert!(checkpoint.position >= self.last, "a checkpoint before its changes");
            self.checkpoint = checkpoint.clone();
        }
        Ok(batch)
    }

    pub async fn until(&mut self, changes: usize) -> Result<()> {
        while self.changes.len() < changes {
            let have = self.changes.len();
            self.batch().await.with_context(|| format!("{have} of {changes} changes have come"))?;
        }
        Ok(())
    }

    pub fn ops(&self) -> String {
        self.changes.iter().map(|(_, change)| change.op.code()).collect()
    }
}

/// A relational source's schema; the first column is the key.
pub fn schema(table: &str, columns: &[(&str, ColumnType)]) -> Arc<Schema> {
    let columns = columns.iter().map(|(name, kind)| Column {
        name: (*name).to_owned(),
        kind: kind.clone(),
        type_name: kind.to_string(),
        nullable: true,
        generated: false,
    });
    Arc::new(Schema::new(TableName::new(table), Engine::Postgres, columns.collect(), vec![0]))
}

pub fn write(schema: &Arc<Schema>, op: Op, before: Option<&[Cell<'_>]>, after: Option<&[Cell<'_>]>) -> Write {
    let change = Change { schema: schema.clone(), op, before: before.map(row), after: after.map(row) };
    Write { change, offset: Offset(0), parked: false }
}

pub struct Parked(pub std::sync::Mutex<Vec<Vec<Refused>>>);

#[async_trait]
impl Parking for Parked {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, _: &WriteBatch, refused: &[Refused]) -> sync_worker_core::error::Result<()> {
        self.0.lock().unwrap().push(refused.to_vec());
        Ok(())
    }
}

pub struct Writer {
    pub sink: Box<dyn Sink>,
    pub marker: Marker,
    pub parked: usize,
}

impl Writer {
    pub fn batch(&self, mut writes: Vec<Write>) -> WriteBatch {
        let from = self.marker.offset.map_or(0, |offset| offset.0 + 1);
        for (at, write) in writes.iter_mut().enumerate() {
            write.offset = Offset(from + at as u64);
        }
        let offset = Some(Offset(from + writes.len() as u64));
        let marker = Marker { offset, digest: u64::MAX, writes: self.marker.writes + 1, ..self.marker.clone() };
        WriteBatch { expected: self.marker.clone(), marker, writes, unpark: Vec::new() }
    }

    pub async fn try_apply(&mut self, batch: &WriteBatch) -> sync_worker_core::error::Result<Applied> {
        let applied = self.sink.apply(batch, &Parked(Default::default())).await?;
        self.marker = batch.marker.clone();
        Ok(applied)
    }

    pub async fn apply(&mut self, writes: Vec<Write>) -> Result<Applied> {
        let batch = self.batch(writes);
        self.try_apply(&batch).await.map_err(|error| anyhow::anyhow!("{error:?}"))
    }
}
