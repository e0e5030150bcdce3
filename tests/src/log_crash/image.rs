//! What a crash or damage leaves of the files.

use super::files::Files;
use super::history::{History, LOG, STORE, State, pick};
use rand::Rng;
use rand::rngs::StdRng;
use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing was under way.
    Whole,
    /// A crash of the machine in the middle of a write: sectors of it arrived in any order.
    Torn,
    /// A file ends early, though what is missing had been synced.
    Cut,
    /// Sectors that had been synced are zeros.
    Zeroed,
    Flipped,
    Removed,
}

impl Kind {
    pub const ALL: [Kind; 6] = [Kind::Whole, Kind::Torn, Kind::Cut, Kind::Zeroed, Kind::Flipped, Kind::Removed];

    /// Whether a disk that keeps its promises can leave such an image; it must be recovered then.
    pub fn is_crash(self) -> bool {
        match self {
            Kind::Whole | Kind::Torn => true,
            Kind::Cut | Kind::Zeroed | Kind::Flipped | Kind::Removed => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Whole => "whole",
            Kind::Torn => "torn",
            Kind::Cut => "cut",
            Kind::Zeroed => "zeroed",
            Kind::Flipped => "flipped",
            Kind::Removed => "removed",
        })
    }
}

pub struct Image {
    pub kind: Kind,
    pub files: Files,
    /// Records that had been acknowledged, and checkpoints that had been stored.
    pub acknowledged: usize,
    pub checkpoints: usize,
    pub description: String,
}

const SECTOR: usize = 512;

pub fn make(history: &History, random: &mut StdRng) -> Image {
    let kind = match random.random_range(0..100) {
        0..2 => Kind::Whole,
        2..32 => Kind::Torn,
        32..52 => Kind::Cut,
        52..68 => Kind::Zeroed,
        68..97 => Kind::Flipped,
        _ => Kind::Removed,
    };
    if kind == Kind::Torn {
        return torn(history, random);
    }
    let state = *pick(random, &[&history.before, &history.published, &history.stored]);
    let mut files = state.files.clone();
    let description = match kind {
        Kind::Whole | Kind::Torn => "whole".to_owned(),
        Kind::Cut | Kind::Zeroed | Kind::Flipped | Kind::Removed => damage(kind, &mut files, random),
    };
    image(kind, files, state, description)
}

fn image(kind: Kind, files: Files, state: &State, description: String) -> Image {
    Image { kind, files, acknowledged: state.acknowledged, checkpoints: state.checkpoints, description }
}

/// Damages one file; the last segment more often than others.
fn damage(kind: Kind, files: &mut Files, random: &mut StdRng) -> String {
    let last = files.segments().last().map(|path| (*path).clone()).filter(|_| random.random_ratio(2, 5));
    let candidates: Vec<PathBuf> =
        files.0.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(path, _)| path.clone()).collect();
    let path = last.unwrap_or_else(|| pick(random, &candidates).clone());
    let name = path.display();
    if kind == Kind::Removed {
        files.0.remove(&path);
        return format!("{name} removed");
    }
    let Some(bytes) = files.0.get_mut(&path) else { return "nothing".to_owned() };
    let length = bytes.len();
    match kind {
        Kind::Cut => {
            // Anywhere, or near the end, where it is hardest to notice.
            let kept = if random.random() {
                random.random_range(0..length)
            } else {
                length - random.random_range(1..=length.min(600))
            };
            bytes.truncate(kept);
            format!("{name} cut from {length} to {kept} bytes")
        }
        Kind::Zeroed => {
            let sectors = length.div_ceil(SECTOR);
            let first = if random.random() {
                random.random_range(0..sectors)
            } else {
                sectors - 1 - random.random_range(0..sectors.min(3))
            };
            let end = (first + random.random_range(1..=4)).min(sectors);
            let (from, to) = (first * SECTOR, (end * SECTOR).min(length));
            bytes[from..to].fill(0);
            format!("{name} zeroed from {from} to {to} of {length} bytes")
        }
        Kind::Flipped => {
            let mut flipped = Vec::new();
            for _ in 0..*pick(random, &[1, 1, 1, 2, 5]) {
                let bit = random.random_range(0..length * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
                flipped.push(bit);
            }
            format!("{name} with bits {flipped:?} of {} flipped", length * 8)
        }
        Kind::Whole | Kind::Torn | Kind::Removed => "nothing".to_owned(),
    }
}

