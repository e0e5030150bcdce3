//! Each target against its own fastest upserts: the worker drains a backlog of inserts into one table, the probe writes the
//! same rows into another one of the same server, with no capture running.

use crate::bench::entries::{self, Entries};
use crate::bench::figures::Line;
use crate::bench::upsert;
use crate::bench::worker::Installation;
use crate::kind::{Direction, Kind};
use crate::servers::Servers;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);

fn word(kind: Kind) -> &'static str {
    kind.pick("PostgreSQL", "MySQL")
}

/// Rows of a backlog, enough for ten seconds of both sides; a multiple of every size of a statement.
fn rows(target: Kind, scale: f64) -> u64 {
    let rows = match target {
        Kind::Postgres => 2_000_000.0,
        Kind::Mysql | Kind::Mongodb => 1_000_000.0,
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rows = (rows * scale) as u64;
    (rows / 10_000).max(1) * 10_000
}

pub async fn measure(under: &Path, direction: Direction, repetitions: usize, scale: f64) -> anyhow::Result<[Line; 2]> {
    let (from, to) = (word(direction.from), word(direction.to));
    let mut rates =
        Line::new(&format!("{from} -> {to}, inserts, against batched upserts"), "rows/s", "at least 0.6", "0.85");
    let mut costs = Line::new("the same, processor time of the worker", "s per million, lower is better", "-", "-");
    let servers = Servers::new()?;
    let source = Entries::start(&servers, direction.from, "source").await?;
    let target = Entries::start(&servers, direction.to, "target").await?;
    source.create("entry").await?;
    target.create("entry").await?;
    target.create("probe").await?;
    let installation = Installation::new(under, &entries::pipeline(&source, &target))?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    worker.stop()?;
    let count = rows(direction.to, scale);
    let size = choose(&target, (count / 100_000).max(1) * 10_000).await?;
    for repetition in 0..repetitions as u64 {
        let first = repetition * count + 1;
        source.write("entry", first, count).await?;
        let (mut ours, mut cpu, mut probe) = (0.0, 0.0, 0.0);
        for turn in 0..2 {
            if (turn + repetition).is_multiple_of(2) {
                let took = upsert::run(&target, "probe", first, count, size).await?;
                probe = count as f64 / took.as_secs_f64();
            } else {
                let begun = Instant::now();
                let worker = installation.start()?;
                target.until("entry", first + count - 1, LIMIT).await?;
                (ours, cpu) = (count as f64 / begun.elapsed().as_secs_f64(), worker.cpu_seconds()?);
                worker.stop()?;
            }
        }
        let sums = (source.checksum("entry").await?, target.checksum("entry").await?, target.checksum("probe").await?);
        anyhow::ensure!(sums.0 == sums.1 && sums.0 == sums.2, "source, target and probe differ: {sums:?}");
        rates.pair(ours, probe);
        costs.ours.push(cpu / count as f64 * 1e6);
        eprintln!("{from} -> {to}: {ours:.0} rows/s, upserts of {size} rows {probe:.0}");
    }
    Ok([rates, costs])
}

/// The number of rows a statement with which this server is fastest, each tried twice so that none has to begin cold.
async fn choose(target: &Entries, rows: u64) -> anyhow::Result<u64> {
    let mut best = (Duration::MAX, upsert::SIZES[0]);
    for size in [upsert::SIZES, upsert::SIZES].concat() {
        target.create("trial").await?;
        let took = upsert::run(target, "trial", 1, rows, size).await?;
        best = best.min((took, size));
    }
    target.connect().await?.execute("DROP TABLE trial").await?;
    Ok(best.1)
}
