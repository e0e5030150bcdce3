//! A folder in memory.

use anyhow::Result;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Contents by path below the folder.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<PathBuf, Vec<u8>>);

impl Files {
    /// Reads a folder in which nothing is written any more, except that retention may still be removing segments.
    pub fn settled(folder: &Path) -> Result<Self> {
        let mut last = Self::read(folder);
        loop {
            let now = Self::read(folder);
            match (last, now) {
                (Ok(one), Ok(two)) if one == two => return Ok(two),
                (_, Err(error)) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                (_, now) => last = now,
            }
        }
    }

    fn read(folder: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        files.add(folder, Path::new(""))?;
        Ok(files)
    }

    fn add(&mut self, folder: &Path, below: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.add(folder, &path)?;
            } else {
                self.0.insert(path, fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        for (path, bytes) in &self.0 {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// The segments, the oldest first.
    pub fn segments(&self) -> Vec<&PathBuf> {
        self.0.keys().filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
    }
}
