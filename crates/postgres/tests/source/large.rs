//! Transactions above the server's `logical_decoding_work_mem`, streamed in progress and spilled here.

use crate::support::Fixture;
use anyhow::Result;
use sync_worker_core::change::Change;
use sync_worker_core::position::Position;

/// More than the 64 kB below.
const ROWS: i64 = 20_000;

async fn fixture() -> Result<Fixture> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)", &["t"]).await?;
    // Of the database, so that the walsender takes it when it connects.
    let name = &fixture.database.name;
    fixture.execute(&format!("ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")).await?;
    Ok(fixture)
}

#[tokio::test]
async fn a_large_transaction_comes_whole_and_in_bounded_parts() -> Result<()> {
    let fixture = fixture().await?;
    let mut stream = fixture.stream(None).await?;
    let sql = format!("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, {ROWS}) n");
    fixture.execute(&sql).await?;
    let rows = fixture.read(&mut stream).await?;
    assert!(rows.iter().map(|(position, _)| position.ordinal()).eq(0..ROWS as u64), "{} rows", rows.len());
    assert!(stream.parts > 3, "one transaction in {} parts", stream.parts);
    let streamed = "SELECT stream_txns > 0 FROM pg_stat_replication_slots JOIN pg_replication_slots USING (slot_name) \
                   WHERE database = current_database()";
    assert_eq!(fixture.database.value(streamed).await?, "t", "the server did not stream the transaction in progress");
    assert_eq!(std::fs::read_dir(&fixture.scope.spill)?.count(), 0, "its file stays behind");
    Ok(())
}

#[tokio::test]
async fn aborted_subtransactions_are_dropped_and_ordinals_have_no_hole() -> Result<()> {
    let fixture = fixture().await?;
    let mut stream = fixture.stream(None).await?;
    let insert =
        |from: i64, to: i64| format!("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series({from}, {to}) n;");
    let sql = format!(
        "BEGIN; {} SAVEPOINT a; {} SAVEPOINT b; {} ROLLBACK TO a; {} RELEASE a; {} COMMIT",
        insert(1, 5_000),
        insert(5_001, 10_000),
        insert(10_001, 15_000),
        insert(15_001, 20_000),
        insert(20_001, 20_010),
    );
    fixture.execute(&sql).await?;
    let rows = fixture.read(&mut stream).await?;
    assert!(rows.iter().map(|(position, _)| position.ordinal()).eq(0..10_010), "{} rows", rows.len());
    let rows: Vec<String> = rows.iter().map(|(_, change)| crate::support::text(change)).collect();
    let ids = (1..=5_000).chain(15_001..=20_010);
    let expected: Vec<String> = ids.map(|id| format!("c id={id} v=200 characters")).collect();
    assert!(rows == expected, "other rows than those that were committed");
    Ok(())
}

#[tokio::test]
async fn concurrent_large_transactions_come_in_commit_order() -> Result<()> {
    let fixture = fixture().await?;
    let mut stream = fixture.stream(None).await?;
    let one = fixture.database.connect().await?;
    let other = fixture.database.connect().await?;
    one.batch_execute("BEGIN").await?;
    other.batch_execute("BEGIN").await?;
    for chunk in 0..10 {
        let insert = |base: i32| {
            let from = base + chunk * 500;
            format!("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series({from}, {}) n", from + 499)
        };
        one.batch_execute(&insert(0)).await?;
        other.batch_execute(&insert(100_000)).await?;
    }
    fixture.execute("INSERT INTO t VALUES (999999, 'small')").await?;
    other.batch_execute("COMMIT").await?;
    one.batch_execute("COMMIT").await?;
    let changes = fixture.changes(&mut stream).await?;
    assert_eq!(changes.len(), 10_001);
    assert_eq!(changes[0], "0 c id=999999 v=small");
    assert_eq!(changes[1], "0 c id=100000 v=200 characters");
    assert_eq!(changes[5_001], "0 c id=0 v=200 characters");
    Ok(())
}

#[tokio::test]
async fn a_large_transaction_that_is_rolled_back_leaves_nothing() -> Result<()> {
    let fixture = fixture().await?;
    let mut stream = fixture.stream(None).await?;
    let insert = format!("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, {ROWS}) n");
    fixture.execute(&format!("BEGIN; {insert}; ROLLBACK; INSERT INTO t VALUES (1, 'a')")).await?;
    assert_eq!(fixture.changes(&mut stream).await?, ["0 c id=1 v=a"]);
    assert_eq!(std::fs::read_dir(&fixture.scope.spill)?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn columns_may_change_inside_a_large_transaction() -> Result<()> {
    let fixture = fixture().await?;
    let mut stream = fixture.stream(None).await?;
    let insert = |from: i64, more: &str| {
        format!("INSERT INTO t SELECT n, repeat('x', 200){more} FROM generate_series({from}, {}) n;", from + 4_999)
    };
    let sql = format!(
        "BEGIN; {} SAVEPOINT s; ALTER TABLE t ADD w int; {} ROLLBACK TO s; ALTER TABLE t ADD z int; {} COMMIT; \
         INSERT INTO t VALUES (0, 'after', 1)",
        insert(1, ""),
        insert(10_001, ", n"),
        insert(20_001, ", n"),
    );
    fixture.execute(&sql).await?;
    let changes = fixture.changes(&mut stream).await?;
    assert_eq!(changes.len(), 10_001);
    assert_eq!(changes[4_999], "4999 c id=5000 v=200 characters");
    assert_eq!(changes[5_000], "5000 c id=20001 v=200 characters z=20001");
    assert_eq!(changes[10_000], "0 c id=0 v=after z=1");
    Ok(())
}

#[tokio::test]
async fn a_large_transaction_has_the_same_positions_when_it_is_sent_again() -> Result<()> {
    let fixture = fixture().await?;
    let mut stream = fixture.stream(None).await?;
    let start = stream.checkpoint.clone();
    fixture.execute(&format!("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, {ROWS}) n")).await?;
    let first = fixture.read(&mut stream).await?;
    drop(stream);
    let mut again = fixture.stream(Some(&start)).await?;
    let second = fixture.read(&mut again).await?;
    let texts = |rows: &[(Position, Change)]| -> Vec<_> {
        rows.iter().map(|(position, change)| (*position, crate::support::text(change))).collect()
    };
    assert!(texts(&first) == texts(&second), "{} and {} rows", first.len(), second.len());
    Ok(())
}
