//! Measures the sink alone: rate, CPU of this process and of the server's backends, and the latency of small batches.
//!
//! `cargo run --release --example postgres_sink_rate -- postgres://user@host/database [rows]` uses the schema `sink_rate` there.

use anyhow::{Context, Result};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync_worker_core::bus::Flush;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Database as _, Scope, TableAt};
use sync_worker_core::name::{InstallationId, PipelineName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::{Marker, Parking, Refused, Sink, Write, WriteBatch};
use sync_worker_core::value::{Cell, Value};
use sync_worker_postgres::catalog::{self, Qualified};
use sync_worker_postgres::client::{self, Client, Purpose};
use sync_worker_postgres::{Config, Postgres};

const TABLES: &str = "DROP SCHEMA IF EXISTS sink_rate, sync_worker CASCADE; CREATE SCHEMA sink_rate; \
    CREATE TABLE sink_rate.branches (bid int PRIMARY KEY, bbalance int, filler char(88)); \
    CREATE TABLE sink_rate.tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84)); \
    CREATE TABLE sink_rate.accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)); \
    CREATE TABLE sink_rate.history (hid bigint PRIMARY KEY, tid int, bid int, aid int, delta int CHECK (delta < 10000), mtime timestamp, filler char(22)); \
    INSERT INTO sink_rate.branches SELECT n, 0, '' FROM generate_series(1, 10) n; \
    INSERT INTO sink_rate.tellers SELECT n, n / 10, 0, '' FROM generate_series(1, 100) n; \
    INSERT INTO sink_rate.accounts SELECT n, n / 100000, 0, '' FROM generate_series(1, 1000000) n; \
    VACUUM ANALYZE";

struct Never;

#[async_trait]
impl Parking for Never {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, _: &WriteBatch, _: &[Refused]) -> sync_worker_core::error::Result<()> {
        Ok(())
    }
}

struct Bench {
    sink: Box<dyn Sink>,
    client: Client,
    marker: Marker,
    random: u64,
    accounts: Arc<Schema>,
    tellers: Arc<Schema>,
    branches: Arc<Schema>,
    history: Arc<Schema>,
    next: i64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("the first argument is the URL of a PostgreSQL database")?;
    let rows: usize = std::env::args().nth(2).map_or(Ok(1_000_000), |text| text.parse())?;
    let config = Config::new(url);
    let client = client::connect(&config, Purpose::Control).await?;
    client.batch_execute("SET statement_timeout = 0").await?;
    for sql in TABLES.split("; ") {
        client.batch_execute(sql).await?;
    }
    let names = ["branches", "tellers", "accounts", "history"];
    let table = |name: &str| TableAt {
        table: TableName::new(name),
        name: format!("sink_rate.{name}"),
        document: Default::default(),
    };
    let scope = Scope {
        installation: InstallationId::new("rate"),
        pipeline: PipelineName::new("rate"),
        tables: names.map(table).to_vec(),
        two_way: false,
        spill: std::env::temp_dir(),
    };
    let mut sink = Postgres::new("target".into(), config)?.sink(&scope).await.map_err(anyhow::Error::msg)?;
    let marker = sink.take_over("log").await.map_err(anyhow::Error::msg)?.marker;
    let mut schemas = Vec::new();
    for name in names {
        let there = catalog::table(&client, &Qualified::parse(&format!("sink_rate.{name}"))).await?;
        schemas.push(Arc::new(there.context("no table")?.schema(&TableName::new(name))?));
    }
    let [branches, tellers, accounts, history] = <[_; 4]>::try_from(schemas).map_err(|_| anyhow::anyhow!("tables"))?;
    let mut bench = Bench { sink, client, marker, random: 1, accounts, tellers, branches, history, next: 0 };
    println!("{:<34} {:>10} {:>12} {:>12}", "", "rows/s", "client CPU", "server CPU");
    for batch in [100, 1_000, 10_000] {
        bench.run(&format!("updates, batches of {batch}"), rows, batch, Bench::account).await?;
    }
    for batch in [1_000, 10_000] {
        bench.run(&format!("inserts, batches of {batch}"), rows, batch, Bench::insert).await?;
    }
    for batch in [1_000, 10_000] {
        bench.run(&format!("snapshot rows, batches of {batch}"), rows, batch, Bench::copy).await?;
    }
    for batch in [400, 1_000, 10_000] {
        bench.run(&format!("TPC-B, batches of {batch}"), rows, batch, Bench::transaction).await?;
    }
    bench.run("inserts, one in 1000 refused", rows / 10, 1_000, Bench::insert_or_be_refused).await?;
    bench.latency().await
}

