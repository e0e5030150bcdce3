//! A raw connection: packets, without a copy or an allocation for each.
//!
//! The change stream and the table reader live on it, since they move by far the most bytes; everything else uses the
//! driver ([`crate::client`]).

mod handshake;
mod statement;
mod tls;

pub use statement::TextRow;
pub(crate) use statement::{lenenc, lenenc_bytes};

use crate::client::{CONNECT_TIMEOUT, Liveness, session_statement};
use crate::config::{Address, Config, Host};
use crate::error::{Error, ServerError};
use bytes::{Buf, BytesMut};
use futures::FutureExt;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// As much as one read may bring.
const BUFFER: usize = 512 * 1024;

/// A packet above this is rare, and what it takes in memory is given back after it.
const LARGE: usize = 4 * BUFFER;

/// A packet of this length goes on in the next one.
const FULL_PACKET: usize = 0xFF_FFFF;

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
    /// While it is being encrypted.
    Closed,
}

pub struct Wire {
    stream: Stream,
    buffer: BytesMut,
    /// Bytes at the front of the buffer that the last packet took.
    taken: usize,
    /// Payload of a packet that came in several.
    joined: Vec<u8>,
    joining: bool,
    /// The buffers have held a large packet.
    grown: bool,
    sequence: u8,
    pub host: Host,
    /// The server's version as it greets.
    pub version: String,
    id: u32,
    address: Address,
}

impl Wire {
    /// Connects to the first host that lets us in; where there are several, to the first that takes writes.
    pub async fn connect(config: &Config) -> Result<Wire, Error> {
        let address = config.address()?;
        let mut last = None;
        for host in &address.hosts {
            match Self::connect_to(&address, host).await {
                Ok(mut wire) => {
                    if address.hosts.len() == 1 || wire.query_value("SELECT @@global.read_only").await? == "0" {
                        return Ok(wire);
                    }
                    let source = io::Error::other("it is read-only, and no other host takes writes");
                    last.get_or_insert(Error::Unreachable { host: host.to_string(), source });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Config("url: names no host".to_owned())))
    }

    async fn connect_to(address: &Address, host: &Host) -> Result<Wire, Error> {
        let unreachable = |source| Error::Unreachable { host: host.to_string(), source };
        let greeted = async {
            let stream = TcpStream::connect((host.name.as_str(), host.port)).await.map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            let mut wire = Wire {
                stream: Stream::Plain(stream),
                buffer: BytesMut::with_capacity(BUFFER),
                taken: 0,
                joined: Vec::new(),
                joining: false,
                grown: false,
                sequence: 0,
                host: host.clone(),
                version: String::new(),
                id: 0,
                address: address.clone(),
            };
            wire.handshake(address).await?;
            wire.execute(&session_statement()).await?;
            Ok(wire)
        };
        let silent = || unreachable(io::Error::new(io::ErrorKind::TimedOut, "no answer within 2 s"));
        timeout(CONNECT_TIMEOUT, greeted).await.map_err(|_| silent())?
    }

    /// Sees whether the server still runs a statement of this connection.
    fn liveness(&self) -> Liveness {
        Liveness::new(self.address.clone(), self.host.clone(), self.id)
    }

    /// Sends a command.
    async fn send(&mut self, command: &[u8]) -> Result<(), Error> {
        self.sequence = 0;
        self.write(command).await
    }

    async fn write(&mut self, payload: &[u8]) -> Result<(), Error> {
        let mut packets = Vec::with_capacity(payload.len() + 4);
        // An empty packet ends one that fills the last of its parts.
        let end = payload.len().is_multiple_of(FULL_PACKET).then_some(&[][..]);
        for part in payload.chunks(FULL_PACKET).chain(end) {
            packets.extend_from_slice(&part.len().to_le_bytes()[..3]);
            packets.push(self.sequence);
            self.sequence = self.sequence.wrapping_add(1);
            packets.extend_from_slice(part);
        }
        let lost = |source| Error::Lost { doing: "a request", source };
        match &mut self.stream {
            Stream::Closed => Err(lost(io::ErrorKind::NotConnected.into())),
            Stream::Plain(stream) => stream.write_all(&packets).await.map_err(lost),
            Stream::Encrypted(stream) => {
                stream.write_all(&packets).await.map_err(lost)?;
                stream.flush().await.map_err(lost)
            }
        }
    }

    /// The next packet's payload, if it is here whole. It stays until the next call.
    pub fn packet(&mut self) -> Option<&[u8]> {
        loop {
            self.buffer.advance(self.taken);
            self.taken = 0;
            let header: [u8; 4] = *self.buffer.first_chunk()?;
            let length = usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
            if self.buffer.len() < 4 + length {
                return None;
            }
            self.sequence = header[3].wrapping_add(1);
            self.taken = 4 + length;
            self.grown |= length > LARGE;
            if length < FULL_PACKET && !self.joining {
                return Some(&self.buffer[4..4 + length]);
            }
            if !self.joining {
                self.joined.clear();
            }
            self.joined.extend_from_slice(&self.buffer[4..4 + length]);
            self.joining = length == FULL_PACKET;
            if !self.joining {
                return Some(&self.joined);
            }
        }
    }

    /// Waits for more bytes. Cancel safe.
    pub async fn fill(&mut self) -> Result<(), Error> {
        self.buffer.advance(self.taken);
        self.taken = 0;
        self.shrink();
        if self.buffer.capacity() - self.buffer.len() < BUFFER / 4 {
            self.buffer.reserve(BUFFER);
        }
        let read = match &mut self.stream {
            Stream::Closed => Err(io::ErrorKind::NotConnected.into()),
            Stream::Plain(stream) => stream.read_buf(&mut self.buffer).await,
            Stream::Encrypted(stream) => stream.read_buf(&mut self.buffer).await,
        };
        let lost = |source| Error::Lost { doing: "a read", source };
        match read {
            Ok(0) => Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            // The TLS library adds an essay to it.
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Err(lost(io::ErrorKind::UnexpectedEof.into()))
            }
            Err(source) => Err(lost(source)),
        }
    }

