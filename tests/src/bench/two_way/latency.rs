//! Commit to commit while both members are written to: from one server's commit time to the other's, as they recorded both, and how
//! many of the commits were conflicts.

use crate::bench::figures::Line;
use crate::bench::latency::{in_order, percentile};
use crate::bench::postgres::Server;
use crate::bench::worker::{Installation, Pipeline};
use anyhow::ensure;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

const LIMIT: Duration = Duration::from_secs(60);
const SECONDS: i64 = 10;
const DATABASE: &str = "two_way_latency";

/// Every tenth commit updates one of these rows, which both members share; the others insert rows of their own.
const SHARED: i64 = 1_000;

/// `rate`: single-row commits a second at each member.
pub async fn measure(
    source: &Server,
    target: &Server,
    under: &Path,
    rate: u32,
    repetitions: usize,
) -> anyhow::Result<[Line; 3]> {
    let what = format!("two-way PostgreSQL <-> PostgreSQL, commit to commit at {rate} single-row commits/s a side");
    let mut p50 = Line::new(&format!("{what}, p50"), "ms, lower is better", "-", "-");
    let mut p99 = Line::new(&format!("{what}, p99"), "ms, lower is better", "-", "-");
    let mut conflicts =
        Line::new("the same, conflicts where each tenth commit updates one of 1,000 shared rows", "a second", "-", "-");
    for server in [source, target] {
        server.create(DATABASE).await?;
        let tables = format!(
            "CREATE TABLE tick (id bigint PRIMARY KEY, note text NOT NULL); ALTER TABLE tick REPLICA IDENTITY FULL;
             CREATE TABLE shared (id bigint PRIMARY KEY, n bigint NOT NULL, side text NOT NULL); ALTER TABLE shared REPLICA IDENTITY FULL;
             INSERT INTO shared SELECT n, 0, '' FROM generate_series(0, {SHARED} - 1) n"
        );
        server.connect(DATABASE).await?.batch_execute(&tables).await?;
    }
    let pipeline = Pipeline {
        source: ("postgres", source.url(DATABASE)),
        target: ("postgres", target.url(DATABASE)),
        tables: &["tick", "shared"],
        snapshot: false,
        two_way: true,
    };
    let installation = Installation::new(under, &pipeline)?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    let count = i64::from(rate) * SECONDS;
    for repetition in 0..i64::try_from(repetitions)? {
        let before = worker.metric("sync_worker_conflicts_total").await?;
        // Even ids of one side, odd ones of the other.
        let (first, end) = (repetition * count, (repetition + 1) * count);
        tokio::try_join!(write(source, 0, first..end, rate), write(target, 1, first..end, rate))?;
        let equal = async {
            let deadline = Instant::now() + LIMIT;
            loop {
                let [here, there] = [source, target].map(|server| server.checksum(DATABASE, pipeline.tables));
                let (here, there) = tokio::try_join!(here, there)?;
                if here == there {
                    return Ok(());
                }
                ensure!(Instant::now() < deadline, "the members differ: {here} and {there}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        equal.await?;
        let mut lags = Vec::new();
        for (from, to, side) in [(source, target, 0), (target, source, 1)] {
            let times = format!(
                "SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM tick \
                 WHERE id >= 2 * {first} AND id < 2 * {end} AND id % 2 = {side} ORDER BY id"
            );
            let here = from.connect(DATABASE).await?.query(&times, &[]).await?;
            let there = to.connect(DATABASE).await?.query(&times, &[]).await?;
            lags.extend(in_order(&here, &there)?);
        }
        lags.sort_by(f64::total_cmp);
        let found = worker.metric("sync_worker_conflicts_total").await? - before;
        p50.ours.push(percentile(&lags, 50));
        p99.ours.push(percentile(&lags, 99));
        conflicts.ours.push(found / SECONDS as f64);
        eprintln!(
            "two-way latency at {rate}/s a side: p50 {:.2} ms, p99 {:.2} ms, {found} conflicts",
            percentile(&lags, 50),
            percentile(&lags, 99)
        );
    }
    worker.stop()?;
    super::drop_slots(&[(source, DATABASE), (target, DATABASE)]).await?;
    Ok([p50, p99, conflicts])
}

async fn write(server: &Server, side: i64, range: std::ops::Range<i64>, rate: u32) -> anyhow::Result<()> {
    let client = server.connect(DATABASE).await?;
    let insert = client.prepare("INSERT INTO tick VALUES ($1, 'a note of some length')").await?;
    let update = client.prepare("UPDATE shared SET n = n + 1, side = $2 WHERE id = $1").await?;
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, count) = (Instant::now(), range.end - range.start);
    for n in range {
        ticks.tick().await;
        if n % 10 == 9 {
            // Both sides go through the rows in the same order, so that they meet.
            client.execute(&update, &[&(n / 10 % SHARED), &side.to_string()]).await?;
        } else {
            client.execute(&insert, &[&(2 * n + side)]).await?;
        }
    }
    let behind = begun.elapsed().as_secs_f64() * f64::from(rate) / count as f64;
    ensure!(behind < 1.2, "the writer could not keep up with {rate} commits/s");
    Ok(())
}
