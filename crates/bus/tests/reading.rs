//! Readers that are behind, retention under them, and publishers that are too fast.

use std::path::Path;
use std::time::{Duration, SystemTime};
use sync_worker_bus::{Config, EmbeddedLog};
use sync_worker_core::bus::Bus;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::record::{Body, Offset, Partition, Record};
use sync_worker_core::row::Row;
use sync_worker_core::types::Engine;
use sync_worker_testkit::contract::bus::{read, stand};
use sync_worker_testkit::records::Records;

const ONLY: Partition = Partition(0);

/// One frame a transaction, so that segments are as small as they should be.
async fn publish_apart(log: &EmbeddedLog, records: &mut Records, transactions: usize) -> Vec<Record> {
    let mut all = Vec::new();
    for _ in 0..transactions {
        all.extend(publish(log, records, 1).await);
    }
    all
}

async fn publish(log: &EmbeddedLog, records: &mut Records, transactions: usize) -> Vec<Record> {
    let mut all = Vec::new();
    let mut receipts = Vec::new();
    for _ in 0..transactions {
        let transaction = records.transaction();
        all.extend(transaction.iter().cloned());
        receipts.push(log.publish(ONLY, transaction).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    all
}

fn segments(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("0")).unwrap().count()
}

/// Bounds move when the writer has looked; each retain makes it look.
async fn until_first(log: &EmbeddedLog, expected: impl Fn(Offset) -> bool) -> Offset {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let first = log.bounds(ONLY).await.unwrap().first;
        if expected(first) {
            return first;
        }
        assert!(tokio::time::Instant::now() < deadline, "retention did not get there, the log starts at {first}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_follows_from_the_files_into_memory() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 100_000, cache_bytes: 20_000, ..Config::default() };
    let log = EmbeddedLog::open(folder.path(), config).unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 21);
    let mut all = publish(&log, &mut records, 3_000).await;
    let mut behind = log.subscribe(ONLY, Offset(0)).await.unwrap();
    let mut live = log.subscribe(ONLY, Offset(all.len() as u64)).await.unwrap();
    let mut delivered = read(&mut *behind, all.len() / 3).await;
    let more = publish(&log, &mut records, 500).await;
    stand(&read(&mut *live, more.len()).await, &more, Offset(all.len() as u64));
    all.extend(more);
    let rest = all.len() - delivered.len();
    delivered.extend(read(&mut *behind, rest).await);
    stand(&delivered, &all, Offset(0));
    assert!(behind.caught_up() && live.caught_up());
}

#[tokio::test]
async fn a_dropped_read_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 20_000, cache_bytes: 1, ..Config::default() };
    let log = EmbeddedLog::open(folder.path(), config).unwrap();
    let all = publish(&log, &mut Records::new("crm", Engine::Mysql, 22), 500).await;
    let mut subscription = log.subscribe(ONLY, Offset(0)).await.unwrap();
    let mut delivered = Vec::new();
    while delivered.len() < all.len() {
        tokio::select! {
            biased;
            some = subscription.next(700) => delivered.extend(some.unwrap()),
            () = tokio::task::yield_now() => {}
        }
    }
    stand(&delivered, &all, Offset(0));
}

#[tokio::test]
async fn large_records_travel_whole() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { queue_bytes: 1 << 20, cache_bytes: 1, ..Config::default() };
    let log = EmbeddedLog::open(folder.path(), config).unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 23);
    let mut all = publish(&log, &mut records, 10).await;
    for megabytes in [1, 3, 9, 30] {
        let mut transaction = records.transaction();
        for record in &mut transaction {
            if let Body::Change(change) = &mut record.body {
                change.after = Some(Row::from_bytes(vec![1; megabytes << 20].into()));
            }
        }
        all.extend(transaction.iter().cloned());
        log.publish(ONLY, transaction).await.unwrap().await.unwrap();
    }
    all.extend(publish(&log, &mut records, 10).await);
    let mut subscription = log.subscribe(ONLY, Offset(0)).await.unwrap();
    stand(&read(&mut *subscription, all.len()).await, &all, Offset(0));
    drop((subscription, log));
    let log = EmbeddedLog::open(folder.path(), Config::default()).unwrap();
    assert_eq!(log.bounds(ONLY).await.unwrap().next, Offset(all.len() as u64));
}

