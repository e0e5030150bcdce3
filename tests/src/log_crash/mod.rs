//! The embedded log and the control store after a crash, or after damage.
//!
//! ```text
//! history: a real log and a real store, what was acknowledged, and the steps of the last write
//!    -> image: the files as a crash in the middle of a step, or as damage, would leave them
//!       -> verdict: recovered, refused by name, or noticed as a GAP; anything else is a failure
//! ```

mod check;
mod files;
mod history;
mod image;

pub use self::check::Outcome;
pub use self::image::Kind;

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Images made of one history.
const IMAGES_PER_HISTORY: u64 = 50;

/// How many images of each kind ended how.
#[derive(Debug, Default)]
pub struct Report {
    pub counts: BTreeMap<(Kind, Outcome), u64>,
    /// One line each. Empty, or the test has failed.
    pub failures: Vec<String>,
}

impl Report {
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts.iter().filter(|((_, one), _)| *one == outcome).map(|(_, count)| count).sum()
    }

    pub fn images(&self) -> u64 {
        self.counts.values().sum()
    }

    fn add(&mut self, other: Report) {
        for (key, count) in other.counts {
            *self.counts.entry(key).or_default() += count;
        }
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10}", "image")?;
        Outcome::ALL.iter().try_for_each(|outcome| write!(f, "{:>20}", outcome.to_string()))?;
        writeln!(f)?;
        for kind in Kind::ALL {
            write!(f, "{:<10}", kind.to_string())?;
            for outcome in Outcome::ALL {
                write!(f, "{:>20}", self.counts.get(&(kind, outcome)).copied().unwrap_or(0))?;
            }
            writeln!(f)?;
        }
        write!(f, "{:<10}", "all")?;
        Outcome::ALL.iter().try_for_each(|outcome| write!(f, "{:>20}", self.count(*outcome)))
    }
}

/// Makes and judges images in `folder`, on both sides of `threads` at a time. The same seed makes the same images.
pub fn run(images: u64, seed: u64, threads: usize, folder: &Path) -> Result<Report> {
    let (next, report) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Report::default())));
    let histories = images.div_ceil(IMAGES_PER_HISTORY);
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let (next, report, folder) = (next.clone(), report.clone(), folder.join(thread.to_string()));
            std::thread::spawn(move || -> Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= histories {
                        return Ok(());
                    }
                    let count = IMAGES_PER_HISTORY.min(images - number * IMAGES_PER_HISTORY);
                    let part = runtime.block_on(one_history(number, count, seed, &folder));
                    let part = part.with_context(|| format!("history {number} of seed {seed}"))?;
                    report.lock().unwrap_or_else(PoisonError::into_inner).add(part);
                }
            })
        })
        .collect();
    for worker in workers {
        match worker.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("a thread of the test has panicked"),
        }
    }
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *report))
}

async fn one_history(number: u64, images: u64, seed: u64, folder: &Path) -> Result<Report> {
    let mut random = StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let history = history::History::make(&mut random, &fresh(folder, "history")?).await?;
    let mut report = Report::default();
    for at in 0..images {
        let mut random = StdRng::seed_from_u64(random.random());
        let image = image::make(&history, &mut random);
        let folder = fresh(folder, "image")?;
        image.files.write(&folder)?;
        let outcome = match check::check(&image, &history, &folder).await {
            Ok(outcome) => outcome,
            Err(failure) => {
                let what = &image.description;
                report.failures.push(format!("{failure}: image {at} of history {number}, seed {seed}: {what}"));
                failure.outcome
            }
        };
        *report.counts.entry((image.kind, outcome)).or_default() += 1;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(report)
}

fn fresh(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    std::fs::create_dir_all(&path)?;
    Ok(path)
}
