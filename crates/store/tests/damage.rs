//! A store that is not what it was: refused by name, or whole.

use rand::{Rng, SeedableRng, rngs::StdRng};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::{Classified, ErrorClass};
use sync_worker_core::ledger::{Conflict, Contender, Ledger, Settled, Wanted};
use sync_worker_core::name::{DatabaseName, PipelineName, TableName};
use sync_worker_core::position::{Checkpoint, Epoch};
use sync_worker_core::record::{Offset, Partition};
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::store::{CaptureId, Deferred, RetryQueue, Store, StoredCheckpoint, TargetId};
use sync_worker_core::types::{ColumnType, Engine};
use sync_worker_core::value::{Cell, Value};
use sync_worker_store::{Error, SqliteStore};
use tempfile::TempDir;

fn capture(pipeline: &str) -> CaptureId {
    CaptureId { pipeline: PipelineName::new(pipeline), database: DatabaseName::new("crm") }
}

fn checkpoint(number: u64) -> StoredCheckpoint {
    let position = format!("0/{number:X}").parse().unwrap();
    let checkpoint = Checkpoint { epoch: Epoch("1/1".to_owned()), position, resume: format!("0/{number:X}") };
    StoredCheckpoint { checkpoint, log: "log".to_owned(), next: Offset(number) }
}

const PIPELINES: [&str; 3] = ["customers", "orders", "payments"];
const VERSIONS: u64 = 5;

/// Of SQLite's log, in bytes.
const WAL_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const FRAME: usize = FRAME_HEADER + 4096;

