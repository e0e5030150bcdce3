//! The schemas of a log: all that ever stood in it, in a file of their own, so that a reader may start behind the
//! record that announced one, and retention may remove that record.
//!
//! An entry is durable before the first frame that carries its schema. A frame says how many entries there were: when
//! the file has fewer, it is made anew from the records that are still there, or the log is refused.

use crate::disk::{self, Disk};
use crate::error::{Error, Result, is_full};
use crate::format::VERSION;
use crate::lock;
use bytes::{BufMut, BytesMut};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use sync_worker_core::encoding::{decode_schema, encode_schema};
use sync_worker_core::schema::{Schema, SchemaId};
use uuid::Uuid;

const MAGIC: [u8; 8] = *b"SYNCWSCH";
const START: usize = 8 + 4 + 16 + 4;

pub struct Schemas {
    known: RwLock<HashMap<SchemaId, Known>>,
    file: Mutex<Entries>,
}

struct Known {
    schema: Arc<Schema>,
    durable: bool,
}

/// The file, open for appending.
struct Entries {
    path: PathBuf,
    file: File,
    end: u64,
    count: u32,
    broken: bool,
}

/// What stands in the file of an existing log.
pub struct Stored {
    pub schemas: Vec<Arc<Schema>>,
    /// There is more behind them that is not sound, or no sound file at all.
    pub damaged: bool,
    pub length: u64,
}

impl Schemas {
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("schemas")
    }

    /// Reads the file up to the first bad entry. A missing file holds none.
    pub fn read(folder: &Path, identity: Uuid) -> Result<Stored> {
        let path = Self::path(folder);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let mut stored = Stored { schemas: Vec::new(), damaged: false, length: 0 };
        if bytes.get(..START) != Some(&header(identity)[..]) {
            stored.damaged = true;
            return Ok(stored);
        }
        let mut at = START;
        while let Some((schema, length)) = entry(&bytes[at..]) {
            stored.schemas.push(Arc::new(schema));
            at += length;
        }
        stored.damaged = at < bytes.len();
        stored.length = at as u64;
        Ok(stored)
    }

    /// Goes on with a sound file.
    pub fn open(folder: &Path, stored: Stored) -> Result<Self> {
        let path = Self::path(folder);
        let file = File::options().write(true).open(&path).map_err(Error::io("open", &path))?;
        // What an earlier process has written may not be on the disk yet.
        file.sync_all().map_err(Error::io("sync", &path))?;
        let count = u32::try_from(stored.schemas.len()).unwrap_or(u32::MAX);
        let entries = Entries { path, file, end: stored.length, count, broken: false };
        let known = stored.schemas.into_iter().map(|schema| (schema.id, Known { schema, durable: true })).collect();
        Ok(Self { known: RwLock::new(known), file: Mutex::new(entries) })
    }

    /// Puts a file with these schemas in place.
    pub fn write(folder: &Path, identity: Uuid, schemas: &[Arc<Schema>]) -> Result<Stored> {
        let mut bytes = header(identity);
        for schema in schemas {
            put_entry(&mut bytes, schema);
        }
        disk::replace(&Self::path(folder), &bytes)?;
        Ok(Stored { schemas: schemas.to_vec(), damaged: false, length: bytes.len() as u64 })
    }

    pub fn get(&self, id: SchemaId) -> Option<Arc<Schema>> {
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(&id).map(|known| known.schema.clone())
    }

    /// Whether a schema is durable; None when it has not even been announced.
    pub fn is_durable(&self, id: SchemaId) -> Option<bool> {
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(&id).map(|known| known.durable)
    }

    /// Lets changes that use a schema be published behind the record that announces it.
    pub fn announce(&self, schema: &Arc<Schema>) {
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.entry(schema.id).or_insert_with(|| Known { schema: schema.clone(), durable: false });
    }

    /// How many are durable.
    pub fn count(&self) -> u32 {
        lock(&self.file).count
    }

    /// Makes schemas durable that are not yet.
    pub fn add(&self, schemas: &[Arc<Schema>], disk: &dyn Disk) -> Result<()> {
        let mut entries = lock(&self.file);
        let mut bytes = BytesMut::new();
        let mut added: Vec<&Arc<Schema>> = Vec::new();
        for schema in schemas {
            if self.is_durable(schema.id) != Some(true) && added.iter().all(|one| one.id != schema.id) {
                put_entry(&mut bytes, schema);
                added.push(schema);
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        entries.append(&bytes, disk)?;
        entries.count += u32::try_from(added.len()).unwrap_or(u32::MAX);
        let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.extend(added.into_iter().map(|schema| (schema.id, Known { schema: schema.clone(), durable: true })));
        Ok(())
    }
}

impl Entries {
    fn append(&mut self, bytes: &[u8], disk: &dyn Disk) -> Result<()> {
        let broken = |path: &Path, reason: String| Error::Broken { path: path.to_owned(), reason };
        if self.broken {
            return Err(broken(&self.path, "an earlier write failed".to_owned()));
        }
        let written = disk.write_all_at(&self.file, bytes, self.end);
        let synced = written.as_ref().map_or(Ok(()), |()| disk.sync(&self.file));
        match (written, synced) {
            (Ok(()), Ok(())) => {
                self.end += bytes.len() as u64;
                Ok(())
            }
            (Err(error), _) if is_full(error.kind()) && self.file.set_len(self.end).is_ok() => {
                Err(Error::Full { path: self.path.clone(), reason: error.to_string() })
            }
            (Err(error), _) | (_, Err(error)) => {
                self.broken = true;
                let cut = self.file.set_len(self.end).err();
                let reason = cut.map_or_else(|| error.to_string(), |cut| format!("{error}, then {cut}"));
                Err(broken(&self.path, reason))
            }
        }
    }
}

fn header(identity: Uuid) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(START);
    bytes.put_slice(&MAGIC);
    bytes.put_u32_le(VERSION);
    bytes.put_slice(identity.as_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.put_u32_le(crc);
    bytes
}

fn put_entry(out: &mut BytesMut, schema: &Schema) {
    let mut bytes = BytesMut::new();
    encode_schema(schema, &mut bytes);
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_u32_le(crc32fast::hash(&bytes));
    out.put_slice(&bytes);
}

/// The entry at the front of `bytes` and its length, if it is whole and sound.
fn entry(bytes: &[u8]) -> Option<(Schema, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.get(..u32::from_le_bytes(*length) as usize)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    decode_schema(body).ok().map(|schema| (schema, 8 + body.len()))
}
