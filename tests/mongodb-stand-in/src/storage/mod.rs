//! What the stand-in keeps: collections with the versions of their rows, the oplog, sessions with their transactions,
//! and the journal from which all of it comes back after a restart.
//!
//! ```text
//! command -> Store::write -> Entry -> journal, oplog, rows      (one commit point, under one lock)
//!                               \-> change streams read the oplog
//! ```

pub mod catalog;
pub mod clock;
pub mod collection;
pub mod index;
pub mod journal;
pub mod namespace;
pub mod oplog;
mod record;
pub mod rows;
pub mod session;
pub mod store;
pub mod transaction;
pub mod validation;
pub mod walk;
pub mod write;