/// The files of a store that saved each version of each capture's checkpoint and was then killed: its log is not folded
/// into its file.
async fn killed() -> TempDir {
    let (live, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SqliteStore::open(live.path()).unwrap();
    for version in 1..=VERSIONS {
        for pipeline in PIPELINES {
            store.save_checkpoint(&capture(pipeline), &checkpoint(version)).await.unwrap();
        }
    }
    copy(live.path(), image.path());
    image
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Of a randomised test: printed, and taken back from `SYNC_WORKER_SEED`.
fn seed() -> u64 {
    let given = std::env::var("SYNC_WORKER_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("SYNC_WORKER_SEED={seed}");
    seed
}

/// What the store holds per capture.
async fn versions(store: &SqliteStore) -> Vec<Option<u64>> {
    let mut found = Vec::new();
    for pipeline in PIPELINES {
        let stored = store.checkpoint(&capture(pipeline)).await.unwrap();
        let version = stored.as_ref().map(|stored| stored.next.0);
        assert!(stored.is_none_or(|stored| stored == checkpoint(version.unwrap())), "a checkpoint that nobody saved");
        found.push(version);
    }
    found
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("store.sqlite")
}

fn refused(folder: &TempDir) -> Error {
    match SqliteStore::open(folder.path()) {
        Ok(_) => panic!("the store was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_was_saved_before_a_kill_is_there() {
    let image = killed().await;
    let store = SqliteStore::open(image.path()).unwrap();
    assert_eq!(versions(&store).await, [Some(VERSIONS); 3]);
}

#[tokio::test]
async fn a_flipped_bit_is_refused_or_makes_no_difference() {
    let image = killed().await;
    let closed = tempfile::tempdir().unwrap();
    copy(image.path(), closed.path());
    drop(SqliteStore::open(closed.path()).unwrap());
    let mut random = StdRng::seed_from_u64(seed());
    let (mut named, mut whole) = (0, 0);
    for _ in 0..400 {
        let folder = tempfile::tempdir().unwrap();
        copy(closed.path(), folder.path());
        let mut bytes = std::fs::read(file(&folder)).unwrap();
        let bit = random.random_range(0..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(file(&folder), bytes).unwrap();
        match SqliteStore::open(folder.path()) {
            Ok(store) => {
                assert_eq!(versions(&store).await, [Some(VERSIONS); 3], "bit {bit}");
                whole += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("store.sqlite"), "bit {bit}: {error}");
                named += 1;
            }
        }
    }
    println!("{named} refused, {whole} whole");
    assert!(named > 0);
}

/// SQLite takes a damaged log to end where the damage is.
#[tokio::test]
async fn a_damaged_log_is_refused_unless_only_the_last_commit_can_be_meant() {
    let image = killed().await;
    let mut random = StdRng::seed_from_u64(seed());
    let (mut named, mut whole) = (0, 0);
    let length = std::fs::metadata(image.path().join("store.sqlite-wal")).unwrap().len() as usize;
    // Each bit of the heads of all frames: nothing but their salts says which round of the log they are of.
    let heads = (WAL_HEADER..length).step_by(FRAME).flat_map(|at| at * 8..(at + FRAME_HEADER) * 8);
    let anywhere = (0..300).map(|_| random.random_range(0..length * 8)).collect::<Vec<_>>();
    for bit in heads.chain(anywhere) {
        let folder = tempfile::tempdir().unwrap();
        copy(image.path(), folder.path());
        let log = folder.path().join("store.sqlite-wal");
        let mut bytes = std::fs::read(&log).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&log, bytes).unwrap();
        match SqliteStore::open(folder.path()) {
            Ok(store) => {
                // The last commit was of one capture alone.
                let [first, second, last] = versions(&store).await.try_into().unwrap();
                assert_eq!((first, second), (Some(VERSIONS), Some(VERSIONS)), "bit {bit}");
                assert!(last >= Some(VERSIONS - 1), "bit {bit}");
                whole += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("store.sqlite-wal is damaged"), "bit {bit}: {error}");
                assert_eq!(error.class(), ErrorClass::Gap);
                named += 1;
            }
        }
    }
    println!("{named} refused, {whole} whole but for the last commit");
    assert!(named > whole);
}

/// A cut log can't be told from one that was never longer: the store may have gone back, which what rests on it notices;
/// but a capture's checkpoint never vanishes.
#[tokio::test]
async fn a_cut_log_gives_an_earlier_state_never_an_empty_one() {
    let image = killed().await;
    let length = std::fs::metadata(image.path().join("store.sqlite-wal")).unwrap().len();
    for kept in (0..length).step_by(997) {
        let folder = tempfile::tempdir().unwrap();
        copy(image.path(), folder.path());
        let log = std::fs::OpenOptions::new().write(true).open(folder.path().join("store.sqlite-wal")).unwrap();
        log.set_len(kept).unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        assert!(versions(&store).await.iter().all(Option::is_some), "a checkpoint has vanished");
    }
}

#[tokio::test]
async fn a_cut_file_is_refused() {
    let image = killed().await;
    drop(SqliteStore::open(image.path()).unwrap());
    let bytes = std::fs::read(file(&image)).unwrap();
    for length in [0, 1, 99, 4096, bytes.len() / 2, bytes.len() - 4096] {
        std::fs::write(file(&image), &bytes[..length]).unwrap();
        let error = refused(&image);
        assert_eq!(error.class(), ErrorClass::Gap, "{length}: {error}");
        assert!(error.to_string().contains("store.sqlite is damaged"), "{length}: {error}");
    }
}

#[tokio::test]
async fn a_store_that_has_vanished_or_is_anothers_is_no_new_one() {
    let (image, other) = (killed().await, killed().await);
    std::fs::remove_file(file(&image)).unwrap();
    std::fs::remove_file(image.path().join("store.sqlite-wal")).unwrap();
    let error = refused(&image);
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("it is empty, but the folder belongs to installation"), "{error}");

    std::fs::copy(image.path().join("installation"), other.path().join("installation")).unwrap();
    let error = refused(&other);
    assert!(error.to_string().contains("it belongs to installation"), "{error}");
}

#[tokio::test]
async fn a_folder_has_one_worker_and_its_identity_can_be_read_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(SqliteStore::installation_of(folder.path()).unwrap(), None);
    let store = SqliteStore::open(folder.path()).unwrap();
    let error = refused(&folder);
    assert_eq!(error.class(), ErrorClass::Fatal);
    let expected = format!("is in use by another worker (process {})", std::process::id());
    assert!(error.to_string().contains(&expected), "{error}");
    let installation = store.installation().await.unwrap();
    assert_eq!(SqliteStore::installation_of(folder.path()).unwrap(), Some(installation.clone()));
    drop(store);
    let again = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(again.installation().await.unwrap(), installation);
}

#[tokio::test]
async fn only_the_owner_can_read_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("a").join("b");
    let store = SqliteStore::open(&folder).unwrap();
    store.save_checkpoint(&capture("customers"), &checkpoint(1)).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn a_newer_format_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let connection = rusqlite::Connection::open(file(&folder)).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = refused(&folder);
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
}

