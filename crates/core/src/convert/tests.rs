use super::*;
use crate::types::{BITS_WITHOUT_LIMIT, TextLimit};
use proptest::prelude::*;

fn kind(text: &str) -> ColumnType {
    text.parse().unwrap()
}

fn class(from: &str, to: &str) -> Option<Class> {
    Conversion::new(&kind(from), &kind(to)).ok().map(|conversion| conversion.class())
}

/// Converts and hands the result to `look`.
fn with<T>(
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
fn null_stays_null_everywhere() {
    for from in types() {
        for to in types() {
            if Conversion::new(&from, &to).is_ok() {
                with(Value::Null, &from, &to, |got| assert_eq!(got, Ok(Value::Null), "{from} -> {to}"));
            }
        }
    }
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

/// One of everything that a column may be, at its edges.
fn types() -> Vec<ColumnType> {
    let mut types: Vec<ColumnType> = [
        "bool",
        "float32",
        "float64",
        "decimal",
        "decimal(1,0)",
        "decimal(10,2)",
        "decimal(38,10)",
        "decimal(20,0)",
        "decimal(5,-2)",
        "decimal(3,5)",
        "text",
        "text(3)",
        "text(5,padded)",
        "text(36)",
        "text(9 bytes)",
        "bytes",
        "bytes(2)",
        "bytes(16)",
        "bytes(16,padded)",
        "date",
        "time(0)",
        "time(6)",
        "timestamp(0)",
        "timestamp(6)",
        "timestamptz(3)",
        "timestamptz(6)",
        "year",
        "uuid",
        "json",
        "json(textual)",
        "enum",
        "set",
        "bits(1)",
        "bits(8)",
        "varbits(8)",
        "named(postgres,inet)",
        "named(mysql,geometry)",
    ]
    .map(kind)
    .into();
    for bits in [8, 16, 24, 32, 64] {
        types.extend([false, true].map(|unsigned| ColumnType::Int { bits, unsigned }));
    }
    types.push(ColumnType::Bits { length: BITS_WITHOUT_LIMIT, varying: true });
    types.push(ColumnType::Text { limit: TextLimit::Bytes(u64::from(u32::MAX)), padded: false });
    types
}

/// A value that a column of this type may hold, in its own storage.
fn value(kind: &ColumnType) -> BoxedStrategy<Owned> {
    let limited = |limit: u32| prop::collection::vec(any::<char>(), 0..=(limit as usize).min(40));
    match *kind {
        ColumnType::Bool => any::<bool>().prop_map(Owned::Bool).boxed(),
        ColumnType::Int { bits, unsigned: false } => {
            let shift = 64 - u32::from(bits);
            prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(0), -3..3i64]
                .prop_map(move |number| Owned::Int(i128::from(number >> shift)))
                .boxed()
        }
        ColumnType::Int { bits, unsigned: true } => {
            let shift = 64 - u32::from(bits);
            prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)]
                .prop_map(move |number| Owned::Int(i128::from(number >> shift)))
                .boxed()
        }
        ColumnType::Float32 => any::<f32>().prop_map(Owned::Float32).boxed(),
        ColumnType::Float64 => {
            prop_oneof![any::<f64>(), any::<f32>().prop_map(f64::from), Just(-0.0)].prop_map(Owned::Float64).boxed()
        }
        ColumnType::Decimal { precision, scale } => {
            let (digits, scale) = (precision.unwrap_or(40), if precision.is_none() { 20 } else { scale });
            let number = prop::collection::vec(0..10u8, 1..=usize::from(digits));
            (any::<bool>(), number)
                .prop_map(move |(sign, digits)| Owned::Decimal(decimal(sign, &digits, scale)))
                .boxed()
        }
        ColumnType::Text { limit: TextLimit::Characters(n), padded } => limited(n)
            .prop_map(move |text| {
                let text: String = text.into_iter().collect();
                Owned::Text(if padded { text.trim_end_matches(' ').to_owned() } else { text })
            })
            .boxed(),
        ColumnType::Text { limit: TextLimit::Bytes(0..=9), .. } => "[a-z0-1 ]{0,9}".prop_map(Owned::Text).boxed(),
        ColumnType::Text { .. } => prop_oneof![
            any::<String>(),
            "[01 ]{0,9}",
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            r#"\{"[ab]":[0-9],"[ab]": [0-9]\}"#,
        ]
        .prop_map(Owned::Text)
        .boxed(),
        ColumnType::Enum => "[a-z]{0,9}".prop_map(Owned::Text).boxed(),
        ColumnType::Set => "[a-z]{1,3}(,[a-z]{1,3}){0,3}".prop_map(Owned::Text).boxed(),
        ColumnType::Bytes { limit, padded } => {
            let most = usize::try_from(limit.unwrap_or(20)).unwrap().min(40);
            prop::collection::vec(any::<u8>(), if padded { most..=most } else { 0..=most })
                .prop_map(Owned::Bytes)
                .boxed()
        }
        ColumnType::Date => any::<i32>().prop_map(|days| Owned::Value(Value::Date(days))).boxed(),
        ColumnType::Time { precision } => {
            micros(precision, -3_020_399..3_020_400).prop_map(|count| Owned::Value(Value::Time(count))).boxed()
        }
        ColumnType::Timestamp { precision } => {
            moment(precision).prop_map(|count| Owned::Value(Value::Timestamp(count))).boxed()
        }
        ColumnType::TimestampTz { precision } => {
            moment(precision).prop_map(|count| Owned::Value(Value::TimestampTz(count))).boxed()
        }
        ColumnType::Year => prop_oneof![Just(0i128), 1901..2156i128].prop_map(Owned::Int).boxed(),
        ColumnType::Uuid => any::<[u8; 16]>().prop_map(|bytes| Owned::Value(Value::Uuid(bytes))).boxed(),
        // A type that normalizes has no member twice.
        ColumnType::Json { textual: false } => {
            r#"[0-9]|"[a-z ]{0,9}"|\{"a":[0-9],"b": [0-9]\}"#.prop_map(Owned::Json).boxed()
        }
        ColumnType::Json { textual: true } => r#"[0-9]|\{"[ab]":[0-9],"[ab]": [0-9]\} "#.prop_map(Owned::Json).boxed(),
        ColumnType::Bits { length, varying: true } => {
            prop::collection::vec(any::<bool>(), 0..=length.min(40) as usize).prop_map(Owned::bits).boxed()
        }
        ColumnType::Bits { length, varying: false } => {
            prop::collection::vec(any::<bool>(), length as usize).prop_map(Owned::bits).boxed()
        }
        ColumnType::Named { .. } => any::<Vec<u8>>().prop_map(Owned::Raw).boxed(),
    }
}

