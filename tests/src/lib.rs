//! End-to-end tests over real servers and real worker processes: what they stand on.
//!
//! ```text
//! load -> source database -> worker process -> target database
//!             |                                     |
//!             +------- ledger, full compare --------+
//! ```
//!
//! Nothing here uses the product's own reading or comparing: rows are written, read and held against each other by plain
//! statements.

pub mod bench;
pub mod compare;
pub mod connection;
pub mod convergence;
pub mod database;
pub mod demo;
pub mod demo_two_way;
pub mod directions;
pub mod faults;
pub mod histogram;
pub mod kill;
pub mod kind;
pub mod ledger;
pub mod literal;
pub mod load;
pub mod log_crash;
pub mod mongodb;
mod mysql;
pub mod outage;
pub mod postgres;
pub mod proxy;
pub mod scenario;
pub mod seed;
pub mod servers;
pub mod settings;
pub mod tables;
pub mod transaction;
pub mod two_way;
pub mod wait;
pub mod worker;
