//! MongoDB as a source and as a target, on the replica set that the run has: a real one or the project's stand-in, which
//! the table says.
//!
//! The peers are the driver's own: a change stream whose batches are counted and thrown away, and `bulkWrite` of
//! replacements. Both sides meet the same server, so the ratios say little where that is the slow part.

use crate::bench::entries::Entries;
use crate::bench::figures::Line;
use crate::bench::latency::percentile;
use crate::bench::worker::{Installation, Pipeline};
use crate::kind::Kind;
use crate::servers::Servers;
use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc, rawdoc};
use mongodb::options::{ReplaceOneModel, WriteModel};
use mongodb::{Client, Database, Namespace};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);

/// Documents of an insert.
const INSERT: u64 = 100;

/// Writes of a `bulkWrite` that are tried.
const SIZES: [u64; 3] = [100, 1_000, 10_000];

pub async fn measure(under: &Path, repetitions: usize, scale: f64) -> anyhow::Result<Vec<Line>> {
    let here = Shared::new().await?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = ((200_000.0 * scale) as u64 / 10_000).max(1) * 10_000;
    // Fifteen times as many: the log takes them in ten seconds, of which the start of the process is a small part.
    let mut lines = to_log(&here, under, repetitions, 15 * count).await?.to_vec();
    for from in [Kind::Postgres, Kind::Mysql, Kind::Mongodb] {
        lines.extend(to_documents(&here, from, under, repetitions, count).await?);
    }
    Ok(lines)
}

/// The run's replica set.
pub struct Shared {
    url: String,
    /// What answers there.
    pub what: String,
    client: Client,
}

impl Shared {
    pub async fn new() -> anyhow::Result<Self> {
        let url = Kind::Mongodb.shared_server()?;
        let client = Client::with_uri_str(&url).await?;
        let what = std::env::var("SYNC_WORKER_TEST_MONGODB_IS").unwrap_or_else(|_| "given".to_owned());
        Ok(Self { url, what, client })
    }

