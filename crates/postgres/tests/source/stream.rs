//! What kinds of change come out of the stream.

use crate::support::Fixture;
use anyhow::Result;
use sync_worker_core::error::ErrorClass;
use sync_worker_core::types::ColumnType;

#[tokio::test]
async fn inserts_updates_and_deletes_come_in_commit_order() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v text)", &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture
        .execute("BEGIN; INSERT INTO t VALUES (1, 'a'), (2, NULL); UPDATE t SET v = 'b' WHERE id = 1; COMMIT")
        .await?;
    fixture.execute("DELETE FROM t WHERE id = 2").await?;
    let changes = fixture.changes(&mut stream).await?;
    assert_eq!(changes, ["0 c id=1 v=a", "1 c id=2 v=NULL", "2 u id=1 v=b", "0 d id=2 v=? ->"]);
    Ok(())
}

#[tokio::test]
async fn a_key_change_brings_the_old_key() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (v text, b int, a int, PRIMARY KEY (a, b))", &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES ('x', 1, 2); UPDATE t SET b = 3").await?;
    let changes = fixture.changes(&mut stream).await?;
    assert_eq!(changes, ["0 c v=x b=1 a=2", "1 u v=? b=1 a=2 -> v=x b=3 a=2"]);
    Ok(())
}

#[tokio::test]
async fn the_key_is_in_the_order_of_its_index() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (v text, b int, a int, PRIMARY KEY (a, b))", &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES ('x', 1, 2)").await?;
    let changes = fixture.read(&mut stream).await?;
    let streamed = &changes[0].1.schema;
    assert_eq!(streamed.key, [2, 1]);
    let mut reader = sync_worker_core::database::Database::reader(&fixture.postgres, &fixture.scope).await.unwrap();
    let read = reader.schema(&"t".into()).await.unwrap();
    assert_eq!(read.id, streamed.id, "snapshot and stream disagree about the schema");
    Ok(())
}

#[tokio::test]
async fn an_unchanged_toast_value_is_unchanged_and_not_null() -> Result<()> {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, n int, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1, 1, repeat('x', 100000))").await?;
    fixture.execute("UPDATE t SET n = 2").await?;
    fixture.execute("ALTER TABLE t REPLICA IDENTITY FULL").await?;
    fixture.execute("UPDATE t SET n = 3").await?;
    let changes = fixture.changes(&mut stream).await?;
    let expected = [
        "0 c id=1 n=1 v=100000 characters",
        "0 u id=1 n=2 v=?",
        "0 u id=1 n=2 v=100000 characters -> id=1 n=3 v=100000 characters",
    ];
    assert_eq!(changes, expected);
    Ok(())
}

#[tokio::test]
async fn a_toasted_key_column_that_does_not_change_is_known() -> Result<()> {
    let sql = "CREATE TABLE t (id text PRIMARY KEY, n int); ALTER TABLE t ALTER id SET STORAGE EXTERNAL";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (repeat('k', 2500), 1); UPDATE t SET n = 2").await?;
    let changes = fixture.changes(&mut stream).await?;
    assert_eq!(changes[1], "1 u id=2500 characters n=? -> id=2500 characters n=2");
    Ok(())
}

#[tokio::test]
async fn full_identity_brings_whole_old_rows() -> Result<()> {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1, 'a'); UPDATE t SET v = NULL; DELETE FROM t").await?;
    let changes = fixture.changes(&mut stream).await?;
    assert_eq!(changes, ["0 c id=1 v=a", "1 u id=1 v=a -> id=1 v=NULL", "2 d id=1 v=NULL ->"]);
    Ok(())
}

#[tokio::test]
async fn a_unique_index_serves_as_the_replica_identity() -> Result<()> {
    let sql = "CREATE TABLE t (v text, code text NOT NULL); CREATE UNIQUE INDEX t_code ON t (code); \
               ALTER TABLE t REPLICA IDENTITY USING INDEX t_code";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES ('a', 'x'); UPDATE t SET code = 'y'; DELETE FROM t").await?;
    let changes = fixture.changes(&mut stream).await?;
    assert_eq!(changes, ["0 c v=a code=x", "1 u v=? code=x -> v=a code=y", "2 d v=? code=y ->"]);
    Ok(())
}

#[tokio::test]
async fn a_truncate_names_each_table_once() -> Result<()> {
    let sql =
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY)";
    let fixture = Fixture::new(sql, &["a", "b"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("BEGIN; INSERT INTO a VALUES (1); TRUNCATE a, b, c; INSERT INTO b VALUES (2); COMMIT").await?;
    let changes = fixture.read(&mut stream).await?;
    let mut tables: Vec<_> = changes.iter().map(|(_, change)| format!("{} {}", change.op, change.table())).collect();
    assert_eq!(tables.len(), 4);
    assert_eq!((tables[0].as_str(), tables[3].as_str()), ("c a", "c b"));
    tables[1..3].sort();
    assert_eq!(tables[1..3], ["t a", "t b"]);
    Ok(())
}

#[tokio::test]
async fn partitions_come_as_their_table() -> Result<()> {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
               CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10); \
               CREATE TABLE t2 (v text, id int PRIMARY KEY); \
               ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (10) TO (20)";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1, 'a'), (11, 'b'); UPDATE t SET id = 12 WHERE id = 1; TRUNCATE t").await?;
    fixture
        .execute("CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (20) TO (30); INSERT INTO t VALUES (21, 'c')")
        .await?;
    let changes = fixture.changes(&mut stream).await?;
    // A row that moves between partitions is a delete and an insert to PostgreSQL.
    let expected = ["0 c id=1 v=a", "1 c id=11 v=b", "2 d id=1 v=? ->", "3 c id=12 v=a", "4 t", "0 c id=21 v=c"];
    assert_eq!(changes, expected);
    Ok(())
}

