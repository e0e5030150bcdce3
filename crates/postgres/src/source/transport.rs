//! A replication connection: start-up, authentication, plain commands, then raw frames in both directions.
//!
//! The frames are handed out as slices of one large buffer that is filled with as much as the socket has at a time: no
//! allocation, task switch or system call per message.

use crate::client::{Purpose, options};
use crate::config::{Address, Server, SslMode};
use crate::error::{Error, ServerError};
use crate::source::socket::{self, Rest};
use crate::tls;
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use std::io;
use std::ops::Range;
use sync_worker_core::secret::Secret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::config::Host;

/// What is read from the socket at a time. The kernel's own buffer, which fills while we decode, is rarely larger.
const BUFFER: usize = 512 * 1024;

/// A buffer that grew for one large message is given back above this.
const LARGE_BUFFER: usize = 8 * BUFFER;

type Reading = Box<dyn AsyncRead + Send + Sync + Unpin>;
type Writing = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// A connection that takes commands.
pub struct Connection {
    reading: Reading,
    writing: Writing,
    rest: Rest,
    buffer: BytesMut,
    server: Server,
}

impl Connection {
    pub async fn connect(address: &Address, server: &Server) -> Result<Self, Error> {
        let reaching = async {
            let mut connection = open(address, server).await?;
            connection.authenticate(address).await?;
            Ok(connection)
        };
        tokio::time::timeout(address.connect_timeout, reaching).await.unwrap_or_else(|_| {
            let problem = format!("no answer within {} ms", address.connect_timeout.as_millis());
            Err(Error::Unreachable { server: server.to_string(), problem })
        })
    }

