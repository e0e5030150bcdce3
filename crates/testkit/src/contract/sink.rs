//! What every [`Sink`] must do.

use crate::flush::apply_late;
use crate::memory::{Changes, MemoryError, key};
use crate::writer::{Lot, Writer, again, refused, write};
use async_trait::async_trait;
use std::future::Future;
use sync_worker_core::bus::Flush;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::record::Offset;
use sync_worker_core::sink::{Marker, ParkedKey, Parking, Refused, Sink, Write, WriteBatch};

/// The table, or collection: `id`, its key, `version` and `note`, none of them NULL. See [`Changes`].
pub const TABLE: &str = "t";

/// The version of a row that the target can be told to refuse. No two rows have the same other one: a unique index will
/// do.
pub const REFUSED: i64 = -1;

/// A target under test, with [`TABLE`] empty.
pub trait Fixture: Sync {
    /// A connection as of another worker.
    fn sink(&self) -> impl Future<Output = Box<dyn Sink>>;

    /// The rows by their keys, as others see them: id, version, note.
    fn rows(&self) -> impl Future<Output = Vec<(i64, i64, String)>> + Send;

    /// Whether the target refuses rows of the version [`REFUSED`] from now on. It does not to begin with.
    fn refuse(&self, refused: bool) -> impl Future<Output = ()>;
}

/// Runs the whole contract.
pub async fn holds<F: Fixture>(fixture: &F) {
    markers(fixture).await;
    supersession(fixture).await;
    flush(fixture).await;
    rows(fixture).await;
    collapsing(fixture).await;
    keys(fixture).await;
    refusals(fixture).await;
    full_queue(fixture).await;
    parked_keys(fixture).await;
}

async fn over<F: Fixture>(fixture: &F) -> Writer {
    Writer::over(fixture.sink().await).await.unwrap()
}

/// Applies changes of which none is refused and which need no order; returns how many rows were missing.
async fn apply(writer: &mut Writer, changes: Vec<Change>) -> u64 {
    let applied = writer.apply(changes.into_iter().map(write).collect()).await.unwrap();
    assert!(applied.refused.is_empty(), "{applied:?}");
    applied.missing
}

/// The target's rows are these; they go, for what follows.
async fn expect<F: Fixture>(fixture: &F, writer: &mut Writer, rows: &[(i64, i64, &str)]) {
    let there = fixture.rows().await;
    let there: Vec<_> = there.iter().map(|(id, version, note)| (*id, *version, note.as_str())).collect();
    assert_eq!(there, rows);
    apply(writer, there.iter().map(|(id, ..)| Changes::of(TABLE).delete(*id)).collect()).await;
    assert_eq!(fixture.rows().await, []);
}

/// Taking over returns what was left, under a newer epoch; a batch moves marker and rows together.
async fn markers<F: Fixture>(fixture: &F) {
    let t = Changes::of(TABLE);
    let mut sink = fixture.sink().await;
    let first = sink.take_over("one log").await.unwrap();
    assert_eq!((first.marker.offset, first.marker.digest, first.marker.log.as_str()), (None, 0, "one log"));
    assert_eq!(first.parked, []);
    // The log of a marker that is there stays: the engine compares it.
    let second = fixture.sink().await.take_over("another log").await.unwrap().marker;
    assert_eq!(second, Marker { epoch: second.epoch, writes: second.writes, ..first.marker.clone() });
    assert!(second.epoch > first.marker.epoch && second.writes > first.marker.writes, "{second:?}");

    let mut writer = over(fixture).await;
    apply(&mut writer, vec![t.create(1, 10, "a"), t.create(2, 20, "b")]).await;
    let left = writer.marker.clone();
    assert_eq!(left.offset, Some(Offset(2)));
    // The same connection, as after an error, and another one.
    for taken in [writer.sink.take_over("x").await.unwrap().marker, over(fixture).await.marker] {
        assert_eq!(taken, Marker { epoch: taken.epoch, writes: taken.writes, ..left.clone() });
        assert!(taken.epoch > left.epoch && taken.writes > left.writes, "{taken:?}");
    }
    // Markers move without rows, too, and back: a log that was lost begins again.
    let mut writer = over(fixture).await;
    apply(&mut writer, vec![]).await;
    let mut batch = writer.batch(vec![]);
    batch.marker = Marker { offset: None, log: "new log".into(), digest: 0, ..batch.marker };
    writer.try_apply(&batch, &Lot::default()).await.unwrap();
    let taken = over(fixture).await.marker;
    assert_eq!((taken.offset, taken.log.as_str(), taken.digest), (None, "new log", 0));
    expect(fixture, &mut over(fixture).await, &[(1, 10, "a"), (2, 20, "b")]).await;
}

