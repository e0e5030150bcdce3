//! What a `$changeStream` stage asks for.

use bson::{RawDocument, Timestamp};

use super::token::Token;
use crate::failure::Failure;
use crate::query::stage::Stage;
use crate::storage::namespace::Namespace;
use crate::storage::oplog::{Change, Entry};
use crate::value::read::Read;

#[derive(Debug)]
pub enum Scope {
    Cluster,
    Database(String),
    Collection(Namespace),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    Off,
    Lookup,
    WhenAvailable,
    Required,
}

#[derive(Debug)]
pub enum Start {
    Now,
    At(Timestamp),
    /// `resumeAfter`: not from an invalidate.
    Resume(Token),
    /// `startAfter`.
    After(Token),
}

#[derive(Debug)]
pub struct Options {
    pub scope: Scope,
    pub full_document: Image,
    pub before_change: Image,
    pub expanded: bool,
    pub split: bool,
    pub start: Start,
    pub stages: Vec<Stage>,
}

impl Options {
    pub fn parse(
        database: &str,
        collection: Option<&str>,
        stage: &RawDocument,
        rest: &[&RawDocument],
    ) -> Result<Self, Failure> {
        let scope = match (stage.is_set("allChangesForCluster"), collection) {
            (true, _) if database != "admin" => {
                return Err(Failure::new(
                    72,
                    "A $changeStream with 'allChangesForCluster:true' may only be opened on the 'admin' database.",
                ));
            }
            (true, _) => Scope::Cluster,
            (false, None) => Scope::Database(database.to_owned()),
            (false, Some(collection)) => Scope::Collection(Namespace::new(database, collection)),
        };
        let split_at = rest.iter().position(|stage| stage.value("$changeStreamSplitLargeEvent").is_some());
        if split_at.is_some_and(|at| at + 1 != rest.len()) {
            return Err(Failure::new(7_182_802, "$changeStreamSplitLargeEvent must be the last stage in the pipeline"));
        }
        let mut stages = Vec::new();
        for stage in &rest[..split_at.unwrap_or(rest.len())] {
            let parsed = Stage::parse(stage)?;
            if !parsed.is_for_streams() {
                let name = stage.iter_elements().flatten().next().map_or("", |name| name.key().as_str());
                return Err(Failure::new(20, format!("{name} is not permitted in a $changeStream pipeline")));
            }
            stages.push(parsed);
        }
        Ok(Self {
            scope,
            full_document: image(stage, "fullDocument")?,
            before_change: image(stage, "fullDocumentBeforeChange")?,
            expanded: stage.is_set("showExpandedEvents"),
            split: split_at.is_some(),
            start: start(stage)?,
            stages,
        })
    }

    pub fn shows(&self, entry: &Entry) -> bool {
        let is_shown = match &entry.change {
            Change::Note { .. } => false,
            Change::Create { .. } | Change::Modify { .. } | Change::CreateIndex { .. } | Change::DropIndex { .. } => {
                self.expanded
            }
            _ => true,
        };
        if !is_shown || entry.namespace.is_internal() {
            return false;
        }
        match &self.scope {
            Scope::Cluster => true,
            Scope::Database(database) => entry.namespace.database() == database,
            Scope::Collection(namespace) => {
                entry.namespace == *namespace
                    || matches!(&entry.change, Change::Rename { to } if to == namespace)
                    || (self.expanded
                        && matches!(entry.change, Change::DropDatabase)
                        && entry.namespace.database() == namespace.database())
            }
        }
    }

    /// Whether the stream ends with an invalidate after this event.
    pub fn ends_with(&self, entry: &Entry) -> bool {
        match &self.scope {
            Scope::Cluster => false,
            Scope::Database(_) => matches!(entry.change, Change::DropDatabase),
            Scope::Collection(_) => matches!(entry.change, Change::Drop | Change::Rename { .. } | Change::DropDatabase),
        }
    }
}

fn image(stage: &RawDocument, name: &str) -> Result<Image, Failure> {
    match stage.text(name) {
        None | Some("default" | "off") => Ok(Image::Off),
        Some("updateLookup") if name == "fullDocument" => Ok(Image::Lookup),
        Some("whenAvailable") => Ok(Image::WhenAvailable),
        Some("required") => Ok(Image::Required),
        Some(other) => {
            Err(Failure::bad_value(format!("Enumeration value '{other}' for field '{name}' is not a valid value.")))
        }
    }
}

fn start(stage: &RawDocument) -> Result<Start, Failure> {
    let resume = stage.document("resumeAfter").map(Token::parse).transpose()?;
    let after = stage.document("startAfter").map(Token::parse).transpose()?;
    match (resume, after, stage.timestamp("startAtOperationTime")) {
        (None, None, None) => Ok(Start::Now),
        (Some(token), None, None) => Ok(Start::Resume(token)),
        (None, Some(token), None) => Ok(Start::After(token)),
        (None, None, Some(time)) => Ok(Start::At(time)),
        _ => Err(Failure::new(40674, "Only one type of resume option is allowed, but multiple were found.")),
    }
}
