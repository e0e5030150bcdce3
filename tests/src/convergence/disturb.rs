//! What goes wrong meanwhile, drawn at random.

use super::{KEYS, Report, Settings};
use crate::database::Database;
use crate::kind::Kind;
use crate::two_way::{TwoWay, Writers, is_conflict};
use crate::worker::printed;
use ::mongodb::bson::{Document, doc};
use anyhow::ensure;
use rand::Rng;
use rand::rngs::StdRng;
use std::time::Duration;

/// How long a worker is stopped at the most.
const STOPPED: Duration = Duration::from_secs(5);

pub async fn disturb(
    group: &mut TwoWay,
    writers: &Writers,
    settings: &Settings,
    rng: &mut StdRng,
    report: &mut Report,
) -> anyhow::Result<()> {
    let member = rng.random_range(0..group.members.len());
    let while_writing = async |count: u64| writers.until(writers.written() + count).await;
    match rng.random_range(0..9) {
        0 | 1 => {
            group.worker.kill().await?;
            while_writing(rng.random_range(1..200)).await?;
            group.worker.start()?;
            report.kills += 1;
        }
        2 => {
            group.proxies[member].cut();
            report.cuts += 1;
        }
        3 => {
            group.proxies[member].swallow();
            while_writing(rng.random_range(50..300)).await?;
            group.proxies[member].forward();
            // A server holds what a connection that it takes for alive has locked, and a killed worker can't tell it.
            group.proxies[member].cut();
            report.silences += 1;
        }
        4 => {
            group.worker.pause(true).await?;
            // Stopped inside of a transaction, it holds what writers wait for.
            let written = tokio::time::timeout(STOPPED, while_writing(rng.random_range(50..300))).await;
            group.worker.pause(false).await?;
            written.unwrap_or(Ok(()))?;
            report.pauses += 1;
        }
        5 if group.members[member].database.kind != Kind::Mongodb => {
            let database = &group.members[member].database;
            database.execute(refuse(database.kind)).await?;
            while_writing(rng.random_range(100..300)).await?;
            database.execute(database.kind.pick("DROP TRIGGER refuse ON account", "DROP TRIGGER refuse")).await?;
            report.refusals += 1;
        }
        6 => {
            // One that runs, stands still or has just been started: there is one worker on a state folder.
            let output = group.worker.command(&["run"]).await?;
            let said = printed(&output);
            ensure!(!output.status.success() && said.contains("in use by another worker"), "a second worker: {said}");
            report.duplicates += 1;
        }
        7 => {
            group.worker.until_streaming(super::SETTLE).await?;
            let from = group.members[member].name;
            // Rows that are read from one member and written to all others while all are written to. Whether they differ by
            // then is another matter.
            let arguments = ["verify", "shared", "--repair", "--from", from, "--patience", "1"];
            let output = group.worker.command(&arguments).await?;
            ensure!(matches!(output.status.code(), Some(0 | 1)), "a repair: {}", printed(&output));
            report.repairs += 1;
        }
        _ if settings.hidden => {
            let writer = format!("hidden{}", report.hidden);
            let database = &group.members[member].database;
            report.hidden += u32::from(write_hidden(database, rng.random_range(1..=KEYS), &writer).await?);
        }
        _ => {}
    }
    Ok(())
}

/// A trigger that refuses a third of all rows, applications' and ours.
fn refuse(kind: Kind) -> &'static str {
    kind.pick(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.a = 2 THEN RAISE 'refused' \
         USING ERRCODE = '23503'; END IF; RETURN NEW; END $$; CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON account FOR EACH \
         ROW EXECUTE FUNCTION refuse(); ALTER TABLE account ENABLE ALWAYS TRIGGER refuse",
        "CREATE TRIGGER refuse BEFORE UPDATE ON account FOR EACH ROW BEGIN IF NEW.a = 2 THEN SIGNAL SQLSTATE '23000' SET \
         MYSQL_ERRNO = 1452, MESSAGE_TEXT = 'refused'; END IF; END",
    )
}

/// Changes a row so that the member's stream does not show it; false where it was not to be had at the moment.
async fn write_hidden(database: &Database, id: i64, writer: &str) -> anyhow::Result<bool> {
    let update = format!("UPDATE account SET writer = '{writer}', a = a + 10 WHERE id = {id}");
    let done = match database.kind {
        // There every way is noticed: a table that was out of the publication for a moment is a GAP.
        Kind::Postgres => return Ok(false),
        Kind::Mysql => {
            let mut connection = database.connect().await?;
            connection.execute("SET SESSION sql_log_bin = 0").await?;
            connection.execute(&update).await
        }
        Kind::Mongodb => {
            let documents = crate::mongodb::open(&database.url()).await?;
            let Some(mut row) = documents.collection::<Document>("account").find_one(doc! { "_id": id }).await? else {
                return Ok(false);
            };
            row.insert("writer", writer);
            row.insert("a", row.get_i32("a")? + 10);
            documents.run_command(doc! { "writeBehindOplog": "account", "documents": [row] }).await?;
            Ok(())
        }
    };
    match done {
        Ok(()) => Ok(true),
        Err(error) => {
            ensure!(is_conflict(&error), "{error:#}");
            Ok(false)
        }
    }
}
