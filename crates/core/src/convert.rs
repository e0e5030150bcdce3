//! From one column's values to another's, exactly or not at all (invariant 7).
//!
//! Sinks convert with it before they write, and verification before it compares, so both mean the same. Which pairs of
//! types there are, and the class of each, stands in [`plan`]; what is done to a value in [`step`].

mod from_field;
mod plan;
mod step;

use crate::decimal::Digits;
use crate::json;
use crate::types::{ColumnType, Engine};
use crate::value::Value;
use std::fmt;
use step::Step;

/// What becomes of the values of one column type in another. Values that the other *engine* has no word for (`NaN`,
/// infinite dates, the zero character) are refused whatever the class; `docs/types.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Every value arrives and comes back the same, and the target holds no others.
    Exact,
    /// Every value arrives and comes back the same; the target could hold more.
    Widened,
    /// Some values can't be held: each of those is refused, never rounded, truncated or nulled.
    Lossy,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Exact => "exact",
            Class::Widened => "widened",
            Class::Lossy => "lossy",
        })
    }
}

/// Why a value or a whole type is refused. Never holds the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A planned conversion between two column types.
#[derive(Clone, Debug)]
pub struct Conversion {
    step: Step,
    class: Class,
    /// Both columns hold what only PostgreSQL and MySQL may see differently: times, zoned timestamps, JSON.
    engine_bound: Option<EngineBound>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EngineBound {
    Time,
    TimestampTz,
    Json,
    /// The same values, of which PostgreSQL has further ones: infinities, `NaN`, other centuries.
    Wider,
}

impl Conversion {
    /// Plans a conversion; a pair of types that has none is refused by name.
    pub fn new(from: &ColumnType, to: &ColumnType) -> Result<Self, Refusal> {
        let (step, class) = plan::plan(from, to).ok_or_else(|| plan::no_pair(from, to))?;
        let engine_bound = match to {
            ColumnType::Time { .. } => Some(EngineBound::Time),
            ColumnType::TimestampTz { .. } => Some(EngineBound::TimestampTz),
            ColumnType::Json { .. } => Some(EngineBound::Json),
            ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Decimal { .. }
            | ColumnType::Date
            | ColumnType::Timestamp { .. } => Some(EngineBound::Wider),
            ColumnType::Bool
            | ColumnType::Int { .. }
            | ColumnType::Text { .. }
            | ColumnType::Bytes { .. }
            | ColumnType::Year
            | ColumnType::Uuid
            | ColumnType::Enum
            | ColumnType::Set
            | ColumnType::Bits { .. }
            | ColumnType::Id
            | ColumnType::Document
            | ColumnType::Field
            | ColumnType::Named { .. } => None,
        };
        Ok(Self { step, class, engine_bound })
    }

    /// The class by the types alone.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The class between columns of these engines, which hold different values under the same type: MySQL's `time` is
    /// a duration, its `timestamp` ends in 2038, its JSON numbers are doubles.
    pub fn class_between(&self, from: Engine, to: Engine) -> Class {
        let engines = match (from, to, self.engine_bound) {
            (Engine::Mysql, Engine::Postgres, Some(EngineBound::Time)) => Class::Lossy,
            (Engine::Mysql, Engine::Postgres, Some(_)) => Class::Widened,
            (Engine::Postgres, Engine::Mysql, Some(EngineBound::TimestampTz | EngineBound::Json)) => Class::Lossy,
            (Engine::Postgres, Engine::Mysql, Some(EngineBound::Time)) => Class::Widened,
            (Engine::Postgres, Engine::Mysql, Some(EngineBound::Wider) | None)
            | (Engine::Mysql, Engine::Postgres, None)
            | (Engine::Postgres, Engine::Postgres, _)
            | (Engine::Mysql, Engine::Mysql, _)
            // The types alone tell what a document holds of a column.
            | (Engine::Mongodb, _, _)
            | (_, Engine::Mongodb, _) => Class::Exact,
        };
        self.class.max(engines)
    }

    /// The value as the target's type holds it. `scratch` lends room for text that has to be made; what it held is gone
    /// after the call.
    #[inline]
    pub fn apply<'a>(&self, value: Value<'a>, scratch: &'a mut String) -> Result<Value<'a>, Refusal> {
        match self.step {
            Step::Keep => Ok(value),
            ref step => step.take(value, scratch),
        }
    }
}

/// Whether two values of a column of this type mean the same: `1.10` and `1.1`, JSON with its members in another order,
/// padded text with and without its blanks. Floats are compared as SQL compares them: `-0` is `0`, `NaN` is `NaN`.
pub fn same(one: Value<'_>, other: Value<'_>, kind: &ColumnType) -> bool {
    if one == other {
        return true;
    }
    match (one, other) {
        (Value::Decimal(one), Value::Decimal(other)) => {
            matches!((Digits::parse(one), Digits::parse(other)), (Some(one), Some(other)) if one == other)
        }
        (Value::Text(one), Value::Text(other)) => {
            let padded = matches!(kind, ColumnType::Text { padded: true, .. });
            padded && one.trim_end_matches(' ') == other.trim_end_matches(' ')
        }
        (Value::Bytes(one), Value::Bytes(other)) => {
            let padded = matches!(kind, ColumnType::Bytes { padded: true, .. });
            padded && without_zeros(one) == without_zeros(other)
        }
        (Value::Json(one), Value::Json(other)) => json::same(one, other),
        (Value::Float32(one), Value::Float32(other)) => one.is_nan() && other.is_nan(),
        (Value::Float64(one), Value::Float64(other)) => one.is_nan() && other.is_nan(),
        // Everything else has one form per meaning.
        _ => false,
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
