//! From records to batches of whole transactions.

use crate::failure::EngineError;
use crate::metrics::ApplyMetrics;
use crate::resolve::checkpoint;
use crate::resolve::key::{RowKey, RowMap};
use crate::resolve::stage::{Asked, Stage, Task};
use crate::resolve::version::Expectations;
use crate::sequence::{Sequence, Verdict};
use hashbrown::HashTable;
use std::collections::HashSet;
use std::time::Duration;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::logical::key_only;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::{Body, Delivered, Offset, Record};
use sync_worker_core::row::Row;
use sync_worker_core::sink::Write;
use sync_worker_core::store::Name;

/// How much one transaction at a target may hold.
#[derive(Clone, Debug)]
pub struct BatchLimits {
    /// A batch of several source transactions ends at the first that reaches one of these.
    pub batch_rows: usize,
    pub batch_bytes: usize,
    /// A single source transaction above one of these is applied in parts.
    pub transaction_rows: usize,
    pub transaction_bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { batch_rows: 20_000, batch_bytes: 8 << 20, transaction_rows: 100_000, transaction_bytes: 32 << 20 }
    }
}

/// Rows of the first batches: a target that has just come back shows soon that it goes on.
const FIRST_PACE: usize = 2_000;

/// A target that takes a batch sooner than the one gets more rows in the next, one that needs longer than the other gets
/// fewer: long transactions hold locks, and what they write is seen late.
const BRISK: Duration = Duration::from_millis(250);
const SLUGGISH: Duration = Duration::from_secs(1);

/// Writes that belong into one transaction at the target.
#[derive(Debug)]
pub struct Batch {
    pub writes: Vec<Write>,
    /// Two-way: for each write what it may be written over, and keys whose parked version has been superseded. Each key
    /// occurs once.
    pub over: Vec<Expectations>,
    pub keep: Vec<Name>,
    /// Of the writes, rows that are copied while all members' rows are.
    pub copied: Vec<usize>,
    /// The last record that the batch covers, and its digest.
    pub offset: Offset,
    pub digest: u64,
    /// The commit times of the source transactions that end in it, snapshot rows aside.
    pub commit_times: Vec<i64>,
    /// It ends inside a source transaction that is above the limit.
    pub split: bool,
}

/// What of a batch is left once each key occurs once.
struct Newest {
    writes: Vec<Write>,
    over: Vec<Expectations>,
    keep: Vec<Name>,
    copied: Vec<usize>,
}

pub struct Assembler {
    limits: BatchLimits,
    sequence: Sequence,
    metrics: ApplyMetrics,
    /// Two-way: turns records into writes.
    stage: Option<Stage>,
    /// The tables whose changes are taken, all without them, and others that have come up. Two-way, the stage knows.
    tables: Option<HashSet<TableName>>,
    left_out: HashSet<TableName>,
    /// Two-way: records of a transaction whose end is still to come. The stage takes whole transactions, so that its state
    /// is one between two of them.
    waiting: Vec<(Offset, Record)>,
    waiting_bytes: usize,
    /// Members whose transaction is still open: records of several stand between each other.
    open: Vec<DatabaseName>,
    /// Two-way: one for each of the writes.
    asked: Vec<Asked>,
    /// Behind how many of the writes.
    keep: Vec<(usize, RowKey)>,
    writes: Vec<Write>,
    commit_times: Vec<i64>,
    /// Bytes of the rows in `writes`.
    bytes: usize,
    /// The last record taken.
    last: Option<(Offset, u64)>,
    /// How many of the writes, and how many of their bytes, belong to transactions whose end has been seen.
    complete: usize,
    complete_bytes: usize,
    /// The record that ended the last of them.
    end: Option<(Offset, u64)>,
    /// How many rows the target takes in good time.
    pace: usize,
    /// Made before it was asked for.
    ready: Option<Batch>,
}

impl Assembler {
    /// `pace`: of an earlier session.
    pub fn new(
        limits: BatchLimits,
        sequence: Sequence,
        metrics: ApplyMetrics,
        stage: Option<Stage>,
        pace: Option<usize>,
    ) -> Self {
        Self {
            limits,
            sequence,
            metrics,
            stage,
            tables: None,
            left_out: HashSet::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            open: Vec::new(),
            asked: Vec::new(),
            keep: Vec::new(),
            writes: Vec::new(),
            commit_times: Vec::new(),
            bytes: 0,
            last: None,
            complete: 0,
            complete_bytes: 0,
            end: None,
            pace: pace.unwrap_or(FIRST_PACE),
            ready: None,
        }
    }