/// Nothing is committed before its records are durable on the bus, on none of the ways that a batch may take; where they
/// are lost, nothing ever is.
async fn flush<F: Fixture>(fixture: &F) {
    let t = Changes::of(TABLE);
    fixture.refuse(true).await;
    let ways = [
        vec![write(t.create(1, 10, "late"))],
        vec![write(t.create(1, 10, "late")), write(t.update(2, 20, None))],
        vec![write(t.create(1, 10, "late")), write(t.create(2, REFUSED, "refused"))],
    ];
    for (way, writes) in ways.into_iter().enumerate() {
        for durable in [false, true] {
            let mut writer = over(fixture).await;
            let batch = writer.batch(writes.clone());
            let look = async { assert_eq!(fixture.rows().await, [], "way {way}") };
            let applied = apply_late(&mut *writer.sink, &batch, durable, look).await;
            let lost = applied.err().map(|error| error.class());
            assert_eq!(lost, (!durable).then_some(ErrorClass::Transient), "way {way}");
            let mut writer = over(fixture).await;
            assert_eq!(writer.marker.offset == batch.marker.offset, durable, "way {way}");
            let there = fixture.rows().await;
            assert_eq!(there.is_empty(), !durable, "way {way}");
            apply(&mut writer, there.iter().map(|(id, ..)| t.delete(*id)).collect()).await;
            let mut batch = writer.batch(vec![]);
            batch.unpark = writer.parked.iter().map(|parked| (parked.table.clone(), parked.key.clone())).collect();
            writer.try_apply(&batch, &Lot::default()).await.unwrap();
        }
    }
    fixture.refuse(false).await;
}

/// From any other marker than the one it expects a sink writes nothing, and knows that it was superseded.
async fn supersession<F: Fixture>(fixture: &F) {
    let t = Changes::of(TABLE);
    let superseded = async |writer: &mut Writer, name: &str| {
        let batch = writer.batch(vec![write(t.create(1, 10, "stale"))]);
        let error = writer.try_apply(&batch, &Lot::default()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Superseded, "{name}: {error}");
        assert_eq!(fixture.rows().await, [], "{name}");
    };
    type Change = fn(&mut Marker);
    let stale: [(&str, Change); 7] = [
        ("before the first record", |marker| marker.offset = None),
        ("an older offset", |marker| marker.offset = Some(Offset(0))),
        ("a newer offset", |marker| marker.offset = Some(Offset(900))),
        ("another log", |marker| marker.log = "other".into()),
        ("an older epoch", |marker| marker.epoch -= 1),
        ("a newer epoch", |marker| marker.epoch += 1),
        ("fewer transactions", |marker| marker.writes -= 1),
    ];
    for (name, change) in stale {
        let mut writer = over(fixture).await;
        apply(&mut writer, vec![]).await;
        let right = writer.marker.clone();
        change(&mut writer.marker);
        superseded(&mut writer, name).await;
        let taken = over(fixture).await.marker;
        assert_eq!(taken, Marker { epoch: taken.epoch, writes: taken.writes, ..right }, "{name}");
    }
    // Two workers believe in the same target: the one that came last is right, whoever writes first.
    for old_first in [true, false] {
        let mut old = over(fixture).await;
        apply(&mut old, vec![]).await;
        let mut new = over(fixture).await;
        if !old_first {
            apply(&mut new, vec![]).await;
        }
        superseded(&mut old, "an older worker").await;
        apply(&mut new, vec![t.create(2, 20, "new")]).await;
        expect(fixture, &mut new, &[(2, 20, "new")]).await;
    }
}

