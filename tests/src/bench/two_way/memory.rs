//! The most memory that the worker uses while very many keys are under way: one member takes nothing for as long as the other
//! one is written to.

use crate::bench::figures::Line;
use crate::bench::postgres::Server;
use crate::bench::worker::{Installation, Pipeline};
use anyhow::ensure;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);
const DATABASE: &str = "two_way_memory";
const TABLES: &[&str] = &["entry"];

pub async fn measure(source: &Server, target: &Server, under: &Path, keys: u64) -> anyhow::Result<Line> {
    let what = format!("two-way PostgreSQL <-> PostgreSQL, resident memory, {keys} keys under way");
    let mut line = Line::new(&what, "MiB, lower is better", "at most 256", "128");
    for server in [source, target] {
        server.create(DATABASE).await?;
        let table = "CREATE TABLE entry (id bigint PRIMARY KEY, account int NOT NULL, amount bigint NOT NULL, note text); \
                     ALTER TABLE entry REPLICA IDENTITY FULL";
        server.connect(DATABASE).await?.batch_execute(table).await?;
    }
    let pipeline = Pipeline {
        source: ("postgres", source.url(DATABASE)),
        target: ("postgres", target.url(DATABASE)),
        tables: TABLES,
        snapshot: false,
        two_way: true,
    };
    let installation = Installation::new(under, &pipeline)?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    // Whoever wants to write waits for this transaction.
    let mut holder = target.connect(DATABASE).await?;
    let holds = holder.transaction().await?;
    holds.batch_execute("LOCK TABLE entry IN EXCLUSIVE MODE").await?;
    let writer = source.connect(DATABASE).await?;
    for first in (1..=keys).step_by(100) {
        let rows = format!(
            "INSERT INTO entry SELECT n, n % 1000, n * 7, 'entry number ' || n FROM generate_series({first}, {}) n",
            (first + 99).min(keys)
        );
        writer.batch_execute(&rows).await?;
    }
    let deadline = Instant::now() + LIMIT;
    while worker.metric("sync_worker_keys_under_way").await? < keys as f64 {
        ensure!(Instant::now() < deadline, "waited {} s for {keys} keys to be under way", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    holds.rollback().await?;
    target.until(DATABASE, &format!("SELECT count(*) = {keys} FROM entry"), LIMIT).await?;
    let deadline = Instant::now() + LIMIT;
    while worker.metric("sync_worker_keys_under_way").await? > 0.0 {
        ensure!(Instant::now() < deadline, "waited {} s for the echoes", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let peak = worker.peak_mib()?;
    let sums = (source.checksum(DATABASE, TABLES).await?, target.checksum(DATABASE, TABLES).await?);
    ensure!(sums.0 == sums.1, "the members differ: {sums:?}");
    worker.stop()?;
    super::drop_slots(&[(source, DATABASE), (target, DATABASE)]).await?;
    line.ours.push(peak);
    eprintln!("two-way: {peak:.0} MiB with {keys} keys under way");
    Ok(line)
}
