//! Update operators on one field each, applied in the order of their paths as the server does since 5.0.

use bson::{Bson, DateTime, Document, RawDocument, Timestamp};

use super::{arithmetic, arrays};
use crate::failure::{Failure, code};
use crate::query::operators::key;
use crate::value::path::{self, Path};

#[derive(Debug)]
pub struct Operators(Vec<(Path, Operator)>);

#[derive(Debug)]
enum Operator {
    Set(Bson),
    SetOnInsert(Bson),
    Unset,
    Increment(Bson),
    Multiply(Bson),
    Min(Bson),
    Max(Bson),
    CurrentDate { timestamp: bool },
    Rename(Path),
    Array(arrays::Edit),
}

impl Operators {
    pub fn parse(update: &RawDocument) -> Result<Self, Failure> {
        let mut parsed: Vec<(Path, Operator)> = Vec::new();
        for element in update.iter() {
            let (operator, fields) = element?;
            let fields = fields.as_document().ok_or_else(|| {
                Failure::unparsable(format!("Modifiers operate on fields but we found another type: {operator}"))
            })?;
            for field in fields.iter() {
                let (name, value) = field?;
                let path = path::parse(name.as_str());
                if path.iter().any(|part| part.starts_with('$')) {
                    return Err(unsupported_path(name.as_str()));
                }
                if parsed.iter().any(|(other, _)| other.starts_with(&path) || path.starts_with(other)) {
                    return Err(Failure::new(
                        40,
                        format!("Updating the path '{name}' would create a conflict at '{name}'"),
                    ));
                }
                parsed.push((path, Operator::parse(operator.as_str(), value)?));
            }
        }
        parsed.sort_by(|(one, _), (two, _)| one.cmp(two));
        Ok(Self(parsed))
    }

    pub fn apply(&self, document: &mut Document, inserting: bool) -> Result<(), Failure> {
        self.0.iter().try_for_each(|(path, operator)| operator.apply(document, path, inserting))
    }
}

fn unsupported_path(path: &str) -> Failure {
    if path.contains(".$") {
        return Failure::bad_value(format!("the stand-in knows no positional operators: '{path}'"));
    }
    Failure::new(
        code::DOLLAR_PREFIXED_FIELD_NAME,
        format!("The dollar ($) prefixed field '{path}' in '{path}' is not valid for storage."),
    )
}

impl Operator {
    fn parse(name: &str, value: bson::RawBsonRef<'_>) -> Result<Self, Failure> {
        let bson = Bson::try_from(value)?;
        Ok(match name {
            "$set" => Self::Set(bson),
            "$setOnInsert" => Self::SetOnInsert(bson),
            "$unset" => Self::Unset,
            "$inc" => Self::Increment(bson),
            "$mul" => Self::Multiply(bson),
            "$min" => Self::Min(bson),
            "$max" => Self::Max(bson),
            "$currentDate" => Self::CurrentDate {
                timestamp: bson
                    .as_document()
                    .is_some_and(|kind| kind.get_str("$type").is_ok_and(|kind| kind == "timestamp")),
            },
            "$rename" => Self::Rename(path::parse(
                value.as_str().ok_or_else(|| Failure::bad_value("The 'to' field for $rename must be a string"))?,
            )),
            other => Self::Array(arrays::Edit::parse(other, value)?),
        })
    }

    fn apply(&self, document: &mut Document, path: &Path, inserting: bool) -> Result<(), Failure> {
        let current = path::get_in(document, path);
        let new = match self {
            Self::Set(value) => value.clone(),
            Self::SetOnInsert(value) if inserting => value.clone(),
            Self::SetOnInsert(_) => return Ok(()),
            Self::Unset => {
                path::unset(document, path);
                return Ok(());
            }
            Self::Increment(by) => current.map_or_else(|| Ok(by.clone()), |current| arithmetic::add(current, by))?,
            Self::Multiply(by) => match current {
                Some(current) => arithmetic::multiply(current, by)?,
                None => arithmetic::multiply(by, &Bson::Int32(0))?,
            },
            Self::Min(value) => match current {
                Some(current) if key(current)? <= key(value)? => return Ok(()),
                _ => value.clone(),
            },
            Self::Max(value) => match current {
                Some(current) if key(current)? >= key(value)? => return Ok(()),
                _ => value.clone(),
            },
            Self::CurrentDate { timestamp: false } => Bson::DateTime(DateTime::now()),
            Self::CurrentDate { timestamp: true } => {
                Bson::Timestamp(Timestamp { time: (DateTime::now().timestamp_millis() / 1000) as u32, increment: 1 })
            }
            Self::Rename(to) => {
                let Some(value) = current.cloned() else { return Ok(()) };
                path::unset(document, path);
                return path::set(document, to, value);
            }
            Self::Array(edit) => return edit.apply(document, path),
        };
        path::set(document, path, new)
    }
}
