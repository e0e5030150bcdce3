//! The event that a change stream shows for an oplog entry.

use bson::raw::cstr;
use bson::{RawBsonRef, RawDocumentBuf, rawdoc};

use super::options::{Image, Options};
use super::token::Token;
use crate::failure::{Failure, NOT_RESUMABLE};
use crate::storage::oplog::{Change, Entry};
use crate::storage::store::Store;
use crate::value::Shared;
use crate::value::order::Key;

pub fn render(store: &Store, options: &Options, entry: &Entry) -> Result<RawDocumentBuf, Failure> {
    let mut event = head(Token::event(entry.time, entry.ordinal), entry.change.operation(), entry);
    if let (true, Some(uuid)) = (options.expanded, &entry.collection) {
        event.append(cstr!("collectionUUID"), uuid);
    }
    if let Some(transaction) = &entry.transaction {
        event.append(cstr!("lsid"), &transaction.session);
        event.append(cstr!("txnNumber"), transaction.number);
    }
    match &entry.change {
        Change::Insert { key, after } => row(&mut event, entry, key, Some(Some(after))),
        Change::Replace { key, before, after } => {
            row(&mut event, entry, key, Some(Some(after)));
            before_image(&mut event, options, entry, before.as_ref())?;
        }
        Change::Update { key, before, after, description } => {
            row(&mut event, entry, key, after_image(store, options, entry, key, after)?);
            if options.expanded {
                event.append(cstr!("updateDescription"), description.as_ref());
            } else {
                event.append(cstr!("updateDescription"), plain(description));
            }
            before_image(&mut event, options, entry, before.as_ref())?;
        }
        Change::Delete { key, before } => {
            row(&mut event, entry, key, None);
            before_image(&mut event, options, entry, before.as_ref())?;
        }
        _ => catalog(&mut event, options, entry),
    }
    Ok(event)
}

/// What ends a stream after the event of the same entry.
pub fn invalidate(entry: &Entry) -> RawDocumentBuf {
    let token = Token::Event { time: entry.time, ordinal: entry.ordinal, invalidate: true, fragment: None };
    head(token, "invalidate", entry)
}

fn head(token: Token, operation: &str, entry: &Entry) -> RawDocumentBuf {
    let mut event = RawDocumentBuf::new();
    event.append(cstr!("_id"), token.document());
    event.append(cstr!("operationType"), operation);
    event.append(cstr!("clusterTime"), entry.time.timestamp());
    event.append(cstr!("wallTime"), entry.wall);
    event
}

/// `None`: no `fullDocument` at all; `Some(None)`: null.
fn row(event: &mut RawDocumentBuf, entry: &Entry, key: &Key, document: Option<Option<&Shared>>) {
    match document {
        Some(Some(document)) => event.append(cstr!("fullDocument"), document.as_ref()),
        Some(None) => event.append(cstr!("fullDocument"), RawBsonRef::Null),
        None => {}
    }
    event.append(cstr!("ns"), entry.namespace.document());
    let mut document_key = RawDocumentBuf::new();
    document_key.append(cstr!("_id"), key.value());
    event.append(cstr!("documentKey"), document_key);
}

fn after_image<'a>(
    store: &'a Store,
    options: &Options,
    entry: &Entry,
    key: &Key,
    after: &'a Shared,
) -> Result<Option<Option<&'a Shared>>, Failure> {
    Ok(match options.full_document {
        Image::Off => None,
        Image::Lookup => {
            let same =
                store.collection(&entry.namespace).filter(|found| Some(&found.uuid) == entry.collection.as_ref());
            Some(same.and_then(|collection| collection.rows.get(key, None)))
        }
        Image::Required if !entry.images => return Err(missing("post-image for all update events", "post-image")),
        Image::WhenAvailable | Image::Required => Some(entry.images.then_some(after)),
    })
}

fn before_image(
    event: &mut RawDocumentBuf,
    options: &Options,
    entry: &Entry,
    before: Option<&Shared>,
) -> Result<(), Failure> {
    if options.before_change == Image::Off {
        return Ok(());
    }
    match before.filter(|_| entry.images) {
        Some(before) => event.append(cstr!("fullDocumentBeforeChange"), before.as_ref()),
        None if options.before_change == Image::Required => {
            return Err(missing("pre-image for all update, delete and replace events", "pre-image"));
        }
        None => event.append(cstr!("fullDocumentBeforeChange"), RawBsonRef::Null),
    }
    Ok(())
}

fn missing(what: &str, image: &str) -> Failure {
    let message = format!("Change stream was configured to require a {what}, but the {image} was not found for event");
    Failure::new(47, message).labelled(NOT_RESUMABLE)
}

/// Without `disambiguatedPaths`, which expanded events alone have.
fn plain(description: &RawDocumentBuf) -> RawDocumentBuf {
    let mut plain = RawDocumentBuf::new();
    for (name, value) in description.iter().flatten() {
        if name.as_str() != "disambiguatedPaths" {
            plain.append(name, value);
        }
    }
    plain
}

fn catalog(event: &mut RawDocumentBuf, options: &Options, entry: &Entry) {
    if matches!(entry.change, Change::DropDatabase) {
        event.append(cstr!("ns"), rawdoc! { "db": entry.namespace.database() });
        return;
    }
    event.append(cstr!("ns"), entry.namespace.document());
    let description = match &entry.change {
        Change::Rename { to } => {
            event.append(cstr!("to"), to.document());
            rawdoc! { "to": to.document() }
        }
        Change::Create { options } | Change::Modify { options } => options.clone(),
        Change::CreateIndex { specification } | Change::DropIndex { specification, .. } => {
            rawdoc! { "indexes": [specification.clone()] }
        }
        _ => return,
    };
    if options.expanded {
        event.append(cstr!("operationDescription"), description);
    }
}
