//! MongoDB's order over all values, and [`Key`], a value with that order.

use std::cmp::Ordering;

use bson::{RawArray, RawBson, RawBsonRef, RawDocument};

use super::decimal::Decimal;

/// Values of different rank never compare equal: the server's canonical type order.
pub fn rank(value: RawBsonRef<'_>) -> u8 {
    match value {
        RawBsonRef::MinKey => 0,
        RawBsonRef::Undefined | RawBsonRef::Null => 1,
        RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) | RawBsonRef::Decimal128(_) => 2,
        RawBsonRef::String(_) | RawBsonRef::Symbol(_) => 3,
        RawBsonRef::Document(_) => 4,
        RawBsonRef::Array(_) => 5,
        RawBsonRef::Binary(_) => 6,
        RawBsonRef::ObjectId(_) => 7,
        RawBsonRef::Boolean(_) => 8,
        RawBsonRef::DateTime(_) => 9,
        RawBsonRef::Timestamp(_) => 10,
        RawBsonRef::RegularExpression(_) => 11,
        RawBsonRef::DbPointer(_) => 12,
        RawBsonRef::JavaScriptCode(_) => 13,
        RawBsonRef::JavaScriptCodeWithScope(_) => 14,
        RawBsonRef::MaxKey => 15,
    }
}

pub fn compare(one: RawBsonRef<'_>, two: RawBsonRef<'_>) -> Ordering {
    use RawBsonRef as B;
    match (one, two) {
        (B::Int32(one), B::Int32(two)) => one.cmp(&two),
        (B::Int64(one), B::Int64(two)) => one.cmp(&two),
        (B::Int32(one), B::Int64(two)) => i64::from(one).cmp(&two),
        (B::Int64(one), B::Int32(two)) => one.cmp(&i64::from(two)),
        (B::ObjectId(one), B::ObjectId(two)) => one.bytes().cmp(&two.bytes()),
        (B::String(one) | B::Symbol(one), B::String(two) | B::Symbol(two)) => one.as_bytes().cmp(two.as_bytes()),
        (B::Document(one), B::Document(two)) => documents(one, two),
        (B::Array(one), B::Array(two)) => arrays(one, two),
        (B::Binary(one), B::Binary(two)) => (one.bytes.len(), u8::from(one.subtype), one.bytes).cmp(&(
            two.bytes.len(),
            u8::from(two.subtype),
            two.bytes,
        )),
        (B::Boolean(one), B::Boolean(two)) => one.cmp(&two),
        (B::DateTime(one), B::DateTime(two)) => one.cmp(&two),
        (B::Timestamp(one), B::Timestamp(two)) => (one.time, one.increment).cmp(&(two.time, two.increment)),
        (B::RegularExpression(one), B::RegularExpression(two)) => {
            (one.pattern.as_str(), one.options.as_str()).cmp(&(two.pattern.as_str(), two.options.as_str()))
        }
        (B::JavaScriptCode(one), B::JavaScriptCode(two)) => one.cmp(two),
        (B::JavaScriptCodeWithScope(one), B::JavaScriptCodeWithScope(two)) => {
            one.code.cmp(two.code).then_with(|| documents(one.scope, two.scope))
        }
        (B::DbPointer(one), B::DbPointer(two)) => format!("{one:?}").cmp(&format!("{two:?}")),
        (one, two) => rank(one).cmp(&rank(two)).then_with(|| match (Number::of(one), Number::of(two)) {
            (Some(one), Some(two)) => numbers(one, two),
            _ => Ordering::Equal,
        }),
    }
}

enum Number {
    Integer(i64),
    Double(f64),
    Decimal(bson::Decimal128),
}

impl Number {
    fn of(value: RawBsonRef<'_>) -> Option<Self> {
        match value {
            RawBsonRef::Int32(value) => Some(Self::Integer(value.into())),
            RawBsonRef::Int64(value) => Some(Self::Integer(value)),
            RawBsonRef::Double(value) => Some(Self::Double(value)),
            RawBsonRef::Decimal128(value) => Some(Self::Decimal(value)),
            _ => None,
        }
    }

