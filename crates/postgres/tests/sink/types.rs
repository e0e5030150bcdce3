//! Every type at its edges, by insert, by update and by key.

use crate::fixture::*;
use sync_worker_core::value::Value;
use sync_worker_core::value::Value::{
    Bits, Bool, Bytes, Date, Decimal, Float32, Float64, Int, Json, Null, Raw, Text, Time, Timestamp, TimestampTz, Uuid,
};
use sync_worker_postgres::client::literal;

/// A type, values, and how PostgreSQL prints them.
type Cases<'a> = &'a [(&'a str, &'a [(Value<'a>, &'a str)])];

const DAY: i64 = 86_400_000_000;

const CASES: Cases<'static> = &[
    ("boolean", &[(Bool(true), "true"), (Bool(false), "false")]),
    ("smallint", &[(Int(-32_768), "-32768"), (Int(32_767), "32767")]),
    ("integer", &[(Int(-2_147_483_648), "-2147483648"), (Int(2_147_483_647), "2147483647")]),
    ("bigint", &[(Int(i64::MIN), "-9223372036854775808"), (Int(i64::MAX), "9223372036854775807")]),
    (
        "real",
        &[
            (Float32(1.5e-45), "1e-45"),
            (Float32(f32::MAX), "3.4028235e+38"),
            (Float32(f32::NAN), "NaN"),
            (Float32(f32::NEG_INFINITY), "-Infinity"),
            (Float32(0.1), "0.1"),
        ],
    ),
    (
        "double precision",
        &[
            (Float64(5e-324), "5e-324"),
            (Float64(f64::MAX), "1.7976931348623157e+308"),
            (Float64(f64::NAN), "NaN"),
            (Float64(0.1), "0.1"),
        ],
    ),
    (
        "numeric",
        &[
            (Decimal("7"), "7"),
            (Decimal("0.000"), "0.000"),
            (Decimal("-1.10"), "-1.10"),
            (Decimal("10000"), "10000"),
            (
                Decimal("99999999999999999999999999999999999999.000000000000000000001"),
                "99999999999999999999999999999999999999.000000000000000000001",
            ),
            (Decimal("-0.00000000000000000000000000000012"), "-0.00000000000000000000000000000012"),
            (Decimal("120000000000000000000000000000000000"), "120000000000000000000000000000000000"),
            (Decimal("NaN"), "NaN"),
            (Decimal("Infinity"), "Infinity"),
            (Decimal("-Infinity"), "-Infinity"),
        ],
    ),
    ("numeric(10,2)", &[(Decimal("-12345678.90"), "-12345678.90"), (Decimal("0.05"), "0.05"), (Decimal("NaN"), "NaN")]),
    (
        "text",
        &[
            (Text(""), ""),
            (Text("Žluťoučký \u{1F40E}\n\t'\"\\{},"), "Žluťoučký \u{1F40E}\n\t'\"\\{},"),
            (Text("NULL"), "NULL"),
        ],
    ),
    ("varchar(5)", &[(Text("žžžžž"), "žžžžž"), (Text(" "), " ")]),
    ("char(3)", &[(Text("ab "), "ab"), (Text("abc"), "abc")]),
    ("bytea", &[(Bytes(b""), "\\x"), (Bytes(&[0, 255, 92, 39]), "\\x00ff5c27")]),
    (
        "date",
        &[
            (Date(0), "1970-01-01"),
            (Date(-2_440_588), "4714-11-24 BC"),
            (Date(2145042905), "5874897-12-31"),
            (Date(i32::MAX), "infinity"),
            (Date(i32::MIN), "-infinity"),
            (Date(11_016), "2000-02-29"),
        ],
    ),
    ("time", &[(Time(0), "00:00:00"), (Time(DAY), "24:00:00"), (Time(DAY - 1), "23:59:59.999999")]),
    (
        "timestamp",
        &[
            (Timestamp(0), "1970-01-01 00:00:00"),
            (Timestamp(-1), "1969-12-31 23:59:59.999999"),
            (Timestamp(-210_866_803_200_000_000), "4714-11-24 00:00:00 BC"),
            (Timestamp(i64::MAX), "infinity"),
            (Timestamp(i64::MIN), "-infinity"),
        ],
    ),
    ("timestamp(3)", &[(Timestamp(1_000), "1970-01-01 00:00:00.001")]),
    (
        "timestamptz",
        &[
            (TimestampTz(1_700_000_000_123_456), "2023-11-14 22:13:20.123456+00"),
            (TimestampTz(i64::MAX), "infinity"),
            (TimestampTz(i64::MIN), "-infinity"),
        ],
    ),
    ("uuid", &[(Uuid([0xA5; 16]), "a5a5a5a5-a5a5-a5a5-a5a5-a5a5a5a5a5a5")]),
    ("json", &[(Json("{\"b\": 1,  \"a\": [null]}"), "{\"b\": 1,  \"a\": [null]}"), (Json("null"), "null")]),
    ("jsonb", &[(Json("{\"b\": 1,  \"a\": [null, 1.10]}"), "{\"a\": [null, 1.10], \"b\": 1}")]),
    ("mood", &[(Text("it's"), "it's"), (Text("so so"), "so so")]),
    ("bit(3)", &[(Bits("010"), "010")]),
    (
        "bit(70)",
        &[(
            Bits("0000000000000000000000000000000000000000000000000000000000000000000001"),
            "0000000000000000000000000000000000000000000000000000000000000000000001",
        )],
    ),
    ("bit varying(5)", &[(Bits(""), ""), (Bits("10101"), "10101")]),
    ("positive", &[(Int(5), "5")]),
    ("integer[]", &[(Raw(b"{1,NULL,3}"), "{1,NULL,3}"), (Raw(b"{}"), "{}")]),
    ("text[]", &[(Raw(b"{a,\"b c\",\"\\\"\"}"), "{a,\"b c\",\"\\\"\"}")]),
    ("mood[]", &[(Raw(b"{\"so so\"}"), "{\"so so\"}")]),
    ("interval", &[(Raw(b"P1Y2M3DT4H5M6.789S"), "P1Y2M3DT4H5M6.789S"), (Raw(b"P-1D"), "P-1D")]),
    ("inet", &[(Raw(b"10.0.0.1/8"), "10.0.0.1/8")]),
    ("timetz", &[(Raw(b"01:02:03+05:30"), "01:02:03+05:30")]),
    ("point", &[(Raw(b"(1,2)"), "(1,2)")]),
    ("int4range", &[(Raw(b"[1,5)"), "[1,5)")]),
    ("tsvector", &[(Raw(b"'a':1 'b':2"), "'a':1 'b':2")]),
    ("xml", &[(Raw(b"<a>b</a>"), "<a>b</a>")]),
    ("pair", &[(Raw(b"(1,\"x y\")"), "(1,\"x y\")")]),
];

