//! Measurements: rates, latencies and memory of the worker beside a peer, in the same run on the same machine.

pub mod binlog;
pub mod documents;
pub mod dump;
pub mod entries;
pub mod figures;
pub mod idle;
pub mod latency;
pub mod log;
pub mod memory;
pub mod postgres;
pub mod process;
pub mod targets;
pub mod throughput;
pub mod two_way;
pub mod upsert;
pub mod worker;
pub mod workload;
