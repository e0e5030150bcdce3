//! The bytes of a record, version 1.
//!
//! Each record stands alone: with the schemas known, any one of them decodes without those before it. In order: flags,
//! origin, position, explicit previous position, commit time, transaction, body. Numbers are varints, the commit time
//! and ids fixed little-endian; ordinals count from 1 with 0 for the end of a transaction. The last image of a change
//! takes the rest of the record. What only two-way pipelines write shares one kind of body, whose first byte tells
//! which it is. `tests/golden/bus/` keeps old records readable.

mod echo;

use bytes::{BufMut, Bytes, BytesMut};
use echo::{decode_echo, encode_echo};
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::encoding::{
    decode_schema, decode_two_way, encode_schema, encode_two_way, put_bytes, put_text, take_byte, take_bytes, take_text,
};
use sync_worker_core::guard::Image;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::position::{Lsn, MongodbPosition, MysqlPosition, Position, PostgresPosition};
use sync_worker_core::record::{Body, Decision, Record};
use sync_worker_core::row::Row;
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::value::{Damaged, put_varint, take_varint};

pub const VERSION: u32 = 1;

const PREVIOUS: u8 = 0b11;
const PREVIOUS_NONE: u8 = 0;
/// The same position, as with snapshot rows and schemas.
const PREVIOUS_SAME: u8 = 1;
/// The change before in the same transaction.
const PREVIOUS_STEP: u8 = 2;
const PREVIOUS_EXPLICIT: u8 = 3;
const LAST: u8 = 1 << 2;
const TRANSACTION: u8 = 1 << 3;
const MYSQL: u8 = 1 << 4;
const MONGODB: u8 = 1 << 7;
const BODY: u8 = 0b11 << 5;
const BODY_CHANGE: u8 = 0 << 5;
const BODY_SCHEMA: u8 = 1 << 5;
const BODY_COMMIT: u8 = 2 << 5;
const BODY_TWO_WAY: u8 = 3 << 5;

const MARKER: u8 = 0;
const CONFIGURATION: u8 = 1;
const DECISION: u8 = 2;
const RESUME: u8 = 3;
const SEEDED: u8 = 4;

const OPS: [Op; 5] = [Op::Create, Op::Read, Op::Update, Op::Delete, Op::Truncate];
const OP: u8 = 0b111;
const BEFORE: u8 = 1 << 3;
const AFTER: u8 = 1 << 4;

/// Appends one record.
pub fn encode(record: &Record, out: &mut BytesMut) {
    let body = match &record.body {
        Body::Change(_) => BODY_CHANGE,
        Body::Schema(_) => BODY_SCHEMA,
        Body::Commit => BODY_COMMIT,
        Body::Marker(_) | Body::Configuration(_) | Body::Decision(_) | Body::Resume(_) | Body::Seeded(_) => {
            BODY_TWO_WAY
        }
    };
    let previous = match record.previous {
        None => PREVIOUS_NONE,
        Some(previous) if previous == record.position => PREVIOUS_SAME,
        Some(previous) if step(record.position) == Some(previous) => PREVIOUS_STEP,
        Some(_) => PREVIOUS_EXPLICIT,
    };
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let engine = engine_flag(record.position);
    out.put_u8(body | previous | engine | flag(record.last, LAST) | flag(record.transaction.is_some(), TRANSACTION));
    put_text(out, record.origin.as_str());
    put_position(out, record.position);
    if let (PREVIOUS_EXPLICIT, Some(position)) = (previous, record.previous) {
        out.put_u8(engine_flag(position));
        put_position(out, position);
    }
    out.put_i64_le(record.commit_time);
    if let Some(transaction) = &record.transaction {
        put_text(out, transaction);
    }
    match &record.body {
        Body::Change(change) => put_change(out, change),
        Body::Schema(schema) => encode_schema(schema, out),
        Body::Commit => {}
        Body::Marker(echo) => {
            out.put_u8(MARKER);
            encode_echo(echo, out);
        }
        Body::Configuration(two_way) => {
            out.put_u8(CONFIGURATION);
            encode_two_way(two_way, out);
        }
        Body::Decision(decision) => {
            out.put_u8(DECISION);
            put_bytes(out, &decision.seen.to_bytes());
            put_change(out, &decision.change);
        }
        Body::Resume(table) => {
            out.put_u8(RESUME);
            out.put_slice(table.as_str().as_bytes());
        }
        Body::Seeded(table) => {
            out.put_u8(SEEDED);
            out.put_slice(table.as_str().as_bytes());
        }
    }
}

