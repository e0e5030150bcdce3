//! The adapter on a replica set: the one that SYNC_WORKER_TEST_MONGODB names.

mod contract;
mod fixture;
mod guard;
mod keyed;
mod reader;
mod sink;
mod source;
mod two_way;
