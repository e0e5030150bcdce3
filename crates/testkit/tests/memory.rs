//! The in-memory stand-ins against the contracts of what they stand in for.

use sync_worker_testkit::contract;
use sync_worker_testkit::memory::{MemoryBus, MemoryStore};

struct Bus(MemoryBus);

impl contract::bus::Fixture for Bus {
    type Bus = MemoryBus;

    fn bus(&self) -> &MemoryBus {
        &self.0
    }

    async fn reopened(self) -> Self {
        self.0.crash();
        self
    }
}

struct Store(MemoryStore);

impl contract::store::Fixture for Store {
    type Store = MemoryStore;

    fn store(&self) -> &MemoryStore {
        &self.0
    }

    async fn reopened(self) -> Self {
        self
    }
}

#[tokio::test]
async fn the_memory_bus_is_a_bus() {
    contract::bus::holds(Bus(MemoryBus::new("memory", 2))).await;
}

#[tokio::test]
async fn the_memory_store_is_a_store_and_a_retry_queue() {
    contract::store::holds(Store(MemoryStore::default())).await;
}
