//! A database per test, and batches in few words.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, Value as DriverValue};
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Scope, TableAt};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::secret::Secret;
pub use sync_worker_core::sink::Write;
use sync_worker_core::sink::{Applied, Marker, Parking, Sink, WriteBatch};
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};
use sync_worker_mysql::Config;
use sync_worker_mysql::sink::MysqlSink;
use sync_worker_testkit::writer;
pub use sync_worker_testkit::writer::Lot;

pub const INT: ColumnType = ColumnType::Int { bits: 64, unsigned: false };
pub const TEXT: ColumnType = ColumnType::Text { limit: TextLimit::None, padded: false };
pub const U: Cell<'static> = Cell::Unchanged;
pub const NULL: Cell<'static> = Cell::Present(Value::Null);

pub fn int(value: i64) -> Cell<'static> {
    Cell::Present(Value::Int(value))
}

pub fn text(value: &str) -> Cell<'_> {
    Cell::Present(Value::Text(value))
}

pub struct Fixture {
    pub database: String,
    pub conn: Conn,
    pub config: Config,
    pub scope: Scope,
    pub parked: Lot,
    pub marker: Marker,
    sink: Option<MysqlSink>,
}

pub fn row(cells: &[Cell<'_>]) -> Row {
    let mut builder = RowBuilder::default();
    cells.iter().for_each(|cell| builder.push(*cell));
    builder.finish()
}

/// A source's schema; the first `key` columns are its key.
pub fn schema_of(engine: Engine, table: &str, columns: &[(&str, ColumnType)], key: usize) -> Arc<Schema> {
    let columns = columns.iter().map(|(name, kind)| Column {
        name: (*name).to_owned(),
        kind: kind.clone(),
        type_name: kind.to_string(),
        nullable: true,
        generated: false,
    });
    Arc::new(Schema::new(TableName::new(table), engine, columns.collect(), (0..key).collect()))
}

pub fn schema(table: &str, columns: &[(&str, ColumnType)]) -> Arc<Schema> {
    schema_of(Engine::Postgres, table, columns, 1)
}

fn write(schema: &Arc<Schema>, op: Op, before: Option<Row>, after: Option<Row>) -> Write {
    writer::write(Change { schema: schema.clone(), op, before, after })
}

pub fn create(schema: &Arc<Schema>, cells: &[Cell<'_>]) -> Write {
    write(schema, Op::Create, None, Some(row(cells)))
}

pub fn read(schema: &Arc<Schema>, cells: &[Cell<'_>]) -> Write {
    write(schema, Op::Read, None, Some(row(cells)))
}

pub fn update(schema: &Arc<Schema>, cells: &[Cell<'_>]) -> Write {
    write(schema, Op::Update, None, Some(row(cells)))
}

/// An update with the row as it was before, for those that change the key.
pub fn change(schema: &Arc<Schema>, before: &[Cell<'_>], after: &[Cell<'_>]) -> Write {
    write(schema, Op::Update, Some(row(before)), Some(row(after)))
}

pub fn delete(schema: &Arc<Schema>, cells: &[Cell<'_>]) -> Write {
    write(schema, Op::Delete, Some(row(cells)), None)
}

pub fn truncate(schema: &Arc<Schema>) -> Write {
    write(schema, Op::Truncate, None, None)
}

pub fn again(write: Write) -> Write {
    Write { parked: true, ..write }
}

/// The server's text for a value, NULL as such.
fn shown(value: DriverValue) -> String {
    match value {
        DriverValue::NULL => "NULL".to_owned(),
        DriverValue::Bytes(bytes) => {
            String::from_utf8(bytes).unwrap_or_else(|bytes| format!("{:?}", bytes.into_bytes()))
        }
        other => format!("{other:?}"),
    }
}

impl Fixture {
    /// None where there is no server. `ddl` runs in the test's own database; its tables are those of the scope.
    pub async fn new(name: &str, ddl: &[&str]) -> Option<Self> {
        let Ok(url) = std::env::var("SYNC_WORKER_TEST_MYSQL") else {
            println!("skipped: SYNC_WORKER_TEST_MYSQL is not set");
            return None;
        };
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let database = format!("sink_{name}_{}", std::process::id());
        let mut conn = Conn::new(Opts::from_url(&url).unwrap()).await.unwrap();
        conn.query_drop(format!("DROP DATABASE IF EXISTS {database}")).await.unwrap();
        conn.query_drop(format!("CREATE DATABASE {database}")).await.unwrap();
        conn.query_drop(format!("USE {database}")).await.unwrap();
        conn.query_drop("SET NAMES utf8mb4, time_zone = '+00:00', transaction_isolation = 'READ-COMMITTED'")
            .await
            .unwrap();
        for statement in ddl {
            conn.query_drop(*statement).await.unwrap();
        }
        let tables: Vec<String> = conn.query("SHOW TABLES").await.unwrap();
        let tables = tables
            .iter()
            .map(|name| TableAt { table: TableName::new(name), name: name.clone(), document: Default::default() })
            .collect();
        let base = url.split('?').next().unwrap().trim_end_matches('/');
        let base = match base.matches('/').count() {
            2 => base,
            _ => base.rsplit_once('/').unwrap().0,
        };
        let password = Opts::from_url(&url).unwrap().pass().map(|text| Secret::new(text.to_owned()));
        let config = Config { url: format!("{base}/{database}"), password, server_id: None };
        let scope = Scope {
            installation: database.as_str().into(),
            pipeline: "p".into(),
            tables,
            two_way: false,
            spill: std::env::temp_dir(),
        };
        let marker = Marker { offset: None, log: "log".into(), digest: 0, epoch: 0, writes: 0 };
        let parked = Lot::default();
        let mut fixture = Self { database, conn, config, scope, parked, marker, sink: None };
        fixture.connect().await;
        Some(fixture)
    }

    /// A new connection takes over.
    pub async fn connect(&mut self) {
        let mut sink = self.another_sink().await;
        self.marker = sink.take_over("log").await.unwrap().marker;
        self.sink = Some(sink);
    }

    pub async fn another_sink(&self) -> MysqlSink {
        MysqlSink::connect(&self.config, &DatabaseName::new("target"), &self.scope).await.unwrap()
    }

    pub fn batch(&self, mut writes: Vec<Write>) -> WriteBatch {
        let from = self.marker.offset.map_or(0, |offset| offset.0 + 1);
        for (at, write) in writes.iter_mut().enumerate() {
            write.offset = Offset(from + at as u64);
        }
        let offset = Some(Offset(from + writes.len() as u64));
        let marker = Marker { offset, digest: 7 + from, writes: self.marker.writes + 1, ..self.marker.clone() };
        WriteBatch { expected: self.marker.clone(), marker, writes, unpark: Vec::new(), retry: false }
    }

    pub async fn try_apply(&mut self, batch: &WriteBatch) -> Result<Applied> {
        let parked = std::mem::take(&mut self.parked);
        let applied = self.try_apply_with(batch, &parked).await;
        self.parked = parked;
        applied
    }

    pub async fn try_apply_with(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied> {
        let applied = self.sink.as_mut().unwrap().apply(batch, parking).await?;
        self.marker = batch.marker.clone();
        Ok(applied)
    }

    pub async fn apply(&mut self, writes: Vec<Write>) -> Applied {
        let batch = self.batch(writes);
        self.try_apply(&batch).await.unwrap()
    }

    /// Tries a parked version again: the marker has passed it and stays.
    pub async fn retry(&mut self, write: Write, offset: u64) -> Applied {
        let mut batch = self.batch(Vec::new());
        batch.marker.offset = self.marker.offset;
        batch.writes = vec![Write { offset: Offset(offset), parked: true, ..write }];
        self.try_apply(&batch).await.unwrap()
    }

    /// Applies writes that must all be taken, as sets.
    pub async fn apply_as_sets(&mut self, writes: Vec<Write>) -> Applied {
        let applied = self.apply(writes).await;
        assert!(applied.refused.is_empty() && !applied.row_by_row, "{applied:?}");
        applied
    }

    pub async fn query(&mut self, sql: &str) -> Vec<String> {
        let rows: Vec<mysql_async::Row> = self.conn.query(sql).await.unwrap();
        let line = |row: mysql_async::Row| row.unwrap().into_iter().map(shown).collect::<Vec<_>>().join("|");
        rows.into_iter().map(line).collect()
    }

    /// All rows of a table, by key.
    pub async fn rows(&mut self, table: &str) -> Vec<String> {
        self.query(&format!("SELECT * FROM {table} ORDER BY 1, 2")).await
    }

    pub async fn run(&mut self, sql: &str) {
        self.conn.query_drop(sql).await.unwrap();
    }

    /// The parked rows: table, offset and reason.
    pub async fn parked_rows(&mut self) -> Vec<String> {
        let sql = format!(
            "SELECT table_name, `offset`, reason FROM sync_worker.parked WHERE installation = '{}' ORDER BY `offset`",
            self.database
        );
        self.query(&sql).await
    }

    pub async fn close(mut self) {
        drop(self.sink.take());
        for table in ["progress", "parked"] {
            let sql = format!("DELETE FROM sync_worker.{table} WHERE installation = '{}'", self.database);
            self.conn.query_drop(sql).await.unwrap();
        }
        self.conn.query_drop(format!("DROP DATABASE {}", self.database)).await.unwrap();
        self.conn.disconnect().await.unwrap();
    }
}

/// The refused writes with their classes, without reasons.
pub fn refused(applied: &Applied) -> Vec<(usize, ErrorClass)> {
    writer::refused(&applied.refused)
}
