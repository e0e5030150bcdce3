//! The change stream of a PostgreSQL database: a logical replication slot, read with `pgoutput`.

pub mod pgoutput;
pub mod transport;
