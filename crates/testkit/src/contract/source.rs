//! What every [`Source`](sync_worker_core::source::Source) must do.

use crate::stream::Stream;
use std::future::Future;
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::position::{Checkpoint, Epoch, Position};
use sync_worker_core::reader::KeyRange;
use sync_worker_core::row::Row;
use sync_worker_core::value::{Cell, Value};

/// The table, or collection, that the scope names. Its key is a number, and it has a text of up to a thousand bytes.
pub const TABLE: &str = "t";

/// One write by an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// With a text of a thousand bytes.
    Insert(i64),
    /// Gives it a text that it did not have.
    Update(i64),
    Delete(i64),
}

/// A source database under test, with [`TABLE`] empty.
pub trait Fixture {
    /// Of an application.
    type Transaction;

    fn database(&self) -> &dyn Database;

    fn scope(&self) -> &Scope;

    fn begin(&self) -> impl Future<Output = Self::Transaction>;

    fn write(&self, transaction: &mut Self::Transaction, write: Write) -> impl Future<Output = ()>;

    fn commit(&self, transaction: Self::Transaction) -> impl Future<Output = ()>;

    fn roll_back(&self, transaction: Self::Transaction) -> impl Future<Output = ()>;

    /// Commits a write to a table that is not in the scope.
    fn write_elsewhere(&self) -> impl Future<Output = ()>;
}

/// Runs the whole contract.
pub async fn holds<F: Fixture>(fixture: F) {
    let mut ids = Ids(0);
    transactions(&fixture, &mut ids).await;
    large_transactions(&fixture, &mut ids).await;
    resumption(&fixture, &mut ids).await;
    cancellation(&fixture, &mut ids).await;
    rollback(&fixture, &mut ids).await;
    concurrency(&fixture, &mut ids).await;
    idleness(&fixture, &mut ids).await;
    visibility(&fixture, &mut ids).await;
    identity(&fixture).await;
}

/// Keys that no part of the contract has used before.
struct Ids(i64);

impl Ids {
    fn take<const N: usize>(&mut self) -> [i64; N] {
        [(); N].map(|()| {
            self.0 += 1;
            self.0
        })
    }

    fn many(&mut self, count: usize) -> Vec<i64> {
        (0..count).map(|_| self.take::<1>()[0]).collect()
    }
}

async fn open<F: Fixture>(fixture: &F, from: Option<&Checkpoint>) -> Stream {
    Stream::open(fixture.database(), fixture.scope(), from).await.unwrap()
}

async fn commit<F: Fixture>(fixture: &F, writes: &[Write]) {
    let mut transaction = fixture.begin().await;
    for write in writes {
        fixture.write(&mut transaction, *write).await;
    }
    fixture.commit(transaction).await;
}

fn inserts(ids: &[i64]) -> Vec<Write> {
    ids.iter().copied().map(Write::Insert).collect()
}

/// What a change was by the application's words.
fn written(change: &Change) -> Write {
    assert_eq!(change.table().as_str(), TABLE);
    let key = change.key().unwrap().expect("a change of a row");
    let Some(Ok(Cell::Present(Value::Int(id)))) = key.cells().next() else { panic!("a key that is no number") };
    match change.op {
        Op::Create => Write::Insert(id),
        Op::Update => Write::Update(id),
        Op::Delete => Write::Delete(id),
        Op::Read | Op::Truncate => panic!("nobody has made a change {}", change.op),
    }
}

fn all_written(changes: &[(Position, Change)]) -> Vec<Write> {
    changes.iter().map(|(_, change)| written(change)).collect()
}

/// A change by its position and all that it says of its row.
type Known = (Position, Write, Option<Row>, Option<Row>);

fn known(changes: &[(Position, Change)]) -> Vec<Known> {
    let known = |(position, change): &(Position, Change)| {
        (*position, written(change), change.before.clone(), change.after.clone())
    };
    changes.iter().map(known).collect()
}

/// The transactions that had changes, by their sizes; another table's may come as empty ones.
fn sizes(stream: &Stream) -> Vec<usize> {
    stream.transactions.iter().map(|(_, changes)| *changes).filter(|changes| *changes > 0).collect()
}

