//! The most memory that the worker uses while one very large transaction goes through.

use crate::bench::entries::{self, Entries};
use crate::bench::figures::Line;
use crate::bench::worker::Installation;
use crate::kind::Direction;
use crate::servers::Servers;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(1_800);

pub async fn measure(under: &Path, direction: Direction, rows: u64) -> anyhow::Result<Line> {
    let what = format!("resident memory, one transaction of {rows} rows, {direction}");
    let mut line = Line::new(&what, "MiB, lower is better", "at most 256", "128");
    let servers = Servers::new()?;
    let source = Entries::start(&servers, direction.from, "source").await?;
    let target = Entries::start(&servers, direction.to, "target").await?;
    for entries in [&source, &target] {
        entries.create("entry").await?;
    }
    let installation = Installation::new(under, &entries::pipeline(&source, &target))?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    source.write_at_once("entry", rows).await?;
    target.until("entry", rows, LIMIT).await?;
    let peak = worker.peak_mib()?;
    let sums = (source.checksum("entry").await?, target.checksum("entry").await?);
    anyhow::ensure!(sums.0 == sums.1, "the target differs: {sums:?}");
    worker.stop()?;
    line.ours.push(peak);
    eprintln!("{direction}: {peak:.0} MiB at a transaction of {rows} rows");
    Ok(line)
}
