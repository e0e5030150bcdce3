//! What can go wrong with the control store.

use rusqlite::ErrorCode;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sync_worker_core::error::{Classified, ErrorClass};

/// Clones, because several writes that were committed together fail together.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{} is in use by another worker{}: stop that one first, or give this one another [state] path",
        folder.display(), pid.map_or(String::new(), |pid| format!(" (process {pid})"))
    )]
    InUse { folder: PathBuf, pid: Option<u32> },
    #[error(
        "{} is damaged ({detail}): restore the whole folder {} from a backup, or move it away to copy all tables again",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    Damaged { path: PathBuf, detail: String },
    #[error("{} was written by a newer version (format {found}, this one knows {known}): run that version", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("no room left for {}: free some disk space", path.display())]
    Full { path: PathBuf },
    #[error("{}: {action} failed", path.display())]
    Sqlite {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    #[error("{}: {action} failed", path.display())]
    Io {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: Arc<std::io::Error>,
    },
    #[error("the writer of {} has ended", path.display())]
    Closed { path: PathBuf },
}

impl Classified for Error {
    fn class(&self) -> ErrorClass {
        match self {
            Error::Damaged { .. } => ErrorClass::Gap,
            Error::Full { .. } => ErrorClass::Transient,
            Error::InUse { .. } | Error::Newer { .. } | Error::Closed { .. } => ErrorClass::Fatal,
            Error::Sqlite { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    ErrorClass::Transient
                }
                Some(_) | None => ErrorClass::Fatal,
            },
            Error::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorClass::Transient,
                _ => ErrorClass::Fatal,
            },
        }
    }
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source: Arc::new(source) }
    }

    pub(crate) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.into() }
    }
}

/// What went wrong while working on the connection, before it is known which file that is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Damaged(String),
}

impl Fault {
    pub(crate) fn at(self, path: &Path, action: &'static str) -> Error {
        let source = match self {
            Fault::Damaged(detail) => return Error::damaged(path, detail),
            Fault::Sqlite(source) => source,
        };
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Error::Full { path: path.to_owned() },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::damaged(path, source.to_string()),
            Some(_) | None => Error::Sqlite { path: path.to_owned(), action, source: Arc::new(source) },
        }
    }
}
