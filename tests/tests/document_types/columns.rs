//! Columns of the relational databases with literals and the field that each becomes.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, bson};
use sync_worker_tests::kind::Kind;

type Column = (&'static str, Vec<(&'static str, Bson)>);

fn text(value: &str) -> Bson {
    Bson::String(value.to_owned())
}

pub fn decimal(value: &str) -> Bson {
    value.parse().map_or(Bson::Undefined, Bson::Decimal128)
}

pub fn date(millis: i64) -> Bson {
    Bson::DateTime(DateTime::from_millis(millis))
}

pub fn binary(subtype: BinarySubtype, bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype, bytes: bytes.to_vec() })
}

fn bytes(bytes: &[u8]) -> Bson {
    binary(BinarySubtype::Generic, bytes)
}

pub fn columns(of: Kind) -> Vec<Column> {
    match of {
        Kind::Postgres => postgres(),
        Kind::Mysql => mysql(),
        Kind::Mongodb => Vec::new(),
    }
}

/// 2024-02-29 12:00.
pub const NOON: i64 = 1_709_208_000_000;

fn postgres() -> Vec<Column> {
    vec![
        ("boolean", vec![("true", Bson::Boolean(true)), ("false", Bson::Boolean(false))]),
        ("smallint", vec![("-32768", Bson::Int32(-32_768)), ("32767", Bson::Int32(32_767))]),
        ("integer", vec![("-2147483648", Bson::Int32(i32::MIN)), ("2147483647", Bson::Int32(i32::MAX))]),
        ("bigint", vec![("-9223372036854775808", Bson::Int64(i64::MIN)), ("1", Bson::Int64(1))]),
        ("real", vec![("0.1", Bson::Double(f64::from(0.1f32))), ("'NaN'", Bson::Double(f64::NAN))]),
        (
            "double precision",
            vec![
                ("5e-324", Bson::Double(5e-324)),
                ("1.7976931348623157e308", Bson::Double(f64::MAX)),
                ("'-Infinity'", Bson::Double(f64::NEG_INFINITY)),
                ("'-0'", Bson::Double(-0.0)),
            ],
        ),
        (
            "numeric",
            vec![
                ("-1.10", decimal("-1.10")),
                ("0.000", decimal("0.000")),
                ("1234567890123456789012345678901234", decimal("1234567890123456789012345678901234")),
                ("0.0000000000000000000000000000000001", decimal("1E-34")),
                ("'NaN'", decimal("NaN")),
                ("'-Infinity'", decimal("-Infinity")),
            ],
        ),
        ("numeric(10,2)", vec![("-12345678.90", decimal("-12345678.90")), ("7", decimal("7.00"))]),
        ("text", vec![("''", text("")), ("'žluťoučký 🐎'", text("žluťoučký 🐎")), ("'a '", text("a "))]),
        ("varchar(20)", vec![("'漢字'", text("漢字"))]),
        ("character(3)", vec![("'ab'", text("ab")), ("'abc'", text("abc"))]),
        ("bytea", vec![("'\\x'", bytes(&[])), ("'\\x00ff'", bytes(&[0, 255]))]),
        (
            "date",
            vec![
                ("'0001-01-01'", date(-62_135_596_800_000)),
                ("'9999-12-31'", date(253_402_214_400_000)),
                ("'2024-02-29'", date(NOON - 43_200_000)),
            ],
        ),
        ("time", vec![("'00:00:00'", text("00:00:00")), ("'23:59:59.000001'", text("23:59:59.000001"))]),
        ("timestamp(3)", vec![("'1969-12-31 23:59:59.999'", date(-1)), ("'2024-02-29 12:00'", date(NOON))]),
        ("timestamp", vec![("'2024-02-29 12:00:00.001'", date(NOON + 1))]),
        ("timestamptz(3)", vec![("'2024-02-29 13:00+01'", date(NOON))]),
        (
            "uuid",
            vec![(
                "'00112233-4455-6677-8899-aabbccddeeff'",
                binary(
                    BinarySubtype::Uuid,
                    &[0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF],
                ),
            )],
        ),
        ("json", vec![("'{\"b\": 1, \"a\": [true, null, 2.5]}'", bson!({ "b": 1, "a": [true, null, 2.5] }))]),
        (
            "jsonb",
            vec![
                ("'[]'", bson!([])),
                ("'\"text\"'", text("text")),
                ("'9007199254740993'", Bson::Int64(9_007_199_254_740_993)),
                ("'1.0'", Bson::Double(1.0)),
                ("'{\"$numberDecimal\": \"1.50\"}'", decimal("1.50")),
            ],
        ),
        ("mood", vec![("'ok'", text("ok"))]),
        ("bit(8)", vec![("B'10110000'", text("10110000"))]),
        ("bit varying(5)", vec![("B'01'", text("01"))]),
    ]
}

