//! The pairs of column types between which values travel, with the work of each and its class.

use super::step::{Relabel, Room, Step};
use super::{Class, Refusal};
use crate::types::{BITS_WITHOUT_LIMIT, ColumnType, TextLimit};

/// What PostgreSQL holds in a value, at most: a text without a limit fits where this fits.
const GIB: u64 = 1 << 30;

/// What MySQL's labels may hold: 255 characters each, 64 of them with commas between them in a set.
const ENUM_LABEL: TextLimit = TextLimit::Characters(255);
const SET_LABELS: TextLimit = TextLimit::Characters(64 * 256 - 1);

pub(super) fn no_pair(from: &ColumnType, to: &ColumnType) -> Refusal {
    let hint = match (from, to) {
        (ColumnType::Named { .. }, _) | (_, ColumnType::Named { .. }) => {
            "; such a type travels only to the same type of the same engine"
        }
        (ColumnType::Uuid, ColumnType::Bytes { .. }) => "; a text column of 36 characters takes a uuid",
        (ColumnType::Float32 | ColumnType::Float64, ColumnType::Decimal { .. }) => {
            "; a double column takes every float"
        }
        _ => "",
    };
    Refusal(format!("no exact way from {from} to {to}{hint}"))
}

/// None: values of the one never travel to the other.
pub(super) fn plan(from: &ColumnType, to: &ColumnType) -> Option<(Step, Class)> {
    use ColumnType as T;
    if from == to {
        return Some((Step::Keep, Class::Exact));
    }
    if *from == T::Field {
        return super::from_field::takes(to).map(|takes| (Step::FromField(takes), Class::Lossy));
    }
    Some(match (from, to) {
        (T::Bool, T::Int { .. }) => (Step::BoolToInt, Class::Widened),
        (T::Int { .. }, T::Bool) => (Step::IntToBool, Class::Lossy),
        (T::Bool, T::Bits { length: 1, varying: false }) => (Step::BoolToBit, Class::Exact),
        (T::Bits { length: 1, varying: false }, T::Bool) => (Step::BitToBool, Class::Exact),

        (&T::Int { bits, unsigned }, &T::Int { bits: to_bits, unsigned: to_unsigned }) => {
            let (from_low, from_high) = range(bits, unsigned);
            let (low, high) = range(to_bits, to_unsigned);
            if low <= from_low && from_high <= high {
                (Step::Keep, Class::Widened)
            } else {
                (Step::IntInRange { low, high }, Class::Lossy)
            }
        }
        (&T::Int { bits, unsigned }, &T::Decimal { precision, scale }) => {
            let covers =
                precision.is_none_or(|p| scale >= 0 && i32::from(p) - i32::from(scale) >= digits(bits, unsigned));
            (Step::IntToDecimal { precision, scale }, widened_if(covers))
        }
        (&T::Int { bits, .. }, T::Float32) => (Step::IntToFloat32, widened_if(bits <= 24)),
        (&T::Int { bits, .. }, T::Float64) => (Step::IntToFloat64, widened_if(bits <= 32)),
        (&T::Int { .. }, T::Year) => (Step::IntToYear, Class::Lossy),
        (T::Year, &T::Int { bits, unsigned }) => {
            let (low, high) = range(bits, unsigned);
            (Step::IntInRange { low, high }, widened_if(bits >= 16))
        }

        (T::Float32, T::Float64) => (Step::Float32ToFloat64, Class::Widened),
        (T::Float64, T::Float32) => (Step::Float64ToFloat32, Class::Lossy),

        (&T::Decimal { precision, scale }, &T::Int { bits, unsigned }) => {
            let (low, high) = range(bits, unsigned);
            let whole = precision.filter(|_| scale <= 0).map(|p| i32::from(p) - i32::from(scale));
            let covers = !unsigned && whole.is_some_and(|whole| whole < digits(bits, unsigned));
            (Step::DecimalToInt { low, high }, widened_if(covers))
        }
        (T::Decimal { .. }, T::Decimal { precision: None, .. }) => (Step::Keep, Class::Widened),
        (
            &T::Decimal { precision: from_precision, scale: from_scale },
            &T::Decimal { precision: Some(precision), scale },
        ) => {
            let (from_scale, to_scale) = (i32::from(from_scale), i32::from(scale));
            let whole = i32::from(precision) - to_scale;
            let covers = from_precision.is_some_and(|p| to_scale >= from_scale && whole >= i32::from(p) - from_scale);
            (Step::DecimalToDecimal { precision, scale }, widened_if(covers))
        }

        (T::Text { limit, padded }, &T::Text { limit: to_limit, padded: to_padded }) => {
            text(*limit, *padded, to_limit, to_padded)
        }
        (T::Enum, &T::Text { limit, padded }) => labels(ENUM_LABEL, limit, padded),
        (T::Set, &T::Text { limit, padded }) => labels(SET_LABELS, limit, padded),
        (T::Json { .. }, &T::Text { limit, padded }) => {
            let (_, class) = text(TextLimit::None, false, limit, padded);
            (Step::Text { room: Room::of(limit), strip: false, padded }, class)
        }
        // The target itself refuses a label that it does not have.
        (T::Text { padded, .. }, T::Enum) => {
            (Step::Text { room: Room::Unlimited, strip: *padded, padded: false }, Class::Lossy)
        }
        (T::Text { .. }, T::Json { textual }) => (Step::TextToJson { textual: *textual }, Class::Lossy),
        (T::Json { textual: true }, T::Json { textual: false }) => (Step::JsonToNormalized, Class::Lossy),
        (T::Json { textual: false }, T::Json { textual: true }) => (Step::Keep, Class::Widened),

        (T::Bytes { .. }, T::Bytes { limit: None, .. }) => (Step::Keep, Class::Widened),
        (&T::Bytes { limit, padded }, &T::Bytes { limit: Some(to), padded: to_padded }) => {
            bytes(limit.unwrap_or(GIB), padded, to, to_padded)?
        }

        (T::Time { precision }, T::Time { precision: to }) => micros(*precision, *to, Relabel::Time),
        (T::Timestamp { precision }, T::Timestamp { precision: to }) => micros(*precision, *to, Relabel::Timestamp),
        (T::TimestampTz { precision }, T::TimestampTz { precision: to }) => {
            micros(*precision, *to, Relabel::TimestampTz)
        }
        // A timestamp of no zone is one in UTC on the way to and from one with a zone.
        (T::TimestampTz { precision }, T::Timestamp { precision: to }) => micros(*precision, *to, Relabel::ToTimestamp),
        (T::Timestamp { precision }, T::TimestampTz { precision: to }) => {
            micros(*precision, *to, Relabel::ToTimestampTz)
        }

        (T::Uuid, &T::Text { limit: TextLimit::None, .. }) => (Step::UuidToText, Class::Widened),
        (T::Uuid, &T::Text { limit: TextLimit::Characters(36..), .. }) => (Step::UuidToText, Class::Widened),
        (T::Uuid, &T::Text { limit: TextLimit::Bytes(36..), .. }) => (Step::UuidToText, Class::Widened),
        (T::Text { .. }, T::Uuid) => (Step::TextToUuid, Class::Lossy),
        (&T::Bytes { limit, padded }, T::Uuid) => match (limit, padded) {
            (Some(16), true) => (Step::BytesToUuid, Class::Exact),
            (Some(_), true) | (Some(0..16), false) => return None,
            (Some(_) | None, _) => (Step::BytesToUuid, Class::Lossy),
        },

        (&T::Bits { length, varying }, &T::Bits { length: to, varying: to_varying }) => {
            bits(length, varying, to, to_varying)?
        }
        (&T::Bits { length, .. }, &T::Text { limit, .. }) => {
            let from = if length == BITS_WITHOUT_LIMIT { TextLimit::None } else { TextLimit::Bytes(u64::from(length)) };
            (Step::BitsToText { room: Room::of(limit) }, widened_if(covers(from, limit)))
        }
        (T::Text { .. }, &T::Bits { length, varying }) => (Step::TextToBits { length, exact: !varying }, Class::Lossy),

        // Named types travel to their equals only; for the rest there is no way that is sure to keep every meaning.
        // Text into a set is among them: MySQL puts the labels in order and drops doubles without a word.
        (
            T::Bool
            | T::Int { .. }
            | T::Float32
            | T::Float64
            | T::Decimal { .. }
            | T::Text { .. }
            | T::Bytes { .. }
            | T::Date
            | T::Time { .. }
            | T::Timestamp { .. }
            | T::TimestampTz { .. }
            | T::Year
            | T::Uuid
            | T::Json { .. }
            | T::Enum
            | T::Set
            | T::Bits { .. }
            | T::Id
            | T::Document
            | T::Field
            | T::Named { .. },
            _,
        ) => return None,
    })
}

