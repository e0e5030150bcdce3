//! What each consumer of a log still needs; retention removes nothing of it.
//!
//! Positions move often, so the file is written only when one has passed a segment, was declared for the first time, or
//! went back. After a restart a stored position may be older than the true one, never newer.

use crate::disk;
use crate::error::{Error, Result};
use crate::lock;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use sync_worker_core::record::{Offset, Partition};

pub struct Consumers {
    path: PathBuf,
    positions: Mutex<HashMap<(Partition, String), Position>>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    writing: Mutex<()>,
}

#[derive(Clone, Copy)]
struct Position {
    current: Offset,
    /// What the file says; None when it does not have the consumer.
    stored: Option<Offset>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    consumers: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    partition: u32,
    name: String,
    from: u64,
}

const VERSION: u32 = 1;

impl Consumers {
    /// Reads the file in the folder of a log.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("consumers");
        let file: Option<File> = disk::read_checked(&path)?;
        if let Some(file) = file.as_ref().filter(|file| file.version != VERSION) {
            return Err(Error::Version { path, version: file.version });
        }
        let entries = file.map(|file| file.consumers).unwrap_or_default();
        let position = |from| Position { current: Offset(from), stored: Some(Offset(from)) };
        let positions = entries.into_iter().map(|one| ((Partition(one.partition), one.name), position(one.from)));
        Ok(Self { path, positions: Mutex::new(positions.collect()), writing: Mutex::default() })
    }

    /// Declares a position. Whether the file should be written before it counts; `segment` is the base of the segment
    /// that an offset is in.
    pub fn declare(
        &self,
        partition: Partition,
        consumer: &str,
        from: Offset,
        segment: impl Fn(Offset) -> Option<Offset>,
    ) -> Result<bool> {
        if consumer.is_empty() || consumer.chars().any(char::is_control) {
            return Err(Error::ConsumerName);
        }
        let mut positions = lock(&self.positions);
        let position = positions.entry((partition, consumer.to_owned()));
        let position = position.or_insert(Position { current: from, stored: None });
        position.current = from;
        Ok(position.stored.is_none_or(|stored| from < stored || segment(stored) != segment(from)))
    }

    /// Forgets a consumer; what only it needed may go. Returns whether it was there. The file is to be written then.
    pub fn forget(&self, partition: Partition, consumer: &str) -> bool {
        lock(&self.positions).remove(&(partition, consumer.to_owned())).is_some()
    }

    /// Blocks on the disk.
    pub fn write(&self) -> Result<()> {
        let _writing = lock(&self.writing);
        let current: Vec<_> =
            lock(&self.positions).iter().map(|(key, position)| (key.clone(), position.current)).collect();
        let mut consumers: Vec<_> = current
            .iter()
            .map(|((partition, name), from)| Entry { partition: partition.0, name: name.clone(), from: from.0 })
            .collect();
        consumers.sort_by(|a, b| (a.partition, &a.name).cmp(&(b.partition, &b.name)));
        disk::write_checked(&self.path, &File { version: VERSION, consumers })?;
        let mut positions = lock(&self.positions);
        for (key, from) in current {
            if let Some(position) = positions.get_mut(&key) {
                position.stored = Some(from);
            }
        }
        Ok(())
    }

    /// The slowest consumer of a partition. What is durable counts: retention must not run ahead of it, or a restart
    /// would find the consumer's needs gone by its own account. None without consumers.
    pub fn slowest(&self, partition: Partition) -> Option<Offset> {
        let positions = lock(&self.positions);
        let of_partition = positions.iter().filter(|((one, _), _)| *one == partition);
        of_partition
            .map(|(_, position)| position.stored.map_or(position.current, |stored| stored.min(position.current)))
            .min()
    }
}
