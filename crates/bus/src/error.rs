//! What can go wrong with the embedded log, and what each case means to the engine.

use std::io;
use std::path::{Path, PathBuf};
use sync_worker_core::error::{Classified, ErrorClass};
use sync_worker_core::record::Offset;

/// The cure where the log itself lacks something.
macro_rules! put_back {
    () => {
        "put it back from a copy, or remove the pipeline's state and take a new snapshot"
    };
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can't {doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the log in {} is in use by another process; stop that one first", .0.display())]
    Locked(PathBuf),
    #[error("{} is damaged at byte {byte}: {what}; {}", path.display(), put_back!())]
    Damaged { path: PathBuf, byte: u64, what: &'static str },
    #[error("the record at offset {offset} in {} can't be read: {what}; {}", path.display(), put_back!())]
    Record { path: PathBuf, offset: Offset, what: &'static str },
    #[error("{} is missing; {}", .0.display(), put_back!())]
    Missing(PathBuf),
    #[error("{} belongs to another log; {}", .0.display(), put_back!())]
    Foreign(PathBuf),
    #[error("{} was written by a newer version of the worker (format {version}); run that version", path.display())]
    Version { path: PathBuf, version: u32 },
    #[error("the log in {} has {there} partitions and the configuration asks for {wanted}; their number is fixed for a pipeline's life", path.display())]
    Partitions { path: PathBuf, there: u32, wanted: u32 },
    #[error("there is no partition {0} in this log")]
    NoPartition(u32),
    #[error("offset {from} is not in {}, which holds {first} up to {next}", path.display())]
    Outside { path: PathBuf, from: Offset, first: Offset, next: Offset },
    #[error("no room left for the log in {}: {reason}; free some space there, publishing then goes on", path.display())]
    Full { path: PathBuf, reason: String },
    #[error("an earlier publish to the log in {} failed and its receipt has not been looked at", .0.display())]
    Unseen(PathBuf),
    #[error("records that were read ahead of the log in {} could not be made durable there", .0.display())]
    TakenBack(PathBuf),
    #[error("writing {} failed: {reason}; nothing more is written to it: look after the disk, then start the worker again", path.display())]
    Broken { path: PathBuf, reason: String },
    #[error("a row of table {table} takes {bytes} bytes, more than a log record can hold")]
    TooLarge { table: String, bytes: usize },
    #[error("a change of table {0} was published before its schema")]
    Unannounced(String),
    #[error("nothing to publish")]
    Empty,
    #[error("a consumer's name must be printable, without line breaks")]
    ConsumerName,
    #[error("the log in {} is closed", .0.display())]
    Closed(PathBuf),
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Error::Io { doing, path, source }
    }

    pub(crate) fn damaged(path: &Path, byte: u64, what: &'static str) -> Self {
        Error::Damaged { path: path.to_owned(), byte, what }
    }
}

/// Whether an error of the file system goes away when somebody makes room.
pub(crate) fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Classified for Error {
    fn class(&self) -> ErrorClass {
        match self {
            Error::Io { source, .. } if is_full(source.kind()) => ErrorClass::Transient,
            Error::Full { .. } | Error::Unseen(_) | Error::Closed(_) | Error::TakenBack(_) => ErrorClass::Transient,
            Error::Damaged { .. }
            | Error::Record { .. }
            | Error::Missing(_)
            | Error::Foreign(_)
            | Error::Outside { .. } => ErrorClass::Gap,
            Error::Io { .. }
            | Error::Locked(_)
            | Error::Version { .. }
            | Error::Partitions { .. }
            | Error::NoPartition(_)
            | Error::Broken { .. }
            | Error::TooLarge { .. }
            | Error::Unannounced(_)
            | Error::Empty
            | Error::ConsumerName => ErrorClass::Fatal,
        }
    }
}