fn widened_if(covers: bool) -> Class {
    if covers { Class::Widened } else { Class::Lossy }
}

pub(super) fn range(bits: u8, unsigned: bool) -> (i64, u64) {
    let high = u64::MAX >> (64 - u32::from(bits).clamp(1, 64));
    if unsigned { (0, high) } else { (i64::MIN >> (64 - u32::from(bits).clamp(1, 64)), high >> 1) }
}

/// The decimal digits of the largest number.
fn digits(bits: u8, unsigned: bool) -> i32 {
    i32::try_from(range(bits, unsigned).1.ilog10()).unwrap_or(i32::MAX) + 1
}

/// Whether every text under the one limit is under the other. A character takes one to four bytes.
fn covers(from: TextLimit, to: TextLimit) -> bool {
    match (from, to) {
        (_, TextLimit::None) => true,
        (TextLimit::None, TextLimit::Bytes(to)) => to >= GIB,
        (TextLimit::None, TextLimit::Characters(to)) => u64::from(to) >= GIB,
        (TextLimit::Characters(from), TextLimit::Characters(to)) => to >= from,
        (TextLimit::Characters(from), TextLimit::Bytes(to)) => to >= 4 * u64::from(from),
        (TextLimit::Bytes(from), TextLimit::Characters(to)) => u64::from(to) >= from,
        (TextLimit::Bytes(from), TextLimit::Bytes(to)) => to >= from,
    }
}

