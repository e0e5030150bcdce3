//! Control data on one machine: one SQLite file that holds checkpoints, snapshot chunks, deferred retries and dead
//! letters, and of two-way pipelines the conflict ledger and the state of the resolvers.
//!
//! ```text
//! callers -> queue -> one writer thread -> store.sqlite   (whatever is queued is one commit, one flush)
//! ```
//!
//! [`SqliteStore`] implements [`Store`], [`RetryQueue`], [`Ledger`] and [`ResolverStore`]. Whatever returns Ok is durable.
//! A file that is damaged is refused by name when it is opened, never mended or started afresh (invariant 8).
//!
//! [`Store`]: sync_worker_core::store::Store
//! [`RetryQueue`]: sync_worker_core::store::RetryQueue
//! [`Ledger`]: sync_worker_core::ledger::Ledger
//! [`ResolverStore`]: sync_worker_core::ledger::ResolverStore

mod captures;
mod checksum;
mod error;
mod folder;
mod ledger;
mod open;
mod resolvers;
mod retries;
mod schemas;
mod wal;
mod writer;

pub use error::Error;

use std::path::Path;
use sync_worker_core::name::InstallationId;

/// The control store of one installation, held by this process alone.
pub struct SqliteStore {
    installation: InstallationId,
    // In this order: the file is closed before its folder is free for another worker.
    writer: writer::Writer,
    _folder: folder::Folder,
}

impl SqliteStore {
    /// Opens the store of a state folder, making both where they are missing, and holds them until it is dropped.
    /// Checks all of it first, which takes about as long as reading the file once.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let folder = folder::Folder::hold(folder)?;
        let (path, connection, installation) = open::open(&folder)?;
        let writer = writer::Writer::start(&path, connection)?;
        Ok(Self { installation, writer, _folder: folder })
    }

    /// The installation that a state folder belongs to, also while a worker holds it; None for a folder that is new.
    pub fn installation_of(folder: &Path) -> Result<Option<InstallationId>, Error> {
        folder::installation(folder)
    }
}
