//! `delete`, and one delete statement as every command runs it.

use bson::rawdoc;

use super::dispatch::{Context, Reply};
use super::statements;
use crate::failure::{Failure, Stop};
use crate::query::filter::Filter;
use crate::server::shared::State;
use crate::storage::namespace::Namespace;
use crate::storage::oplog::Change;
use crate::storage::store::{Selection, View};
use crate::storage::transaction::Transaction;
use crate::value::order::Key;
use crate::value::read::Read;

pub fn delete(context: &mut Context<'_>, mut transaction: Option<&mut Transaction>) -> Reply {
    let namespace = context.namespace()?;
    let deletes = context.request.documents("deletes");
    statements::run(context, deletes.len(), transaction.is_some(), |context, index| {
        let statement = &deletes[index];
        let filter = Filter::of(statement, "q")?;
        let multi = statement.number("limit").unwrap_or(0) == 0;
        let deleted = delete_matching(context.state, transaction.as_deref_mut(), &namespace, filter, multi)?;
        context.progress.matched += deleted;
        Ok(())
    })?;
    let reply = rawdoc! { "n": context.progress.matched as i32 };
    Ok(statements::with_errors(context, reply))
}

pub fn delete_matching(
    state: &mut State,
    mut transaction: Option<&mut Transaction>,
    namespace: &Namespace,
    filter: Filter,
    multi: bool,
) -> Result<usize, Stop> {
    namespace.check_writable()?;
    let selection = Selection::limited(filter, usize::from(!multi));
    let found = state.store.find(namespace, &selection, View::of(transaction.as_deref(), None));
    let keys = || found.iter().filter_map(|row| row.value("_id")).map(Key::of);
    if transaction.is_none() && state.store.is_held(namespace, keys()) {
        return Err(Stop::Waits);
    }
    for (key, before) in keys().zip(&found) {
        let change = Change::Delete { key, before: Some(before.clone()) };
        state.store.write(transaction.as_deref_mut(), namespace, change).map_err(|stop| match stop {
            Stop::Waits => Failure::write_conflict().into(),
            failed => failed,
        })?;
    }
    Ok(found.len())
}
