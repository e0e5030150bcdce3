//! The sink against a real MySQL server, the one at `SYNC_WORKER_TEST_MYSQL`; without it these tests are skipped.

mod contract;
mod failures;
mod fixture;
mod folding;
mod guard;
mod marker;
mod order;
mod parking;
mod random;
mod refusals;
mod rows;
mod values;
