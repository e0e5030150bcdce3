//! PostgreSQL: logical-replication source, set-based sink, table reader and the value codec of both.
//!
//! ```text
//! slot -> source -> Change          catalog, client, config, codec: what both sides share
//! table -> reader -> Row            inspect, ddl: preflight and the statements that mend what it finds
//! Write -> sink -> table
//! ```
//!
//! [`Postgres`] is the database that the engine sees.

mod calendar;
pub mod catalog;
pub mod client;
pub mod codec;
pub mod config;
mod copy;
mod database;
mod ddl;
pub mod error;
mod inspect;
mod own;
mod reader;
mod recent;
pub(crate) mod sink;
mod source;
mod tls;
pub mod watch;

pub use config::Config;
pub use database::Postgres;
pub use error::Error;
