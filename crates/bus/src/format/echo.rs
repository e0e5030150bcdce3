//! The bytes of an echo. An offset counts from 1, with 0 for none.

use bytes::{BufMut, Bytes, BytesMut};
use sync_worker_core::echo::{Echo, ParkedEcho, UnparkedEcho};
use sync_worker_core::encoding::{ended, put_bytes, put_text, take_byte, take_bytes, take_flag, take_text};
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::value::{Damaged, put_varint, take_varint};

pub fn encode_echo(echo: &Echo, out: &mut BytesMut) {
    put_varint(out, echo.offset.map_or(0, |offset| offset.0.wrapping_add(1)));
    put_varint(out, echo.parked.len() as u64);
    for parked in &echo.parked {
        put_text(out, parked.table.as_str());
        put_bytes(out, parked.key.as_bytes());
        put_varint(out, parked.offset.0);
        put_seen(out, parked.seen.as_ref());
    }
    put_varint(out, echo.unparked.len() as u64);
    for unparked in &echo.unparked {
        put_text(out, unparked.table.as_str());
        put_bytes(out, unparked.key.as_bytes());
        out.put_u8(unparked.written.into());
    }
}

pub fn decode_echo(mut bytes: &[u8]) -> Result<Echo, Damaged> {
    let offset = take_varint(&mut bytes)?.checked_sub(1).map(Offset);
    let mut echo = Echo { offset, ..Echo::default() };
    for _ in 0..take_varint(&mut bytes)? {
        echo.parked.push(ParkedEcho {
            table: TableName::new(take_text(&mut bytes)?),
            key: take_key(&mut bytes)?,
            offset: Offset(take_varint(&mut bytes)?),
            seen: take_seen(&mut bytes)?,
        });
    }
    for _ in 0..take_varint(&mut bytes)? {
        echo.unparked.push(UnparkedEcho {
            table: TableName::new(take_text(&mut bytes)?),
            key: take_key(&mut bytes)?,
            written: take_flag(&mut bytes)?,
        });
    }
    ended(bytes)?;
    Ok(echo)
}

/// 0 where the version was refused, 2 and what was seen, 1 where nothing is known of that.
fn put_seen(out: &mut BytesMut, seen: Option<&Seen>) {
    match seen {
        None => out.put_u8(0),
        Some(Seen { image: Image::UNKNOWN, row: None }) => out.put_u8(1),
        Some(seen) => {
            out.put_u8(2);
            put_bytes(out, &seen.to_bytes());
        }
    }
}

fn take_seen(bytes: &mut &[u8]) -> Result<Option<Seen>, Damaged> {
    Ok(match take_byte(bytes)? {
        0 => None,
        1 => Some(Seen { image: Image::UNKNOWN, row: None }),
        2 => Some(Seen::from_bytes(take_bytes(bytes)?)?),
        _ => return Err(Damaged("an unknown reason of a parked key")),
    })
}

/// A copy: a parked key may be kept for long.
fn take_key(bytes: &mut &[u8]) -> Result<Key, Damaged> {
    Ok(Key::from_bytes(Bytes::copy_from_slice(take_bytes(bytes)?)))
}
