//! Fields of documents with a column and what it shows of each; and those that the column refuses.

use crate::columns::{NOON, binary, date, decimal};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Bson, JavaScriptCodeWithScope, Regex, Timestamp, bson, doc};
use sync_worker_tests::kind::Kind;

/// A column's type, the field, and the column's value as text.
type Held = (&'static str, Bson, Option<&'static str>);

const OBJECT_ID: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

fn text(value: &str) -> Bson {
    Bson::String(value.to_owned())
}

fn object_id() -> Bson {
    Bson::ObjectId(ObjectId::from_bytes(OBJECT_ID))
}

fn uuid() -> Bson {
    binary(BinarySubtype::Uuid, &[7; 16])
}

pub fn held(by: Kind) -> Vec<Held> {
    let pick = |postgres: &'static str, mysql: &'static str| by.pick(postgres, mysql);
    let text_type = pick("text", "longtext character set utf8mb4");
    let json = pick("jsonb", "json");
    let bytes = pick("bytea", "varbinary(20)");
    let double = pick("double precision", "double");
    let stamp = pick("timestamp", "datetime(6)");
    vec![
        // Numbers of any type where they fit exactly.
        ("bigint", Bson::Int32(i32::MIN), Some("-2147483648")),
        ("bigint", Bson::Int64(i64::MIN), Some("-9223372036854775808")),
        ("bigint", Bson::Double(9_007_199_254_740_992.0), Some("9007199254740992")),
        ("bigint", decimal("1E3"), Some("1000")),
        ("smallint", Bson::Int64(-32_768), Some("-32768")),
        ("integer", Bson::Double(-0.0), Some("0")),
        (double, Bson::Double(0.5), Some("0.5")),
        (double, Bson::Int32(7), Some("7")),
        (pick("real", "float"), Bson::Double(0.25), Some("0.25")),
        ("numeric(20,3)", decimal("-1.5"), Some("-1.500")),
        ("numeric(20,3)", Bson::Int64(i64::MAX / 1_000), Some("9223372036854775.000")),
        (pick("boolean", "tinyint(1)"), Bson::Boolean(true), Some(pick("true", "1"))),
        (pick("boolean", "tinyint(1)"), Bson::Int32(0), Some(pick("false", "0"))),
        // Texts, and what has one text.
        (text_type, text("žluťoučký 🐎"), Some("žluťoučký 🐎")),
        (text_type, text(""), Some("")),
        (text_type, object_id(), Some("000102030405060708090a0b")),
        (text_type, uuid(), Some("07070707-0707-0707-0707-070707070707")),
        ("varchar(3)", text("abc"), Some("abc")),
        (bytes, object_id(), Some(pick("\\x000102030405060708090a0b", "000102030405060708090a0b"))),
        (bytes, binary(BinarySubtype::Generic, &[0, 255]), Some(pick("\\x00ff", "00ff"))),
        (bytes, uuid(), Some(pick("\\x07070707070707070707070707070707", "07070707070707070707070707070707"))),
        // Times.
        (stamp, date(NOON + 1), Some(pick("2024-02-29 12:00:00.001", "2024-02-29 12:00:00.001000"))),
        (stamp, text("2024-02-29T12:00:00.000001"), Some("2024-02-29 12:00:00.000001")),
        ("date", date(NOON - 43_200_000), Some("2024-02-29")),
        (pick("time", "time(6)"), text("23:59:59.000001"), Some("23:59:59.000001")),
        // Anything at all as JSON.
        (json, bson!({ "a": [1, 2.5, null, "x"] }), Some(r#"{"a": [1, 2.5, null, "x"]}"#)),
        (json, bson!([]), Some("[]")),
        (json, text("x"), Some("\"x\"")),
        (json, Bson::Boolean(true), Some("true")),
        (json, object_id(), Some(r#"{"$oid": "000102030405060708090a0b"}"#)),
        (json, decimal("1.50"), Some(r#"{"$numberDecimal": "1.50"}"#)),
        (json, date(-1), Some(r#"{"$date": {"$numberLong": "-1"}}"#)),
        (json, Bson::MinKey, Some(r#"{"$minKey": 1}"#)),
        (json, Bson::MaxKey, Some(r#"{"$maxKey": 1}"#)),
        (json, Bson::Timestamp(Timestamp { time: 1, increment: 2 }), Some(r#"{"$timestamp": {"i": 2, "t": 1}}"#)),
        (json, Bson::JavaScriptCode("f()".to_owned()), Some(r#"{"$code": "f()"}"#)),
        (
            json,
            Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "f()".to_owned(), scope: doc! { "a": 1 } }),
            Some(r#"{"$code": "f()", "$scope": {"a": 1}}"#),
        ),
        (json, Bson::Symbol("s".to_owned()), Some(r#"{"$symbol": "s"}"#)),
        (json, Bson::Double(f64::NAN), Some(r#"{"$numberDouble": "NaN"}"#)),
        (json, regex(), Some(r#"{"$regularExpression": {"options": "i", "pattern": "^a"}}"#)),
        // Nothing.
        ("integer", Bson::Null, None),
        (json, Bson::Null, None),
        (text_type, Bson::Undefined, None),
    ]
}

fn regex() -> Bson {
    let expression =
        || Some(Bson::RegularExpression(Regex { pattern: "^a".try_into().ok()?, options: "i".try_into().ok()? }));
    expression().unwrap_or(Bson::Undefined)
}

pub fn refused(by: Kind) -> Vec<(&'static str, Bson)> {
    let pick = |postgres: &'static str, mysql: &'static str| by.pick(postgres, mysql);
    let text_type = pick("text", "longtext character set utf8mb4");
    let stamp = pick("timestamp(0)", "datetime(0)");
    let mut values = vec![
        ("integer", Bson::Int64(1 << 31)),
        ("integer", Bson::Double(1.5)),
        ("integer", decimal("0.5")),
        ("integer", text("1")),
        ("bigint", Bson::Double(9_223_372_036_854_775_808.0)),
        ("bigint", Bson::Boolean(true)),
        (pick("real", "float"), Bson::Double(0.1)),
        (pick("real", "float"), Bson::Int64(i64::MIN)),
        ("numeric(5,2)", decimal("1.005")),
        ("numeric(5,2)", decimal("1000")),
        ("numeric(5,2)", Bson::Double(0.5)),
        (text_type, Bson::Int32(1)),
        (text_type, bson!({ "a": 1 })),
        (text_type, Bson::MinKey),
        (text_type, Bson::Symbol("s".to_owned())),
        ("varchar(3)", text("abcd")),
        (pick("bytea", "varbinary(20)"), text("x")),
        (pick("bytea", "varbinary(20)"), binary(BinarySubtype::Md5, &[1; 16])),
        (stamp, date(NOON + 1)),
        (stamp, date(i64::MAX)),
        (stamp, Bson::Timestamp(Timestamp { time: 1, increment: 2 })),
        ("date", date(NOON)),
        ("time", text("x")),
    ];
    match by {
        Kind::Postgres => values.extend([("boolean", Bson::Int32(2)), ("text", text("a\0b")), ("uuid", text("x"))]),
        Kind::Mysql | Kind::Mongodb => {
            values.extend([("double", Bson::Double(f64::NAN)), ("date", date(-62_135_596_800_000))]);
        }
    }
    values
}
