//! Opening the stream: identity, slot and publication are checked before the first byte is read.

use crate::catalog::{self, Qualified, ReplicaIdentity, Table};
use crate::client::{self, Client, Purpose, identifier, literal};
use crate::config::Config;
use crate::error::Error;
use crate::own::{self, Owner};
use crate::recent::Recent;
use crate::source::feedback::Feedback;
use crate::source::relation::Relations;
use crate::source::slot::{self, Membership, Publication};
use crate::source::spill::Spill;
use crate::source::timeline::Identity;
use crate::source::transport::Connection;
use crate::source::{PostgresSource, assembly};
use std::sync::Arc;
use sync_worker_core::database::Scope;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::position::{Checkpoint, Lsn};

/// How often the slot is asked for before a reader that will not let go is reported.
const ATTEMPTS: usize = 5;

pub async fn open(
    config: &Config,
    database: &DatabaseName,
    scope: &Scope,
    from: Option<&Checkpoint>,
    recent: Arc<Recent>,
) -> Result<(PostgresSource, Checkpoint), Error> {
    let (client, mut connection) = connect(config).await?;
    let server = client.server.clone();
    let level = client.value("a look at the settings", "SELECT current_setting('wal_level')").await?;
    if level.as_deref() != Some("logical") {
        let cure = "ALTER SYSTEM SET wal_level = 'logical', then restart the server";
        return Err(Error::Fatal(format!("wal_level of PostgreSQL at {server} is not logical: {cure}")));
    }
    let tables = tables(&client, scope).await?;
    let mut published = tables.clone();
    if scope.two_way {
        own::create(&client).await?;
        for table in [own::PROGRESS, own::PARKED] {
            let name = Qualified { schema: own::SCHEMA.to_owned(), table: table.to_owned() };
            let made = catalog::table(&client, &name).await?;
            published.push(made.ok_or_else(|| Error::Fatal(format!("table {name} is gone: start again")))?);
        }
    }
    let identity = Identity::of(&mut connection).await?;
    let epoch = identity.epoch();
    let name = slot::name(scope, database);
    let start = match from {
        Some(from) => {
            let resume = resume(from)?;
            if identity.earlier(&from.epoch).is_some() {
                // That it was not yet when the position was taken over; the next attempt does so.
                let problem = "the server was promoted meanwhile".to_owned();
                return Err(Error::Lost { doing: "the start of the stream".into(), problem });
            }
            check(&client, database, &name, from, &identity, &config.address()?.database).await?;
            check_tables(&client, database, &name, &published).await?;
            recent.assume_waiting(&client).await?;
            if slot::publish(&client, &name, &published).await? == Publication::Altered {
                tracing::warn!(
                    publication = name,
                    "the publication had other tables than the pipeline and was changed"
                );
                recent.assume_running(&client).await?;
            }
            resume
        }
        None => {
            // A slot without a checkpoint is one that a crash left behind: nothing rests on it.
            slot::drop_slot(&client, &name).await?;
            slot::publish(&client, &name, &published).await?;
            slot::create(&client, &name, config.failover_slot).await?
        }
    };
    slot::remember(&client, &name, &published).await?;
    let spill = Spill::new(&scope.spill)?;
    let sql = format!(
        "START_REPLICATION SLOT {name} LOGICAL {start} (proto_version '2', streaming 'on', publication_names {})",
        literal(&identifier(&name))
    );
    start_stream(&mut connection, &client, &name, &sql).await?;
    let (receiver, sender) = connection.into_stream();
    let membership = Membership::now(&client, &name, &published).await?;
    let feedback = Feedback::start(sender, start, config, membership);
    let oids = tables.iter().map(|table| (table.oid, table.name.clone())).collect();
    let owner = scope.two_way.then(|| Owner::of(scope, database));
    let relations = Relations::new(config.clone(), client, &scope.tables, oids, owner);
    let checkpoint = from.cloned().unwrap_or_else(|| assembly::checkpoint(&epoch, start));
    let source =
        PostgresSource::new(database.clone(), receiver, feedback, relations, spill, server, (epoch, start, recent));
    Ok((source, checkpoint))
}

/// A connection for statements and one that can stream, to the same server.
pub async fn connect(config: &Config) -> Result<(Client, Connection), Error> {
    let client = client::connect(config, Purpose::Control).await?;
    let connection = Connection::connect(&config.address()?, &client.server).await?;
    Ok((client, connection))
}

/// Starts the stream, taking the slot from a connection of ours that the server has not missed yet.
async fn start_stream(connection: &mut Connection, client: &Client, name: &str, sql: &str) -> Result<(), Error> {
    for _ in 1..ATTEMPTS {
        match connection.start(sql).await {
            Err(error) if error.code() == Some("55006") => slot::release(client, name).await?,
            outcome => return outcome,
        }
    }
    connection.start(sql).await
}

