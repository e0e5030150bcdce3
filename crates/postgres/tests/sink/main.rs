//! The sink against a real PostgreSQL server. Every test ends in a full compare of what stands there.

mod catalog;
mod constraints;
mod contract;
mod fixture;
mod guard;
mod marker;
mod random;
mod refusals;
mod rows;
mod stubborn;
mod types;
