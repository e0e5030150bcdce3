//! What the worker would make of an image.

use super::history::{History, LOG, PARTITION, STORE};
use super::image::Image;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use sync_worker_bus::{Config, EmbeddedLog};
use sync_worker_core::bus::{Bounds, Bus};
use sync_worker_core::error::{Error, ErrorClass};
use sync_worker_core::record::{Delivered, Offset, Record};
use sync_worker_core::store::Store;
use sync_worker_store::SqliteStore;
use sync_worker_testkit::records::same;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything that was acknowledged is there, and only what was published.
    Recovered,
    /// Records are missing that no stored position covers: the source sends them again.
    Resent,
    /// An error names the file.
    Refused,
    /// A stored position or a marker rests on what is missing.
    Gap,
    /// A crash that should have been recovered was not.
    NotRecovered,
    /// Acknowledged, missing, and nobody noticed.
    Missing,
    /// Something is there that was never published or stored.
    Invented,
}

impl Outcome {
    pub const ALL: [Outcome; 7] = [
        Outcome::Recovered,
        Outcome::Resent,
        Outcome::Refused,
        Outcome::Gap,
        Outcome::NotRecovered,
        Outcome::Missing,
        Outcome::Invented,
    ];
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Recovered => "recovered",
            Outcome::Resent => "to be sent again",
            Outcome::Refused => "refused by name",
            Outcome::Gap => "gap",
            Outcome::NotRecovered => "not recovered",
            Outcome::Missing => "missing, unnoticed",
            Outcome::Invented => "invented",
        })
    }
}

/// An image that was judged wrongly.
pub struct Failure {
    pub outcome: Outcome,
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.outcome, self.reason)
    }
}

fn failure<T>(outcome: Outcome, reason: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { outcome, reason: reason.into() })
}

/// How the look at an image ended, if it did not fail.
enum Look {
    Sound,
    Resent,
    Gap(String),
    Refused(Error),
}

impl From<Error> for Look {
    fn from(error: Error) -> Self {
        Look::Refused(error)
    }
}

pub async fn check(image: &Image, history: &History, folder: &Path) -> Result<Outcome, Failure> {
    let look = look(image, history, folder).await?;
    let (outcome, reason) = match look {
        Look::Sound => (Outcome::Recovered, String::new()),
        Look::Resent => (Outcome::Resent, "the log is shorter than what it acknowledged".to_owned()),
        Look::Gap(reason) => (Outcome::Gap, reason),
        Look::Refused(error) => {
            let text = error.to_string();
            if !text.contains(&*folder.to_string_lossy()) {
                return failure(Outcome::NotRecovered, format!("a refusal that names no file: {text}"));
            }
            (Outcome::Refused, text)
        }
    };
    if image.kind.is_crash() && outcome != Outcome::Recovered {
        return failure(Outcome::NotRecovered, reason);
    }
    Ok(outcome)
}

/// Starts as the worker does, and compares everything with what was published.
async fn look(image: &Image, history: &History, folder: &Path) -> Result<Look, Failure> {
    let store = match SqliteStore::open(&folder.join(STORE)) {
        Ok(store) => store,
        Err(error) => return Ok(Error::from(error).into()),
    };
    let checkpoint = match store.checkpoint(&history.capture).await {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Ok(error.into()),
    };
    let known = checkpoint.as_ref().map(|one| history.checkpoints.iter().position(|other| other == one));
    let newest = match known {
        Some(None) => return failure(Outcome::Invented, "a checkpoint that was never stored"),
        Some(Some(index)) => index + 1,
        None => 0,
    };
    if image.kind.is_crash() && newest < image.checkpoints {
        return failure(Outcome::Missing, "the newest checkpoint is gone after a crash");
    }
    // Nothing is removed while everything is read.
    let config = Config { max_bytes: u64::MAX, ..history.config.clone() };
    let log = match EmbeddedLog::open(&folder.join(LOG), config) {
        Ok(log) => log,
        Err(error) => return Ok(Error::from(error).into()),
    };
    if log.identity() != history.identity {
        // The engine compares it with what the checkpoint says.
        return match checkpoint {
            Some(_) => Ok(Look::Gap("another log".to_owned())),
            None => failure(Outcome::Missing, "a new log without a word"),
        };
    }
    let bounds = match log.bounds(PARTITION).await {
        Ok(bounds) => bounds,
        Err(error) => return Ok(error.into()),
    };
    if let Some(gap) = gap(history, checkpoint.map(|one| one.next), bounds) {
        return Ok(Look::Gap(gap));
    }
    let (delivered, error) = read(&log, bounds.first, bounds.next).await?;
    compare(&delivered, &history.truth, bounds.first)?;
    if let Some(error) = error {
        return Ok(error.into());
    }
    if let Some((offset, digest)) = history.marker
        && let Some(there) = delivered.iter().find(|one| one.offset == offset)
        && there.digest() != digest
    {
        return failure(Outcome::Invented, "the marker's record has another digest");
    }
    let end = usize::try_from(bounds.next.0).unwrap_or(usize::MAX);
    let shorter = end < image.acknowledged;
    if shorter && newest < image.checkpoints {
        return failure(Outcome::Missing, format!("the log ends at {end} of {}", image.acknowledged));
    }
    let records = history.more(&mut StdRng::seed_from_u64(bounds.next.0));
    go_on(log, history, folder, bounds.next, &records).await?;
    Ok(if shorter { Look::Resent } else { Look::Sound })
}

