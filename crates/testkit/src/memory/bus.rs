//! An in-memory log whose durability a test holds back and whose tail it can lose.

use super::{MemoryError, Shared};
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync_worker_core::bus::{Ahead, Bounds, Bus, Durability, Flush, Receipt, Subscription};
use sync_worker_core::error::{ErrorClass, Result};
use sync_worker_core::record::{Body, Delivered, Offset, Partition, Record};

/// Clones are handles of the same log.
#[derive(Clone)]
pub struct MemoryBus {
    identity: String,
    shared: Arc<Shared<State>>,
}

struct State {
    partitions: Vec<Log>,
    /// Nothing becomes durable by itself.
    held: bool,
    /// Records that may wait to become durable.
    queue: usize,
    /// A crash ends the receipts and the readers ahead of the life before it.
    life: u64,
}

#[derive(Default)]
struct Log {
    records: Vec<Delivered>,
    durable: usize,
    first: u64,
    needs: BTreeMap<String, Offset>,
}

impl MemoryBus {
    pub fn new(identity: &str, partitions: usize) -> Self {
        let partitions = (0..partitions).map(|_| Log::default()).collect();
        let state = State { partitions, held: false, queue: usize::MAX, life: 0 };
        Self { identity: identity.to_owned(), shared: Arc::new(Shared::new(state)) }
    }

    /// From now on records become durable only by [`flush`](Self::flush).
    pub fn hold(&self) {
        self.shared.change(|state| state.held = true);
    }

    pub fn release(&self) {
        self.shared.change(|state| state.held = false);
        self.flush();
    }

    /// Publishing waits while more records than this are not durable.
    pub fn limit_queue(&self, records: usize) {
        self.shared.change(|state| state.queue = records);
    }

    pub fn flush(&self) {
        self.shared.change(|state| state.partitions.iter_mut().for_each(|log| log.durable = log.records.len()));
    }

    /// Makes what is before an offset durable, while the rest is held.
    pub fn flush_to(&self, next: Offset) {
        self.shared.change(|state| state.partitions[0].durable = usize::try_from(next.0).unwrap_or(usize::MAX));
    }

    /// What was not durable is gone, and with it the receipts that wait for it.
    pub fn crash(&self) {
        self.shared.change(|state| {
            state.life += 1;
            state.partitions.iter_mut().for_each(|log| log.records.truncate(log.durable));
        });
    }

    /// Loses durable records from an offset on: a damaged disk.
    pub fn lose_from(&self, offset: Offset) {
        self.shared.change(|state| {
            let log = &mut state.partitions[0];
            log.records.retain(|record| record.offset < offset);
            log.durable = log.records.len();
        });
    }

    /// Removes the oldest records whatever anybody needs: a lost disk, or an operator.
    pub fn trim(&self, first: Offset) {
        self.shared.change(|state| state.partitions[0].first = first.0);
    }

    /// Takes out one record, as a producer does that loses one; those behind it move up.
    pub fn lose_one(&self, offset: Offset) {
        self.edit(|records| drop(records.remove(usize::try_from(offset.0).unwrap_or(usize::MAX))));
    }

    /// Changes the records of the first partition in place; their offsets are counted anew.
    pub fn edit(&self, edit: impl FnOnce(&mut Vec<Delivered>)) {
        self.shared.change(|state| {
            let log = &mut state.partitions[0];
            edit(&mut log.records);
            (0..).zip(&mut log.records).for_each(|(offset, record)| {
                record.offset = Offset(offset);
                record.bytes = encode(&record.record);
            });
            log.durable = log.durable.min(log.records.len());
        });
    }

    /// All records of the first partition, durable or not.
    pub fn records(&self) -> Vec<Delivered> {
        self.shared.lock().partitions[0].records.clone()
    }

    /// What a consumer has said it needs.
    pub fn needed(&self, consumer: &str) -> Option<Offset> {
        self.shared.lock().partitions[0].needs.get(consumer).copied()
    }

    /// Waits until the log looks like this.
    pub async fn until<R>(&self, mut ready: impl FnMut(&Self) -> Option<R>) -> R {
        let mut changes = self.shared.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(result) = ready(self) {
                return result;
            }
            changes.changed().await.unwrap_or_default();
        }
    }

    /// Records that are queued and not durable.
    pub fn queued(&self) -> usize {
        let state = self.shared.lock();
        state.partitions[0].records.len() - state.partitions[0].durable
    }
}

