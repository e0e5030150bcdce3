//! The condition that a filter puts on one field's values.

use std::cmp::Ordering;

use bson::{RawBson, RawBsonRef, RawDocument};
use regex::{Regex, RegexBuilder};

use super::filter::Filter;
use crate::failure::Failure;
use crate::value::order::{compare, rank};
use crate::value::read::{self, Read, whole};

#[derive(Debug)]
pub enum Condition {
    Equal(RawBson),
    Compare(&'static [Ordering], RawBson),
    In(Vec<Condition>),
    Exists(bool),
    Every(Vec<Condition>),
    Not(Box<Condition>),
    Size(i64),
    All(Vec<Condition>),
    ElementMatches(Box<Filter>),
    ElementPasses(Box<Condition>),
    Type(Vec<Kind>),
    Modulo(i64, i64),
    Pattern(Regex),
}

type Found<'a> = Option<RawBsonRef<'a>>;

impl Condition {
    pub fn parse(value: RawBsonRef<'_>) -> Result<Self, Failure> {
        match value {
            RawBsonRef::RegularExpression(regex) => pattern(regex.pattern.as_str(), regex.options.as_str()),
            RawBsonRef::Document(document) if has_operators(document) => {
                let mut conditions = Vec::new();
                for element in document.iter() {
                    let (name, value) = element?;
                    if name.as_str() != "$options" {
                        conditions.push(Self::operator(name.as_str(), value, document)?);
                    }
                }
                Ok(if conditions.len() == 1 { conditions.remove(0) } else { Self::Every(conditions) })
            }
            value => Ok(Self::Equal(value.into())),
        }
    }

    fn operator(name: &str, value: RawBsonRef<'_>, all: &RawDocument) -> Result<Self, Failure> {
        use Ordering::{Equal, Greater, Less};
        let list = || value.as_array().ok_or_else(|| Failure::bad_value(format!("{name} needs an array")));
        let conditions =
            || -> Result<Vec<Self>, Failure> { list()?.into_iter().map(|value| Self::parse_one(value?)).collect() };
        Ok(match name {
            "$eq" => Self::Equal(value.into()),
            "$ne" => Self::Not(Box::new(Self::Equal(value.into()))),
            "$gt" => Self::Compare(&[Greater], value.into()),
            "$gte" => Self::Compare(&[Greater, Equal], value.into()),
            "$lt" => Self::Compare(&[Less], value.into()),
            "$lte" => Self::Compare(&[Less, Equal], value.into()),
            "$in" => Self::In(conditions()?),
            "$nin" => Self::Not(Box::new(Self::In(conditions()?))),
            "$exists" => Self::Exists(read::truth(value)),
            "$not" => Self::Not(Box::new(Self::parse(value)?)),
            "$size" => Self::Size(whole(value).ok_or_else(|| Failure::bad_value("$size needs a number"))?),
            "$all" => Self::All(conditions()?),
            "$elemMatch" => match value.as_document() {
                Some(inner) if has_operators(inner) => Self::ElementPasses(Box::new(Self::parse(value)?)),
                Some(inner) => Self::ElementMatches(Box::new(Filter::parse(inner)?)),
                None => return Err(Failure::bad_value("$elemMatch needs an Object")),
            },
            "$type" => Self::Type(match value {
                RawBsonRef::Array(list) => list.into_iter().map(|kind| Kind::parse(kind?)).collect::<Result<_, _>>()?,
                kind => vec![Kind::parse(kind)?],
            }),
            "$mod" => {
                let numbers: Vec<i64> = list()?.into_iter().flatten().filter_map(whole).collect();
                match numbers[..] {
                    [divisor, rest] if divisor != 0 => Self::Modulo(divisor, rest),
                    _ => return Err(Failure::bad_value("malformed mod")),
                }
            }
            "$regex" => match value {
                RawBsonRef::RegularExpression(regex) => pattern(regex.pattern.as_str(), regex.options.as_str())?,
                RawBsonRef::String(text) => pattern(text, all.text("$options").unwrap_or(""))?,
                _ => return Err(Failure::bad_value("$regex has to be a string")),
            },
            other => return Err(Failure::bad_value(format!("unknown operator: {other}"))),
        })
    }

    /// An element of `$in` or `$all`: a value or a pattern, never operators.
    fn parse_one(value: RawBsonRef<'_>) -> Result<Self, Failure> {
        match value {
            RawBsonRef::RegularExpression(_) => Self::parse(value),
            value => Ok(Self::Equal(value.into())),
        }
    }

