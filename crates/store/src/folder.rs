//! The state folder: who holds it, and whose it is.
//!
//! ```text
//! lock             held by the running worker, with its process id
//! installation     the identity of the control store that belongs here
//! store.sqlite   the control store
//! ```
//!
//! The identity stands beside the store, too: a store that has vanished must not be taken for one that is new
//! (invariant 8).

use crate::error::Error;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use sync_worker_core::name::InstallationId;

/// Rows wait in here: nobody else may read them.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A state folder held by this process, until it is dropped or the process ends.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and locks it.
    pub(crate) fn hold(path: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .map_err(|error| Error::io(path, "making the state folder", error))?;
        let name = path.join("lock");
        let io = |action| move |error| Error::io(&path.join("lock"), action, error);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&name)
            .map_err(io("opening the lock"))?;
        match patiently(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = lock.read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(Error::InUse { folder: path.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(io("locking")(error)),
        }
        // Only a help for whoever meets the lock: a full disk is no reason to fail here.
        let noted =
            lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::debug!(error = %error, "could not write the process id into the lock");
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The store's file, made where it is missing so that it and its log are readable by their owner alone.
    pub(crate) fn store(&self) -> Result<PathBuf, Error> {
        let path = self.path.join("store.sqlite");
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(&path);
        let narrowed = made.and_then(|file| file.set_permissions(Permissions::from_mode(FILE_MODE)));
        narrowed.map_err(|error| Error::io(&path, "opening", error))?;
        Ok(path)
    }

    pub(crate) fn installation(&self) -> Result<Option<InstallationId>, Error> {
        installation(&self.path)
    }

    /// Notes whose folder this is, durably, after the store itself is durable.
    pub(crate) fn note(&self, installation: &InstallationId) -> Result<(), Error> {
        let (path, draft) = (self.path.join("installation"), self.path.join("installation.new"));
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&draft)?;
            writeln!(file, "{installation}")?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| Error::io(&path, "writing", error))
    }
}

/// The installation that a state folder belongs to; None for a folder that is new. Needs no lock.
pub(crate) fn installation(folder: &Path) -> Result<Option<InstallationId>, Error> {
    let path = folder.join("installation");
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.strip_suffix('\n').filter(|id| is_installation(id)) {
            Some(id) => Ok(Some(InstallationId::new(id))),
            None => Err(Error::damaged(&path, "it names no installation")),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(Error::damaged(&path, "it names no installation")),
        Err(error) => Err(Error::io(&path, "reading", error)),
    }
}

/// Short, because it is a part of slot and publication names, and of their alphabet.
pub(crate) fn new_installation() -> InstallationId {
    InstallationId::new(&uuid::Uuid::new_v4().simple().to_string()[..12])
}

fn is_installation(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A worker that was killed gives its lock up only when the system has taken all of it apart, which its successor may
/// well be too early for.
fn patiently(lock: &File) -> Result<(), TryLockError> {
    let deadline = Instant::now() + TAKE_OVER;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(TAKE_OVER / 100),
            outcome => return outcome,
        }
    }
}

/// How long a predecessor may take to be gone.
const TAKE_OVER: Duration = Duration::from_secs(2);
