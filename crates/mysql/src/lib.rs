//! MySQL: its row binlog as a source, its tables as a target, and one codec for both.
//!
//! ```text
//! binlog  -> source -> Change        one decoder of values (codec) for stream and snapshot
//! tables  -> reader -> Chunk
//! Write   -> sink   -> tables
//! ```

pub mod catalog;
pub mod client;
pub mod config;
pub mod error;
mod sink;
pub mod wire;

pub use config::Config;
pub use error::Error;