#[tokio::test]
async fn rows_of_inheriting_tables_are_not_the_parents() -> Result<()> {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (t)";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO child VALUES (1, 'a'); INSERT INTO t VALUES (2, 'b')").await?;
    assert_eq!(fixture.changes(&mut stream).await?, ["0 c id=2 v=b"]);
    Ok(())
}

#[tokio::test]
async fn columns_that_change_in_mid_stream_make_a_new_schema() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY, v varchar(10), w int)", &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1, 'a', 1)").await?;
    fixture.execute("ALTER TABLE t ADD n numeric(10, 2) DEFAULT 1.5").await?;
    fixture.execute("INSERT INTO t VALUES (2, 'b', 2, 2.50)").await?;
    fixture
        .execute("ALTER TABLE t DROP w; ALTER TABLE t RENAME v TO name; ALTER TABLE t ALTER name TYPE varchar(20)")
        .await?;
    fixture.execute("INSERT INTO t VALUES (3, 'c', 3)").await?;
    let changes = fixture.read(&mut stream).await?;
    let schemas: Vec<_> = changes.iter().map(|(_, change)| change.schema.clone()).collect();
    let changes: Vec<_> = changes.iter().map(|(_, change)| crate::support::text(change)).collect();
    let expected = ["c id=1 v=a w=1", "c id=2 v=b w=2 n=Decimal(\"2.50\")", "c id=3 name=c n=Decimal(\"3.00\")"];
    assert_eq!(changes, expected);
    let spelling = |at: usize, name: &str| {
        let schema = &schemas[at];
        schema.columns[schema.column(name).unwrap()].type_name.clone()
    };
    assert_eq!(spelling(0, "v"), "character varying(10)");
    assert_eq!(spelling(2, "name"), "character varying(20)");
    assert_eq!(spelling(2, "n"), "numeric(10,2)");
    Ok(())
}

#[tokio::test]
async fn domains_enums_and_generated_columns_are_told_apart() -> Result<()> {
    let sql = "CREATE TYPE mood AS ENUM ('sad', 'it''s ok'); CREATE DOMAIN money_t AS numeric(8, 2) CHECK (VALUE >= 0); \
               CREATE DOMAIN price AS money_t NOT NULL; \
               CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood, p price, \
                               d numeric GENERATED ALWAYS AS (p * 2) STORED)";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t (m, p) VALUES ('it''s ok', 1.5)").await?;
    let changes = fixture.read(&mut stream).await?;
    let texts: Vec<_> = changes.iter().map(|(_, change)| crate::support::text(change)).collect();
    assert_eq!(texts, ["c id=1 m=it's ok p=Decimal(\"1.50\")"]);
    let schema = &changes[0].1.schema;
    assert_eq!(schema.columns[1].kind, ColumnType::Enum);
    assert_eq!(schema.columns[2].kind, ColumnType::Decimal { precision: Some(8), scale: 2 });
    assert_eq!(schema.columns[2].type_name, "public.price");
    Ok(())
}

#[tokio::test]
async fn rows_that_are_rolled_back_do_not_come() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    let sql = "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT s; INSERT INTO t VALUES (2); ROLLBACK TO s; \
               INSERT INTO t VALUES (3); COMMIT; BEGIN; INSERT INTO t VALUES (4); ROLLBACK";
    fixture.execute(sql).await?;
    assert_eq!(fixture.changes(&mut stream).await?, ["0 c id=1", "1 c id=3"]);
    Ok(())
}

/// Whole rows name no key: the catalog is asked with every description.
#[tokio::test]
async fn another_key_of_a_table_with_whole_rows_is_noticed() -> Result<()> {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, region text NOT NULL); ALTER TABLE t REPLICA IDENTITY FULL";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1, 'eu')").await?;
    assert_eq!(fixture.read(&mut stream).await?[0].1.schema.key, [0]);
    fixture.execute("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, region)").await?;
    fixture.execute("INSERT INTO t VALUES (1, 'us')").await?;
    assert_eq!(fixture.read(&mut stream).await?[0].1.schema.key, [0, 1]);
    Ok(())
}

/// The log would lack what the stream says that it has.
#[tokio::test]
async fn a_partition_with_another_replica_identity_is_refused() -> Result<()> {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
               CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10); ALTER TABLE t REPLICA IDENTITY FULL";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let cure = "ALTER TABLE \"public\".\"t1\" REPLICA IDENTITY FULL";
    let refused = |error: &sync_worker_core::error::Error| {
        let text = error.to_string();
        assert!(error.class() == ErrorClass::Fatal && text.contains("another replica identity"), "{text}");
        text
    };
    let error = fixture.open(None).await.err().expect("it was opened");
    assert!(refused(&error).contains(cure), "{error}");
    fixture.execute("ALTER TABLE t1 REPLICA IDENTITY FULL").await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1, 'a')").await?;
    assert_eq!(fixture.changes(&mut stream).await?, ["0 c id=1 v=a"]);
    // One that comes later has the usual identity.
    fixture
        .execute("CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20); INSERT INTO t VALUES (11, 'b')")
        .await?;
    let error = loop {
        match stream.source.next().await {
            Ok(batch) => assert!(batch.parts.is_empty(), "a change of the new partition was taken"),
            Err(error) => break error,
        }
    };
    refused(&error);
    Ok(())
}