fn text(from: TextLimit, from_padded: bool, to: TextLimit, padded: bool) -> (Step, Class) {
    let covers = covers(from, to);
    let class = match (covers, from_padded, padded) {
        (true, false, false) if from == to => Class::Exact,
        (true, true, _) | (true, false, false) => Class::Widened,
        // A blank at the end could not be told from padding.
        (true, false, true) | (false, _, _) => Class::Lossy,
    };
    if class <= Class::Widened && !from_padded {
        return (Step::Keep, class);
    }
    let room = if covers { Room::Unlimited } else { Room::of(to) };
    (Step::Text { room, strip: from_padded, padded }, class)
}

/// A text column takes more than the labels, even where it is just as long.
fn labels(longest: TextLimit, to: TextLimit, padded: bool) -> (Step, Class) {
    let (step, class) = text(longest, false, to, padded);
    (step, class.max(Class::Widened))
}

fn bytes(from: u64, from_padded: bool, to: u64, padded: bool) -> Option<(Step, Class)> {
    let plan = match (from_padded, padded) {
        // Always of its full length: it fits always or never.
        (true, true) => return (from == to).then_some((Step::Keep, Class::Exact)),
        (true, false) => return (from <= to).then_some((Step::Keep, Class::Widened)),
        (false, true) => (Step::Bytes { limit: to, exact: true }, Class::Lossy),
        (false, false) if from <= to => (Step::Keep, Class::Widened),
        (false, false) => (Step::Bytes { limit: to, exact: false }, Class::Lossy),
    };
    Some(plan)
}

fn bits(from: u32, varying: bool, to: u32, to_varying: bool) -> Option<(Step, Class)> {
    match (varying, to_varying) {
        (false, false) => None,
        (false, true) => (from <= to).then_some((Step::Keep, Class::Widened)),
        (true, true) if from <= to => Some((Step::Keep, Class::Widened)),
        (true, _) => Some((Step::Bits { length: to, exact: !to_varying }, Class::Lossy)),
    }
}

/// Digits of a second: more of them at the target keep every value.
fn micros(from: u8, to: u8, relabel: Relabel) -> (Step, Class) {
    let unit = 10i64.pow(u32::from(6 - to.min(6)));
    let class = widened_if(from <= to);
    let keeps = matches!(relabel, Relabel::Time | Relabel::Timestamp | Relabel::TimestampTz);
    if keeps && class == Class::Widened {
        return (Step::Keep, class);
    }
    (Step::Micros { unit, relabel }, class)
}