    /// Leaves out changes of other tables than these.
    pub fn of_tables(self, tables: HashSet<TableName>) -> Self {
        Self { tables: Some(tables), ..self }
    }

    /// The pace that the next session begins with.
    pub fn pace_after(&self, failed: bool) -> usize {
        if failed { (self.pace.min(FIRST_PACE) / 2).max(1) } else { self.pace }
    }

    pub fn push_all(&mut self, records: Vec<Delivered>) -> Result<(), EngineError> {
        records.into_iter().try_for_each(|delivered| self.push(delivered))
    }

    pub fn push(&mut self, delivered: Delivered) -> Result<(), EngineError> {
        let digest = if delivered.record.last { delivered.digest() } else { 0 };
        let Delivered { offset, record, bytes } = delivered;
        // A schema record belongs to no transaction and moves no position.
        if let Body::Schema(_) = record.body {
            return Ok(());
        }
        if self.sequence.check(&record)? == Verdict::Duplicate {
            self.metrics.duplicates.inc();
            return Ok(());
        }
        let (mut last, commit_time) = (record.last, record.commit_time);
        let mut timed = true;
        if self.stage.is_some() {
            timed = matches!(&record.body, Body::Change(change) if change.op != Op::Read);
            if last && timed {
                self.commit_times.push(commit_time);
            }
            // What the stage has not taken yet is not covered by anything.
            let Some(between) = self.resolve(offset, record, bytes.len())? else { return Ok(()) };
            (last, timed) = (between, false);
        } else if let Body::Change(change) = record.body {
            timed = change.op != Op::Read;
            if self.takes(change.table()) {
                self.bytes += change.size();
                self.writes.push(Write { change, offset, parked: false, over: None });
            }
        }
        if last {
            self.complete = self.writes.len();
            self.complete_bytes = self.bytes;
            self.end = Some((offset, digest));
            if timed {
                self.commit_times.push(commit_time);
            }
        }
        // Only a transaction that is cut inside needs the digest of a record that does not end one.
        let cut = !last && (self.stage.is_some() || self.open_is_over_limit());
        self.last = Some((offset, if cut { xxhash(&bytes) } else { digest }));
        Ok(())
    }

    /// Whether a table is one of the pipeline's; its changes may be on the log since before it left.
    fn takes(&mut self, table: &TableName) -> bool {
        let takes = self.tables.as_ref().is_none_or(|tables| tables.contains(table));
        if !takes && !self.left_out.contains(table) {
            self.left_out.insert(table.clone());
            tracing::warn!(%table, "the log holds changes of a table that has left the pipeline; they are left out");
        }
        takes
    }

    /// Hands whole transactions to the stage, and one that is above the limit in parts. Whether the log is between
    /// transactions there; None where the record waits.
    fn resolve(&mut self, offset: Offset, record: Record, bytes: usize) -> Result<Option<bool>, EngineError> {
        let Some(stage) = &mut self.stage else { return Ok(None) };
        self.open.retain(|origin| *origin != record.origin);
        if !record.last {
            self.open.push(record.origin.clone());
        }
        let between = self.open.is_empty();
        self.waiting.push((offset, record));
        self.waiting_bytes += bytes;
        let large =
            self.waiting.len() >= self.limits.transaction_rows || self.waiting_bytes >= self.limits.transaction_bytes;
        if !between && !large {
            return Ok(None);
        }
        self.waiting_bytes = 0;
        for (offset, record) in self.waiting.drain(..) {
            stage.take(offset, record)?;
        }
        for task in stage.take_tasks() {
            match task {
                Task::Write(write, asked) => {
                    // What a version was written over takes room, too, but counted it would make batches half as large.
                    let row = write.change.after.as_ref().or(write.change.before.as_ref());
                    self.bytes += row.map_or(0, |row| row.as_bytes().len());
                    self.writes.push(write);
                    self.asked.push(asked);
                }
                Task::Keep(key) => self.keep.push((self.writes.len(), key)),
            }
        }
        Ok(Some(between))
    }

    pub fn stage(&mut self) -> Option<&mut Stage> {
        self.stage.as_mut()
    }

