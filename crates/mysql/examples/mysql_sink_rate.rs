//! How fast the sink writes, beside plain multi-row upserts of the same rows over the same kind of connection.
//!
//! `SYNC_WORKER_TEST_MYSQL=mysql://root@127.0.0.1:3306/ cargo run --release -p sync-worker-mysql --example mysql_sink_rate [CHANGES]`

use anyhow::{Context, Result};
use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;
use sync_worker_core::bus::Flush;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Scope, TableAt};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::RowBuilder;
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::sink::{Marker, Parking, Refused, Sink, Write, WriteBatch};
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};
use sync_worker_mysql::Config;
use sync_worker_mysql::sink::MysqlSink;

const ACCOUNTS: u64 = 100_000;
const COLUMNS: &str = "aid BIGINT PRIMARY KEY, bid INT, abalance INT, filler CHAR(84)";

struct Nothing;

#[async_trait]
impl Parking for Nothing {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, _: &WriteBatch, _: &[Refused]) -> sync_worker_core::error::Result<()> {
        Ok(())
    }
}

/// CPU seconds of a process.
fn cpu_of(process: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

/// CPU seconds of this process and of a server on this machine; 0 for one elsewhere.
fn cpu() -> Result<[f64; 2]> {
    let server = SERVER.get().and_then(|process| cpu_of(process).ok()).unwrap_or(0.0);
    Ok([cpu_of("self")?, server])
}

static SERVER: std::sync::OnceLock<String> = std::sync::OnceLock::new();

struct Keys(u64);

impl Keys {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % ACCOUNTS + 1
    }
}

fn schema(table: &str) -> Arc<Schema> {
    let int = |bits| ColumnType::Int { bits, unsigned: false };
    let text = ColumnType::Text { limit: TextLimit::Characters(84), padded: true };
    let columns = [("aid", int(64)), ("bid", int(32)), ("abalance", int(32)), ("filler", text)];
    let columns = columns.into_iter().map(|(name, kind)| Column {
        name: name.to_owned(),
        type_name: kind.to_string(),
        kind,
        nullable: true,
        generated: false,
    });
    Arc::new(Schema::new(TableName::new(table), Engine::Postgres, columns.collect(), vec![0]))
}

struct Bench {
    sink: MysqlSink,
    marker: Marker,
    builder: RowBuilder,
    filler: String,
}

impl Bench {
    fn write(&mut self, schema: &Arc<Schema>, op: Op, key: u64, balance: i64) -> Write {
        self.builder.push(Cell::Present(Value::unsigned(key)));
        self.builder.push(Cell::Present(Value::Int(1)));
        self.builder.push(Cell::Present(Value::Int(balance)));
        self.builder.push(Cell::Present(Value::Text(&self.filler)));
        let change = Change { schema: schema.clone(), op, before: None, after: Some(self.builder.finish()) };
        Write { change, offset: Offset(0), parked: false, over: None }
    }

    async fn apply(&mut self, writes: Vec<Write>) -> Result<()> {
        let offset = Some(Offset(self.marker.offset.map_or(0, |offset| offset.0) + writes.len() as u64));
        let marker = Marker { offset, writes: self.marker.writes + 1, ..self.marker.clone() };
        let batch = WriteBatch {
            expected: self.marker.clone(),
            marker: marker.clone(),
            writes,
            unpark: Vec::new(),
            retry: false,
        };
        let applied = self.sink.apply(&batch, &Nothing).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        anyhow::ensure!(applied.refused.is_empty() && !applied.row_by_row, "{applied:?}");
        self.marker = marker;
        Ok(())
    }

    async fn measure(&mut self, name: &str, table: &str, op: Op, changes: u64, size: u64) -> Result<f64> {
        let schema = schema(table);
        let mut keys = Keys(size);
        let (start, before) = (Instant::now(), cpu()?);
        let (mut taken, mut made) = (0.0, 0);
        while made < changes {
            let begin = Instant::now();
            let writes = (0..size).map(|at| {
                let key = if op == Op::Update { keys.next() } else { made + at + 1 };
                self.write(&schema, op, key, i64::try_from(made + at).unwrap_or(0))
            });
            let writes: Vec<_> = writes.collect();
            taken += begin.elapsed().as_secs_f64();
            self.apply(writes).await?;
            made += size;
        }
        // Making the changes is no part of it.
        let before = [before[0] + taken, before[1]];
        report(name, size, made, start.elapsed().as_secs_f64() - taken, before)
    }
}