/// What becomes of rows that are there, and of those that are not.
async fn rows<F: Fixture>(fixture: &F) {
    let t = Changes::of(TABLE);
    let read = |id, version, note| Change { op: Op::Read, ..t.create(id, version, note) };
    let mut writer = over(fixture).await;
    apply(&mut writer, vec![t.create(1, 10, "a"), t.create(2, 20, "it's \\ \"b\"\u{1F40E}"), t.create(3, 30, "")])
        .await;
    // A part of a row leaves the rest of it alone.
    apply(&mut writer, vec![t.update(1, 11, Some("c")), t.update(2, 21, None), t.delete(3), t.create(4, 40, "d")])
        .await;
    expect(fixture, &mut writer, &[(1, 11, "c"), (2, 21, "it's \\ \"b\"\u{1F40E}"), (4, 40, "d")]).await;

    // A row that is there is overwritten, by a snapshot's as well.
    apply(&mut writer, vec![t.create(1, 10, "theirs"), t.create(2, 20, "theirs")]).await;
    let missing = apply(&mut writer, vec![t.create(1, 11, "ours"), read(2, 21, "ours"), read(3, 31, "ours")]).await;
    assert_eq!(missing, 0);
    expect(fixture, &mut writer, &[(1, 11, "ours"), (2, 21, "ours"), (3, 31, "ours")]).await;

    // One that is not there is made of a whole image, and counted.
    apply(&mut writer, vec![t.create(1, 10, "a")]).await;
    let changes = vec![t.update(1, 11, Some("b")), t.update(2, 21, Some("b")), t.delete(3), t.update(4, 41, Some("d"))];
    assert_eq!(apply(&mut writer, changes).await, 3);
    assert_eq!(apply(&mut writer, vec![t.delete(1)]).await, 0);
    expect(fixture, &mut writer, &[(2, 21, "b"), (4, 41, "d")]).await;

    // More than a statement or two.
    let many = |offset: i64| move |id: i64| (id, id + offset, "x");
    for offset in [10_000, 20_000] {
        let changes = (1..=2_500).map(many(offset)).map(|(id, version, note)| t.create(id, version, note));
        apply(&mut writer, changes.collect()).await;
    }
    apply(&mut writer, (1..=2_500).filter(|id| id % 5 != 0).map(|id| t.delete(id)).collect()).await;
    let left: Vec<_> = (1..=2_500).filter(|id| id % 5 == 0).map(many(20_000)).collect();
    expect(fixture, &mut writer, &left).await;
}

/// Of several changes of a key the last one counts, made of all of them.
async fn collapsing<F: Fixture>(fixture: &F) {
    let t = Changes::of(TABLE);
    let mut writer = over(fixture).await;
    apply(&mut writer, (1..=3).map(|id| t.create(id, id * 10, "kept")).collect()).await;
    let changes = vec![
        t.update(1, 11, None),
        t.update(1, 12, None),
        t.delete(2),
        t.create(2, 21, "again"),
        t.update(3, 31, Some("x")),
        t.delete(3),
        t.create(4, 40, "never"),
        t.delete(4),
        t.create(5, 50, "first"),
        t.update(5, 51, None),
        t.create(6, 60, "a"),
        t.delete(6),
        t.create(6, 61, "b"),
        t.create(7, 70, "c"),
        t.update(7, 71, Some("d")),
        t.update(7, 72, None),
    ];
    let applied = writer.apply(changes.into_iter().map(write).collect()).await.unwrap();
    assert!(applied.refused.is_empty(), "{applied:?}");
    assert_eq!((applied.rows, applied.missing), (7, 0), "one row for each key");
    let expected = [(1, 12, "kept"), (2, 21, "again"), (5, 51, "first"), (6, 61, "b"), (7, 72, "d")];
    expect(fixture, &mut writer, &expected).await;
}

/// Keys that change, and tables that are emptied, at their place in the order.
async fn keys<F: Fixture>(fixture: &F) {
    let t = Changes::of(TABLE);
    let mut writer = over(fixture).await;
    apply(&mut writer, (1..=3).map(|id| t.create(id, id * 10, &format!("n{id}"))).collect()).await;
    let changes = vec![
        t.update(1, 11, Some("one")),
        // 1 and 2 change places by way of 10.
        t.rename(1, 10, 12, None),
        t.rename(2, 1, 21, None),
        t.rename(10, 2, 13, None),
        t.update(2, 14, None),
        t.rename(3, 4, 31, None),
        t.create(3, 32, "new"),
    ];
    assert_eq!(apply(&mut writer, changes).await, 0);
    expect(fixture, &mut writer, &[(1, 21, "n2"), (2, 14, "one"), (3, 32, "new"), (4, 31, "n3")]).await;
    // Its row was never copied: a whole image makes it, a part of it waits.
    let applied = writer.apply(vec![write(t.rename(7, 8, 80, Some("eight")))]).await.unwrap();
    assert_eq!((applied.missing, applied.refused.len()), (1, 0), "{applied:?}");
    let applied = writer.apply(vec![write(t.rename(6, 5, 50, None))]).await.unwrap();
    assert_eq!(refused(&applied.refused), [(0, ErrorClass::Dependency)]);
    // Its new key was copied before the change came.
    apply(&mut writer, vec![t.create(1, 10, "stale"), t.create(2, 20, "copied")]).await;
    let applied = writer.apply(vec![write(t.rename(1, 2, 21, Some("two")))]).await.unwrap();
    assert_eq!(applied.refused.len(), 0, "{applied:?}");
    expect(fixture, &mut writer, &[(2, 21, "two"), (8, 80, "eight")]).await;
    let changes = vec![t.create(1, 10, "a"), t.truncate(), t.create(2, 20, "b"), t.create(3, 30, "c"), t.delete(3)];
    apply(&mut writer, changes).await;
    expect(fixture, &mut writer, &[(2, 20, "b")]).await;
}

