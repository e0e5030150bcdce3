//! A query filter: parsed once, then asked for each document.

use bson::{RawBsonRef, RawDocument};

use super::condition::Condition;
use super::expression::Expression;
use super::operators::is_true;
use crate::failure::Failure;
use crate::value::path::{self, Path};
use crate::value::read::{self, Read};

#[derive(Debug)]
pub enum Filter {
    Every(Vec<Filter>),
    Any(Vec<Filter>),
    Neither(Vec<Filter>),
    Field(Path, Condition),
    Expression(Expression),
}

impl Filter {
    pub fn everything() -> Self {
        Self::Every(Vec::new())
    }

    pub fn parse(query: &RawDocument) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        for element in query.iter() {
            let (name, value) = element?;
            let branches = || -> Result<Vec<Self>, Failure> {
                let list = value.as_array().ok_or_else(|| Failure::bad_value(format!("{name} must be an array")))?;
                read::documents(list).map(Self::parse).collect()
            };
            parts.push(match name.as_str() {
                "$and" => Self::Every(branches()?),
                "$or" => Self::Any(branches()?),
                "$nor" => Self::Neither(branches()?),
                "$expr" => Self::Expression(Expression::parse(value)?),
                "$comment" => continue,
                name if name.starts_with('$') => {
                    return Err(Failure::bad_value(format!("unknown top level operator: {name}")));
                }
                name => Self::Field(path::parse(name), Condition::parse(value)?),
            });
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Self::Every(parts) })
    }

    /// The filter under a name of a command; everything if there is none.
    pub fn of(command: &RawDocument, name: &str) -> Result<Self, Failure> {
        command.document(name).map_or_else(|| Ok(Self::everything()), Self::parse)
    }

    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Every(parts) if parts.is_empty())
    }

    pub fn matches(&self, document: &RawDocument) -> bool {
        match self {
            Self::Every(parts) => parts.iter().all(|part| part.matches(document)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(document)),
            Self::Neither(parts) => !parts.iter().any(|part| part.matches(document)),
            Self::Expression(expression) => expression.evaluate_raw(document).is_ok_and(|value| is_true(&value)),
            Self::Field(path, condition) if path.len() == 1 => {
                condition.holds(&[document.get(&path[0]).ok().flatten()])
            }
            Self::Field(path, condition) => {
                let mut found: Vec<Option<RawBsonRef<'_>>> = Vec::with_capacity(1);
                path::resolve(document, path, &mut found);
                condition.holds(&found)
            }
        }
    }

    /// The conditions on one field that every match must pass.
    pub fn conditions_of<'a>(&'a self, field: &str, found: &mut Vec<&'a Condition>) {
        match self {
            Self::Every(parts) => parts.iter().for_each(|part| part.conditions_of(field, found)),
            Self::Field(path, condition) if path.len() == 1 && path[0] == field => condition.flatten(found),
            _ => {}
        }
    }

    /// The fields that the filter fixes by equality, which an upsert starts from.
    pub fn equalities(&self, found: &mut Vec<(Path, bson::RawBson)>) {
        match self {
            Self::Every(parts) => parts.iter().for_each(|part| part.equalities(found)),
            Self::Field(path, condition) => {
                let mut conditions = Vec::new();
                condition.flatten(&mut conditions);
                for condition in conditions {
                    if let Condition::Equal(value) = condition {
                        found.push((path.clone(), value.clone()));
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn matches(query: bson::RawDocumentBuf, document: bson::RawDocumentBuf) -> bool {
        Filter::parse(&query).expect("a filter").matches(&document)
    }

    #[test]
    fn equality_looks_into_arrays_and_null_finds_what_is_missing() {
        assert!(matches(rawdoc! {"a": 2}, rawdoc! {"a": [1, 2]}));
        assert!(matches(rawdoc! {"a": null}, rawdoc! {"b": 1}));
        assert!(!matches(rawdoc! {"a": {"$ne": null}}, rawdoc! {"b": 1}));
        assert!(matches(rawdoc! {"a.b": 1}, rawdoc! {"a": [{"b": 0}, {"b": 1}]}));
    }

    #[test]
    fn ranges_stay_inside_one_type() {
        assert!(matches(rawdoc! {"a": {"$gt": 1, "$lte": 5}}, rawdoc! {"a": 5.0}));
        assert!(!matches(rawdoc! {"a": {"$gt": 1}}, rawdoc! {"a": "text"}));
        assert!(matches(rawdoc! {"$or": [{"a": 1}, {"b": {"$exists": false}}]}, rawdoc! {"a": 2}));
    }
}
