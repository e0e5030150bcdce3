//! The windows of snapshot chunks: which keys the stream has shown since a chunk's read began.
//!
//! A chunk is read while the stream goes on. Its window opens before the read and closes when the stream has reached the
//! read's high position. A key that the stream showed in between drops its chunk row, so that a read never beats a
//! change: whatever the read saw of that key, the bus already holds what the stream says. A transaction that came before
//! the window is visible to the read, by the promise of `TableReader`; one that comes after it is above the high position.
//!
//! A change that leaves columns out can't stand for the row: the chunk row alone has them. It is kept, with what the
//! stream showed laid over it. A column that no change in the window touched is the same at every moment of it, so the
//! result is the row as it stands when the window closes, wherever in the window the read took place.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::name::TableName;
use sync_worker_core::position::Position;
use sync_worker_core::reader::Chunk;
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::value::{Cell, Damaged};
use tokio::sync::oneshot;

/// Identifies a window of one capture.
pub type WindowId = u64;

/// Keys that were asked for one by one; those that are not in the chunk are deleted at the targets.
pub type AskedKeys = Vec<Key>;

/// A read that waits for the stream.
#[derive(Debug)]
pub struct Read {
    pub chunk: Chunk,
    /// None for a key range.
    pub asked: Option<AskedKeys>,
    /// Told when the rows are durable on the bus; false: read it again.
    pub done: oneshot::Sender<bool>,
}

/// A window that has seen more than this is given up and its chunk read again: a backlog is on its way (invariant 9).
const SEEN_BYTES: usize = 32 << 20;

/// About what a key costs beside its bytes.
const SEEN_OVERHEAD: usize = 96;

#[derive(Debug)]
struct Window {
    table: TableName,
    seen: HashMap<Key, Seen>,
    /// What `seen` takes in memory, about.
    bytes: usize,
    /// The chunk must be read again.
    again: bool,
    read: Option<Read>,
}

/// What the stream has shown of a key.
#[derive(Debug)]
enum Seen {
    /// All there is to know.
    Whole,
    /// Some columns.
    Partly(Arc<Schema>, Row),
    /// Its row went to another key, which is seen partly.
    Moved(Key),
}

impl Window {
    fn saw(&mut self, change: &Change) -> Result<(), Damaged> {
        if self.again {
            return Ok(());
        }
        let Some(key) = change.key()? else {
            self.again = true;
            return Ok(());
        };
        let (key, old_key) = (key.detached(), change.old_key()?.map(|key| key.detached()));
        let earlier = self.seen.remove(old_key.as_ref().unwrap_or(&key));
        let partly = match (&change.after, change.op) {
            (Some(after), Op::Update) if after.is_partial()? => Some(after),
            (Some(_) | None, Op::Create | Op::Read | Op::Update | Op::Delete | Op::Truncate) => None,
        };
        // A row that comes where one has left: which of the two a read has seen can't be told.
        self.again |= matches!(earlier, Some(Seen::Moved(_)));
        let seen = match (partly, earlier) {
            (None, _) | (Some(_), Some(Seen::Whole | Seen::Moved(_))) => Seen::Whole,
            (Some(after), None) => Seen::Partly(change.schema.clone(), after.clone()),
            (Some(after), Some(Seen::Partly(schema, older))) => {
                Seen::Partly(change.schema.clone(), laid_over(&change.schema, after, &schema, &older, &change.schema)?)
            }
        };
        if let Some(old_key) = old_key {
            let left = match &seen {
                Seen::Partly(..) => Seen::Moved(key.clone()),
                Seen::Whole | Seen::Moved(_) => Seen::Whole,
            };
            self.seen.insert(old_key, left);
            // A part of a row that comes where another one was: the read may have seen either.
            self.again |= match self.seen.get(&key) {
                Some(Seen::Moved(_)) => true,
                Some(Seen::Whole | Seen::Partly(..)) => matches!(seen, Seen::Partly(..)),
                None => false,
            };
        }
        let image = match &seen {
            Seen::Partly(_, row) => row.as_bytes().len(),
            Seen::Whole | Seen::Moved(_) => 0,
        };
        self.bytes += key.as_bytes().len() + image + SEEN_OVERHEAD;
        self.seen.insert(key, seen);
        if self.bytes > SEEN_BYTES {
            self.again = true;
            self.seen = HashMap::new();
        }
        Ok(())
    }

