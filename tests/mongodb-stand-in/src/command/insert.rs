//! `insert`.

use std::sync::Arc;

use bson::{RawDocument, Timestamp, rawdoc};

use super::dispatch::{Context, Reply};
use super::statements;
use crate::failure::Stop;
use crate::server::shared::State;
use crate::storage::namespace::Namespace;
use crate::storage::oplog::Change;
use crate::storage::transaction::Transaction;
use crate::storage::validation;
use crate::update::with_id;
use crate::value::Shared;
use crate::value::read::Read;

pub fn insert(context: &mut Context<'_>, mut transaction: Option<&mut Transaction>) -> Reply {
    let namespace = context.namespace()?;
    namespace.check_writable()?;
    context.state.store.ensure(&namespace)?;
    let documents = context.request.documents("documents");
    let validate = !context.request.is_set("bypassDocumentValidation");
    statements::run(context, documents.len(), transaction.is_some(), |context, index| {
        insert_one(context.state, transaction.as_deref_mut(), &namespace, &documents[index], validate)?;
        context.progress.matched += 1;
        Ok(())
    })?;
    let reply = rawdoc! { "n": context.progress.matched as i32 };
    Ok(statements::with_errors(context, reply))
}

pub fn insert_one(
    state: &mut State,
    transaction: Option<&mut Transaction>,
    namespace: &Namespace,
    document: &Shared,
    validate: bool,
) -> Result<(), Stop> {
    let document = prepared(state, document);
    let key = validation::check_insert(&document)?;
    if validate {
        state.store.needed(namespace)?.validate(&document)?;
    }
    state.store.write(transaction, namespace, Change::Insert { key, after: document })
}

/// `_id` first, and an empty timestamp in a top-level field is the present, as the server has it.
fn prepared(state: &mut State, document: &Shared) -> Shared {
    let first = document.iter_elements().next().and_then(Result::ok);
    let is_in_order = first.is_some_and(|first| first.key().as_str() == "_id");
    let document = if is_in_order { document.clone() } else { Arc::new(with_id(document)) };
    if !document.iter_elements().flatten().any(|field| is_empty_timestamp(&field)) {
        return document;
    }
    let now = state.store.clock.tick().timestamp();
    let mut filled = bson::RawDocumentBuf::new();
    for field in document.iter_elements().flatten() {
        match field.value() {
            Ok(_) if is_empty_timestamp(&field) => filled.append(field.key(), now),
            Ok(value) => filled.append(field.key(), value),
            Err(_) => return document,
        }
    }
    Arc::new(filled)
}

fn is_empty_timestamp(field: &bson::raw::RawElement<'_>) -> bool {
    field.element_type() == bson::spec::ElementType::Timestamp
        && field.key().as_str() != "_id"
        && field.value().is_ok_and(|value| value.as_timestamp() == Some(Timestamp { time: 0, increment: 0 }))
}

/// The document's `_id`, for replies.
pub fn id_of(document: &RawDocument) -> bson::RawBson {
    document.value("_id").unwrap_or(bson::RawBsonRef::Null).into()
}
