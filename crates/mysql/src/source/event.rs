//! Events of the binlog: their headers, and those that carry no rows.

use crate::codec::{Invalid, little, take, take_slice};
use crate::gtid::{Gtid, Origin, Tag};
use crate::wire::lenenc;

pub const QUERY: u8 = 2;
pub const STOP: u8 = 3;
pub const ROTATE: u8 = 4;
pub const INTVAR: u8 = 5;
pub const APPEND_BLOCK: u8 = 9;
pub const DELETE_FILE: u8 = 11;
pub const RAND: u8 = 13;
pub const USER_VAR: u8 = 14;
pub const FORMAT_DESCRIPTION: u8 = 15;
pub const XID: u8 = 16;
pub const BEGIN_LOAD_QUERY: u8 = 17;
pub const EXECUTE_LOAD_QUERY: u8 = 18;
pub const TABLE_MAP: u8 = 19;
pub const WRITE_ROWS_V1: u8 = 23;
pub const UPDATE_ROWS_V1: u8 = 24;
pub const DELETE_ROWS_V1: u8 = 25;
pub const INCIDENT: u8 = 26;
pub const HEARTBEAT: u8 = 27;
pub const IGNORABLE: u8 = 28;
pub const ROWS_QUERY: u8 = 29;
pub const WRITE_ROWS: u8 = 30;
pub const UPDATE_ROWS: u8 = 31;
pub const DELETE_ROWS: u8 = 32;
pub const GTID: u8 = 33;
pub const ANONYMOUS_GTID: u8 = 34;
pub const PREVIOUS_GTIDS: u8 = 35;
pub const TRANSACTION_CONTEXT: u8 = 36;
pub const VIEW_CHANGE: u8 = 37;
pub const XA_PREPARE: u8 = 38;
pub const PARTIAL_UPDATE_ROWS: u8 = 39;
pub const TRANSACTION_PAYLOAD: u8 = 40;
pub const HEARTBEAT_V2: u8 = 41;
pub const GTID_TAGGED: u8 = 42;

/// A replica may pass over an event with this flag.
pub const IGNORABLE_FLAG: u16 = 0x80;

pub const HEADER: usize = 19;

#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Seconds since 1970.
    pub timestamp: u32,
    pub kind: u8,
    pub size: u32,
    /// Where the event ends in its file, without what is above 4 GiB; 0 for one that stands in no file.
    pub end: u32,
    pub flags: u16,
}

impl Header {
    pub fn read(bytes: &mut &[u8]) -> Result<Self, Invalid> {
        let header: [u8; HEADER] = take(bytes)?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Ok(Self {
            timestamp: word(0),
            kind: header[4],
            size: word(9),
            end: word(13),
            flags: u16::from_le_bytes([header[17], header[18]]),
        })
    }
}

/// The beginning of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    pub gtid: Gtid,
    /// Microseconds since 1970 at the server where it was committed first; 0 where the server does not say.
    pub commit_time: i64,
}

pub fn gtid(mut bytes: &[u8]) -> Result<Begin, Invalid> {
    let bytes = &mut bytes;
    let _flags: [u8; 1] = take(bytes)?;
    let uuid = take(bytes)?;
    let number = u64::from_le_bytes(take(bytes)?);
    let gtid = Gtid { origin: Origin { uuid, tag: Tag::default() }, number };
    let mut commit_time = 0;
    if take::<1>(bytes) == Ok([2]) {
        take::<16>(bytes)?;
        if let Ok(immediate) = take::<7>(bytes) {
            let immediate = little(&immediate);
            // The highest bit says that the time at the first server follows.
            const DIFFERS: u64 = 1 << 55;
            let time = if immediate & DIFFERS != 0 { little(&take::<7>(bytes)?) } else { immediate };
            commit_time = i64::try_from(time).unwrap_or(0);
        }
    }
    Ok(Begin { gtid, commit_time })
}

/// A GTID with a tag, in the server's self-describing format: fields with their numbers before them.
pub fn gtid_tagged(mut bytes: &[u8]) -> Result<Begin, Invalid> {
    const UNKNOWN: Invalid = Invalid("a tagged GTID of an unknown version");
    let bytes = &mut bytes;
    if take::<1>(bytes)? != [2] {
        return Err(UNKNOWN);
    }
    varlen(bytes)?; // how many bytes it all takes
    let needed = varlen(bytes)?;
    let (mut uuid, mut tag, mut number) = ([0; 16], Tag::default(), 0);
    let (mut immediate, mut original) = (0, None);
    let mut seen = 0;
    while !bytes.is_empty() && seen < 12 {
        let field = varlen(bytes)?;
        seen = field + 1;
        match field {
            1 => {
                for byte in &mut uuid {
                    *byte = u8::try_from(varlen(bytes)?).map_err(|_| UNKNOWN)?;
                }
            }
            2 => number = varlen(bytes)? >> 1,
            3 => {
                let length = usize::try_from(varlen(bytes)?).map_err(|_| UNKNOWN)?;
                let text = std::str::from_utf8(take_slice(bytes, length)?).map_err(|_| UNKNOWN)?;
                tag = Tag::new(text).ok_or(UNKNOWN)?;
            }
            6 => immediate = varlen(bytes)?,
            7 => original = Some(varlen(bytes)?),
            0 | 4 | 5 | 8..=11 => {
                varlen(bytes)?;
            }
            _ if field <= needed => return Err(UNKNOWN),
            _ => break,
        }
    }
    if number == 0 {
        return Err(UNKNOWN);
    }
    let commit_time = i64::try_from(original.unwrap_or(immediate)).unwrap_or(0);
    Ok(Begin { gtid: Gtid { origin: Origin { uuid, tag }, number }, commit_time })
}

