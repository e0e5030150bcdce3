//! What opening a log makes of files that a crash has torn or that were damaged.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sync_worker_bus::{Config, EmbeddedLog, Error};
use sync_worker_core::bus::Bus;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::{Classified, ErrorClass};
use sync_worker_core::guard::Image;
use sync_worker_core::record::{Body, Decision, Offset, Partition, Record};
use sync_worker_core::row::RowBuilder;
use sync_worker_core::rules::{OnDelete, Strategy, TableRules, TwoWay};
use sync_worker_core::types::Engine;
use sync_worker_core::value::{Cell, Value};
use sync_worker_testkit::contract::bus::{read, stand};
use sync_worker_testkit::records::{Records, schema};

const ONLY: Partition = Partition(0);

fn small() -> Config {
    Config { segment_bytes: 6_000, ..Config::default() }
}

/// A log with several segments, closed, and what stands in it; one frame a transaction.
async fn written(folder: &Path) -> Vec<Record> {
    let log = EmbeddedLog::open(folder, small()).unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 11);
    records.alter_every = 20;
    let mut all = Vec::new();
    for _ in 0..60 {
        let transaction = records.transaction();
        all.extend(transaction.iter().cloned());
        log.publish(ONLY, transaction).await.unwrap().await.unwrap();
    }
    all
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder.join("0")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 2, "too few segments for this test");
    paths
}

fn flip(path: &Path, byte: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut one = [0];
    file.read_exact_at(&mut one, byte).unwrap();
    file.write_all_at(&[one[0] ^ 4], byte).unwrap();
}

fn cut(path: &Path, bytes: u64) {
    let file = File::options().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - bytes).unwrap();
}

async fn assert_holds(folder: &Path, records: &[Record]) {
    let log = EmbeddedLog::open(folder, small()).unwrap();
    assert_eq!(log.bounds(ONLY).await.unwrap().next, Offset(records.len() as u64));
    let mut subscription = log.subscribe(ONLY, Offset(0)).await.unwrap();
    stand(&read(&mut *subscription, records.len()).await, records, Offset(0));
}

fn refusal(folder: &Path) -> Error {
    EmbeddedLog::open(folder, small()).map(drop).expect_err("the log was opened")
}

fn assert_refused(folder: &Path, class: ErrorClass, words: &[&str]) {
    let error = refusal(folder);
    assert_eq!(error.class(), class, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error:?} does not say {word}: {error}");
    }
}

#[tokio::test]
async fn a_torn_end_is_cut_off_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = written(folder.path()).await;
    let last = segments(folder.path()).pop().unwrap();
    // An unfinished write behind the last frame: garbage, zeros, or a part of a frame.
    for torn in [vec![0; 700], vec![0xF3; 3], [&[0xF3, b'S', b'W', 0x9C][..], &[9; 200]].concat()] {
        let file = File::options().write(true).open(&last).unwrap();
        file.write_all_at(&torn, file.metadata().unwrap().len()).unwrap();
        assert_holds(folder.path(), &all).await;
    }
    // A frame that is not whole goes as a whole.
    cut(&last, 1);
    let log = EmbeddedLog::open(folder.path(), small()).unwrap();
    let next = log.bounds(ONLY).await.unwrap().next;
    assert!(next < Offset(all.len() as u64));
    all.truncate(usize::try_from(next.0).unwrap());
    let mut records = Records::new("shop", Engine::Mysql, 12);
    for _ in 0..20 {
        let transaction = records.transaction();
        all.extend(transaction.iter().cloned());
        log.publish(ONLY, transaction).await.unwrap().await.unwrap();
    }
    drop(log);
    assert_holds(folder.path(), &all).await;
}

#[tokio::test]
async fn a_damaged_middle_is_refused_with_file_and_byte() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path()).await;
    let last = segments(folder.path()).pop().unwrap();
    flip(&last, 80);
    assert_refused(folder.path(), ErrorClass::Gap, &[last.to_str().unwrap(), "at byte 64", "snapshot"]);
}

#[tokio::test]
async fn damage_in_an_earlier_segment_is_named_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let all = written(folder.path()).await;
    let first = segments(folder.path()).remove(0);
    flip(&first, fs::metadata(&first).unwrap().len() - 1);
    let log = EmbeddedLog::open(folder.path(), small()).unwrap();
    let mut subscription = log.subscribe(ONLY, Offset(0)).await.unwrap();
    let mut sound = Vec::new();
    let error = loop {
        match subscription.next(1_000).await {
            Ok(some) => sound.extend(some),
            Err(error) => break error,
        }
    };
    stand(&sound, &all[..sound.len()], Offset(0));
    assert_eq!(error.class(), ErrorClass::Gap);
    assert!(error.to_string().contains(first.to_str().unwrap()), "{error}");
    // What is behind it can still be read.
    let from = all.len() - 5;
    let mut subscription = log.subscribe(ONLY, Offset(from as u64)).await.unwrap();
    stand(&read(&mut *subscription, 5).await, &all[from..], Offset(from as u64));
}

#[tokio::test]
async fn a_missing_or_cut_segment_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path()).await;
    let second = segments(folder.path()).remove(1);
    let kept = fs::read(&second).unwrap();
    fs::remove_file(&second).unwrap();
    assert_refused(folder.path(), ErrorClass::Gap, &[second.to_str().unwrap(), "missing"]);
    fs::write(&second, &kept[..kept.len() - 1]).unwrap();
    assert_refused(folder.path(), ErrorClass::Gap, &[second.to_str().unwrap(), "length"]);
    fs::write(&second, &kept[..30]).unwrap();
    assert_refused(folder.path(), ErrorClass::Gap, &[second.to_str().unwrap(), "header"]);
}

