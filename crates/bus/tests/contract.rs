//! The embedded log against the contract of every bus.

use std::path::PathBuf;
use sync_worker_bus::{Config, EmbeddedLog};
use sync_worker_testkit::contract::bus::{Fixture, holds};

struct OnDisk {
    folder: PathBuf,
    config: Config,
    log: EmbeddedLog,
}

impl Fixture for OnDisk {
    type Bus = EmbeddedLog;

    fn bus(&self) -> &EmbeddedLog {
        &self.log
    }

    async fn reopened(self) -> Self {
        let Self { folder, config, log } = self;
        drop(log);
        let log = EmbeddedLog::open(&folder, config.clone()).unwrap();
        Self { folder, config, log }
    }
}

async fn run(config: Config) {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path(), config.clone()).unwrap();
    holds(OnDisk { folder: folder.path().to_owned(), config, log }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_is_a_bus() {
    run(Config { partitions: 2, ..Config::default() }).await;
}

/// Readers find hardly anything in memory, and segments and queue are small.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_is_a_bus_with_everything_small() {
    let config = Config { partitions: 2, segment_bytes: 4_000, queue_bytes: 500, cache_bytes: 1, ..Config::default() };
    run(config).await;
}
