//! `bulkWrite` of 8.0: writes to several collections in one command, each with its own result.

use std::sync::Arc;

use bson::raw::cstr;
use bson::{RawDocument, RawDocumentBuf, rawdoc};

use super::cursors::{self, Content};
use super::delete::delete_matching;
use super::dispatch::{Context, Reply};
use super::insert::insert_one;
use super::update::Statement;
use crate::failure::{Failure, Stop, code};
use crate::query::filter::Filter;
use crate::storage::namespace::Namespace;
use crate::storage::transaction::Transaction;
use crate::value::read::{Read, whole};

#[derive(Default)]
struct Counts {
    errors: i32,
    inserted: i32,
    matched: i32,
    modified: i32,
    upserted: i32,
    deleted: i32,
}

pub fn bulk_write(context: &mut Context<'_>, mut transaction: Option<&mut Transaction>) -> Reply {
    if context.server.options.wire_version < 25 {
        return Err(Failure::new(59, "no such command: 'bulkWrite'").into());
    }
    let request = context.request;
    let namespaces = request.documents("nsInfo");
    let namespaces =
        namespaces.iter().map(|info| Namespace::parse(info.needed_text("ns")?)).collect::<Result<Vec<_>, _>>()?;
    let operations = request.documents("ops");
    if operations.is_empty() {
        return Err(Failure::new(16, "may not specify an empty set of operations for bulkWrite").into());
    }
    let ordered = request.flag("ordered").unwrap_or(true);
    let in_transaction = transaction.is_some();
    while context.progress.next < operations.len() {
        let index = context.progress.next;
        let result = match run(context, transaction.as_deref_mut(), &namespaces, &operations[index]) {
            Ok(result) => result,
            Err(Stop::Failed(failure)) if !(in_transaction && failure.code == code::WRITE_CONFLICT) => failed(&failure),
            Err(stop) => return Err(stop),
        };
        let has_failed = result.value("code").is_some();
        let mut numbered = rawdoc! { "ok": if has_failed { 0.0 } else { 1.0 }, "idx": index as i32 };
        crate::value::append_all(&mut numbered, &result);
        context.progress.results.push(numbered);
        context.progress.next = if has_failed && (ordered || in_transaction) { operations.len() } else { index + 1 };
    }
    reply(context, &operations)
}

fn run(
    context: &mut Context<'_>,
    transaction: Option<&mut Transaction>,
    namespaces: &[Namespace],
    operation: &RawDocument,
) -> Result<RawDocumentBuf, Stop> {
    let first = operation.iter().next().transpose()?;
    let (kind, place) = first.ok_or_else(|| Failure::unparsable("an empty operation of bulkWrite"))?;
    let namespace = whole(place).and_then(|place| namespaces.get(usize::try_from(place).ok()?));
    let namespace = namespace
        .ok_or_else(|| Failure::bad_value("an operation of bulkWrite names a namespace that is not in nsInfo"))?;
    namespace.check_writable()?;
    let validate = !context.request.is_set("bypassDocumentValidation");
    match kind.as_str() {
        "insert" => {
            let document =
                operation.document("document").ok_or_else(|| Failure::unparsable("insert needs a document"))?;
            context.state.store.ensure(namespace)?;
            insert_one(context.state, transaction, namespace, &Arc::new(document.to_owned()), validate)?;
            Ok(rawdoc! { "n": 1 })
        }
        "update" => {
            let statement = Statement::parse(operation, "filter", "updateMods", validate)?;
            let outcome = statement.run(context.state, transaction, namespace)?;
            let count = outcome.matched + usize::from(outcome.upserted.is_some());
            let mut result = rawdoc! { "n": count as i32, "nModified": outcome.modified as i32 };
            if let Some(id) = outcome.upserted {
                result.append(cstr!("upserted"), rawdoc! { "_id": id });
            }
            Ok(result)
        }
        "delete" => {
            let filter = Filter::of(operation, "filter")?;
            let deleted = delete_matching(context.state, transaction, namespace, filter, operation.is_set("multi"))?;
            Ok(rawdoc! { "n": deleted as i32 })
        }
        other => Err(Failure::unparsable(format!("bulkWrite knows no operation '{other}'")).into()),
    }
}

fn failed(failure: &Failure) -> RawDocumentBuf {
    let mut result = rawdoc! { "code": failure.code, "errmsg": failure.message.as_str(), "n": 0 };
    crate::value::append_all(&mut result, &failure.details);
    result
}

fn reply(context: &mut Context<'_>, operations: &[crate::value::Shared]) -> Reply {
    let results = std::mem::take(&mut context.progress.results);
    let mut counts = Counts::default();
    for (result, operation) in results.iter().zip(operations_of(&results, operations)) {
        let count = result.number("n").unwrap_or(0) as i32;
        if result.value("code").is_some() {
            counts.errors += 1;
            continue;
        }
        match operation {
            "insert" => counts.inserted += count,
            "delete" => counts.deleted += count,
            _ if result.value("upserted").is_some() => counts.upserted += count,
            _ => {
                counts.matched += count;
                counts.modified += result.number("nModified").unwrap_or(0) as i32;
            }
        }
    }
    let only_errors = context.request.is_set("errorsOnly");
    let shown =
        results.into_iter().filter(|result| !only_errors || result.value("code").is_some()).map(Arc::new).collect();
    let mut reply = cursors::open(context, "admin.$cmd.bulkWrite".to_owned(), Content::Documents(shown), None)?;
    for (name, count) in [
        (cstr!("nErrors"), counts.errors),
        (cstr!("nInserted"), counts.inserted),
        (cstr!("nMatched"), counts.matched),
        (cstr!("nModified"), counts.modified),
        (cstr!("nUpserted"), counts.upserted),
        (cstr!("nDeleted"), counts.deleted),
    ] {
        reply.append(name, count);
    }
    Ok(reply)
}

fn operations_of<'a>(
    results: &'a [RawDocumentBuf],
    operations: &'a [crate::value::Shared],
) -> impl Iterator<Item = &'a str> {
    results.iter().map(|result| {
        let operation = result.number("idx").and_then(|index| operations.get(usize::try_from(index).ok()?));
        operation.and_then(|operation| operation.iter_elements().next()?.ok()).map_or("", |kind| kind.key().as_str())
    })
}
