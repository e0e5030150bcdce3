//! Measurements: rates, latencies and memory of the worker beside a peer, in the same run on the same machine.

pub mod figures;
pub mod latency;
pub mod log;
pub mod memory;
pub mod postgres;
pub mod process;
pub mod throughput;
pub mod worker;
pub mod workload;
