//! In-memory stand-ins for databases, bus and store, for tests of the engine alone: what is durable in them outlives
//! the runtime that a test drops as a crash, and each can be told to fail, to wait or to refuse.
//!
//! They pass the contract suites of the real ones. None of them proves anything about a real adapter.

mod bus;
mod database;
mod error;
mod reader;
mod sink;
mod source;
mod store;

pub use bus::MemoryBus;
pub use database::{Fault, MemoryDatabase, Written};
pub use error::MemoryError;
pub use store::MemoryStore;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::name::TableName;
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};
use tokio::sync::watch;

/// State shared by all handles, with a way to wait for its changes.
struct Shared<T> {
    state: Mutex<T>,
    changed: watch::Sender<u64>,
}

impl<T> Shared<T> {
    fn new(state: T) -> Self {
        Self { state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.send_modify(|number| *number += 1);
        result
    }

    /// Waits until `ready` gives something. Cancel safe: what `ready` does, it does at the very end.
    async fn when<R>(&self, mut ready: impl FnMut(&mut T) -> Option<R>) -> R {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(result) = ready(&mut self.lock()) {
                return result;
            }
            // The sender is a part of self.
            changes.changed().await.unwrap_or_default();
        }
    }
}

/// `id`, `version`, `note`; the key is the id.
pub fn schema(table: &str) -> Arc<Schema> {
    let int = ColumnType::Int { bits: 64, unsigned: false };
    let text = ColumnType::Text { limit: TextLimit::None, padded: false };
    let column = |name: &str, kind, type_name: &str| Column {
        name: name.to_owned(),
        kind,
        type_name: type_name.to_owned(),
        nullable: false,
        generated: false,
    };
    let columns =
        vec![column("id", int.clone(), "bigint"), column("version", int, "bigint"), column("note", text, "text")];
    Arc::new(Schema::new(TableName::new(table), Engine::Postgres, columns, vec![0]))
}

/// A row of [`schema`]; without a note, that column is Unchanged.
pub fn row(id: i64, version: i64, note: Option<&str>) -> Row {
    let mut builder = RowBuilder::default();
    builder.push(Cell::Present(Value::Int(id)));
    builder.push(Cell::Present(Value::Int(version)));
    builder.push(note.map_or(Cell::Unchanged, |note| Cell::Present(Value::Text(note))));
    builder.finish()
}

pub fn key(id: i64) -> Key {
    let mut builder = RowBuilder::default();
    builder.push(Cell::Present(Value::Int(id)));
    Key::from_bytes(builder.finish().as_bytes().clone())
}

/// The number in a column of a row of [`schema`].
pub fn number(row: &Row, column: usize) -> i64 {
    match row.cells().nth(column) {
        Some(Ok(Cell::Present(Value::Int(number)))) => number,
        _ => panic!("no number in column {column}"),
    }
}

/// Changes of rows of one table with [`schema`].
#[derive(Clone)]
pub struct Changes(pub Arc<Schema>);

impl Changes {
    pub fn of(table: &str) -> Self {
        Self(schema(table))
    }

    fn change(&self, op: Op, before: Option<Row>, after: Option<Row>) -> Change {
        Change { schema: self.0.clone(), op, before, after }
    }

    pub fn create(&self, id: i64, version: i64, note: &str) -> Change {
        self.change(Op::Create, None, Some(row(id, version, Some(note))))
    }

    pub fn update(&self, id: i64, version: i64, note: Option<&str>) -> Change {
        self.change(Op::Update, None, Some(row(id, version, note)))
    }

    /// An update that changes the key.
    pub fn rename(&self, from: i64, to: i64, version: i64, note: Option<&str>) -> Change {
        self.change(Op::Update, Some(self.key_only(from)), Some(row(to, version, note)))
    }

    pub fn delete(&self, id: i64) -> Change {
        self.change(Op::Delete, Some(self.key_only(id)), None)
    }

    pub fn truncate(&self) -> Change {
        self.change(Op::Truncate, None, None)
    }

    fn key_only(&self, id: i64) -> Row {
        let mut builder = RowBuilder::default();
        builder.push(Cell::Present(Value::Int(id)));
        builder.push(Cell::Unchanged);
        builder.push(Cell::Unchanged);
        builder.finish()
    }
}