async fn tables(client: &Client, scope: &Scope) -> Result<Vec<Table>, Error> {
    let mut tables = Vec::with_capacity(scope.tables.len());
    for at in &scope.tables {
        let name = Qualified::parse(&at.name);
        let table = catalog::table(client, &name).await?.ok_or_else(|| {
            Error::Fatal(format!("there is no table {name} at the source: correct its name, or create it"))
        })?;
        if table.replica_identity == ReplicaIdentity::Nothing {
            return Err(Error::Fatal(format!(
                "table {name} has replica identity NOTHING: ALTER TABLE {} REPLICA IDENTITY DEFAULT",
                name.quoted()
            )));
        }
        if let Some((problem, cure)) = table.odd_identity() {
            return Err(Error::Fatal(format!("table {name}: {problem}: {cure}")));
        }
        if scope.two_way && table.replica_identity != ReplicaIdentity::Full {
            return Err(Error::Fatal(full_identity(&name)));
        }
        table.schema(&at.table)?;
        if let Some(column) = table.extension_key() {
            let (column, kind) = (&column.name, &column.type_name);
            return Err(Error::Fatal(format!(
                "table {name} has the key column {column} of type {kind}, an extension's type, which can't be a key here; \
                 give it a key of another type"
            )));
        }
        tables.push(table);
    }
    Ok(tables)
}

/// Whether a write was made over another one shows in the row before it alone.
pub fn full_identity(name: &Qualified) -> String {
    format!(
        "table {name} has not replica identity FULL, which a two-way pipeline needs: ALTER TABLE {} REPLICA IDENTITY FULL",
        name.quoted()
    )
}

/// invariant 8: a position that is lost, foreign or ahead of the server is a GAP, never a silent resume.
async fn check(
    client: &Client,
    database: &DatabaseName,
    name: &str,
    from: &Checkpoint,
    identity: &Identity,
    server_database: &str,
) -> Result<(), Error> {
    let gap = |problem: String| Err(gap(database, &problem));
    let resume = resume(from)?;
    let end = identity.end;
    if !identity.is_of(&from.epoch) {
        return gap(format!(
            "the position {resume} belongs to server/timeline {}, but this one is {}",
            from.epoch,
            identity.epoch()
        ));
    }
    if resume > end {
        return gap(format!("the position {resume} is ahead of the server's log, which ends at {end}"));
    }
    let Some(slot) = slot::find(client, name).await? else {
        return gap(format!("the slot {name} is gone"));
    };
    if slot.database != server_database {
        return gap(format!("the slot {name} belongs to database {}, not to {server_database}", slot.database));
    }
    if slot.plugin != "pgoutput" {
        return gap(format!("the slot {name} is one of the plugin {}", slot.plugin));
    }
    if let Some(reason) = slot.lost {
        return gap(format!("the server has given up the slot {name}: {reason}"));
    }
    if let Some(confirmed) = slot.confirmed.filter(|confirmed| *confirmed > resume) {
        return gap(format!("the slot {name} stands at {confirmed}, after the position {resume}"));
    }
    let published = format!("SELECT FROM pg_publication WHERE pubname = {}", literal(name));
    if client.rows("a look at the publication", &published).await?.is_empty() {
        return gap(format!("the publication {name} is gone"));
    }
    Ok(())
}

pub fn gap(database: &DatabaseName, problem: &str) -> Error {
    let repair = "changes since then are missing; remove the pipeline's state and take a new snapshot";
    Error::Gap(format!("{database}: {problem}: {repair}"))
}

/// A table that was dropped and made again under its name, or taken out of the publication for a while, has changes that
/// nobody sent. One that nobody remembers has just joined the pipeline.
async fn check_tables(client: &Client, database: &DatabaseName, name: &str, tables: &[Table]) -> Result<(), Error> {
    let published = slot::published(client, name).await?;
    let remembered = slot::remembered(client, name).await?;
    for table in tables {
        match remembered.get(&table.name.to_string()) {
            Some((oid, _)) if *oid != table.oid => {
                return Err(gap(database, &slot::made_again(&table.name.to_string())));
            }
            Some((oid, row)) if published.get(oid).is_none_or(|now| row.is_some_and(|row| row != *now)) => {
                return Err(gap(database, &slot::taken_out(&table.name.to_string(), name)));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

pub fn resume(checkpoint: &Checkpoint) -> Result<Lsn, Error> {
    checkpoint.resume.parse().map_err(|_| {
        Error::Gap(format!("the stored position {:?} is not one of PostgreSQL: take a new snapshot", checkpoint.resume))
    })
}
