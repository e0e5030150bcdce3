//! How fast records are encoded and decoded, and how fast a log takes and gives them.
//!
//! `cargo run --release -p sync-worker-bus --example throughput [folder]`

use bytes::BytesMut;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync_worker_bus::format::{Decoder, encode};
use sync_worker_bus::{Config, EmbeddedLog};
use sync_worker_core::bus::Bus;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::position::{Lsn, Position, PostgresPosition};
use sync_worker_core::record::{Body, Offset, Partition, Record};
use sync_worker_core::row::RowBuilder;
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::types::{ColumnType, Engine};
use sync_worker_core::value::{Cell, Value};

const ONLY: Partition = Partition(0);
const RECORDS: usize = 1_000_000;
const BATCH: usize = 2_000;

/// Like pgbench's history rows, four to a transaction.
fn batches(schema: &Arc<Schema>) -> Vec<Vec<Record>> {
    let origin = DatabaseName::new("crm");
    let mut rows = RowBuilder::default();
    let position = |at: usize| {
        Position::Postgres(PostgresPosition {
            commit: Lsn(0x16_0000_0000 + (at as u64 / 4) * 400),
            ordinal: at as u64 % 4,
        })
    };
    let record = |at: usize| {
        for value in [at as i64, at as i64 % 100, -(at as i64 % 5_000)] {
            rows.push(Cell::Present(Value::Int(value)));
        }
        rows.push(Cell::Present(Value::Timestamp(1_700_000_000_000_000 + at as i64)));
        rows.push(Cell::Present(Value::Text("a filler text of 32 characters..")));
        let change = Change { schema: schema.clone(), op: Op::Create, before: None, after: Some(rows.finish()) };
        Record {
            origin: origin.clone(),
            position: position(at),
            previous: Some(position(at.saturating_sub(1))),
            transaction: at.is_multiple_of(4).then(|| "123456".into()),
            last: at % 4 == 3,
            commit_time: 1_700_000_000_000_000,
            body: Body::Change(change),
        }
    };
    let all: Vec<Record> = (0..RECORDS).map(record).collect();
    all.chunks(BATCH).map(<[Record]>::to_vec).collect()
}

fn schema() -> Arc<Schema> {
    let column = |name: &str, kind| Column {
        name: name.to_owned(),
        kind,
        type_name: "bigint".to_owned(),
        nullable: true,
        generated: false,
    };
    let number = || ColumnType::Int { bits: 64, unsigned: false };
    let columns = vec![
        column("id", number()),
        column("bid", number()),
        column("delta", number()),
        column("mtime", ColumnType::Timestamp { precision: 6 }),
        column("filler", ColumnType::Text { limit: sync_worker_core::types::TextLimit::None, padded: false }),
    ];
    Arc::new(Schema::new(TableName::new("history"), Engine::Postgres, columns, vec![0]))
}

fn report(what: &str, records: usize, bytes: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    let (millions, megabytes) = (records as f64 / 1e6 / seconds, bytes as f64 / 1e6 / seconds);
    println!("{what:<34} {millions:>7.2} M records/s {megabytes:>8.0} MB/s");
}

#[tokio::main]
async fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "/var/tmp/sync-worker-throughput".to_owned());
    let folder = std::path::Path::new(&folder);
    let schema = schema();
    let batches = batches(&schema);

    let start = Instant::now();
    let mut encoded = Vec::with_capacity(RECORDS);
    let mut out = BytesMut::with_capacity(1 << 20);
    for record in batches.iter().flatten() {
        encode(record, &mut out);
        encoded.push(out.split().freeze());
        if out.capacity() < 4096 {
            out.reserve(1 << 20);
        }
    }
    let bytes = encoded.iter().map(bytes::Bytes::len).sum();
    report("encode", RECORDS, bytes, start.elapsed());
    let start = Instant::now();
    let mut decoder = Decoder::default();
    let rows = encoded.iter().filter(|bytes| decoder.decode(bytes, |_| Some(schema.clone())).is_ok()).count();
    report("decode", rows, bytes, start.elapsed());
    drop(encoded);

    let log = EmbeddedLog::open(folder, Config { max_bytes: 4 << 30, ..Config::default() }).unwrap();
    let first = batches[0][0].clone();
    let announced = Record { body: Body::Schema(schema.clone()), transaction: None, ..first };
    let from = log.publish(ONLY, vec![announced]).await.unwrap().await.unwrap().next();
    let mut live = log.subscribe(ONLY, from).await.unwrap();
    let start = Instant::now();
    let reader = tokio::spawn(async move {
        let mut count = 0;
        while count < RECORDS {
            count += live.next(1 << 20).await.unwrap().len();
        }
        start.elapsed()
    });
    let mut receipts = Vec::new();
    for batch in batches {
        receipts.push(log.publish(ONLY, batch).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    report("publish, durable", RECORDS, bytes, start.elapsed());
    report("publish, applied by a live reader", RECORDS, bytes, reader.await.unwrap());
    drop(log);

    let start = Instant::now();
    let log = EmbeddedLog::open(folder, Config { max_bytes: 4 << 30, ..Config::default() }).unwrap();
    println!("open after {} records: {:?}", from.0 + RECORDS as u64, start.elapsed());
    let next = log.bounds(ONLY).await.unwrap().next;
    let start = Instant::now();
    let mut behind = log.subscribe(ONLY, Offset(next.0 - RECORDS as u64)).await.unwrap();
    let mut count = 0;
    while count < RECORDS {
        count += behind.next(1 << 20).await.unwrap().len();
    }
    report("read from files", RECORDS, bytes, start.elapsed());

    // One small commit at a time: what a change waits for on its way through the log.
    let mut live = log.subscribe(ONLY, next).await.unwrap();
    let mut took: Vec<Duration> = Vec::new();
    for at in 0..2_000 {
        let row = RowBuilder::default().finish();
        let change = Change { schema: schema.clone(), op: Op::Create, before: None, after: Some(row) };
        let position = Position::Postgres(PostgresPosition { commit: Lsn(at), ordinal: 0 });
        let record = Record {
            origin: DatabaseName::new("crm"),
            position,
            previous: None,
            transaction: None,
            last: true,
            commit_time: 0,
            body: Body::Change(change),
        };
        let start = Instant::now();
        let receipt = log.publish(ONLY, vec![record]).await.unwrap();
        live.next(1 << 20).await.unwrap();
        took.push(start.elapsed());
        receipt.await.unwrap();
    }
    took.sort();
    println!("publish to reader, one record: p50 {:?}, p99 {:?}", took[1_000], took[1_980]);
    drop((live, behind, log));
    std::fs::remove_dir_all(folder).unwrap();
}
