//! `make bench`: one table of rates, latencies and memory, each beside a peer in the same run.

use clap::Parser;
use std::path::PathBuf;
use sync_worker_tests::bench::figures::{self, Line};
use sync_worker_tests::bench::postgres::Server;
use sync_worker_tests::bench::workload::Workload;
use sync_worker_tests::bench::{latency, log, memory, throughput};

#[derive(Parser)]
struct Options {
    /// Repetitions of each measurement, ours and the peer's in turn.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// A part of the usual backlog, for a quick look; figures count at 1 only.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only the measurements whose name holds this: throughput, latency, log, memory.
    #[arg(long)]
    only: Option<String>,
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
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name.contains(only));
    let settings =
        ["track_commit_timestamp=on", "max_wal_size=4GB", "checkpoint_timeout=30min", "shared_buffers=512MB"];
    let (source, target) = (Server::start("bench-source", &settings)?, Server::start("bench-target", &settings)?);
    let mut lines: Vec<Line> = Vec::new();
    if wanted("throughput") {
        for workload in Workload::ALL {
            let (rates, costs) =
                throughput::measure(&source, &target, &options.state, workload, options.repetitions, options.scale)
                    .await?;
            lines.extend([rates, costs]);
        }
    }
    if wanted("latency") {
        for rate in [100, 1000] {
            lines.extend(latency::measure(&source, &target, &options.state, rate, options.repetitions).await?);
        }
    }
    if wanted("log") {
        let (rates, costs) = log::measure(&source, &options.state, options.repetitions, options.scale).await?;
        lines.extend([rates, costs]);
    }
    if wanted("memory") {
        lines.push(memory::measure(&source, &target, &options.state, 1_000_000).await?);
        if options.long {
            lines.push(memory::measure(&source, &target, &options.state, 5_000_000).await?);
        }
    }
    figures::print(&lines);
    Ok(())
}
