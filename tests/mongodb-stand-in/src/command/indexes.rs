//! Commands on indexes.

use bson::{RawBsonRef, rawdoc};

use super::cursors::{self, Content};
use super::dispatch::{Context, Reply};
use crate::failure::Failure;
use crate::value::read::{Read, texts};

pub fn create(context: &mut Context<'_>) -> Reply {
    let namespace = context.namespace()?;
    let created = context.state.store.ensure(&namespace)?;
    let count =
        |context: &Context<'_>| context.state.store.needed(&namespace).map(|found| found.indexes.len() as i32 + 1);
    let before = count(context)?;
    for specification in context.request.documents("indexes") {
        context.state.store.create_index(&namespace, &specification)?;
    }
    Ok(rawdoc! {
        "numIndexesBefore": before, "numIndexesAfter": count(context)?, "createdCollectionAutomatically": created,
    })
}

pub fn list(context: &mut Context<'_>) -> Reply {
    let namespace = context.namespace()?;
    let indexes = context.state.store.needed(&namespace)?.index_specifications();
    cursors::open(context, namespace.to_string(), Content::Documents(indexes.into()), None)
}

pub fn drop_indexes(context: &mut Context<'_>) -> Reply {
    let namespace = context.namespace()?;
    let collection = context.state.store.needed(&namespace)?;
    let before = collection.indexes.len() as i32 + 1;
    let all = || collection.indexes.iter().map(|index| index.name.clone());
    let names: Vec<String> = match context.request.value("index") {
        Some(RawBsonRef::String("*")) => all().collect(),
        Some(RawBsonRef::String(name)) => vec![name.to_owned()],
        Some(RawBsonRef::Array(names)) => texts(names).map(str::to_owned).collect(),
        Some(RawBsonRef::Document(key)) => {
            let named = collection.indexes.iter().find(|index| index.pattern() == Some(key));
            vec![named.map(|index| index.name.clone()).ok_or_else(|| Failure::new(27, "can't find index with key"))?]
        }
        _ => return Err(Failure::unparsable("dropIndexes needs 'index'").into()),
    };
    for name in names {
        context.state.store.drop_index(&namespace, &name)?;
    }
    Ok(rawdoc! { "nIndexesWas": before })
}
