//! A fresh database per test, a sink on it, and changes to write.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Database as _, Scope, TableAt};
use sync_worker_core::error::{Error, ErrorClass, Result};
use sync_worker_core::name::{InstallationId, PipelineName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::{Applied, Marker, Sink, Write, WriteBatch};
use sync_worker_core::value::{Cell, Value};
use sync_worker_postgres::catalog::{self, Qualified};
use sync_worker_postgres::client::{self, Client, Purpose};
use sync_worker_postgres::config::SessionReplicationRole;
use sync_worker_postgres::{Config, Postgres};
use sync_worker_testkit::writer::{self, refused};
pub use sync_worker_testkit::writer::{LOG, Lot};

pub struct Target {
    pub config: Config,
    /// A session of its own, to look and to prepare.
    pub client: Client,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Runs a test with a database of its own inside the server of `SYNC_WORKER_TEST_POSTGRES`; without one it says so.
pub fn on_server<F: Future<Output = ()>>(test: impl FnOnce(Target) -> F) {
    let Ok(url) = std::env::var("SYNC_WORKER_TEST_POSTGRES") else {
        eprintln!("skipped: SYNC_WORKER_TEST_POSTGRES names no server");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let admin = client::connect(&Config::new(&url), Purpose::Control).await.unwrap();
        let name = format!("sink_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let end = url.find('?').unwrap_or(url.len());
        let start = url[..end].rfind('/').unwrap();
        let config = Config::new(format!("{}/{name}{}", &url[..start], &url[end..]));
        let client = client::connect(&config, Purpose::Control).await.unwrap();
        client.batch_execute("SET search_path = public; SET idle_in_transaction_session_timeout = 0").await.unwrap();
        test(Target { config, client }).await;
        admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    });
}

impl Target {
    pub async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    }

    /// The rows of a query as texts, in order.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let rows =
            self.client.rows("a look", &format!("SELECT one_row::text FROM ({sql}) one_row ORDER BY 1")).await.unwrap();
        rows.iter().map(|row| row.get(0).unwrap_or_default().to_owned()).collect()
    }

    /// All rows of a table as texts, in order.
    pub async fn table(&self, name: &str) -> Vec<String> {
        self.rows(&format!("SELECT * FROM public.{name}")).await
    }

    /// A source that has the same columns as this target.
    pub async fn schema(&self, name: &str) -> Arc<Schema> {
        // As a source's connection has it, so that types have their full names.
        self.sql("SET search_path = ''").await;
        let table = catalog::table(&self.client, &Qualified::parse(name)).await.unwrap().unwrap();
        self.sql("SET search_path = public").await;
        Arc::new(table.schema(&TableName::new(name)).unwrap())
    }

    pub fn with_role(mut self, role: SessionReplicationRole) -> Self {
        self.config.session_replication_role = role;
        self
    }

    pub async fn try_sink(&self, tables: &[&str]) -> Result<Box<dyn Sink>> {
        self.sink_of(tables, false).await
    }

    async fn sink_of(&self, tables: &[&str], two_way: bool) -> Result<Box<dyn Sink>> {
        let table = |name: &&str| TableAt {
            table: TableName::new(name),
            name: format!("public.{name}"),
            document: Default::default(),
        };
        let scope = Scope {
            installation: InstallationId::new("installation"),
            pipeline: PipelineName::new("pipeline"),
            tables: tables.iter().map(table).collect(),
            two_way,
            spill: std::env::temp_dir(),
        };
        Postgres::new("target".into(), self.config.clone())?.sink(&scope).await
    }

    pub async fn applier(&self, tables: &[&str]) -> Applier {
        Self::taken_over(self.try_sink(tables).await.unwrap()).await
    }

    /// Of a two-way pipeline.
    pub async fn guarded(&self, tables: &[&str]) -> Applier {
        Self::taken_over(self.sink_of(tables, true).await.unwrap()).await
    }

    async fn taken_over(mut sink: Box<dyn Sink>) -> Applier {
        let marker = sink.take_over(LOG).await.unwrap().marker;
        Applier { sink, marker }
    }

    /// The marker as it stands.
    pub async fn marker(&self) -> String {
        let sql = "SELECT \"offset\", log, digest, epoch, writes FROM sync_worker.progress \
                   WHERE (installation, pipeline, database, partition) = ('installation', 'pipeline', 'target', 0)";
        self.rows(sql).await.join(";")
    }

    pub async fn parked(&self) -> Vec<String> {
        self.rows("SELECT table_name, \"offset\", reason FROM sync_worker.parked").await
    }
}

