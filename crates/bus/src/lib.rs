//! The embedded log, and the format of the records that stand on any bus.
//!
//! ```text
//! publish -> encode -> queue -> writer thread: one write -> tail in memory -> subscription ahead
//!                                     |        fdatasync -> receipt, and every other subscription:
//!                                     |                     tail in memory, files when it is behind
//!                                     +-- retention
//! ```
//!
//! A log is a folder: `log` names it, `schemas` holds every schema that stood in it, `consumers` what is still needed,
//! and each partition is a folder of segment files (their headers form a chain, their frames carry CRCs).
//! Opening recovers: a torn end of the last segment is cut off, since it was never acknowledged; any other damage is
//! refused by file and byte.

mod config;
mod consumers;
mod disk;
mod error;
#[cfg(test)]
mod faults;
pub mod format;
mod frame;
mod log;
mod partition;
mod publish;
mod reader;
mod recovery;
mod schemas;
mod segment;
mod subscription;
mod writer;

pub use config::Config;
pub use error::Error;
pub use log::{EmbeddedLog, Usage};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// No code panics while it holds one of these locks with its data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
