//! One row change, normalized.

use crate::name::TableName;
use crate::row::{Key, Row};
use crate::schema::Schema;
use crate::value::Damaged;
use std::fmt;
use std::sync::Arc;

/// Debezium's operation codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Create,
    /// A snapshot row: never beats a change event.
    Read,
    Update,
    Delete,
    Truncate,
}

impl Op {
    pub fn code(self) -> char {
        match self {
            Op::Create => 'c',
            Op::Read => 'r',
            Op::Update => 'u',
            Op::Delete => 'd',
            Op::Truncate => 't',
        }
    }

    pub fn from_code(code: char) -> Option<Self> {
        Some(match code {
            'c' => Op::Create,
            'r' => Op::Read,
            'u' => Op::Update,
            'd' => Op::Delete,
            't' => Op::Truncate,
            _ => return None,
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())
    }
}

/// A row change. `after` stands with create, read and update; `before` with delete (at least its key columns Present),
/// and with an update where the source sent it: always when the key changed, else only with full row images.
#[derive(Clone, Debug)]
pub struct Change {
    pub schema: Arc<Schema>,
    pub op: Op,
    pub before: Option<Row>,
    pub after: Option<Row>,
}

impl Change {
    pub fn table(&self) -> &TableName {
        &self.schema.table
    }

    /// The key under which the row is found after the change; a delete's and a truncate's from the before image.
    /// A truncate has none.
    pub fn key(&self) -> Result<Option<Key>, Damaged> {
        match (&self.after, &self.before) {
            (Some(row), _) | (None, Some(row)) => self.schema.key_of(row).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The key before an update that changed it; None where the key stayed.
    pub fn old_key(&self) -> Result<Option<Key>, Damaged> {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return Ok(None) };
        let old = self.schema.key_of(before)?;
        Ok((old != self.schema.key_of(after)?).then_some(old))
    }

    pub fn size(&self) -> usize {
        let length = |row: &Option<Row>| row.as_ref().map_or(0, |row| row.as_bytes().len());
        length(&self.before) + length(&self.after)
    }
}
