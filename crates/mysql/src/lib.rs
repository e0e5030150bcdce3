//! MySQL: its row binlog as a source, its tables as a target, and one codec for both.
//!
//! ```text
//! binlog  -> source -> Change        one decoder of values (codec) for stream and snapshot
//! tables  -> reader -> Chunk
//! Write   -> sink   -> tables
//! ```

pub mod catalog;
pub mod client;
pub mod codec;
pub mod config;
pub mod error;
// inspect.rs and ddl.rs are complete (written beside this crate's other parts): use `inspect::inspect` and `ddl::ddl`.
mod ddl;
mod inspect;
pub mod gtid;
mod sink;
pub mod wire;

pub use config::Config;
pub use error::Error;