fn engine_flag(position: Position) -> u8 {
    match position {
        Position::Postgres(_) => 0,
        Position::Mysql(_) => MYSQL,
        Position::Mongodb(_) => MONGODB,
    }
}

fn step(position: Position) -> Option<Position> {
    position.ordinal().checked_sub(1).map(|before| position.with_ordinal(before))
}

fn put_change(out: &mut BytesMut, change: &Change) {
    let op = match change.op {
        Op::Create => 0,
        Op::Read => 1,
        Op::Update => 2,
        Op::Delete => 3,
        Op::Truncate => 4,
    };
    let before = if change.before.is_some() { BEFORE } else { 0 };
    let after = if change.after.is_some() { AFTER } else { 0 };
    out.put_u8(op | before | after);
    out.put_u64_le(change.schema.id.0);
    if let Some(row) = &change.before {
        if change.after.is_some() {
            put_varint(out, row.as_bytes().len() as u64);
        }
        out.put_slice(row.as_bytes());
    }
    if let Some(row) = &change.after {
        out.put_slice(row.as_bytes());
    }
}

fn put_position(out: &mut BytesMut, position: Position) {
    match position {
        Position::Postgres(p) => put_varint(out, p.commit.0),
        Position::Mysql(p) => {
            put_varint(out, p.file);
            put_varint(out, p.offset);
        }
        Position::Mongodb(p) => {
            put_varint(out, p.seconds.into());
            put_varint(out, p.increment.into());
        }
    }
    put_varint(out, position.ordinal().wrapping_add(1));
}

/// Whether a record may announce schemas; one that says no does not.
pub fn may_announce(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|flags| matches!(flags & BODY, BODY_SCHEMA | BODY_TWO_WAY))
}

/// Why a record can't be decoded.
#[derive(Debug)]
pub enum Undecodable {
    Damaged(Damaged),
    /// No schema of this id is known.
    Schema(SchemaId),
}

impl From<Damaged> for Undecodable {
    fn from(damaged: Damaged) -> Self {
        Undecodable::Damaged(damaged)
    }
}

fn table_name(bytes: &[u8]) -> Result<TableName, Damaged> {
    std::str::from_utf8(bytes).map(TableName::new).map_err(|_| Damaged("a table's name that is no text"))
}

/// Decodes records, sharing the names and schemas that follow one another.
#[derive(Default)]
pub struct Decoder {
    origin: Option<DatabaseName>,
    schema: Option<Arc<Schema>>,
}

impl Decoder {
    /// Decodes one record. The rows are slices of `bytes`; `schemas` finds a schema that this record refers to.
    pub fn decode(
        &mut self,
        bytes: &Bytes,
        schemas: impl FnOnce(SchemaId) -> Option<Arc<Schema>>,
    ) -> Result<Record, Undecodable> {
        let mut rest = &bytes[..];
        let flags = take_byte(&mut rest)?;
        let origin = self.origin(take_text(&mut rest)?);
        let position = take_position(&mut rest, flags)?;
        let previous = match flags & PREVIOUS {
            PREVIOUS_NONE => None,
            PREVIOUS_SAME => Some(position),
            PREVIOUS_STEP => Some(step(position).ok_or(Damaged("nothing precedes the first change"))?),
            _ => {
                let flags = take_byte(&mut rest)?;
                Some(take_position(&mut rest, flags)?)
            }
        };
        let (time, tail) = rest.split_first_chunk::<8>().ok_or(Damaged("ends early"))?;
        rest = tail;
        let transaction = match flags & TRANSACTION {
            0 => None,
            _ => Some(Arc::from(take_text(&mut rest)?)),
        };
        let body = match flags & BODY {
            BODY_CHANGE => Body::Change(self.change(bytes, rest, schemas)?),
            BODY_SCHEMA => Body::Schema(Arc::new(decode_schema(rest)?)),
            BODY_COMMIT if rest.is_empty() => Body::Commit,
            BODY_COMMIT => return Err(Damaged("bytes after its end").into()),
            _ => self.two_way(bytes, rest, schemas)?,
        };
        let last = flags & LAST != 0;
        Ok(Record { origin, position, previous, transaction, last, commit_time: i64::from_le_bytes(*time), body })
    }

