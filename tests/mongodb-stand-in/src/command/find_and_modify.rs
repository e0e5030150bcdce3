//! `findAndModify`.

use bson::raw::cstr;
use bson::{Document, RawBson, RawDocumentBuf, rawdoc};

use super::delete::delete_matching;
use super::dispatch::{Context, Reply};
use super::update::Statement;
use crate::failure::{Failure, Stop};
use crate::query::filter::Filter;
use crate::query::projection::Projection;
use crate::query::sort::Sort;
use crate::storage::store::{Selection, View};
use crate::storage::transaction::Transaction;
use crate::update::Update;
use crate::value::Shared;
use crate::value::read::Read;

pub fn find_and_modify(context: &mut Context<'_>, transaction: Option<&mut Transaction>) -> Reply {
    let namespace = context.namespace()?;
    let request = context.request;
    let filter = Filter::of(request, "query")?;
    if request.is_set("remove") {
        return remove(context, transaction, filter);
    }
    let update = request
        .value("update")
        .ok_or_else(|| Failure::unparsable("Either an update or remove=true must be specified"))?;
    let statement = Statement {
        filter,
        update: Update::parse(update)?,
        sort: Sort::of(request, "sort")?,
        multi: false,
        upsert: request.is_set("upsert"),
        validate: !request.is_set("bypassDocumentValidation"),
    };
    let outcome = statement.run(context.state, transaction, &namespace)?;
    let mut last = rawdoc! {
        "n": (outcome.matched + usize::from(outcome.upserted.is_some())) as i32,
        "updatedExisting": outcome.matched > 0,
    };
    if let Some(id) = outcome.upserted {
        last.append(cstr!("upserted"), id);
    }
    let shown = match outcome.images {
        Some((_, after)) if request.is_set("new") => Some(after),
        Some((before, _)) => before,
        None => None,
    };
    reply(context, last, shown)
}

fn remove(context: &mut Context<'_>, transaction: Option<&mut Transaction>, filter: Filter) -> Reply {
    let namespace = context.namespace()?;
    let selection = Selection { sort: Sort::of(context.request, "sort")?, ..Selection::limited(filter, 1) };
    let found = context.state.store.find(&namespace, &selection, View::of(transaction.as_deref(), None)).pop();
    if let Some(found) = &found {
        let id = rawdoc! { "_id": { "$eq": super::insert::id_of(found) } };
        delete_matching(context.state, transaction, &namespace, Filter::parse(&id)?, false)?;
    }
    let last = rawdoc! { "n": i32::from(found.is_some()) };
    reply(context, last, found)
}

fn reply(context: &Context<'_>, last: RawDocumentBuf, shown: Option<Shared>) -> Result<RawDocumentBuf, Stop> {
    let projection = Projection::of(context.request, "fields")?;
    let value: RawBson = match shown {
        None => RawBson::Null,
        Some(document) if projection.is_whole() => RawBson::Document(RawDocumentBuf::clone(&document)),
        Some(document) => {
            let projected = projection.apply(Document::try_from(document.as_ref())?)?;
            RawBson::Document(RawDocumentBuf::try_from(&projected)?)
        }
    };
    Ok(rawdoc! { "lastErrorObject": last, "value": value })
}
