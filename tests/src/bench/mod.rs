//! Measurements: rates, latencies and memory of the worker beside a peer, in the same run on the same machine.

pub mod figures;
pub mod postgres;
pub mod process;
pub mod workload;
