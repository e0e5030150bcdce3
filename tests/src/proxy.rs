//! A TCP proxy that forwards, swallows everything without a word, or cuts, on command.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Connections are taken and what is sent on them is read; nothing comes out anywhere.
    Swallow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Command {
    mode: Mode,
    /// Connections of an older generation are cut.
    generation: u64,
}

pub struct Proxy {
    address: SocketAddr,
    command: watch::Sender<Command>,
    accepting: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port and forwards to `upstream`, a `host:port`.
    pub async fn start(upstream: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (command, commanded) = watch::channel(Command { mode: Mode::Forward, generation: 0 });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, upstream.to_owned(), commanded));
        Ok(Self { address, command, accepting })
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn swallow(&self) {
        self.command.send_modify(|command| command.mode = Mode::Swallow);
    }

    /// Forwards again. A connection that lost bytes stays silent for good: its ends must find out by themselves.
    pub fn forward(&self) {
        self.command.send_modify(|command| command.mode = Mode::Forward);
    }

    /// Cuts every connection; new ones are taken.
    pub fn cut(&self) {
        self.command.send_modify(|command| command.generation += 1);
    }

    pub fn stop(mut self) {
        self.accepting.abort_all();
    }
}

async fn accept(listener: TcpListener, upstream: String, command: watch::Receiver<Command>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(connect(client, upstream.clone(), command.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until an end closes it or it is cut.
async fn connect(client: TcpStream, upstream: String, mut command: watch::Receiver<Command>) {
    let generation = command.borrow().generation;
    let serve = serve(client, &upstream, command.clone());
    tokio::select! {
        _ = command.wait_for(|command| command.generation > generation) => {}
        () = serve => {}
    }
}

async fn serve(mut client: TcpStream, upstream: &str, command: watch::Receiver<Command>) {
    if command.borrow().mode == Mode::Swallow {
        // Taken while everything is swallowed: it never gets anywhere.
        let mut buffer = vec![0; 16 << 10];
        while client.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        return;
    }
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let forth = copy(from_client, to_server, command.clone());
    let back = copy(from_server, to_client, command);
    tokio::join!(forth, back);
}

/// Until the reading end closes. Once something was swallowed nothing is forwarded any more, not even the end.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, command: watch::Receiver<Command>) {
    let mut buffer = vec![0; 64 << 10];
    let mut swallowed = false;
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        swallowed |= command.borrow().mode == Mode::Swallow;
        if swallowed {
            if length == 0 {
                // The other end learns nothing of this.
                std::future::pending::<()>().await;
            }
            continue;
        }
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    // The other end sees the end of this one; a failure means that it has gone first.
    to.shutdown().await.unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap_or_default()
                });
            }
        });
        address
    }

    /// What answers does so at once, so that its limit may be long; silence is told by a short one.
    async fn answers_within(stream: &mut TcpStream, limit: Duration) -> bool {
        let mut byte = [0];
        stream.write_all(b"x").await.is_ok()
            && tokio::time::timeout(limit, stream.read(&mut byte))
                .await
                .is_ok_and(|read| read.is_ok_and(|length| length == 1))
    }

    async fn answers(stream: &mut TcpStream) -> bool {
        answers_within(stream, Duration::from_secs(30)).await
    }

    async fn is_silent(stream: &mut TcpStream) -> bool {
        !answers_within(stream, Duration::from_millis(200)).await
    }

    #[tokio::test]
    async fn it_forwards_swallows_and_cuts() {
        let proxy = Proxy::start(&echo().await.to_string()).await.unwrap();
        let mut first = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut first).await);
        proxy.swallow();
        assert!(is_silent(&mut first).await);
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(is_silent(&mut second).await);
        proxy.forward();
        assert!(is_silent(&mut first).await, "what lost bytes stays silent");
        let mut third = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut third).await);
        proxy.cut();
        assert!(is_silent(&mut third).await);
        assert!(answers(&mut TcpStream::connect(proxy.address()).await.unwrap()).await);
    }
}
