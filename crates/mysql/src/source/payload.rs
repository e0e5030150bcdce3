//! Compressed transactions (`binlog_transaction_compression`): unpacked event by event, never as a whole.

use super::event;
use crate::error::Error;
use std::io::{BufReader, Read};

/// A longer event than any server writes: it would not fit into one packet.
const MAX_EVENT: usize = 1 << 30;

pub struct Payload<'a> {
    reader: zstd::stream::read::Decoder<'static, BufReader<&'a [u8]>>,
    /// What the header promises and has not come yet.
    left: u64,
    event: Vec<u8>,
}

impl<'a> Payload<'a> {
    pub fn open(body: &'a [u8]) -> Result<Self, Error> {
        let (stored, size) = event::payload(body).map_err(|invalid| Error::Protocol(invalid.0))?;
        let reader = zstd::stream::read::Decoder::new(stored).map_err(|_| DAMAGED)?;
        Ok(Self { reader, left: size, event: Vec::new() })
    }

    /// The next event, without a checksum. None at the promised end and nowhere else.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.event.resize(event::HEADER, 0);
        self.reader.read_exact(&mut self.event).map_err(|_| DAMAGED)?;
        let header = event::Header::read(&mut &self.event[..]).map_err(|invalid| Error::Protocol(invalid.0))?;
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        if !(event::HEADER..=MAX_EVENT).contains(&size) || size as u64 > self.left {
            return Err(DAMAGED);
        }
        self.left -= size as u64;
        self.event.resize(size, 0);
        self.reader.read_exact(&mut self.event[event::HEADER..]).map_err(|_| DAMAGED)?;
        Ok(Some(&self.event))
    }
}

const DAMAGED: Error = Error::Protocol("a compressed transaction is damaged");
