//! Every kind of value arrives exactly, by each form of statement.

use crate::fixture::*;
use sync_worker_core::row::Row;
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};

struct Case {
    column: &'static str,
    sql_type: &'static str,
    kind: ColumnType,
    /// How the server is asked for it.
    shown: &'static str,
    values: Vec<(Value<'static>, &'static str)>,
}

fn case(
    column: &'static str,
    sql_type: &'static str,
    kind: ColumnType,
    shown: &'static str,
    values: Vec<(Value<'static>, &'static str)>,
) -> Case {
    Case { column, sql_type, kind, shown, values }
}

fn cases() -> Vec<Case> {
    use ColumnType as T;
    let int = |bits, unsigned| T::Int { bits, unsigned };
    let characters = |n| T::Text { limit: TextLimit::Characters(n), padded: false };
    vec![
        case("tiny", "TINYINT", int(8, false), "{}", vec![(Value::Int(-128), "-128"), (Value::Int(127), "127")]),
        case(
            "small",
            "SMALLINT UNSIGNED",
            int(16, true),
            "{}",
            vec![(Value::Int(0), "0"), (Value::Int(65_535), "65535")],
        ),
        case("med", "MEDIUMINT", int(24, false), "{}", vec![(Value::Int(-8_388_608), "-8388608")]),
        case(
            "big",
            "BIGINT",
            int(64, false),
            "{}",
            vec![(Value::Int(i64::MIN), "-9223372036854775808"), (Value::Int(i64::MAX), "9223372036854775807")],
        ),
        case(
            "ubig",
            "BIGINT UNSIGNED",
            int(64, true),
            "{}",
            vec![(Value::UInt(u64::MAX), "18446744073709551615"), (Value::Int(1), "1")],
        ),
        case(
            "f4",
            "FLOAT",
            T::Float32,
            "CAST({} AS DOUBLE)",
            vec![
                (Value::Float32(0.1), "0.10000000149011612"),
                (Value::Float32(16_777_217.0), "16777216"),
                (Value::Float32(f32::MIN_POSITIVE), "1.1754943508222875e-38"),
                (Value::Float32(f32::MAX), "3.4028234663852886e38"),
            ],
        ),
        case(
            "f8",
            "DOUBLE",
            T::Float64,
            "{}",
            vec![
                (Value::Float64(0.1), "0.1"),
                (Value::Float64(0.300_000_000_000_000_04), "0.30000000000000004"),
                (Value::Float64(f64::MAX), "1.7976931348623157e308"),
                (Value::Float64(f64::MIN_POSITIVE), "2.2250738585072014e-308"),
                (Value::Float64(-0.0), "-0"),
            ],
        ),
        case(
            "num",
            "DECIMAL(65,30)",
            T::Decimal { precision: Some(65), scale: 30 },
            "{}",
            vec![
                (
                    Value::Decimal("12345678901234567890123456789012345.123456789012345678901234567890"),
                    "12345678901234567890123456789012345.123456789012345678901234567890",
                ),
                (Value::Decimal("-0.000000000000000000000000000001"), "-0.000000000000000000000000000001"),
                (Value::Decimal("0"), "0.000000000000000000000000000000"),
                (Value::Decimal("7"), "7.000000000000000000000000000000"),
            ],
        ),
        case(
            "txt",
            "VARCHAR(40)",
            characters(40),
            "HEX({})",
            vec![
                (Value::Text(""), ""),
                (Value::Text("a'b\"c\\d\0e%_\n\x1a"), "61276222635C640065255F0A1A"),
                (Value::Text("č€😀"), "C48DE282ACF09F9880"),
                (Value::Text("x  "), "782020"),
            ],
        ),
        case("lat", "VARCHAR(40) CHARACTER SET latin1", characters(40), "HEX({})", vec![(Value::Text("é€"), "E980")]),
        case(
            "bin",
            "VARBINARY(3000)",
            T::Bytes { limit: Some(3000), padded: false },
            "HEX({})",
            vec![(Value::Bytes(b""), ""), (Value::Bytes(b"\x00\xFF'\\"), "00FF275C")],
        ),
        case(
            "lob",
            "LONGBLOB",
            T::Bytes { limit: None, padded: false },
            "SHA2({}, 256)",
            vec![(Value::Bytes(&[0x5C; 300]), "")],
        ),
        case(
            "day",
            "DATE",
            T::Date,
            "{}",
            vec![
                (Value::Date(-354_285), "1000-01-01"),
                (Value::Date(2_932_896), "9999-12-31"),
                (Value::Date(19_782), "2024-02-29"),
            ],
        ),
        case(
            "tod",
            "TIME(6)",
            T::Time { precision: 6 },
            "{}",
            vec![
                (Value::Time(0), "00:00:00.000000"),
                (Value::Time(-3_020_399_000_000), "-838:59:59.000000"),
                (Value::Time(86_399_999_999), "23:59:59.999999"),
            ],
        ),
        case(
            "ts",
            "DATETIME(6)",
            T::Timestamp { precision: 6 },
            "{}",
            vec![
                (Value::Timestamp(-1), "1969-12-31 23:59:59.999999"),
                (Value::Timestamp(253_402_300_799_999_999), "9999-12-31 23:59:59.999999"),
            ],
        ),
        case(
            "tz",
            "TIMESTAMP(6) NULL",
            T::TimestampTz { precision: 6 },
            "{}",
            vec![
                (Value::TimestampTz(1_000_000), "1970-01-01 00:00:01.000000"),
                (Value::TimestampTz(2_147_483_647_999_999), "2038-01-19 03:14:07.999999"),
            ],
        ),
        case(
            "yr",
            "YEAR",
            T::Year,
            "{}",
            vec![(Value::Int(0), "0000"), (Value::Int(1901), "1901"), (Value::Int(2155), "2155")],
        ),
        case(
            "js",
            "JSON",
            T::Json { textual: false },
            "{}",
            vec![
                (Value::Json("null"), "null"),
                (
                    Value::Json("{\"b\": [1, 2.5, \"č'\\\"\"], \"a\": null}"),
                    "{\"a\": null, \"b\": [1, 2.5, \"č'\\\"\"]}",
                ),
                (Value::Json("18446744073709551615"), "18446744073709551615"),
            ],
        ),
        case(
            "en",
            "ENUM('a','it''s','2')",
            T::Enum,
            "{} + 0",
            vec![(Value::Text("it's"), "2"), (Value::Text("2"), "3")],
        ),
        case("st", "SET('a','b','c')", T::Set, "{} + 0", vec![(Value::Text(""), "0"), (Value::Text("a,c"), "5")]),
        case(
            "bt",
            "BIT(64)",
            T::Bits { length: 64, varying: false },
            "HEX({})",
            vec![
                (Value::Bits("1111111111111111111111111111111111111111111111111111111111111111"), "FFFFFFFFFFFFFFFF"),
                (Value::Bits("0000000000000000000000000000000000000000000000000000000000000101"), "5"),
            ],
        ),
    ]
}