    async fn authenticate(&mut self, address: &Address) -> Result<(), Error> {
        let options = options(Purpose::Stream);
        let parameters = [
            ("user", address.user.as_str()),
            ("database", &address.database),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", Purpose::Stream.application_name()),
            ("options", &options),
        ];
        self.send(|out| frontend::startup_message(parameters, out)).await?;
        let mut scram = None;
        loop {
            match self.receive().await? {
                Message::AuthenticationOk | Message::ParameterStatus(_) | Message::BackendKeyData(_) => {}
                Message::NoticeResponse(_) => {}
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ErrorResponse(body) => {
                    let source = Box::new(server_error(&body));
                    return Err(Error::Denied { server: self.server.to_string(), source });
                }
                Message::AuthenticationCleartextPassword => {
                    let password = self.password(address)?.expose().to_owned();
                    self.send(|out| frontend::password_message(password.as_bytes(), out)).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let password = self.password(address)?;
                    let hash = md5_hash(address.user.as_bytes(), password.expose().as_bytes(), body.salt());
                    self.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                Message::AuthenticationSasl(body) => {
                    let mechanisms = body.mechanisms();
                    let offered = mechanisms.map(|name| Ok(name == SCRAM_SHA_256)).any(Ok);
                    if !offered.map_err(|_| Error::Protocol("a damaged list of authentication mechanisms"))? {
                        return Err(self.unsupported());
                    }
                    let password = self.password(address)?;
                    let exchange = ScramSha256::new(password.expose().as_bytes(), ChannelBinding::unsupported());
                    self.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, exchange.message(), out)).await?;
                    scram = Some(exchange);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let exchange = scram.as_mut().ok_or(Error::Protocol("an answer that nobody asked for"))?;
                    exchange.update(body.data()).map_err(|_| Error::Protocol("a damaged authentication message"))?;
                    let answer = exchange.message().to_vec();
                    self.send(|out| frontend::sasl_response(&answer, out)).await?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let exchange = scram.as_mut().ok_or(Error::Protocol("an answer that nobody asked for"))?;
                    // The server proves that it knows the password, too.
                    exchange.finish(body.data()).map_err(|_| {
                        let problem = "the server does not know the password it asked for".to_owned();
                        Error::Tls { server: self.server.to_string(), problem }
                    })?;
                }
                _ => return Err(self.unsupported()),
            }
        }
    }

    fn password<'a>(&self, address: &'a Address) -> Result<&'a Secret, Error> {
        address.password.as_ref().ok_or_else(|| {
            let cure = "set password = { env = \"...\" } or { file = \"...\" }";
            Error::Config(format!("PostgreSQL at {} asks for a password; {cure}", self.server))
        })
    }

    fn unsupported(&self) -> Error {
        let cure = "allow scram-sha-256 for replication in pg_hba.conf";
        Error::Config(format!("PostgreSQL at {} asks for an authentication that is not supported; {cure}", self.server))
    }

    /// Runs one command and returns its rows as text.
    pub async fn query(&mut self, doing: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.send(|out| frontend::query(sql, out)).await?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            match self.receive().await? {
                Message::DataRow(body) => {
                    let bytes = body.buffer();
                    let text = |range: Option<Range<usize>>| {
                        Ok(range.map(|range| String::from_utf8_lossy(&bytes[range]).into_owned()))
                    };
                    let row = body.ranges().map(text).collect();
                    rows.push(row.map_err(|_| Error::Protocol("a damaged row"))?);
                }
                Message::ErrorResponse(body) => refused = Some(server_error(&body)),
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        match refused {
            Some(source) => Err(Error::Server { doing: doing.to_owned(), source: Box::new(source) }),
            None => Ok(rows),
        }
    }

    /// Sends START_REPLICATION; on success the connection belongs to the stream.
    pub async fn start(&mut self, sql: &str) -> Result<(), Error> {
        self.send(|out| frontend::query(sql, out)).await?;
        let mut refused = None;
        loop {
            while self.buffer.len() < 5 {
                self.fill().await?;
            }
            // CopyBothResponse, which ordinary clients never see, is not among the driver's messages.
            if self.buffer[0] == b'W' {
                let length = 1 + u32::from_be_bytes([self.buffer[1], self.buffer[2], self.buffer[3], self.buffer[4]]);
                let length = usize::try_from(length).map_err(|_| Error::Protocol("a message of impossible length"))?;
                while self.buffer.len() < length {
                    self.fill().await?;
                }
                drop(self.buffer.split_to(length));
                return Ok(());
            }
            match self.receive().await? {
                Message::ErrorResponse(body) => refused = Some(server_error(&body)),
                Message::ReadyForQuery(_) => {
                    let Some(source) = refused else { return Err(Error::Protocol("no stream was started")) };
                    return Err(Error::Server { doing: "the start of the stream".into(), source: Box::new(source) });
                }
                _ => {}
            }
        }
    }

    /// The two directions of a started stream.
    pub fn into_stream(self) -> (Receiver, Sender) {
        let mut buffer = vec![0; BUFFER.max(self.buffer.len())];
        buffer[..self.buffer.len()].copy_from_slice(&self.buffer);
        let (reading, rest) = (self.reading, self.rest);
        let receiver = Receiver { reading, rest, end: self.buffer.len(), buffer, start: 0 };
        (receiver, Sender { writing: self.writing })
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), Error> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|_| Error::Config("a name, password or setting holds a zero character".into()))?;
        self.writing.write_all(&out).await.map_err(lost)?;
        self.writing.flush().await.map_err(lost)
    }

    async fn receive(&mut self) -> Result<Message, Error> {
        loop {
            let parsed = Message::parse(&mut self.buffer).map_err(|_| Error::Protocol("an unknown message"))?;
            if let Some(message) = parsed {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Error> {
        match self.reading.read_buf(&mut self.buffer).await.map_err(lost)? {
            0 => Err(lost(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}

async fn open(address: &Address, server: &Server) -> Result<Connection, Error> {
    let unreachable = |error: io::Error| Error::Unreachable { server: server.to_string(), problem: error.to_string() };
    let rest = Rest::default();
    let connection = |reading, writing, rest| {
        let (buffer, server) = (BytesMut::new(), server.clone());
        Connection { reading, writing, rest, buffer, server }
    };
    let name = match &server.host {
        Host::Tcp(name) => name,
        #[cfg(unix)]
        Host::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{}", server.port));
            let stream = tokio::net::UnixStream::connect(path).await.and_then(tokio::net::UnixStream::into_std);
            let halves = stream.and_then(|stream| socket::halves(stream, rest.clone()));
            let (reading, writing) = halves.map_err(unreachable)?;
            return Ok(connection(Box::new(reading), Box::new(writing), rest));
        }
    };
    let mut tcp = TcpStream::connect((name.as_str(), server.port)).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let config = tls::client_config(address)?;
    let mut encrypted = config.is_some();
    if encrypted {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        tcp.write_all(&request).await.map_err(unreachable)?;
        // One byte and no more: what follows belongs to TLS.
        encrypted = tcp.read_u8().await.map_err(unreachable)? == b'S';
    }
    let halves = tcp.into_std().and_then(|tcp| socket::halves(tcp, rest.clone()));
    let (reading, writing) = halves.map_err(unreachable)?;
    let config = match config {
        Some(config) if encrypted => config,
        Some(_) if address.sslmode != SslMode::Prefer => {
            let problem = "the server does not support TLS".to_owned();
            return Err(Error::Tls { server: server.to_string(), problem });
        }
        Some(_) | None => return Ok(connection(Box::new(reading), Box::new(writing), rest)),
    };
    let invalid = |_| Error::Config(format!("url: {name} is not a host name that a certificate can name"));
    let server_name = ServerName::try_from(name.clone()).map_err(invalid)?;
    let socket = tokio::io::join(reading, writing);
    let handshake = tokio_rustls::TlsConnector::from(config).connect(server_name, socket).await;
    let stream = handshake.map_err(|error| match tls::is_certificate_error(&error) {
        true => Error::Tls { server: server.to_string(), problem: error.to_string() },
        false => unreachable(error),
    })?;
    let (reading, writing) = tokio::io::split(stream);
    Ok(connection(Box::new(reading), Box::new(writing), rest))
}

fn lost(error: io::Error) -> Error {
    Error::Lost { doing: "replication".into(), problem: error.to_string() }
}

fn server_error(body: &ErrorResponseBody) -> ServerError {
    let mut error = ServerError::new("", "");
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        error.set(field.type_(), field.value_bytes());
    }
    error
}

/// The sending half of a stream.
pub struct Sender {
    writing: Writing,
}

impl Sender {
    /// Sends one CopyData frame.
    pub async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 5);
        frame.push(b'd');
        let length = u32::try_from(payload.len() + 4).map_err(io::Error::other)?;
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(payload);
        self.writing.write_all(&frame).await?;
        self.writing.flush().await
    }
}

/// The receiving half of a stream.
pub struct Receiver {
    reading: Reading,
    rest: Rest,
    buffer: Vec<u8>,
    /// What has not been taken yet stands between.
    start: usize,
    end: usize,
}

impl Receiver {
    /// Where the next whole CopyData frame's payload stands in [`Receiver::bytes`]; None where more has to be read.
    pub fn frame(&mut self) -> Result<Option<Range<usize>>, Error> {
        loop {
            let have = &self.buffer[self.start..self.end];
            let Some(&[tag, a, b, c, d]) = have.first_chunk::<5>() else { return Ok(None) };
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if !(4..=0x7FFF_FFFF).contains(&length) {
                return Err(Error::Protocol("a message of impossible length"));
            }
            if have.len() < length + 1 {
                return Ok(None);
            }
            let payload = self.start + 5..self.start + 1 + length;
            match tag {
                b'd' => return Ok(Some(payload)),
                b'E' => {
                    let source = error_fields(&self.buffer[payload]);
                    return Err(Error::Server { doing: "to stream on".into(), source: Box::new(source) });
                }
                // notices and changed parameters
                b'N' | b'S' => self.start = payload.end,
                b'c' | b'C' | b'Z' => {
                    return Err(lost(io::Error::other("the server has ended the stream")));
                }
                _ => return Err(Error::Protocol("an unknown message in the stream")),
            }
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Goes on behind a frame.
    pub fn taken(&mut self, frame: &Range<usize>) {
        self.start = frame.end;
    }

    /// Whether the socket wakes up nobody between two reads.
    pub fn rest(&self, rests: bool) {
        self.rest.set(rests);
    }

    /// Reads what the socket has, at least one byte. Returns how many. Cancel safe.
    pub async fn fill(&mut self) -> Result<usize, Error> {
        self.make_room();
        match self.reading.read(&mut self.buffer[self.end..]).await.map_err(lost)? {
            0 => Err(lost(io::ErrorKind::UnexpectedEof.into())),
            read => {
                self.end += read;
                Ok(read)
            }
        }
    }

    fn make_room(&mut self) {
        let length = self.end - self.start;
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, length);
        }
        let have = &self.buffer[..length];
        // A message that does not fit gets a buffer of its size.
        let wanted = match have.first_chunk::<5>() {
            Some(&[_, a, b, c, d]) => usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0) + 1,
            None => 0,
        };
        let wanted = wanted.clamp(BUFFER, 0x8000_0000);
        if self.buffer.len() < wanted || (self.buffer.len() > LARGE_BUFFER && wanted <= BUFFER && length < BUFFER) {
            let mut buffer = vec![0; wanted];
            buffer[..length].copy_from_slice(have);
            self.buffer = buffer;
        }
    }
}

/// The fields of an ErrorResponse: a letter and a zero-terminated text each.
fn error_fields(mut bytes: &[u8]) -> ServerError {
    let mut error = ServerError::new("", "");
    while let Some((&kind, rest)) = bytes.split_first() {
        let Some(end) = memchr::memchr(0, rest) else { break };
        error.set(kind, &rest[..end]);
        bytes = &rest[end + 1..];
    }
    error
}