/// What engine and appliers compare before they go on (invariants 1 and 8).
fn gap(history: &History, checkpoint: Option<Offset>, bounds: Bounds) -> Option<String> {
    if let Some(next) = checkpoint.filter(|next| *next > bounds.next) {
        return Some(format!("the stored position rests on {next}, the log ends at {}", bounds.next));
    }
    let (marker, _) = history.marker?;
    if marker >= bounds.next || marker < bounds.first {
        return Some(format!("the marker is at {marker}, the log holds {} to {}", bounds.first, bounds.next));
    }
    None
}

/// Everything between two offsets, or what comes before an error.
async fn read(log: &EmbeddedLog, from: Offset, to: Offset) -> Result<(Vec<Delivered>, Option<Error>), Failure> {
    let mut all: Vec<Delivered> = Vec::new();
    let mut subscription = match log.subscribe(PARTITION, from).await {
        Ok(subscription) => subscription,
        Err(error) => return Ok((all, Some(error))),
    };
    while all.last().map_or(from, |last| last.offset.next()) < to {
        match tokio::time::timeout(Duration::from_secs(20), subscription.next(64 << 10)).await {
            Ok(Ok(some)) => all.extend(some),
            Ok(Err(error)) if error.class() == ErrorClass::Gap => return Ok((all, Some(error))),
            Ok(Err(error)) => return failure(Outcome::NotRecovered, format!("damage is no {error:?}")),
            Err(_) => return failure(Outcome::NotRecovered, format!("nothing comes after {} records", all.len())),
        }
    }
    Ok((all, None))
}

fn compare(delivered: &[Delivered], truth: &[Record], from: Offset) -> Result<(), Failure> {
    for (offset, delivered) in (from.0..).zip(delivered) {
        let published = usize::try_from(offset).ok().and_then(|at| truth.get(at));
        if delivered.offset != Offset(offset) || !published.is_some_and(|published| same(published, &delivered.record))
        {
            return failure(Outcome::Invented, format!("the record at {offset} was never published there"));
        }
    }
    Ok(())
}

/// A recovered log takes records, and has them after one more start.
async fn go_on(
    log: EmbeddedLog,
    history: &History,
    folder: &Path,
    next: Offset,
    records: &[Record],
) -> Result<(), Failure> {
    let stuck =
        |error: Error| Failure { outcome: Outcome::NotRecovered, reason: format!("it does not go on: {error}") };
    log.publish(PARTITION, records.to_vec()).await.map_err(stuck)?.await.map_err(stuck)?;
    drop(log);
    let log = EmbeddedLog::open(&folder.join(LOG), history.config.clone()).map_err(|error| stuck(error.into()))?;
    let end = Offset(next.0 + records.len() as u64);
    if log.bounds(PARTITION).await.map_err(stuck)?.next != end {
        return failure(Outcome::Missing, "what was published after the recovery is gone");
    }
    let (delivered, error) = read(&log, next, end).await?;
    if let Some(error) = error {
        return Err(stuck(error));
    }
    let offsets = (next.0..).zip(&delivered).all(|(offset, one)| one.offset == Offset(offset));
    if !offsets || !delivered.iter().zip(records).all(|(one, record)| same(&one.record, record)) {
        return failure(Outcome::Invented, "what was published after the recovery reads as something else");
    }
    Ok(())
}
