//! Statements over a raw connection: small results as text, large ones row by row in the binary protocol.

use super::{Wire, server_error};
use crate::error::Error;

const QUERY: u8 = 3;
const STMT_PREPARE: u8 = 0x16;
const STMT_EXECUTE: u8 = 0x17;
const STMT_CLOSE: u8 = 0x19;

/// A row of a text result; None is NULL.
pub type TextRow = Vec<Option<Vec<u8>>>;

/// Reads a length-encoded integer from the front of `bytes` and moves past it.
pub(crate) fn lenenc(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    let width = match first {
        0..=0xFA => {
            *bytes = rest;
            return Some(u64::from(first));
        }
        0xFC => 2,
        0xFD => 3,
        0xFE => 8,
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(width)?;
    let mut value = [0; 8];
    value[..width].copy_from_slice(digits);
    *bytes = rest;
    Some(u64::from_le_bytes(value))
}

/// Reads bytes with their length before them.
pub(crate) fn lenenc_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(lenenc(bytes)?).ok()?;
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head)
}

impl Wire {
    /// Runs a statement and forgets its result.
    pub async fn execute(&mut self, statement: &str) -> Result<(), Error> {
        self.query(statement).await.map(drop)
    }

    /// The rows of a small result.
    pub async fn query(&mut self, statement: &str) -> Result<Vec<TextRow>, Error> {
        let liveness = self.liveness();
        liveness.wait(self.run_query(statement)).await
    }

    /// The first column of the first row; an empty text for NULL and for no row.
    pub async fn query_value(&mut self, statement: &str) -> Result<String, Error> {
        let row = self.query(statement).await?.into_iter().next();
        let value = row.and_then(|row| row.into_iter().next()).flatten().unwrap_or_default();
        String::from_utf8(value).map_err(|_| Error::Protocol("a setting is not UTF-8"))
    }

    async fn run_query(&mut self, statement: &str) -> Result<Vec<TextRow>, Error> {
        let mut command = Vec::with_capacity(statement.len() + 1);
        command.push(QUERY);
        command.extend_from_slice(statement.as_bytes());
        self.send(&command).await?;
        let first = self.answer("a statement").await?;
        if first.first() == Some(&0) {
            return Ok(Vec::new());
        }
        let columns = lenenc(&mut &first[..]).ok_or(Error::Protocol("a result without columns"))?;
        self.skip_definitions().await?;
        let mut rows = Vec::new();
        loop {
            let packet = self.answer("a statement").await?;
            if is_end(&packet) {
                return Ok(rows);
            }
            let mut rest = &packet[..];
            let mut row = TextRow::new();
            for _ in 0..columns {
                if rest.first() == Some(&0xFB) {
                    rest = &rest[1..];
                    row.push(None);
                    continue;
                }
                let value = lenenc_bytes(&mut rest).ok_or(Error::Protocol("a cut row"))?;
                row.push(Some(value.to_vec()));
            }
            rows.push(row);
        }
    }

    /// Runs a query in the binary protocol and hands out each row's packet: null bitmap and values after its first
    /// byte. Answers false where `each` wanted no more: the connection is then of no further use.
    pub async fn query_binary(
        &mut self,
        statement: &str,
        each: &mut (dyn FnMut(&[u8]) -> Result<bool, Error> + Send),
    ) -> Result<bool, Error> {
        let liveness = self.liveness();
        liveness.wait(self.run_binary(statement, each)).await
    }

    async fn run_binary(
        &mut self,
        statement: &str,
        each: &mut (dyn FnMut(&[u8]) -> Result<bool, Error> + Send),
    ) -> Result<bool, Error> {
        const DOING: &str = "a read of a table";
        let mut command = Vec::with_capacity(statement.len() + 1);
        command.push(STMT_PREPARE);
        command.extend_from_slice(statement.as_bytes());
        self.send(&command).await?;
        let prepared = self.answer(DOING).await?;
        let id = prepared.get(1..5).ok_or(Error::Protocol("a cut statement"))?.to_vec();
        let counts = prepared.get(5..9).ok_or(Error::Protocol("a cut statement"))?;
        if counts[..2] != [0, 0] {
            self.skip_definitions().await?;
        }
        if counts[2..] != [0, 0] {
            self.skip_definitions().await?;
        }
        let mut execute = vec![STMT_EXECUTE];
        execute.extend_from_slice(&id);
        execute.extend_from_slice(&[0, 1, 0, 0, 0]);
        self.send(&execute).await?;
        self.answer(DOING).await?;
        self.skip_definitions().await?;
        loop {
            while let Some(packet) = self.packet() {
                match packet.first() {
                    Some(0) => {
                        if !each(packet)? {
                            return Ok(false);
                        }
                    }
                    Some(0xFF) => return Err(Error::Server { doing: DOING, source: server_error(packet) }),
                    Some(0xFE) => {
                        let mut close = vec![STMT_CLOSE];
                        close.extend_from_slice(&id);
                        return self.send(&close).await.map(|()| true);
                    }
                    _ => return Err(Error::Protocol("an unknown row")),
                }
            }
            self.fill().await?;
        }
    }

    /// A packet that is not a refusal.
    async fn answer(&mut self, doing: &'static str) -> Result<Vec<u8>, Error> {
        let packet = self.wait().await?;
        match packet.first() {
            Some(0xFF) => Err(Error::Server { doing, source: server_error(&packet) }),
            Some(_) => Ok(packet),
            None => Err(Error::Protocol("an empty packet")),
        }
    }

    async fn skip_definitions(&mut self) -> Result<(), Error> {
        while !is_end(&self.wait().await?) {}
        Ok(())
    }
}

fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&0xFE) && packet.len() < 9
}
