//! Chunks and keys, and what they see.

use crate::support::{Fixture, row};
use anyhow::Result;
use sync_worker_core::database::Database;
use sync_worker_core::reader::{Chunk, KeyRange, TableReader};
use sync_worker_core::row::Key;

fn texts(chunk: &Chunk) -> Vec<String> {
    chunk.rows.iter().map(|one| row(&chunk.schema, one)).collect()
}

async fn reader(fixture: &Fixture) -> Box<dyn TableReader> {
    fixture.postgres.reader(&fixture.scope).await.unwrap()
}

#[tokio::test]
async fn chunks_cover_a_table_in_key_order() -> Result<()> {
    let sql = "CREATE TABLE t (v text, b text COLLATE \"C\", a int, PRIMARY KEY (a, b)); \
               INSERT INTO t SELECT 'v' || n, n % 7, n / 7 FROM generate_series(0, 999) n";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut reader = reader(&fixture).await;
    let table = "t".into();
    let (mut after, mut seen) = (None::<Key>, Vec::new());
    loop {
        let up_to = reader.boundary(&table, after.as_ref(), 64).await.unwrap();
        let range = KeyRange { after: after.clone(), up_to: up_to.clone() };
        let chunk = reader.read_range(&table, &range, usize::MAX).await.unwrap();
        assert_eq!(chunk.rows.len(), if up_to.is_some() { 64 } else { 1000 % 64 });
        seen.extend(texts(&chunk));
        after = up_to;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..1000).map(|n| format!("v=v{n} b={} a={}", n % 7, n / 7)).collect();
    assert_eq!(seen, expected);
    Ok(())
}

#[tokio::test]
async fn a_chunk_above_its_bytes_is_cut_and_goes_on() -> Result<()> {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 3000) n";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut reader = reader(&fixture).await;
    let mut range = KeyRange::default();
    let (mut rows, mut cuts) = (0, 0);
    loop {
        let chunk = reader.read_range(&"t".into(), &range, 500_000).await.unwrap();
        rows += chunk.rows.len();
        assert!(chunk.rows.len() < 600);
        match chunk.cut_at {
            Some(key) => range.after = Some(key),
            None => break,
        }
        cuts += 1;
    }
    assert_eq!((rows, cuts), (3000, 6));
    Ok(())
}

#[tokio::test]
async fn keys_of_every_type_find_their_rows() -> Result<()> {
    for (kind, values) in [
        ("text", "'it''s', '\\', 'ž', ''"),
        ("bigint", "'-9223372036854775808', '0', '9223372036854775807'"),
        ("numeric", "'1.10', '-0.5', 'NaN'"),
        ("float8", "0.1, '-Infinity', 'NaN', 1e300"),
        ("timestamptz", "'2024-01-01 00:00:00.5+02', 'infinity', '0044-03-15 BC'"),
        ("date", "'2024-02-29', '-infinity'"),
        ("uuid", "'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'"),
        ("bytea", "'\\x00ff', ''"),
        ("character(5)", "'ab', 'abcde'"),
        ("inet", "'10.0.0.1', '::1/64'"),
        ("interval", "'1 year -2 days', '-00:00:01.5'"),
        ("mood", "'sad', 'it''s ok'"),
        ("bit(3)", "B'010', B'111'"),
        ("time", "'00:00', '24:00'"),
    ] {
        let values: Vec<String> = values.split(", ").map(|value| format!("({value}::{kind})")).collect();
        let sql = format!(
            "CREATE TYPE mood AS ENUM ('sad', 'it''s ok'); CREATE TABLE t (id {kind} PRIMARY KEY); INSERT INTO t VALUES {}",
            values.join(", ")
        );
        let fixture = Fixture::new(&sql, &["t"]).await?;
        let mut reader = reader(&fixture).await;
        let all = reader.read_range(&"t".into(), &KeyRange::default(), usize::MAX).await.unwrap();
        let keys: Vec<Key> = all.rows.iter().map(|row| all.schema.key_of(row).unwrap()).collect();
        assert_eq!(keys.len(), values.len(), "{kind}");
        let found = reader.read_keys(&"t".into(), &keys).await.unwrap();
        assert_eq!(found.rows.len(), keys.len(), "{kind}");
        for (place, key) in keys.iter().enumerate() {
            let range = KeyRange { after: Some(key.clone()), up_to: None };
            let rest = reader.read_range(&"t".into(), &range, usize::MAX).await.unwrap();
            assert!(rest.rows == all.rows[place + 1..], "{kind} after the {place}th");
            let boundary = reader.boundary(&"t".into(), None, place as u64 + 1).await.unwrap();
            assert_eq!(boundary.as_ref(), Some(key), "{kind}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn keys_that_do_not_exist_are_left_out() -> Result<()> {
    let sql = "CREATE TABLE t (a int, b text, PRIMARY KEY (a, b)); INSERT INTO t SELECT n, 'x' FROM generate_series(1, 2000) n";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut reader = reader(&fixture).await;
    let all = reader.read_range(&"t".into(), &KeyRange::default(), usize::MAX).await.unwrap();
    let keys: Vec<Key> = all.rows.iter().map(|row| all.schema.key_of(row).unwrap()).collect();
    fixture.execute("DELETE FROM t WHERE a % 2 = 0").await?;
    let found = reader.read_keys(&"t".into(), &keys).await.unwrap();
    assert_eq!(found.rows.len(), 1000);
    assert!(reader.read_keys(&"t".into(), &[]).await.unwrap().rows.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_estimate_knows_tables_that_nobody_analyzed() -> Result<()> {
    let sql = "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id); \
               CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10000) WITH (autovacuum_enabled = off); \
               INSERT INTO t SELECT generate_series(1, 5000)";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let estimate = reader(&fixture).await.estimate(&"t".into()).await.unwrap();
    assert!((1000..20_000).contains(&estimate), "{estimate}");
    Ok(())
}

#[tokio::test]
async fn snapshots_of_several_chunks_run_in_parallel() -> Result<()> {
    let sql =
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'x' FROM generate_series(1, 50000) n";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut readers = [reader(&fixture).await, reader(&fixture).await, reader(&fixture).await];
    let middle = readers[0].boundary(&"t".into(), None, 25_000).await.unwrap();
    let ranges = [
        KeyRange { after: None, up_to: middle.clone() },
        KeyRange { after: middle.clone(), up_to: None },
        KeyRange { after: middle.clone(), up_to: middle },
    ];
    let table = "t".into();
    let reads = readers.iter_mut().zip(&ranges).map(|(reader, range)| reader.read_range(&table, range, usize::MAX));
    let chunks = futures::future::join_all(reads).await;
    let rows: Vec<usize> = chunks.into_iter().map(|chunk| chunk.unwrap().rows.len()).collect();
    assert_eq!(rows, [25_000, 25_000, 0]);
    Ok(())
}
