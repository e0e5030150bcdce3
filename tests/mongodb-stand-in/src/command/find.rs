//! `find`, `count` and `distinct`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bson::raw::cstr;
use bson::{Document, RawArrayBuf, RawBsonRef, RawDocumentBuf, rawdoc};

use super::cursors::{self, Content};
use super::dispatch::{Context, Reply};
use crate::failure::Failure;
use crate::query::filter::Filter;
use crate::query::projection::Projection;
use crate::query::range::Range;
use crate::query::sort::Sort;
use crate::storage::oplog::{Change, Entry};
use crate::storage::store::{Selection, View};
use crate::storage::transaction::Transaction;
use crate::storage::walk::Walk;
use crate::value::Shared;
use crate::value::order::Key;
use crate::value::path;
use crate::value::read::Read;

pub fn find(context: &mut Context<'_>, transaction: Option<&Transaction>) -> Reply {
    let namespace = context.namespace()?;
    let request = context.request;
    let filter = Filter::of(request, "filter")?;
    let walk = match context.state.store.collection(&namespace) {
        Some(collection) => Walk::hinted(request, collection)?,
        None => None,
    };
    let range = match walk {
        Some(_) => Range::of(&filter),
        None => Range::of(&filter).within(request)?,
    };
    let selection = Selection { filter, range, walk, sort: Sort::of(request, "sort")?, ..bounds(context) };
    let projection = Projection::of(request, "projection")?;
    let time = context.read_time(&namespace)?;
    let found = if namespace.as_str() == "local.oplog.rs" {
        oplog(context, &selection)
    } else {
        context.state.store.find(&namespace, &selection, View::of(transaction, time))
    };
    let shown: VecDeque<Shared> = if projection.is_whole() {
        found.into()
    } else {
        found.iter().map(|row| project(&projection, row)).collect::<Result<_, _>>()?
    };
    cursors::open(context, namespace.to_string(), Content::Documents(shown), time)
}

fn bounds(context: &Context<'_>) -> Selection {
    let number = |name| context.request.number(name).unwrap_or(0).unsigned_abs() as usize;
    Selection { skip: number("skip"), limit: number("limit"), ..Selection::of(Filter::everything()) }
}

fn project(projection: &Projection, row: &Shared) -> Result<Shared, Failure> {
    let projected = projection.apply(Document::try_from(row.as_ref())?)?;
    Ok(Arc::new(RawDocumentBuf::try_from(&projected)?))
}

/// The oplog as a collection, as far as tools look at its first and last entry.
fn oplog(context: &Context<'_>, selection: &Selection) -> Vec<Shared> {
    let render = |entry: &Arc<Entry>| {
        let operation = match entry.change {
            Change::Insert { .. } => "i",
            Change::Update { .. } | Change::Replace { .. } => "u",
            Change::Delete { .. } => "d",
            Change::Note { .. } => "n",
            _ => "c",
        };
        let mut shown = rawdoc! {
            "op": operation, "ns": entry.namespace.as_str(), "ts": entry.time.timestamp(), "t": 1i64, "wall": entry.wall,
        };
        if let Some((key, _)) = entry.change.row() {
            shown.append(cstr!("o2"), rawdoc! { "_id": key.0.clone() });
        }
        Arc::new(shown)
    };
    let entries = context.state.store.oplog.iter();
    let shown: Box<dyn Iterator<Item = Shared>> = match selection.sort.by_key() {
        Some(true) => Box::new(entries.rev().map(render)),
        _ => Box::new(entries.map(render)),
    };
    let limit = if selection.limit == 0 { usize::MAX } else { selection.limit };
    shown.filter(|entry| selection.filter.matches(entry)).skip(selection.skip).take(limit).collect()
}

pub fn count(context: &mut Context<'_>, transaction: Option<&Transaction>) -> Reply {
    let namespace = context.namespace()?;
    let filter = Filter::of(context.request, "query")?;
    let selection = Selection { range: Range::of(&filter), filter, ..bounds(context) };
    let time = context.read_time(&namespace)?;
    let is_plain = selection.filter.is_everything() && selection.skip == 0 && selection.limit == 0;
    let count = match context.state.store.collection(&namespace) {
        Some(collection) if is_plain && time.is_none() && transaction.is_none() => collection.rows.len(),
        _ => context.state.store.find(&namespace, &selection, View::of(transaction, time)).len(),
    };
    Ok(rawdoc! { "n": count as i32 })
}

pub fn distinct(context: &mut Context<'_>, transaction: Option<&Transaction>) -> Reply {
    let namespace = context.namespace()?;
    let field = path::parse(context.request.needed_text("key")?);
    let time = context.read_time(&namespace)?;
    let selection = Selection::of(Filter::of(context.request, "query")?);
    let mut values = BTreeSet::new();
    for row in context.state.store.find(&namespace, &selection, View::of(transaction, time)) {
        let mut found = Vec::new();
        path::resolve(&row, &field, &mut found);
        for value in found.into_iter().flatten() {
            match value {
                RawBsonRef::Array(elements) => values.extend(elements.into_iter().flatten().map(Key::of)),
                value => drop(values.insert(Key::of(value))),
            }
        }
    }
    let values: RawArrayBuf = values.into_iter().map(|value| value.0).collect();
    Ok(rawdoc! { "values": values })
}
