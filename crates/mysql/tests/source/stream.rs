//! Changes of every kind, as the log has them.

use crate::fixture::{Fixture, applied, assert_rows_equal, first_int, read_all, shown};
use anyhow::Result;
use mysql_async::prelude::Queryable;
use sync_worker_core::change::Op;
use sync_worker_core::value::Cell;
use sync_worker_testkit::stream::Stream;

const PERSON: &str = "CREATE TABLE person (id INT PRIMARY KEY, name VARCHAR(50), note TEXT)";

#[tokio::test]
async fn a_transaction_comes_whole_with_its_gtid_and_time() -> Result<()> {
    let Some(fixture) = Fixture::new(&[PERSON], &["person"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let statements = [
        "BEGIN",
        "INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', 'x')",
        "UPDATE person SET name = 'c' WHERE id = 1",
        "DELETE FROM person WHERE id = 2",
        "COMMIT",
    ];
    fixture.run(&statements).await?;
    let batch = loop {
        let batch = stream.batch().await?;
        if !batch.parts.is_empty() {
            break batch;
        }
    };
    let part = batch.parts.first().expect("one part");
    assert!(part.complete);
    assert_eq!(stream.ops(), "ccud");
    assert_eq!(part.id.matches(':').count(), 1, "{}", part.id);
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros() as i64 - part.commit_time;
    assert!((0..60_000_000).contains(&age), "committed {age} us ago");
    let update = &stream.changes[2].1;
    assert!(update.before.is_some(), "a full image keeps its before");
    assert!(update.old_key()?.is_none());
    assert!(batch.checkpoint.is_some());
    assert!(batch.reached >= stream.changes[3].0);
    Ok(())
}

#[tokio::test]
async fn a_changed_key_keeps_its_old_one() -> Result<()> {
    let Some(fixture) = Fixture::new(&[PERSON], &["person"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    for image in ["FULL", "MINIMAL", "NOBLOB"] {
        let image = format!("SET SESSION binlog_row_image = '{image}'");
        fixture
            .run(&[&image, "INSERT INTO person VALUES (1, 'a', 'b')", "UPDATE person SET id = 2", "DELETE FROM person"])
            .await?;
    }
    stream.until(9).await?;
    assert_eq!(stream.ops(), "cudcudcud");
    for (_, change) in stream.changes.iter().filter(|(_, change)| change.op == Op::Update) {
        let old = change.old_key()?.expect("an old key");
        assert_eq!(old.as_bytes()[..], fixture_key(1));
        assert_eq!(change.key()?.expect("a key").as_bytes()[..], fixture_key(2));
    }
    Ok(())
}

fn fixture_key(value: i64) -> Vec<u8> {
    let mut builder = sync_worker_core::row::RowBuilder::default();
    builder.push(Cell::Present(sync_worker_core::value::Value::Int(value)));
    builder.finish().as_bytes().to_vec()
}

#[tokio::test]
async fn columns_that_are_not_in_an_image_are_unchanged() -> Result<()> {
    let Some(fixture) = Fixture::new(&[PERSON], &["person"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let statements = [
        "INSERT INTO person VALUES (1, 'a', 'long'), (2, 'b', 'note')",
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE person SET name = NULL WHERE id = 1",
        "SET SESSION binlog_row_image = 'NOBLOB'",
        "UPDATE person SET name = 'n' WHERE id = 2",
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "INSERT INTO person (id) VALUES (3)",
        "DELETE FROM person WHERE id = 1",
    ];
    fixture.run(&statements).await?;
    stream.until(6).await?;
    let after = |at: usize| shown(stream.changes[at].1.after.as_ref().expect("an after image"));
    assert_eq!(after(2), "Present(Int(1)) | Present(Null) | Unchanged");
    assert_eq!(after(3), "Present(Int(2)) | Present(Text(\"n\")) | Unchanged");
    assert!(stream.changes[2].1.before.is_none() && stream.changes[3].1.before.is_none());
    assert_eq!(
        shown(stream.changes[5].1.before.as_ref().expect("a before image")),
        "Present(Int(1)) | Unchanged | Unchanged"
    );
    assert_rows_equal(&applied(&stream, "person")?, &fixture.rows("person").await?);
    Ok(())
}

#[tokio::test]
async fn defaults_that_a_minimal_insert_leaves_out_are_filled_in() -> Result<()> {
    let create = "CREATE TABLE d (id INT AUTO_INCREMENT PRIMARY KEY, a INT DEFAULT -7, b BIGINT UNSIGNED DEFAULT 18446744073709551615, \
                  c VARCHAR(10) DEFAULT 'x ''y', n DECIMAL(8,3) DEFAULT 0.5, e ENUM('p','q') DEFAULT 'q', s SET('a','b') DEFAULT 'a,b', \
                  t TIMESTAMP(3) DEFAULT CURRENT_TIMESTAMP(3), u VARCHAR(40) DEFAULT (UUID()), dt DATETIME(2) DEFAULT '2024-01-02 03:04:05.6', \
                  da DATE DEFAULT '1999-12-31', f DOUBLE DEFAULT 0.1, bi BIT(5) DEFAULT b'101', j JSON, g INT AS (a + 1) VIRTUAL, y YEAR DEFAULT 2024)";
    let Some(fixture) =
        Fixture::new(&[create, "CREATE TABLE r (id INT PRIMARY KEY, f FLOAT DEFAULT 0.1)"], &["d", "r"]).await?
    else {
        return Ok(());
    };
    let mut stream = fixture.open(None).await?;
    let minimal = "SET SESSION binlog_row_image = 'MINIMAL'";
    fixture.run(&[minimal, "INSERT INTO d () VALUES ()", "INSERT INTO d (a, c) VALUES (1, NULL), (2, '')"]).await?;
    stream.until(3).await?;
    assert_rows_equal(&applied(&stream, "d")?, &fixture.rows("d").await?);
    // A default that the catalog prints rounded is refused.
    fixture.run(&[minimal, "INSERT INTO r (id) VALUES (1)"]).await?;
    let error = stream.refusal().await?.to_string();
    assert!(error.contains("column f") && error.contains("binlog_row_image = FULL"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_default_that_was_altered_since_is_never_taken_for_the_old_one() -> Result<()> {
    let Some(fixture) = Fixture::new(&["CREATE TABLE d (id INT PRIMARY KEY, a INT DEFAULT 5)"], &["d"]).await? else {
        return Ok(());
    };
    let minimal = "SET SESSION binlog_row_image = 'MINIMAL'";
    let mut stream = fixture.open(None).await?;
    fixture.run(&[minimal, "INSERT INTO d (id) VALUES (1)"]).await?;
    stream.until(1).await?;
    // What is known stays known, although the catalog is newer when the table is looked up again.
    let alter = "ALTER TABLE d ALTER COLUMN a SET DEFAULT 6";
    fixture
        .run(&[minimal, "FLUSH TABLES d", "INSERT INTO d (id) VALUES (2)", alter, "INSERT INTO d (id) VALUES (3)"])
        .await?;
    stream.until(3).await?;
    assert_rows_equal(&applied(&stream, "d")?, &fixture.rows("d").await?);
    let checkpoint = stream.checkpoint.clone();
    drop(stream);
    // Nobody knows what the default was at an insert that was followed by a change before anybody looked.
    let again = "ALTER TABLE d ALTER COLUMN a SET DEFAULT 7";
    fixture.run(&[minimal, "INSERT INTO d (id) VALUES (4)", again]).await?;
    let error = fixture.open(Some(&checkpoint)).await?.refusal().await?;
    assert_eq!(error.class(), sync_worker_core::error::ErrorClass::Gap, "{error}");
    assert!(error.to_string().contains(".d ") && error.to_string().contains("binlog_row_image = FULL"), "{error}");
    Ok(())
}

#[tokio::test]
async fn compressed_transactions_are_unpacked() -> Result<()> {
    let Some(fixture) = Fixture::new(&[PERSON], &["person"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let statements = [
        "SET SESSION binlog_transaction_compression = ON",
        "INSERT INTO person VALUES (1, 'a', REPEAT('x', 10000)), (2, 'b', NULL)",
        "UPDATE person SET name = 'both'",
        "SET SESSION cte_max_recursion_depth = 100000",
        "INSERT INTO person WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT i, 'n', REPEAT('y', 50) FROM n",
        "SET SESSION binlog_transaction_compression = OFF",
        "DELETE FROM person WHERE id = 1",
    ];
    fixture.run(&statements).await?;
    read_all(&mut stream, &fixture).await?;
    assert_eq!(stream.changes.len(), 4 + 49_991 + 1);
    assert_eq!(stream.transactions.len(), 4);
    assert_rows_equal(&applied(&stream, "person")?, &fixture.rows("person").await?);
    Ok(())
}

#[tokio::test]
async fn a_large_transaction_comes_in_parts() -> Result<()> {
    let Some(fixture) = Fixture::new(&[PERSON], &["person"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let statements = [
        "SET SESSION cte_max_recursion_depth = 1000000",
        "INSERT INTO person WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) SELECT i, 'name', REPEAT('z', 100) FROM n",
    ];
    fixture.run(&statements).await?;
    let (mut parts, mut ended) = (0, false);
    while !ended {
        let batch = stream.batch().await?;
        let open = batch.parts.last().is_some_and(|part| !part.complete);
        assert_eq!(batch.checkpoint.is_none(), open, "a checkpoint stands between transactions");
        let size: usize = batch.parts.iter().flat_map(|part| &part.changes).map(|change| change.size()).sum();
        assert!(size < 4 << 20, "a batch of {size} bytes");
        parts += batch.parts.iter().filter(|part| !part.changes.is_empty()).count();
        ended = stream.transactions.len() == 1;
    }
    assert!(parts > 3, "{parts} parts");
    let ordinals: Vec<_> = stream.changes.iter().map(|(position, _)| position.ordinal()).collect();
    assert_eq!(ordinals, (0..60_000).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_truncate_is_a_change() -> Result<()> {
    let Some(fixture) = Fixture::new(&[PERSON, "CREATE TABLE other (id INT PRIMARY KEY)"], &["person"]).await? else {
        return Ok(());
    };
    let mut stream = fixture.open(None).await?;
    let qualified = format!("/* all */ TRUNCATE {}.`person`", fixture.database.name);
    let statements = [
        "TRUNCATE TABLE person",
        "INSERT INTO person VALUES (1, 'a', NULL)",
        "TRUNCATE other",
        &qualified,
        "INSERT INTO person VALUES (2, 'b', NULL)",
    ];
    fixture.run(&statements).await?;
    stream.until(4).await?;
    assert_eq!(stream.ops(), "tctc");
    assert_rows_equal(&applied(&stream, "person")?, &fixture.rows("person").await?);
    Ok(())
}

#[tokio::test]
async fn other_tables_move_the_position_and_nothing_else() -> Result<()> {
    let Some(fixture) = Fixture::new(&[PERSON, "CREATE TABLE other (id INT PRIMARY KEY)"], &["person"]).await? else {
        return Ok(());
    };
    let mut stream = fixture.open(None).await?;
    let start = stream.checkpoint.clone();
    fixture.run(&["INSERT INTO other VALUES (1), (2)", "CREATE TABLE third (id INT)", "DROP TABLE third"]).await?;
    read_all(&mut stream, &fixture).await?;
    assert!(stream.checkpoint.position > start.position);
    assert!(stream.changes.is_empty() && stream.transactions.is_empty());
    Ok(())
}

#[tokio::test]
async fn prepared_transactions_wait_for_their_decision() -> Result<()> {
    let create = "CREATE TABLE person (id INT PRIMARY KEY, name VARCHAR(50), note LONGTEXT)";
    let Some(fixture) = Fixture::new(&[create], &["person"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    // Names of prepared transactions are the server's, not the database's.
    let xa = |verb: &str, name: &str| format!("XA {verb} '{name}-{}'", fixture.database.name);
    let insert = "INSERT INTO person VALUES (1, 'committed', REPEAT('x', 3000000))";
    fixture.run(&[&xa("START", "one"), insert, &xa("END", "one"), &xa("PREPARE", "one")]).await?;
    // Another session decides, after others have gone past.
    fixture.run(&["INSERT INTO person VALUES (5, 'between', NULL)"]).await?;
    stream.until(1).await?;
    assert_eq!(first_int(stream.changes[0].1.after.as_ref().expect("an image")), 5);
    let held = stream.checkpoint.clone();
    // After a restart from here the server sends the prepared part again.
    drop(stream);
    let mut stream = fixture.open(Some(&held)).await?;
    fixture.run(&[&xa("COMMIT", "one")]).await?;
    stream.until(1).await?;
    let insert = "INSERT INTO person VALUES (2, 'no', NULL)";
    let rolled_back = [&xa("START", "two"), insert, &xa("END", "two"), &xa("PREPARE", "two"), &xa("ROLLBACK", "two")];
    fixture.run(&rolled_back).await?;
    let insert = "INSERT INTO person VALUES (3, 'yes', NULL)";
    let one_phase = xa("COMMIT", "three") + " ONE PHASE";
    fixture.run(&[&xa("START", "three"), insert, &xa("END", "three"), &one_phase]).await?;
    stream.until(2).await?;
    let ids = stream.changes.iter().map(|(_, change)| first_int(change.after.as_ref().expect("an image")));
    assert_eq!(ids.collect::<Vec<_>>(), [1, 3]);
    read_all(&mut stream, &fixture).await?;
    assert_eq!(stream.changes.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_stays_prepared_over_other_tables_holds_nothing_up() -> Result<()> {
    let Some(fixture) = Fixture::new(&[PERSON, "CREATE TABLE other (id INT PRIMARY KEY)"], &["person"]).await? else {
        return Ok(());
    };
    let xa = |verb: &str, name: &str| format!("XA {verb} '{name}-{}'", fixture.database.name);
    let mut stream = fixture.open(None).await?;
    let elsewhere = "INSERT INTO other VALUES (1)";
    fixture.run(&[&xa("START", "one"), elsewhere, &xa("END", "one"), &xa("PREPARE", "one")]).await?;
    let both = [elsewhere.replace('1', "2"), "INSERT INTO person VALUES (1, 'a', NULL)".to_owned()];
    fixture.run(&[&xa("START", "two"), &both[0], &both[1], &xa("END", "two"), &xa("PREPARE", "two")]).await?;
    fixture.run(&["INSERT INTO person VALUES (2, 'b', NULL)"]).await?;
    stream.until(1).await?;
    // All but the one that writes to a table of the pipeline is taken.
    let mut conn = fixture.database.connect().await?;
    let missing = format!("SELECT GTID_SUBTRACT(@@gtid_executed, '{}')", stream.checkpoint.resume);
    let missing: Option<String> = conn.query_first(missing).await?;
    assert!(missing.is_some_and(|set| !set.is_empty()), "a prepared transaction of the pipeline is not taken");
    fixture.run(&[&xa("COMMIT", "two")]).await?;
    read_all(&mut stream, &fixture).await?;
    assert_eq!(stream.changes.len(), 2);
    // Its end does no harm, before or after a restart.
    let checkpoint = stream.checkpoint.clone();
    drop(stream);
    let mut stream = fixture.open(Some(&checkpoint)).await?;
    fixture.run(&[&xa("COMMIT", "one"), "INSERT INTO person VALUES (3, 'c', NULL)"]).await?;
    read_all(&mut stream, &fixture).await?;
    assert_eq!(stream.changes.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_was_prepared_before_the_stream_began_arrives_when_it_is_committed() -> Result<()> {
    let create = "CREATE TABLE person (id INT PRIMARY KEY, name VARCHAR(50), note LONGTEXT)";
    let Some(fixture) = Fixture::new(&[create, "CREATE TABLE other (id INT PRIMARY KEY)"], &["person"]).await? else {
        return Ok(());
    };
    let xa = |verb: &str, name: &str| format!("XA {verb} '{name}-{}'", fixture.database.name);
    // What others have written before is none of what is read again.
    fixture.run(&["FLUSH BINARY LOGS"]).await?;
    // The same name twice: the one before the last is decided already.
    let rolled_back = "INSERT INTO person VALUES (8, 'rolled back', NULL)";
    fixture.run(&[&xa("START", "one"), rolled_back, &xa("END", "one"), &xa("PREPARE", "one")]).await?;
    fixture.run(&[&xa("ROLLBACK", "one")]).await?;
    let insert = "INSERT INTO person VALUES (1, 'early', REPEAT('x', 3000000))";
    fixture.run(&[&xa("START", "one"), insert, &xa("END", "one"), &xa("PREPARE", "one")]).await?;
    let elsewhere = "INSERT INTO other VALUES (1)";
    fixture.run(&[&xa("START", "two"), elsewhere, &xa("END", "two"), &xa("PREPARE", "two")]).await?;
    let mut stream = fixture.open(None).await?;
    fixture.run(&["INSERT INTO person VALUES (2, 'between', NULL)", &xa("COMMIT", "two")]).await?;
    fixture.run(&[&xa("COMMIT", "one"), "INSERT INTO person VALUES (3, 'after', NULL)"]).await?;
    stream.until(3).await?;
    let ids = stream.changes.iter().map(|(_, change)| first_int(change.after.as_ref().expect("an image")));
    assert_eq!(ids.collect::<Vec<_>>(), [2, 1, 3]);
    read_all(&mut stream, &fixture).await
}

/// Each is looked for from the decision back, in one file after the other.
#[tokio::test]
async fn transactions_that_were_prepared_some_files_before_the_stream_arrive_each_as_it_was_prepared_last() -> Result<()>
{
    let Some(fixture) = Fixture::new(&[PERSON, "CREATE TABLE other (id INT PRIMARY KEY)"], &["person"]).await? else {
        return Ok(());
    };
    let xa = |verb: &str, name: &str| format!("XA {verb} '{name}-{}'", fixture.database.name);
    let prepare = async |name: &str, insert: &str| {
        fixture.run(&[&xa("START", name), insert, &xa("END", name), &xa("PREPARE", name)]).await
    };
    let person = |id: u32| format!("INSERT INTO person VALUES ({id}, 'x', NULL)");
    let next_file = "FLUSH BINARY LOGS";
    fixture.run(&[next_file]).await?;
    prepare("one", &person(1)).await?;
    prepare("again", &person(80)).await?;
    fixture.run(&[next_file, &xa("COMMIT", "again")]).await?;
    prepare("two", &person(2)).await?;
    prepare("elsewhere", "INSERT INTO other VALUES (1)").await?;
    prepare("undone", &person(90)).await?;
    fixture.run(&[next_file]).await?;
    prepare("again", &person(3)).await?;
    let mut stream = fixture.open(None).await?;
    fixture.run(&[&person(10), next_file]).await?;
    prepare("late", &person(4)).await?;
    fixture.run(&[&xa("ROLLBACK", "undone")]).await?;
    for name in ["elsewhere", "again", "one"] {
        fixture.run(&[&xa("COMMIT", name)]).await?;
    }
    stream.until(3).await?;
    // Another stream knows nothing of what this one has found.
    let checkpoint = stream.checkpoint.clone();
    let ids = |stream: &Stream| -> Vec<_> {
        stream.changes.iter().map(|(_, change)| first_int(change.after.as_ref().expect("an image"))).collect()
    };
    assert_eq!(ids(&stream), [10, 3, 1]);
    drop(stream);
    let mut stream = fixture.open(Some(&checkpoint)).await?;
    fixture.run(&[&xa("COMMIT", "two"), &xa("COMMIT", "late"), &person(11)]).await?;
    read_all(&mut stream, &fixture).await?;
    assert_eq!(ids(&stream), [2, 4, 11]);
    Ok(())
}

#[tokio::test]
async fn tagged_gtids_are_known() -> Result<()> {
    let Some(fixture) = Fixture::new(&[PERSON], &["person"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let statements = [
        "INSERT INTO person VALUES (1, 'a', NULL)",
        "SET SESSION gtid_next = 'AUTOMATIC:sync_test'",
        "INSERT INTO person VALUES (2, 'b', NULL)",
        "SET SESSION gtid_next = 'AUTOMATIC'",
    ];
    fixture.run(&statements).await?;
    stream.until(2).await?;
    assert!(stream.transactions[1].0.contains(":sync_test:"), "{:?}", stream.transactions);
    let checkpoint = stream.checkpoint.clone();
    drop(stream);
    fixture.run(&["INSERT INTO person VALUES (3, 'c', NULL)"]).await?;
    let mut stream = fixture.open(Some(&checkpoint)).await?;
    read_all(&mut stream, &fixture).await?;
    assert_eq!(stream.changes.len(), 1, "what was taken is not sent again");
    Ok(())
}