    fn exact(&self) -> Decimal {
        match self {
            Self::Integer(value) => Decimal::of_integer(*value),
            Self::Double(value) => Decimal::of_double(*value),
            Self::Decimal(value) => Decimal::of_decimal(*value),
        }
    }
}

fn numbers(one: Number, two: Number) -> Ordering {
    match (&one, &two) {
        (Number::Double(one), Number::Double(two)) => {
            one.partial_cmp(two).unwrap_or_else(|| (!one.is_nan()).cmp(&!two.is_nan()))
        }
        (Number::Integer(one), Number::Double(two)) => integer_and_double(*one, *two),
        (Number::Double(one), Number::Integer(two)) => integer_and_double(*two, *one).reverse(),
        _ => one.exact().compare(&two.exact()),
    }
}

fn integer_and_double(integer: i64, double: f64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0; // 2^63
    if double.is_nan() || double < -LIMIT {
        return Ordering::Greater;
    }
    if double >= LIMIT {
        return Ordering::Less;
    }
    let fraction = double - double.trunc();
    integer.cmp(&(double as i64)).then_with(|| 0.0.partial_cmp(&fraction).unwrap_or(Ordering::Equal))
}

fn documents(one: &RawDocument, two: &RawDocument) -> Ordering {
    let (mut one, mut two) = (one.iter().flatten(), two.iter().flatten());
    loop {
        let ((one_name, one_value), (two_name, two_value)) = match (one.next(), two.next()) {
            (Some(one), Some(two)) => (one, two),
            (one, two) => return one.is_some().cmp(&two.is_some()),
        };
        let order = rank(one_value)
            .cmp(&rank(two_value))
            .then_with(|| one_name.as_str().cmp(two_name.as_str()))
            .then_with(|| compare(one_value, two_value));
        if order.is_ne() {
            return order;
        }
    }
}

fn arrays(one: &RawArray, two: &RawArray) -> Ordering {
    let (mut one, mut two) = (one.into_iter().flatten(), two.into_iter().flatten());
    loop {
        match (one.next(), two.next()) {
            (Some(one), Some(two)) => {
                let order = compare(one, two);
                if order.is_ne() {
                    return order;
                }
            }
            (one, two) => return one.is_some().cmp(&two.is_some()),
        }
    }
}

/// A value that can stand in a map: equal means equal to the server, so `1`, `1.0` and `NumberLong(1)` are one key.
#[derive(Debug, Clone)]
pub struct Key(pub RawBson);

impl Key {
    pub fn of(value: RawBsonRef<'_>) -> Self {
        Self(value.into())
    }

    pub fn value(&self) -> RawBsonRef<'_> {
        self.0.as_raw_bson_ref()
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (RawBson::Int64(one), RawBson::Int64(two)) => one.cmp(two),
            (RawBson::Int32(one), RawBson::Int32(two)) => one.cmp(two),
            _ => compare(self.value(), other.value()),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn numbers_compare_by_value_whatever_their_type() {
        let one =
            [RawBson::Int32(1), RawBson::Int64(1), RawBson::Double(1.0), RawBson::Decimal128("1.0".parse().unwrap())];
        for left in &one {
            for right in &one {
                assert_eq!(Key(left.clone()), Key(right.clone()));
            }
        }
        assert!(Key(RawBson::Int64(i64::MAX)) < Key(RawBson::Double(9_223_372_036_854_775_808.0)));
        assert!(Key(RawBson::Int32(2)) < Key(RawBson::Double(2.5)));
        assert!(Key(RawBson::Int32(-2)) > Key(RawBson::Double(-2.5)));
    }

    #[test]
    fn field_order_counts() {
        let (one, two) = (rawdoc! {"a": 1, "b": 1}, rawdoc! {"b": 1, "a": 1});
        assert_ne!(Key(one.into()), Key(two.into()));
    }

    #[test]
    fn types_have_an_order() {
        let text = Key(RawBson::String("z".into()));
        assert!(
            Key(RawBson::Null) < Key(RawBson::Int32(5)) && Key(RawBson::Int32(5)) < text && text < Key(RawBson::MaxKey)
        );
    }
}
