//! The commands, one file per kind; [`execute`] is where a connection comes in.

mod aggregate;
mod bulk_write;
mod catalog;
pub mod cursors;
mod delete;
mod diagnostics;
mod dispatch;
pub mod execute;
pub mod fail_point;
mod find;
mod find_and_modify;
mod hello;
mod indexes;
mod insert;
mod progress;
mod session;
mod statements;
mod test_only;
mod update;