fn mysql() -> Vec<Column> {
    vec![
        ("tinyint", vec![("-128", Bson::Int32(-128)), ("127", Bson::Int32(127))]),
        ("tinyint unsigned", vec![("255", Bson::Int32(255))]),
        ("smallint unsigned", vec![("65535", Bson::Int32(65_535))]),
        ("mediumint", vec![("-8388608", Bson::Int32(-8_388_608))]),
        ("mediumint unsigned", vec![("16777215", Bson::Int32(16_777_215))]),
        ("int", vec![("-2147483648", Bson::Int32(i32::MIN))]),
        ("int unsigned", vec![("0", Bson::Int64(0)), ("4294967295", Bson::Int64(4_294_967_295))]),
        (
            "bigint",
            vec![("-9223372036854775808", Bson::Int64(i64::MIN)), ("9223372036854775807", Bson::Int64(i64::MAX))],
        ),
        (
            "bigint unsigned",
            vec![
                ("9223372036854775807", Bson::Int64(i64::MAX)),
                ("18446744073709551615", decimal("18446744073709551615")),
            ],
        ),
        ("float", vec![("0.1", Bson::Double(f64::from(0.1f32)))]),
        ("double", vec![("5e-324", Bson::Double(5e-324)), ("1.7976931348623157e308", Bson::Double(f64::MAX))]),
        ("decimal(10,2)", vec![("-12345678.90", decimal("-12345678.90")), ("7", decimal("7.00"))]),
        (
            "decimal(34,4)",
            vec![("123456789012345678901234567890.1234", decimal("123456789012345678901234567890.1234"))],
        ),
        ("char(3)", vec![("'ab'", text("ab"))]),
        ("varchar(20) character set utf8mb4", vec![("'漢字🐎'", text("漢字🐎")), ("'a '", text("a "))]),
        ("longtext character set utf8mb4", vec![("''", text(""))]),
        ("binary(4)", vec![("x'00ff'", bytes(&[0, 255, 0, 0]))]),
        ("varbinary(20)", vec![("x'00ff'", bytes(&[0, 255]))]),
        ("blob", vec![("''", bytes(&[]))]),
        ("date", vec![("'1000-01-01'", date(-30_610_224_000_000)), ("'9999-12-31'", date(253_402_214_400_000))]),
        ("time(6)", vec![("'-838:59:59'", text("-838:59:59")), ("'00:00:00.000001'", text("00:00:00.000001"))]),
        ("datetime(3)", vec![("'2024-02-29 12:00:00.001'", date(NOON + 1))]),
        ("datetime(6)", vec![("'2024-02-29 12:00:00.001'", date(NOON + 1))]),
        ("timestamp(3)", vec![("'2024-02-29 12:00:00.001'", date(NOON + 1))]),
        ("year", vec![("'0'", Bson::Int32(2000)), ("0", Bson::Int32(0)), ("2155", Bson::Int32(2155))]),
        (
            "json",
            vec![
                ("'{\"a\": [true, null, 2.5]}'", bson!({ "a": [true, null, 2.5] })),
                ("'\"text\"'", text("text")),
                (
                    "'{\"$oid\": \"000102030405060708090a0b\"}'",
                    Bson::ObjectId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].into()),
                ),
            ],
        ),
        ("enum('a','b')", vec![("'b'", text("b"))]),
        ("set('a','b')", vec![("'b,a'", text("a,b")), ("''", text(""))]),
        ("bit(8)", vec![("b'10110000'", text("10110000"))]),
    ]
}
