//! Writing to MySQL: a batch in one transaction, marker first, then a statement per table and effect.
//!
//! Two round trips a batch: everything up to the last row, several statements in a packet; then, the answers checked, the
//! COMMIT. What the server refuses is narrowed down by halves to the rows at fault (`attempt`); only those are parked.
//! A batch of a two-way pipeline looks at its rows before it writes any (`guard`).

mod attempt;
mod encode;
mod exchange;
mod failure;
mod guard;
mod parents;
mod progress;
mod row_by_row;
mod script;
mod statement;
mod target;

use crate::catalog::{self, QualifiedName};
use crate::client::Client;
use crate::config::Config;
use crate::error::Error;
use crate::own_tables;
use crate::reader::single_byte;
use crate::source::{Collations, read_collations};
use crate::wire::Wire;
use async_trait::async_trait;
use attempt::Attempt;
use guard::Look;
use mysql_async::prelude::Queryable;
use progress::{ProgressRows, literal};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync_worker_core::database::Scope;
use sync_worker_core::error::Result as CoreResult;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::sink::{Applied, Parking, Progress, Sink, WriteBatch};
use target::TargetTable;

/// How often a batch is tried when other sessions' locks make it the victim of a deadlock.
const ATTEMPTS: u32 = 4;

/// For retries tables are looked at again, unless that was a moment ago: a column may have been widened so that a row fits.
const LOOKED_AT_LATELY: Duration = Duration::from_secs(2);

/// Lists of keys are looked up in the index however long they are; by default the server scans the table instead when
/// planning the look-ups would take more than 8 MB.
const LONG_LISTS: &str = "SET SESSION range_optimizer_max_mem_size = 0";

/// An action in a transaction of ours is hidden by its echo: a child row that was just written would vanish at this member
/// alone. The members check foreign keys for what is written there, and their own actions come as changes.
const NO_ACTIONS: &str = "SET SESSION foreign_key_checks = 0";

/// The first with `VALUES ROW(..)` and with a name for the new row of an upsert. MariaDB has neither.
pub(crate) const OLDEST: [u32; 3] = [8, 0, 19];

pub(crate) fn takes_our_statements(version: &str) -> bool {
    let numbers = version.split(|character: char| !character.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let numbers: Vec<u32> = numbers.take(3).collect();
    !version.contains("MariaDB") && numbers.as_slice() >= &OLDEST
}

pub struct MysqlSink {
    config: Config,
    client: Client,
    names: HashMap<TableName, QualifiedName>,
    rows: ProgressRows,
    /// The server's `max_allowed_packet`.
    largest: usize,
    targets: HashMap<SchemaId, TargetTable>,
    /// When all of them were last forgotten for a retry.
    looked_at: Option<Instant>,
}

impl MysqlSink {
    pub async fn connect(config: &Config, name: &DatabaseName, scope: &Scope) -> Result<Self, Error> {
        let address = config.address()?;
        let names = scope.tables.iter().map(|at| {
            let name = QualifiedName::parse(&at.name, address.database.as_deref())?;
            Ok((at.table.clone(), name))
        });
        let names = names.collect::<Result<HashMap<_, _>, Error>>()?;
        let mut client = Client::connect(config).await?;
        let Client { conn, liveness, .. } = &mut client;
        let query = "SELECT VERSION(), @@max_allowed_packet";
        let server: Option<(String, usize)> = liveness.watch("a look at the server", conn.query_first(query)).await?;
        let (version, largest) = server.ok_or(Error::Protocol("the server does not tell its version"))?;
        if !takes_our_statements(&version) {
            return Err(Error::Fatal(format!(
                "the server at {} is version {version}; a target must be MySQL {}.{}.{} or later",
                client.host, OLDEST[0], OLDEST[1], OLDEST[2]
            )));
        }
        client.run("the settings of a session", LONG_LISTS).await?;
        if scope.two_way {
            client.run("the settings of a session", NO_ACTIONS).await?;
        }
        let rows = ProgressRows::new(scope, name);
        let targets = HashMap::new();
        Ok(Self { config: config.clone(), client, names, rows, largest, targets, looked_at: None })
    }

    /// Looks at the tables of schemas that have not come up yet.
    async fn prepare(&mut self, batch: &WriteBatch, guarded: bool) -> Result<(), Error> {
        let mut last = None;
        for write in &batch.writes {
            let schema = &write.change.schema;
            if last == Some(schema.id) {
                continue;
            }
            last = Some(schema.id);
            if self.targets.get(&schema.id).is_none_or(|target| guarded && target.look.is_none()) {
                self.load(schema, guarded).await?;
            }
        }
        Ok(())
    }

    async fn load(&mut self, schema: &Arc<Schema>, guarded: bool) -> Result<(), Error> {
        let table = &schema.table;
        let name =
            self.names.get(table).ok_or_else(|| Error::Fatal(format!("table {table} is not in the pipeline")))?;
        let found = catalog::table(&mut self.client, name).await?.ok_or_else(|| {
            Error::Fatal(format!(
                "table {name} is missing, or the user may not see it; make it (sync-worker schema prints the statement) \
                 or run: GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO the user",
                name.quoted()
            ))
        })?;
        let mut target = TargetTable::new(&found, schema)?;
        target.takes_along = self.takes_along(&target.name).await?;
        if guarded {
            let collations = match found.columns.iter().any(|column| single_byte(column).is_some()) {
                true => read_collations(&mut Wire::connect(&self.config).await?).await?,
                false => Collations::new(),
            };
            target.look = Some(Look::new(&found, &target, schema, &collations)?);
        }
        self.targets.insert(schema.id, target);
        self.level();
        // With the parents of such tables: deletes of the children come first.
        let mut acting: HashSet<QualifiedName> =
            self.targets.values().flat_map(|target| target.acted_on_by.iter().cloned()).collect();
        loop {
            let before = acting.len();
            let above = self.targets.values().filter(|target| acting.contains(&target.name));
            let above: Vec<QualifiedName> = above.flat_map(|target| target.parents.iter().cloned()).collect();
            acting.extend(above);
            if acting.len() == before {
                break;
            }
        }
        self.targets.values_mut().for_each(|target| target.deletes_act = acting.contains(&target.name));
        Ok(())
    }

    async fn takes_along(&mut self, name: &QualifiedName) -> Result<bool, Error> {
        let (database, table) = (literal(&name.database), literal(&name.table));
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE UNIQUE_CONSTRAINT_SCHEMA={database} \
             AND REFERENCED_TABLE_NAME={table} AND DELETE_RULE NOT IN ('RESTRICT','NO ACTION')"
        );
        let asked = self.client.conn.query_first::<u64, _>(sql);
        let keys = self.client.liveness.watch("a look at the foreign keys", asked).await?;
        Ok(keys.is_some_and(|keys| keys > 0))
    }

    /// Puts parents below their children. A circle ends the climb.
    fn level(&mut self) {
        for target in self.targets.values_mut() {
            target.level = 0;
        }
        for _ in 0..self.targets.len() {
            let levels: HashMap<QualifiedName, usize> =
                self.targets.values().map(|target| (target.name.clone(), target.level)).collect();
            let mut moved = false;
            for target in self.targets.values_mut() {
                let above = target.parents.iter().filter_map(|parent| levels.get(parent)).max();
                let level = above.map_or(0, |level| level + 1);
                moved |= level != target.level;
                target.level = level;
            }
            if !moved {
                break;
            }
        }
    }

    /// The statement that failed may have left the transaction open, and its locks with it.
    async fn give_up(&mut self, error: Error) -> Error {
        match error {
            Error::Lost { .. } | Error::Silent { .. } | Error::CommitUnknown(_) => error,
            // The first error says more than a second one.
            error => match self.client.run("a rollback", "ROLLBACK").await {
                Ok(()) | Err(_) => error,
            },
        }
    }
}

