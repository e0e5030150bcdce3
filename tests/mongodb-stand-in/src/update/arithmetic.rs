//! Adding and multiplying numbers with the server's widening: int32, int64, double, Decimal128.

use bson::{Bson, Decimal128};

use crate::failure::{Failure, code};
use crate::value::decimal::Decimal;

pub fn add(one: &Bson, two: &Bson) -> Result<Bson, Failure> {
    match (one, two) {
        (Bson::Decimal128(_), _) | (_, Bson::Decimal128(_)) => {
            let sum = exact(one)?.add(&exact(two)?);
            sum.map(Bson::Decimal128).ok_or_else(|| overflow("a sum beyond 34 digits"))
        }
        (Bson::Double(_), _) | (_, Bson::Double(_)) => Ok(Bson::Double(double(one)? + double(two)?)),
        _ => integer(integer_of(one)?.checked_add(integer_of(two)?), one, two),
    }
}

pub fn multiply(one: &Bson, two: &Bson) -> Result<Bson, Failure> {
    match (one, two) {
        (Bson::Decimal128(value), Bson::Int32(-1)) => negate(value),
        (Bson::Decimal128(_), _) | (_, Bson::Decimal128(_)) => {
            Err(Failure::bad_value("the stand-in does not multiply Decimal128"))
        }
        (Bson::Double(_), _) | (_, Bson::Double(_)) => Ok(Bson::Double(double(one)? * double(two)?)),
        _ => integer(integer_of(one)?.checked_mul(integer_of(two)?), one, two),
    }
}

fn negate(value: &Decimal128) -> Result<Bson, Failure> {
    let text = value.to_string();
    let text = text.strip_prefix('-').map_or_else(|| format!("-{text}"), str::to_owned);
    text.parse().map(Bson::Decimal128).map_err(|_| overflow("a Decimal128"))
}

/// Two int32 stay one where the result fits.
fn integer(result: Option<i64>, one: &Bson, two: &Bson) -> Result<Bson, Failure> {
    let result = result.ok_or_else(|| overflow("an int64"))?;
    match (one, two, i32::try_from(result)) {
        (Bson::Int32(_), Bson::Int32(_), Ok(small)) => Ok(Bson::Int32(small)),
        _ => Ok(Bson::Int64(result)),
    }
}

fn integer_of(value: &Bson) -> Result<i64, Failure> {
    match value {
        Bson::Int32(value) => Ok((*value).into()),
        Bson::Int64(value) => Ok(*value),
        other => Err(not_a_number(other)),
    }
}

fn double(value: &Bson) -> Result<f64, Failure> {
    match value {
        Bson::Double(value) => Ok(*value),
        other => integer_of(other).map(|value| value as f64),
    }
}

fn exact(value: &Bson) -> Result<Decimal, Failure> {
    match value {
        Bson::Decimal128(value) => Ok(Decimal::of_decimal(*value)),
        Bson::Double(value) => Ok(Decimal::of_double(*value)),
        other => integer_of(other).map(Decimal::of_integer),
    }
}

fn overflow(what: &str) -> Failure {
    Failure::bad_value(format!("Failed to apply $inc operations: the result does not fit {what}"))
}

fn not_a_number(value: &Bson) -> Failure {
    Failure::new(
        code::TYPE_MISMATCH,
        format!("Cannot apply an arithmetic operator to a value of non-numeric type {:?}", value.element_type()),
    )
}
