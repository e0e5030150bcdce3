//! The vocabulary of Sync Worker: what a change is, how it is written down, and what an adapter must do.
//!
//! ```text
//! database -> Source -> capture -> Bus -> apply -> Sink -> database
//!             Change    Record            Write
//! ```
//!
//! No I/O and no client crate stands here. The engine owns every loop, task and retry; an adapter implements the
//! traits of [`database`], [`source`], [`sink`], [`bus`] and [`store`], and answers every error with a class.

pub mod bus;
pub mod change;
pub mod collapse;
pub mod convert;
pub mod database;
mod decimal;
pub mod document;
pub mod echo;
pub mod encoding;
pub mod error;
pub mod exchange;
pub mod guard;
pub mod json;
pub mod ledger;
pub mod logical;
pub mod name;
pub mod position;
pub mod reader;
pub mod record;
pub mod row;
pub mod rules;
pub mod schema;
pub mod secret;
pub mod sink;
pub mod source;
pub mod store;
pub mod type_names;
pub mod type_table;
pub mod types;
pub mod value;
