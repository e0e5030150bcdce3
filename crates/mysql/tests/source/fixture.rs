//! A source over a fresh database, and what it has returned, row by row.

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;
use sync_worker_core::change::Op;
use sync_worker_core::database::{Database, Scope, TableAt};
use sync_worker_core::position::Checkpoint;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::value::{Cell, Value};
use sync_worker_mysql::{Config, Mysql};
use sync_worker_testkit::mysql::MysqlDatabase;
use sync_worker_testkit::stream::Stream;

pub struct Fixture {
    pub database: MysqlDatabase,
    pub mysql: Mysql,
    pub scope: Scope,
    _spill: tempfile::TempDir,
}

impl Fixture {
    /// Makes tables by statements, and a pipeline over those named.
    pub async fn new(statements: &[&str], tables: &[&str]) -> Result<Option<Self>> {
        let Some(database) = MysqlDatabase::create().await? else { return Ok(None) };
        database.run(statements).await?;
        let spill = tempfile::tempdir()?;
        let config = Config { url: database.url.clone(), password: None, server_id: None };
        let scope = Scope {
            installation: database.name.as_str().into(),
            pipeline: "test".into(),
            tables: tables
                .iter()
                .map(|name| TableAt { table: (*name).into(), name: (*name).to_owned(), document: Default::default() })
                .collect(),
            two_way: false,
            spill: spill.path().join("spill"),
        };
        let mysql = Mysql::new("shop".into(), config)?;
        Ok(Some(Self { database, mysql, scope, _spill: spill }))
    }

    pub async fn run(&self, statements: &[&str]) -> Result<()> {
        self.database.run(statements).await
    }

    pub async fn open(&self, from: Option<&Checkpoint>) -> Result<Stream> {
        Stream::open(&self.mysql, &self.scope, from).await.map_err(|error| anyhow::anyhow!("{error:?}"))
    }

    /// All rows of a table, as the reader sees them.
    pub async fn rows(&self, table: &str) -> Result<Vec<Row>> {
        let mut reader = self.mysql.reader(&self.scope).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let chunk = reader.read_range(&table.into(), &Default::default(), usize::MAX).await;
        Ok(chunk.map_err(|error| anyhow::anyhow!("{error:?}"))?.rows)
    }
}

/// Reads until the checkpoint holds everything that the server has executed.
pub async fn read_all(stream: &mut Stream, fixture: &Fixture) -> Result<()> {
    let mut conn = fixture.database.connect().await?;
    loop {
        let missing = format!("SELECT GTID_SUBTRACT(@@gtid_executed, '{}')", stream.checkpoint.resume);
        let missing: Option<String> = conn.query_first(missing).await?;
        if missing.is_none_or(|set| set.is_empty()) {
            return Ok(());
        }
        stream.batch().await?;
    }
}

/// What a stream's changes make of a table that was empty; partial images are laid over older ones.
pub fn applied(stream: &Stream, table: &str) -> Result<Vec<Row>> {
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    for (_, change) in stream.changes.iter().filter(|(_, change)| change.table().as_str() == table) {
        let key = change.key()?;
        match (change.op, key, &change.after) {
            (Op::Truncate, _, _) => rows.clear(),
            (Op::Delete, Some(key), _) => {
                rows.remove(&key).context("a delete of no row")?;
            }
            (Op::Create | Op::Update | Op::Read, Some(key), Some(after)) => {
                let old = change.old_key()?.unwrap_or_else(|| key.clone());
                let older = rows.remove(&old);
                let row = match older {
                    Some(older) => after.over(&older)?,
                    None => after.clone(),
                };
                rows.insert(key, row);
            }
            (op, _, _) => bail!("a change {op} without an image"),
        }
    }
    Ok(rows.into_values().collect())
}

/// A row in words, for messages.
pub fn shown(row: &Row) -> String {
    let cells: Vec<String> = row.cells().map(|cell| cell.map_or("?".into(), |cell| format!("{cell:?}"))).collect();
    cells.join(" | ")
}

pub fn assert_rows_equal(one: &[Row], other: &[Row]) {
    let sorted = |rows: &[Row]| {
        let mut rows = rows.to_vec();
        rows.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        rows
    };
    let (one, other) = (sorted(one), sorted(other));
    for (a, b) in one.iter().zip(&other) {
        let cells = a.cells().zip(b.cells()).enumerate();
        for (at, (x, y)) in cells {
            assert_eq!(x.unwrap(), y.unwrap(), "column {} of\n{}\n{}", at + 1, shown(a), shown(b));
        }
        assert_eq!(a, b);
    }
    assert_eq!(one.len(), other.len(), "numbers of rows");
}

/// The first column, which is a number in most tests.
pub fn first_int(row: &Row) -> i64 {
    match row.cells().next() {
        Some(Ok(Cell::Present(Value::Int(value)))) => value,
        _ => i64::MIN,
    }
}
