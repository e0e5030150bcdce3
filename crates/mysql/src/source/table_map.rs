//! The description of a table that precedes its rows in the log.

use crate::codec::{CUT, Invalid, take, take_slice};
use crate::wire::{lenenc, lenenc_bytes};

/// Column types as the log numbers them.
pub mod code {
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const YEAR: u8 = 13;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapColumn {
    pub name: String,
    pub code: u8,
    /// What the type needs beside its code, as its two bytes: lengths, digits.
    pub meta: [u8; 2],
    pub nullable: bool,
    pub unsigned: bool,
    /// Of strings, enums and sets.
    pub collation: Option<u64>,
    /// Of enums and sets, in the column's character set.
    pub labels: Vec<Vec<u8>>,
}

impl MapColumn {
    /// The longest value of a CHAR, VARCHAR or BINARY in bytes.
    pub fn max_length(&self) -> usize {
        let [low, high] = self.meta.map(usize::from);
        match self.code {
            // The two high bits of longer CHARs hide, inverted, in the type's byte.
            code::STRING => high | ((low & 0x30) ^ 0x30) << 4,
            _ => low | high << 8,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap {
    pub database: String,
    pub table: String,
    pub columns: Vec<MapColumn>,
    /// The log describes columns in full (`binlog_row_metadata = FULL`): names are there.
    pub named: bool,
    /// Indexes of the primary key's columns.
    pub primary_key: Vec<usize>,
}

/// The table's number, and what follows it.
pub fn table_id(bytes: &mut &[u8]) -> Result<u64, Invalid> {
    Ok(crate::codec::little(&take::<6>(bytes)?))
}

/// Database and table alone: enough to know whether the rest is of interest. `bytes` starts after the table's number.
pub fn names(mut bytes: &[u8]) -> Result<(&str, &str), Invalid> {
    let bytes = &mut bytes;
    take::<2>(bytes)?; // flags
    Ok((name(bytes)?, name(bytes)?))
}

fn name<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Invalid> {
    let text = lenenc_bytes(bytes).ok_or(CUT)?;
    take::<1>(bytes)?;
    std::str::from_utf8(text).map_err(|_| Invalid("a table name is not UTF-8"))
}

pub fn parse(mut bytes: &[u8]) -> Result<TableMap, Invalid> {
    let bytes = &mut bytes;
    take::<2>(bytes)?;
    let (database, table) = (name(bytes)?.to_owned(), name(bytes)?.to_owned());
    let count = number(bytes)?;
    let codes = take_slice(bytes, count)?;
    let mut metas = lenenc_bytes(bytes).ok_or(CUT)?;
    let mut columns = Vec::with_capacity(count);
    for &code in codes {
        columns.push(column(code, &mut metas)?);
    }
    let nulls = take_slice(bytes, count.div_ceil(8))?;
    for (at, column) in columns.iter_mut().enumerate() {
        column.nullable = nulls[at / 8] >> (at % 8) & 1 == 1;
    }
    let mut map = TableMap { database, table, columns, named: false, primary_key: Vec::new() };
    while !bytes.is_empty() {
        let [kind] = take(bytes)?;
        let value = lenenc_bytes(bytes).ok_or(CUT)?;
        map.describe(kind, value)?;
    }
    Ok(map)
}

fn column(code: u8, metas: &mut &[u8]) -> Result<MapColumn, Invalid> {
    let length = match code {
        code::FLOAT | code::DOUBLE | code::TIMESTAMP2 | code::DATETIME2 | code::TIME2 => 1,
        code::TINY_BLOB..=code::BLOB | code::JSON | code::GEOMETRY | code::VECTOR => 1,
        code::VARCHAR | code::BIT | code::NEWDECIMAL => 2,
        code::ENUM | code::SET | code::VAR_STRING | code::STRING => 2,
        _ => 0,
    };
    let mut meta = [0; 2];
    meta[..length].copy_from_slice(take_slice(metas, length)?);
    // Enums and sets come as strings with their own type in the first byte.
    let code = match (code, meta[0]) {
        (code::STRING, inner @ (code::ENUM | code::SET)) => inner,
        _ => code,
    };
    Ok(MapColumn { code, meta, ..MapColumn::default() })
}

fn number(bytes: &mut &[u8]) -> Result<usize, Invalid> {
    usize::try_from(lenenc(bytes).ok_or(CUT)?).map_err(|_| CUT)
}

fn numeric(column: &MapColumn) -> bool {
    use code::{DOUBLE, FLOAT, INT24, LONG, LONGLONG, NEWDECIMAL, SHORT, TINY, YEAR};
    matches!(column.code, TINY | SHORT | INT24 | LONG | LONGLONG | NEWDECIMAL | FLOAT | DOUBLE | YEAR)
}

fn textual(column: &MapColumn) -> bool {
    matches!(column.code, code::STRING | code::VAR_STRING | code::VARCHAR | code::TINY_BLOB..=code::BLOB)
}

fn labelled(column: &MapColumn) -> bool {
    matches!(column.code, code::ENUM | code::SET)
}

impl TableMap {
    /// One field of the optional metadata. Fields of later versions are passed over.
    fn describe(&mut self, kind: u8, mut value: &[u8]) -> Result<(), Invalid> {
        let value = &mut value;
        match kind {
            1 => {
                for (nth, column) in self.columns.iter_mut().filter(|column| numeric(column)).enumerate() {
                    column.unsigned = value.get(nth / 8).ok_or(CUT)? >> (7 - nth % 8) & 1 == 1;
                }
            }
            2 => self.default_collation(value, textual)?,
            3 => self.collations(value, textual)?,
            4 => {
                for column in &mut self.columns {
                    let name = lenenc_bytes(value).ok_or(CUT)?;
                    column.name = String::from_utf8(name.to_vec()).map_err(|_| Invalid("a name is not UTF-8"))?;
                }
                self.named = true;
            }
            5 => self.labels(value, code::SET)?,
            6 => self.labels(value, code::ENUM)?,
            8 => {
                while !value.is_empty() {
                    self.primary_key.push(number(value)?);
                }
            }
            9 => {
                while !value.is_empty() {
                    self.primary_key.push(number(value)?);
                    number(value)?; // the length of the prefix that is indexed
                }
            }
            10 => self.default_collation(value, labelled)?,
            11 => self.collations(value, labelled)?,
            _ => {}
        }
        Ok(())
    }

    /// One collation for most, and the others by their place among the columns of this sort.
    fn default_collation(&mut self, value: &mut &[u8], of: fn(&MapColumn) -> bool) -> Result<(), Invalid> {
        let default = lenenc(value).ok_or(CUT)?;
        for column in self.columns.iter_mut().filter(|column| of(column)) {
            column.collation = Some(default);
        }
        while !value.is_empty() {
            let (nth, collation) = (number(value)?, lenenc(value).ok_or(CUT)?);
            if let Some(column) = self.columns.iter_mut().filter(|column| of(column)).nth(nth) {
                column.collation = Some(collation);
            }
        }
        Ok(())
    }

    fn collations(&mut self, value: &mut &[u8], of: fn(&MapColumn) -> bool) -> Result<(), Invalid> {
        for column in self.columns.iter_mut().filter(|column| of(column)) {
            column.collation = Some(lenenc(value).ok_or(CUT)?);
        }
        Ok(())
    }

    fn labels(&mut self, value: &mut &[u8], code: u8) -> Result<(), Invalid> {
        for column in self.columns.iter_mut().filter(|column| column.code == code) {
            for _ in 0..number(value)? {
                column.labels.push(lenenc_bytes(value).ok_or(CUT)?.to_vec());
            }
        }
        Ok(())
    }
}
