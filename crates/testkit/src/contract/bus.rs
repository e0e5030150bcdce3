//! What every [`Bus`] must do.

use crate::records::{Records, same};
use std::future::Future;
use std::time::Duration;
use sync_worker_core::bus::{Bus, Subscription};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::record::{Delivered, Offset, Partition, Record};
use sync_worker_core::types::Engine;

/// A bus under test, with at least two partitions. `reopened` must hand out the same log, as after a restart.
pub trait Fixture {
    type Bus: Bus + 'static;

    fn bus(&self) -> &Self::Bus;

    fn reopened(self) -> impl Future<Output = Self>;
}

const FIRST: Partition = Partition(0);
const SECOND: Partition = Partition(1);

/// Runs the whole contract on a log that is empty.
pub async fn holds<F: Fixture>(fixture: F) -> F {
    let fixture = order(fixture).await;
    gaps(&fixture).await;
    waiting(&fixture).await;
    ahead(&fixture).await;
    let fixture = schemas(fixture).await;
    partitions(&fixture).await;
    consumers(fixture).await
}

/// Reads `count` records, in small steps.
pub async fn read(subscription: &mut dyn Subscription, count: usize) -> Vec<Delivered> {
    let mut all = Vec::new();
    while all.len() < count {
        let read = tokio::time::timeout(Duration::from_secs(20), subscription.next(1_000));
        let some = read.await.unwrap_or_else(|_| panic!("only {} of {count} records came", all.len())).unwrap();
        assert!(!some.is_empty());
        all.extend(some);
    }
    all
}

/// That these records stand from `from` on, without holes.
pub fn stand(delivered: &[Delivered], records: &[Record], from: Offset) {
    assert_eq!(delivered.len(), records.len());
    for ((offset, delivered), record) in (from.0..).zip(delivered).zip(records) {
        assert_eq!(delivered.offset, Offset(offset));
        assert!(same(&delivered.record, record), "the record at {offset} is another one");
    }
}

/// Offsets count from 0, receipts name the last one, everything comes back as it was, also after a restart.
async fn order<F: Fixture>(fixture: F) -> F {
    let identity = fixture.bus().identity().to_owned();
    assert!(!identity.is_empty());
    let mut all = Vec::new();
    let mut digests = Vec::new();
    for (seed, engine) in [(1, Engine::Postgres), (2, Engine::Mysql), (3, Engine::Mongodb)] {
        let mut records = Records::new("crm", engine, seed);
        let mut receipts = Vec::new();
        for _ in 0..100 {
            let transaction = records.transaction();
            all.extend(transaction.iter().cloned());
            receipts.push((fixture.bus().publish(FIRST, transaction).await.unwrap(), all.len() as u64 - 1));
        }
        for (receipt, last) in receipts {
            assert_eq!(receipt.await.unwrap(), Offset(last));
        }
    }
    let bounds = fixture.bus().bounds(FIRST).await.unwrap();
    assert_eq!((bounds.first, bounds.next), (Offset(0), Offset(all.len() as u64)));
    let mut fixture = fixture;
    for _ in 0..2 {
        assert_eq!(fixture.bus().identity(), identity);
        let mut subscription = fixture.bus().subscribe(FIRST, Offset(0)).await.unwrap();
        let delivered = read(&mut *subscription, all.len()).await;
        stand(&delivered, &all, Offset(0));
        assert!(subscription.caught_up());
        digests.push(delivered.iter().map(Delivered::digest).collect::<Vec<_>>());
        for from in [1, 7, all.len() / 2, all.len() - 1] {
            let mut subscription = fixture.bus().subscribe(FIRST, Offset(from as u64)).await.unwrap();
            assert!(!subscription.caught_up());
            stand(&read(&mut *subscription, all.len() - from).await, &all[from..], Offset(from as u64));
        }
        fixture = fixture.reopened().await;
    }
    assert!(digests[0] == digests[1], "a record's digest changed over a restart");
    fixture
}

/// What is not there is a GAP.
async fn gaps<F: Fixture>(fixture: &F) {
    let next = fixture.bus().bounds(FIRST).await.unwrap().next;
    let subscription = fixture.bus().subscribe(FIRST, next.next()).await;
    assert_eq!(subscription.err().map(|error| error.class()), Some(ErrorClass::Gap));
    assert!(fixture.bus().subscribe(FIRST, next).await.unwrap().caught_up());
    assert!(fixture.bus().bounds(Partition(999)).await.is_err(), "a partition that is not there");
}

