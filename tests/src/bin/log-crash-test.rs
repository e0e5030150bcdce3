//! `make log-crash-test IMAGES=10000 SEED=n`: crashes and damage of a real log together with its store.

use anyhow::{Result, ensure};
use clap::Parser;
use std::path::Path;
use std::time::Instant;
use sync_worker_tests::log_crash::{self, Outcome};

#[derive(Parser)]
struct Arguments {
    /// How many images to make and to open.
    #[arg(long, default_value_t = 10_000)]
    images: u64,
    /// The same seed makes the same images; a new one is chosen without.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000_000));
    println!("{} images, seed {seed}", arguments.images);
    // Images are many and short-lived; memory is faster, and syncing it means the same to the log.
    let parent = Path::new("/dev/shm");
    let folder = if parent.is_dir() { tempfile::tempdir_in(parent) } else { tempfile::tempdir() }?;
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let start = Instant::now();
    let report = log_crash::run(arguments.images, seed, threads, folder.path())?;
    for failure in report.failures.iter().take(20) {
        println!("FAILED {failure}");
    }
    println!("{report}");
    println!(
        "recovered {}, to be sent again {}, refused {}, gap {}; acknowledged but missing and unnoticed {}, invented {}, \
         crashes not recovered {}; {} images in {:.1?}, seed {seed}",
        report.count(Outcome::Recovered),
        report.count(Outcome::Resent),
        report.count(Outcome::Refused),
        report.count(Outcome::Gap),
        report.count(Outcome::Missing),
        report.count(Outcome::Invented),
        report.count(Outcome::NotRecovered),
        report.images(),
        start.elapsed(),
    );
    ensure!(report.failures.is_empty(), "{} images were not judged rightly", report.failures.len());
    Ok(())
}