/// A table, and a row of it.
fn customer() -> (Arc<Schema>, Row) {
    let column = Column {
        name: "id".to_owned(),
        kind: ColumnType::Int { bits: 64, unsigned: false },
        type_name: "bigint".to_owned(),
        nullable: false,
        generated: false,
    };
    let schema = Arc::new(Schema::new(TableName::new("customer"), Engine::Postgres, vec![column], vec![0]));
    let mut builder = RowBuilder::default();
    builder.push(Cell::Present(Value::Int(1)));
    (schema, builder.finish())
}

#[tokio::test]
async fn a_store_of_the_first_format_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let target = TargetId {
        pipeline: PipelineName::new("customers"),
        database: DatabaseName::new("crm"),
        partition: Partition(0),
    };
    let (schema, row) = customer();
    let deferred = Deferred {
        target: target.clone(),
        key: schema.key_of(&row).unwrap(),
        change: Change { schema, op: Op::Create, before: None, after: Some(row) },
        over: None,
        offset: Offset(7),
        class: ErrorClass::Poison,
        reason: "refused".to_owned(),
        attempts: 1,
        due: 0,
        dead: true,
    };
    let store = SqliteStore::open(folder.path()).unwrap();
    store.defer(vec![deferred]).await.unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(file(&folder)).unwrap();
    let back =
        "DROP TABLE conflict; DROP TABLE resolver; ALTER TABLE deferred DROP COLUMN over; PRAGMA user_version = 1";
    connection.execute_batch(back).unwrap();
    drop(connection);
    let store = SqliteStore::open(folder.path()).unwrap();
    let waiting = store.list(&target, true, usize::MAX).await.unwrap();
    assert_eq!(waiting.iter().map(|one| (one.offset, one.over.clone())).collect::<Vec<_>>(), [(Offset(7), None)]);
}

/// Its entries do not say which version was there first, and stay as they are.
#[tokio::test]
async fn a_store_of_the_second_format_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = PipelineName::new("customers");
    let (schema, row) = customer();
    let contender = |by: &str, row| Contender { by: Some(DatabaseName::new(by)), merged: false, commit_time: 1, row };
    let conflict = |offset, incumbent_won| Conflict {
        pipeline: pipeline.clone(),
        partition: Partition(0),
        offset: Offset(offset),
        table: TableName::new("customer"),
        key: schema.key_of(&row).unwrap(),
        column: None,
        kind: "update_deleted".to_owned(),
        strategy: "manual".to_owned(),
        winner: contender("crm", Some(row.clone())),
        loser: Some(contender("shop", None)),
        incumbent_won,
        stands: None,
        at: None,
        schema: schema.clone(),
        time: 2,
        open: true,
    };
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.record(vec![conflict(7, None)]).await.unwrap().len(), 1);
    drop(store);
    let connection = rusqlite::Connection::open(file(&folder)).unwrap();
    let back = "ALTER TABLE conflict DROP COLUMN incumbent_won; DROP INDEX conflict_stands; ALTER TABLE conflict DROP COLUMN stands; \
                PRAGMA user_version = 2";
    connection.execute_batch(back).unwrap();
    drop(connection);
    let store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.record(vec![conflict(7, Some(true)), conflict(8, Some(false))]).await.unwrap().len(), 1);
    let told = || {
        let (store, pipeline) = (&store, &pipeline);
        async move {
            let found = store.conflicts(pipeline, &Wanted { limit: usize::MAX, ..Wanted::default() }).await.unwrap();
            found.iter().map(|one| (one.conflict.open, one.conflict.incumbent_won)).collect::<Vec<_>>()
        }
    };
    assert_eq!(told().await, [(true, Some(false)), (true, None)]);
    let (table, key) = (TableName::new("customer"), schema.key_of(&row).unwrap());
    assert_eq!(store.close(&pipeline, &table, &Settled::Key(key), "person", 3).await.unwrap(), 2);
    assert_eq!(told().await, [(false, Some(false)), (false, None)]);
}

#[test]
fn a_path_that_can_not_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let error = match SqliteStore::open(&folder.path().join("file")) {
        Ok(_) => panic!("the store was opened"),
        Err(error) => sync_worker_core::error::Error::from(error).chain(),
    };
    assert!(error.contains("file: making the state folder failed"), "{error}");
}
