//! The bytes of a schema: its id as it was computed when it was written, then table, engine, key and columns.

use super::{put_text, take_byte, take_text};
use crate::name::TableName;
use crate::schema::{Column, Schema, SchemaId};
use crate::types::Engine;
use crate::value::{Damaged, put_varint, take_varint};
use bytes::{BufMut, BytesMut};

const NULLABLE: u8 = 1;
const GENERATED: u8 = 2;

pub fn encode_schema(schema: &Schema, out: &mut BytesMut) {
    out.put_u64_le(schema.id.0);
    put_text(out, schema.table.as_str());
    out.put_u8(match schema.engine {
        Engine::Postgres => 0,
        Engine::Mysql => 1,
        Engine::Mongodb => 2,
    });
    put_varint(out, schema.key.len() as u64);
    for &column in &schema.key {
        put_varint(out, column as u64);
    }
    put_varint(out, schema.columns.len() as u64);
    for column in &schema.columns {
        put_text(out, &column.name);
        put_text(out, &column.kind.to_string());
        put_text(out, &column.type_name);
        let nullable = if column.nullable { NULLABLE } else { 0 };
        out.put_u8(nullable | if column.generated { GENERATED } else { 0 });
    }
}

/// The id is taken as written, not computed again: records refer to it.
pub fn decode_schema(mut bytes: &[u8]) -> Result<Schema, Damaged> {
    let (id, rest) = bytes.split_first_chunk::<8>().ok_or(Damaged("ends early"))?;
    bytes = rest;
    let table = TableName::new(take_text(&mut bytes)?);
    let engine = match take_byte(&mut bytes)? {
        0 => Engine::Postgres,
        1 => Engine::Mysql,
        2 => Engine::Mongodb,
        _ => return Err(Damaged("unknown engine")),
    };
    let parts = take_varint(&mut bytes)?;
    let mut key = Vec::new();
    for _ in 0..parts {
        key.push(usize::try_from(take_varint(&mut bytes)?).map_err(|_| Damaged("number too large"))?);
    }
    let count = take_varint(&mut bytes)?;
    let mut columns = Vec::new();
    for _ in 0..count {
        let name = take_text(&mut bytes)?.to_owned();
        let kind = take_text(&mut bytes)?.parse().map_err(|_| Damaged("unknown column type"))?;
        let type_name = take_text(&mut bytes)?.to_owned();
        let flags = take_byte(&mut bytes)?;
        columns.push(Column {
            name,
            kind,
            type_name,
            nullable: flags & NULLABLE != 0,
            generated: flags & GENERATED != 0,
        });
    }
    if !bytes.is_empty() {
        return Err(Damaged("bytes after its end"));
    }
    if key.iter().any(|&column| column >= columns.len()) {
        return Err(Damaged("a key column that is not there"));
    }
    Ok(Schema { id: SchemaId(u64::from_le_bytes(*id)), table, engine, columns, key })
}
