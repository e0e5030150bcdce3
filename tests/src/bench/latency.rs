//! Commit to commit: from the source's commit time to the target's, as the servers themselves recorded both.
//!
//! A subscription's apply worker commits under the source's commit time, so its rows get their time from a column that
//! the target fills in: a moment before the commit, in the peer's favour.

use crate::bench::figures::Line;
use crate::bench::postgres::Server;
use crate::bench::worker::{Installation, Pipeline};
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::Row;

const LIMIT: Duration = Duration::from_secs(60);
const SECONDS: u32 = 10;

/// Measures p50 and p99 at a rate of single-row commits; both servers keep commit timestamps.
pub async fn measure(
    source: &Server,
    target: &Server,
    under: &Path,
    rate: u32,
    repetitions: usize,
) -> anyhow::Result<Vec<Line>> {
    let name = |percentile: &str| {
        format!("commit to commit at {rate} single-row commits/s, {percentile}, against a native subscription")
    };
    let (floor, aim) = if rate >= 1000 { (("at most 6", "3"), ("at most 3", "1.5")) } else { (("-", "-"), ("-", "-")) };
    let mut p50 = Line::new(&name("p50"), "ms, lower is better", floor.0, aim.0);
    let mut p99 = Line::new(&name("p99"), "ms, lower is better", floor.1, aim.1);
    for server in [source, target] {
        for database in ["latency_source", "latency_native", "latency_worker"] {
            server.create(database).await?;
            let client = server.connect(database).await?;
            let arrived =
                if database == "latency_source" { "" } else { ", arrived timestamptz DEFAULT clock_timestamp()" };
            client.batch_execute(&format!("CREATE TABLE tick (id bigint PRIMARY KEY, note text{arrived})")).await?;
        }
    }
    let publisher = source.connect("latency_source").await?;
    publisher.batch_execute("CREATE PUBLICATION native FOR TABLE tick").await?;
    publisher.batch_execute("SELECT pg_create_logical_replication_slot('native', 'pgoutput')").await?;
    let subscriber = target.connect("latency_native").await?;
    let create = format!(
        "CREATE SUBSCRIPTION native CONNECTION '{}' PUBLICATION native WITH (create_slot = false, enabled = false, copy_data = false, slot_name = 'native')",
        source.url("latency_source")
    );
    subscriber.batch_execute(&create).await?;
    let pipeline = Pipeline {
        source: ("postgres", source.url("latency_source")),
        target: ("postgres", target.url("latency_worker")),
        tables: &["tick"],
        snapshot: false,
        two_way: false,
    };
    let installation = Installation::new(under, &pipeline)?;
    installation.start()?.until_streaming().await?;

    let mut next = 0;
    for repetition in 0..repetitions {
        let mut figures = [(0.0, 0.0); 2];
        for turn in 0..2 {
            let ours = (turn + repetition) % 2;
            // One side runs at a time; the other one catches up at its next turn, before anything is measured.
            let (database, worker) = if ours == 1 {
                let mut worker = installation.start()?;
                worker.until_streaming().await?;
                ("latency_worker", Some(worker))
            } else {
                subscriber.batch_execute("ALTER SUBSCRIPTION native ENABLE").await?;
                ("latency_native", None)
            };
            write(&publisher, next, 100, rate).await?;
            target.until(database, &format!("SELECT max(id) = {} FROM tick", next + 99), LIMIT).await?;
            let (first, count) = (next + 100, i64::from(rate * SECONDS));
            write(&publisher, first, count, rate).await?;
            next = first + count;
            target.until(database, &format!("SELECT max(id) = {} FROM tick", next - 1), LIMIT).await?;
            figures[ours] = percentiles(source, target, database, first, next).await?;
            match worker {
                Some(worker) => worker.stop()?,
                None => {
                    subscriber.batch_execute("ALTER SUBSCRIPTION native DISABLE").await?;
                    let free = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'native'";
                    source.until("latency_source", free, LIMIT).await?;
                }
            }
        }
        p50.pair(figures[1].0, figures[0].0);
        p99.pair(figures[1].1, figures[0].1);
        eprintln!(
            "latency at {rate}/s: p50 {:.2} ms, p99 {:.2} ms; native {:.2}, {:.2}",
            figures[1].0, figures[1].1, figures[0].0, figures[0].1
        );
    }
    subscriber.batch_execute("ALTER SUBSCRIPTION native SET (slot_name = NONE)").await?;
    subscriber.batch_execute("DROP SUBSCRIPTION native").await?;
    publisher
        .batch_execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
        .await?;
    Ok(vec![p50, p99])
}

async fn write(client: &tokio_postgres::Client, first: i64, count: i64, rate: u32) -> anyhow::Result<()> {
    let insert = client.prepare("INSERT INTO tick VALUES ($1, 'a note of some length')").await?;
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    for id in first..first + count {
        ticks.tick().await;
        client.execute(&insert, &[&id]).await?;
    }
    let behind = begun.elapsed().as_secs_f64() * f64::from(rate) / count as f64;
    anyhow::ensure!(behind < 1.2, "the writer could not keep up with {rate} commits/s");
    Ok(())
}

/// p50 and p99 in milliseconds.
async fn percentiles(
    source: &Server,
    target: &Server,
    database: &str,
    first: i64,
    end: i64,
) -> anyhow::Result<(f64, f64)> {
    let times = |time: &str| {
        format!(
            "SELECT id, extract(epoch FROM {time})::float8 FROM tick WHERE id >= {first} AND id < {end} ORDER BY id"
        )
    };
    let committed = times("pg_xact_commit_timestamp(xmin)");
    let arrived = if database == "latency_native" { times("arrived") } else { committed.clone() };
    let here = source.connect("latency_source").await?.query(&committed, &[]).await?;
    let there = target.connect(database).await?.query(&arrived, &[]).await?;
    let mut lags = in_order(&here, &there)?;
    lags.sort_by(f64::total_cmp);
    Ok((percentile(&lags, 50), percentile(&lags, 99)))
}

/// Milliseconds from one server's time of a row to the other's, for the same ids in the same order.
pub fn in_order(here: &[Row], there: &[Row]) -> anyhow::Result<Vec<f64>> {
    anyhow::ensure!(here.len() == there.len(), "{} of {} rows have arrived", there.len(), here.len());
    let mut lags = Vec::with_capacity(here.len());
    for (here, there) in here.iter().zip(there) {
        anyhow::ensure!(here.get::<_, i64>(0) == there.get::<_, i64>(0), "other rows have arrived");
        lags.push((there.get::<_, f64>(1) - here.get::<_, f64>(1)) * 1e3);
    }
    Ok(lags)
}

pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(f64::NAN)
}
