//! What is done to a log before it is used: its files are checked against each other, the torn end of an unfinished
//! write is cut off, and what an earlier process left to the kernel is made durable.

use crate::disk;
use crate::error::{Error, Result};
use crate::format::{Decoder, may_announce};
use crate::schemas::{Schemas, Stored};
use crate::segment::{START, Segment};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sync_worker_core::record::{Body, Offset};
use sync_worker_core::schema::Schema;
use uuid::Uuid;

/// The file that names a log, written last when a log is made.
#[derive(Serialize, Deserialize)]
pub struct Name {
    version: u32,
    pub identity: Uuid,
    partitions: u32,
}

const VERSION: u32 = 1;

/// A partition, ready to be written and read.
pub struct Recovered {
    pub folder: PathBuf,
    pub segments: VecDeque<Arc<Segment>>,
    /// The last segment, open for writing.
    pub file: File,
    pub end: u64,
    pub next: Offset,
    /// Schemas that the log must know.
    schemas: u32,
}

/// The name of the log in a folder; an empty folder becomes a new log.
pub fn name(folder: &Path, partitions: u32) -> Result<Name> {
    let path = folder.join("log");
    let Some(name) = disk::read_checked::<Name>(&path)? else { return create(folder, &path, partitions) };
    if name.version != VERSION {
        return Err(Error::Version { path, version: name.version });
    }
    if name.partitions != partitions {
        return Err(Error::Partitions { path: folder.to_owned(), there: name.partitions, wanted: partitions });
    }
    Ok(name)
}

pub fn partition_folder(folder: &Path, partition: u32) -> PathBuf {
    folder.join(partition.to_string())
}

fn create(folder: &Path, path: &Path, partitions: u32) -> Result<Name> {
    let name = Name { version: VERSION, identity: Uuid::now_v7(), partitions };
    for partition in 0..partitions {
        let folder = partition_folder(folder, partition);
        disk::make_folder(&folder)?;
        for segment in Segment::list(&folder)? {
            // A crash while a log was made leaves empty segments; one with records is a log that has lost its name.
            let length = fs::metadata(&segment).map_err(Error::io("read", &segment))?.len();
            if length > START {
                return Err(Error::Missing(path.to_owned()));
            }
            fs::remove_file(&segment).map_err(Error::io("remove", &segment))?;
        }
        Segment::create(&folder, name.identity, partition, Offset(0), None, 0)?;
    }
    Schemas::write(folder, name.identity, &[])?;
    match fs::remove_file(folder.join("consumers")) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io("remove", folder)(error)),
        Ok(()) | Err(_) => {}
    }
    disk::write_checked(path, &name)?;
    tracing::info!(folder = %folder.display(), identity = %name.identity, "made a new log");
    Ok(name)
}

/// Checks the chain of segments and brings the last one to its last sound frame.
pub fn partition(folder: PathBuf, identity: Uuid, partition: u32) -> Result<Recovered> {
    let missing = || Error::Missing(folder.clone());
    let paths = match Segment::list(&folder) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Err(missing()),
        paths => paths?,
    };
    let mut segments: VecDeque<Arc<Segment>> = VecDeque::with_capacity(paths.len());
    let mut last_length = 0;
    for path in paths {
        let (segment, length) = Segment::open(&path, identity, partition)?;
        if let Some(before) = segments.back() {
            match segment.previous {
                Some(previous) if previous.base == before.base && previous.length == last_length => {}
                Some(previous) if previous.base == before.base => {
                    let byte = last_length.min(previous.length);
                    return Err(Error::damaged(&before.path, byte, "it has not the length it was closed with"));
                }
                Some(previous) => return Err(Error::Missing(Segment::path(&folder, previous.base))),
                None => return Err(Error::Foreign(path)),
            }
        }
        last_length = length;
        segments.push_back(Arc::new(segment));
    }
    let last = segments.back().ok_or_else(missing)?;
    let file = File::options().read(true).write(true).open(&last.path).map_err(Error::io("open", &last.path))?;
    let scanned = last.scan(&file, |_| {})?;
    if scanned.torn > 0 {
        tracing::warn!(
            file = %last.path.display(), byte = scanned.end, bytes = scanned.torn, next = %scanned.next,
            "cut off the end of an unfinished write"
        );
        file.set_len(scanned.end).map_err(Error::io("cut", &last.path))?;
    }
    // A process that was killed may have written a frame without syncing it. It is read from now on, so it must stay.
    file.sync_all().map_err(Error::io("sync", &last.path))?;
    disk::sync_folder(&folder)?;
    Ok(Recovered { segments, file, end: scanned.end, next: scanned.next, schemas: scanned.schemas, folder })
}

/// The schemas of the log; those that their file lacks are taken from the records that announced them.
pub fn schemas(folder: &Path, identity: Uuid, partitions: &[Recovered]) -> Result<Schemas> {
    let stored = Schemas::read(folder, identity)?;
    let needed = partitions.iter().map(|partition| partition.schemas).max().unwrap_or(0) as usize;
    if !stored.damaged && stored.schemas.len() >= needed {
        return Schemas::open(folder, stored);
    }
    let path = Schemas::path(folder);
    tracing::warn!(file = %path.display(), sound = stored.schemas.len(), needed, "making the file of schemas anew");
    let Stored { mut schemas, length, .. } = stored;
    if schemas.len() < needed {
        let segments = partitions.iter().flat_map(|partition| &partition.segments);
        for segment in segments {
            announced(segment, &mut schemas)?;
        }
    }
    if schemas.len() < needed {
        return Err(Error::damaged(&path, length, "schemas are missing that are no longer in the log"));
    }
    Schemas::open(folder, Schemas::write(folder, identity, &schemas)?)
}

/// Adds the schemas that the records of a segment announce.
fn announced(segment: &Segment, schemas: &mut Vec<Arc<Schema>>) -> Result<()> {
    let file = File::open(&segment.path).map_err(Error::io("open", &segment.path))?;
    let mut decoder = Decoder::default();
    let scanned = segment.scan(&file, |mut payload| {
        while let Some((length, rest)) = payload.split_first_chunk::<4>() {
            let Some((record, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { return };
            payload = rest;
            if !may_announce(record) {
                continue;
            }
            let Ok(record) = decoder.decode(&Bytes::copy_from_slice(record), |_| None) else { continue };
            let announced = match record.body {
                Body::Schema(schema) => vec![schema],
                Body::Configuration(two_way) => two_way.tables.iter().map(|table| table.schema.clone()).collect(),
                Body::Change(_)
                | Body::Commit
                | Body::Marker(_)
                | Body::Decision(_)
                | Body::Resume(_)
                | Body::Seeded(_) => continue,
            };
            for schema in announced {
                if schemas.iter().all(|known| known.id != schema.id) {
                    schemas.push(schema);
                }
            }
        }
    })?;
    if scanned.torn > 0 {
        return Err(Error::damaged(&segment.path, scanned.end, "a bad frame"));
    }
    Ok(())
}