    pub fn holds(&self, found: &[Found<'_>]) -> bool {
        match self {
            Self::Equal(wanted) => {
                let wanted = wanted.as_raw_bson_ref();
                let missing = matches!(wanted, RawBsonRef::Null) && found.iter().any(Option::is_none);
                missing || any(found, |value| compare(value, wanted).is_eq())
            }
            Self::Compare(orders, limit) => {
                let limit = limit.as_raw_bson_ref();
                any(found, |value| rank(value) == rank(limit) && orders.contains(&compare(value, limit)))
            }
            Self::In(conditions) => conditions.iter().any(|condition| condition.holds(found)),
            Self::Exists(wanted) => *wanted == found.iter().any(Option::is_some),
            Self::Every(conditions) | Self::All(conditions) => {
                conditions.iter().all(|condition| condition.holds(found))
            }
            Self::Not(condition) => !condition.holds(found),
            Self::Size(wanted) => arrays(found).any(|array| array.into_iter().count() as i64 == *wanted),
            Self::ElementMatches(filter) => {
                arrays(found).any(|array| read::documents(array).any(|element| filter.matches(element)))
            }
            Self::ElementPasses(condition) => {
                arrays(found).any(|array| array.into_iter().flatten().any(|element| condition.holds(&[Some(element)])))
            }
            Self::Type(kinds) => any(found, |value| kinds.iter().any(|kind| kind.covers(value))),
            Self::Modulo(divisor, rest) => {
                any(found, |value| rank(value) == 2 && whole(value).is_some_and(|number| number % divisor == *rest))
            }
            Self::Pattern(regex) => any(found, |value| value.as_str().is_some_and(|text| regex.is_match(text))),
        }
    }

    /// The single conditions that must all hold.
    pub fn flatten<'a>(&'a self, into: &mut Vec<&'a Self>) {
        match self {
            Self::Every(conditions) => conditions.iter().for_each(|condition| condition.flatten(into)),
            condition => into.push(condition),
        }
    }
}

fn has_operators(document: &RawDocument) -> bool {
    document.iter_elements().next().and_then(Result::ok).is_some_and(|first| first.key().as_str().starts_with('$'))
}

/// A field's value or, if it is an array, one of its elements.
fn any(found: &[Found<'_>], condition: impl Fn(RawBsonRef<'_>) -> bool) -> bool {
    found.iter().flatten().any(|value| {
        condition(*value) || matches!(value, RawBsonRef::Array(array) if array.into_iter().flatten().any(&condition))
    })
}

fn arrays<'a>(found: &'a [Found<'a>]) -> impl Iterator<Item = &'a bson::RawArray> {
    found.iter().flatten().filter_map(|value| value.as_array())
}

fn pattern(pattern: &str, options: &str) -> Result<Condition, Failure> {
    RegexBuilder::new(pattern)
        .case_insensitive(options.contains('i'))
        .multi_line(options.contains('m'))
        .dot_matches_new_line(options.contains('s'))
        .ignore_whitespace(options.contains('x'))
        .build()
        .map(Condition::Pattern)
        .map_err(|error| Failure::new(51091, format!("Regular expression is invalid: {error}")))
}

/// What `$type` asks for: one BSON type, or all numbers.
#[derive(Debug)]
pub enum Kind {
    Number,
    Byte(u8),
}

impl Kind {
    fn parse(value: RawBsonRef<'_>) -> Result<Self, Failure> {
        const NAMES: [&str; 20] = [
            "",
            "double",
            "string",
            "object",
            "array",
            "binData",
            "undefined",
            "objectId",
            "bool",
            "date",
            "null",
            "regex",
            "dbPointer",
            "javascript",
            "symbol",
            "javascriptWithScope",
            "int",
            "timestamp",
            "long",
            "decimal",
        ];
        match value {
            RawBsonRef::String("number") => Ok(Self::Number),
            RawBsonRef::String("minKey") => Ok(Self::Byte(0xff)),
            RawBsonRef::String("maxKey") => Ok(Self::Byte(0x7f)),
            RawBsonRef::String(name) => NAMES
                .iter()
                .position(|known| *known == name)
                .map(|byte| Self::Byte(byte as u8))
                .ok_or_else(|| Failure::bad_value(format!("Unknown type name alias: {name}"))),
            value => whole(value)
                .map(|byte| Self::Byte(byte as u8))
                .ok_or_else(|| Failure::bad_value("type must be represented as a number or a string")),
        }
    }

    fn covers(&self, value: RawBsonRef<'_>) -> bool {
        match self {
            Self::Number => rank(value) == 2,
            Self::Byte(byte) => value.element_type() as u8 == *byte,
        }
    }
}