#[tokio::test]
async fn values_arrive_exactly_by_insert_update_and_upsert() {
    let cases = cases();
    let columns: Vec<String> = cases.iter().map(|case| format!("{} {}", case.column, case.sql_type)).collect();
    let ddl = |name: &str, unique: &str| {
        format!("CREATE TABLE {name} (k INT PRIMARY KEY, u INT{unique}, {})", columns.join(", "))
    };
    let (plain, uniq) = (ddl("plain", ""), ddl("uniq", " UNIQUE"));
    let Some(mut f) = Fixture::new("values", &[&plain, &uniq]).await else { return };
    let rows = cases.iter().map(|case| case.values.len()).max().unwrap() + 1;
    // The last row is all NULL; shorter lists repeat themselves.
    let cells = |k: usize, u: i64| -> Row {
        let mut cells = vec![int(k as i64), int(u)];
        cells.extend(cases.iter().map(|case| match k + 1 == rows {
            true => NULL,
            false => Cell::Present(case.values[k % case.values.len()].0),
        }));
        row(&cells)
    };
    let mut names = vec![("k", INT), ("u", INT)];
    names.extend(cases.iter().map(|case| (case.column, case.kind.clone())));
    for table in ["plain", "uniq"] {
        let t = schema_of(Engine::Mysql, table, &names, 1);
        let image =
            |k: usize, u: i64| cells(k, u).cells().collect::<Result<Vec<_>, _>>().map(|cells| row(&cells)).unwrap();
        let write = |make: fn(&_, &[Cell<'_>]) -> _, k: usize, u: i64| {
            let image = image(k, u);
            make(&t, &image.cells().collect::<Result<Vec<_>, _>>().unwrap())
        };
        for form in ["insert", "update", "upsert", "insert what is missing"] {
            match form {
                "insert" => drop(f.apply_as_sets((0..rows).map(|k| write(create, k, k as i64)).collect()).await),
                "update" => {
                    // All else is wiped out first.
                    let wipe: Vec<String> = cases.iter().map(|case| format!("{} = NULL", case.column)).collect();
                    f.run(&format!("UPDATE {table} SET {}", wipe.join(", "))).await;
                    f.apply_as_sets((0..rows).map(|k| write(update, k, k as i64 + 100)).collect()).await;
                }
                "upsert" => drop(f.apply_as_sets((0..rows).map(|k| write(read, k, k as i64 + 200)).collect()).await),
                _ => {
                    f.run(&format!("DELETE FROM {table}")).await;
                    f.apply_as_sets((0..rows).map(|k| write(update, k, k as i64 + 300)).collect()).await;
                }
            }
            for case in &cases {
                let select = format!("SELECT {} FROM {table} ORDER BY k", case.shown.replace("{}", case.column));
                let got = f.query(&select).await;
                let mut expected: Vec<_> =
                    (0..rows - 1).map(|k| case.values[k % case.values.len()].1.to_owned()).collect();
                if case.column == "lob" {
                    expected = vec![f.query("SELECT SHA2(REPEAT(_binary'\\\\', 300), 256)").await[0].clone(); rows - 1];
                }
                expected.push("NULL".to_owned());
                assert_eq!(got, expected, "{table} {} by {form}", case.column);
            }
        }
    }
    f.close().await;
}

#[tokio::test]
async fn what_only_mysql_has_arrives_from_mysql() {
    let ddl = "CREATE TABLE t (k INT PRIMARY KEY, day DATE, at DATETIME, ts TIMESTAMP NULL, price FLOAT(7,3), place GEOMETRY)";
    let Some(mut f) = Fixture::new("raw", &[ddl]).await else { return };
    let named = |name: &str| ColumnType::Named { engine: Engine::Mysql, name: name.into() };
    let t = schema_of(
        Engine::Mysql,
        "t",
        &[
            ("k", INT),
            ("day", ColumnType::Date),
            ("at", ColumnType::Timestamp { precision: 0 }),
            ("ts", ColumnType::TimestampTz { precision: 0 }),
            ("price", named("float(7,3)")),
            ("place", named("geometry")),
        ],
        1,
    );
    let raw = |bytes: &'static [u8]| Cell::Present(Value::Raw(bytes));
    let point = b"\xE6\x10\0\0\x01\x01\0\0\0\0\0\0\0\0\0\xF0?\0\0\0\0\0\0\0@";
    let cells = [
        int(1),
        raw(b"2024-02-31"),
        raw(b"0000-00-00 00:00:00"),
        raw(b"0000-00-00 00:00:00"),
        raw(b"12.345"),
        raw(point),
    ];
    f.apply_as_sets(vec![create(&t, &cells)]).await;
    let expected = "2024-02-31|0000-00-00 00:00:00|0000-00-00 00:00:00|12.345|4326|POINT(1 2)";
    let select = "SELECT day, at, ts, price, ST_SRID(place), ST_AsText(place, 'axis-order=long-lat') FROM t";
    assert_eq!(f.query(select).await, [expected]);
    f.close().await;
}