impl State {
    fn log(&mut self, partition: Partition) -> Result<&mut Log, MemoryError> {
        let missing = MemoryError::new(ErrorClass::Fatal, "no such partition");
        self.partitions.get_mut(partition.0 as usize).ok_or(missing)
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds> {
        let mut state = self.shared.lock();
        let log = state.log(partition)?;
        Ok(Bounds { first: Offset(log.first), next: Offset(log.durable as u64) })
    }

    async fn publish(&self, partition: Partition, records: Vec<Record>) -> Result<Receipt> {
        let life = self.shared.lock().life;
        let mut records = Some(records);
        let next = self.shared.when(|state| {
            let (held, queue) = (state.held, state.queue);
            let log = match state.log(partition) {
                Ok(log) => log,
                Err(error) => return Some(Err(error)),
            };
            if log.records.len() - log.durable > queue {
                return None;
            }
            for record in records.take().into_iter().flatten() {
                let bytes = encode(&record);
                log.records.push(Delivered { offset: Offset(log.records.len() as u64), record, bytes });
            }
            if !held {
                log.durable = log.records.len();
            }
            Some(Ok(log.records.len()))
        });
        let next = next.await?;
        self.shared.change(|_| ());
        let shared = self.shared.clone();
        Ok(Box::pin(async move {
            let durable = shared.when(|state| {
                if state.life != life {
                    return Some(Err(MemoryError::new(ErrorClass::Fatal, "the bus has crashed")));
                }
                match state.log(partition) {
                    Ok(log) => (log.durable >= next).then(|| Ok(Offset(next as u64 - 1))),
                    Err(error) => Some(Err(error)),
                }
            });
            Ok(durable.await?)
        }))
    }

    async fn subscribe(&self, partition: Partition, from: Offset) -> Result<Box<dyn Subscription>> {
        Ok(Box::new(self.read(partition, from, false)?))
    }

    async fn subscribe_ahead(&self, partition: Partition, from: Offset) -> Result<Ahead> {
        let reading = self.read(partition, from, true)?;
        let (shared, life) = (self.shared.clone(), reading.life);
        Ok(Ahead { subscription: Box::new(reading), durability: Arc::new(InMemory { shared, partition, life }) })
    }

    async fn retain(&self, partition: Partition, consumer: &str, from: Offset) -> Result<()> {
        self.shared.lock().log(partition)?.needs.insert(consumer.to_owned(), from);
        Ok(())
    }
}

impl MemoryBus {
    fn read(&self, partition: Partition, from: Offset, ahead: bool) -> Result<Reading, MemoryError> {
        let mut state = self.shared.lock();
        let life = state.life;
        let log = state.log(partition)?;
        if from.0 < log.first || from.0 > log.durable as u64 {
            return Err(MemoryError::new(ErrorClass::Gap, "the offset is not in the log"));
        }
        let next = usize::try_from(from.0).unwrap_or(usize::MAX);
        Ok(Reading { shared: self.shared.clone(), partition, next, ahead, life })
    }
}

fn taken_back() -> MemoryError {
    MemoryError::new(ErrorClass::Transient, "records that were read ahead are lost")
}

struct InMemory {
    shared: Arc<Shared<State>>,
    partition: Partition,
    life: u64,
}

impl InMemory {
    fn ended(&self, state: &mut State, offset: Offset) -> Option<Result<(), MemoryError>> {
        if state.life != self.life {
            return Some(Err(taken_back()));
        }
        match state.log(self.partition) {
            Ok(log) => (log.durable as u64 > offset.0).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Durability for InMemory {
    fn pending(&self, offset: Offset) -> Option<Flush> {
        if let Some(Ok(())) = self.ended(&mut self.shared.lock(), offset) {
            return None;
        }
        let (shared, partition, life) = (self.shared.clone(), self.partition, self.life);
        let this = Self { shared, partition, life };
        Some(Box::pin(async move { Ok(this.shared.when(|state| this.ended(state, offset)).await?) }))
    }
}

struct Reading {
    shared: Arc<Shared<State>>,
    partition: Partition,
    next: usize,
    ahead: bool,
    life: u64,
}

#[async_trait]
impl Subscription for Reading {
    async fn next(&mut self, bytes: usize) -> Result<Vec<Delivered>> {
        let (partition, next, ahead, life) = (self.partition, self.next, self.ahead, self.life);
        let some = self.shared.when(|state| {
            if ahead && state.life != life {
                return Some(Err(taken_back()));
            }
            let log = match state.log(partition) {
                Ok(log) => log,
                Err(error) => return Some(Err(error)),
            };
            let mut left = bytes;
            let there = log.records.get(next..if ahead { log.records.len() } else { log.durable }).unwrap_or_default();
            let some = there.iter().enumerate().take_while(|(at, record)| {
                let taken = *at == 0 || left > 0;
                left = left.saturating_sub(record.bytes.len());
                taken
            });
            let some: Vec<_> = some.map(|(_, record)| record.clone()).collect();
            (!some.is_empty()).then_some(Ok(some))
        });
        let some = some.await?;
        self.next += some.len();
        Ok(some)
    }

    fn caught_up(&self) -> bool {
        self.shared.lock().log(self.partition).map_or(true, |log| self.next >= log.durable)
    }
}

/// Enough of a record that another one has another digest.
fn encode(record: &Record) -> Bytes {
    let mut out = BytesMut::new();
    let head = format!("{} {} {:?} {}", record.origin, record.position, record.previous, record.last);
    out.put_slice(head.as_bytes());
    match &record.body {
        Body::Change(change) => {
            out.put_slice(format!("{}{:?}", change.op, change.schema.id).as_bytes());
            [&change.before, &change.after].into_iter().flatten().for_each(|row| out.put_slice(row.as_bytes()));
        }
        Body::Schema(schema) => out.put_slice(format!("{:?}", schema.id).as_bytes()),
        Body::Commit => out.put_slice(b"commit"),
        Body::Marker(echo) => out.put_slice(format!("{echo:?}").as_bytes()),
        Body::Configuration(rules) => out.put_slice(format!("{rules:?}").as_bytes()),
        Body::Resume(table) | Body::Seeded(table) => out.put_slice(table.as_str().as_bytes()),
        Body::Decision(decision) => out.put_slice(format!("{decision:?}").as_bytes()),
    }
    out.freeze()
}