#[tokio::test]
async fn retention_keeps_what_a_consumer_needs_and_removes_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 10_000, max_bytes: 30_000, ..Config::default() };
    let log = EmbeddedLog::open(folder.path(), config.clone()).unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 24);
    log.retain(ONLY, "apply:shop", Offset(0)).await.unwrap();
    let mut all = publish_apart(&log, &mut records, 300).await;
    assert_eq!(log.bounds(ONLY).await.unwrap().first, Offset(0));
    let usage = log.usage(ONLY).unwrap();
    assert!(usage.pinned > 0 && usage.pinned == usage.bytes - 30_000, "{usage:?}");

    // Also after a restart at which the consumer has not spoken yet.
    drop(log);
    let log = EmbeddedLog::open(folder.path(), config.clone()).unwrap();
    all.extend(publish_apart(&log, &mut records, 100).await);
    assert_eq!(log.bounds(ONLY).await.unwrap().first, Offset(0));

    let before = segments(folder.path());
    let needed = Offset(all.len() as u64 / 2);
    log.retain(ONLY, "apply:shop", needed).await.unwrap();
    let first = until_first(&log, |first| first > Offset(0)).await;
    assert!(first <= needed);
    let mut subscription = log.subscribe(ONLY, needed).await.unwrap();
    let from = all.len() / 2;
    stand(&read(&mut *subscription, all.len() - from).await, &all[from..], needed);

    log.retain(ONLY, "apply:shop", Offset(all.len() as u64)).await.unwrap();
    until_first(&log, |first| first > needed).await;
    let gone = log.subscribe(ONLY, Offset(0)).await.err().unwrap();
    assert_eq!(gone.class(), ErrorClass::Gap);
    drop((subscription, log));
    assert!(segments(folder.path()) < before);
    let log = EmbeddedLog::open(folder.path(), config).unwrap();
    assert!(log.usage(ONLY).unwrap().bytes <= 40_000);
}

#[tokio::test]
async fn a_forgotten_consumer_pins_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 10_000, max_bytes: 20_000, ..Config::default() };
    let log = EmbeddedLog::open(folder.path(), config).unwrap();
    log.retain(ONLY, "apply:shop", Offset(0)).await.unwrap();
    log.retain(ONLY, "apply:archive", Offset(1_000_000)).await.unwrap();
    publish_apart(&log, &mut Records::new("crm", Engine::Postgres, 25), 300).await;
    assert_eq!(log.bounds(ONLY).await.unwrap().first, Offset(0));
    log.forget(ONLY, "apply:shop").unwrap();
    until_first(&log, |first| first > Offset(0)).await;
}

#[tokio::test]
async fn old_segments_go_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 10_000, ..Config::default() };
    let log = EmbeddedLog::open(folder.path(), config).unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 26);
    let all = publish_apart(&log, &mut records, 300).await;
    let mut paths: Vec<_> =
        std::fs::read_dir(folder.path().join("0")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let month_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
    for path in &paths[..2] {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(month_ago).unwrap();
    }
    log.retain(ONLY, "apply:shop", Offset(all.len() as u64)).await.unwrap();
    let third: u64 = paths[2].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(until_first(&log, |first| first >= Offset(third)).await, Offset(third));
}

/// A reader that is overtaken by retention hears of it; it never skips what is gone.
#[tokio::test]
async fn a_reader_overtaken_by_retention_meets_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 10_000, max_bytes: 20_000, cache_bytes: 1, ..Config::default() };
    let log = EmbeddedLog::open(folder.path(), config).unwrap();
    let mut subscription = log.subscribe(ONLY, Offset(0)).await.unwrap();
    publish_apart(&log, &mut Records::new("crm", Engine::Postgres, 27), 300).await;
    assert!(log.bounds(ONLY).await.unwrap().first > Offset(0));
    let error = loop {
        if let Err(error) = subscription.next(1 << 20).await {
            break error;
        }
    };
    assert_eq!(error.class(), ErrorClass::Gap);
    assert!(error.to_string().contains("offset 0 is not in"), "{error}");
}

#[tokio::test]
async fn a_change_before_its_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path(), Config::default()).unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 28).transaction();
    assert!(matches!(records.remove(0).body, Body::Schema(_)));
    let error = log.publish(ONLY, records).await.err().unwrap();
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert!(error.to_string().contains("customer"), "{error}");
}