/// A reader ahead gets the same records, from behind and from the end, and what its receipt says is durable is so.
async fn ahead<F: Fixture>(fixture: &F) {
    let next = fixture.bus().bounds(FIRST).await.unwrap().next;
    let gap = fixture.bus().subscribe_ahead(FIRST, next.next()).await.err().unwrap();
    assert_eq!(gap.class(), ErrorClass::Gap);
    let mut old = fixture.bus().subscribe_ahead(FIRST, Offset(next.0 / 2)).await.unwrap();
    let mut new = fixture.bus().subscribe_ahead(FIRST, next).await.unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 4);
    for _ in 0..20 {
        let from = fixture.bus().bounds(FIRST).await.unwrap().next;
        let transaction = records.transaction();
        let receipt = fixture.bus().publish(FIRST, transaction.clone()).await.unwrap();
        stand(&read(&mut *new.subscription, transaction.len()).await, &transaction, from);
        let last = Offset(from.0 + transaction.len() as u64 - 1);
        if let Some(flush) = new.durability.pending(last) {
            flush.await.unwrap();
        }
        assert_eq!(fixture.bus().bounds(FIRST).await.unwrap().next, last.next());
        receipt.await.unwrap();
        assert!(new.durability.pending(last).is_none());
    }
    let end = fixture.bus().bounds(FIRST).await.unwrap().next;
    let mut again = fixture.bus().subscribe(FIRST, Offset(next.0 / 2)).await.unwrap();
    let count = usize::try_from(end.0 - next.0 / 2).unwrap();
    let (old, again) = (read(&mut *old.subscription, count).await, read(&mut *again, count).await);
    assert!(old.iter().map(Delivered::digest).eq(again.iter().map(Delivered::digest)));
}

/// A reader at the end waits, and may stop waiting at any time without losing anything.
async fn waiting<F: Fixture>(fixture: &F) {
    let next = fixture.bus().bounds(FIRST).await.unwrap().next;
    let mut subscription = fixture.bus().subscribe(FIRST, next).await.unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 3);
    let mut all = Vec::new();
    let mut delivered = Vec::new();
    for _ in 0..20 {
        tokio::select! {
            biased;
            some = subscription.next(1 << 20) => delivered.extend(some.unwrap()),
            () = std::future::ready(()) => {}
        }
        let transaction = records.transaction();
        all.extend(transaction.iter().cloned());
        let receipt = fixture.bus().publish(FIRST, transaction).await.unwrap();
        let rest = read(&mut *subscription, 1).await;
        delivered.extend(rest);
        receipt.await.unwrap();
    }
    let missing = all.len() - delivered.len();
    delivered.extend(read(&mut *subscription, missing).await);
    stand(&delivered, &all, next);
    assert!(subscription.caught_up());
}

/// A reader may start behind the record that announced a schema, also in a later run.
async fn schemas<F: Fixture>(fixture: F) -> F {
    let mut records = Records::new("crm", Engine::Postgres, 4);
    records.alter_every = 2;
    for _ in 0..30 {
        fixture.bus().publish(FIRST, records.transaction()).await.unwrap().await.unwrap();
    }
    let fixture = fixture.reopened().await;
    records.alter_every = u64::from(u32::MAX);
    let from = fixture.bus().bounds(FIRST).await.unwrap().next;
    let transaction = records.transaction();
    fixture.bus().publish(FIRST, transaction.clone()).await.unwrap().await.unwrap();
    let mut subscription = fixture.bus().subscribe(FIRST, from).await.unwrap();
    stand(&read(&mut *subscription, transaction.len()).await, &transaction, from);
    fixture
}

/// Partitions do not share offsets.
async fn partitions<F: Fixture>(fixture: &F) {
    assert_eq!(fixture.bus().bounds(SECOND).await.unwrap().next, Offset(0));
    let transaction = Records::new("shop", Engine::Mysql, 5).transaction();
    let last = fixture.bus().publish(SECOND, transaction.clone()).await.unwrap().await.unwrap();
    assert_eq!(last.next(), Offset(transaction.len() as u64));
    let mut subscription = fixture.bus().subscribe(SECOND, Offset(0)).await.unwrap();
    stand(&read(&mut *subscription, transaction.len()).await, &transaction, Offset(0));
}

/// What a consumer has declared stays, over a restart, too.
async fn consumers<F: Fixture>(fixture: F) -> F {
    let bounds = fixture.bus().bounds(FIRST).await.unwrap();
    fixture.bus().retain(FIRST, "apply:shop", bounds.first).await.unwrap();
    let fixture = fixture.reopened().await;
    fixture.bus().retain(FIRST, "apply:archive", bounds.next).await.unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 6);
    for _ in 0..200 {
        fixture.bus().publish(FIRST, records.transaction()).await.unwrap().await.unwrap();
    }
    assert_eq!(fixture.bus().bounds(FIRST).await.unwrap().first, bounds.first);
    fixture
}
