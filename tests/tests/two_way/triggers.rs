//! Triggers at a member that make other rows of what is written there.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::time::Duration;
use sync_worker_tests::database::Database;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::two_way::{Account, Change, TwoWay};
use sync_worker_tests::wait;

const LIMIT: Duration = Duration::from_secs(120);

/// Of rows with the one value another one is made, and PostgreSQL leaves out rows with the other.
const ALTERED: i32 = 13;
const LEFT_OUT: i32 = 17;

each_pair![a_row_that_a_trigger_alters_waits_and_a_newer_version_replaces_it];

/// A row that is another one at one member would be a version that nobody has written, and no event would tell of it.
async fn a_row_that_a_trigger_alters_waits_and_a_newer_version_replaces_it(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "triggers", "seed = \"a\"\n").await?;
    let row = |id, a| Account { id, writer: format!("w{id}"), a, ..Account::default() };
    let (mut at_a, mut at_b) = (pair.members[0].accounts().await?, pair.members[1].accounts().await?);
    at_a.insert_all(&[1, 2, 3].map(|id| row(id, 0))).await?;
    alters(&pair.members[1].database).await?;
    pair.start().await?;
    pair.settle().await?;
    let becomes = |a| Change { a: Some(a), ..Change::default() };
    at_a.change(1, &becomes(ALTERED)).await?;
    at_a.change(2, &becomes(1)).await?;
    at_a.insert(&row(4, ALTERED)).await?;
    // MySQL has no trigger that leaves rows out.
    let third = if kinds[1] == Kind::Postgres { LEFT_OUT } else { ALTERED };
    at_a.change(3, &becomes(third)).await?;
    at_a.insert(&row(5, third)).await?;
    let waits = pair.worker.until("the altered rows to be parked", LIMIT, |tasks| {
        tasks.iter().any(|task| task.database == "b" && task.parked == 4)
    });
    waits.await?;
    at_a.insert(&row(6, 2)).await?;
    wait::until("a row at b that comes after them", LIMIT, async || Ok(at_b.read(6).await?.map(drop))).await?;
    for id in [1, 3] {
        let there = at_b.read(id).await?.context("a copied row")?;
        ensure!(there == row(id, 0), "it was written over, and there is {there:?}");
    }
    for id in [4, 5] {
        ensure!(at_b.read(id).await?.is_none(), "row {id} was written");
    }
    ensure!(at_b.read(2).await? == Some(row(2, 1)), "another one was left out");
    for (id, a) in [(1, 5), (3, 6), (4, 7), (5, 8)] {
        at_a.change(id, &becomes(a)).await?;
    }
    pair.equal().await?;
    pair.worker.until("nothing to be parked", LIMIT, |tasks| tasks.iter().all(|task| task.parked == 0)).await?;
    let conflicts = pair.conflicts().await?;
    let settled = |one: &Value| one["kind"] == "constraint" && one["open"] == false && one["decided_by"] == "worker";
    ensure!(conflicts.iter().all(settled), "{conflicts:#?}");
    // An update of a row that is left out may find it later, and is no dead letter yet.
    for id in [1, 4, 5] {
        ensure!(conflicts.iter().any(|one| one["key"]["id"] == id), "the refusal of row {id} is not on record");
    }
    pair.finish().await
}

async fn alters(database: &Database) -> anyhow::Result<()> {
    let mut connection = database.connect().await?;
    if database.kind == Kind::Postgres {
        let function = format!(
            "CREATE FUNCTION alters() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.a = {LEFT_OUT} THEN RETURN NULL; END IF; \
             IF NEW.a = {ALTERED} THEN NEW.writer := upper(NEW.writer); END IF; RETURN NEW; END $$"
        );
        connection.execute(&function).await?;
        let trigger = "CREATE TRIGGER alters BEFORE INSERT OR UPDATE ON account FOR EACH ROW EXECUTE FUNCTION alters()";
        connection.execute(trigger).await?;
        return connection.execute("ALTER TABLE account ENABLE ALWAYS TRIGGER alters").await;
    }
    for event in ["INSERT", "UPDATE"] {
        let trigger = format!(
            "CREATE TRIGGER alters_{event} BEFORE {event} ON account FOR EACH ROW \
             SET NEW.writer = IF(NEW.a = {ALTERED}, UPPER(NEW.writer), NEW.writer)"
        );
        connection.execute(&trigger).await?;
    }
    Ok(())
}

/// MySQL shows triggers only to users with a privilege that is no need otherwise.
#[tokio::test]
async fn a_trigger_that_the_user_is_not_shown_alters_nothing_unseen() -> anyhow::Result<()> {
    let mut pair = TwoWay::new(&[Kind::Postgres, Kind::Mysql], "unshown", "seed = \"a\"\n").await?;
    let b = &pair.members[1].database;
    alters(b).await?;
    let user = format!("{}_u", b.name);
    let mut connection = b.connect().await?;
    connection.execute("CREATE DATABASE IF NOT EXISTS sync_worker").await?;
    for statement in [
        format!("CREATE USER {user} IDENTIFIED BY 'secret'"),
        format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {}.* TO {user}", b.name),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON sync_worker.* TO {user}"),
    ] {
        connection.execute(&statement).await?;
    }
    pair.settings.databases[1].url = b.url_at(Some(&format!("{user}:secret")), None);
    pair.worker.configure(&pair.settings)?;
    pair.start().await?;
    pair.settle().await?;
    let (mut at_a, mut at_b) = (pair.members[0].accounts().await?, pair.members[1].accounts().await?);
    at_a.insert(&Account { id: 1, writer: "w".to_owned(), a: ALTERED, ..Account::default() }).await?;
    let waits = pair.worker.until("the altered row to be parked", LIMIT, |tasks| {
        tasks.iter().any(|task| task.database == "b" && task.parked == 1)
    });
    waits.await?;
    ensure!(at_b.read(1).await?.is_none(), "it was written");
    at_a.change(1, &Change { a: Some(1), ..Change::default() }).await?;
    pair.equal().await?;
    pair.finish().await?;
    connection.execute(&format!("DROP USER {user}")).await
}