#[async_trait]
impl Sink for MysqlSink {
    async fn take_over(&mut self, log: &str) -> CoreResult<Progress> {
        own_tables::create(&mut self.client).await?;
        self.rows.end_others(&mut self.client).await?;
        match self.rows.take_over(&mut self.client, log).await {
            Ok(progress) => Ok(progress),
            Err(error) => Err(self.give_up(error).await.into()),
        }
    }

    async fn apply(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> CoreResult<Applied> {
        if batch.retry && self.looked_at.is_none_or(|looked_at| looked_at.elapsed() > LOOKED_AT_LATELY) {
            self.targets.clear();
            self.looked_at = Some(Instant::now());
        }
        let guarded = batch.writes.first().is_some_and(|write| write.over.is_some());
        let (mut tries, mut looked_again, mut repeats) = (1, false, 0);
        let mut altered = HashSet::new();
        loop {
            self.prepare(batch, guarded).await?;
            let outcome = match guarded {
                true => guard::run(self, batch, repeats == 0 && altered.is_empty(), &altered, parking).await,
                false => Attempt::new(self, batch).run(parking).await,
            };
            let error = match outcome {
                Ok(applied) => return Ok(applied),
                Err(attempt::Failed::Here(error)) => error,
                Err(attempt::Failed::Parking(error)) => {
                    self.client.run("a rollback", "ROLLBACK").await?;
                    return Err(error);
                }
                Err(attempt::Failed::Altered(writes)) => {
                    self.client.run("a rollback", "ROLLBACK").await?;
                    altered.extend(writes);
                    continue;
                }
            };
            let error = self.give_up(error).await;
            if error.code() == Some(failure::DEADLOCK) && tries < ATTEMPTS {
                tries += 1;
            } else if matches!(error, Error::Overtaken) && repeats < guard::REPEATS {
                repeats += 1;
            } else if failure::is_stale(&error) && !looked_again {
                looked_again = true;
                self.targets.clear();
            } else {
                return Err(error.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_without_our_statements_are_known() {
        for (version, taken) in [
            ("9.7.4-0debian1", true),
            ("8.0.19", true),
            ("8.4.0-commercial", true),
            ("8.0.18", false),
            ("5.7.44-log", false),
            ("11.8.2-MariaDB-1", false),
        ] {
            assert_eq!(takes_our_statements(version), taken, "{version}");
        }
    }
}
