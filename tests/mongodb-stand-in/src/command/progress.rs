//! How far a command has come that may have to wait in between.

use std::time::{Duration, Instant};

use bson::{RawArrayBuf, RawDocumentBuf};

/// How long a plain write waits for an open transaction unless `maxTimeMS` says otherwise.
const LONGEST_WAIT: Duration = Duration::from_secs(90);

pub struct Progress {
    /// When waiting ends.
    pub deadline: Instant,
    /// Whether that was so when the present attempt began.
    pub expired: bool,
    /// Whether the member was primary when the command came.
    pub was_primary: Option<bool>,
    /// The next statement of a batch.
    pub next: usize,
    pub matched: usize,
    pub modified: usize,
    pub upserted: RawArrayBuf,
    pub errors: RawArrayBuf,
    pub results: Vec<RawDocumentBuf>,
}

impl Progress {
    pub fn new(wait: Option<Duration>) -> Self {
        Self {
            deadline: Instant::now() + wait.unwrap_or(LONGEST_WAIT),
            expired: false,
            was_primary: None,
            next: 0,
            matched: 0,
            modified: 0,
            upserted: RawArrayBuf::new(),
            errors: RawArrayBuf::new(),
            results: Vec::new(),
        }
    }
}
