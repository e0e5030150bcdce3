//! Publishing: changes become records, and a record is published once.

use crate::capture::PARTITION;
use crate::metrics::CaptureMetrics;
use crate::window::{Closed, Windows};
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use std::collections::HashSet;
use std::sync::Arc;
use sync_worker_core::bus::{Bus, Receipt};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::echo::Echo;
use sync_worker_core::error::Result;
use sync_worker_core::logical::key_only;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::position::{Checkpoint, Position};
use sync_worker_core::record::{Body, Offset, Record};
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::source::{SourceBatch, TransactionPart};
use sync_worker_core::value::Damaged;
use tokio::sync::{oneshot, watch};

/// Where publishing stands.
pub struct Tail {
    /// Everything up to here has been published or was before the start; what comes again is a duplicate.
    pub taken: Position,
    /// The position of the last record of this origin; None before the first.
    pub previous: Option<Position>,
    /// The last transaction published lacks its end.
    pub open: bool,
}

/// A publish that is under way, and what follows once it is durable.
struct Published {
    receipt: Option<Receipt>,
    records: u64,
    checkpoint: Option<Checkpoint>,
    reads: Vec<oneshot::Sender<bool>>,
}

/// What has become durable.
pub struct Durable {
    /// The offset after the last record; None where nothing was published.
    pub next: Option<Offset>,
    /// How many there were.
    pub records: u64,
    pub checkpoint: Option<Checkpoint>,
    /// Snapshot reads whose rows these were.
    pub reads: Vec<oneshot::Sender<bool>>,
}

impl Published {
    async fn durable(self) -> Result<Durable> {
        let next = match self.receipt {
            Some(receipt) => Some(receipt.await?.next()),
            None => None,
        };
        Ok(Durable { next, records: self.records, checkpoint: self.checkpoint, reads: self.reads })
    }
}

/// What a member's stream has shown since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// How many of our own transactions.
    pub echoes: u64,
    /// When the last transaction was committed: microseconds since 1970-01-01 UTC by the member's clock.
    pub up_to: i64,
}

/// Turns changes into records and hands them to the bus.
pub struct Publisher {
    origin: DatabaseName,
    bus: Arc<dyn Bus>,
    metrics: CaptureMetrics,
    pub tail: Tail,
    shown: watch::Sender<Shown>,
    announced: HashSet<SchemaId>,
    /// One of our own transactions, of which more is to come.
    echo: Echo,
    /// Resolve in the order of publishing.
    pub under_way: FuturesOrdered<BoxFuture<'static, Result<Durable>>>,
    /// How many records these are.
    pub records_under_way: u64,
}

impl Publisher {
    pub fn new(
        origin: DatabaseName,
        bus: Arc<dyn Bus>,
        metrics: CaptureMetrics,
        shown: watch::Sender<Shown>,
        tail: Tail,
    ) -> Self {
        Self {
            origin,
            bus,
            metrics,
            tail,
            shown,
            announced: HashSet::new(),
            echo: Echo::default(),
            under_way: FuturesOrdered::new(),
            records_under_way: 0,
        }
    }

    /// Queues records; `checkpoint` holds once they are durable.
    pub async fn publish(
        &mut self,
        records: Vec<Record>,
        checkpoint: Option<Checkpoint>,
        reads: Vec<oneshot::Sender<bool>>,
    ) -> Result<()> {
        let count = records.len() as u64;
        let receipt = match records.is_empty() {
            true => None,
            false => Some(self.bus.publish(PARTITION, records).await?),
        };
        self.records_under_way += count;
        self.under_way.push_back(Box::pin(Published { receipt, records: count, checkpoint, reads }.durable()));
        Ok(())
    }