    /// Gives back what a large packet took, once it is gone.
    fn shrink(&mut self) {
        if self.grown && !self.joining && self.buffer.is_empty() {
            self.grown = false;
            self.buffer = BytesMut::with_capacity(BUFFER);
            self.joined = Vec::new();
        }
    }

    /// Takes what the socket has, without waiting. False when there is nothing.
    pub fn fill_now(&mut self) -> Result<bool, Error> {
        match self.fill().now_or_never() {
            Some(outcome) => outcome.map(|()| true),
            None => Ok(false),
        }
    }

    /// Waits for more bytes of a stream that is never silent for `limit`.
    pub async fn fill_within(&mut self, limit: Duration) -> Result<(), Error> {
        match timeout(limit, self.fill()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Silent { host: self.host.to_string(), seconds: limit.as_secs() }),
        }
    }

    /// Sends a command whose answer is a stream of packets without an end.
    pub async fn start(&mut self, command: &[u8]) -> Result<(), Error> {
        self.send(command).await
    }
}

/// Reads an ERR packet, its first byte included.
pub fn server_error(packet: &[u8]) -> ServerError {
    let code = packet.get(1..3).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let rest = packet.get(3..).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match rest.split_first_chunk::<6>() {
        Some((state, message)) if state[0] == b'#' => ServerError::new(code, text(&state[1..]), text(message)),
        _ => ServerError::new(code, String::new(), text(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_packet_leaves_no_large_buffers_behind() {
        let address = Config { url: "mysql://u@h/d".into(), password: None, server_id: None }.address().unwrap();
        let mut wire = Wire {
            stream: Stream::Closed,
            buffer: BytesMut::with_capacity(BUFFER),
            taken: 0,
            joined: Vec::new(),
            joining: false,
            grown: false,
            sequence: 0,
            host: address.hosts[0].clone(),
            version: String::new(),
            id: 0,
            address,
        };
        wire.buffer.extend_from_slice(&[0xFF, 0xFF, 0xFF, 0]);
        wire.buffer.extend_from_slice(&vec![7; FULL_PACKET]);
        assert!(wire.packet().is_none());
        // Nothing comes, but what was taken may go.
        assert!(wire.fill_now().is_err());
        assert!(wire.joining && wire.joined.capacity() >= FULL_PACKET, "half a packet stays");
        wire.buffer.extend_from_slice(&[1, 0, 0, 1, 8]);
        assert_eq!(wire.packet().map(<[u8]>::len), Some(FULL_PACKET + 1));
        assert!(wire.fill_now().is_err());
        assert!(wire.joined.capacity() == 0 && wire.buffer.capacity() <= LARGE, "{}", wire.buffer.capacity());
    }
}
