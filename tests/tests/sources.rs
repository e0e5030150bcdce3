//! What single engines can say in their logs: every form arrives.

use sync_worker_engine::status::{State, Task, TaskStatus};
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::scenario::{Preparation, Scenario};
use sync_worker_tests::wait;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

/// Ten rows of the table of the loads, under way from this engine to another.
async fn items(from: Kind, to: Kind, label: &str) -> anyhow::Result<Scenario> {
    let mut preparation = Preparation::new(Direction { from, to }, label).await?;
    preparation.item(50).await?;
    preparation.streaming().await
}

/// Changes of every kind, by a session that is set up in some way before.
async fn change_after(setting: &str) -> anyhow::Result<()> {
    for to in [Kind::Postgres, Kind::Mysql] {
        let scenario = items(Kind::Mysql, to, "log").await?;
        let mut source = scenario.source.connect().await?;
        source.execute(setting).await?;
        source
            .execute(
                "UPDATE item SET version = 2, note = REPEAT('large', 20000) WHERE id = 3;
                 UPDATE item SET amount = NULL, data = NULL WHERE id IN (3, 4); UPDATE item SET id = 500 WHERE id = 5;
                 DELETE FROM item WHERE id IN (6, 7); INSERT INTO item (id, version, name, state) VALUES (6, 9, 'again', 1)",
            )
            .await?;
        source
            .execute(
                "BEGIN; INSERT INTO item (id, version, name, state) SELECT id + 1000, 1, name, 0 FROM item WHERE id < 40;
                 UPDATE item SET state = 5 WHERE id > 1000; DELETE FROM item WHERE id > 1030; COMMIT",
            )
            .await?;
        scenario.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn mysql_minimal_row_images() -> anyhow::Result<()> {
    change_after("SET SESSION binlog_row_image = 'MINIMAL'").await
}

#[tokio::test]
async fn mysql_row_images_without_blobs() -> anyhow::Result<()> {
    change_after("SET SESSION binlog_row_image = 'NOBLOB'").await
}

#[tokio::test]
async fn mysql_compressed_transactions() -> anyhow::Result<()> {
    change_after("SET SESSION binlog_transaction_compression = ON").await
}

#[tokio::test]
async fn mysql_transactions_with_tagged_gtids() -> anyhow::Result<()> {
    change_after("SET SESSION gtid_next = 'AUTOMATIC:tests'").await
}

#[tokio::test]
async fn mysql_row_events_with_their_statement() -> anyhow::Result<()> {
    change_after("SET SESSION binlog_rows_query_log_events = ON").await
}

#[tokio::test]
async fn mysql_partial_json() -> anyhow::Result<()> {
    for to in [Kind::Postgres, Kind::Mysql] {
        let mut preparation = Preparation::new(Direction { from: Kind::Mysql, to }, "json").await?;
        let table = |kind: Kind| {
            kind.pick(
                "CREATE TABLE doc (id int PRIMARY KEY, body jsonb, note varchar(20))",
                "CREATE TABLE doc (id int PRIMARY KEY, body json, note varchar(20))",
            )
        };
        preparation.table("doc", table(Kind::Mysql), table(to)).await?;
        let scenario = preparation.streaming().await?;
        let mut source = scenario.source.connect().await?;
        source.execute("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'").await?;
        let body =
            r#"JSON_OBJECT('a', 1, 'b', JSON_ARRAY(1, 2, 3), 'c', REPEAT('long', 500), 'd', JSON_OBJECT('e', NULL))"#;
        source.execute(&format!("INSERT INTO doc VALUES (1, {body}, 'x'), (2, {body}, 'y'), (3, NULL, 'z')")).await?;
        for change in [
            "JSON_SET(body, '$.a', 22)",
            "JSON_REPLACE(body, '$.b[1]', 'two')",
            "JSON_REMOVE(body, '$.c')",
            "JSON_SET(body, '$.d.f', JSON_ARRAY(TRUE, 1.5))",
        ] {
            source.execute(&format!("UPDATE doc SET body = {change} WHERE id <= 2")).await?;
        }
        source.execute("UPDATE doc SET note = 'only the note' WHERE id = 2").await?;
        scenario.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn mysql_log_files_that_change_while_the_worker_is_away() -> anyhow::Result<()> {
    for to in [Kind::Postgres, Kind::Mysql] {
        let mut scenario = items(Kind::Mysql, to, "rotate").await?;
        let mut source = scenario.source.connect().await?;
        source.execute("FLUSH BINARY LOGS; UPDATE item SET version = 2 WHERE id < 9; FLUSH BINARY LOGS").await?;
        scenario.equal().await?;
        scenario.worker.terminate().await?;
        source
            .execute("UPDATE item SET version = 3 WHERE id < 9; FLUSH BINARY LOGS; DELETE FROM item WHERE id = 3; FLUSH BINARY LOGS")
            .await?;
        scenario.worker.start()?;
        scenario.worker.until_streaming(LIMIT).await?;
        source.execute("INSERT INTO item (id, version, name, state) VALUES (3, 1, 'again', 1)").await?;
        scenario.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn mysql_gtids_with_gaps_over_a_restart() -> anyhow::Result<()> {
    for to in [Kind::Postgres, Kind::Mysql] {
        let mut scenario = items(Kind::Mysql, to, "gaps").await?;
        let mut source = scenario.source.connect().await?;
        // As after a failover: transactions of another server, not all of them, in no order.
        for number in [7, 3, 9, 4, 30] {
            source
                .execute(&format!(
                    "SET SESSION gtid_next = '{}:{number}'; UPDATE item SET version = version + 1 WHERE id = {number};
                     SET SESSION gtid_next = 'AUTOMATIC'",
                    uuid(&scenario.source.name)
                ))
                .await?;
            if number == 9 {
                scenario.settle().await?;
                scenario.worker.kill().await?;
                scenario.worker.start()?;
            }
        }
        scenario.worker.until_streaming(LIMIT).await?;
        scenario.finish().await?;
    }
    Ok(())
}

/// One that no server has, for a database's name.
fn uuid(name: &str) -> String {
    let tail = name.rsplit('_').next().unwrap_or_default();
    format!("{tail:0>8}-0000-4000-8000-000000000000")
}

#[tokio::test]
async fn mysql_prepared_transactions() -> anyhow::Result<()> {
    for to in [Kind::Postgres, Kind::Mysql] {
        let scenario = items(Kind::Mysql, to, "xa").await?;
        let mut source = scenario.source.connect().await?;
        let name = &scenario.source.name;
        source
            .execute(&format!("XA START '{name}'; UPDATE item SET name = 'prepared' WHERE id = 3; XA END '{name}'; XA PREPARE '{name}'"))
            .await?;
        // It stands in the log and is not visible yet, while others commit.
        scenario.settle().await?;
        assert_eq!(scenario.target.number("SELECT count(*) FROM item WHERE name = 'prepared'").await?, 0);
        source.execute(&format!("XA COMMIT '{name}'")).await?;
        source
            .execute(&format!(
                "XA START '{name}'; DELETE FROM item; XA END '{name}'; XA PREPARE '{name}'; XA ROLLBACK '{name}'"
            ))
            .await?;
        scenario.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn postgres_partitioned_table() -> anyhow::Result<()> {
    for to in [Kind::Postgres, Kind::Mysql] {
        let mut preparation = Preparation::new(Direction { from: Kind::Postgres, to }, "partitions").await?;
        let parts =
            "CREATE TABLE reading (id int, day date, value int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE TABLE reading_1 PARTITION OF reading FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
             CREATE TABLE reading_2 PARTITION OF reading FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')";
        let plain = "CREATE TABLE reading (id int, day date, value int, PRIMARY KEY (id, day))";
        preparation.table("reading", parts, to.pick(parts, plain)).await?;
        preparation
            .source
            .execute("INSERT INTO reading SELECT n, '2026-01-01'::date + n % 50, n FROM generate_series(1, 500) n")
            .await?;
        preparation.pipeline("snapshot_chunk_rows = 60");
        let scenario = preparation.streaming().await?;
        let mut source = scenario.source.connect().await?;
        // A row that moves between partitions, and a partition that comes later.
        source
            .execute("UPDATE reading SET day = '2026-02-20' WHERE id = 1; UPDATE reading SET value = 0 WHERE id < 9")
            .await?;
        source
            .execute("CREATE TABLE reading_3 PARTITION OF reading FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')")
            .await?;
        if to == Kind::Postgres {
            let part = "CREATE TABLE reading_3 PARTITION OF reading FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')";
            scenario.target.execute(part).await?;
        }
        source.execute("INSERT INTO reading VALUES (900, '2026-03-03', 1), (901, '2026-01-03', 1)").await?;
        source
            .execute(
                "DELETE FROM reading WHERE id = 901; TRUNCATE reading; INSERT INTO reading VALUES (5, '2026-02-02', 1)",
            )
            .await?;
        scenario.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn postgres_full_replica_identity_and_a_unique_index_as_key() -> anyhow::Result<()> {
    for to in [Kind::Postgres, Kind::Mysql] {
        let scenario = items(Kind::Postgres, to, "identity").await?;
        let mut source = scenario.source.connect().await?;
        source.execute("ALTER TABLE item REPLICA IDENTITY FULL").await?;
        source
            .execute(
                "UPDATE item SET note = repeat('n', 300000) WHERE id = 4; UPDATE item SET version = 3 WHERE id = 4",
            )
            .await?;
        source.execute("UPDATE item SET id = 400 WHERE id = 4; DELETE FROM item WHERE id = 5").await?;
        source.execute("ALTER TABLE item REPLICA IDENTITY DEFAULT; UPDATE item SET version = 5 WHERE id < 20").await?;
        scenario.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn postgres_subtransactions_of_a_streamed_transaction() -> anyhow::Result<()> {
    for to in [Kind::Postgres, Kind::Mysql] {
        let mut preparation = Preparation::new(Direction { from: Kind::Postgres, to }, "subs").await?;
        preparation.item(100).await?;
        let name = &preparation.source.name;
        preparation.source.execute(&format!("ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")).await?;
        let scenario = preparation.streaming().await?;
        let insert = |from: i32| {
            format!(
                "INSERT INTO item (id, version, name, state, note)
                 SELECT n, 1, 'bulk', 0, repeat(n::text, 20) FROM generate_series({from}, {}) n;",
                from + 2_999
            )
        };
        // Two of them interleave on the server's log; some of their parts never happen.
        let (mut one, mut other) = (scenario.source.connect().await?, scenario.source.connect().await?);
        one.execute(&format!("BEGIN; {} SAVEPOINT a; {}", insert(10_000), insert(20_000))).await?;
        other
            .execute(&format!("BEGIN; {} SAVEPOINT a; UPDATE item SET state = 7 WHERE id >= 50000", insert(50_000)))
            .await?;
        one.execute(&format!(
            "ROLLBACK TO SAVEPOINT a; {} SAVEPOINT b; DELETE FROM item WHERE id < 11000 AND id >= 10000",
            insert(30_000)
        ))
        .await?;
        other.execute("ROLLBACK TO SAVEPOINT a; UPDATE item SET state = 8 WHERE id >= 52000").await?;
        one.execute("RELEASE SAVEPOINT b; COMMIT").await?;
        other.execute("COMMIT").await?;
        one.execute(&format!("BEGIN; {} ROLLBACK", insert(70_000))).await?;
        scenario.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn postgres_slot_that_was_dropped_is_a_gap() -> anyhow::Result<()> {
    let mut scenario = items(Kind::Postgres, Kind::Mysql, "slot").await?;
    scenario.worker.terminate().await?;
    let name = &scenario.source.name;
    let drop =
        format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{name}'");
    let mut source = scenario.source.connect().await?;
    wait::until("the slot to be free", LIMIT, async || Ok(source.execute(&drop).await.ok())).await?;
    source.execute("UPDATE item SET version = 77 WHERE id = 7").await?;
    scenario.worker.start()?;
    let gap = |tasks: &[TaskStatus]| tasks.iter().any(|task| task.task == Task::Capture && task.state == State::Gap);
    let tasks = scenario.worker.until("the GAP", LIMIT, gap).await?;
    assert!(tasks.iter().any(|task| task.reason.contains("slot") && task.reason.contains("snapshot")), "{tasks:#?}");
    assert!(!scenario.worker.terminate().await?.success());
    assert_eq!(scenario.target.number("SELECT count(*) FROM item WHERE version = 77").await?, 0);
    scenario.worker.quiet();
    Ok(())
}