    fn origin(&mut self, name: &str) -> DatabaseName {
        match &self.origin {
            Some(origin) if origin.as_str() == name => origin.clone(),
            _ => self.origin.insert(DatabaseName::new(name)).clone(),
        }
    }

    /// `rest` is the end of `bytes`.
    fn two_way(
        &mut self,
        bytes: &Bytes,
        mut rest: &[u8],
        schemas: impl FnOnce(SchemaId) -> Option<Arc<Schema>>,
    ) -> Result<Body, Undecodable> {
        Ok(match take_byte(&mut rest)? {
            MARKER => Body::Marker(decode_echo(rest)?),
            CONFIGURATION => Body::Configuration(Arc::new(decode_two_way(rest)?)),
            DECISION => {
                let seen = Image::from_bytes(take_bytes(&mut rest)?)?;
                Body::Decision(Decision { change: self.change(bytes, rest, schemas)?, seen })
            }
            RESUME => Body::Resume(table_name(rest)?),
            SEEDED => Body::Seeded(table_name(rest)?),
            _ => return Err(Damaged("unknown kind of record").into()),
        })
    }

    /// `rest` is the end of `bytes`.
    fn change(
        &mut self,
        bytes: &Bytes,
        mut rest: &[u8],
        schemas: impl FnOnce(SchemaId) -> Option<Arc<Schema>>,
    ) -> Result<Change, Undecodable> {
        let flags = take_byte(&mut rest)?;
        let op = *OPS.get(usize::from(flags & OP)).ok_or(Damaged("unknown operation"))?;
        let (id, tail) = rest.split_first_chunk::<8>().ok_or(Damaged("ends early"))?;
        rest = tail;
        let id = SchemaId(u64::from_le_bytes(*id));
        let schema = match &self.schema {
            Some(schema) if schema.id == id => schema.clone(),
            _ => self.schema.insert(schemas(id).ok_or(Undecodable::Schema(id))?).clone(),
        };
        let (has_before, has_after) = (flags & BEFORE != 0, flags & AFTER != 0);
        let between = match (has_before, has_after) {
            (true, true) => usize::try_from(take_varint(&mut rest)?).map_err(|_| Damaged("length too large"))?,
            (true, false) => rest.len(),
            (false, true) => 0,
            (false, false) if rest.is_empty() => 0,
            (false, false) => return Err(Damaged("bytes after its end").into()),
        };
        if between > rest.len() {
            return Err(Damaged("ends early").into());
        }
        let start = bytes.len() - rest.len();
        let before = has_before.then(|| Row::from_bytes(bytes.slice(start..start + between)));
        let after = has_after.then(|| Row::from_bytes(bytes.slice(start + between..)));
        Ok(Change { schema, op, before, after })
    }
}

fn take_position(bytes: &mut &[u8], flags: u8) -> Result<Position, Damaged> {
    let first = take_varint(bytes)?;
    let second = if flags & (MYSQL | MONGODB) != 0 { take_varint(bytes)? } else { 0 };
    let ordinal = take_varint(bytes)?.wrapping_sub(1);
    let half = |number: u64| u32::try_from(number).map_err(|_| Damaged("number too large"));
    Ok(match flags & (MYSQL | MONGODB) {
        0 => Position::Postgres(PostgresPosition { commit: Lsn(first), ordinal }),
        MYSQL => Position::Mysql(MysqlPosition { file: first, offset: second, ordinal }),
        MONGODB => Position::Mongodb(MongodbPosition { seconds: half(first)?, increment: half(second)?, ordinal }),
        _ => return Err(Damaged("a position of two engines")),
    })
}
