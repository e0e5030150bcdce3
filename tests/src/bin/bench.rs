//! `make bench`: one table of rates, latencies, memory and idle cost, each beside a peer in the same run where there is one.

use clap::Parser;
use std::path::PathBuf;
use sync_worker_tests::bench::figures::{self, Line};
use sync_worker_tests::bench::postgres::Server;
use sync_worker_tests::bench::workload::Workload;
use sync_worker_tests::bench::{binlog, documents, idle, latency, log, memory, targets, throughput, two_way};
use sync_worker_tests::kind::Direction;

const NAMES: [&str; 11] = [
    "throughput",
    "two-way",
    "two-way-latency",
    "two-way-memory",
    "latency",
    "log",
    "binlog",
    "targets",
    "memory",
    "idle",
    "mongodb",
];

/// What runs on one pair of PostgreSQL servers.
const ON_ONE_PAIR: [&str; 6] = ["throughput", "two-way", "two-way-latency", "two-way-memory", "latency", "log"];

#[derive(Parser)]
struct Options {
    /// Repetitions of each measurement, ours and the peer's in turn.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// A part of the usual backlog, for a quick look; figures count at 1 only.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only this measurement.
    #[arg(long, value_parser = NAMES)]
    only: Option<String>,
    /// Only this direction where a measurement has several: postgres-mysql, and so on.
    #[arg(long)]
    direction: Option<Direction>,
    /// Also a transaction of five million rows.
    #[arg(long)]
    long: bool,
    /// Where the worker keeps its state: the disk that its log is flushed to.
    #[arg(long, default_value = "/var/tmp")]
    state: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name == only);
    let directions = || Direction::ALL.into_iter().filter(|one| options.direction.is_none_or(|only| *one == only));
    let (under, repetitions, scale) = (options.state.as_path(), options.repetitions, options.scale);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rows = |millions: f64| (millions * 1e6 * scale) as u64;
    let mut lines: Vec<Line> = Vec::new();
    if ON_ONE_PAIR.into_iter().any(wanted) {
        let settings =
            ["track_commit_timestamp=on", "max_wal_size=4GB", "checkpoint_timeout=30min", "shared_buffers=512MB"];
        let (source, target) = (Server::start("bench-source", &settings)?, Server::start("bench-target", &settings)?);
        if wanted("throughput") {
            for workload in Workload::ALL {
                let (rates, costs) = throughput::measure(&source, &target, under, workload, repetitions, scale).await?;
                lines.extend([rates, costs]);
            }
        }
        if wanted("two-way") {
            for workload in Workload::ALL {
                lines.extend(two_way::measure(&source, &target, under, workload, repetitions, scale).await?);
            }
        }
        if wanted("two-way-latency") {
            lines.extend(two_way::latency::measure(&source, &target, under, 1000, repetitions).await?);
        }
        if wanted("two-way-memory") {
            lines.push(two_way::memory::measure(&source, &target, under, rows(1.0)).await?);
        }
        if wanted("latency") {
            for rate in [100, 1000] {
                lines.extend(latency::measure(&source, &target, under, rate, repetitions).await?);
            }
        }
        if wanted("log") {
            let (rates, costs) = log::measure(&source, under, repetitions, scale).await?;
            lines.extend([rates, costs]);
        }
    }
    if wanted("binlog") {
        lines.extend(binlog::measure(under, repetitions, scale).await?);
    }
    if wanted("targets") {
        for direction in directions() {
            lines.extend(targets::measure(under, direction, repetitions, scale).await?);
        }
    }
    if wanted("memory") {
        for direction in directions() {
            lines.push(memory::measure(under, direction, rows(1.0)).await?);
            if options.long {
                lines.push(memory::measure(under, direction, rows(5.0)).await?);
            }
        }
    }
    if wanted("idle") {
        for direction in directions() {
            lines.extend(idle::measure(under, direction, repetitions, scale).await?);
        }
    }
    if wanted("mongodb") {
        lines.extend(documents::measure(under, repetitions, scale).await?);
        for rate in [100, 1000] {
            lines.extend(documents::latency(under, rate, repetitions).await?);
        }
    }
    figures::print(&lines);
    Ok(())
}
