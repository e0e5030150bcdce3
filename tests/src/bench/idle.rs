//! What the worker costs while nothing happens, and how soon it goes on after kill -9.

use crate::bench::entries::{self, Entries};
use crate::bench::figures::Line;
use crate::bench::worker::Installation;
use crate::kind::Direction;
use crate::servers::Servers;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(20);

/// Rows of one transaction.
const ROWS: u64 = 100;

pub async fn measure(under: &Path, direction: Direction, repetitions: usize, scale: f64) -> anyhow::Result<[Line; 2]> {
    let what = format!("processor time of an idle pipeline, {direction}");
    let mut idle = Line::new(&what, "% of one processor, lower is better", "at most 0.5", "0.2");
    let what = format!("first event at the target after kill -9, {direction}");
    let mut restart = Line::new(&what, "s, lower is better", "at most 2", "0.5");
    let servers = Servers::new()?;
    let source = Entries::start(&servers, direction.from, "source").await?;
    let target = Entries::start(&servers, direction.to, "target").await?;
    for entries in [&source, &target] {
        entries.create("entry").await?;
    }
    let installation = Installation::new(under, &entries::pipeline(&source, &target))?;
    let mut worker = installation.start()?;
    worker.until_streaming().await?;
    // The processor's time is counted in hundredths of a second: a short look shows nothing.
    let span = IDLE.mul_f64(scale).max(Duration::from_secs(5));
    let mut written = 0;
    for _ in 0..repetitions {
        source.write("entry", written + 1, ROWS).await?;
        written += ROWS;
        target.until("entry", written, LIMIT).await?;
        let before = worker.cpu_seconds()?;
        tokio::time::sleep(span).await;
        let percent = (worker.cpu_seconds()? - before) / span.as_secs_f64() * 100.0;
        worker.kill()?;
        source.write("entry", written + 1, ROWS).await?;
        written += ROWS;
        let begun = Instant::now();
        worker = installation.start()?;
        target.until("entry", written, LIMIT).await?;
        let seconds = begun.elapsed().as_secs_f64();
        idle.ours.push(percent);
        restart.ours.push(seconds);
        eprintln!("{direction}: idle {percent:.2} %, first event after kill -9 in {seconds:.2} s");
    }
    let sums = (source.checksum("entry").await?, target.checksum("entry").await?);
    anyhow::ensure!(sums.0 == sums.1, "the target differs: {sums:?}");
    worker.stop()?;
    Ok([idle, restart])
}