    /// Two-way, the stage's state, if everything that it has taken has been handed out: a checkpoint says what a target has
    /// been sent. Records that wait for the end of their transaction are to be read again.
    pub fn state(&mut self) -> Result<Option<(Offset, bytes::Bytes)>, EngineError> {
        let clean = self.writes.is_empty() && self.keep.is_empty() && self.ready.is_none();
        let (Some(stage), Some((offset, _))) = (&mut self.stage, self.last.filter(|_| clean)) else { return Ok(None) };
        let mut sequence = self.sequence.clone();
        self.waiting.iter().rev().for_each(|(_, record)| sequence.take_back(record));
        Ok(checkpoint::encode(stage, &sequence)?.map(|state| (offset, state)))
    }

    /// There is enough for a batch: do not wait for more.
    pub fn is_full(&self) -> bool {
        self.ready.is_some()
            || self.complete >= self.limits.batch_rows.min(self.pace)
            || self.complete_bytes >= self.limits.batch_bytes
            || self.stage.as_ref().is_some_and(|stage| {
                stage.conflicts() >= self.limits.batch_rows || stage.conflict_bytes() >= self.limits.batch_bytes
            })
            || self.open_is_over_limit()
    }

    /// Makes the next batch of what is there, if that is enough for one.
    pub fn make_ready(&mut self) {
        if self.ready.is_none() && self.is_full() {
            self.ready = self.take();
        }
    }

    /// Every complete transaction, or, where none is and the open one is above the limit, a part of that.
    pub fn take(&mut self) -> Option<Batch> {
        if let Some(ready) = self.ready.take() {
            return Some(ready);
        }
        // A transaction may end without a write left: the marker moves over its end all the same.
        if let Some((offset, digest)) = self.end.take() {
            let rest = self.writes.split_off(self.complete);
            let writes = std::mem::replace(&mut self.writes, rest);
            self.bytes -= self.complete_bytes;
            (self.complete, self.complete_bytes) = (0, 0);
            let commit_times = std::mem::take(&mut self.commit_times);
            let Newest { writes, over, keep, copied } = self.newest(writes);
            return Some(Batch { writes, over, keep, copied, offset, digest, commit_times, split: false });
        }
        if self.open_is_over_limit() {
            let (offset, digest) = self.last?;
            let writes = std::mem::take(&mut self.writes);
            self.bytes = 0;
            let Newest { writes, over, keep, copied } = self.newest(writes);
            return Some(Batch { writes, over, keep, copied, offset, digest, commit_times: Vec::new(), split: true });
        }
        None
    }

    /// Two-way, of each key the newest only: what it may be written over says all that older ones would have left.
    fn newest(&mut self, mut writes: Vec<Write>) -> Newest {
        if self.stage.is_none() {
            return Newest { writes, over: Vec::new(), keep: Vec::new(), copied: Vec::new() };
        }
        let rest = self.asked.split_off(writes.len());
        let asked = std::mem::replace(&mut self.asked, rest);
        let kept = self.keep.iter().take_while(|(behind, _)| *behind <= writes.len()).count();
        let keep = self.keep.drain(..kept).collect::<Vec<_>>().into_iter();
        self.keep.iter_mut().for_each(|(behind, _)| *behind -= writes.len());
        let mut superseded = RowMap::default();
        superseded.extend(keep.map(|(behind, key)| (key, behind)));
        // The last write of each key, and the first behind which it was not superseded.
        let mut newest: HashTable<(usize, usize)> = HashTable::with_capacity(writes.len());
        let hash = |(place, _): &(usize, usize)| asked[*place].key.hash();
        for (place, one) in asked.iter().enumerate() {
            let same = |(other, _): &(usize, usize)| asked[*other].key == one.key;
            let mut entry = newest.entry(one.key.hash(), same, hash).or_insert((place, place));
            let (first, last) = entry.get_mut();
            if superseded.get(&one.key).is_some_and(|behind| (*first + 1..=place).contains(behind)) {
                *first = place;
            }
            *last = place;
        }
        for (first, last) in newest.iter().filter(|(first, last)| first < last) {
            writes[*last].change.before = before_all(&writes[*first].change, &writes[*last].change, &asked[*last].key);
        }
        let lasts = |place: usize, one: &Asked| {
            let is_superseded = superseded.get(&one.key).is_some_and(|behind| *behind > place);
            !is_superseded && newest.find(one.key.hash(), |(_, last)| *last == place).is_some()
        };
        let lasts: Vec<bool> = asked.iter().enumerate().map(|(place, one)| lasts(place, one)).collect();
        let (mut taken, mut over) = (Vec::with_capacity(newest.len()), Vec::with_capacity(newest.len()));
        let mut copied = Vec::new();
        for ((write, mut one), lasts) in writes.into_iter().zip(asked).zip(lasts) {
            if !lasts {
                continue;
            }
            superseded.remove(&one.key);
            if let Some(stage) = &mut self.stage {
                stage.hand_out(&mut one);
            }
            copied.extend(one.copied.then_some(taken.len()));
            taken.push(write);
            over.push(one.over);
        }
        let keep = superseded.into_keys().map(|key| (key.table, key.key)).collect();
        Newest { writes: taken, over, keep, copied }
    }

