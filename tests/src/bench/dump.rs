//! The fastest that a server sends its binary log over the network: a bare replica that asks for one file and throws every
//! packet away, without looking into events and without writing anything.

use anyhow::{Context, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

const COM_QUERY: u8 = 0x03;
const COM_BINLOG_DUMP: u8 = 0x12;

/// Ends the dump where the log ends instead of waiting for more.
const NON_BLOCK: u16 = 1;

/// CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION and CLIENT_PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x0008_8200;

/// The longest payload of one packet; a longer message goes on in the next packet.
const LONGEST: usize = 0xff_ffff;

/// The first event of every file stands behind its magic number.
const FIRST_EVENT: u32 = 4;

/// Of no other replica of a benchmark's server.
const SERVER_ID: u32 = 0x7fff_fff0;

/// A signed-in connection.
pub struct Dump {
    stream: BufReader<TcpStream>,
}

impl Dump {
    /// `url`: of a server that lets its user in without a password, as the tests' own do.
    pub fn open(url: &str) -> anyhow::Result<Self> {
        let (user, rest) = url
            .strip_prefix("mysql://")
            .and_then(|rest| rest.split_once('@'))
            .context("a MySQL URL with a user is needed")?;
        let address = rest.split('/').next().unwrap_or(rest);
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut dump = Self { stream: BufReader::with_capacity(1 << 20, stream) };
        dump.message().context("no greeting")?;
        let mut answer = Vec::new();
        answer.extend(CAPABILITIES.to_le_bytes());
        answer.extend((1_u32 << 30).to_le_bytes());
        // utf8mb4_general_ci
        answer.push(45);
        answer.extend([0; 23]);
        answer.extend(user.as_bytes());
        // The end of the name, then a password of no bytes.
        answer.extend([0, 0]);
        answer.extend(b"caching_sha2_password\0");
        dump.send(1, &answer)?;
        dump.expect_ok().context("signing in")?;
        // As the file has them: the server would have to rewrite every event otherwise.
        dump.query("SET @source_binlog_checksum = @@global.binlog_checksum")?;
        Ok(dump)
    }

    /// Reads a file and those after it to their end. Returns the bytes of all events.
    pub fn read(mut self, file: &str) -> anyhow::Result<u64> {
        let mut command = vec![COM_BINLOG_DUMP];
        command.extend(FIRST_EVENT.to_le_bytes());
        command.extend(NON_BLOCK.to_le_bytes());
        command.extend(SERVER_ID.to_le_bytes());
        command.extend(file.as_bytes());
        self.send(0, &command)?;
        let mut bytes = 0;
        loop {
            let (length, first) = self.header()?;
            match first {
                0 => bytes += length as u64 - 1,
                0xfe if length < 9 => return Ok(bytes),
                _ => bail!("the server ended the dump: {}", text(&self.rest(length - 1)?)),
            }
            self.skip(length - 1)?;
            let mut piece = length;
            while piece == LONGEST {
                piece = self.length()?;
                self.skip(piece)?;
                bytes += piece as u64;
            }
        }
    }

    fn query(&mut self, sql: &str) -> anyhow::Result<()> {
        self.send(0, &[&[COM_QUERY], sql.as_bytes()].concat())?;
        self.expect_ok().with_context(|| sql.to_owned())
    }

    fn send(&mut self, sequence: u8, payload: &[u8]) -> anyhow::Result<()> {
        let [low, middle, high, _] = u32::try_from(payload.len())?.to_le_bytes();
        let packet = [&[low, middle, high, sequence], payload].concat();
        Ok(self.stream.get_mut().write_all(&packet)?)
    }

    fn expect_ok(&mut self) -> anyhow::Result<()> {
        let message = self.message()?;
        ensure!(message.first() == Some(&0), "{}", text(&message));
        Ok(())
    }

    fn message(&mut self) -> anyhow::Result<Vec<u8>> {
        let length = self.length()?;
        self.rest(length)
    }

    /// The payload's length of the next packet.
    fn length(&mut self) -> anyhow::Result<usize> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header)?;
        let [low, middle, high, _] = header;
        Ok(usize::try_from(u32::from_le_bytes([low, middle, high, 0]))?)
    }

    /// The same, and the payload's first byte, which says what the packet is.
    fn header(&mut self) -> anyhow::Result<(usize, u8)> {
        let length = self.length()?;
        ensure!(length > 0, "an empty packet");
        let mut first = [0];
        self.stream.read_exact(&mut first)?;
        Ok((length, first[0]))
    }

    fn rest(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self, mut length: usize) -> anyhow::Result<()> {
        let buffered = self.stream.buffer().len().min(length);
        self.stream.consume(buffered);
        length -= buffered;
        if length > 0 {
            std::io::copy(&mut self.stream.by_ref().take(length as u64), &mut std::io::sink())?;
        }
        Ok(())
    }
}

fn text(message: &[u8]) -> String {
    message.iter().filter(|byte| (b' '..=b'~').contains(*byte)).map(|byte| char::from(*byte)).collect()
}