    /// An empty database with these collections, and its URL.
    pub async fn database(&self, name: &str, collections: &[&str]) -> anyhow::Result<(Database, String)> {
        let database = self.client.database(&format!("bench_{}_{name}", std::process::id()));
        database.drop().await?;
        for collection in collections {
            database.create_collection(*collection).await?;
        }
        let (base, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let url = format!("{}/{}?{query}", base.trim_end_matches('/'), database.name());
        Ok((database, url))
    }
}

fn document(n: u64) -> Document {
    let (id, account) = (n.cast_signed(), i32::try_from(n % 1000).unwrap_or(0));
    doc! { "_id": id, "account": account, "amount": id * 7, "note": format!("entry number {n}") }
}

async fn write(database: &Database, first: u64, count: u64) -> anyhow::Result<()> {
    for start in (first..first + count).step_by(100) {
        let documents: Vec<Document> = (start..start + INSERT).map(document).collect();
        database.collection("entry").insert_many(documents).await?;
    }
    Ok(())
}

/// Every document from 1 to `count`, and no other.
async fn check(database: &Database, collection: &str, count: u64) -> anyhow::Result<()> {
    let mut found = database.collection::<Document>(collection).find(doc! {}).sort(doc! { "_id": 1 }).await?;
    let mut next = 1;
    while let Some(there) = found.try_next().await? {
        ensure!(there == document(next), "{collection} has another document where number {next} is wanted");
        next += 1;
    }
    ensure!(next == count + 1, "{collection} has {} of {count} documents", next - 1);
    Ok(())
}

async fn until(database: &Database, collection: &str, id: u64) -> anyhow::Result<()> {
    let rows = database.collection::<Document>(collection);
    let deadline = Instant::now() + LIMIT;
    while rows.find_one(doc! { "_id": id.cast_signed() }).await?.is_none() {
        ensure!(Instant::now() < deadline, "waited {} s for document {id} of {collection}", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn to_log(here: &Shared, under: &Path, repetitions: usize, count: u64) -> anyhow::Result<[Line; 2]> {
    let what = format!("MongoDB ({}) -> log, against a change stream thrown away", here.what);
    let mut rates = Line::new(&what, "changes/s", "at least 0.75", "0.9");
    let mut costs = Line::new("the same, processor time of the worker", "s per million, lower is better", "-", "-");
    let servers = Servers::new()?;
    let (source, url) = here.database("log", &["entry"]).await?;
    let target = Entries::start(&servers, Kind::Postgres, "target").await?;
    target.create("entry").await?;
    let pipeline = Pipeline {
        source: ("mongodb", url),
        target: ("postgres", target.worker_url()),
        tables: &["entry"],
        snapshot: false,
        two_way: false,
    };
    let installation = Installation::new(under, &pipeline)?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    worker.stop()?;
    // The worker captures alone from here on; in the end the target comes back and shows what the log holds.
    servers.kill("target")?;
    for repetition in 0..repetitions as u64 {
        let before = source.cluster_time().await?;
        write(&source, repetition * count + 1, count).await?;
        let (mut ours, mut cpu, mut peer) = (0.0, 0.0, 0.0);
        for turn in 0..2 {
            let begun = Instant::now();
            if (turn + repetition).is_multiple_of(2) {
                read_away(&here.url, &source, before, count).await?;
                peer = count as f64 / begun.elapsed().as_secs_f64();
            } else {
                let mut worker = installation.start()?;
                let all = |status: &serde_json::Value| status["changes"].as_u64() >= Some(count);
                worker.until("capture", "the changes", LIMIT, all).await?;
                cpu = worker.cpu_seconds()?;
                // In order: everything is durable on the log, and the position behind it is stored.
                worker.stop()?;
                ours = count as f64 / begun.elapsed().as_secs_f64();
            }
        }
        rates.pair(ours, peer);
        costs.ours.push(cpu / count as f64 * 1e6);
        eprintln!("MongoDB -> log: {ours:.0} changes/s, change stream {peer:.0}");
    }
    let total = repetitions as u64 * count;
    servers.restart("target")?;
    let worker = installation.start()?;
    target.until("entry", total, LIMIT).await?;
    worker.stop()?;
    let same = "SELECT count(*) FILTER (WHERE account = id % 1000 AND amount = id * 7 AND note = 'entry number ' || id), \
                count(*), max(id) FROM entry";
    let counts = target.connect().await?.rows(same).await?;
    let total = Some(total.to_string());
    ensure!(counts == [vec![total.clone(), total.clone(), total]], "the log delivers something else: {counts:?}");
    source.drop().await?;
    Ok([rates, costs])
}

/// A look at the server's clock.
trait ClusterTime {
    async fn cluster_time(&self) -> anyhow::Result<Timestamp>;
}

impl ClusterTime for Database {
    async fn cluster_time(&self) -> anyhow::Result<Timestamp> {
        Ok(self.run_command(doc! { "ping": 1 }).await?.get_timestamp("operationTime")?)
    }
}

/// The peer: connects, opens the stream of the database after `before`, counts `count` events and looks at none.
async fn read_away(url: &str, source: &Database, before: Timestamp, count: u64) -> anyhow::Result<()> {
    let client = Client::with_uri_str(url).await?;
    let stage = rawdoc! { "startAtOperationTime": Timestamp { time: before.time, increment: before.increment + 1 } };
    let command: RawDocumentBuf =
        rawdoc! { "aggregate": 1, "pipeline": [{ "$changeStream": stage }], "cursor": { "batchSize": 0 } };
    let mut cursor = client.database(source.name()).run_raw_cursor_command(command).batch().await?;
    let mut seen = 0;
    while seen < count {
        let batch = cursor.next().await.context("the stream has ended")??;
        seen += batch.doc_slices()?.into_iter().count() as u64;
    }
    Ok(())
}

async fn to_documents(
    here: &Shared,
    from: Kind,
    under: &Path,
    repetitions: usize,
    count: u64,
) -> anyhow::Result<[Line; 2]> {
    let what = format!("{from} -> MongoDB ({}), inserts, against the driver's bulkWrite", here.what);
    let mut rates = Line::new(&what, "documents/s", "at least 0.6", "0.85");
    let mut costs = Line::new("the same, processor time of the worker", "s per million, lower is better", "-", "-");
    let servers = Servers::new()?;
    let (target, target_url) = here.database("target", &["entry", "probe"]).await?;
    let (documents, url) = here.database("source", &["entry"]).await?;
    let rows = match from {
        Kind::Mongodb => None,
        kind => {
            let rows = Entries::start(&servers, kind, "source").await?;
            rows.create("entry").await?;
            Some(rows)
        }
    };
    let pipeline = Pipeline {
        source: (from.as_str(), rows.as_ref().map_or(url, Entries::worker_url)),
        target: ("mongodb", target_url),
        tables: &["entry"],
        snapshot: false,
        two_way: false,
    };
    let installation = Installation::new(under, &pipeline)?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    worker.stop()?;
    let size = choose(here, &target, (count / 100_000).max(1) * 10_000).await?;
    for repetition in 0..repetitions as u64 {
        let first = repetition * count + 1;
        match &rows {
            Some(rows) => rows.write("entry", first, count).await?,
            None => write(&documents, first, count).await?,
        }
        let (mut ours, mut cpu, mut probe) = (0.0, 0.0, 0.0);
        for turn in 0..2 {
            if (turn + repetition).is_multiple_of(2) {
                probe = count as f64 / bulk(here, &target, "probe", first, count, size).await?.as_secs_f64();
            } else {
                let begun = Instant::now();
                let worker = installation.start()?;
                until(&target, "entry", first + count - 1).await?;
                (ours, cpu) = (count as f64 / begun.elapsed().as_secs_f64(), worker.cpu_seconds()?);
                worker.stop()?;
            }
        }
        for collection in ["entry", "probe"] {
            check(&target, collection, first + count - 1).await?;
        }
        rates.pair(ours, probe);
        costs.ours.push(cpu / count as f64 * 1e6);
        eprintln!("{from} -> MongoDB: {ours:.0} documents/s, bulkWrite of {size} {probe:.0}");
    }
    target.drop().await?;
    documents.drop().await?;
    Ok([rates, costs])
}

/// Writes documents by upserting replacements; only the time inside of the calls counts.
async fn bulk(
    here: &Shared,
    target: &Database,
    collection: &str,
    first: u64,
    count: u64,
    size: u64,
) -> anyhow::Result<Duration> {
    let namespace = Namespace::new(target.name(), collection);
    let mut took = Duration::ZERO;
    for start in (first..first + count).step_by(usize::try_from(size)?) {
        let model = |n: u64| {
            let filter = doc! { "_id": n.cast_signed() };
            let model = ReplaceOneModel::builder().namespace(namespace.clone()).filter(filter);
            WriteModel::ReplaceOne(model.replacement(document(n)).upsert(true).build())
        };
        let models: Vec<WriteModel> = (start..(start + size).min(first + count)).map(model).collect();
        let begun = Instant::now();
        here.client.bulk_write(models).await?;
        took += begun.elapsed();
    }
    Ok(took)
}

/// The size with which this server is fastest, each tried twice so that none has to begin cold.
async fn choose(here: &Shared, target: &Database, rows: u64) -> anyhow::Result<u64> {
    let mut best = (Duration::MAX, SIZES[0]);
    for size in [SIZES, SIZES].concat() {
        target.collection::<Document>("trial").drop().await?;
        target.create_collection("trial").await?;
        best = best.min((bulk(here, target, "trial", 1, rows, size).await?, size));
    }
    target.collection::<Document>("trial").drop().await?;
    Ok(best.1)
}

/// From before an insert at MongoDB, its own time included, to the commit at PostgreSQL by that server's timestamps.
pub async fn latency(under: &Path, rate: u32, repetitions: usize) -> anyhow::Result<Vec<Line>> {
    const SECONDS: u32 = 10;
    let here = Shared::new().await?;
    let name = |which: &str| format!("insert at MongoDB ({}) to commit at PostgreSQL at {rate}/s, {which}", here.what);
    let mut p50 = Line::new(&name("p50"), "ms, lower is better", "-", "-");
    let mut p99 = Line::new(&name("p99"), "ms, lower is better", "-", "-");
    let servers = Servers::new()?;
    let (source, url) = here.database("ticks", &["tick"]).await?;
    let target = servers.start(Kind::Postgres, "target", &["track_commit_timestamp=on"])?;
    let (client, connection) = tokio_postgres::connect(&target, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE tick (id bigint PRIMARY KEY, at bigint NOT NULL)").await?;
    let pipeline = Pipeline {
        source: ("mongodb", url),
        target: ("postgres", target),
        tables: &["tick"],
        snapshot: false,
        two_way: false,
    };
    let installation = Installation::new(under, &pipeline)?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    let rows = source.collection::<Document>("tick");
    let (mut id, count) = (0i64, i64::from(rate * SECONDS));
    for _ in 0..repetitions {
        let first = id;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        let begun = Instant::now();
        while id < first + count {
            ticks.tick().await;
            let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros();
            rows.insert_one(doc! { "_id": id, "at": i64::try_from(at)? }).await?;
            id += 1;
        }
        let behind = begun.elapsed().as_secs_f64() / f64::from(SECONDS);
        ensure!(behind < 1.2, "the writer could not keep up with {rate} inserts/s");
        let deadline = Instant::now() + LIMIT;
        let have = "SELECT count(*) FROM tick";
        while client.query_one(have, &[]).await?.get::<_, i64>(0) < id {
            ensure!(Instant::now() < deadline, "waited {} s for {id} rows", LIMIT.as_secs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let lags = "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::float8 - at / 1000.0::float8 AS lag \
                    FROM tick WHERE id >= $1 ORDER BY lag";
        let lags: Vec<f64> = client.query(lags, &[&first]).await?.iter().map(|row| row.get(0)).collect();
        let (middle, high) = (percentile(&lags, 50), percentile(&lags, 99));
        p50.ours.push(middle);
        p99.ours.push(high);
        eprintln!("MongoDB -> PostgreSQL at {rate}/s: p50 {middle:.2} ms, p99 {high:.2} ms");
    }
    worker.stop()?;
    source.drop().await?;
    Ok(vec![p50, p99])
}
