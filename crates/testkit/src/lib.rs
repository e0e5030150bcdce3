//! Development only: contract suites that every adapter must pass, and what tests share.

pub mod contract;
pub mod flush;
pub mod memory;
pub mod mysql;
pub mod postgres;
pub mod records;
pub mod stream;
pub mod writer;
