//! Two-way pipelines of PostgreSQL. Here against one-way: the same backlog out of one server, drained into another by a
//! pipeline of each kind. Full row images for both; two-way the echo of every transaction is captured, too.

pub mod latency;
pub mod memory;

use crate::bench::figures::Line;
use crate::bench::postgres::Server;
use crate::bench::throughput::{arrived, transactions};
use crate::bench::worker::{Installation, Pipeline};
use crate::bench::workload::Workload;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);
const SOURCE: &str = "bench_source";
const TARGETS: [&str; 2] = ["bench_one_way", "bench_two_way"];

pub async fn measure(
    source: &Server,
    target: &Server,
    under: &Path,
    workload: Workload,
    repetitions: usize,
    scale: f64,
) -> anyhow::Result<[Line; 2]> {
    let what = format!("two-way PostgreSQL <-> PostgreSQL, {}, against one-way", workload.name());
    let mut rates = Line::new(&what, "changes/s", "at least 0.65", "0.85");
    let mut costs = Line::new("the same, processor time of the worker", "s per million", "-", "-");
    let tables = workload.tables();
    for (server, databases) in [(source, &[SOURCE][..]), (target, &TARGETS[..])] {
        for database in databases {
            server.create(database).await?;
            workload.prepare(server, database).await?;
            let client = server.connect(database).await?;
            for table in tables {
                client.batch_execute(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL")).await?;
            }
        }
    }
    let mut installations = Vec::new();
    for (database, two_way) in TARGETS.into_iter().zip([false, true]) {
        let pipeline = Pipeline {
            source: ("postgres", source.url(SOURCE)),
            target: ("postgres", target.url(database)),
            tables,
            snapshot: false,
            two_way,
        };
        let installation = Installation::new(under, &pipeline)?;
        // The slots are made at the first start.
        let mut worker = installation.start()?;
        worker.until_streaming().await?;
        worker.stop()?;
        installations.push(installation);
    }
    let publisher = source.connect(SOURCE).await?;
    for repetition in 0..repetitions {
        let count = transactions(workload, scale);
        workload.write(source, SOURCE, count)?;
        publisher.batch_execute("UPDATE bench_end SET n = n + 1").await?;
        publisher.batch_execute("CHECKPOINT").await?;
        let changes = count as f64 * workload.changes_per_transaction() as f64;
        let mut taken = [(0.0, 0.0); 2];
        for turn in 0..2 {
            let which = (turn + repetition) % 2;
            let begun = Instant::now();
            let worker = installations[which].start()?;
            target.until(TARGETS[which], &arrived(repetition + 1), LIMIT).await?;
            taken[which] = (begun.elapsed().as_secs_f64(), worker.cpu_seconds()?);
            worker.stop()?;
        }
        let sum = source.checksum(SOURCE, tables).await?;
        for database in TARGETS {
            let other = target.checksum(database, tables).await?;
            anyhow::ensure!(sum == other, "{database} differs from the source: {other} instead of {sum}");
        }
        let [one_way, two_way] = taken;
        rates.pair(changes / two_way.0, changes / one_way.0);
        costs.pair(two_way.1 / changes * 1e6, one_way.1 / changes * 1e6);
        eprintln!(
            "{}: two-way {:.0} changes/s, one-way {:.0}",
            workload.name(),
            changes / two_way.0,
            changes / one_way.0
        );
    }
    drop_slots(&[(source, SOURCE)]).await?;
    Ok([rates, costs])
}

/// What nobody reads from any more holds a server's log back.
async fn drop_slots(servers: &[(&Server, &str)]) -> anyhow::Result<()> {
    let all = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
    for (server, database) in servers {
        server.connect(database).await?.batch_execute(all).await?;
    }
    Ok(())
}
