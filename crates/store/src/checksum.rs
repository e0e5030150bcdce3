//! A checksum over the columns of one row.
//!
//! SQLite notices a broken page structure, not a flipped bit inside a value. A position that is off by one bit would lose
//! or repeat changes, so every row carries a checksum, and none is believed without it.

use crate::error::Fault;
use xxhash_rust::xxh3::Xxh3Default;

pub(crate) struct Checksum(Xxh3Default);

impl Checksum {
    /// Starts with the table's name, so that a row can't stand for one of another table.
    pub(crate) fn of(table: &str) -> Self {
        Self(Xxh3Default::new()).text(table)
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(&bytes.len().to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn optional(mut self, bytes: Option<&[u8]>) -> Self {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => {
                // No length is that large.
                self.0.update(&usize::MAX.to_le_bytes());
                self
            }
        }
    }

    pub(crate) fn optional_number(self, number: Option<i64>) -> Self {
        self.optional(number.map(i64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice))
    }

    pub(crate) fn number(mut self, number: i64) -> Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub(crate) fn finish(self) -> i64 {
        self.0.digest().cast_signed()
    }

    pub(crate) fn verify(self, table: &str, stored: i64) -> Result<(), Fault> {
        if self.finish() == stored {
            return Ok(());
        }
        Err(Fault::Damaged(format!("a row of table {table} does not match its checksum")))
    }
}
