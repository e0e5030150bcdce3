//! The messages of the `pgoutput` plugin, protocol version 2, as slices of the frame that they came in.

use sync_worker_core::position::Lsn;

/// Bytes that are no message of `pgoutput`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's clock starts.
const EPOCH: i64 = 946_684_800_000_000;

/// What a CopyData frame of a replication stream holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    Data {
        /// By the server's clock, in microseconds since 1970-01-01 UTC.
        sent: i64,
        message: &'a [u8],
    },
    /// Everything up to `end` has been sent.
    Keepalive { end: Lsn, reply: bool },
}

impl<'a> Frame<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor(bytes);
        match cursor.u8()? {
            b'w' => {
                cursor.skip(16)?;
                let sent = cursor.time()?;
                Ok(Frame::Data { sent, message: cursor.0 })
            }
            b'k' => {
                let end = cursor.lsn()?;
                cursor.skip(8)?;
                Ok(Frame::Keepalive { end, reply: cursor.u8()? != 0 })
            }
            _ => Err(Malformed("an unknown kind of frame")),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Begin {
        /// Where the commit record stands.
        commit: Lsn,
        /// Microseconds since 1970-01-01 UTC.
        commit_time: i64,
        xid: u32,
    },
    Commit {
        commit: Lsn,
        /// Where the commit record ends: where to resume.
        end: Lsn,
    },
    Relation(Relation<'a>),
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: Old<'a>,
    },
    Truncate {
        relations: Relations<'a>,
    },
    /// A piece of a transaction that has not committed yet.
    StreamStart {
        xid: u32,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit: Lsn,
        end: Lsn,
        commit_time: i64,
    },
    /// A sub-transaction, or where both are equal all of it.
    StreamAbort {
        xid: u32,
        subtransaction: u32,
    },
    /// Origins, type names, logical messages: nothing that we use.
    Other,
}

/// What is known of the row before a change.
#[derive(Debug, PartialEq, Eq)]
pub struct Old<'a> {
    /// All columns (replica identity FULL), else those of the replica identity alone.
    pub full: bool,
    pub tuple: Tuple<'a>,
}

impl<'a> Message<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor(bytes);
        let message = match cursor.u8()? {
            b'I' => Message::Insert { relation: cursor.u32()?, new: cursor.new_tuple()? },
            b'U' => {
                let relation = cursor.u32()?;
                let old = cursor.old()?;
                Message::Update { relation, old, new: cursor.new_tuple()? }
            }
            b'D' => {
                let relation = cursor.u32()?;
                Message::Delete { relation, old: cursor.old()?.ok_or(Malformed("a delete without a row"))? }
            }
            b'B' => Message::Begin { commit: cursor.lsn()?, commit_time: cursor.time()?, xid: cursor.u32()? },
            b'C' => {
                cursor.skip(1)?;
                Message::Commit { commit: cursor.lsn()?, end: cursor.lsn()? }
            }
            b'R' => Message::Relation(cursor.relation()?),
            b'T' => {
                let count = usize::try_from(cursor.u32()?).map_err(|_| Malformed("too many relations"))?;
                cursor.skip(1)?;
                let length = count.checked_mul(4).ok_or(Malformed("too many relations"))?;
                Message::Truncate { relations: Relations(cursor.take(length)?) }
            }
            b'S' => Message::StreamStart { xid: cursor.u32()? },
            b'E' => Message::StreamStop,
            b'c' => {
                let xid = cursor.u32()?;
                cursor.skip(1)?;
                let (commit, end) = (cursor.lsn()?, cursor.lsn()?);
                Message::StreamCommit { xid, commit, end, commit_time: cursor.time()? }
            }
            b'A' => Message::StreamAbort { xid: cursor.u32()?, subtransaction: cursor.u32()? },
            b'O' | b'Y' | b'M' => Message::Other,
            _ => return Err(Malformed("an unknown message")),
        };
        Ok(message)
    }
}

/// Takes apart a message inside a streamed piece: its tag, the sub-transaction that wrote it, and the rest.
pub fn streamed(bytes: &[u8]) -> Result<(u8, u32, &[u8])> {
    let mut cursor = Cursor(bytes);
    Ok((cursor.u8()?, cursor.u32()?, cursor.0))
}