/// Looks at the target when it is asked to park, and takes it.
struct Witness<'a, F> {
    fixture: &'a F,
    lot: Lot,
    /// The rows before the batch.
    before: Vec<(i64, i64, String)>,
}

#[async_trait]
impl<F: Fixture> Parking for Witness<'_, F> {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, batch: &WriteBatch, refused: &[Refused]) -> Result<()> {
        assert_eq!(self.fixture.rows().await, self.before, "rows were visible before the queue had the refused ones");
        self.lot.park(batch, refused).await
    }
}

/// Applies writes; what the target refuses is in the queue before anything is visible. Returns the refused writes.
async fn park<F: Fixture>(fixture: &F, writer: &mut Writer, batch: &WriteBatch) -> Vec<usize> {
    let witness = Witness { fixture, lot: Lot::default(), before: fixture.rows().await };
    let applied = writer.try_apply(batch, &witness).await.unwrap();
    let essence = |refused: &[Refused]| -> Vec<_> {
        refused.iter().map(|one| (one.write, one.class, one.reason.clone())).collect()
    };
    let calls = witness.lot.0.into_inner().unwrap();
    assert_eq!(calls.last().map(|last| essence(last)).unwrap_or_default(), essence(&applied.refused));
    for one in &applied.refused {
        assert!(matches!(one.class, ErrorClass::Dependency | ErrorClass::Poison), "{one:?}");
        // invariant 11
        assert!(!one.reason.is_empty() && !one.reason.contains("secret"), "{one:?}");
    }
    applied.refused.iter().map(|one| one.write).collect()
}

/// What a take-over returns: key and offset of each parked row.
async fn parked<F: Fixture>(fixture: &F) -> Vec<(i64, u64)> {
    let of = |parked: &ParkedKey| {
        let id = (0..100).find(|id| key(*id) == parked.key).expect("a key of this table");
        assert_eq!(parked.table.as_str(), TABLE);
        assert!(!parked.reason.contains("secret"), "{}", parked.reason);
        (id, parked.offset.0)
    };
    let mut parked: Vec<_> = over(fixture).await.parked.iter().map(of).collect();
    parked.sort_unstable();
    parked
}

/// Only what is refused is parked; everything else of the batch is written with the marker.
async fn refusals<F: Fixture>(fixture: &F) {
    let t = Changes::of(TABLE);
    fixture.refuse(true).await;
    let mut writer = over(fixture).await;
    apply(&mut writer, vec![t.create(1, 10, "a"), t.create(2, 20, "b")]).await;
    let changes = vec![
        t.update(1, 11, None),
        t.create(3, REFUSED, "secret"),
        t.create(4, 40, "d"),
        // A row that is there keeps what it had.
        t.update(2, REFUSED, Some("secret")),
        // Only a part of it is known.
        t.update(5, 50, None),
        // Refused, mended by the next change with what was refused.
        t.create(6, REFUSED, "f"),
        t.update(6, 60, None),
        // Refused until the end: the newest write is named.
        t.create(7, REFUSED, "secret"),
        t.update(7, REFUSED, Some("secret, too")),
        // Refused, then gone.
        t.create(8, REFUSED, "secret"),
        t.delete(8),
    ];
    let batch = writer.batch(changes.into_iter().map(write).collect());
    let at = |write: usize| batch.writes[write].offset.0;
    assert_eq!(park(fixture, &mut writer, &batch).await, [1, 3, 4, 8]);
    assert_eq!(parked(fixture).await, [(2, at(3)), (3, at(1)), (5, at(4)), (7, at(8))]);
    let mut writer = over(fixture).await;
    assert_eq!(writer.marker.offset, batch.marker.offset);
    let expected = [(1, 11, "a"), (2, 20, "b"), (4, 40, "d"), (6, 60, "f")];
    expect(fixture, &mut writer, &expected).await;
    // A table that is emptied lacks nothing.
    assert_eq!(parked(fixture).await.len(), 4);
    apply(&mut over(fixture).await, vec![t.truncate()]).await;
    assert_eq!(parked(fixture).await, []);
    fixture.refuse(false).await;
}

