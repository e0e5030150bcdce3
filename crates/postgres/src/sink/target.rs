//! A target table as a sink needs it.

use super::encode::Element;
use crate::catalog::{self, Identity, Qualified, Table};
use crate::client::{Client, literal};
use crate::error::Error;
use std::collections::HashMap;
use sync_worker_core::types::ColumnType;

#[derive(Debug)]
pub struct Target {
    pub table: Table,
    /// As an insert writes it.
    pub sql_name: String,
    /// As all others write it: not with the tables that inherit from it, as with native replication.
    pub sql_only: String,
    /// What a value that travels as text is cast to, by the oid of the column's base type. Without the column's
    /// modifier: a cast to `varchar(3)` cuts, an assignment to such a column refuses.
    casts: HashMap<u32, String>,
    pub may_truncate: bool,
    /// The other tables that refer to this one: they have to be truncated with it.
    pub referrers: Vec<u32>,
    /// A delete of a row changes rows that refer to it: a foreign key with an action.
    pub deletes_act: bool,
    /// Foreign keys of this or another table are in force even where the session writes as a replica.
    pub always_acts: bool,
    /// A column takes explicit values only with `OVERRIDING SYSTEM VALUE`.
    pub has_identity: bool,
}

impl Target {
    /// Reads the table's catalog; a table that is not there is Fatal.
    pub async fn read(client: &Client, name: &str) -> Result<Self, Error> {
        let qualified = Qualified::parse(name);
        let Some(table) = catalog::table(client, &qualified).await? else {
            return Err(Error::Fatal(format!(
                "the target has no table {qualified}; create it (sync-worker schema prints how) or correct its name"
            )));
        };
        let oid = table.oid;
        let sql = format!("SELECT has_table_privilege({oid}, 'TRUNCATE')");
        let may_truncate = client.value("a look at the catalog", &sql).await?.as_deref() == Some("t");
        let sql = format!(
            "SELECT DISTINCT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid = {oid} AND conrelid <> {oid}"
        );
        let rows = client.rows("a look at the catalog", &sql).await?;
        let referrers = rows.iter().filter_map(|row| row.get(0)?.parse().ok()).collect();
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = {oid} AND confdeltype IN ('c', 'n', 'd'))"
        );
        let deletes_act = client.value("a look at the catalog", &sql).await?.as_deref() == Some("t");
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = {oid} AND tgisinternal AND tgenabled IN ('A', 'R'))"
        );
        let always_acts = client.value("a look at the catalog", &sql).await?.as_deref() == Some("t");
        let oids = table.columns.iter().map(|column| literal(&column.base_oid.to_string())).collect::<Vec<_>>();
        let sql = format!(
            "SELECT t.oid, quote_ident(n.nspname) || '.' || quote_ident(t.typname) FROM pg_type t \
             JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = ANY (ARRAY[{}]::oid[])",
            oids.join(", ")
        );
        let rows = client.rows("a look at the catalog", &sql).await?;
        let casts = rows.iter().filter_map(|row| Some((row.get(0)?.parse().ok()?, row.get(1)?.to_owned())));
        Ok(Self {
            sql_name: table.name.quoted(),
            sql_only: table.from_clause(),
            casts: casts.collect(),
            may_truncate,
            referrers,
            deletes_act,
            always_acts,
            has_identity: table.columns.iter().any(|column| column.identity == Identity::Always),
            table,
        })
    }

    /// The element for a column and what it is cast to, if it is.
    pub fn element(&self, base_oid: u32, kind: &ColumnType) -> (Element, Option<String>) {
        match Element::of(base_oid) {
            Element::Cast => (Element::Cast, self.casts.get(&base_oid).cloned()),
            // What the canonical table does not know by a value of its own travels as text.
            _ if matches!(kind, ColumnType::Named { .. } | ColumnType::Enum | ColumnType::Set) => {
                (Element::Cast, self.casts.get(&base_oid).cloned())
            }
            element => (element, None),
        }
    }
}