    /// The records of a batch, without what the bus has already (invariant 3).
    pub fn records(&mut self, batch: &mut SourceBatch, windows: &mut Windows) -> Result<Vec<Record>, Damaged> {
        let mut records = Vec::with_capacity(batch.parts.iter().map(|part| part.changes.len()).sum());
        for part in &mut batch.parts {
            if let Some(echo) = part.echo.take() {
                self.own(part, echo, windows, &mut records)?;
                continue;
            }
            let mut ordinal = part.first.ordinal();
            let mut ended = false;
            let mut changes = std::mem::take(&mut part.changes).into_iter().peekable();
            while let Some(change) = changes.next() {
                let position = part.first.with_ordinal(ordinal);
                ordinal += 1;
                // Before duplicates go: a read may miss one that an earlier session has published.
                if !windows.is_empty() {
                    windows.saw(&change)?;
                }
                if position <= self.tail.taken {
                    self.metrics.duplicates.inc();
                    continue;
                }
                self.announce(&change.schema, part.commit_time, &mut records);
                let last = part.complete && changes.peek().is_none();
                ended |= last;
                records.push(Record {
                    origin: self.origin.clone(),
                    position,
                    previous: self.tail.previous,
                    transaction: (position.ordinal() == 0).then(|| part.id.clone()),
                    last,
                    commit_time: part.commit_time,
                    body: Body::Change(change),
                });
                self.tail = Tail { taken: position, previous: Some(position), open: !last };
                self.metrics.captured.inc();
            }
            let end = part.first.end_of_transaction();
            if part.complete && !ended && self.tail.open && self.tail.taken < end {
                records.push(self.record(end, part.commit_time, true, Body::Commit));
                self.tail = Tail { taken: end, previous: Some(end), open: false };
            }
        }
        if let Some(last) = batch.parts.last() {
            self.shown.send_modify(|shown| shown.up_to = last.commit_time);
        }
        Ok(records)
    }

    /// A part of one of our own transactions: a marker takes the place of its rows (invariant 4).
    fn own(
        &mut self,
        part: &TransactionPart,
        echo: Echo,
        windows: &mut Windows,
        records: &mut Vec<Record>,
    ) -> Result<(), Damaged> {
        // A read that is under way may have seen them or not, as with any other change.
        if !windows.is_empty() {
            part.changes.iter().try_for_each(|change| windows.saw_own(change))?;
        }
        self.metrics.echoed.inc_by(part.changes.len() as u64);
        self.echo.offset = echo.offset;
        self.echo.parked.extend(echo.parked);
        self.echo.unparked.extend(echo.unparked);
        if !part.complete {
            return Ok(());
        }
        self.shown.send_modify(|shown| shown.echoes += 1);
        let (echo, position) = (std::mem::take(&mut self.echo), part.first.with_ordinal(0));
        // Before anything was sent there is nothing to tell.
        if echo.offset.is_none() {
            return Ok(());
        }
        if position <= self.tail.taken {
            self.metrics.duplicates.inc();
            return Ok(());
        }
        let record = Record {
            transaction: Some(part.id.clone()),
            ..self.record(position, part.commit_time, true, Body::Marker(echo))
        };
        records.push(record);
        self.tail = Tail { taken: position, previous: Some(position), open: false };
        Ok(())
    }

    /// The records of a closed window: rows that no change event beats, since their keys were not in the stream.
    pub fn snapshot_records(&mut self, closed: &Closed, commit_time: i64) -> Result<Vec<Record>, Damaged> {
        let schema = &closed.read.chunk.schema;
        let mut records = Vec::with_capacity(closed.rows.len() + closed.gone.len() + 1);
        if !closed.rows.is_empty() || !closed.gone.is_empty() {
            self.announce(schema, commit_time, &mut records);
        }
        let change = |op, before, after| Change { schema: schema.clone(), op, before, after };
        for row in &closed.rows {
            let body = Body::Change(change(Op::Read, None, Some(row.clone())));
            records.push(self.beside(commit_time, true, body));
        }
        for key in &closed.gone {
            let body = Body::Change(change(Op::Delete, Some(key_only(schema, key)?), None));
            records.push(self.beside(commit_time, true, body));
        }
        self.metrics.snapshot_rows.inc_by(closed.rows.len() as u64);
        Ok(records)
    }

    fn announce(&mut self, schema: &Arc<Schema>, commit_time: i64, records: &mut Vec<Record>) {
        if self.announced.insert(schema.id) {
            let schema = Body::Schema(schema.clone());
            records.push(self.beside(commit_time, !self.tail.open, schema));
        }
    }

    /// A record that is no part of the stream: it stands at the position of the last one that is, and moves nothing.
    fn beside(&mut self, commit_time: i64, last: bool, body: Body) -> Record {
        let position = *self.tail.previous.get_or_insert(self.tail.taken);
        self.record(position, commit_time, last, body)
    }

    fn record(&self, position: Position, commit_time: i64, last: bool, body: Body) -> Record {
        Record {
            origin: self.origin.clone(),
            position,
            previous: self.tail.previous,
            transaction: None,
            last,
            commit_time,
            body,
        }
    }
}
