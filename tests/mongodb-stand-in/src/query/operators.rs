//! The expression operators that the stand-in knows. Others are refused by name, as the server refuses unknown ones.

use bson::{Bson, Document, RawBsonRef};

use super::expression::Expression;
use crate::failure::Failure;
use crate::update::arithmetic;
use crate::value::order::Key;
use crate::value::read::truth;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operator {
    And,
    Or,
    Not,
    Compare(&'static str),
    Add,
    Subtract,
    Cond,
    IfNull,
    MergeObjects,
    ConcatArrays,
    Slice,
    Size,
    Type,
    IsArray,
    ElementAt,
    GetField,
    SetField,
    UnsetField,
}

impl Operator {
    pub fn parse(name: &str, value: RawBsonRef<'_>) -> Result<Expression, Failure> {
        let operator = match name {
            "$and" => Self::And,
            "$or" => Self::Or,
            "$not" => Self::Not,
            "$eq" => Self::Compare("$eq"),
            "$ne" => Self::Compare("$ne"),
            "$gt" => Self::Compare("$gt"),
            "$gte" => Self::Compare("$gte"),
            "$lt" => Self::Compare("$lt"),
            "$lte" => Self::Compare("$lte"),
            "$add" => Self::Add,
            "$subtract" => Self::Subtract,
            "$cond" => Self::Cond,
            "$ifNull" => Self::IfNull,
            "$mergeObjects" => Self::MergeObjects,
            "$concatArrays" => Self::ConcatArrays,
            "$slice" => Self::Slice,
            "$size" => Self::Size,
            "$type" => Self::Type,
            "$isArray" => Self::IsArray,
            "$arrayElemAt" => Self::ElementAt,
            "$getField" => Self::GetField,
            "$setField" => Self::SetField,
            "$unsetField" => Self::UnsetField,
            other => return Err(Failure::new(168, format!("Unrecognized expression '{other}'"))),
        };
        let named: &[&str] = match operator {
            Self::Cond => &["if", "then", "else"],
            Self::GetField => &["field", "input"],
            Self::SetField => &["field", "input", "value"],
            Self::UnsetField => &["field", "input"],
            _ => &[],
        };
        let arguments = match value {
            RawBsonRef::Array(values) => {
                values.into_iter().map(|value| Expression::parse(value?)).collect::<Result<_, _>>()?
            }
            RawBsonRef::Document(document) if !named.is_empty() => named
                .iter()
                .map(|name| document.get(name)?.map_or(Ok(Expression::Root), Expression::parse))
                .collect::<Result<_, Failure>>()?,
            RawBsonRef::String(field) if operator == Self::GetField => {
                vec![Expression::Literal(Bson::String(field.to_owned())), Expression::Root]
            }
            value => vec![Expression::parse(value)?],
        };
        Ok(Expression::Operator(operator, arguments))
    }

    pub fn evaluate(self, arguments: &[Expression], root: &Document) -> Result<Option<Bson>, Failure> {
        let given = |at: usize| -> Result<Option<Bson>, Failure> {
            arguments.get(at).map_or(Ok(None), |argument| argument.evaluate(root))
        };
        let value = |at: usize| -> Result<Bson, Failure> { Ok(given(at)?.unwrap_or(Bson::Null)) };
        let all = || (0..arguments.len()).map(value).collect::<Result<Vec<_>, _>>();
        Ok(Some(match self {
            Self::And => Bson::Boolean(all()?.iter().all(is_true)),
            Self::Or => Bson::Boolean(all()?.iter().any(is_true)),
            Self::Not => Bson::Boolean(!is_true(&value(0)?)),
            Self::Compare(name) => Bson::Boolean(compares(name, &value(0)?, &value(1)?)?),
            Self::Add => all()?.iter().try_fold(Bson::Int32(0), |sum, next| arithmetic::add(&sum, next))?,
            Self::Subtract => arithmetic::add(&value(0)?, &arithmetic::multiply(&value(1)?, &Bson::Int32(-1))?)?,
            Self::Cond => return if is_true(&value(0)?) { given(1) } else { given(2) },
            Self::IfNull => {
                let last = arguments.len().saturating_sub(1);
                for at in 0..last {
                    match given(at)? {
                        None | Some(Bson::Null | Bson::Undefined) => {}
                        some => return Ok(some),
                    }
                }
                return given(last);
            }
            Self::MergeObjects => {
                let mut merged = Document::new();
                for value in all()? {
                    if let Bson::Document(document) = value {
                        merged.extend(document);
                    }
                }
                Bson::Document(merged)
            }
            Self::ConcatArrays => {
                let mut joined = Vec::new();
                for value in all()? {
                    match value {
                        Bson::Array(values) => joined.extend(values),
                        Bson::Null | Bson::Undefined => return Ok(Some(Bson::Null)),
                        _ => return Err(Failure::new(28664, "$concatArrays only supports arrays")),
                    }
                }
                Bson::Array(joined)
            }
            Self::Slice => slice(&all()?)?,
            Self::Size => Bson::Int32(array(&value(0)?, "$size")?.len() as i32),
            Self::Type => Bson::String(given(0)?.map_or("missing".to_owned(), |value| type_name(&value).to_owned())),
            Self::IsArray => Bson::Boolean(matches!(value(0)?, Bson::Array(_))),
            Self::ElementAt => {
                let (values, at) = (value(0)?, integer(&value(1)?)?);
                let values = array(&values, "$arrayElemAt")?;
                let at = if at < 0 { at + values.len() as i64 } else { at };
                return Ok(usize::try_from(at).ok().and_then(|at| values.get(at).cloned()));
            }
            Self::GetField => {
                return Ok(match (value(0)?, value(1)?) {
                    (Bson::String(field), Bson::Document(document)) => document.get(&field).cloned(),
                    _ => None,
                });
            }
            Self::SetField | Self::UnsetField => {
                let (Bson::String(field), Bson::Document(mut document)) = (value(0)?, value(1)?) else {
                    return Ok(Some(Bson::Null));
                };
                match if self == Self::SetField { given(2)? } else { None } {
                    Some(new) => drop(document.insert(field, new)),
                    None => drop(document.remove(&field)),
                }
                Bson::Document(document)
            }
        }))
    }
}

fn compares(name: &str, one: &Bson, two: &Bson) -> Result<bool, Failure> {
    let order = key(one)?.cmp(&key(two)?);
    Ok(match name {
        "$eq" => order.is_eq(),
        "$ne" => order.is_ne(),
        "$gt" => order.is_gt(),
        "$gte" => order.is_ge(),
        "$lt" => order.is_lt(),
        _ => order.is_le(),
    })
}

pub fn key(value: &Bson) -> Result<Key, Failure> {
    Ok(Key(value.clone().try_into()?))
}

pub fn is_true(value: &Bson) -> bool {
    bson::RawBson::try_from(value.clone()).is_ok_and(|value| truth(value.as_raw_bson_ref()))
}

fn array<'a>(value: &'a Bson, operator: &str) -> Result<&'a [Bson], Failure> {
    match value {
        Bson::Array(values) => Ok(values),
        _ => Err(Failure::new(17124, format!("The argument to {operator} must be an array"))),
    }
}

