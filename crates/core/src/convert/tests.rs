use super::*;
use crate::types::BITS_WITHOUT_LIMIT;

pub(super) fn kind(text: &str) -> ColumnType {
    text.parse().unwrap()
}

fn class(from: &str, to: &str) -> Option<Class> {
    Conversion::new(&kind(from), &kind(to)).ok().map(|conversion| conversion.class())
}

/// Converts and hands the result to `look`.
pub(super) fn with<T>(
    value: Value<'_>,
    from: &ColumnType,
    to: &ColumnType,
    look: impl FnOnce(Result<Value<'_>, Refusal>) -> T,
) -> T {
    let mut scratch = String::from("left over from before");
    look(Conversion::new(from, to).unwrap().apply(value, &mut scratch))
}

#[track_caller]
fn takes(from: &str, to: &str, value: Value<'_>, wanted: Value<'_>) {
    with(value, &kind(from), &kind(to), |got| assert_eq!(got.unwrap(), wanted, "{from} -> {to}"));
}

/// Refused, with a reason that does not hold the value (invariant 11).
#[track_caller]
fn refuses(from: &str, to: &str, value: Value<'_>) {
    with(value, &kind(from), &kind(to), |got| {
        let Refusal(reason) = got.expect_err("taken");
        if let Value::Text(text) | Value::Json(text) | Value::Decimal(text) | Value::Bits(text) = value {
            assert!(text.len() < 3 || !reason.contains(text), "{reason}");
        }
    });
}

#[test]
fn integers_are_held_or_refused() {
    takes("int(8)", "int(64)", Value::Int(-128), Value::Int(-128));
    takes("int(64)", "int(8)", Value::Int(-128), Value::Int(-128));
    refuses("int(64)", "int(8)", Value::Int(-129));
    refuses("int(64)", "int(8)", Value::Int(128));
    takes("uint(64)", "int(64)", Value::Int(i64::MAX), Value::Int(i64::MAX));
    refuses("uint(64)", "int(64)", Value::UInt(1 << 63));
    refuses("int(16)", "uint(64)", Value::Int(-1));
    takes("int(64)", "uint(24)", Value::Int(0xFF_FFFF), Value::Int(0xFF_FFFF));
    refuses("int(64)", "uint(24)", Value::Int(0x100_0000));
    refuses("int(64)", "int(24)", Value::Int(-0x80_0001));
    assert_eq!(class("uint(32)", "int(64)"), Some(Class::Widened));
    assert_eq!(class("uint(32)", "int(32)"), Some(Class::Lossy));
    assert_eq!(class("int(8)", "uint(64)"), Some(Class::Lossy));
    assert_eq!(class("uint(64)", "uint(64)"), Some(Class::Exact));
}

#[test]
fn booleans_are_zero_and_one() {
    takes("bool", "int(8)", Value::Bool(true), Value::Int(1));
    takes("int(8)", "bool", Value::Int(0), Value::Bool(false));
    refuses("int(8)", "bool", Value::Int(2));
    refuses("int(8)", "bool", Value::Int(-1));
    takes("bits(1)", "bool", Value::Bits("1"), Value::Bool(true));
    takes("bool", "bits(1)", Value::Bool(false), Value::Bits("0"));
    assert_eq!(class("bits(2)", "bool"), None);
}

#[test]
fn decimals_keep_every_digit() {
    takes("decimal", "decimal(10,2)", Value::Decimal("-12.300"), Value::Decimal("-12.30"));
    takes("decimal", "decimal(10,2)", Value::Decimal("5"), Value::Decimal("5.00"));
    takes("decimal", "decimal(10,0)", Value::Decimal("5.0"), Value::Decimal("5"));
    takes("decimal(10,2)", "decimal", Value::Decimal("1.10"), Value::Decimal("1.10"));
    refuses("decimal", "decimal(10,2)", Value::Decimal("12.345"));
    refuses("decimal", "decimal(4,2)", Value::Decimal("100.00"));
    refuses("decimal", "decimal(4,2)", Value::Decimal("NaN"));
    refuses("decimal(10,2)", "decimal(12,2)", Value::Decimal("-Infinity"));
    takes("decimal", "decimal", Value::Decimal("NaN"), Value::Decimal("NaN"));
    takes("decimal(10,2)", "decimal(10,2)", Value::Decimal("NaN"), Value::Decimal("NaN"));
    takes("decimal", "int(64)", Value::Decimal("-9223372036854775808.00"), Value::Int(i64::MIN));
    takes("decimal", "uint(64)", Value::Decimal("18446744073709551615"), Value::UInt(u64::MAX));
    refuses("decimal", "int(64)", Value::Decimal("9223372036854775809"));
    refuses("decimal", "int(64)", Value::Decimal("123.5"));
    refuses("decimal", "uint(64)", Value::Decimal("-1"));
    takes("uint(64)", "decimal(20,0)", Value::UInt(u64::MAX), Value::Decimal("18446744073709551615"));
    takes("int(64)", "decimal(20,2)", Value::Int(-7), Value::Decimal("-7.00"));
    refuses("int(64)", "decimal(3,1)", Value::Int(100));
    assert_eq!(class("uint(64)", "decimal(20,0)"), Some(Class::Widened));
    assert_eq!(class("uint(64)", "decimal(19,0)"), Some(Class::Lossy));
    assert_eq!(class("decimal(18,0)", "int(64)"), Some(Class::Widened));
    assert_eq!(class("decimal(19,0)", "int(64)"), Some(Class::Lossy));
    assert_eq!(class("decimal(9,0)", "uint(32)"), Some(Class::Lossy));
    assert_eq!(class("decimal(5,-2)", "decimal(7,0)"), Some(Class::Widened));
    assert_eq!(class("decimal(3,5)", "decimal(5,5)"), Some(Class::Widened));
    assert_eq!(class("decimal(10,2)", "decimal(10,3)"), Some(Class::Lossy));
    assert_eq!(class("float64", "decimal(10,2)"), None);
}

#[test]
fn floats_are_held_or_refused() {
    takes("float32", "float64", Value::Float32(0.1), Value::Float64(f64::from(0.1f32)));
    takes("float64", "float32", Value::Float64(0.5), Value::Float32(0.5));
    takes("float64", "float32", Value::Float64(f64::INFINITY), Value::Float32(f32::INFINITY));
    refuses("float64", "float32", Value::Float64(0.1));
    refuses("float64", "float32", Value::Float64(1e300));
    refuses("float64", "float32", Value::Float64(1e-300));
    with(Value::Float64(f64::NAN), &kind("float64"), &kind("float32"), |got| {
        assert!(matches!(got, Ok(Value::Float32(nan)) if nan.is_nan()));
    });
    takes("int(64)", "float64", Value::Int(1 << 53), Value::Float64(9_007_199_254_740_992.0));
    refuses("int(64)", "float64", Value::Int((1 << 53) + 1));
    refuses("int(64)", "float64", Value::Int(i64::MAX));
    refuses("uint(64)", "float32", Value::UInt(u64::MAX));
    takes("int(32)", "float32", Value::Int(-16_777_216), Value::Float32(-16_777_216.0));
    refuses("int(32)", "float32", Value::Int(16_777_217));
}

#[test]
fn text_is_never_cut() {
    takes("text", "text(3)", Value::Text("žlu"), Value::Text("žlu"));
    refuses("text", "text(3)", Value::Text("hunt"));
    takes("text", "text(5 bytes)", Value::Text("žlu"), Value::Text("žlu"));
    refuses("text", "text(4 bytes)", Value::Text("žlut"));
    assert_eq!(class("text(20)", "text(20)"), Some(Class::Exact));
    assert_eq!(class("text(20)", "text(80 bytes)"), Some(Class::Widened));
    assert_eq!(class("text(20)", "text(79 bytes)"), Some(Class::Lossy));
    assert_eq!(class("text(65535 bytes)", "text"), Some(Class::Widened));
    assert_eq!(class("text", "text(65535 bytes)"), Some(Class::Lossy));
    assert_eq!(class("text", "text(4294967295 bytes)"), Some(Class::Widened));
}

#[test]
fn padding_comes_and_goes_and_is_no_text() {
    takes("text(5,padded)", "text(5)", Value::Text("ab   "), Value::Text("ab"));
    takes("text(5,padded)", "text(2,padded)", Value::Text("ab   "), Value::Text("ab"));
    takes("text", "text(5,padded)", Value::Text(" ab"), Value::Text(" ab"));
    refuses("text", "text(5,padded)", Value::Text("hunt "));
    refuses("text(5,padded)", "text(2,padded)", Value::Text("abc  "));
    assert_eq!(class("text(5,padded)", "text(5)"), Some(Class::Widened));
    assert_eq!(class("text(5)", "text(5,padded)"), Some(Class::Lossy));
    let padded = kind("text(5,padded)");
    assert!(same(Value::Text("a"), Value::Text("a    "), &padded));
    assert!(!same(Value::Text("a"), Value::Text(" a"), &padded));
    assert!(!same(Value::Text("a"), Value::Text("a "), &kind("text(5)")));
}

#[test]
fn bytes_are_never_cut_or_filled() {
    takes("bytes", "bytes(2)", Value::Bytes(&[0, 255]), Value::Bytes(&[0, 255]));
    refuses("bytes", "bytes(1)", Value::Bytes(&[0, 255]));
    refuses("bytes", "bytes(3,padded)", Value::Bytes(&[0, 255]));
    takes("bytes", "bytes(2,padded)", Value::Bytes(&[1, 0]), Value::Bytes(&[1, 0]));
    assert_eq!(class("bytes(5,padded)", "bytes(5)"), Some(Class::Widened));
    assert_eq!(class("bytes(5,padded)", "bytes(6,padded)"), None);
    assert_eq!(class("bytes", "bytes(4294967295)"), Some(Class::Widened));
    assert_eq!(class("text", "bytes"), None);
    assert!(same(Value::Bytes(&[1]), Value::Bytes(&[1, 0]), &kind("bytes(2,padded)")));
    assert!(!same(Value::Bytes(&[1]), Value::Bytes(&[1, 0]), &kind("bytes(2)")));
}

#[test]
fn digits_of_a_second_are_never_rounded() {
    takes("timestamp(6)", "timestamp(3)", Value::Timestamp(-1_000), Value::Timestamp(-1_000));
    refuses("timestamp(6)", "timestamp(3)", Value::Timestamp(-1_001));
    refuses("time(6)", "time(0)", Value::Time(1));
    takes("time(6)", "time(0)", Value::Time(-3_020_399_000_000), Value::Time(-3_020_399_000_000));
    takes("timestamptz(6)", "timestamp(6)", Value::TimestampTz(1), Value::Timestamp(1));
    takes("timestamp(0)", "timestamptz(6)", Value::Timestamp(5_000_000), Value::TimestampTz(5_000_000));
    for end in [i64::MIN, i64::MAX] {
        takes("timestamptz(6)", "timestamp(0)", Value::TimestampTz(end), Value::Timestamp(end));
    }
    refuses("time(6)", "time(0)", Value::Time(i64::MAX));
    assert_eq!(class("timestamp(3)", "timestamp(6)"), Some(Class::Widened));
    assert_eq!(class("timestamptz(6)", "timestamp(6)"), Some(Class::Widened));
    assert_eq!(class("timestamptz(6)", "timestamp(5)"), Some(Class::Lossy));
    assert_eq!(class("date", "timestamp(6)"), None);
}

#[test]
fn years_are_mysqls() {
    takes("year", "int(16)", Value::Int(2155), Value::Int(2155));
    refuses("year", "int(8)", Value::Int(2155));
    takes("int(16)", "year", Value::Int(0), Value::Int(0));
    for year in [-1, 1, 1900, 2156] {
        refuses("int(16)", "year", Value::Int(year));
    }
}

#[test]
fn uuids_are_text_and_bytes() {
    let bytes = [0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0xff];
    let text = "123e4567-e89b-12d3-a456-4266141740ff";
    takes("uuid", "text(36,padded)", Value::Uuid(bytes), Value::Text(text));
    takes("text(36)", "uuid", Value::Text(text), Value::Uuid(bytes));
    takes("bytes(16,padded)", "uuid", Value::Bytes(&bytes), Value::Uuid(bytes));
    refuses("bytes", "uuid", Value::Bytes(&bytes[1..]));
    for other in
        [&text[1..], &text.to_uppercase(), &text.replace('-', ""), &format!("{text}0"), &text.replace("e8", "ž")]
    {
        refuses("text", "uuid", Value::Text(other));
    }
    assert_eq!(class("uuid", "text(35)"), None);
    assert_eq!(class("bytes(15)", "uuid"), None);
}

#[test]
fn json_loses_no_member() {
    takes("json", "json(textual)", Value::Json("{}"), Value::Json("{}"));
    takes("json(textual)", "json", Value::Json(r#"{"a":1.10}"#), Value::Json(r#"{"a":1.10}"#));
    refuses("json(textual)", "json", Value::Json(r#"{"a":1,"a":2}"#));
    takes("text", "json(textual)", Value::Text(r#"{"a":1,"a":2}"#), Value::Json(r#"{"a":1,"a":2}"#));
    refuses("text", "json", Value::Text(r#"{"a":1,"a":2}"#));
    refuses("text", "json", Value::Text("hunter2"));
    takes("json", "text(9 bytes)", Value::Json("[1, 2, 3]"), Value::Text("[1, 2, 3]"));
    refuses("json", "text(8 bytes)", Value::Json("[1, 2, 3]"));
    assert!(same(Value::Json(r#"{"a": 1, "b": 2}"#), Value::Json(r#"{"b":2,"a":1.0}"#), &kind("json")));
}

#[test]
fn bits_keep_their_number() {
    takes("bits(3)", "varbits(3)", Value::Bits("010"), Value::Bits("010"));
    takes("varbits(5)", "bits(3)", Value::Bits("010"), Value::Bits("010"));
    refuses("varbits(5)", "bits(3)", Value::Bits("01"));
    refuses("varbits(5)", "bits(3)", Value::Bits("0101"));
    takes("bits(3)", "text(3)", Value::Bits("010"), Value::Text("010"));
    takes("text", "varbits(5)", Value::Text("010"), Value::Bits("010"));
    refuses("text", "varbits(5)", Value::Text("012"));
    assert_eq!(class("bits(3)", "bits(4)"), None);
    let unlimited = ColumnType::Bits { length: BITS_WITHOUT_LIMIT, varying: true };
    assert_eq!(Conversion::new(&kind("bits(3)"), &unlimited).unwrap().class(), Class::Widened);
    assert_eq!(Conversion::new(&unlimited, &kind("text(9)")).unwrap().class(), Class::Lossy);
}

#[test]
fn what_has_no_meaning_elsewhere_stays_where_it_is() {
    assert_eq!(class("named(postgres,inet)", "named(postgres,inet)"), Some(Class::Exact));
    for to in ["named(postgres,cidr)", "named(mysql,inet)", "text", "bytes"] {
        assert_eq!(class("named(postgres,inet)", to), None);
    }
    assert_eq!(class("text", "set"), None);
    assert_eq!(class("set", "text"), Some(Class::Widened));
    let Refusal(reason) = Conversion::new(&kind("named(postgres,inet)"), &kind("text")).unwrap_err();
    assert!(reason.contains("named(postgres,inet)") && reason.contains("text"), "{reason}");
}

#[test]
fn engines_differ_under_one_type() {
    let class = |from, to, text: &str| Conversion::new(&kind(text), &kind(text)).unwrap().class_between(from, to);
    assert_eq!(class(Engine::Mysql, Engine::Postgres, "time(6)"), Class::Lossy);
    assert_eq!(class(Engine::Postgres, Engine::Mysql, "timestamptz(6)"), Class::Lossy);
    assert_eq!(class(Engine::Postgres, Engine::Mysql, "json"), Class::Lossy);
    assert_eq!(class(Engine::Mysql, Engine::Postgres, "date"), Class::Widened);
    assert_eq!(class(Engine::Mysql, Engine::Mysql, "time(6)"), Class::Exact);
    assert_eq!(class(Engine::Mysql, Engine::Postgres, "int(32)"), Class::Exact);
}

#[test]
fn floats_are_the_same_as_sql_says() {
    assert!(same(Value::Float64(f64::NAN), Value::Float64(f64::NAN), &ColumnType::Float64));
    assert!(same(Value::Float32(-0.0), Value::Float32(0.0), &ColumnType::Float32));
    assert!(!same(Value::Float64(f64::NAN), Value::Float64(0.0), &ColumnType::Float64));
    assert!(same(Value::Decimal("1.10"), Value::Decimal("1.1"), &kind("decimal")));
    assert!(same(Value::Decimal("NaN"), Value::Decimal("NaN"), &kind("decimal")));
    assert!(!same(Value::Decimal("NaN"), Value::Decimal("0"), &kind("decimal")));
    assert!(!same(Value::Null, Value::Int(0), &kind("int(8)")));
}

#[test]
fn a_value_of_another_kind_than_its_column_is_refused() {
    for (from, to) in [("int(64)", "int(8)"), ("timestamptz(6)", "timestamp(6)"), ("text", "uuid"), ("uuid", "text")] {
        refuses(from, to, Value::Float32(1.0));
    }
}
