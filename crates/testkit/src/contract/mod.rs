//! Suites that every implementation of a trait must pass.

pub mod store;
