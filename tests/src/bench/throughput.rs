//! PostgreSQL to PostgreSQL against a native subscription, both replaying the same backlog from slots of their own.

use crate::bench::figures::Line;
use crate::bench::postgres::Server;
use crate::bench::worker::{Installation, Pipeline};
use crate::bench::workload::Workload;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);

/// Transactions of a backlog, enough for ten seconds of the faster side.
pub fn transactions(workload: Workload, scale: f64) -> u64 {
    let changes = match workload {
        Workload::TpcB => 600_000.0,
        Workload::InsertOnly => 1_000_000.0,
        Workload::Wide => 200_000.0,
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let changes = (changes * scale) as u64;
    (changes / workload.changes_per_transaction()).max(4)
}

/// Measures one workload. `under`: where the worker keeps its state.
pub async fn measure(
    source: &Server,
    target: &Server,
    under: &Path,
    workload: Workload,
    repetitions: usize,
    scale: f64,
) -> anyhow::Result<(Line, Line)> {
    let what = format!("PostgreSQL -> PostgreSQL, {}, against a native subscription", workload.name());
    let mut rates = Line::new(&what, "changes/s", "at least 1.2", "1.6");
    let mut costs = Line::new("the same, processor time of worker and apply worker", "s per million", "-", "-");
    let tables = workload.tables();
    let list = tables.join(", ");
    for server in [source, target] {
        for database in ["bench_source", "bench_native", "bench_worker"] {
            server.create(database).await?;
        }
    }
    workload.prepare(source, "bench_source").await?;
    workload.prepare(target, "bench_native").await?;
    workload.prepare(target, "bench_worker").await?;

    let publisher = source.connect("bench_source").await?;
    publisher.batch_execute(&format!("CREATE PUBLICATION native FOR TABLE {list}")).await?;
    publisher.batch_execute("SELECT pg_create_logical_replication_slot('native', 'pgoutput')").await?;
    let subscriber = target.connect("bench_native").await?;
    let create = format!(
        "CREATE SUBSCRIPTION native CONNECTION '{}' PUBLICATION native WITH (create_slot = false, enabled = false, copy_data = false, slot_name = 'native', streaming = on)",
        source.url("bench_source")
    );
    subscriber.batch_execute(&create).await?;
    let pipeline = Pipeline {
        source: ("postgres", source.url("bench_source")),
        target: ("postgres", target.url("bench_worker")),
        tables,
        snapshot: false,
        two_way: false,
    };
    let installation = Installation::new(under, &pipeline)?;
    // The slot is made at the first start; what the copies lack of the source's history is nothing: all were made alike.
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    worker.stop()?;

    for repetition in 0..repetitions {
        let count = transactions(workload, scale);
        workload.write(source, "bench_source", count)?;
        // The last transaction of the backlog: where it is, everything before it is.
        publisher.batch_execute("UPDATE bench_end SET n = n + 1").await?;
        publisher.batch_execute("CHECKPOINT").await?;
        let changes = count as f64 * workload.changes_per_transaction() as f64;
        let end = repetition + 1;
        let (mut native, mut ours) = ((0.0, 0.0), (0.0, 0.0));
        // In turns, so that neither always has the warmer caches.
        for turn in 0..2 {
            if (turn + repetition) % 2 == 0 {
                native = run_native(source, target, end).await?;
            } else {
                ours = run_worker(target, &installation, end).await?;
            }
        }
        let sum = source.checksum("bench_source", tables).await?;
        for database in ["bench_native", "bench_worker"] {
            let other = target.checksum(database, tables).await?;
            anyhow::ensure!(sum == other, "{database} differs from the source: {other} instead of {sum}");
        }
        rates.pair(changes / ours.0, changes / native.0);
        costs.pair(ours.1 / changes * 1e6, native.1 / changes * 1e6);
        eprintln!("{}: {:.0} changes/s, native {:.0}", workload.name(), changes / ours.0, changes / native.0);
    }
    let forget = "ALTER SUBSCRIPTION native SET (slot_name = NONE); DROP SUBSCRIPTION native";
    for statement in forget.split(';') {
        subscriber.batch_execute(statement).await?;
    }
    publisher
        .batch_execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
        .await?;
    Ok((rates, costs))
}

pub fn arrived(end: usize) -> String {
    format!("SELECT n = {end} FROM bench_end")
}

/// Seconds, and seconds of processor time of the apply worker.
async fn run_native(source: &Server, target: &Server, end: usize) -> anyhow::Result<(f64, f64)> {
    let subscriber = target.connect("bench_native").await?;
    let begun = Instant::now();
    subscriber.batch_execute("ALTER SUBSCRIPTION native ENABLE").await?;
    let runs = "SELECT count(*) > 0 FROM pg_stat_subscription WHERE subname = 'native' AND pid IS NOT NULL";
    target.until("bench_native", runs, LIMIT).await?;
    let pid = target.value("bench_native", "SELECT pid FROM pg_stat_subscription WHERE subname = 'native'").await?;
    target.until("bench_native", &arrived(end), LIMIT).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = crate::bench::process::cpu_seconds(pid.parse()?)?;
    subscriber.batch_execute("ALTER SUBSCRIPTION native DISABLE").await?;
    source
        .until("bench_source", "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'native'", LIMIT)
        .await?;
    Ok((seconds, cpu))
}

/// Seconds from the start of the process, and seconds of its processor time.
async fn run_worker(target: &Server, installation: &Installation, end: usize) -> anyhow::Result<(f64, f64)> {
    let begun = Instant::now();
    let worker = installation.start()?;
    target.until("bench_worker", &arrived(end), LIMIT).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = worker.cpu_seconds()?;
    worker.stop()?;
    Ok((seconds, cpu))
}
