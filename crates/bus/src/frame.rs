//! A frame: what one group commit writes, guarded by one CRC.
//!
//! ```text
//! magic 4 | payload length 4 | base offset 8 | records 4 | schemas 4 | crc 4 | payload: (length 4 | record)*
//! ```
//!
//! The next frame is written only after this one is durable. So a crash can tear the last frame alone, and a bad frame
//! with a good one behind it was damaged later. The CRC starts from a seed of the segment: a copy of a frame elsewhere,
//! inside a row for instance, is no frame there.

use bytes::{BufMut, Bytes, BytesMut};
use sync_worker_core::record::Offset;
use sync_worker_core::value::Damaged;

pub const HEADER: usize = 28;
/// A group takes no more once it has this many bytes. Larger groups hardly save any flushing, and delay readers.
pub const TARGET: usize = 1 << 20;
/// The longest payload: a frame with one large record.
pub const MAX_PAYLOAD: usize = (u32::MAX >> 1) as usize;

const MAGIC: [u8; 4] = [0xF3, b'S', b'W', 0x9C];

/// The records of a frame, in memory.
#[derive(Clone, Debug)]
pub struct Frame {
    pub base: Offset,
    pub count: u32,
    pub payload: Bytes,
}

impl Frame {
    pub fn end(&self) -> Offset {
        Offset(self.base.0 + u64::from(self.count))
    }

    /// The record at `at` and where the next one starts.
    pub fn record(&self, at: usize) -> Result<(Bytes, usize), Damaged> {
        let length = self.payload.get(at..at + 4).ok_or(Damaged("a record ends early"))?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let end = at + 4 + length;
        if end > self.payload.len() {
            return Err(Damaged("a record ends early"));
        }
        Ok((self.payload.slice(at + 4..end), end))
    }
}

/// What a frame's header says.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub length: u32,
    pub base: Offset,
    pub count: u32,
    /// Schemas that the log knew when this was written: with fewer, some have been lost.
    pub schemas: u32,
    crc: u32,
}

impl Header {
    /// None where no frame starts.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..4] != MAGIC {
            return None;
        }
        let base = u64::from(word(8)) | u64::from(word(12)) << 32;
        let header = Self { length: word(4), base: Offset(base), count: word(16), schemas: word(20), crc: word(24) };
        let fits = header.length as usize <= MAX_PAYLOAD && base.checked_add(u64::from(header.count)).is_some();
        (fits && header.count > 0).then_some(header)
    }

    pub fn frame_length(&self) -> usize {
        HEADER + self.length as usize
    }

    pub fn end(&self) -> Offset {
        Offset(self.base.0 + u64::from(self.count))
    }
}

/// The frame at the front of `bytes`, if a whole and sound one stands there.
pub fn check(bytes: &[u8], seed: u32) -> Option<Header> {
    let header = Header::parse(bytes)?;
    let frame = bytes.get(..header.frame_length())?;
    (crc(frame, seed) == header.crc).then_some(header)
}

/// Finds a sound frame anywhere in `bytes` that could follow the record before `next`.
pub fn find(bytes: &[u8], next: Offset, seed: u32) -> Option<usize> {
    let starts = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    starts.map(|(at, _)| at).find(|&at| check(&bytes[at..], seed).is_some_and(|header| header.base >= next))
}

fn crc(frame: &[u8], seed: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&frame[..HEADER - 4]);
    hasher.update(&frame[HEADER..]);
    hasher.finalize()
}

/// Fills in the header of a frame whose payload stands behind [`HEADER`] spare bytes.
pub fn seal(frame: &mut BytesMut, base: Offset, count: u32, schemas: u32, seed: u32) {
    let length = u32::try_from(frame.len() - HEADER).unwrap_or(u32::MAX);
    let (mut header, _) = frame.split_at_mut(HEADER);
    header.put_slice(&MAGIC);
    header.put_u32_le(length);
    header.put_u64_le(base.0);
    header.put_u32_le(count);
    header.put_u32_le(schemas);
    let crc = crc(frame, seed);
    frame[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(payload: &[u8]) -> BytesMut {
        let mut frame = BytesMut::zeroed(HEADER);
        frame.put_slice(payload);
        seal(&mut frame, Offset(7), 1, 0, 42);
        frame
    }

    #[test]
    fn a_sealed_frame_is_sound_and_no_flipped_bit_goes_unnoticed() {
        let mut frame = sealed(b"some payload");
        let header = check(&frame, 42).unwrap();
        assert_eq!((header.base, header.end(), header.frame_length()), (Offset(7), Offset(8), frame.len()));
        assert!(check(&frame, 43).is_none(), "the seed counts");
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&frame, 42).is_none(), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_frame_behind_garbage_is_found() {
        let mut bytes = vec![0xF3, b'S', b'W', 0x9C, 1, 2, 3];
        bytes.extend_from_slice(&sealed(b"x"));
        assert_eq!(find(&bytes, Offset(7), 42), Some(7));
        assert_eq!(find(&bytes, Offset(8), 42), None, "an older one does not follow");
    }
}