pub struct Applier {
    pub sink: Box<dyn Sink>,
    pub marker: Marker,
}

impl Applier {
    pub fn batch(&self, writes: Vec<Write>) -> WriteBatch {
        let offset = Offset(self.marker.offset.map_or(0, |offset| offset.0 + writes.len() as u64));
        let marker = Marker {
            offset: Some(offset),
            digest: u64::MAX - offset.0,
            writes: self.marker.writes + 1,
            ..self.marker.clone()
        };
        WriteBatch { expected: self.marker.clone(), marker, writes, unpark: Vec::new(), retry: false }
    }

    pub async fn write(&mut self, batch: &WriteBatch, lot: &Lot) -> Result<Applied> {
        let applied = self.sink.apply(batch, lot).await?;
        self.marker = batch.marker.clone();
        Ok(applied)
    }

    /// Applies changes of which none is refused.
    pub async fn apply(&mut self, changes: Vec<Change>) -> Applied {
        let (applied, lot) = self.park(changes).await;
        assert_eq!(lot.refused(), Vec::<(usize, ErrorClass)>::new(), "{:?}", applied.refused);
        applied
    }

    pub async fn park(&mut self, changes: Vec<Change>) -> (Applied, Lot) {
        let lot = Lot::default();
        let batch = self.batch(writes(changes, self.marker.offset.map_or(0, |offset| offset.0 + 1)));
        let applied = self.write(&batch, &lot).await.unwrap();
        assert_eq!(refused(&applied.refused), lot.refused(), "what was parked is not what was told");
        (applied, lot)
    }

    pub async fn fails(&mut self, changes: Vec<Change>) -> Error {
        let batch = self.batch(writes(changes, 0));
        self.sink.apply(&batch, &Lot::default()).await.unwrap_err()
    }
}

pub fn writes(changes: Vec<Change>, first: u64) -> Vec<Write> {
    let write = |(offset, change)| Write { offset: Offset(offset), ..writer::write(change) };
    (first..).zip(changes).map(write).collect()
}

pub const UNCHANGED: Cell<'static> = Cell::Unchanged;

pub fn cells(cells: &[Cell<'_>]) -> Row {
    let mut builder = RowBuilder::default();
    cells.iter().for_each(|cell| builder.push(*cell));
    builder.finish()
}

pub fn row(values: &[Value<'_>]) -> Row {
    cells(&values.iter().map(|value| Cell::Present(*value)).collect::<Vec<_>>())
}

fn change(schema: &Arc<Schema>, op: Op, before: Option<Row>, after: Option<Row>) -> Change {
    Change { schema: schema.clone(), op, before, after }
}

pub fn create(schema: &Arc<Schema>, values: &[Value<'_>]) -> Change {
    change(schema, Op::Create, None, Some(row(values)))
}

pub fn read(schema: &Arc<Schema>, values: &[Value<'_>]) -> Change {
    change(schema, Op::Read, None, Some(row(values)))
}

pub fn update(schema: &Arc<Schema>, values: &[Value<'_>]) -> Change {
    change(schema, Op::Update, None, Some(row(values)))
}

pub fn patch(schema: &Arc<Schema>, partial: &[Cell<'_>]) -> Change {
    change(schema, Op::Update, None, Some(cells(partial)))
}

/// An update of the key: of the row before, only the key is known.
pub fn rekey(schema: &Arc<Schema>, old_key: &[Value<'_>], after: &[Cell<'_>]) -> Change {
    change(schema, Op::Update, Some(key_image(schema, old_key)), Some(cells(after)))
}

pub fn delete(schema: &Arc<Schema>, key: &[Value<'_>]) -> Change {
    change(schema, Op::Delete, Some(key_image(schema, key)), None)
}

pub fn truncate(schema: &Arc<Schema>) -> Change {
    change(schema, Op::Truncate, None, None)
}

fn key_image(schema: &Schema, key: &[Value<'_>]) -> Row {
    let mut image = vec![UNCHANGED; schema.columns.len()];
    for (at, value) in schema.key.iter().zip(key) {
        image[*at] = Cell::Present(*value);
    }
    cells(&image)
}
