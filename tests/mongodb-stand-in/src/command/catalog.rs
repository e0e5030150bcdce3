//! Commands on collections and databases as a whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};

use super::cursors::{self, Content};
use super::dispatch::{Context, Reply, ok};
use crate::query::filter::Filter;
use crate::storage::collection::Collection;
use crate::storage::namespace::Namespace;
use crate::value::Shared;
use crate::value::read::Read;

/// The fields of a command that are options of the collection, not of the call.
fn options_of(command: &RawDocument) -> RawDocumentBuf {
    let mut options = RawDocumentBuf::new();
    for (name, value) in command.iter().flatten().skip(1) {
        let of_the_call = matches!(
            name.as_str(),
            "lsid"
                | "writeConcern"
                | "readConcern"
                | "txnNumber"
                | "autocommit"
                | "startTransaction"
                | "comment"
                | "maxTimeMS"
        );
        if !of_the_call && !name.as_str().starts_with('$') {
            options.append(name, value);
        }
    }
    options
}

pub fn create(context: &mut Context<'_>) -> Reply {
    let namespace = context.namespace()?;
    context.state.store.create(&namespace, &options_of(context.request))?;
    Ok(ok())
}

pub fn modify(context: &mut Context<'_>) -> Reply {
    let namespace = context.namespace()?;
    context.state.store.modify(&namespace, &options_of(context.request))?;
    Ok(ok())
}

pub fn drop_collection(context: &mut Context<'_>) -> Reply {
    let namespace = context.namespace()?;
    let Some(collection) = context.state.store.collection(&namespace) else { return Ok(ok()) };
    let indexes = collection.indexes.len() as i32 + 1;
    context.state.store.drop_collection(&namespace)?;
    Ok(rawdoc! { "nIndexesWas": indexes, "ns": namespace.as_str() })
}

pub fn drop_database(context: &mut Context<'_>) -> Reply {
    context.state.store.drop_database(&context.request.database)?;
    Ok(rawdoc! { "dropped": context.database() })
}

pub fn rename(context: &mut Context<'_>) -> Reply {
    let from = Namespace::parse(context.request.needed_text("renameCollection")?)?;
    let to = Namespace::parse(context.request.needed_text("to")?)?;
    context.state.store.rename(&from, &to, context.request.is_set("dropTarget"))?;
    Ok(ok())
}

pub fn list_collections(context: &mut Context<'_>) -> Reply {
    let filter = Filter::of(context.request, "filter")?;
    let only_names = context.request.is_set("nameOnly");
    let described =
        context.state.store.in_database(context.database()).map(|collection| (describe(collection), collection));
    let shown: VecDeque<Shared> = described
        .filter(|(description, _)| filter.matches(description))
        .map(|(description, collection)| {
            let name = collection.namespace.collection();
            Arc::new(if only_names {
                rawdoc! { "name": name, "type": "collection" }
            } else {
                description
            })
        })
        .collect();
    cursors::open(context, format!("{}.$cmd.listCollections", context.database()), Content::Documents(shown), None)
}

fn describe(collection: &Collection) -> RawDocumentBuf {
    rawdoc! {
        "name": collection.namespace.collection(),
        "type": "collection",
        "options": collection.options.clone(),
        "info": { "readOnly": false, "uuid": collection.uuid.clone() },
        "idIndex": { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
    }
}

pub fn list_databases(context: &mut Context<'_>) -> Reply {
    let filter = Filter::of(context.request, "filter")?;
    let mut sizes: BTreeMap<&str, i64> = BTreeMap::new();
    for collection in context.state.store.collections() {
        *sizes.entry(collection.namespace.database()).or_default() += 4096 + collection.rows.len() as i64 * 100;
    }
    let mut databases = RawArrayBuf::new();
    for (name, size) in &sizes {
        let database = rawdoc! { "name": *name, "sizeOnDisk": *size, "empty": false };
        if filter.matches(&database) {
            databases.push(&database);
        }
    }
    Ok(rawdoc! { "databases": databases, "totalSize": sizes.values().sum::<i64>() })
}