/// A number whose first byte's trailing ones say how many bytes follow it.
fn varlen(bytes: &mut &[u8]) -> Result<u64, Invalid> {
    let [first] = take(bytes)?;
    let more = usize::try_from(first.trailing_ones()).unwrap_or(8);
    let rest = little(take_slice(bytes, more)?);
    Ok(match more {
        8 => rest,
        7 => rest,
        _ => rest << (7 - more) | u64::from(first) >> (more + 1),
    })
}

/// The name of the file that goes on, as its number, and where.
pub fn rotate(mut bytes: &[u8]) -> Result<(u64, u64), Invalid> {
    let position = u64::from_le_bytes(take(&mut bytes)?);
    Ok((file_number(bytes).ok_or(Invalid("a binlog file without a number"))?, position))
}

/// `binlog.000012`: 12. What follows the digits is a checksum.
pub fn file_number(name: &[u8]) -> Option<u64> {
    let dot = memchr::memrchr(b'.', name)?;
    let digits = name[dot + 1..].iter().take_while(|byte| byte.is_ascii_digit());
    let text: String = digits.map(|byte| char::from(*byte)).collect();
    text.parse().ok()
}

pub struct Query<'a> {
    pub database: &'a str,
    pub statement: &'a [u8],
}

pub fn query(bytes: &[u8]) -> Result<Query<'_>, Invalid> {
    query_behind(0, bytes)
}

/// A `LOAD DATA` in statement format. Before its variables stand the number of its file, the place of the file's name
/// in the text, and what becomes of duplicates.
pub fn load_query(bytes: &[u8]) -> Result<Query<'_>, Invalid> {
    query_behind(4 + 4 + 4 + 1, bytes)
}

fn query_behind(extra: usize, mut bytes: &[u8]) -> Result<Query<'_>, Invalid> {
    let bytes = &mut bytes;
    take::<8>(bytes)?; // thread, duration
    let [database] = take(bytes)?;
    take::<2>(bytes)?; // error
    let variables = usize::from(u16::from_le_bytes(take(bytes)?));
    take_slice(bytes, extra)?;
    take_slice(bytes, variables)?;
    let database = take_slice(bytes, usize::from(database))?;
    take::<1>(bytes)?;
    let database = std::str::from_utf8(database).map_err(|_| Invalid("a database name is not UTF-8"))?;
    Ok(Query { database, statement: bytes })
}

/// Whether an XA PREPARE event is a commit in one phase.
pub fn one_phase(bytes: &[u8]) -> Result<bool, Invalid> {
    Ok(take::<1>(&mut &bytes[..])? != [0])
}

/// The checksum of a file's events, from its first event: 0 is none, 1 is CRC-32.
pub fn checksum(body: &[u8]) -> Result<bool, Invalid> {
    let at = body.len().checked_sub(5).ok_or(Invalid("a format description is too short"))?;
    match body[at] {
        0 | 0xFF => Ok(false),
        1 => Ok(true),
        _ => Err(Invalid("an unknown checksum")),
    }
}

/// What a compressed transaction holds: its bytes and how many they will be.
pub fn payload(mut bytes: &[u8]) -> Result<(&[u8], u64), Invalid> {
    const DAMAGED: Invalid = Invalid("a compressed transaction is damaged");
    let bytes = &mut bytes;
    let (mut size, mut compression, mut uncompressed) = (None, None, None);
    loop {
        let kind = lenenc(bytes).ok_or(DAMAGED)?;
        if kind == 0 {
            break;
        }
        let length = usize::try_from(lenenc(bytes).ok_or(DAMAGED)?).map_err(|_| DAMAGED)?;
        let value = lenenc(&mut take_slice(bytes, length)?);
        match kind {
            1 => size = value,
            2 => compression = value,
            3 => uncompressed = value,
            _ => {}
        }
    }
    let size = usize::try_from(size.ok_or(DAMAGED)?).map_err(|_| DAMAGED)?;
    let stored = take_slice(bytes, size)?;
    match compression {
        Some(0) => Ok((stored, uncompressed.ok_or(DAMAGED)?)),
        _ => Err(Invalid("a transaction is compressed in an unknown way")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_self_describing_format() {
        assert_eq!(varlen(&mut &[0x0A][..]), Ok(5));
        assert_eq!(varlen(&mut &[0b0000_0001, 1][..]), Ok(64));
        assert_eq!(varlen(&mut &[0b0000_1011, 2, 3][..]), Ok(1 | 2 << 5 | 3 << 13));
        let all = [0xFF, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(varlen(&mut &all[..]), Ok(u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8])));
        assert!(varlen(&mut &all[..4]).is_err());
    }

    #[test]
    fn files_have_numbers() {
        assert_eq!(file_number(b"binlog.000012"), Some(12));
        assert_eq!(file_number(b"a.b.1000001\xFE\x01\x02\x03"), Some(1_000_001));
        assert_eq!(file_number(b"binlog"), None);
    }
}
