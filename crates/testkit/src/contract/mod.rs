//! Suites that every implementation of a trait must pass.

pub mod bus;
pub mod sink;
pub mod source;
pub mod store;