const MADE: &str = "CREATE TYPE mood AS ENUM ('it''s', 'so so'); CREATE DOMAIN small AS integer; \
                    CREATE DOMAIN positive AS small CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b text)";

#[test]
fn values_of_every_type_arrive_as_they_are() {
    on_server(async |target| {
        target.sql(MADE).await;
        for (kind, cases) in CASES {
            target.sql(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v {kind})")).await;
            let t = target.schema("t").await;
            let mut applier = target.applier(&["t"]).await;
            let ids = (1..).zip(*cases).collect::<Vec<_>>();
            let mut rows: Vec<_> = ids.iter().map(|(id, (value, _))| create(&t, &[Int(*id), *value])).collect();
            rows.push(create(&t, &[Int(0), Null]));
            let mut expected = vec!["(0,)".to_owned()];
            for (id, (_, text)) in &ids {
                let sql = format!("SELECT ROW({id}, {})::text", literal(text));
                expected.push(target.client.value("a look", &sql).await.unwrap().unwrap());
            }
            expected.sort();
            let applied = applier.apply(rows).await;
            assert!(!applied.row_by_row, "{kind}");
            let look = "SELECT id, v::text FROM t";
            assert_eq!(target.rows(look).await, expected, "{kind} by insert");
            target.sql("UPDATE t SET v = NULL").await;
            let rows = ids.iter().map(|(id, (value, _))| update(&t, &[Int(*id), *value])).collect();
            assert!(!applier.apply(rows).await.row_by_row, "{kind}");
            assert_eq!(target.rows(look).await, expected, "{kind} by update");
            target.sql("UPDATE t SET v = NULL").await;
            let rows = ids.iter().map(|(id, (value, _))| read(&t, &[Int(*id), *value])).collect();
            assert!(!applier.apply(rows).await.row_by_row, "{kind}");
            assert_eq!(target.rows(look).await, expected, "{kind} by snapshot");
            target.sql("DELETE FROM sync_worker.progress").await;
        }
    });
}

#[test]
fn keys_of_every_type_find_their_row() {
    on_server(async |target| {
        target.sql(MADE).await;
        for (kind, cases) in CASES {
            // Types that have no order have no key.
            if ["json", "point", "xml"].contains(kind) {
                continue;
            }
            target.sql(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (k {kind} PRIMARY KEY, v int)")).await;
            let t = target.schema("t").await;
            let mut applier = target.applier(&["t"]).await;
            applier.apply(cases.iter().map(|(key, _)| create(&t, &[*key, Int(1)])).collect()).await;
            let applied = applier.apply(cases.iter().map(|(key, _)| update(&t, &[*key, Int(2)])).collect()).await;
            assert_eq!((applied.missing, applied.row_by_row), (0, false), "{kind}");
            assert_eq!(
                target.rows("SELECT v, count(*) FROM t GROUP BY 1").await,
                [format!("(2,{})", cases.len())],
                "{kind}"
            );
            let applied = applier.apply(cases.iter().map(|(key, _)| delete(&t, &[*key])).collect()).await;
            assert_eq!((applied.missing, applied.row_by_row), (0, false), "{kind}");
            assert!(target.table("t").await.is_empty(), "{kind}");
            target.sql("DELETE FROM sync_worker.progress").await;
        }
    });
}
