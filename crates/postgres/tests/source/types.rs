//! Every type at its edges: a row read by a snapshot has the same bytes as the same row in the stream.

use crate::support::Fixture;
use anyhow::Result;
use sync_worker_core::database::Database;
use sync_worker_core::reader::KeyRange;
use sync_worker_testkit::postgres::TestDatabase;

const TYPES: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767"]),
    ("integer", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("real", &["1.1", "-0", "3.4028235e38", "1e-45", "NaN", "Infinity"]),
    ("double precision", &["0.1", "1.7976931348623157e308", "5e-324", "-Infinity"]),
    ("numeric", &["0", "-0.00", "1e-100", "123456789012345678901234567890.123456789", "NaN", "Infinity"]),
    ("numeric(10,2)", &["99999999.99", "-0.01"]),
    ("numeric(5,-2)", &["1200", "12345"]),
    ("text", &["", "a\tb\nc\\d\re", "\\N", "žluťoučký kůň \u{1F40E}", "it's", "\u{1}\u{8}\u{b}\u{c}\u{7f}"]),
    ("character varying(20)", &["x", ""]),
    ("character(5)", &["ab", "abcde"]),
    ("bytea", &["\\x", "\\x00ff5c5c"]),
    ("date", &["2024-02-29", "0001-01-01 BC", "5874897-12-31", "infinity", "-infinity"]),
    ("time", &["00:00:00", "23:59:59.999999", "24:00:00"]),
    ("time(0)", &["12:34:56"]),
    (
        "timestamp",
        &["2024-01-01 00:00:00.000001", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "infinity"],
    ),
    ("timestamptz", &["2024-07-01 12:00:00+02", "1883-11-18 12:03:58-07:52:58", "-infinity"]),
    ("uuid", &["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]),
    ("json", &["{\"b\": 1,  \"a\": [1.10, \"x\\ty\"]}", "null"]),
    ("jsonb", &["{\"b\": 1,  \"a\": [1.10, \"x\\\\y\"]}", "null"]),
    ("bit(5)", &["10101"]),
    ("bit varying", &["", "101"]),
    ("integer[]", &["{}", "{1,NULL,3}", "{{1,2},{3,4}}"]),
    ("text[]", &["{\"a,b\",\"c\\\\\\\"d\",NULL,\"NULL\"}"]),
    ("interval", &["1 year 2 mons -3 days 04:05:06.7", "-00:00:01"]),
    ("inet", &["10.0.0.0/8", "::1"]),
    ("timetz", &["12:00:00+02"]),
    ("money", &["-12.34"]),
    ("int4range", &["[1,5)", "empty"]),
    ("point", &["(1.1,-2)"]),
    ("tsvector", &["'a':1 'b':2"]),
    ("oid", &["4294967295"]),
];

#[tokio::test]
async fn snapshot_and_stream_decode_the_same_bytes() -> Result<()> {
    let database = TestDatabase::create().await?;
    let version: u32 = database.value("SHOW server_version_num").await?.parse()?;
    drop(database);
    // Scales below zero came with PostgreSQL 15.
    let types: Vec<_> = TYPES.iter().filter(|(kind, _)| version >= 150_000 || *kind != "numeric(5,-2)").collect();
    let tables: Vec<String> = (0..types.len()).map(|at| format!("t{at}")).collect();
    let create: Vec<String> = tables
        .iter()
        .zip(&types)
        .map(|(table, (kind, _))| format!("CREATE TABLE {table} (id int PRIMARY KEY, v {kind})"))
        .collect();
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let fixture = Fixture::new(&create.join(";"), &names).await?;
    let mut stream = fixture.stream(None).await?;
    let mut reader = fixture.postgres.reader(&fixture.scope).await.unwrap();
    for (table, (kind, values)) in tables.iter().zip(&types) {
        let insert = format!("INSERT INTO {table} VALUES ($1, $2::text::{kind})");
        let insert = fixture.database.client.prepare_typed(&insert, &[tokio_postgres::types::Type::INT4]).await?;
        for (id, value) in values.iter().map(Some).chain([None]).enumerate() {
            fixture.database.client.execute(&insert, &[&(id as i32), &value.map(|value| value.to_string())]).await?;
        }
        let changes = fixture.read(&mut stream).await?;
        let streamed: Vec<_> = changes.iter().map(|(_, change)| change.after.clone().unwrap()).collect();
        let chunk = reader.read_range(&table.as_str().into(), &KeyRange::default(), usize::MAX).await.unwrap();
        assert_eq!(chunk.rows.len(), values.len() + 1, "{kind}");
        assert!(chunk.rows == streamed, "{kind}: snapshot and stream differ");
        assert_eq!(chunk.schema.id, changes[0].1.schema.id, "{kind}: the schemas differ");
    }
    Ok(())
}
