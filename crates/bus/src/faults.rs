//! Tests with a disk that is full or fails: what was acknowledged stays, nothing later slips past what was lost.

use crate::config::Config;
use crate::disk::Disk;
use crate::lock;
use crate::log::EmbeddedLog;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use sync_worker_core::bus::{Ahead, Bus};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::record::{Offset, Partition, Record};
use sync_worker_core::types::Engine;
use sync_worker_testkit::contract::bus::{read, stand};
use sync_worker_testkit::records::Records;

const ONLY: Partition = Partition(0);

/// Where the next operations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A part is written, then there is no room.
    Full,
    Write,
    Sync,
}

/// A real disk that fails when it is told to, and can be made to wait.
struct FaultyDisk {
    fault: Mutex<Fault>,
    held: Mutex<bool>,
    flush_held: Mutex<bool>,
    released: Condvar,
}

impl FaultyDisk {
    fn new() -> Arc<Self> {
        let (fault, released) = (Mutex::new(Fault::None), Condvar::new());
        Arc::new(Self { fault, held: Mutex::new(false), flush_held: Mutex::new(false), released })
    }

    fn set(&self, fault: Fault) {
        *lock(&self.fault) = fault;
    }

    fn hold(&self, held: bool) {
        *lock(&self.held) = held;
        self.released.notify_all();
    }

    fn hold_flush(&self, held: bool) {
        *lock(&self.flush_held) = held;
        self.released.notify_all();
    }
}

impl Disk for FaultyDisk {
    fn write_all_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let held = lock(&self.held);
        drop(self.released.wait_while(held, |held| *held).unwrap());
        let fault = *lock(&self.fault);
        match fault {
            Fault::None | Fault::Sync => file.write_all_at(bytes, at),
            Fault::Full | Fault::Write => {
                file.write_all_at(&bytes[..bytes.len() / 2], at)?;
                let kind = if fault == Fault::Full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
                Err(io::Error::new(kind, "as the test wants it"))
            }
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let held = lock(&self.flush_held);
        drop(self.released.wait_while(held, |held| *held).unwrap());
        let fault = *lock(&self.fault);
        if fault == Fault::Sync { Err(io::Error::other("as the test wants it")) } else { file.sync_data() }
    }
}

struct Log {
    log: EmbeddedLog,
    disk: Arc<FaultyDisk>,
    records: Records,
    durable: Vec<Record>,
}

impl Log {
    async fn new(folder: &Path) -> Self {
        let disk = FaultyDisk::new();
        let log = EmbeddedLog::open_on(folder, Config::default(), disk.clone()).unwrap();
        let mut records = Records::new("crm", Engine::Postgres, 31);
        records.alter_every = u64::from(u32::MAX);
        let mut log = Self { log, disk, records, durable: Vec::new() };
        log.publish().await;
        log
    }

    async fn publish(&mut self) {
        let transaction = self.records.transaction();
        self.log.publish(ONLY, transaction.clone()).await.unwrap().await.unwrap();
        self.durable.extend(transaction);
    }