#[tokio::test]
async fn a_segment_of_another_log_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    written(folder.path()).await;
    written(other.path()).await;
    let first = segments(folder.path()).remove(0);
    fs::copy(segments(other.path()).remove(0), &first).unwrap();
    assert_refused(folder.path(), ErrorClass::Gap, &[first.to_str().unwrap(), "another log"]);
}

#[tokio::test]
async fn a_log_that_lost_its_name_or_its_records_is_no_new_log() {
    let folder = tempfile::tempdir().unwrap();
    let all = written(folder.path()).await;
    let name = folder.path().join("log");
    let kept = fs::read(&name).unwrap();
    fs::remove_file(&name).unwrap();
    assert_refused(folder.path(), ErrorClass::Gap, &[name.to_str().unwrap(), "missing"]);
    fs::write(&name, &kept).unwrap();
    flip(&name, 30);
    assert_refused(folder.path(), ErrorClass::Gap, &[name.to_str().unwrap(), "checksum"]);
    fs::write(&name, &kept).unwrap();
    assert_holds(folder.path(), &all).await;
    fs::remove_dir_all(folder.path().join("0")).unwrap();
    assert_refused(folder.path(), ErrorClass::Gap, &["missing"]);
}

#[tokio::test]
async fn lost_schemas_are_taken_from_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let all = written(folder.path()).await;
    let path = folder.path().join("schemas");
    let sound = fs::read(&path).unwrap();
    let announced = all.iter().filter(|record| matches!(record.body, Body::Schema(_))).count();
    assert!(announced > 2);
    for length in [0, 3, 40, sound.len() / 2, sound.len() - 1] {
        fs::write(&path, &sound[..length]).unwrap();
        assert_holds(folder.path(), &all).await;
        assert_eq!(fs::read(&path).unwrap().len(), sound.len());
    }
    fs::remove_file(&path).unwrap();
    assert_holds(folder.path(), &all).await;
    flip(&path, 60);
    assert_holds(folder.path(), &all).await;
    // Only garbage behind the last entry, of a write that never ended.
    fs::write(&path, [&sound[..], &[7; 5]].concat()).unwrap();
    assert_holds(folder.path(), &all).await;
}

/// A decision is in a schema that the configuration before it announces.
#[tokio::test]
async fn lost_schemas_of_a_configuration_are_taken_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let schema = Arc::new(schema(Engine::Postgres, 0));
    let (strategy, on_delete) = (Strategy::Timestamp, OnDelete::ByStrategy);
    let tables = vec![TableRules {
        schema: schema.clone(),
        strategy,
        on_delete,
        merge: None,
        timestamp_column: None,
        document: Default::default(),
    }];
    let mut builder = RowBuilder::default();
    schema.columns.iter().for_each(|_| builder.push(Cell::Present(Value::Int(1))));
    let change = Change { schema, op: Op::Create, before: None, after: Some(builder.finish()) };
    let all = vec![
        Record::of_nobody(
            1,
            Body::Configuration(Arc::new(TwoWay { members: Vec::new(), tables, merged_seeds: false })),
        ),
        Record::of_nobody(2, Body::Decision(Decision { change, seen: Image::Absent })),
    ];
    let log = EmbeddedLog::open(folder.path(), small()).unwrap();
    for record in &all {
        log.publish(ONLY, vec![record.clone()]).await.unwrap().await.unwrap();
    }
    drop(log);
    assert_holds(folder.path(), &all).await;
    fs::remove_file(folder.path().join("schemas")).unwrap();
    assert_holds(folder.path(), &all).await;
}

#[tokio::test]
async fn lost_schemas_that_no_record_announces_any_more_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: 1, ..small() };
    let log = EmbeddedLog::open(folder.path(), config).unwrap();
    let mut records = Records::new("crm", Engine::Postgres, 13);
    records.alter_every = u64::from(u32::MAX);
    for _ in 0..60 {
        log.publish(ONLY, records.transaction()).await.unwrap().await.unwrap();
    }
    assert!(log.bounds(ONLY).await.unwrap().first > Offset(0));
    drop(log);
    let path = folder.path().join("schemas");
    fs::remove_file(&path).unwrap();
    assert_refused(folder.path(), ErrorClass::Gap, &[path.to_str().unwrap(), "schemas are missing"]);
}

#[tokio::test]
async fn consumers_that_cannot_be_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let all = written(folder.path()).await;
    let log = EmbeddedLog::open(folder.path(), small()).unwrap();
    log.retain(ONLY, "apply:shop", Offset(3)).await.unwrap();
    drop(log);
    assert_holds(folder.path(), &all).await;
    let path = folder.path().join("consumers");
    flip(&path, 20);
    assert_refused(folder.path(), ErrorClass::Gap, &[path.to_str().unwrap()]);
}

#[tokio::test]
async fn one_process_at_a_time_and_always_as_many_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path(), small()).unwrap();
    assert_refused(folder.path(), ErrorClass::Fatal, &["in use"]);
    drop(log);
    let two = EmbeddedLog::open(folder.path(), Config { partitions: 2, ..small() }).map(drop);
    assert!(matches!(two, Err(Error::Partitions { there: 1, wanted: 2, .. })));
}

/// A crash while a log was made leaves nothing that stands in the way of making it.
#[tokio::test]
async fn a_log_that_was_never_finished_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    drop(EmbeddedLog::open(folder.path(), small()).unwrap());
    fs::remove_file(folder.path().join("log")).unwrap();
    let all = written(folder.path()).await;
    assert_holds(folder.path(), &all).await;
}
