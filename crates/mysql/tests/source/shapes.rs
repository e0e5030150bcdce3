//! Tables of all shapes, changing while they are captured; and ranges of their keys.

use crate::fixture::{Fixture, applied, assert_rows_equal, first_int};
use anyhow::{Result, anyhow};
use mysql_async::prelude::Queryable;
use sync_worker_core::database::Database;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::reader::KeyRange;
use sync_worker_core::row::Row;

#[tokio::test]
async fn definitions_change_in_mid_stream() -> Result<()> {
    let create = "CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(10))";
    let Some(fixture) = Fixture::new(&[create], &["t"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let statements = [
        "INSERT INTO t VALUES (1, 1, 'x')",
        "ALTER TABLE t ADD COLUMN c BIGINT FIRST, MODIFY b VARCHAR(300)",
        "INSERT INTO t VALUES (9, 2, 2, 'y')",
        "ALTER TABLE t DROP COLUMN a, RENAME COLUMN b TO bb",
        "UPDATE t SET bb = 'z' WHERE id = 2",
        "ALTER TABLE t ADD COLUMN g INT GENERATED ALWAYS AS (id + 1) VIRTUAL AFTER c",
        "INSERT INTO t (c, id, bb) VALUES (1, 3, 'w')",
    ];
    // All of it is in the log before the first is read, so the catalog is newer than most.
    fixture.run(&statements).await?;
    stream.until(4).await?;
    let names = |at: usize| -> Vec<_> {
        stream.changes[at]
            .1
            .schema
            .columns
            .iter()
            .map(|column| (column.name.clone(), column.kind.to_string()))
            .collect()
    };
    let own =
        |list: &[(&str, &str)]| -> Vec<_> { list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect() };
    assert_eq!(names(0), own(&[("id", "int(32)"), ("a", "int(32)"), ("b", "text(10)")]));
    assert_eq!(names(1), own(&[("c", "int(64)"), ("id", "int(32)"), ("a", "int(32)"), ("b", "text(300)")]));
    assert_eq!(names(2), own(&[("c", "int(64)"), ("id", "int(32)"), ("bb", "text(300)")]));
    assert_eq!(names(3), names(2));
    assert_eq!(stream.changes[0].1.schema.key, [0]);
    assert_eq!(stream.changes[1].1.schema.key, [1]);
    assert_rows_equal(&applied(&stream, "t")?[2..], &fixture.rows("t").await?[2..]);
    Ok(())
}

#[tokio::test]
async fn generated_columns_are_left_out() -> Result<()> {
    let create = "CREATE TABLE t (v INT GENERATED ALWAYS AS (id * 2) VIRTUAL, id INT PRIMARY KEY, s INT GENERATED ALWAYS AS (id + 1) STORED, n INT, KEY f ((n + 1)))";
    let Some(fixture) = Fixture::new(&[create], &["t"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    fixture
        .run(&["INSERT INTO t (id, n) VALUES (1, 2), (2, NULL)", "UPDATE t SET n = 5", "DELETE FROM t WHERE id = 1"])
        .await?;
    stream.until(5).await?;
    assert_eq!(stream.changes[0].1.schema.columns.len(), 2);
    assert_rows_equal(&applied(&stream, "t")?, &fixture.rows("t").await?);
    Ok(())
}

#[tokio::test]
async fn a_unique_index_without_nulls_is_a_key() -> Result<()> {
    let create =
        "CREATE TABLE t (n INT, code CHAR(4) NOT NULL, part INT NOT NULL, UNIQUE KEY (part, code), UNIQUE KEY (n))";
    let Some(fixture) = Fixture::new(&[create], &["t"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let statements = [
        "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 1), (NULL, 'a', 2)",
        "SET SESSION binlog_row_image = MINIMAL",
        "UPDATE t SET n = 5 WHERE n = 1",
        "UPDATE t SET part = 3 WHERE n = 2",
        "DELETE FROM t WHERE part = 2",
    ];
    fixture.run(&statements).await?;
    stream.until(6).await?;
    assert_eq!(stream.changes[0].1.schema.key, [2, 1]);
    assert_rows_equal(&applied(&stream, "t")?, &fixture.rows("t").await?);
    Ok(())
}

#[tokio::test]
async fn the_key_is_the_one_that_minimal_images_have() -> Result<()> {
    let creates = [
        "CREATE TABLE t (v INT, p VARCHAR(40) NOT NULL, a INT NOT NULL, b INT NOT NULL, UNIQUE y (p(3)), UNIQUE z (a), UNIQUE c (b))",
        "CREATE TABLE g (id INT NOT NULL, v INT, s INT AS (id + 1) STORED NOT NULL, UNIQUE z (s), UNIQUE a (id))",
    ];
    let Some(fixture) = Fixture::new(&creates, &["t", "g"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let minimal = "SET SESSION binlog_row_image = MINIMAL";
    let statements = [minimal, "INSERT INTO t VALUES (1, 'abc', 1, 7)", "UPDATE t SET v = 2", "UPDATE t SET a = 3"];
    fixture.run(&statements).await?;
    stream.until(3).await?;
    let mut reader = fixture.mysql.reader(&fixture.scope).await.map_err(|error| anyhow!("{error:?}"))?;
    let read = reader.schema(&"t".into()).await.map_err(|error| anyhow!("{error:?}"))?;
    assert_eq!((&stream.changes[0].1.schema.key[..], &read.key[..]), (&[2][..], &[2][..]));
    assert_rows_equal(&applied(&stream, "t")?, &fixture.rows("t").await?);
    // A key over a generated column can't be taken, and is all that the log has.
    fixture.run(&[minimal, "INSERT INTO g (id, v) VALUES (1, 1)", "UPDATE g SET v = 2"]).await?;
    let error = stream.refusal().await?;
    assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
    assert!(error.to_string().contains(".g has no key") && error.to_string().contains("ADD PRIMARY KEY"), "{error}");
    Ok(())
}

#[tokio::test]
async fn odd_names_and_invisible_keys_are_read() -> Result<()> {
    let statements = [
        "CREATE TABLE `a.b``\u{fc} ``` (`id ``x` INT PRIMARY KEY, `select` INT DEFAULT 5 INVISIBLE, `\u{4e2d}` INT)",
        "SET SESSION sql_generate_invisible_primary_key = ON",
        "CREATE TABLE hidden (v INT)",
    ];
    let Some(mut fixture) = Fixture::new(&statements, &["hidden"]).await? else { return Ok(()) };
    let mut odd = fixture.scope.tables[0].clone();
    odd.table = "odd".into();
    odd.name = "`a.b``\u{fc} ```".into();
    fixture.scope.tables.push(odd);
    let mut stream = fixture.open(None).await?;
    let insert = "INSERT INTO `a.b``\u{fc} ``` VALUES (1, 2)";
    fixture.run(&["INSERT INTO hidden VALUES (7), (8)", insert, "TRUNCATE `a.b``\u{fc} ```"]).await?;
    stream.until(4).await?;
    assert_eq!(stream.ops(), "ccct");
    assert_rows_equal(&applied(&stream, "hidden")?, &fixture.rows("hidden").await?);
    assert!(fixture.rows("odd").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_moves_rows_without_events_is_a_gap() -> Result<()> {
    let parts = "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))";
    let partitioned = format!("CREATE TABLE t (id INT PRIMARY KEY) {parts}");
    let other = format!("CREATE TABLE other (id INT PRIMARY KEY) {parts}");
    for (statement, named) in [
        ("ALTER TABLE other EXCHANGE PARTITION p1 WITH TABLE t WITHOUT VALIDATION", "moves rows"),
        ("DROP TABLE t", "dropped"),
        ("RENAME TABLE t TO u", "renamed"),
        ("ALTER TABLE t TRUNCATE PARTITION p0", "moves rows"),
    ] {
        let create = if statement.contains("other") { "CREATE TABLE t (id INT PRIMARY KEY)" } else { &partitioned };
        let Some(fixture) = Fixture::new(&[create, &other], &["t"]).await? else { return Ok(()) };
        let mut stream = fixture.open(None).await?;
        fixture.run(&["INSERT INTO t VALUES (1)", statement]).await?;
        let error = stream.refusal().await?;
        assert_eq!(error.class(), ErrorClass::Gap, "{error}");
        assert!(error.to_string().contains(named) && error.to_string().contains(&fixture.database.name), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn statements_instead_of_rows_are_a_gap() -> Result<()> {
    let Some(fixture) = Fixture::new(&["CREATE TABLE t (id INT PRIMARY KEY)"], &["t"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    fixture.run(&["SET SESSION binlog_format = STATEMENT", "INSERT INTO t VALUES (1)"]).await?;
    let error = stream.refusal().await?;
    assert_eq!(error.class(), ErrorClass::Gap, "{error}");
    Ok(())
}

#[tokio::test]
async fn a_file_loaded_in_statement_format_is_a_gap() -> Result<()> {
    let creates = ["CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE other (id INT PRIMARY KEY, v LONGTEXT)"];
    let Some(fixture) = Fixture::new(&creates, &["t"]).await? else { return Ok(()) };
    let mut stream = fixture.open(None).await?;
    let mut conn = fixture.database.connect().await?;
    conn.query_drop("SET GLOBAL local_infile = ON").await?;
    conn.query_drop("SET SESSION binlog_format = STATEMENT").await?;
    // A long file stands in the log in several blocks.
    let long = format!("1\t{}\n", "x".repeat(300_000));
    for (table, content) in [("other", long), ("t", "1\n2\n".to_owned())] {
        let content = futures::stream::iter([Ok(bytes::Bytes::from(content))]);
        conn.set_infile_handler(async { Ok(Box::pin(content) as mysql_async::InfileData) });
        conn.query_drop(format!("LOAD DATA LOCAL INFILE 'rows' INTO TABLE {table}")).await?;
    }
    let error = stream.refusal().await?;
    assert_eq!(error.class(), ErrorClass::Gap, "{error}");
    assert!(error.to_string().contains(&format!("{}.t", fixture.database.name)), "{error}");
    Ok(conn.disconnect().await?)
}

async fn walked(fixture: &Fixture, table: &str, step: u64, bytes: usize) -> Result<Vec<Row>> {
    let failed = |error| anyhow!("{error:?}");
    let mut reader = fixture.mysql.reader(&fixture.scope).await.map_err(failed)?;
    let table = table.into();
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let up_to = reader.boundary(&table, after.as_ref(), step).await.map_err(failed)?;
        let mut range = KeyRange { after: after.clone(), up_to: up_to.clone() };
        loop {
            let chunk = reader.read_range(&table, &range, bytes).await.map_err(failed)?;
            if up_to.is_some() && chunk.cut_at.is_none() && range.after == after {
                assert_eq!(chunk.rows.len() as u64, step);
            }
            rows.extend(chunk.rows);
            match chunk.cut_at {
                Some(key) => range.after = Some(key),
                None => break,
            }
        }
        match up_to {
            Some(key) => after = Some(key),
            None => return Ok(rows),
        }
    }
}

#[tokio::test]
async fn ranges_of_keys_of_all_sorts_cover_a_table() -> Result<()> {
    let creates = [
        "CREATE TABLE i (id BIGINT UNSIGNED PRIMARY KEY, v INT)",
        "CREATE TABLE s (id VARCHAR(20) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, v INT)",
        "CREATE TABLE l (id VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY, v INT)",
        "CREATE TABLE c (a INT, b DATETIME(3), c VARBINARY(10), v INT, PRIMARY KEY (b, c, a))",
        "CREATE TABLE e (k ENUM('z','a','m') NOT NULL, d DECIMAL(10,3) NOT NULL, PRIMARY KEY (k, d))",
        "CREATE TABLE g (k SET('b','a','c') NOT NULL, n INT, PRIMARY KEY (k, n))",
        "CREATE TABLE f (t TIME(2) NOT NULL, f DOUBLE NOT NULL, y DATE NOT NULL, PRIMARY KEY (t, f, y))",
    ];
    let Some(fixture) = Fixture::new(&creates, &["i", "s", "l", "c", "e", "g", "f"]).await? else { return Ok(()) };
    let mut statements = vec!["SET SESSION sql_mode = 'ALLOW_INVALID_DATES'".to_owned()];
    for n in 0..57 {
        let big = u64::MAX - n * 7;
        statements.push(format!("INSERT INTO i VALUES ({big}, {n}), ({n}, {n})"));
        statements
            .push(format!("INSERT INTO s VALUES (CONCAT('k', {}), {n}), (CONCAT('\u{c4}', {n}), 1)", n * 31 % 57));
        statements
            .push(format!("INSERT INTO l VALUES (CONCAT('\u{e4}', {}), {n}), (CONCAT('Z', {n}), 1)", n * 31 % 57));
        statements.push(format!(
            "INSERT INTO c VALUES ({}, '2024-01-0{} 00:00:00.{:03}', X'{:02X}', {n})",
            n % 3,
            1 + n % 4,
            n % 5,
            n
        ));
        statements.push(format!("INSERT INTO e VALUES ({}, {n}.{:03})", 1 + n % 3, n * 17 % 1000));
        statements.push(format!("INSERT INTO g VALUES ({}, {n})", n % 8));
        statements.push(format!(
            "INSERT INTO f VALUES ('{}:00:00.5', {n} / 7, '{}')",
            n as i64 % 5 - 2,
            if n % 2 == 0 { "0000-00-00" } else { "2024-02-31" }
        ));
    }
    fixture.run(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for table in ["i", "s", "l", "c", "e", "g", "f"] {
        let all = fixture.rows(table).await?;
        assert!(all.len() >= 57, "{table}");
        for (step, bytes) in [(1000, 1 << 20), (10, 1 << 20), (7, 20), (1, 1)] {
            let rows = walked(&fixture, table, step, bytes).await?;
            assert_eq!(rows.len(), all.len(), "{table} in steps of {step}");
            assert!(rows.iter().zip(&all).all(|(a, b)| a == b), "{table} in steps of {step}");
        }
        let schema = fixture
            .mysql
            .reader(&fixture.scope)
            .await
            .map_err(|e| anyhow!("{e:?}"))?
            .schema(&table.into())
            .await
            .map_err(|e| anyhow!("{e:?}"))?;
        let keys = all.iter().step_by(3).map(|row| schema.key_of(row)).collect::<Result<Vec<_>, _>>()?;
        let mut reader = fixture.mysql.reader(&fixture.scope).await.map_err(|e| anyhow!("{e:?}"))?;
        let found = reader.read_keys(&table.into(), &keys).await.map_err(|e| anyhow!("{e:?}"))?;
        assert_rows_equal(&found.rows, &all.iter().step_by(3).cloned().collect::<Vec<_>>());
    }
    Ok(())
}

#[tokio::test]
async fn many_keys_are_read_in_one_view() -> Result<()> {
    let Some(fixture) = Fixture::new(&["CREATE TABLE t (id INT PRIMARY KEY)"], &["t"]).await? else { return Ok(()) };
    let fill =
        "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) SELECT i FROM n";
    fixture.run(&["SET SESSION cte_max_recursion_depth = 10000", fill]).await?;
    let rows = fixture.rows("t").await?;
    let failed = |error| anyhow!("{error:?}");
    let mut reader = fixture.mysql.reader(&fixture.scope).await.map_err(failed)?;
    let schema = reader.schema(&"t".into()).await.map_err(failed)?;
    let mut keys = rows.iter().map(|row| schema.key_of(row)).collect::<Result<Vec<_>, _>>()?;
    fixture.run(&["DELETE FROM t WHERE id = 77"]).await?;
    keys.rotate_left(9);
    let chunk = reader.read_keys(&"t".into(), &keys).await.map_err(failed)?;
    assert_eq!(chunk.rows.len(), 2499);
    assert!(chunk.rows.iter().all(|row| first_int(row) != 77));
    Ok(())
}

#[tokio::test]
async fn a_chunk_that_is_cut_keeps_its_connection() -> Result<()> {
    let Some(fixture) = Fixture::new(&["CREATE TABLE t (id INT PRIMARY KEY, v TEXT)"], &["t"]).await? else {
        return Ok(());
    };
    let fill = "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i, REPEAT('x', 100 + i % 50) FROM n";
    fixture.run(&[fill]).await?;
    let failed = |error| anyhow!("{error:?}");
    let mut reader = fixture.mysql.reader(&fixture.scope).await.map_err(failed)?;
    let mut watcher = fixture.database.connect().await?;
    let mut newest = async || -> Result<u64> {
        let query =
            "SELECT MAX(id) FROM information_schema.PROCESSLIST WHERE db = DATABASE() AND id <> CONNECTION_ID()";
        Ok(watcher.query_first(query).await?.unwrap_or(0))
    };
    let (mut range, mut rows, mut connections) = (KeyRange::default(), 0, Vec::new());
    loop {
        let chunk = reader.read_range(&"t".into(), &range, 10_000).await.map_err(failed)?;
        connections.push(newest().await?);
        rows += chunk.rows.len();
        let size: usize = chunk.rows.iter().map(|row| row.as_bytes().len()).sum();
        assert!(size < 20_000, "a chunk of {size} bytes");
        match chunk.cut_at {
            Some(key) => range.after = Some(key),
            None => break,
        }
    }
    assert_eq!(rows, 900);
    // The first cut teaches how long the rows are.
    connections.dedup();
    assert!(connections.len() <= 2, "{connections:?}");
    Ok(())
}