/// Reads what is there, up to a transaction that is committed now. Returns without it.
async fn drain<F: Fixture>(fixture: &F, stream: &mut Stream, ids: &mut Ids) {
    let [last] = ids.take();
    commit(fixture, &[Write::Insert(last)]).await;
    while stream.changes.last().map(|(_, change)| written(change)) != Some(Write::Insert(last))
        || stream.checkpoint.position < stream.changes[stream.changes.len() - 1].0
    {
        stream.batch().await.unwrap();
    }
    stream.changes.pop();
    while let Some((_, 0)) = stream.transactions.last() {
        stream.transactions.pop();
    }
    assert_eq!(stream.transactions.pop().map(|(_, changes)| changes), Some(1));
}

/// They come whole, in commit order, their changes in the order in which they were made. That positions grow, that
/// transactions are not interleaved, that each ends once and that checkpoints stand between them is checked by
/// [`Stream`] with each batch.
async fn transactions<F: Fixture>(fixture: &F, ids: &mut Ids) {
    let mut stream = open(fixture, None).await;
    let [a, b, c] = ids.take();
    let all = [
        vec![Write::Insert(a), Write::Insert(b), Write::Update(a)],
        vec![Write::Delete(b)],
        vec![Write::Insert(c), Write::Update(c), Write::Update(a), Write::Delete(c)],
    ];
    for writes in &all {
        commit(fixture, writes).await;
    }
    drain(fixture, &mut stream, ids).await;
    assert_eq!(all_written(&stream.changes), all.concat());
    assert_eq!(sizes(&stream), [3, 1, 4]);
    let mut names: Vec<_> = stream.transactions.iter().map(|(name, _)| name).collect();
    names.dedup();
    assert_eq!(names.len(), stream.transactions.len(), "two transactions of one name");
}

/// However many batches it takes, there is one transaction and no checkpoint before its end.
async fn large_transactions<F: Fixture>(fixture: &F, ids: &mut Ids) {
    let mut stream = open(fixture, None).await;
    let (before, large, after) = (ids.many(1), ids.many(3_000), ids.many(1));
    for ids in [&before, &large, &after] {
        commit(fixture, &inserts(ids)).await;
    }
    drain(fixture, &mut stream, ids).await;
    assert!(all_written(&stream.changes) == inserts(&[before, large, after].concat()), "other rows than were written");
    assert_eq!(sizes(&stream), [1, 3_000, 1]);
}

/// From each checkpoint the stream goes on behind it: nothing is lost, nothing comes again, and the same change has the
/// same position. To confirm one takes nothing from those that come after it.
async fn resumption<F: Fixture>(fixture: &F, ids: &mut Ids) {
    let mut stream = open(fixture, None).await;
    let mut checkpoints = vec![stream.checkpoint.clone()];
    for size in [1, 7, 2, 40, 1, 3] {
        commit(fixture, &inserts(&ids.many(size))).await;
        let so_far = stream.changes.len() + size;
        while stream.changes.len() < so_far || stream.checkpoint.position < stream.changes[so_far - 1].0 {
            stream.batch().await.unwrap();
        }
        checkpoints.push(stream.checkpoint.clone());
    }
    drain(fixture, &mut stream, ids).await;
    let changes = known(&stream.changes);
    assert_eq!(changes.len(), 54);
    drop(stream);
    let reads_the_rest = async |from: &Checkpoint, ids: &mut Ids| {
        let mut again = open(fixture, Some(from)).await;
        assert_eq!(again.checkpoint.position, from.position, "it starts elsewhere than at its checkpoint");
        let rest = changes.iter().filter(|(position, ..)| *position > from.position).cloned().collect::<Vec<_>>();
        again.until(rest.len()).await.unwrap();
        assert!(known(&again.changes)[..rest.len()] == rest, "another stream from {}", from.position);
        drain(fixture, &mut again, ids).await;
        let again_written = all_written(&again.changes[rest.len()..]);
        assert!(!changes.iter().any(|(_, write, ..)| again_written.contains(write)), "a change came again");
        again
    };
    // A place that was opened or confirmed is not gone behind again.
    for (at, from) in checkpoints.iter().enumerate() {
        reads_the_rest(from, ids).await;
        let mut again = reads_the_rest(from, ids).await;
        if let Some(next) = checkpoints.get(at + 1) {
            again.source.confirm(next).await.unwrap();
        }
    }
}

