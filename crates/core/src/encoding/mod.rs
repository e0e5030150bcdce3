//! Bytes that the log and the resolvers' checkpoints share. Numbers are varints, texts and bytes have their length in front.

mod schema;
mod two_way;

pub use schema::{decode_schema, encode_schema};
pub use two_way::{decode_two_way, encode_two_way};

use crate::value::{Damaged, put_varint, take_varint};
use bytes::{BufMut, BytesMut};

pub fn put_text(out: &mut BytesMut, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

pub fn take_byte(bytes: &mut &[u8]) -> Result<u8, Damaged> {
    let (&byte, rest) = bytes.split_first().ok_or(Damaged("ends early"))?;
    *bytes = rest;
    Ok(byte)
}

pub fn take_flag(bytes: &mut &[u8]) -> Result<bool, Damaged> {
    match take_byte(bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Damaged("neither true nor false")),
    }
}

pub fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let length = usize::try_from(take_varint(bytes)?).map_err(|_| Damaged("length too large"))?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Damaged("ends early"))?;
    *bytes = rest;
    Ok(taken)
}

pub fn take_text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Damaged> {
    std::str::from_utf8(take_bytes(bytes)?).map_err(|_| Damaged("text is not UTF-8"))
}

/// Nothing may follow.
pub fn ended(bytes: &[u8]) -> Result<(), Damaged> {
    if bytes.is_empty() { Ok(()) } else { Err(Damaged("bytes after its end")) }
}
