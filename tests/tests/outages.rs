//! Source and target killed, paused and behind a network that swallows everything, under more than 1,000 rows a second:
//! the worker goes on by itself within 5 s of the return, and nothing is lost, repeated or out of order.
//!
//! `SYNC_WORKER_OUTAGE_SECONDS=30 make test ONLY='binary(outages)'` makes the outages as long as in the guarantees.

use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::outage::{self, Fault, Side};

/// Each engine is a source once, and a target once.
const FROM_POSTGRES: Direction = Direction { from: Kind::Postgres, to: Kind::Mysql };
const FROM_MYSQL: Direction = Direction { from: Kind::Mysql, to: Kind::Postgres };

#[tokio::test]
async fn fault_postgres_source_killed_and_paused() -> anyhow::Result<()> {
    outage::run(FROM_POSTGRES, Side::Source, &[Fault::Killed, Fault::Paused]).await
}

#[tokio::test]
async fn fault_postgres_source_behind_a_silent_network() -> anyhow::Result<()> {
    outage::run(FROM_POSTGRES, Side::Source, &[Fault::Swallowed]).await
}

#[tokio::test]
async fn fault_postgres_target_killed_and_paused() -> anyhow::Result<()> {
    outage::run(FROM_MYSQL, Side::Target, &[Fault::Killed, Fault::Paused]).await
}

#[tokio::test]
async fn fault_postgres_target_behind_a_silent_network() -> anyhow::Result<()> {
    outage::run(FROM_MYSQL, Side::Target, &[Fault::Swallowed]).await
}

#[tokio::test]
async fn fault_mysql_source_killed_and_paused() -> anyhow::Result<()> {
    outage::run(FROM_MYSQL, Side::Source, &[Fault::Killed, Fault::Paused]).await
}

#[tokio::test]
async fn fault_mysql_source_behind_a_silent_network() -> anyhow::Result<()> {
    outage::run(FROM_MYSQL, Side::Source, &[Fault::Swallowed]).await
}

#[tokio::test]
async fn fault_mysql_target_killed_and_paused() -> anyhow::Result<()> {
    outage::run(FROM_POSTGRES, Side::Target, &[Fault::Killed, Fault::Paused]).await
}

#[tokio::test]
async fn fault_mysql_target_behind_a_silent_network() -> anyhow::Result<()> {
    outage::run(FROM_POSTGRES, Side::Target, &[Fault::Swallowed]).await
}