/// A queue without room.
struct Full;

#[async_trait]
impl Parking for Full {
    fn pending(&self, _: &WriteBatch) -> Option<Flush> {
        None
    }

    async fn park(&self, _: &WriteBatch, _: &[Refused]) -> Result<()> {
        Err(MemoryError::new(ErrorClass::Transient, "the queue is full").into())
    }
}

/// What the queue does not take is not committed.
async fn full_queue<F: Fixture>(fixture: &F) {
    let t = Changes::of(TABLE);
    fixture.refuse(true).await;
    let mut writer = over(fixture).await;
    let changes = || vec![write(t.create(1, 10, "a")), write(t.create(2, REFUSED, "b")), write(t.delete(3))];
    let batch = writer.batch(changes());
    let error = writer.try_apply(&batch, &Full).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert_eq!(fixture.rows().await, []);
    assert_eq!(parked(fixture).await, []);
    let mut writer = over(fixture).await;
    assert_eq!(writer.marker.offset, batch.expected.offset);
    // The queue has room again.
    let batch = writer.batch(changes());
    assert_eq!(park(fixture, &mut writer, &batch).await, [1]);
    let applied = over(fixture).await.apply(vec![again(t.delete(2))]).await.unwrap();
    assert_eq!((applied.refused.len(), parked(fixture).await.len()), (0, 0));
    fixture.refuse(false).await;
    expect(fixture, &mut over(fixture).await, &[(1, 10, "a")]).await;
}

/// A parked key stays with the target until a newer version is written, or it is dropped.
async fn parked_keys<F: Fixture>(fixture: &F) {
    let t = Changes::of(TABLE);
    fixture.refuse(true).await;
    let mut writer = over(fixture).await;
    let batch = writer.batch((1..=6).map(|id| write(t.create(id, REFUSED, "secret"))).collect());
    let first = batch.writes[0].offset.0;
    assert_eq!(park(fixture, &mut writer, &batch).await, [0, 1, 2, 3, 4, 5]);
    let waiting = |ids: &[i64]| ids.iter().map(|id| (*id, first + id.unsigned_abs() - 1)).collect::<Vec<_>>();
    assert_eq!(parked(fixture).await, waiting(&[1, 2, 3, 4, 5, 6]));

    let mut writer = over(fixture).await;
    let mut batch = writer.batch(vec![
        again(t.update(1, 10, Some("one"))),
        again(t.delete(2)),
        // Still refused: the newer version waits now.
        again(t.create(3, REFUSED, "newer")),
        // Another row's.
        write(t.create(9, 90, "nine")),
    ]);
    // Dropped by a person; one of them was not there.
    batch.unpark = vec![(t.0.table.clone(), key(4)), (t.0.table.clone(), key(77))];
    let newer = batch.writes[2].offset.0;
    assert_eq!(park(fixture, &mut writer, &batch).await, [2]);
    assert_eq!(parked(fixture).await, [vec![(3, newer)], waiting(&[5, 6])].concat());

    // A retry: the marker stays where it is, the version's offset is its own.
    fixture.refuse(false).await;
    let mut writer = over(fixture).await;
    let mut batch = writer.batch(vec![again(t.create(5, REFUSED, "five"))]);
    batch.writes[0] = Write { offset: Offset(first + 4), ..batch.writes[0].clone() };
    batch.marker.offset = batch.expected.offset;
    assert_eq!(park(fixture, &mut writer, &batch).await, [0_usize; 0]);
    assert_eq!(parked(fixture).await, [vec![(3, newer)], waiting(&[6])].concat());
    // By a change of its key.
    let mut writer = over(fixture).await;
    assert_eq!(writer.apply(vec![again(t.rename(9, 6, 91, None))]).await.unwrap().refused.len(), 0);
    assert_eq!(parked(fixture).await, [(3, newer)]);
    let mut writer = over(fixture).await;
    let mut batch = writer.batch(vec![]);
    batch.unpark = vec![(t.0.table.clone(), key(3))];
    writer.try_apply(&batch, &Lot::default()).await.unwrap();
    assert_eq!(parked(fixture).await, []);
    expect(fixture, &mut over(fixture).await, &[(1, 10, "one"), (5, REFUSED, "five"), (6, 91, "nine")]).await;
}