impl Bench {
    fn number(&mut self, below: u64) -> i64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((self.random >> 33) % below).unwrap_or(0)
    }

    fn account(&mut self) -> Change {
        let (aid, balance) = (self.number(1_000_000) + 1, self.number(10_000) - 5_000);
        change(&self.accounts, Op::Update, &[Value::Int(aid), Value::Int(aid / 100_000), Value::Int(balance), FILLER])
    }

    fn history(&mut self, op: Op) -> Change {
        self.next += 1;
        let (tid, aid, delta) = (self.number(100) + 1, self.number(1_000_000) + 1, self.number(10_000) - 5_000);
        let time = Value::Timestamp(1_700_000_000_000_000 + self.next);
        let values = [self.next, tid, tid / 10, aid, delta].map(Value::Int);
        change(&self.history, op, &[&values[..], &[time, Value::Null]].concat())
    }

    fn insert(&mut self) -> Change {
        self.history(Op::Create)
    }

    fn insert_or_be_refused(&mut self) -> Change {
        self.next += 1;
        let delta = if self.next % 1_000 == 500 { 10_000 } else { 0 };
        let values = [self.next, 1, 1, 1, delta].map(Value::Int);
        change(&self.history, Op::Create, &[&values[..], &[Value::Null, Value::Null]].concat())
    }

    fn copy(&mut self) -> Change {
        self.history(Op::Read)
    }

    fn transaction(&mut self) -> Change {
        match self.next % 4 {
            0 => self.insert(),
            1 => {
                self.next += 1;
                self.account()
            }
            2 => {
                self.next += 1;
                let (tid, balance) = (self.number(100) + 1, self.number(10_000));
                let values = [Value::Int(tid), Value::Int(tid / 10), Value::Int(balance), FILLER];
                change(&self.tellers, Op::Update, &values)
            }
            _ => {
                self.next += 1;
                let (bid, balance) = (self.number(10) + 1, self.number(10_000));
                change(&self.branches, Op::Update, &[Value::Int(bid), Value::Int(balance), FILLER])
            }
        }
    }

    fn batch(&self, changes: Vec<Change>) -> WriteBatch {
        let marker =
            Marker { offset: Some(Offset(self.marker.writes)), writes: self.marker.writes + 1, ..self.marker.clone() };
        let write = |change| Write { change, offset: Offset(0), parked: false, over: None };
        let writes = changes.into_iter().map(write).collect();
        WriteBatch { expected: self.marker.clone(), marker, writes, unpark: Vec::new(), retry: false }
    }

    async fn run(&mut self, what: &str, rows: usize, size: usize, make: fn(&mut Self) -> Change) -> Result<()> {
        self.client.batch_execute("CHECKPOINT").await?;
        let (mut busy, mut client_cpu) = (Duration::ZERO, 0.0);
        let server = self.server_cpu().await?;
        for _ in 0..rows / size {
            let changes = (0..size).map(|_| make(self)).collect();
            let batch = self.batch(changes);
            let (start, cpu) = (Instant::now(), own_cpu()?);
            let applied = self.sink.apply(&batch, &Never).await.map_err(anyhow::Error::msg)?;
            busy += start.elapsed();
            client_cpu += own_cpu()? - cpu;
            anyhow::ensure!(applied.missing == 0 && applied.refused.len() <= 1, "{applied:?}");
            self.marker = batch.marker;
        }
        let millions = rows as f64 / 1e6;
        let server = (self.server_cpu().await? - server) / millions;
        let rate = rows as f64 / busy.as_secs_f64();
        println!("{what:<34} {rate:>10.0} {:>10.2} s {server:>10.2} s   per million rows", client_cpu / millions);
        Ok(())
    }

    async fn latency(&mut self) -> Result<()> {
        let (mut times, cpu) = (Vec::new(), own_cpu()?);
        for _ in 0..5_000 {
            let change = self.account();
            let batch = self.batch(vec![change]);
            let start = Instant::now();
            self.sink.apply(&batch, &Never).await.map_err(anyhow::Error::msg)?;
            times.push(start.elapsed());
            self.marker = batch.marker;
        }
        times.sort();
        let at = |share: usize| times[times.len() * share / 100];
        let cpu = (own_cpu()? - cpu) / 5_000.0 * 1e6;
        println!("one row a batch: p50 {:?}, p99 {:?}, client CPU {cpu:.0} us", at(50), at(99));
        Ok(())
    }

    /// User and system time of the sink's backend, in seconds; only for a server on this machine.
    async fn server_cpu(&self) -> Result<f64> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'sync-worker sink rate%'";
        let pid = self.client.value("a look", sql).await?.unwrap_or_default();
        cpu_of(&pid)
    }
}

const FILLER: Value<'static> = Value::Text("");

fn change(schema: &Arc<Schema>, op: Op, values: &[Value<'_>]) -> Change {
    let mut builder = RowBuilder::default();
    values.iter().for_each(|value| builder.push(Cell::Present(*value)));
    let after: Row = builder.finish();
    Change { schema: schema.clone(), op, before: None, after: Some(after) }
}

fn own_cpu() -> Result<f64> {
    cpu_of("self")
}

/// From /proc; 0 for a process of another machine.
fn cpu_of(pid: &str) -> Result<f64> {
    let Ok(schedule) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Ok(0.0) };
    let mut nanoseconds = 0u64;
    for task in schedule {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>().unwrap_or(0);
    }
    Ok(nanoseconds as f64 / 1e9)
}