/// What a table looked like when the changes behind this message were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    pub oid: u32,
    pub schema: &'a str,
    pub table: &'a str,
    /// As in `pg_class.relreplident`.
    pub identity: u8,
    count: u16,
    columns: &'a [u8],
    /// The message as it came, to know it again.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    pub key: bool,
    pub name: &'a str,
    pub type_oid: u32,
    pub type_modifier: i32,
}

impl<'a> Relation<'a> {
    pub fn columns(&self) -> Result<Vec<RelationColumn<'a>>> {
        let mut cursor = Cursor(self.columns);
        let column = |_| {
            Ok(RelationColumn {
                key: cursor.u8()? & 1 != 0,
                name: cursor.text()?,
                type_oid: cursor.u32()?,
                type_modifier: cursor.u32()?.cast_signed(),
            })
        };
        (0..self.count).map(column).collect()
    }
}

/// The relations of a truncate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relations<'a>(&'a [u8]);

impl Relations<'_> {
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.chunks_exact(4).map(|oid| u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]]))
    }
}

/// A row, its columns in the order of its relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    pub columns: u16,
    bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Null,
    /// A stored value that the change did not touch and the log does not hold.
    Unchanged,
    Text(&'a [u8]),
}

impl<'a> Tuple<'a> {
    pub fn fields(&self) -> Fields<'a> {
        Fields { left: self.columns, cursor: Cursor(self.bytes) }
    }
}

pub struct Fields<'a> {
    left: u16,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let field = self.cursor.field();
        if field.is_err() {
            self.left = 0;
        }
        Some(field)
    }
}

struct Cursor<'a>(&'a [u8]);

const SHORT: Malformed = Malformed("a message that ends early");

impl<'a> Cursor<'a> {
    #[inline]
    fn u8(&mut self) -> Result<u8> {
        let (&byte, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn lsn(&mut self) -> Result<Lsn> {
        self.array().map(u64::from_be_bytes).map(Lsn)
    }

    fn time(&mut self) -> Result<i64> {
        let micros = self.array().map(i64::from_be_bytes)?;
        micros.checked_add(EPOCH).ok_or(Malformed("a time that is too late"))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(head)
    }

    fn skip(&mut self, length: usize) -> Result<()> {
        self.take(length).map(|_| ())
    }

    fn text(&mut self) -> Result<&'a str> {
        let end = memchr::memchr(0, self.0).ok_or(SHORT)?;
        let text = std::str::from_utf8(&self.0[..end]).map_err(|_| Malformed("a name that is not UTF-8"))?;
        self.0 = &self.0[end + 1..];
        Ok(text)
    }

    #[inline]
    fn field(&mut self) -> Result<Field<'a>> {
        match self.u8()? {
            b't' => {
                let length = usize::try_from(self.u32()?).map_err(|_| SHORT)?;
                self.take(length).map(Field::Text)
            }
            b'n' => Ok(Field::Null),
            b'u' => Ok(Field::Unchanged),
            _ => Err(Malformed("a value that is not text")),
        }
    }

    /// The last part of a message: its end need not be looked for.
    fn new_tuple(&mut self) -> Result<Tuple<'a>> {
        match self.u8()? {
            b'N' => Ok(Tuple { columns: self.u16()?, bytes: self.0 }),
            _ => Err(Malformed("a change without a row")),
        }
    }

    fn old(&mut self) -> Result<Option<Old<'a>>> {
        let full = match self.0.first() {
            Some(b'K') => false,
            Some(b'O') => true,
            Some(_) => return Ok(None),
            None => return Err(SHORT),
        };
        self.skip(1)?;
        let columns = self.u16()?;
        let bytes = self.0;
        for _ in 0..columns {
            self.field()?;
        }
        Ok(Some(Old { full, tuple: Tuple { columns, bytes: &bytes[..bytes.len() - self.0.len()] } }))
    }

    fn relation(&mut self) -> Result<Relation<'a>> {
        let bytes = self.0;
        let oid = self.u32()?;
        let schema = match self.text()? {
            "" => "pg_catalog",
            schema => schema,
        };
        let (table, identity, count) = (self.text()?, self.u8()?, self.u16()?);
        Ok(Relation { oid, schema, table, identity, count, columns: self.0, bytes })
    }
}

#[cfg(test)]
mod tests;
