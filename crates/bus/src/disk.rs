//! The file operations that decide about durability, behind a trait so that tests can let them fail.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Error, Result};

/// Rows stand in here: nobody else may read them.
pub const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

pub trait Disk: Send + Sync {
    fn write_all_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Returns once the contents are durable. After an error the same bytes are never synced again: the kernel may have
    /// dropped them and would then report success.
    fn sync(&self, file: &File) -> io::Result<()>;
}

pub struct RealDisk;

impl Disk for RealDisk {
    fn write_all_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Makes a folder, and those above it, where they are missing.
pub fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path).map_err(Error::io("make the folder", path))
}

/// Makes names in a folder durable.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io("sync the folder", path))
}

/// Puts a file in place whole and durable, or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let opened = File::options().write(true).create(true).truncate(true).mode(FILE_MODE).open(&new);
    let written = opened.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, path)).map_err(Error::io("write", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Writes a small file of one JSON line and one line with its CRC.
pub fn write_checked<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let json = serde_json::to_string(value).map_err(|error| Error::io("write", path)(error.into()))?;
    let crc = crc32fast::hash(json.as_bytes());
    replace(path, format!("{json}\ncrc32 {crc:08x}\n").as_bytes())
}

/// Reads what [`write_checked`] wrote; None where there is no such file.
pub fn read_checked<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let damaged = |what| Error::damaged(path, 0, what);
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("not text"))?;
    let (json, crc) = text.split_once('\n').ok_or_else(|| damaged("it ends early"))?;
    if crc != format!("crc32 {:08x}\n", crc32fast::hash(json.as_bytes())) {
        return Err(damaged("its checksum is wrong"));
    }
    serde_json::from_str(json).map(Some).map_err(|_| damaged("its contents are not understood"))
}
