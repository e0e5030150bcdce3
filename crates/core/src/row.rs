//! Row images and keys as byte strings of cells.

use crate::document::patch;
use crate::value::{Cell, Damaged, PATCH, UNCHANGED, Value};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

/// What is known of a row: one cell per column of its schema, in the schema's order. Its `Debug` shows no value.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Row(Bytes);

impl Row {
    /// Takes bytes that [`RowBuilder`] made, here or before a restart.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same row in memory of its own: one that is kept for long must not hold the buffer that it was cut from.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    pub fn cells(&self) -> Cells<'_> {
        Cells(&self.0)
    }

    pub fn is_partial(&self) -> Result<bool, Damaged> {
        let mut rest = &self.0[..];
        while let Some(&tag) = rest.first() {
            if tag == UNCHANGED || tag == PATCH {
                return Ok(true);
            }
            Cell::skip(&mut rest)?;
        }
        Ok(false)
    }

    /// This image with its Unchanged columns taken from an older image of the same schema. What changed in a document
    /// is applied to the older document, or comes after what changed in it before.
    pub fn over(&self, older: &Row) -> Result<Row, Damaged> {
        let mut out = BytesMut::with_capacity(self.0.len() + older.0.len());
        let (mut new, mut old) = (&self.0[..], &older.0[..]);
        while !new.is_empty() {
            let (new_before, old_before) = (new, old);
            let unchanged = new[0] == 0;
            Cell::skip(&mut new)?;
            Cell::skip(&mut old)?;
            if new_before[0] == PATCH
                && let Cell::Present(Value::Patch(changes)) = Cell::decode(&mut &*new_before)?
            {
                match Cell::decode(&mut &*old_before)? {
                    Cell::Present(Value::Document(document)) => {
                        Value::Document(&patch::apply(changes, document)?).encode(&mut out);
                        continue;
                    }
                    Cell::Present(Value::Patch(earlier)) => {
                        Value::Patch(&[earlier, changes].concat()).encode(&mut out);
                        continue;
                    }
                    Cell::Present(_) | Cell::Unchanged => {}
                }
            }
            let taken = if unchanged { (old_before, old) } else { (new_before, new) };
            out.extend_from_slice(&taken.0[..taken.0.len() - taken.1.len()]);
        }
        Ok(Row(out.freeze()))
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({} bytes)", self.0.len())
    }
}

/// The cells of a row, in column order. Ends after the first damaged one.
pub struct Cells<'a>(&'a [u8]);

impl<'a> Iterator for Cells<'a> {
    type Item = Result<Cell<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let cell = Cell::decode(&mut self.0);
        if cell.is_err() {
            self.0 = &[];
        }
        Some(cell)
    }
}

/// Writes rows one after another into a shared buffer, so that many small rows cost one allocation.
#[derive(Default)]
pub struct RowBuilder {
    buffer: BytesMut,
}

impl RowBuilder {
    pub fn push(&mut self, cell: Cell<'_>) {
        if self.buffer.capacity() - self.buffer.len() < 32 {
            self.buffer.reserve(64 * 1024);
        }
        cell.encode(&mut self.buffer);
    }

    pub fn finish(&mut self) -> Row {
        Row(self.buffer.split().freeze())
    }

    /// Drops the cells pushed since the last row.
    pub fn abandon(&mut self) {
        self.buffer.clear();
    }
}

/// The values of a row's key columns, in key order. Equal keys have equal bytes. Its `Debug` shows no value.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Bytes);

impl Key {
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same key in memory of its own: one that is kept for long must not hold the buffer that it was cut from.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    pub fn cells(&self) -> Cells<'_> {
        Cells(&self.0)
    }

    /// Sixteen bytes that stand for the key where its length would matter.
    pub fn digest(&self) -> [u8; 16] {
        xxhash_rust::xxh3::xxh3_128(&self.0).to_be_bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// A map by key. Every change passes through one, so it hashes a key's bytes in one go.
pub type KeyMap<V> = HashMap<Key, V, KeyHashing>;

/// Seeded at random, for keys come from outside.
#[derive(Clone)]
pub struct KeyHashing(u64);

impl Default for KeyHashing {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0u8))
    }
}

impl BuildHasher for KeyHashing {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(self.0)
    }
}

pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    /// The length of the only slice, which its hash covers.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[Cell<'_>]) -> Row {
        let mut builder = RowBuilder::default();
        cells.iter().for_each(|cell| builder.push(*cell));
        builder.finish()
    }

    #[test]
    fn a_partial_image_takes_the_rest_from_the_older_one() {
        let older = row(&[Cell::Present(Value::Int(1)), Cell::Present(Value::Text("old")), Cell::Present(Value::Null)]);
        let newer = row(&[Cell::Present(Value::Int(2)), Cell::Unchanged, Cell::Present(Value::Bool(true))]);
        let both =
            row(&[Cell::Present(Value::Int(2)), Cell::Present(Value::Text("old")), Cell::Present(Value::Bool(true))]);
        assert!(newer.is_partial().unwrap());
        assert_eq!(newer.over(&older).unwrap(), both);
    }

    #[test]
    fn debug_shows_no_value() {
        let row = row(&[Cell::Present(Value::Text("hunter2"))]);
        assert_eq!(format!("{row:?}"), "Row(9 bytes)");
    }
}
