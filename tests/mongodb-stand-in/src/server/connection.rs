//! One client's connection: messages in, replies out, one command at a time.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::authentication::Login;
use super::shared::Server;
use super::wire::{MESSAGE_SIZE_LIMIT, Message};
use crate::command::execute::execute;

pub struct Connection {
    pub id: i64,
    pub member: usize,
    pub login: Login,
}

pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    server: Arc<Server>,
    id: i64,
    member: usize,
    stream: S,
) -> io::Result<()> {
    let mut connection = Connection { id, member, login: Login::default() };
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let mut bytes = Vec::new();
    loop {
        let length = match stream.read_u32_le().await {
            Ok(length) => length as usize,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        if !(16..=MESSAGE_SIZE_LIMIT + (16 << 10)).contains(&length) {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        bytes.resize(length - 4, 0);
        stream.read_exact(&mut bytes).await?;
        let message = Message::parse(&bytes).ok_or_else(|| io::Error::other("a message that can't be read"))?;
        let Some(reply) = execute(&server, &mut connection, &message.request).await else { return Ok(()) };
        if message.wants_reply {
            stream.write_all(&message.reply(&reply)).await?;
            stream.flush().await?;
        }
    }
}
