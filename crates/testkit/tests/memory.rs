//! The in-memory stand-ins against the contracts of what they stand in for.

use sync_worker_core::database::{Database, Scope, TableAt};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::row::Row;
use sync_worker_core::sink::Sink;
use sync_worker_core::value::{Cell, Value};
use sync_worker_testkit::contract;
use sync_worker_testkit::contract::source::Write;
use sync_worker_testkit::memory::{Changes, MemoryBus, MemoryDatabase, MemoryStore, number, schema};

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

struct Source(MemoryDatabase, Scope);

impl contract::source::Fixture for Source {
    type Transaction = Vec<Write>;

    fn database(&self) -> &dyn Database {
        &self.0
    }

    fn scope(&self) -> &Scope {
        &self.1
    }

    async fn begin(&self) -> Vec<Write> {
        Vec::new()
    }

    async fn write(&self, transaction: &mut Vec<Write>, write: Write) {
        transaction.push(write);
    }

    async fn commit(&self, transaction: Vec<Write>) {
        let t = Changes::of(contract::source::TABLE);
        let change = |write| match write {
            Write::Insert(id) => t.create(id, 1, "x"),
            Write::Update(id) => t.update(id, 2, None),
            Write::Delete(id) => t.delete(id),
        };
        self.0.commit(transaction.into_iter().map(change).collect());
    }

    async fn roll_back(&self, _: Vec<Write>) {}

    async fn write_elsewhere(&self) {
        self.0.commit(Vec::new());
    }
}

struct Target(MemoryDatabase);

impl contract::sink::Fixture for Target {
    async fn sink(&self) -> Box<dyn Sink> {
        self.0.sink(&scope()).await.unwrap()
    }

    async fn rows(&self) -> Vec<(i64, i64, String)> {
        let rows = self.0.rows().into_values().map(|row| {
            let Some(Ok(Cell::Present(Value::Text(note)))) = row.cells().nth(2) else { panic!("no note") };
            (number(&row, 0), number(&row, 1), note.to_owned())
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        rows
    }

    async fn refuse(&self, refused: bool) {
        let refused = move |row: &Row| refused && number(row, 1) == contract::sink::REFUSED;
        self.0.refuse(move |_, row| refused(row).then_some(ErrorClass::Poison));
    }
}

fn scope() -> Scope {
    Scope {
        installation: "test".into(),
        pipeline: "p".into(),
        tables: vec![TableAt {
            table: contract::source::TABLE.into(),
            name: contract::source::TABLE.to_owned(),
            document: Default::default(),
        }],
        two_way: false,
        spill: Default::default(),
    }
}

#[tokio::test]
async fn the_memory_source_is_a_source() {
    for (changes, apart) in [(usize::MAX, false), (1, false), (7, true)] {
        let database = MemoryDatabase::new("crm", &[schema(contract::source::TABLE)]);
        database.batch_changes(changes);
        database.end_apart(apart);
        contract::source::holds(Source(database, scope())).await;
    }
}

#[tokio::test]
async fn the_memory_sink_is_a_sink() {
    let database = MemoryDatabase::new("shop", &[schema(contract::sink::TABLE)]);
    contract::sink::holds(&Target(database)).await;
}

#[tokio::test]
async fn the_memory_bus_is_a_bus() {
    contract::bus::holds(Bus(MemoryBus::new("memory", 2))).await;
}

#[tokio::test]
async fn the_memory_store_is_a_store_and_a_retry_queue() {
    contract::store::holds(Store(MemoryStore::default())).await;
}
