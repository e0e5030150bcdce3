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
//!
//! Two-way, an update may be of columns that other members lack and say nothing to them. Where a member's rows are what
//! all begin with, a row that was updated is kept like that, too.

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
    /// `keeps`: an update that leaves nothing out does not stand for the chunk's row either.
    fn saw(&mut self, change: &Change, keeps: bool) -> Result<(), Damaged> {
        if self.again {
            return Ok(());
        }
        let Some(key) = change.key()? else {
            self.again = true;
            return Ok(());
        };
        let (key, old_key) = (key.detached(), change.old_key()?.map(|key| key.detached()));
        let earlier = self.forget(old_key.as_ref().unwrap_or(&key));
        let partly = match (&change.after, change.op) {
            (Some(after), Op::Update) if after.is_partial()? || (keeps && old_key.is_none()) => Some(after),
            (Some(_) | None, Op::Create | Op::Read | Op::Update | Op::Delete | Op::Truncate) => None,
        };
        // A row that comes where one has left: which of the two a read has seen can't be told.
        self.again |= matches!(earlier, Some(Seen::Moved(_)));
        let seen = match (partly, earlier) {
            (None, _) | (Some(_), Some(Seen::Whole | Seen::Moved(_))) => Seen::Whole,
            (Some(after), None) => Seen::Partly(change.schema.clone(), after.detached()),
            (Some(after), Some(Seen::Partly(schema, older))) => Seen::Partly(
                change.schema.clone(),
                laid_over(&change.schema, after, &schema, &older, &change.schema)?.detached(),
            ),
        };
        if let Some(old_key) = old_key {
            let left = match &seen {
                Seen::Partly(..) => Seen::Moved(key.clone()),
                Seen::Whole | Seen::Moved(_) => Seen::Whole,
            };
            self.note(old_key, left);
            // A part of a row that comes where another one was: the read may have seen either.
            self.again |= match self.seen.get(&key) {
                Some(Seen::Moved(_)) => true,
                Some(Seen::Whole | Seen::Partly(..)) => matches!(seen, Seen::Partly(..)),
                None => false,
            };
        }
        self.note(key, seen);
        if self.bytes > SEEN_BYTES {
            self.again = true;
            (self.seen, self.bytes) = (HashMap::new(), 0);
        }
        Ok(())
    }

    fn note(&mut self, key: Key, seen: Seen) {
        self.forget(&key);
        self.bytes += bytes_of(&key, &seen);
        self.seen.insert(key, seen);
    }

    fn forget(&mut self, key: &Key) -> Option<Seen> {
        let seen = self.seen.remove(key)?;
        self.bytes -= bytes_of(key, &seen);
        Some(seen)
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

fn bytes_of(key: &Key, seen: &Seen) -> usize {
    let image = match seen {
        Seen::Partly(_, row) => row.as_bytes().len(),
        Seen::Whole | Seen::Moved(_) => 0,
    };
    key.as_bytes().len() + image + SEEN_OVERHEAD
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
    /// Rows that are updated stay in their chunks.
    keeps: bool,
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
    pub fn new(keeps: bool) -> Self {
        Self { keeps, ..Self::default() }
    }

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
        self.note(change, self.keeps)
    }

    /// Notes a write of ours: the others have that row from elsewhere.
    pub fn saw_own(&mut self, change: &Change) -> Result<(), Damaged> {
        self.note(change, false)
    }

    fn note(&mut self, change: &Change, keeps: bool) -> Result<(), Damaged> {
        let mut windows = self.open.values_mut().filter(|window| window.table == *change.table());
        windows.try_for_each(|window| window.saw(change, keeps))
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

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_testkit::memory::Changes;

    /// What becomes of a chunk with rows 1 to 5 after these changes.
    fn left(keeps: bool, see: impl FnOnce(&mut Windows, &Changes)) -> Vec<Row> {
        let changes = Changes::of("t");
        let mut windows = Windows::new(keeps);
        let id = windows.open("t".into());
        see(&mut windows, &changes);
        let rows = (1..=5).filter_map(|id| changes.create(id, 1, "read").after).collect();
        let (done, _) = oneshot::channel();
        let high: Position = "0/10".parse().unwrap();
        let chunk = Chunk { schema: changes.0.clone(), rows, high, cut_at: None };
        windows.read(id, Read { chunk, asked: None, done });
        let mut closed = windows.close(high).unwrap();
        assert!(!closed[0].again);
        closed.remove(0).rows
    }

    #[test]
    fn what_was_updated_stays_in_its_chunk_as_it_is_then_where_all_begin_with_it() {
        let see = |windows: &mut Windows, changes: &Changes| {
            windows.saw(&changes.update(1, 2, Some("once"))).unwrap();
            windows.saw(&changes.update(1, 3, Some("twice"))).unwrap();
            windows.saw(&changes.delete(2)).unwrap();
            windows.saw(&changes.update(3, 2, Some("moved"))).unwrap();
            windows.saw(&changes.rename(3, 6, 2, Some("moved"))).unwrap();
            windows.saw_own(&changes.update(4, 2, Some("ours"))).unwrap();
        };
        let changes = Changes::of("t");
        let row = |id, version, note: &str| changes.create(id, version, note).after.unwrap();
        assert_eq!(left(true, see), [row(1, 3, "twice"), row(5, 1, "read")]);
        assert_eq!(left(false, see), [row(5, 1, "read")]);
    }
}
