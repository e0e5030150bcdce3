//! A database per test, streams and batches in few words.

use anyhow::{Result, anyhow};
use bson::{Document, doc};
use futures::TryStreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Database as _, Scope, TableAt};
use sync_worker_core::document::mapping::OtherFields;
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::name::TableName;
use sync_worker_core::position::Checkpoint;
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::sink::{Applied, Write, WriteBatch};
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};
use sync_worker_mongodb::{Config, Mongodb};
use sync_worker_testkit::stream::Stream;
use sync_worker_testkit::writer::{self, Lot, Writer};

pub const INT: ColumnType = ColumnType::Int { bits: 64, unsigned: false };
pub const TEXT: ColumnType = ColumnType::Text { limit: TextLimit::None, padded: false };
pub const U: Cell<'static> = Cell::Unchanged;

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
            two_way: false,
            spill: std::env::temp_dir(),
        };
        let (base, query) = server.split_once('?').unwrap_or((&server, ""));
        let base = base.trim_end_matches('/');
        let mongodb = Mongodb::new("shop".into(), Config::new(format!("{base}/{name}?{query}")))?;
        Ok(Some(Self { client, database, mongodb, scope }))
    }

    /// A member of a two-way pipeline, whose documents may have fields of their own.
    pub async fn two_way(collections: &[&str]) -> Result<Option<Self>> {
        let Some(mut fixture) = Self::new(collections).await? else { return Ok(None) };
        for name in collections {
            fixture.post_images(name).await?;
        }
        fixture.scope.two_way = true;
        fixture.scope.tables.iter_mut().for_each(|at| at.document.other_fields = OtherFields::Ignore);
        Ok(Some(fixture))
    }

    pub fn rows(&self, name: &str) -> mongodb::Collection<Document> {
        self.database.collection(name)
    }

    /// All documents of a collection, by their keys.
    pub async fn all(&self, name: &str) -> Result<Vec<Document>> {
        Ok(self.rows(name).find(doc! {}).sort(doc! { "_id": 1 }).await?.try_collect().await?)
    }

    pub async fn open(&self, from: Option<&Checkpoint>) -> Result<Stream> {
        Stream::open(&self.mongodb, &self.scope, from).await.map_err(|error| anyhow!("{error:?}"))
    }

    pub async fn post_images(&self, name: &str) -> Result<()> {
        let images = doc! { "enabled": true };
        self.database.run_command(doc! { "collMod": name, "changeStreamPreAndPostImages": images }).await?;
        Ok(())
    }

    pub async fn sink(&self) -> Result<Writer> {
        let failed = |error| anyhow!("{error:?}");
        Writer::over(self.mongodb.sink(&self.scope).await.map_err(failed)?).await.map_err(failed)
    }
}

/// Applies the next batch.
pub async fn apply(writer: &mut Writer, writes: Vec<Write>) -> Result<Applied> {
    writer.apply(writes).await.map_err(|error| anyhow!("{error:?}"))
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
    writer::write(Change { schema: schema.clone(), op, before: before.map(row), after: after.map(row) })
}

pub fn image(cells: &[Cell<'_>]) -> Image {
    Image::of(Some(&row(cells)))
}

pub fn seen(cells: &[Cell<'_>]) -> Seen {
    Seen::of(Some(row(cells)))
}

/// The row that is to be under its key, over any of the images.
pub fn version(schema: &Arc<Schema>, cells: &[Cell<'_>], over: &[Image]) -> Write {
    Write { over: Some(over.to_vec()), ..write(schema, Op::Update, None, Some(cells)) }
}

/// The same of no row.
pub fn gone(schema: &Arc<Schema>, key: &[Cell<'_>], over: &[Image]) -> Write {
    Write { over: Some(over.to_vec()), ..write(schema, Op::Delete, Some(key), None) }
}

/// A parked version that is tried again: the marker has passed it and stays.
pub fn retry_of(writer: &Writer, writes: Vec<(Write, Offset)>) -> WriteBatch {
    let mut batch = writer.batch(Vec::new());
    batch.marker.offset = writer.marker.offset;
    batch.writes = writes.into_iter().map(|(write, offset)| Write { offset, parked: true, ..write }).collect();
    batch.retry = true;
    batch
}

/// Applies a batch as it is.
pub async fn try_apply(writer: &mut Writer, batch: &WriteBatch, lot: &Lot) -> Result<Applied> {
    writer.try_apply(batch, lot).await.map_err(|error| anyhow!("{error:?}"))
}
