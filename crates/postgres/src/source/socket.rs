//! The two halves of a stream socket, of which the reading one can rest: the reactor's own sockets are woken up for every
//! packet, whether anybody reads or not, and the wake-ups are paid for by the sender, a walsender with a packet per change.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A nonblocking socket.
pub trait Socket: Sized + Send + Sync + Unpin {
    /// The same, known to the reactor.
    type Woken: AsyncRead + AsyncWrite + Send + Sync + Unpin;

    fn another(&self) -> io::Result<Self>;
    fn woken(&self) -> io::Result<Self::Woken>;
}

impl Socket for TcpStream {
    type Woken = tokio::net::TcpStream;

    fn another(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn woken(&self) -> io::Result<Self::Woken> {
        self.try_clone().and_then(tokio::net::TcpStream::from_std)
    }
}

impl Socket for UnixStream {
    type Woken = tokio::net::UnixStream;

    fn another(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn woken(&self) -> io::Result<Self::Woken> {
        self.try_clone().and_then(tokio::net::UnixStream::from_std)
    }
}

/// Whether a reader rests between its reads. Shared with it.
#[derive(Clone, Debug, Default)]
pub struct Rest(Arc<AtomicBool>);

impl Rest {
    /// From the next read on.
    pub fn set(&self, rests: bool) {
        self.0.store(rests, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub struct Reader<S: Socket> {
    socket: S,
    /// While somebody waits, or has and does not rest.
    woken: Option<S::Woken>,
    rest: Rest,
}

/// Known to the reactor only while the socket takes nothing: a registration for one direction is one for both.
pub struct Writer<S: Socket> {
    socket: S,
    woken: Option<S::Woken>,
}

pub fn halves<S: Socket>(socket: S, rest: Rest) -> io::Result<(Reader<S>, Writer<S>)> {
    Ok((Reader { socket: socket.another()?, woken: None, rest }, Writer { socket, woken: None }))
}

impl<S: Socket> AsyncRead for Reader<S>
where
    for<'a> &'a S: Read,
{
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(woken) = &mut this.woken {
                let outcome = ready!(Pin::new(woken).poll_read(context, buffer));
                if this.rest.is_set() {
                    this.woken = None;
                }
                return Poll::Ready(outcome);
            }
            match (&this.socket).read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => this.woken = Some(this.socket.woken()?),
                outcome => return Poll::Ready(outcome.map(|read| buffer.advance(read))),
            }
        }
    }
}

impl<S: Socket> AsyncWrite for Writer<S>
where
    for<'a> &'a S: Write,
{
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if let Some(woken) = &mut this.woken {
                let outcome = ready!(Pin::new(woken).poll_write(context, bytes));
                this.woken = None;
                return Poll::Ready(outcome);
            }
            match (&this.socket).write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => this.woken = Some(this.socket.woken()?),
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The connection ends when both halves are dropped.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (Reader<UnixStream>, Writer<UnixStream>, UnixStream, Rest) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let rest = Rest::default();
        let (reader, writer) = halves(ours, rest.clone()).unwrap();
        (reader, writer, theirs, rest)
    }

    #[tokio::test]
    async fn a_reader_gets_everything_whether_it_rests_or_not() {
        let (mut reader, mut writer, mut theirs, rest) = pair();
        let mut got = [0; 3];
        for rests in [false, true, true, false, false] {
            rest.set(rests);
            // Waits first, then finds it there.
            let ((), read) = tokio::join!(
                async {
                    tokio::task::yield_now().await;
                    theirs.write_all(b"abc").unwrap();
                },
                reader.read(&mut got)
            );
            assert_eq!((read.unwrap(), &got), (3, b"abc"));
            theirs.write_all(b"defgh").unwrap();
            assert_eq!((reader.read(&mut got).await.unwrap(), &got), (3, b"def"));
            assert_eq!((reader.read(&mut got[..2]).await.unwrap(), &got[..2]), (2, &b"gh"[..]));
        }
        // More than the socket holds.
        let sent = vec![7; 1 << 20];
        let reading = tokio::task::spawn_blocking(move || {
            let mut back = vec![0; 1 << 20];
            theirs.read_exact(&mut back).unwrap();
            (theirs, back)
        });
        writer.write_all(&sent).await.unwrap();
        let (theirs, back) = reading.await.unwrap();
        assert!(back == sent);
        drop(theirs);
        assert_eq!(reader.read(&mut got).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_resting_reader_is_not_woken_up() {
        let (mut reader, _writer, mut theirs, rest) = pair();
        rest.set(true);
        let mut got = [0; 1];
        let ((), read) = tokio::join!(
            async {
                tokio::task::yield_now().await;
                theirs.write_all(b"a").unwrap();
            },
            reader.read(&mut got)
        );
        assert_eq!(read.unwrap(), 1);
        assert!(reader.woken.is_none());
    }
}
