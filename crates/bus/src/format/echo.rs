//! The bytes of an echo. An offset counts from 1, with 0 for none.

use bytes::{BufMut, Bytes, BytesMut};
use sync_worker_core::echo::{Echo, ParkedEcho, UnparkedEcho};
use sync_worker_core::encoding::{ended, put_bytes, put_text, take_bytes, take_flag, take_text};
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
        out.put_u8(parked.differs.into());
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
            differs: take_flag(&mut bytes)?,
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

/// A copy: a parked key may be kept for long.
fn take_key(bytes: &mut &[u8]) -> Result<Key, Damaged> {
    Ok(Key::from_bytes(Bytes::copy_from_slice(take_bytes(bytes)?)))
}
