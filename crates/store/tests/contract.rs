//! The store against its contract.

use sync_worker_store::SqliteStore;
use sync_worker_testkit::contract::store::{Fixture, holds};
use tempfile::TempDir;

struct Sqlite {
    store: Option<SqliteStore>,
    folder: TempDir,
}

impl Sqlite {
    fn open(folder: TempDir) -> Self {
        Self { store: Some(SqliteStore::open(folder.path()).unwrap()), folder }
    }
}

impl Fixture for Sqlite {
    type Store = SqliteStore;

    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    async fn reopened(mut self) -> Self {
        drop(self.store.take());
        Self::open(self.folder)
    }
}

#[tokio::test]
async fn sqlite_holds_the_contract() {
    holds(Sqlite::open(tempfile::tempdir().unwrap())).await;
}