    /// What becomes of a chunk row.
    fn now(&self, schema: &Schema, row: Row) -> Result<Option<Row>, Damaged> {
        let mut key = schema.key_of(&row)?;
        // A row moves at most once to each key.
        for _ in 0..=self.seen.len() {
            match self.seen.get(&key) {
                None => return Ok(Some(row)),
                Some(Seen::Whole) => return Ok(None),
                Some(Seen::Partly(newer, image)) => return laid_over(newer, image, schema, &row, schema).map(Some),
                Some(Seen::Moved(to)) => key = to.clone(),
            }
        }
        Ok(None)
    }
}

/// The newer image over the older one in the columns of `schema`, each by its name.
fn laid_over(newer: &Schema, new: &Row, older: &Schema, old: &Row, schema: &Schema) -> Result<Row, Damaged> {
    if newer.id == schema.id && older.id == schema.id {
        return new.over(old);
    }
    let (new, old) = (new.cells().collect::<Result<Vec<_>, _>>()?, old.cells().collect::<Result<Vec<_>, _>>()?);
    let mut builder = RowBuilder::default();
    for column in &schema.columns {
        let cell = match newer.column(&column.name).and_then(|at| new.get(at).copied()) {
            Some(Cell::Present(value)) => Cell::Present(value),
            Some(Cell::Unchanged) | None => {
                older.column(&column.name).and_then(|at| old.get(at).copied()).unwrap_or(Cell::Unchanged)
            }
        };
        builder.push(cell);
    }
    Ok(builder.finish())
}

#[derive(Debug, Default)]
pub struct Windows {
    open: HashMap<WindowId, Window>,
    next: WindowId,
}

/// What a closed window leaves to publish.
#[derive(Debug)]
pub struct Closed {
    pub read: Read,
    /// The chunk's rows, without those of which the stream has shown all.
    pub rows: Vec<Row>,
    /// Asked keys that neither the chunk nor the stream showed.
    pub gone: Vec<Key>,
    /// The rows say nothing: the table was truncated, or keys changed hands. The chunk must be read again.
    pub again: bool,
}

impl Windows {
    pub fn open(&mut self, table: TableName) -> WindowId {
        self.next += 1;
        self.open.insert(self.next, Window { table, seen: HashMap::new(), bytes: 0, again: false, read: None });
        self.next
    }

    /// Hands in what was read. A window that is gone (its capture has started anew) drops the read.
    pub fn read(&mut self, id: WindowId, read: Read) {
        if let Some(window) = self.open.get_mut(&id) {
            window.read = Some(read);
        }
    }

    /// A read that came to nothing.
    pub fn abandon(&mut self, id: WindowId) {
        self.open.remove(&id);
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Notes a change that is about to be published.
    pub fn saw(&mut self, change: &Change) -> Result<(), Damaged> {
        for window in self.open.values_mut().filter(|window| window.table == *change.table()) {
            window.saw(change)?;
        }
        Ok(())
    }

    /// Closes the windows whose high position the stream has reached. Only between transactions.
    pub fn close(&mut self, reached: Position) -> Result<Vec<Closed>, Damaged> {
        let ready = |window: &Window| window.read.as_ref().is_some_and(|read| read.chunk.high <= reached);
        let mut ids: Vec<WindowId> = self.open.iter().filter(|(_, window)| ready(window)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        let mut closed = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(mut window) = self.open.remove(&id) else { continue };
            let Some(mut read) = window.read.take() else { continue };
            let mut rows = std::mem::take(&mut read.chunk.rows);
            let schema = read.chunk.schema.clone();
            let mut found = HashSet::new();
            if !window.seen.is_empty() || read.asked.is_some() {
                let mut kept = Vec::with_capacity(rows.len());
                for row in rows {
                    if read.asked.is_some() {
                        found.insert(schema.key_of(&row)?);
                    }
                    kept.extend(window.now(&schema, row)?);
                }
                rows = kept;
            }
            let gone = |key: &Key| !found.contains(key) && !window.seen.contains_key(key);
            let gone = read.asked.iter().flatten().filter(|key| gone(key)).cloned().collect();
            closed.push(Closed { read, rows, gone, again: window.again });
        }
        Ok(closed)
    }
}
