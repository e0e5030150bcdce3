//! Aggregation expressions: literals, field paths and the operators of [`super::operators`].

use bson::{Bson, Document, RawBsonRef, RawDocument};

use super::operators::Operator;
use crate::failure::Failure;
use crate::value::path::{self, Path};

#[derive(Debug)]
pub enum Expression {
    Literal(Bson),
    Root,
    Field(Path),
    /// `$$REMOVE`: no value at all.
    Missing,
    Document(Vec<(String, Expression)>),
    Array(Vec<Expression>),
    Operator(Operator, Vec<Expression>),
}

impl Expression {
    pub fn parse(value: RawBsonRef<'_>) -> Result<Self, Failure> {
        match value {
            RawBsonRef::String("$$ROOT" | "$$CURRENT") => Ok(Self::Root),
            RawBsonRef::String("$$REMOVE") => Ok(Self::Missing),
            RawBsonRef::String(text) => Ok(match text.strip_prefix("$$ROOT.").or_else(|| text.strip_prefix('$')) {
                Some(field) if field.starts_with('$') => {
                    return Err(Failure::new(17276, format!("Use of undefined variable: {}", &field[1..])));
                }
                Some(field) => Self::Field(path::parse(field)),
                None => Self::Literal(Bson::String(text.to_owned())),
            }),
            RawBsonRef::Array(values) => {
                values.into_iter().map(|value| Self::parse(value?)).collect::<Result<_, _>>().map(Self::Array)
            }
            RawBsonRef::Document(document) => Self::parse_document(document),
            value => Ok(Self::Literal(Bson::try_from(value)?)),
        }
    }

    fn parse_document(document: &RawDocument) -> Result<Self, Failure> {
        let mut fields = Vec::new();
        for element in document.iter() {
            let (name, value) = element?;
            match name.as_str() {
                "$literal" => return Ok(Self::Literal(Bson::try_from(value)?)),
                name if name.starts_with('$') => return Operator::parse(name, value),
                name => fields.push((name.to_owned(), Self::parse(value)?)),
            }
        }
        Ok(Self::Document(fields))
    }

    pub fn is_constant(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    pub fn evaluate_raw(&self, document: &RawDocument) -> Result<Bson, Failure> {
        let document = Document::try_from(document)?;
        Ok(self.evaluate(&document)?.unwrap_or(Bson::Null))
    }

    /// `None` is a missing value.
    pub fn evaluate(&self, root: &Document) -> Result<Option<Bson>, Failure> {
        Ok(match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Root => Some(Bson::Document(root.clone())),
            Self::Missing => None,
            Self::Field(path) => field(root, path),
            Self::Document(fields) => {
                let mut document = Document::new();
                for (name, expression) in fields {
                    if let Some(value) = expression.evaluate(root)? {
                        document.insert(name.clone(), value);
                    }
                }
                Some(Bson::Document(document))
            }
            Self::Array(values) => {
                let values = values.iter().map(|value| Ok(value.evaluate(root)?.unwrap_or(Bson::Null)));
                Some(Bson::Array(values.collect::<Result<_, Failure>>()?))
            }
            Self::Operator(operator, arguments) => operator.evaluate(arguments, root)?,
        })
    }
}

/// A field path in an expression: below an array it gives the array of what its elements hold.
fn field(document: &Document, path: &[String]) -> Option<Bson> {
    let (first, rest) = path.split_first()?;
    below(document.get(first)?, rest)
}

fn below(value: &Bson, path: &[String]) -> Option<Bson> {
    match value {
        value if path.is_empty() => Some(value.clone()),
        Bson::Document(inner) => field(inner, path),
        Bson::Array(values) => Some(Bson::Array(values.iter().filter_map(|value| below(value, path)).collect())),
        _ => None,
    }
}