#[allow(clippy::cast_precision_loss)]
fn report(name: &str, size: u64, changes: u64, seconds: f64, before: [f64; 2]) -> Result<f64> {
    let rate = changes as f64 / seconds;
    let after = cpu()?;
    let [client, server] = [0, 1].map(|at| (after[at] - before[at]) * 1e6 / changes as f64);
    println!("{name:30} {size:6} {rate:8.0} changes/s; CPU s per million: client {client:5.2}, server {server:5.2}");
    Ok(rate)
}

async fn probe(conn: &mut Conn, table: &str, changes: u64, size: u64) -> Result<f64> {
    let (start, before, filler) = (Instant::now(), cpu()?, "x".repeat(84));
    let (mut keys, mut made) = (Keys(size), 0);
    while made < changes {
        conn.query_drop("START TRANSACTION").await?;
        for _ in 0..(10_000 / size).max(1) {
            let mut sql = format!("INSERT INTO {table} VALUES ");
            for at in 0..size {
                let comma = if at == 0 { "" } else { "," };
                write!(sql, "{comma}({},1,{},'{filler}')", keys.next(), made + at)?;
            }
            sql.push_str(" AS n ON DUPLICATE KEY UPDATE bid=n.bid, abalance=n.abalance, filler=n.filler");
            conn.query_drop(sql).await?;
            made += size;
        }
        conn.query_drop("COMMIT").await?;
    }
    report("probe: multi-row upsert", size, made, start.elapsed().as_secs_f64(), before)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let changes: u64 = std::env::args().nth(1).map_or(Ok(500_000), |text| text.parse())?;
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let url = std::env::var("SYNC_WORKER_TEST_MYSQL").context("SYNC_WORKER_TEST_MYSQL is not set")?;
    let url = url.trim_end_matches('/').to_owned();
    let mut conn = Conn::new(Opts::from_url(&format!("{url}/mysql"))?).await?;
    if let Some(file) = conn.query_first::<String, _>("SELECT @@pid_file").await?
        && let Ok(process) = std::fs::read_to_string(file)
    {
        SERVER.get_or_init(|| process.trim().to_owned());
    }
    conn.query_drop("DROP DATABASE IF EXISTS sink_rate").await?;
    conn.query_drop("CREATE DATABASE sink_rate").await?;
    conn.query_drop("USE sink_rate").await?;
    for (table, unique) in
        [("probe", ""), ("plain", ""), ("uniq", ", UNIQUE (bid, aid)"), ("fresh", ""), ("copied", "")]
    {
        conn.query_drop(format!("CREATE TABLE {table} ({COLUMNS}{unique})")).await?;
    }
    let tables = ["plain", "uniq", "fresh", "copied"].map(|name| TableAt {
        table: TableName::new(name),
        name: name.into(),
        document: Default::default(),
    });
    let scope = Scope {
        installation: "sink_rate".into(),
        pipeline: "p".into(),
        tables: tables.into(),
        two_way: false,
        spill: std::env::temp_dir(),
    };
    let config = Config { url: format!("{url}/sink_rate"), password: None, server_id: None };
    let mut sink = MysqlSink::connect(&config, &DatabaseName::new("target"), &scope).await?;
    let marker = sink.take_over("log").await.map_err(|error| anyhow::anyhow!("{error}"))?.marker;
    let mut bench = Bench { sink, marker, builder: RowBuilder::default(), filler: "x".repeat(84) };
    for table in ["plain", "uniq"] {
        bench.measure("(loading)", table, Op::Create, ACCOUNTS, 10_000).await?;
    }
    conn.query_drop("INSERT INTO probe SELECT * FROM plain").await?;

    let mut best: f64 = 0.0;
    for size in [100, 1_000, 10_000] {
        best = best.max(probe(&mut conn, "probe", changes, size).await?);
    }
    for size in [1_000, 5_000, 10_000] {
        let rate = bench.measure("updates", "plain", Op::Update, changes, size).await?;
        println!("{:41} {:.2} of the probe", "", rate / best);
    }
    bench.measure("updates beside a unique index", "uniq", Op::Update, changes, 5_000).await?;
    bench.measure("inserts", "fresh", Op::Create, changes, 5_000).await?;
    bench.measure("snapshot rows", "copied", Op::Read, changes, 5_000).await?;
    let schema = schema("plain");
    let mut times = Vec::new();
    for at in 0..2_000 {
        let write = bench.write(&schema, Op::Update, at % ACCOUNTS + 1, 5);
        let begin = Instant::now();
        bench.apply(vec![write]).await?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    println!("one change a batch: p50 {:?}, p99 {:?}", times[1_000], times[1_980]);
    conn.query_drop("DROP DATABASE sink_rate").await?;
    conn.query_drop("DELETE FROM sync_worker.progress WHERE installation = 'sink_rate'").await?;
    Ok(())
}