fn integer(value: &Bson) -> Result<i64, Failure> {
    match value {
        Bson::Int32(value) => Ok((*value).into()),
        Bson::Int64(value) => Ok(*value),
        Bson::Double(value) => Ok(*value as i64),
        _ => Err(Failure::new(28690, "an index must be a number")),
    }
}

/// `[array, count]` or `[array, start, count]`; a negative count or start counts from the end.
fn slice(arguments: &[Bson]) -> Result<Bson, Failure> {
    let Some(Bson::Array(values)) = arguments.first() else { return Ok(Bson::Null) };
    let length = values.len() as i64;
    let (start, count) = match arguments {
        [_, count] => match integer(count)? {
            count if count < 0 => (length + count, -count),
            count => (0, count),
        },
        [_, start, count] => match integer(start)? {
            start if start < 0 => (length + start, integer(count)?),
            start => (start, integer(count)?),
        },
        _ => return Err(Failure::new(28667, "$slice takes two or three arguments")),
    };
    let start = start.clamp(0, length) as usize;
    let end = (start as i64 + count).clamp(start as i64, length) as usize;
    Ok(Bson::Array(values[start..end].to_vec()))
}

fn type_name(value: &Bson) -> &'static str {
    match value {
        Bson::Double(_) => "double",
        Bson::String(_) => "string",
        Bson::Document(_) => "object",
        Bson::Array(_) => "array",
        Bson::Binary(_) => "binData",
        Bson::ObjectId(_) => "objectId",
        Bson::Boolean(_) => "bool",
        Bson::DateTime(_) => "date",
        Bson::Null => "null",
        Bson::RegularExpression(_) => "regex",
        Bson::Int32(_) => "int",
        Bson::Timestamp(_) => "timestamp",
        Bson::Int64(_) => "long",
        Bson::Decimal128(_) => "decimal",
        Bson::Undefined => "undefined",
        Bson::MinKey => "minKey",
        Bson::MaxKey => "maxKey",
        Bson::JavaScriptCode(_) => "javascript",
        Bson::JavaScriptCodeWithScope(_) => "javascriptWithScope",
        Bson::Symbol(_) => "symbol",
        Bson::DbPointer(_) => "dbPointer",
    }
}
