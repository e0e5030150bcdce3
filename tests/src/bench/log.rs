//! PostgreSQL to the log against `pg_recvlogical`, which writes the same stream of a copy of the same slot to a file.

use crate::bench::figures::Line;
use crate::bench::postgres::Server;
use crate::bench::process;
use crate::bench::worker::{Installation, Pipeline};
use crate::bench::workload::Workload;
use anyhow::Context;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(300);

/// The target of the pipeline does not exist, so that the worker captures alone.
const NOWHERE: &str = "postgres://nobody@127.0.0.1:9/nothing";

pub async fn measure(source: &Server, under: &Path, repetitions: usize, scale: f64) -> anyhow::Result<(Line, Line)> {
    let mut rates = Line::new("PostgreSQL -> log, TPC-B, against pg_recvlogical", "changes/s", "at least 0.85", "1.0");
    let mut costs =
        Line::new("the same, processor time of the client", "s per million, lower is better", "at most 1.0", "0.5");
    source.create("log_source").await?;
    Workload::TpcB.prepare(source, "log_source").await?;
    let publisher = source.connect("log_source").await?;
    let pipeline = Pipeline {
        source: ("postgres", source.url("log_source")),
        target: ("postgres", NOWHERE.to_owned()),
        tables: Workload::TpcB.tables(),
        snapshot: false,
        two_way: false,
    };
    let installation = Installation::new(under, &pipeline)?;
    let mut worker = installation.start()?;
    worker.until("capture", "streaming", LIMIT, |status| status["state"] == "streaming").await?;
    worker.stop()?;
    let slot = "SELECT slot_name FROM pg_replication_slots WHERE database = 'log_source'";
    let slot = source.value("log_source", slot).await?;
    let publication = source.value("log_source", "SELECT pubname FROM pg_publication").await?;
    for repetition in 0..repetitions {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let count = (150_000.0 * scale) as u64;
        publisher.batch_execute(&format!("SELECT pg_copy_logical_replication_slot('{slot}', 'peer')")).await?;
        Workload::TpcB.write(source, "log_source", count)?;
        publisher.batch_execute("CHECKPOINT").await?;
        let end = source.value("log_source", "SELECT pg_current_wal_flush_lsn()").await?;
        let changes = count as f64 * 4.0;
        let (mut peer, mut ours) = ((0.0, 0.0), (0.0, 0.0));
        for turn in 0..2 {
            if (turn + repetition) % 2 == 0 {
                peer = run_peer(source, &publication, &end, under)?;
            } else {
                ours = run_worker(source, &installation, &slot, &end).await?;
            }
        }
        publisher.batch_execute("SELECT pg_drop_replication_slot('peer')").await?;
        rates.pair(changes / ours.0, changes / peer.0);
        costs.pair(ours.1 / changes * 1e6, peer.1 / changes * 1e6);
        eprintln!("PostgreSQL -> log: {:.0} changes/s, pg_recvlogical {:.0}", changes / ours.0, changes / peer.0);
    }
    publisher.batch_execute(&format!("SELECT pg_drop_replication_slot('{slot}')")).await?;
    Ok((rates, costs))
}

fn run_peer(source: &Server, publication: &str, end: &str, under: &Path) -> anyhow::Result<(f64, f64)> {
    let file = tempfile::NamedTempFile::new_in(under)?;
    let begun = Instant::now();
    let mut child = Command::new("pg_recvlogical")
        .args(["--start", "--slot", "peer", "--no-loop", "--endpos", end, "--fsync-interval", "1"])
        .args(["-o", "proto_version=2", "-o", "streaming=on", "-o", &format!("publication_names={publication}")])
        .arg("--file")
        .arg(file.path())
        .args(["--dbname", &source.url("log_source")])
        .stderr(Stdio::null())
        .spawn()
        .context("pg_recvlogical can't be started")?;
    // The kernel keeps a child's figures until it is waited for; the last look before its end is what counts.
    let mut cpu = 0.0;
    while child.try_wait()?.is_none() {
        cpu = process::cpu_seconds(child.id()).unwrap_or(cpu);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((begun.elapsed().as_secs_f64(), cpu))
}

async fn run_worker(source: &Server, installation: &Installation, slot: &str, end: &str) -> anyhow::Result<(f64, f64)> {
    let begun = Instant::now();
    let worker = installation.start()?;
    let flushed = format!("SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = '{slot}'");
    // What is confirmed is durable on the log and stored; the confirmation itself may lag by a second, so the position
    // that the walsender has been told is the earlier sign only when it comes earlier.
    source.until("log_source", &flushed, LIMIT).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = worker.cpu_seconds()?;
    worker.stop()?;
    Ok((seconds, cpu))
}