    async fn assert_holds(&self, log: &EmbeddedLog) {
        assert_eq!(log.bounds(ONLY).await.unwrap().next, Offset(self.durable.len() as u64));
        let mut subscription = log.subscribe(ONLY, Offset(0)).await.unwrap();
        stand(&read(&mut *subscription, self.durable.len()).await, &self.durable, Offset(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_publishing_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut test = Log::new(folder.path()).await;
    // Two publishes in two groups: the first fails, and the second must not become durable behind it.
    test.disk.hold(true);
    test.disk.set(Fault::Full);
    let first = test.log.publish(ONLY, test.records.transaction()).await.unwrap();
    let second = test.log.publish(ONLY, test.records.transaction()).await.unwrap();
    test.disk.hold(false);
    let error = first.await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().contains("no room left"), "{error}");
    test.disk.set(Fault::None);
    let refused = test.log.publish(ONLY, test.records.transaction()).await.err().unwrap();
    assert_eq!(refused.class(), ErrorClass::Transient, "the receipt of the second has not been looked at");
    assert_eq!(second.await.unwrap_err().class(), ErrorClass::Transient);
    test.assert_holds(&test.log).await;
    test.publish().await;
    test.assert_holds(&test.log).await;
    let Log { log, disk, records, durable } = test;
    drop(log);
    let log = EmbeddedLog::open(folder.path(), Config::default()).unwrap();
    let test = Log { log, disk, records, durable };
    test.assert_holds(&test.log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_that_nobody_waits_for_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut test = Log::new(folder.path()).await;
    test.disk.hold(true);
    test.disk.set(Fault::Full);
    drop(test.log.publish(ONLY, test.records.transaction()).await.unwrap());
    let failed = test.log.publish(ONLY, test.records.transaction()).await.unwrap();
    test.disk.hold(false);
    failed.await.unwrap_err();
    test.disk.set(Fault::None);
    test.publish().await;
    test.assert_holds(&test.log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_write_or_sync_nothing_more_is_written() {
    for fault in [Fault::Write, Fault::Sync] {
        let folder = tempfile::tempdir().unwrap();
        let test = &mut Log::new(folder.path()).await;
        test.disk.set(fault);
        let receipt = test.log.publish(ONLY, test.records.transaction()).await.unwrap();
        let error = receipt.await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Fatal, "{fault:?}");
        assert!(error.to_string().contains("00000000000000000000.log"), "{error}");
        test.disk.set(Fault::None);
        let later = test.log.publish(ONLY, test.records.transaction()).await.err().unwrap();
        assert_eq!(later.class(), ErrorClass::Fatal, "{fault:?}");
        test.assert_holds(&test.log).await;
        // A new start does not find what was never acknowledged.
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let reopened = EmbeddedLog::open(copy.path(), Config::default()).unwrap();
        assert_eq!(reopened.identity(), test.log.identity());
        test.assert_holds(&reopened).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_could_not_be_stored_holds_back_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut test = Log::new(folder.path()).await;
    test.records.alter_every = 1;
    test.disk.set(Fault::Full);
    let receipt = test.log.publish(ONLY, test.records.transaction()).await.unwrap();
    receipt.await.unwrap_err();
    test.disk.set(Fault::None);
    test.records.alter_every = u64::from(u32::MAX);
    test.records.restart();
    test.publish().await;
    let Log { log, disk, records, durable } = test;
    drop(log);
    let log = EmbeddedLog::open(folder.path(), Config::default()).unwrap();
    let test = Log { log, disk, records, durable };
    test.assert_holds(&test.log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_wait_while_the_queue_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let config = Config { queue_bytes: 10_000, ..Config::default() };
    let log = EmbeddedLog::open_on(folder.path(), config, disk.clone()).unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 32);
    disk.hold(true);
    let mut receipts = Vec::new();
    let mut count = 0;
    let waits = loop {
        let transaction = records.transaction();
        count += transaction.len();
        let mut publish = log.publish(ONLY, transaction);
        // Ready at once, or waiting for the writer, which is held.
        match poll_once(&mut publish) {
            Some(receipt) => receipts.push(receipt.unwrap()),
            None => break publish,
        }
        assert!(receipts.len() < 1_000, "nothing holds the publisher back");
    };
    disk.hold(false);
    receipts.push(waits.await.unwrap());
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(log.bounds(ONLY).await.unwrap().next, Offset(count as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_ahead_has_what_is_not_flushed_yet_and_ends_when_the_flush_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut test = Log::new(folder.path()).await;
    let next = test.log.bounds(ONLY).await.unwrap().next;
    let Ahead { mut subscription, durability } = test.log.subscribe_ahead(ONLY, next).await.unwrap();
    let mut others = test.log.subscribe(ONLY, next).await.unwrap();
    for fault in [Fault::None, Fault::Sync] {
        let from = test.log.bounds(ONLY).await.unwrap().next;
        test.disk.set(fault);
        test.disk.hold_flush(true);
        let transaction = test.records.transaction();
        let receipt = test.log.publish(ONLY, transaction.clone()).await.unwrap();
        stand(&read(&mut *subscription, transaction.len()).await, &transaction, from);
        let last = Offset(from.0 + transaction.len() as u64 - 1);
        let mut flush = durability.pending(last).unwrap();
        assert!(poll_once(&mut flush).is_none(), "it says that it is durable");
        assert!(poll_once(&mut others.next(1)).is_none(), "others see what is not durable");
        assert_eq!(test.log.bounds(ONLY).await.unwrap().next, from);
        assert!(durability.pending(Offset(from.0 - 1)).is_none());
        test.disk.hold_flush(false);
        if fault == Fault::None {
            flush.await.unwrap();
            receipt.await.unwrap();
            assert!(durability.pending(last).is_none());
            stand(&read(&mut *others, transaction.len()).await, &transaction, from);
            test.durable.extend(transaction);
        } else {
            assert_eq!(flush.await.unwrap_err().class(), ErrorClass::Transient);
            receipt.await.unwrap_err();
            assert_eq!(subscription.next(1).await.unwrap_err().class(), ErrorClass::Transient);
            assert!(durability.pending(last).unwrap().await.is_err());
            assert!(poll_once(&mut others.next(1)).is_none());
        }
    }
    // One that begins now gets what is durable, and waits.
    let mut again = test.log.subscribe_ahead(ONLY, next).await.unwrap();
    let durable = &test.durable[usize::try_from(next.0).unwrap()..];
    stand(&read(&mut *again.subscription, durable.len()).await, durable, next);
    assert!(poll_once(&mut again.subscription.next(1)).is_none());
    test.assert_holds(&test.log).await;
    // The offset goes to another record.
    let Log { log, disk, records, durable } = test;
    drop((log, subscription, others));
    assert!(again.subscription.next(1).await.is_err(), "it waits for a log that is closed");
    drop(again);
    disk.set(Fault::None);
    let log = EmbeddedLog::open_on(folder.path(), Config::default(), disk.clone()).unwrap();
    let mut test = Log { log, disk, records, durable };
    let from = Offset(test.durable.len() as u64);
    let mut ahead = test.log.subscribe_ahead(ONLY, from).await.unwrap();
    test.publish().await;
    let new = &test.durable[usize::try_from(from.0).unwrap()..];
    stand(&read(&mut *ahead.subscription, new.len()).await, new, from);
    test.assert_holds(&test.log).await;
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            std::fs::create_dir_all(to.join(&name)).unwrap();
            copy_folder(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}
