//! The stages of an update pipeline, which aggregations share.

use bson::{Bson, Document, RawBsonRef};

use crate::failure::Failure;
use crate::query::expression::Expression;
use crate::value::path::{self, Path};
use crate::value::read;

#[derive(Debug)]
pub enum Step {
    Set(Vec<(Path, Expression)>),
    Unset(Vec<Path>),
    Replace(Expression),
}

impl Step {
    pub fn parse(name: &str, argument: RawBsonRef<'_>) -> Result<Self, Failure> {
        match (name, argument) {
            ("$set" | "$addFields", RawBsonRef::Document(fields)) => {
                let fields = fields.iter().map(|field| {
                    let (name, value) = field?;
                    Ok((path::parse(name.as_str()), Expression::parse(value)?))
                });
                fields.collect::<Result<_, Failure>>().map(Self::Set)
            }
            ("$unset", RawBsonRef::String(field)) => Ok(Self::Unset(vec![path::parse(field)])),
            ("$unset", RawBsonRef::Array(fields)) => Ok(Self::Unset(read::texts(fields).map(path::parse).collect())),
            ("$replaceWith", root) => Ok(Self::Replace(Expression::parse(root)?)),
            ("$replaceRoot", RawBsonRef::Document(argument)) => match argument.get("newRoot")? {
                Some(root) => Ok(Self::Replace(Expression::parse(root)?)),
                None => Err(Failure::new(40231, "no newRoot specified for the $replaceRoot stage")),
            },
            (other, _) => Err(Failure::new(40324, format!("Unrecognized pipeline stage name: '{other}'"))),
        }
    }

    pub fn apply(&self, document: Document) -> Result<Document, Failure> {
        match self {
            Self::Set(fields) => {
                let mut changed = document.clone();
                for (path, expression) in fields {
                    match expression.evaluate(&document)? {
                        Some(value) => set(&mut changed, path, value)?,
                        None => path::unset(&mut changed, path),
                    }
                }
                Ok(changed)
            }
            Self::Unset(paths) => {
                let mut changed = document;
                paths.iter().for_each(|path| path::unset(&mut changed, path));
                Ok(changed)
            }
            Self::Replace(root) => match root.evaluate(&document)? {
                Some(Bson::Document(root)) => Ok(root),
                _ => Err(Failure::new(40228, "'newRoot' expression must evaluate to an object")),
            },
        }
    }
}

/// In a pipeline a path enters every element of an array, a part of digits too, and replaces whatever can't hold a field.
fn set(document: &mut Document, path: &[String], value: Bson) -> Result<(), Failure> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    if rest.is_empty() {
        document.insert(first.clone(), value);
        return Ok(());
    }
    if !document.contains_key(first) {
        document.insert(first.clone(), Document::new());
    }
    document.get_mut(first).map_or(Ok(()), |target| set_below(target, rest, value))
}

fn set_below(target: &mut Bson, path: &[String], value: Bson) -> Result<(), Failure> {
    match target {
        Bson::Document(inner) => set(inner, path, value),
        Bson::Array(elements) => elements.iter_mut().try_for_each(|element| set_below(element, path, value.clone())),
        other => {
            let mut inner = Document::new();
            set(&mut inner, path, value)?;
            *other = Bson::Document(inner);
            Ok(())
        }
    }
}