    /// Learns from how long the target took for a batch of `rows` rows.
    pub fn took(&mut self, rows: usize, time: Duration) {
        if time > SLUGGISH {
            self.pace = (rows.min(self.pace) / 2).max(1);
        } else if time < BRISK && rows >= self.pace {
            self.pace = self.pace.saturating_mul(2).min(self.limits.batch_rows);
        }
    }

    fn open_is_over_limit(&self) -> bool {
        self.writes.len() - self.complete >= self.limits.transaction_rows
            || self.bytes - self.complete_bytes >= self.limits.transaction_bytes
    }
}

/// What the target has before the newest of several writes of a key: it has seen none of the others. Of a delete at least the
/// key.
fn before_all(first: &Change, last: &Change, key: &RowKey) -> Option<Row> {
    let before = first.before.clone().filter(|_| first.schema.id == last.schema.id);
    match (&last.after, before) {
        (None, None) => key_only(&last.schema, &key.key).ok(),
        (_, before) => before,
    }
}

fn xxhash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::resolve::stage::tests::{row, rules};
    use bytes::Bytes;
    use std::sync::Arc;
    use sync_worker_core::record::{Partition, Record};
    use sync_worker_core::row::RowBuilder;
    use sync_worker_core::rules::TwoWay as Rules;
    use sync_worker_core::schema::{Column, Schema};
    use sync_worker_core::types::{ColumnType, Engine};
    use sync_worker_core::value::{Cell, Value};

    fn assembler(transaction_rows: usize) -> Assembler {
        let limits = BatchLimits { transaction_rows, ..BatchLimits::default() };
        Assembler::new(limits, Sequence::default(), Metrics::new().unwrap().apply("p", "d"), None, None)
    }

    fn delivered(offset: u64, last: bool) -> Delivered {
        let kind = ColumnType::Int { bits: 64, unsigned: false };
        let column = Column { name: "id".into(), kind, type_name: "bigint".into(), nullable: false, generated: false };
        let schema = Arc::new(Schema::new("t".into(), Engine::Postgres, vec![column], vec![0]));
        let mut builder = RowBuilder::default();
        builder.push(Cell::Present(Value::Int(offset as i64)));
        let change = Change { schema, op: Op::Create, before: None, after: Some(builder.finish()) };
        let record = Record {
            origin: "crm".into(),
            position: format!("0/10+{offset}").parse().unwrap(),
            previous: offset.checked_sub(1).map(|before| format!("0/10+{before}").parse().unwrap()),
            transaction: None,
            last,
            commit_time: 0,
            body: Body::Change(change),
        };
        Delivered { offset: Offset(offset), record, bytes: Bytes::from(offset.to_string()) }
    }

    /// Of the applier of `shop`, with rows (id, v) that `crm` writes.
    struct TwoWay {
        assembler: Assembler,
        schema: Arc<Schema>,
        next: u64,
    }

    impl TwoWay {
        fn new() -> Self {
            let (schema, rules) = rules(["crm", "shop"]);
            let mut stage = Stage::new("p".into(), Partition(0), "shop".into(), None);
            stage.take(Offset(0), Record::of_nobody(0, Body::Configuration(Arc::new(rules)))).unwrap();
            let metrics = Metrics::new().unwrap().apply("p", "shop");
            let limits = BatchLimits::default();
            let assembler = Assembler::new(limits, Sequence::default(), metrics, Some(stage), None);
            Self { assembler, schema, next: 1 }
        }

        /// A change of row 1 by `crm`.
        fn change(&mut self, before: Option<i64>, after: Option<i64>) {
            let row = |v: i64| row(1, v);
            let op = match (before, after) {
                (None, _) => Op::Create,
                (Some(_), Some(_)) => Op::Update,
                (Some(_), None) => Op::Delete,
            };
            let change = Change { schema: self.schema.clone(), op, before: before.map(row), after: after.map(row) };
            let mut delivered = delivered(self.next, true);
            delivered.record.previous = (self.next > 1).then(|| format!("0/10+{}", self.next - 1).parse().unwrap());
            delivered.record.body = Body::Change(change);
            self.assembler.push(delivered).unwrap();
            self.next += 1;
        }

        /// Of the one write of the batch: the value before it as far as that is known, and after it.
        fn written(&mut self) -> (Option<i64>, Option<i64>) {
            let batch = self.assembler.take().unwrap();
            let [write] = &batch.writes[..] else { panic!("{batch:?}") };
            let value = |row: &Option<Row>| match row.as_ref()?.cells().nth(1) {
                Some(Ok(Cell::Present(Value::Int(value)))) => Some(value),
                Some(Ok(Cell::Unchanged)) => None,
                other => panic!("{other:?}"),
            };
            (value(&write.change.before), value(&write.change.after))
        }
    }

    #[test]
    fn a_write_has_the_row_that_the_target_had_before_all_of_its_batch() {
        let mut bus = TwoWay::new();
        bus.change(Some(1), Some(2));
        assert_eq!(bus.written(), (Some(1), Some(2)));
        bus.change(Some(2), Some(3));
        bus.change(Some(3), Some(4));
        assert_eq!(bus.written(), (Some(2), Some(4)));
        bus.change(Some(4), Some(5));
        bus.change(Some(5), None);
        assert_eq!(bus.written(), (Some(4), None));
        // There was no row.
        bus.change(None, Some(6));
        bus.change(Some(6), Some(7));
        assert_eq!(bus.written(), (None, Some(7)));
        let mut bus = TwoWay::new();
        bus.change(None, Some(1));
        bus.change(Some(1), None);
        assert_eq!(bus.written(), (None, None));
    }

    #[test]
    fn a_batch_holds_whole_transactions_only() {
        let mut assembler = assembler(100);
        for (offset, last) in [(0, true), (1, false), (2, true), (3, false)] {
            assembler.push(delivered(offset, last)).unwrap();
        }
        let batch = assembler.take().unwrap();
        assert_eq!((batch.writes.len(), batch.offset, batch.split), (3, Offset(2), false));
        assert!(assembler.take().is_none());
        assembler.push(delivered(4, true)).unwrap();
        assert_eq!(assembler.take().unwrap().writes.len(), 2);
    }

    #[test]
    fn a_transaction_above_the_limit_comes_in_parts_with_the_digest_of_their_last_record() {
        let mut assembler = assembler(3);
        for offset in 0..4 {
            assembler.push(delivered(offset, false)).unwrap();
            if let Some(part) = assembler.take() {
                assert_eq!((part.writes.len(), part.offset, part.split), (3, Offset(2), true));
                assert_eq!(part.digest, xxhash(b"2"));
            }
        }
        assembler.push(delivered(4, true)).unwrap();
        let rest = assembler.take().unwrap();
        assert_eq!((rest.writes.len(), rest.offset, rest.split), (2, Offset(4), false));
    }

    #[test]
    fn batches_grow_while_the_target_is_brisk_and_shrink_when_it_is_not() {
        let mut assembler = assembler(3);
        let brisk = Duration::from_millis(20);
        assembler.took(1, brisk);
        assert_eq!(assembler.pace, FIRST_PACE, "a small batch says nothing about a large one");
        for _ in 0..10 {
            assembler.took(assembler.pace, brisk);
        }
        assert_eq!(assembler.pace, BatchLimits::default().batch_rows);
        assembler.took(assembler.pace, Duration::from_secs(2));
        assert_eq!(assembler.pace, BatchLimits::default().batch_rows / 2);
        for _ in 0..20 {
            assembler.took(assembler.pace, Duration::from_secs(2));
        }
        assert_eq!(assembler.pace, 1);
        assert_eq!((assembler.pace_after(false), assembler.pace_after(true)), (1, 1));
        // What a session could not get through, the next one tries in halves.
        let mut again = FIRST_PACE;
        for _ in 0..40 {
            let limits = BatchLimits::default();
            let metrics = Metrics::new().unwrap().apply("p", "d");
            let next = Assembler::new(limits, Sequence::default(), metrics, None, Some(again)).pace_after(true);
            assert!(next < again || next == 1);
            again = next;
        }
        assert_eq!(again, 1);
    }

    /// The log may still hold them, and the marker moves over them.
    #[test]
    fn changes_of_a_table_that_has_left_are_left_out() {
        let mut assembler = assembler(10).of_tables(["other".into()].into());
        assembler.push(delivered(0, false)).unwrap();
        let mut wanted = delivered(1, true);
        let Body::Change(change) = &mut wanted.record.body else { unreachable!() };
        let columns = change.schema.columns.clone();
        change.schema = Arc::new(Schema::new("other".into(), Engine::Postgres, columns, vec![0]));
        assembler.push(wanted).unwrap();
        let batch = assembler.take().unwrap();
        assert_eq!((batch.writes.len(), batch.writes[0].offset, batch.offset), (1, Offset(1), Offset(1)));
        assembler.push(delivered(2, true)).unwrap();
        let batch = assembler.take().unwrap();
        assert_eq!((batch.writes.len(), batch.offset), (0, Offset(2)));
    }

    /// Under load there is always one whose end has not come.
    fn stage() -> Stage {
        Stage::new("p".into(), Partition(0), "d".into(), None)
    }

    /// With a stage that has its configuration.
    fn two_way(limits: BatchLimits) -> Assembler {
        let metrics = Metrics::new().unwrap().apply("p", "d");
        let mut assembler = Assembler::new(limits, Sequence::default(), metrics, Some(stage()), None);
        let rules = Rules { members: Vec::new(), tables: Vec::new(), merged_seeds: false };
        let record = Record::of_nobody(0, Body::Configuration(Arc::new(rules)));
        assembler.push(Delivered { offset: Offset(0), record, bytes: Bytes::new() }).unwrap();
        assembler
    }

    /// A record without a row, behind a configuration.
    fn commit(offset: u64, last: bool) -> Delivered {
        let mut delivered = delivered(offset, last);
        delivered.record.previous = delivered.record.previous.filter(|_| offset > 1);
        delivered.record.body = Body::Commit;
        delivered
    }

    #[test]
    fn a_batch_that_was_made_early_comes_first_and_no_checkpoint_before_it() {
        let mut assembler = two_way(BatchLimits { batch_rows: 0, ..BatchLimits::default() });
        assembler.push(commit(1, true)).unwrap();
        assembler.make_ready();
        assert!(assembler.is_full());
        assert!(assembler.state().unwrap().is_none(), "it has not been handed out");
        assembler.push(commit(2, true)).unwrap();
        assembler.make_ready();
        assert_eq!(assembler.take().unwrap().offset, Offset(1));
        assert_eq!(assembler.take().unwrap().offset, Offset(2));
        assert!(assembler.state().unwrap().is_some());
    }

    #[test]
    fn a_checkpoint_leaves_out_the_transaction_that_is_not_complete() {
        let mut assembler = two_way(BatchLimits::default());
        for (offset, last) in [(1, true), (2, false), (3, false)] {
            assembler.push(commit(offset, last)).unwrap();
        }
        assert_eq!(assembler.take().unwrap().offset, Offset(1));
        let (offset, state) = assembler.state().unwrap().unwrap();
        assert_eq!(offset, Offset(1));
        let mut sequence = checkpoint::decode(&state, &mut stage()).unwrap();
        for (offset, verdict) in [(1, Verdict::Duplicate), (2, Verdict::Take), (3, Verdict::Take)] {
            assert_eq!(sequence.check(&commit(offset, false).record).unwrap(), verdict);
        }
        assembler.push(commit(4, true)).unwrap();
        assert_eq!(assembler.take().unwrap().offset, Offset(4), "nothing was lost for it");
    }

    #[test]
    fn an_end_behind_the_last_part_moves_the_marker_too() {
        let mut assembler = assembler(3);
        (0..3).for_each(|offset| assembler.push(delivered(offset, false)).unwrap());
        assert!(assembler.take().unwrap().split);
        let mut end = delivered(3, true);
        end.record.body = Body::Commit;
        assembler.push(end).unwrap();
        let rest = assembler.take().unwrap();
        assert_eq!((rest.writes.len(), rest.offset, rest.split), (0, Offset(3), false));
        assert!(assembler.take().is_none());
    }
}
