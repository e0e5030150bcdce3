//! How fast the change stream is read: `source_rate URL TABLES [FROM-GTID-SET]`, from the given set to the end of the
//! log. Prints rows, seconds, and the processor seconds of this process.

use anyhow::{Context, Result, anyhow};
use std::time::Instant;
use sync_worker_core::database::{Database, Scope, TableAt};
use sync_worker_core::position::{Checkpoint, MysqlPosition, Position};
use sync_worker_mysql::{Config, Mysql};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("which url?")?;
    let tables = arguments.next().context("which tables?")?;
    let from = arguments.next().unwrap_or_default();
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| anyhow!("no TLS"))?;
    let mysql = Mysql::new("source".into(), Config { url, password: None, server_id: None })?;
    let scope = Scope {
        installation: "rate".into(),
        pipeline: "rate".into(),
        tables: tables
            .split(',')
            .map(|name| TableAt { table: name.into(), name: name.to_owned(), document: Default::default() })
            .collect(),
        two_way: false,
        spill: std::env::temp_dir().join("sync-worker-rate"),
    };
    let failed = |error| anyhow!("{error:?}");
    let (now, end) = mysql.source(&scope, None).await.map_err(failed)?;
    drop(now);
    let start = Position::Mysql(MysqlPosition { file: 0, offset: 0, ordinal: 0 });
    let start = Checkpoint { epoch: end.epoch.clone(), position: start, resume: from };
    let (mut source, _) = mysql.source(&scope, Some(&start)).await.map_err(failed)?;
    let (begun, mut rows, mut transactions, mut bytes, mut batches) = (Instant::now(), 0, 0, 0, 0);
    loop {
        let batch = source.next().await.map_err(failed)?;
        batches += 1;
        for part in &batch.parts {
            rows += part.changes.len();
            bytes += part.changes.iter().map(|change| change.size()).sum::<usize>();
            transactions += usize::from(part.complete);
        }
        if batch.reached >= end.position {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{rows} rows in {transactions} transactions and {batches} batches, {bytes} bytes: {seconds:.3} s, {:.0} rows/s, {:.2} processor seconds",
        rows as f64 / seconds,
        processor_seconds().unwrap_or(f64::NAN)
    );
    Ok(())
}

/// User and system time of this process, in hundredths of a second by the kernel's count.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}
