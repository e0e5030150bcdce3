//! Rows that come before those that they refer to.
//!
//! While a source is copied, a row may be written there that refers to one which has yet to be copied. At its origin the
//! parent was there, so it is on its way, and the row is written while foreign keys rest, as copied rows are. Only where the
//! target keeps a row of the parent's table waiting does the child wait as well, and where no pipeline brings the parents.

use crate::error::Error;
use crate::sink::attempt::Attempt;
use mysql_async::prelude::Queryable;
use sync_worker_core::name::TableName;

impl Attempt<'_> {
    /// Whether foreign keys rest for what is written to a table.
    pub(super) fn goes_first(&self, table: &TableName) -> bool {
        let parents = self.going_first.get(table).and_then(Option::as_ref);
        parents.is_some_and(|parents| !self.refusals.keys().any(|(refused, _)| parents.contains(refused)))
    }

    /// After a row of a table was refused for a parent that is not there: whether rows of it may go first now, and could not
    /// before.
    pub(super) async fn may_go_first(&mut self, table: &TableName) -> Result<bool, Error> {
        if self.going_first.contains_key(table) {
            return Ok(false);
        }
        let parents = self.parents_to_come(table).await?;
        self.going_first.insert(table.clone(), parents);
        Ok(self.goes_first(table))
    }

    /// The tables that a table refers to, if all their rows are on their way.
    async fn parents_to_come(&mut self, table: &TableName) -> Result<Option<Vec<TableName>>, Error> {
        let Some(schema) = self.schema_of(table) else { return Ok(None) };
        let mut parents = Vec::new();
        for name in &self.target(schema)?.refers_to {
            let Some((parent, _)) = self.sink.names.iter().find(|(_, of)| *of == name) else { return Ok(None) };
            parents.push(parent.clone());
        }
        if parents.is_empty() {
            return Ok(None);
        }
        let waiting = self.sink.rows.waiting(&parents);
        let crate::client::Client { conn, liveness, .. } = &mut self.sink.client;
        let waits = liveness.watch("a look at the parked rows", conn.query_first::<bool, _>(waiting)).await?;
        Ok((waits == Some(false)).then_some(parents))
    }
}
