//! Projections: what a read gives of each document.

use bson::{Document, RawBsonRef, RawDocument};

use super::expression::Expression;
use crate::failure::Failure;
use crate::value::path::{self, Path};
use crate::value::read::{self, Read};

#[derive(Debug)]
pub enum Projection {
    Whole,
    Without(Vec<Path>),
    Only { id: bool, fields: Vec<Shown> },
}

#[derive(Debug)]
pub enum Shown {
    Field(Path),
    Computed(Path, Expression),
}

impl Projection {
    pub fn of(command: &RawDocument, name: &str) -> Result<Self, Failure> {
        command.document(name).map_or(Ok(Self::Whole), Self::parse)
    }

    pub fn parse(projection: &RawDocument) -> Result<Self, Failure> {
        let (mut shown, mut hidden, mut id) = (Vec::new(), Vec::new(), None);
        for element in projection.iter() {
            let (name, value) = element?;
            let path = path::parse(name.as_str());
            match value {
                RawBsonRef::Boolean(_) | RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) => {
                    match (name.as_str(), read::truth(value)) {
                        ("_id", wanted) => id = Some(wanted),
                        (_, true) => shown.push(Shown::Field(path)),
                        (_, false) => hidden.push(path),
                    }
                }
                value => shown.push(Shown::Computed(path, Expression::parse(value)?)),
            }
        }
        if !shown.is_empty() && !hidden.is_empty() {
            return Err(Failure::new(31254, "Cannot do exclusion in inclusion projection"));
        }
        Ok(match id {
            None if shown.is_empty() && hidden.is_empty() => Self::Whole,
            Some(false) if shown.is_empty() => {
                hidden.push(path::parse("_id"));
                Self::Without(hidden)
            }
            _ if !hidden.is_empty() => Self::Without(hidden),
            id => Self::Only { id: id != Some(false), fields: shown },
        })
    }

    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    pub fn apply(&self, document: Document) -> Result<Document, Failure> {
        match self {
            Self::Whole => Ok(document),
            Self::Without(paths) => {
                let mut rest = document;
                paths.iter().for_each(|path| path::unset(&mut rest, path));
                Ok(rest)
            }
            Self::Only { id, fields } => {
                let mut shown = Document::new();
                if let (true, Some(id)) = (*id, document.get("_id")) {
                    shown.insert("_id", id.clone());
                }
                // Fields come in the document's order, computed ones in the projection's.
                let mut kept: Vec<&Path> = fields.iter().filter_map(Shown::field).collect();
                kept.sort_by_key(|path| document.keys().position(|name| *name == path[0]));
                for path in kept {
                    if let Some(value) = path::get_in(&document, path) {
                        path::set(&mut shown, path, value.clone())?;
                    }
                }
                for field in fields {
                    if let Shown::Computed(path, expression) = field
                        && let Some(value) = expression.evaluate(&document)?
                    {
                        path::set(&mut shown, path, value)?;
                    }
                }
                Ok(shown)
            }
        }
    }
}

impl Shown {
    fn field(&self) -> Option<&Path> {
        match self {
            Self::Field(path) => Some(path),
            Self::Computed(..) => None,
        }
    }
}
