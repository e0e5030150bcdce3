//! PostgreSQL: logical-replication source, set-based sink, table reader and the value codec of both.

mod calendar;
pub mod catalog;
pub mod client;
pub mod codec;
pub mod config;
pub mod error;
// inspect.rs and ddl.rs are complete (written beside this crate's other parts): use `inspect::inspect` and `ddl::ddl`.
mod ddl;
mod inspect;
pub(crate) mod sink;
mod source;
mod tls;

pub use config::Config;
pub use error::Error;
