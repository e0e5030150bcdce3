//! Aggregation stages after the first read.

use std::sync::Arc;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, rawdoc};
use rand::seq::SliceRandom;

use super::expression::Expression;
use super::filter::Filter;
use super::group::Group;
use super::projection::Projection;
use super::sort::Sort;
use crate::failure::Failure;
use crate::update::pipeline::Step;
use crate::value::Shared;
use crate::value::read::{Read, whole};

#[derive(Debug)]
pub enum Stage {
    Match(Filter),
    Sort(Sort),
    Limit(usize),
    Skip(usize),
    Sample(usize),
    Count(String),
    Group(Group),
    Project(Projection),
    Change(Step),
    ReplaceRoot(Expression),
}

impl Stage {
    pub fn parse(stage: &RawDocument) -> Result<Self, Failure> {
        let Some(element) = stage.iter().next() else {
            return Err(Failure::new(40323, "A pipeline stage specification object must contain exactly one field."));
        };
        let (name, value) = element?;
        let document = || value.as_document().ok_or_else(|| Failure::unparsable(format!("{name} needs an object")));
        let count = || {
            whole(value)
                .and_then(|count| usize::try_from(count).ok())
                .ok_or_else(|| Failure::unparsable(format!("{name} needs a number")))
        };
        Ok(match name.as_str() {
            "$match" => Self::Match(Filter::parse(document()?)?),
            "$sort" => Self::Sort(Sort::parse(document()?)?),
            "$limit" => Self::Limit(count()?),
            "$skip" => Self::Skip(count()?),
            "$sample" => Self::Sample(document()?.number("size").unwrap_or(1).max(0) as usize),
            "$count" => Self::Count(value.as_str().unwrap_or("count").to_owned()),
            "$group" => Self::Group(Group::parse(document()?)?),
            "$project" => Self::Project(Projection::parse(document()?)?),
            "$set" | "$addFields" | "$unset" => Self::Change(Step::parse(name.as_str(), value)?),
            "$replaceWith" => Self::ReplaceRoot(Expression::parse(value)?),
            "$replaceRoot" => Self::ReplaceRoot(match document()?.get("newRoot")? {
                Some(root) => Expression::parse(root)?,
                None => return Err(Failure::new(40231, "no newRoot specified for the $replaceRoot stage")),
            }),
            other => return Err(Failure::new(40324, format!("Unrecognized pipeline stage name: '{other}'"))),
        })
    }

    pub fn apply(&self, mut documents: Vec<Shared>) -> Result<Vec<Shared>, Failure> {
        match self {
            Self::Sort(sort) => sort.sort(&mut documents),
            Self::Limit(count) => documents.truncate(*count),
            Self::Skip(count) => drop(documents.drain(..(*count).min(documents.len()))),
            Self::Sample(count) => {
                documents.shuffle(&mut rand::rng());
                documents.truncate(*count);
            }
            Self::Count(_) if documents.is_empty() => {}
            Self::Count(name) => {
                let mut counted = RawDocumentBuf::new();
                counted.append(bson::raw::CString::try_from(name.as_str())?, documents.len() as i32);
                return Ok(vec![Arc::new(counted)]);
            }
            Self::Group(group) => return group.apply(&documents),
            stage => {
                let mut kept = Vec::with_capacity(documents.len());
                for document in documents {
                    match stage {
                        Self::Match(filter) if filter.matches(&document) => kept.push(document),
                        Self::Match(_) => {}
                        stage => kept.push(Arc::new(stage.change(&document)?)),
                    }
                }
                return Ok(kept);
            }
        }
        Ok(documents)
    }

    /// A stage that looks at one document at a time, as a change stream allows; `None` filters it out.
    pub fn apply_to_one(&self, document: RawDocumentBuf) -> Result<Option<RawDocumentBuf>, Failure> {
        match self {
            Self::Match(filter) => Ok(filter.matches(&document).then_some(document)),
            stage => stage.change(&document).map(Some),
        }
    }

    pub fn is_for_streams(&self) -> bool {
        matches!(self, Self::Match(_) | Self::Project(_) | Self::Change(_) | Self::ReplaceRoot(_))
    }

    fn change(&self, document: &RawDocument) -> Result<RawDocumentBuf, Failure> {
        let document = Document::try_from(document)?;
        let changed = match self {
            Self::Project(projection) => projection.apply(document)?,
            Self::Change(step) => step.apply(document)?,
            Self::ReplaceRoot(root) => match root.evaluate(&document)? {
                Some(Bson::Document(root)) => root,
                _ => return Err(Failure::new(40228, "'newRoot' expression must evaluate to an object")),
            },
            _ => document,
        };
        Ok(RawDocumentBuf::try_from(&changed)?)
    }
}

/// What `$collStats` gives as far as drivers and tools read it.
pub fn collection_statistics(namespace: &str, count: usize, bytes: usize) -> RawDocumentBuf {
    rawdoc! {
        "ns": namespace, "count": count as i64,
        "storageStats": { "count": count as i64, "size": bytes as i64, "storageSize": bytes as i64 }
    }
}