fn micros(precision: u8, seconds: std::ops::Range<i64>) -> impl Strategy<Value = i64> {
    let unit = 10i64.pow(u32::from(6 - precision));
    (seconds, 0..1_000_000i64).prop_map(move |(seconds, micros)| seconds * 1_000_000 + micros / unit * unit)
}

fn moment(precision: u8) -> BoxedStrategy<i64> {
    let some = micros(precision, -210_000_000_000..9_000_000_000_000);
    prop_oneof![4 => some, 1 => Just(i64::MIN), 1 => Just(i64::MAX)].boxed()
}

/// Prints digits as the engines do, with all places of the scale.
fn decimal(negative: bool, digits: &[u8], scale: i16) -> String {
    let places = usize::try_from(scale).unwrap_or(0);
    let mut text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
    text.push_str(&"0".repeat(usize::try_from(-scale).unwrap_or(0)));
    let text = text.trim_start_matches('0');
    let text = format!("{text:0>width$}", width = places + 1);
    let sign = if negative && text.contains(|digit| digit != '0') { "-" } else { "" };
    let (whole, fraction) = text.split_at(text.len() - places);
    if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[derive(Clone, Debug)]
enum Owned {
    Bool(bool),
    Int(i128),
    Float32(f32),
    Float64(f64),
    Decimal(String),
    Text(String),
    Bytes(Vec<u8>),
    Json(String),
    Bits(String),
    Raw(Vec<u8>),
    Value(Value<'static>),
}

impl Owned {
    fn bits(bits: Vec<bool>) -> Self {
        Owned::Bits(bits.into_iter().map(|bit| if bit { '1' } else { '0' }).collect())
    }

    fn value(&self) -> Value<'_> {
        match self {
            Owned::Bool(value) => Value::Bool(*value),
            Owned::Int(number) => match i64::try_from(*number) {
                Ok(number) => Value::Int(number),
                Err(_) => Value::UInt(u64::try_from(*number).unwrap()),
            },
            Owned::Float32(value) => Value::Float32(*value),
            Owned::Float64(value) => Value::Float64(*value),
            Owned::Decimal(text) => Value::Decimal(text),
            Owned::Text(text) => Value::Text(text),
            Owned::Bytes(bytes) => Value::Bytes(bytes),
            Owned::Json(text) => Value::Json(text),
            Owned::Bits(text) => Value::Bits(text),
            Owned::Raw(bytes) => Value::Raw(bytes),
            Owned::Value(value) => *value,
        }
    }
}

fn pair() -> impl Strategy<Value = (ColumnType, ColumnType, Owned)> {
    let one = || prop::sample::select(types());
    (one(), one()).prop_flat_map(|(from, to)| (Just(from.clone()), Just(to), value(&from)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is taken comes back the same wherever there is a way back; what the class promises is taken.
    #[test]
    fn values_arrive_and_come_back_or_are_refused((from, to, value) in pair()) {
        let value = value.value();
        let Ok(there) = Conversion::new(&from, &to) else { return Ok(()) };
        let (mut scratch, mut back_scratch) = (String::new(), String::new());
        match there.apply(value, &mut scratch) {
            Err(refusal) => prop_assert_eq!(there.class(), Class::Lossy, "{} -> {}: {}", from, to, refusal),
            Ok(arrived) => {
                if let Ok(back) = Conversion::new(&to, &from) {
                    let returned = back.apply(arrived, &mut back_scratch);
                    prop_assert!(returned.is_ok(), "{} -> {} -> back: {:?}", from, to, returned);
                    prop_assert!(same(returned.unwrap(), value, &from), "{} -> {} -> back", from, to);
                }
            }
        }
    }

    /// A value is what its own kind says after the way, so that a sink finds what its codec knows.
    #[test]
    fn what_arrives_is_of_the_targets_kind((from, to, value) in pair()) {
        let Ok(there) = Conversion::new(&from, &to) else { return Ok(()) };
        let mut scratch = String::new();
        if let Ok(arrived) = there.apply(value.value(), &mut scratch) {
            prop_assert!(belongs(arrived, &to), "{} -> {}", from, to);
        }
    }
}

fn belongs(value: Value<'_>, kind: &ColumnType) -> bool {
    match kind {
        ColumnType::Bool => matches!(value, Value::Bool(_)),
        ColumnType::Int { .. } | ColumnType::Year => matches!(value, Value::Int(_) | Value::UInt(_)),
        ColumnType::Float32 => matches!(value, Value::Float32(_)),
        ColumnType::Float64 => matches!(value, Value::Float64(_)),
        ColumnType::Decimal { precision, scale } => {
            let Value::Decimal(text) = value else { return false };
            let places = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            let shown = usize::try_from(*scale).unwrap_or(0);
            precision.is_none_or(|precision| Digits::parse(text).unwrap().fits(precision, *scale) && places == shown)
        }
        ColumnType::Text { limit, .. } => {
            let Value::Text(text) = value else { return false };
            match limit {
                TextLimit::None => true,
                TextLimit::Characters(n) => text.chars().count() <= *n as usize,
                TextLimit::Bytes(n) => text.len() as u64 <= *n,
            }
        }
        ColumnType::Enum | ColumnType::Set => matches!(value, Value::Text(_)),
        ColumnType::Bytes { limit, padded } => {
            let Value::Bytes(bytes) = value else { return false };
            let length = bytes.len() as u64;
            limit.is_none_or(|limit| if *padded { length == limit } else { length <= limit })
        }
        ColumnType::Date => matches!(value, Value::Date(_)),
        ColumnType::Time { .. } => matches!(value, Value::Time(_)),
        ColumnType::Timestamp { .. } => matches!(value, Value::Timestamp(_)),
        ColumnType::TimestampTz { .. } => matches!(value, Value::TimestampTz(_)),
        ColumnType::Uuid => matches!(value, Value::Uuid(_)),
        ColumnType::Json { .. } => matches!(value, Value::Json(_)),
        ColumnType::Bits { length, varying } => {
            let Value::Bits(digits) = value else { return false };
            if *varying { digits.len() <= *length as usize } else { digits.len() == *length as usize }
        }
        ColumnType::Named { .. } => matches!(value, Value::Raw(_)),
    }
}