/// A wait that is given up, wherever that is, loses nothing.
async fn cancellation<F: Fixture>(fixture: &F, ids: &mut Ids) {
    let mut stream = open(fixture, None).await;
    let start = stream.checkpoint.clone();
    let some = ids.many(600);
    for chunk in some.chunks(60) {
        commit(fixture, &inserts(chunk)).await;
    }
    for micros in (0u64..).step_by(10) {
        if stream.changes.len() == some.len() {
            break;
        }
        let next = tokio::time::timeout(Duration::from_micros(micros), stream.source.next()).await;
        if let Ok(batch) = next {
            stream.take(&batch.unwrap()).unwrap();
        }
    }
    drain(fixture, &mut stream, ids).await;
    assert!(all_written(&stream.changes) == inserts(&some), "other rows than were written");
    let changes = known(&stream.changes);
    drop(stream);
    let mut again = open(fixture, Some(&start)).await;
    again.until(some.len()).await.unwrap();
    assert!(known(&again.changes)[..some.len()] == changes, "another stream");
}

async fn rollback<F: Fixture>(fixture: &F, ids: &mut Ids) {
    let mut stream = open(fixture, None).await;
    let [kept, gone, other] = ids.take();
    commit(fixture, &[Write::Insert(kept)]).await;
    let mut transaction = fixture.begin().await;
    for write in [Write::Insert(gone), Write::Update(kept), Write::Delete(kept)] {
        fixture.write(&mut transaction, write).await;
    }
    fixture.roll_back(transaction).await;
    commit(fixture, &[Write::Insert(other)]).await;
    drain(fixture, &mut stream, ids).await;
    assert_eq!(all_written(&stream.changes), inserts(&[kept, other]));
    assert_eq!(sizes(&stream), [1, 1]);
}

/// Of transactions that are open at once, the one that commits first comes first, and each comes whole.
async fn concurrency<F: Fixture>(fixture: &F, ids: &mut Ids) {
    let mut stream = open(fixture, None).await;
    let [a, b, c, d, e, f] = ids.take();
    let mut first = fixture.begin().await;
    fixture.write(&mut first, Write::Insert(a)).await;
    let mut second = fixture.begin().await;
    fixture.write(&mut second, Write::Insert(b)).await;
    fixture.write(&mut first, Write::Insert(c)).await;
    commit(fixture, &[Write::Insert(d)]).await;
    fixture.write(&mut second, Write::Insert(e)).await;
    fixture.commit(second).await;
    fixture.write(&mut first, Write::Insert(f)).await;
    fixture.commit(first).await;
    drain(fixture, &mut stream, ids).await;
    assert_eq!(all_written(&stream.changes), inserts(&[d, b, e, a, c, f]));
    assert_eq!(sizes(&stream), [1, 2, 3]);
}

/// While nobody writes to its tables the stream still gets to where a reader was: a snapshot's windows close.
async fn idleness<F: Fixture>(fixture: &F, ids: &mut Ids) {
    let mut stream = open(fixture, None).await;
    let [id] = ids.take();
    commit(fixture, &[Write::Insert(id)]).await;
    stream.until(1).await.unwrap();
    fixture.write_elsewhere().await;
    let mut reader = fixture.database().reader(fixture.scope()).await.unwrap();
    let chunk = reader.read_range(&TABLE.into(), &KeyRange::default(), 1).await.unwrap();
    stream.reach(chunk.high).await.unwrap();
    assert_eq!(all_written(&stream.changes), [Write::Insert(id)]);
}

/// What the stream has returned is visible to the next read, whose position is at or behind it.
async fn visibility<F: Fixture>(fixture: &F, ids: &mut Ids) {
    let mut stream = open(fixture, None).await;
    let mut reader = fixture.database().reader(fixture.scope()).await.unwrap();
    for number in 1..=50 {
        let [id] = ids.take();
        commit(fixture, &[Write::Insert(id)]).await;
        stream.until(number).await.unwrap();
        let (position, change) = stream.changes.last().unwrap();
        let key = change.key().unwrap().unwrap();
        let found = reader.read_keys(&TABLE.into(), &[key]).await.unwrap();
        assert_eq!(found.rows.len(), 1, "a read lacks what the stream has returned");
        assert!(found.high >= *position, "{} before {position}", found.high);
    }
}

/// A position of another server is refused as a gap, at once or with the first batch.
async fn identity<F: Fixture>(fixture: &F) {
    let checkpoint = open(fixture, None).await.checkpoint;
    let foreign = Checkpoint { epoch: Epoch("1/another".to_owned()), ..checkpoint };
    let error = match Stream::open(fixture.database(), fixture.scope(), Some(&foreign)).await {
        Ok(mut stream) => stream.refusal().await.unwrap(),
        Err(error) => error,
    };
    assert_eq!(error.class(), ErrorClass::Gap, "{error}");
    assert!(error.to_string().contains(&foreign.epoch.0), "{error}");
}
