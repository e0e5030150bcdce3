//! The one thread that owns the connection.
//!
//! Whatever is queued when the thread comes round is committed together, in the order of the calls, with one flush to
//! disk; nobody gets an answer before that. Reads go the same way, so that none sees what may still be rolled back.

use crate::error::{Error, Fault};
use rusqlite::Connection;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait for the thread before the next caller waits (invariant 9).
const QUEUE: usize = 256;

pub(crate) struct Writer {
    path: PathBuf,
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

/// What a job works on: always inside a transaction.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    path: PathBuf,
    fold: Cell<bool>,
}

impl Session {
    /// After this commit, moves the log into the file itself. SQLite ignores the rest of a log that is damaged: what
    /// must never seem never to have been, a capture's first checkpoint, should not stand there alone.
    pub(crate) fn fold_log(&self) {
        self.fold.set(true);
    }
}

impl Writer {
    pub(crate) fn start(path: &Path, connection: Connection) -> Result<Self, Error> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let session = Session { connection, path: path.to_owned(), fold: Cell::new(false) };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || work(&session, jobs))
            .map_err(|error| Error::io(path, "starting the writer", error))?;
        Ok(Self { path: path.to_owned(), queue: Some(queue), thread: Some(thread) })
    }

    /// Runs `work` in a transaction of its own, as far as the caller can tell; durable when this returns. A call that is
    /// dropped may still take effect.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Session) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Error> {
        let closed = || Error::Closed { path: self.path.clone() };
        let (reply, answer) = oneshot::channel();
        let call = Call { action, work: Some(work), result: None, reply };
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(Box::new(call)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl Drop for Writer {
    /// Waits until what is queued has been written and the file is closed, so that it can be opened again.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the store's writer has panicked");
        }
    }
}

trait Job: Send {
    fn run(&mut self, session: &Session) -> Result<(), Error>;

    /// Tells the caller: `error` where the transaction came to nothing although the job itself went well.
    fn answer(self: Box<Self>, error: Option<Error>);
}

struct Call<T, W> {
    action: &'static str,
    work: Option<W>,
    result: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<T: Send, W: FnOnce(&Session) -> Result<T, Fault> + Send> Job for Call<T, W> {
    fn run(&mut self, session: &Session) -> Result<(), Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        match work(session).map_err(|fault| fault.at(&session.path, self.action)) {
            Ok(value) => {
                self.result = Some(Ok(value));
                Ok(())
            }
            Err(error) => {
                self.result = Some(Err(error.clone()));
                Err(error)
            }
        }
    }

    fn answer(self: Box<Self>, error: Option<Error>) {
        let result = match (self.result, error) {
            (Some(Err(own)), _) => Err(own),
            (Some(Ok(_)) | None, Some(error)) => Err(error),
            (Some(Ok(value)), None) => Ok(value),
            // Neither run nor failed can't be; dropping the reply says that the writer has ended.
            (None, None) => return,
        };
        // The caller may have gone.
        drop(self.reply.send(result));
    }
}

fn work(session: &Session, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    let mut group = Vec::new();
    while let Some(job) = jobs.blocking_recv() {
        group.push(job);
        while group.len() < QUEUE
            && let Ok(job) = jobs.try_recv()
        {
            group.push(job);
        }
        let outcome = commit(session, &mut group).err();
        // After a failure, too: what a commit that failed has left in the log must not look like one that was lost.
        if session.fold.take() || outcome.is_some() {
            fold(session);
        }
        for job in group.drain(..) {
            job.answer(outcome.clone());
        }
    }
    fold(session);
}

/// Runs the jobs in one transaction, each undone by itself where it fails. An error means that nothing of any of them is
/// there.
fn commit(session: &Session, group: &mut [Box<dyn Job>]) -> Result<(), Error> {
    let run = |sql: &str, action| {
        let ran = session.connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        ran.map(drop).map_err(|error| Fault::from(error).at(&session.path, action))
    };
    run("BEGIN", "starting a transaction")?;
    let mut outcome = Ok(());
    for job in group {
        outcome = run("SAVEPOINT job", "starting a transaction");
        if outcome.is_err() {
            break;
        }
        if let Err(error) = job.run(session) {
            // A full disk, for one, undoes the whole transaction.
            if session.connection.is_autocommit() {
                return Err(error);
            }
            outcome = run("ROLLBACK TO job", "undoing a change");
        }
        outcome = outcome.and_then(|()| run("RELEASE job", "ending a change"));
        if outcome.is_err() {
            break;
        }
    }
    let outcome = outcome.and_then(|()| run("COMMIT", "committing"));
    if outcome.is_err() && !session.connection.is_autocommit() {
        run("ROLLBACK", "undoing a transaction")?;
    }
    outcome
}

fn fold(session: &Session) {
    let folded = session.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = folded {
        // Nothing is lost: the log is read at the next start, and folded in then.
        tracing::warn!(path = %session.path.display(), error = %error, "could not fold the store's log into its file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::params;
    use sync_worker_core::error::{Classified, ErrorClass};

    fn writer(folder: &Path) -> Writer {
        let path = folder.join("test.sqlite");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB) STRICT").unwrap();
        Writer::start(&path, connection).unwrap()
    }

    async fn insert(writer: &Writer, id: i64, size: i64) -> Result<(), Error> {
        let work = move |session: &Session| {
            session.connection.execute("INSERT INTO t VALUES (?1, zeroblob(?2))", params![id, size])?;
            Ok(())
        };
        writer.call("inserting", work).await
    }

    async fn ids(writer: &Writer) -> Vec<i64> {
        let work = |session: &Session| {
            let mut statement = session.connection.prepare("SELECT id FROM t ORDER BY id")?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?)
        };
        writer.call("reading", work).await.unwrap()
    }

    #[tokio::test]
    async fn one_that_fails_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(folder.path());
        let (one, again, other) = tokio::join!(insert(&writer, 1, 1), insert(&writer, 1, 1), insert(&writer, 2, 1));
        assert!(one.is_ok() && other.is_ok());
        assert!(again.unwrap_err().to_string().ends_with("test.sqlite: inserting failed"));
        assert_eq!(ids(&writer).await, [1, 2]);
    }

    #[tokio::test]
    async fn a_full_disk_is_transient_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let writer = writer(folder.path());
        let pages = |count: i64| {
            move |session: &Session| Ok(session.connection.pragma_update(None, "max_page_count", count)?)
        };
        writer.call("setting up", pages(8)).await.unwrap();
        let (small, large) = tokio::join!(insert(&writer, 1, 1), insert(&writer, 2, 1 << 20));
        let error = large.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(error.to_string().contains("test.sqlite"), "{error}");
        let there = ids(&writer).await;
        assert_eq!(there.contains(&1), small.is_ok(), "what was answered is what is there");
        writer.call("making room", pages(1 << 20)).await.unwrap();
        insert(&writer, 2, 1 << 20).await.unwrap();
        assert!(ids(&writer).await.contains(&2));
    }

    #[tokio::test]
    async fn what_is_queued_when_the_writer_goes_is_still_written() {
        let folder = tempfile::tempdir().unwrap();
        let short_lived = writer(folder.path());
        let pending = insert(&short_lived, 7, 1);
        // Polled once, so that it is queued, then dropped.
        drop(poll_once(pending).await);
        drop(short_lived);
        let connection = Connection::open(folder.path().join("test.sqlite")).unwrap();
        let count: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1);
    }

    async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
        let mut future = Box::pin(future);
        std::future::poll_fn(|context| {
            let polled = match future.as_mut().poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            };
            std::task::Poll::Ready(polled)
        })
        .await
    }
}
