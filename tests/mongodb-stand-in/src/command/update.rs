//! `update`, and one update statement as every command runs it.

use std::sync::Arc;

use bson::{RawBson, RawDocument, rawdoc};

use super::dispatch::{Context, Reply};
use super::insert::{id_of, insert_one};
use super::statements;
use crate::failure::{Failure, Stop};
use crate::query::filter::Filter;
use crate::query::sort::Sort;
use crate::server::shared::State;
use crate::storage::namespace::Namespace;
use crate::storage::oplog::Change;
use crate::storage::store::{Selection, View};
use crate::storage::transaction::Transaction;
use crate::storage::validation;
use crate::update::Update;
use crate::update::description::Description;
use crate::value::order::Key;
use crate::value::read::Read;
use crate::value::{Shared, identical};

/// One update: of one document or of all that match.
pub struct Statement {
    pub filter: Filter,
    pub update: Update,
    pub sort: Sort,
    pub multi: bool,
    pub upsert: bool,
    pub validate: bool,
}

#[derive(Default)]
pub struct Outcome {
    pub matched: usize,
    pub modified: usize,
    pub upserted: Option<RawBson>,
    /// Of the last document: before and after.
    pub images: Option<(Option<Shared>, Shared)>,
}

impl Statement {
    /// With the names of `update` (`q`, `u`) or of `bulkWrite` (`filter`, `updateMods`).
    pub fn parse(statement: &RawDocument, filter: &str, update: &str, validate: bool) -> Result<Self, Failure> {
        if statement.array("arrayFilters").is_some_and(|filters| !filters.is_empty()) {
            return Err(Failure::unparsable("the stand-in knows no arrayFilters"));
        }
        let given =
            statement.value(update).ok_or_else(|| Failure::unparsable(format!("an update needs '{update}'")))?;
        let parsed = Self {
            filter: Filter::of(statement, filter)?,
            update: Update::parse(given)?,
            sort: Sort::of(statement, "sort")?,
            multi: statement.is_set("multi"),
            upsert: statement.is_set("upsert"),
            validate,
        };
        if parsed.multi && parsed.update.is_replacement() {
            return Err(Failure::unparsable("multi update is not supported for replacement-style update"));
        }
        Ok(parsed)
    }

    pub fn run(
        self,
        state: &mut State,
        mut transaction: Option<&mut Transaction>,
        namespace: &Namespace,
    ) -> Result<Outcome, Stop> {
        namespace.check_writable()?;
        let Self { filter, update, sort, multi, upsert, validate } = self;
        let selection = Selection { sort, ..Selection::limited(filter, usize::from(!multi)) };
        let found = state.store.find(namespace, &selection, View::of(transaction.as_deref(), None));
        let mut outcome = Outcome::default();
        if found.is_empty() && upsert {
            let document = Arc::new(update.insert(&selection.filter)?);
            state.store.ensure(namespace)?;
            insert_one(state, transaction, namespace, &document, validate)?;
            return Ok(Outcome { upserted: Some(id_of(&document)), images: Some((None, document)), ..outcome });
        }
        // All or nothing before a wait: the statement is run again from its start.
        if transaction.is_none()
            && state.store.is_held(namespace, found.iter().filter_map(|row| row.value("_id")).map(Key::of))
        {
            return Err(Stop::Waits);
        }
        for before in found {
            let changed = change(state, transaction.as_deref_mut(), namespace, &before, &update, validate);
            let after = match changed {
                Err(Stop::Waits) if outcome.modified > 0 => return Err(Failure::write_conflict().into()),
                changed => changed?,
            };
            outcome.matched += 1;
            outcome.modified += usize::from(after.is_some());
            outcome.images = Some((Some(before.clone()), after.unwrap_or(before)));
        }
        Ok(outcome)
    }
}

/// The new document, or `None` if the update changes nothing.
fn change(
    state: &mut State,
    transaction: Option<&mut Transaction>,
    namespace: &Namespace,
    before: &Shared,
    update: &Update,
    validate: bool,
) -> Result<Option<Shared>, Stop> {
    let after = update.apply(before)?;
    if identical((&**before).into(), (&after).into()) {
        return Ok(None);
    }
    validation::check_update(&after)?;
    if validate {
        state.store.needed(namespace)?.validate(&after)?;
    }
    let key = Key::of(before.value("_id").unwrap_or(bson::RawBsonRef::Null));
    let after = Arc::new(after);
    let change = if update.is_replacement() {
        Change::Replace { key, before: Some(before.clone()), after: after.clone() }
    } else {
        let description = Arc::new(Description::between(before, &after)?);
        Change::Update { key, before: Some(before.clone()), after: after.clone(), description }
    };
    state.store.write(transaction, namespace, change)?;
    Ok(Some(after))
}

pub fn update(context: &mut Context<'_>, mut transaction: Option<&mut Transaction>) -> Reply {
    let namespace = context.namespace()?;
    let updates = context.request.documents("updates");
    let validate = !context.request.is_set("bypassDocumentValidation");
    statements::run(context, updates.len(), transaction.is_some(), |context, index| {
        let statement = Statement::parse(&updates[index], "q", "u", validate)?;
        let outcome = statement.run(context.state, transaction.as_deref_mut(), &namespace)?;
        let progress = &mut *context.progress;
        progress.matched += outcome.matched + usize::from(outcome.upserted.is_some());
        progress.modified += outcome.modified;
        if let Some(id) = outcome.upserted {
            progress.upserted.push(rawdoc! { "index": index as i32, "_id": id });
        }
        Ok(())
    })?;
    let mut reply = rawdoc! { "n": context.progress.matched as i32, "nModified": context.progress.modified as i32 };
    if !context.progress.upserted.is_empty() {
        reply.append(bson::raw::cstr!("upserted"), &context.progress.upserted);
    }
    Ok(statements::with_errors(context, reply))
}
