//! What the project needs of a MongoDB replica set, each need shown through the official driver.
//!
//! The suite runs on the stand-in, one per test. With `SYNC_WORKER_TEST_MONGODB=mongodb://...` the same suite runs on a
//! real replica set, one test at a time; checks that need the stand-in's own commands then say that they are skipped.

mod access;
mod bulk_write;
mod catalog;
mod crud;
mod deployment;
mod faults;
mod index_reads;
mod limits;
mod outages;
mod restart;
mod snapshots;
mod stream_events;
mod stream_positions;
mod transaction_conflicts;
mod transactions;
mod types;
mod watching;
