//! Conversions of anything to anything: what arrives comes back, what the class promises arrives.

use super::tests::{kind, with};
use super::*;
use crate::types::{BITS_WITHOUT_LIMIT, TextLimit};
use proptest::prelude::*;

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
        ColumnType::Id | ColumnType::Document | ColumnType::Field | ColumnType::Named { .. } => {
            any::<Vec<u8>>().prop_map(Owned::Raw).boxed()
        }
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
        ColumnType::Id | ColumnType::Document => false,
        ColumnType::Named { .. } | ColumnType::Field => matches!(value, Value::Raw(_)),
    }
}
