//! Changing a document: replacement, update operators or a pipeline, and the description of what changed.

pub mod arithmetic;
mod arrays;
pub mod description;
pub mod operators;
pub mod pipeline;

use bson::{Document, RawBson, RawBsonRef, RawDocument, RawDocumentBuf};

use crate::failure::{Failure, code};
use crate::query::filter::Filter;
use crate::value::path;
use operators::Operators;
use pipeline::Step;

#[derive(Debug)]
pub enum Update {
    Replacement(RawDocumentBuf),
    Operators(Operators),
    Pipeline(Vec<Step>),
}

impl Update {
    pub fn parse(update: RawBsonRef<'_>) -> Result<Self, Failure> {
        match update {
            RawBsonRef::Array(steps) => {
                let mut parsed = Vec::new();
                for step in steps {
                    let step = step?.as_document().and_then(|step| step.iter().next());
                    let (name, argument) =
                        step.ok_or_else(|| Failure::new(40323, "a pipeline stage needs one field"))??;
                    parsed.push(Step::parse(name.as_str(), argument)?);
                }
                Ok(Self::Pipeline(parsed))
            }
            RawBsonRef::Document(document) => Self::parse_document(document),
            _ => Err(Failure::unparsable("Update argument must be either an object or an array")),
        }
    }

    fn parse_document(document: &RawDocument) -> Result<Self, Failure> {
        let mut names = document.iter_elements();
        let first = names.next().transpose()?;
        if first.is_some_and(|first| first.key().as_str().starts_with('$')) {
            return Operators::parse(document).map(Self::Operators);
        }
        for name in names {
            let name = name?;
            let name = name.key();
            if name.as_str().starts_with('$') {
                return Err(Failure::new(
                    code::DOLLAR_PREFIXED_FIELD_NAME,
                    format!(
                        "The dollar ($) prefixed field '{name}' in '{name}' is not allowed in the context of an update's replacement document. Consider using an aggregation pipeline with $replaceWith."
                    ),
                ));
            }
        }
        Ok(Self::Replacement(document.to_owned()))
    }

    pub fn is_replacement(&self) -> bool {
        matches!(self, Self::Replacement(_))
    }

    /// The document after the update. The `_id` can't change.
    pub fn apply(&self, old: &RawDocument) -> Result<RawDocumentBuf, Failure> {
        let id = old.get("_id")?;
        let new = match self {
            Self::Replacement(new) => replace(id, new)?,
            _ => self.change(Document::try_from(old)?, false)?,
        };
        let same = match (id, new.get("_id")?) {
            (Some(old), Some(new)) => crate::value::order::compare(old, new).is_eq(),
            (old, new) => old.is_none() && new.is_none(),
        };
        if !same {
            return Err(Failure::new(
                66,
                "Performing an update on the path '_id' would modify the immutable field '_id'",
            ));
        }
        Ok(new)
    }

    /// The document that an upsert inserts, `_id` first.
    pub fn insert(&self, filter: &Filter) -> Result<RawDocumentBuf, Failure> {
        let mut equal = Vec::new();
        filter.equalities(&mut equal);
        let mut start = Document::new();
        for (path, value) in equal {
            if !self.is_replacement() || path == ["_id"] {
                path::set(&mut start, &path, value.try_into()?)?;
            }
        }
        let new = match self {
            Self::Replacement(new) => {
                let id: Option<RawBson> = start.remove("_id").map(RawBson::try_from).transpose()?;
                replace(id.as_ref().map(RawBson::as_raw_bson_ref), new)?
            }
            _ => self.change(start, true)?,
        };
        Ok(with_id(&new))
    }

    fn change(&self, mut document: Document, inserting: bool) -> Result<RawDocumentBuf, Failure> {
        match self {
            Self::Operators(operators) => operators.apply(&mut document, inserting)?,
            Self::Pipeline(steps) => {
                for step in steps {
                    document = step.apply(document)?;
                }
            }
            Self::Replacement(_) => {}
        }
        Ok(RawDocumentBuf::try_from(&document)?)
    }
}

/// A replacement keeps the old `_id` and puts it first.
fn replace(id: Option<RawBsonRef<'_>>, new: &RawDocument) -> Result<RawDocumentBuf, Failure> {
    let given = new.get("_id")?;
    let Some(id) = given.or(id) else { return Ok(new.to_owned()) };
    let mut replaced = RawDocumentBuf::new();
    replaced.append(bson::raw::cstr!("_id"), id);
    for field in new.iter() {
        let (name, value) = field?;
        if name.as_str() != "_id" {
            replaced.append(name, value);
        }
    }
    Ok(replaced)
}

/// The same document with an `_id` in first place, made up if there is none.
pub fn with_id(document: &RawDocument) -> RawDocumentBuf {
    let first = document.iter_elements().next().and_then(Result::ok);
    if first.is_some_and(|first| first.key().as_str() == "_id") {
        return document.to_owned();
    }
    let mut ordered = RawDocumentBuf::new();
    match document.get("_id").ok().flatten() {
        Some(id) => ordered.append(bson::raw::cstr!("_id"), id),
        None => ordered.append(bson::raw::cstr!("_id"), bson::oid::ObjectId::new()),
    }
    for (name, value) in document.iter().flatten() {
        if name.as_str() != "_id" {
            ordered.append(name, value);
        }
    }
    ordered
}
