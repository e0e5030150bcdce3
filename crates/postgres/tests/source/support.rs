//! A pipeline over a fresh database, and what its stream says, as text.

use anyhow::Result;
use std::fmt::Write;
use sync_worker_core::change::Change;
use sync_worker_core::database::{Scope, TableAt};
use sync_worker_core::position::{Checkpoint, Lsn, Position, PostgresPosition};
use sync_worker_core::row::Row;
use sync_worker_core::schema::Schema;
use sync_worker_core::value::{Cell, Value};
use sync_worker_postgres::{Config, Postgres};
use sync_worker_testkit::postgres::TestDatabase;
use sync_worker_testkit::stream::Stream;
use tempfile::TempDir;

pub struct Fixture {
    pub database: TestDatabase,
    pub postgres: Postgres,
    pub scope: Scope,
    _folder: TempDir,
}

impl Fixture {
    /// Runs `sql`, then takes part with `tables` of the schema `public`.
    pub async fn new(sql: &str, tables: &[&str]) -> Result<Self> {
        Self::over(TestDatabase::create().await?, sql, tables).await
    }

    pub async fn over(database: TestDatabase, sql: &str, tables: &[&str]) -> Result<Self> {
        database.execute(sql).await?;
        let folder = tempfile::tempdir()?;
        let table =
            |name: &&str| TableAt { table: (*name).into(), name: (*name).to_owned(), document: Default::default() };
        let scope = Scope {
            installation: "test".into(),
            pipeline: database.name.as_str().into(),
            tables: tables.iter().map(table).collect(),
            two_way: false,
            spill: folder.path().join("spill"),
        };
        let postgres = Postgres::new("crm".into(), Config::new(database.url.clone()))?;
        Ok(Self { database, postgres, scope, _folder: folder })
    }

    pub async fn stream(&self, from: Option<&Checkpoint>) -> Result<Stream> {
        self.open(from).await.map_err(|error| anyhow::anyhow!("{error:?}"))
    }

    pub async fn open(&self, from: Option<&Checkpoint>) -> Result<Stream, sync_worker_core::error::Error> {
        Stream::open(&self.postgres, &self.scope, from).await
    }

    /// A place above everything that has committed.
    pub async fn here(&self) -> Result<Position> {
        let lsn = self.database.value("SELECT pg_logical_emit_message(true, 'test', '')").await?;
        let Lsn(lsn) = lsn.parse()?;
        Ok(Position::Postgres(PostgresPosition { commit: Lsn(lsn - 1), ordinal: u64::MAX }))
    }

    /// Everything from the stream's place up to now.
    pub async fn read(&self, stream: &mut Stream) -> Result<Vec<(Position, Change)>> {
        stream.reach(self.here().await?).await?;
        Ok(std::mem::take(&mut stream.changes))
    }

    /// The same as text, each change with its ordinal.
    pub async fn changes(&self, stream: &mut Stream) -> Result<Vec<String>> {
        let changes = self.read(stream).await?;
        Ok(changes.iter().map(|(position, change)| format!("{} {}", position.ordinal(), text(change))).collect())
    }

    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.database.execute(sql).await
    }

    /// What the server may forget.
    pub async fn confirmed(&self) -> Result<Lsn> {
        let sql = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()";
        Ok(self.database.value(sql).await?.parse()?)
    }
}

/// `u id=1 name=a -> id=1 name=?`
pub fn text(change: &Change) -> String {
    let mut text = change.op.to_string();
    if let Some(before) = &change.before {
        write!(text, " {} ->", row(&change.schema, before)).unwrap();
    }
    if let Some(after) = &change.after {
        write!(text, " {}", row(&change.schema, after)).unwrap();
    }
    text
}

pub fn row(schema: &Schema, row: &Row) -> String {
    let cell = |(column, cell): (&sync_worker_core::schema::Column, Result<Cell<'_>, _>)| {
        let value = match cell.unwrap() {
            Cell::Unchanged => "?".to_owned(),
            Cell::Present(Value::Null) => "NULL".to_owned(),
            Cell::Present(Value::Int(number)) => number.to_string(),
            Cell::Present(Value::Text(text)) if text.len() > 20 => format!("{} characters", text.len()),
            Cell::Present(Value::Text(text)) => text.to_owned(),
            Cell::Present(value) => format!("{value:?}"),
        };
        format!("{}={value}", column.name)
    };
    schema.columns.iter().zip(row.cells()).map(cell).collect::<Vec<_>>().join(" ")
}
