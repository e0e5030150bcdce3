//! Suites that every implementation of a trait must pass.

pub mod bus;
pub mod store;