/// The steps of the last group, each durable before the next begins. One of them is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Schemas,
    /// The next segment appears under its name, with its header.
    Roll,
    Retention,
    Frame,
    /// The position that covers the group is stored.
    Checkpoint,
}

fn torn(history: &History, random: &mut StdRng) -> Image {
    let steps = [Step::Schemas, Step::Roll, Step::Retention, Step::Frame, Step::Frame, Step::Frame, Step::Checkpoint];
    let step = *pick(random, &steps);
    let (before, published) = (&history.before.files, &history.published.files);
    let mut files = before.clone();
    let mut description = format!("{step:?} interrupted");
    let schemas = Path::new(LOG).join("schemas");
    let (old, new) = (file(before, &schemas), file(published, &schemas));
    let reached = if step == Step::Schemas { tear(old, new, random, &mut description) } else { new.to_vec() };
    files.0.insert(schemas, reached);
    let last = published.segments().last().map(|path| (*path).clone()).unwrap_or_default();
    if step == Step::Roll && !before.0.contains_key(&last) {
        let header = &file(published, &last)[..64];
        let (name, contents) = match random.random_range(0..3) {
            0 => (last.clone(), header.to_vec()),
            1 => (last.with_extension("new"), header.to_vec()),
            _ => (last.with_extension("new"), tear(&[], header, random, &mut description)),
        };
        files.0.insert(name, contents);
    }
    if step >= Step::Retention {
        if !before.0.contains_key(&last) {
            files.0.insert(last.clone(), file(published, &last)[..64].to_vec());
        }
        let removed: Vec<_> = before.segments().into_iter().filter(|path| !published.0.contains_key(*path)).collect();
        let count = if step == Step::Retention { random.random_range(0..=removed.len()) } else { removed.len() };
        removed.iter().take(count).for_each(|path| drop(files.0.remove(*path)));
    }
    if step >= Step::Frame {
        let (old, new) = (file(&files, &last).to_vec(), file(published, &last));
        let reached = if step == Step::Frame { tear(&old, new, random, &mut description) } else { new.to_vec() };
        files.0.insert(last, reached);
    }
    if step < Step::Checkpoint {
        return image(Kind::Torn, files, &history.before, description);
    }
    let stored = &history.stored.files;
    let changed: Vec<&PathBuf> =
        stored.0.iter().filter(|(path, bytes)| files.0.get(*path) != Some(*bytes)).map(|(path, _)| path).collect();
    // Beside a commit, SQLite folds its log into the database now and then, in an order of its own.
    let commit = changed.iter().all(|path| path.starts_with(STORE) && !path.ends_with("store.sqlite"));
    for path in changed.into_iter().filter(|path| commit && !path.to_string_lossy().ends_with("-shm")) {
        let reached = tear(file(&files, path), file(stored, path), random, &mut description);
        files.0.insert(path.clone(), reached);
    }
    Image { acknowledged: history.published.acknowledged, ..image(Kind::Torn, files, &history.before, description) }
}

fn file<'a>(files: &'a Files, path: &Path) -> &'a [u8] {
    files.0.get(path).map_or(&[], Vec::as_slice)
}

/// A write from `old` to `new` of which only a part has arrived: up to some byte, or some sectors of it.
fn tear(old: &[u8], new: &[u8], random: &mut StdRng, description: &mut String) -> Vec<u8> {
    if random.random_ratio(1, 3) && new.len() > old.len() {
        let length = random.random_range(old.len()..=new.len());
        description.push_str(&format!(", {length} of {} bytes", new.len()));
        return new[..length].to_vec();
    }
    let arrives = random.random_range(0.0..=1.0);
    let mut bytes = old.to_vec();
    bytes.resize(new.len().max(old.len()), 0);
    let mut missing = 0;
    for start in (0..new.len()).step_by(SECTOR) {
        let end = (start + SECTOR).min(new.len());
        if random.random_bool(arrives) {
            bytes[start..end].copy_from_slice(&new[start..end]);
        } else {
            missing += usize::from(bytes[start..end] != new[start..end]);
        }
    }
    if random.random() {
        // The new length may not have arrived either.
        let length = random.random_range(old.len()..=bytes.len());
        bytes.truncate(length);
    }
    description.push_str(&format!(
        ", {missing} sectors and the end from {} of {} bytes missing",
        bytes.len(),
        new.len()
    ));
    bytes
}
