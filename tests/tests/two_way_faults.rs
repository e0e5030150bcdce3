//! What stops a table or a key of a two-way pipeline, and nothing else (invariant 10).

use anyhow::{Context, ensure};
use mongodb::bson::{Document, doc};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use sync_worker_engine::status::{Task, TaskStatus};
use sync_worker_tests::connection::Connection;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::two_way::{TwoWay, is_conflict};
use sync_worker_tests::wait;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_table_truncated_at_mysql_is_paused_until_a_person_says_so() -> anyhow::Result<()> {
    a_truncated_table_is_paused(&[Kind::Postgres, Kind::Mysql]).await
}

#[tokio::test]
async fn a_table_truncated_at_postgres_is_paused_until_a_person_says_so() -> anyhow::Result<()> {
    a_truncated_table_is_paused(&[Kind::Mysql, Kind::Postgres]).await
}

/// At every applier.
async fn paused(pair: &TwoWay) -> anyhow::Result<()> {
    let members = pair.members.len();
    let is_paused =
        |task: &TaskStatus| task.task == Task::Apply && task.paused.iter().any(|paused| paused.table == "second");
    let paused = pair
        .worker
        .until("the table to be paused", SOON, |tasks| tasks.iter().filter(|task| is_paused(task)).count() == members);
    paused.await.map(drop)
}

async fn a_truncated_table_is_paused(kinds: &[Kind]) -> anyhow::Result<()> {
    let tables = ["account", "second"].map(|table| (table.to_owned(), String::new()));
    let mut pair = TwoWay::with(kinds, "truncated", "seed = \"a\"\n", &tables).await?;
    for table in ["account", "second"] {
        let rows = format!("INSERT INTO {table} VALUES (1, '', 0, 0, 0), (2, '', 0, 0, 0)");
        pair.members[0].database.execute(&rows).await?;
    }
    pair.start().await?;
    pair.settle().await?;
    pair.members[1].database.execute("TRUNCATE TABLE second").await?;
    paused(&pair).await?;
    // The other table goes on, and nothing of this one.
    pair.members[0].database.execute("INSERT INTO second VALUES (3, 'meanwhile', 0, 0, 0)").await?;
    pair.members[1].database.execute("UPDATE account SET a = 1 WHERE id = 2").await?;
    pair.settle().await?;
    ensure!(pair.members[0].database.number("SELECT a FROM account WHERE id = 2").await? == 1, "it has arrived");
    ensure!(pair.members[1].database.number("SELECT count(*) FROM second").await? == 0, "nothing came back");
    ensure!(pair.members[0].database.number("SELECT count(*) FROM second").await? == 3, "nothing went");
    pair.worker.kill().await?;
    pair.worker.start()?;
    paused(&pair).await?;
    let status = pair.worker.expect(1, &["status"]).await?;
    ensure!(status.contains("table second is paused") && status.contains("truncated at b"), "{status}");
    let unnamed = pair.worker.expect(1, &["verify", "shared", "--repair"]).await?;
    ensure!(unnamed.contains("--from"), "{unnamed}");

    pair.worker.expect(0, &["resume", "shared", "second"]).await?;
    pair.worker.expect(0, &["verify", "shared", "--repair", "--from", "a", "--patience", "2"]).await?;
    pair.equal().await?;
    ensure!(pair.members[1].database.number("SELECT count(*) FROM second").await? == 3, "all rows are back");
    // What only others have goes, too.
    pair.members[1].database.execute("TRUNCATE TABLE second").await?;
    paused(&pair).await?;
    pair.worker.expect(0, &["resume", "shared", "second"]).await?;
    pair.worker.expect(0, &["verify", "shared", "--repair", "--from", "b", "--patience", "2"]).await?;
    pair.equal().await?;
    ensure!(pair.members[0].database.number("SELECT count(*) FROM second").await? == 0, "all rows are gone");
    pair.members[1].database.execute("INSERT INTO second VALUES (9, 'new', 0, 0, 0)").await?;
    pair.finish().await
}

/// Documents are of any shape: one that has no place in a table must not stop what does.
#[tokio::test]
async fn a_document_without_a_place_is_on_record_and_holds_up_nothing() -> anyhow::Result<()> {
    for kind in [Kind::Postgres, Kind::Mysql] {
        let mut pair = TwoWay::new(&[kind, Kind::Mongodb], "unfit", "seed = \"a\"\n").await?;
        let rows = "INSERT INTO account VALUES (1, '', 0, 0, 0), (2, '', 0, 0, 0), (3, '', 0, 0, 0)";
        pair.members[0].database.execute(rows).await?;
        pair.start().await?;
        pair.settle().await?;
        let Connection::Mongodb(documents) = pair.members[1].database.connect().await? else {
            anyhow::bail!("the second member has documents")
        };
        let accounts = documents.collection::<Document>("account");
        let fits = |id: i64| doc! { "_id": id, "writer": "fits", "a": 1, "b": 1, "counter": 1i64 };
        for id in [1i64, 2, 3] {
            accounts.update_one(doc! { "_id": id }, doc! { "$set": { "a": "text" } }).await?;
        }
        accounts.insert_one(doc! { "_id": 4i64, "writer": "w", "a": "text", "b": 0, "counter": 0i64 }).await?;
        accounts.insert_one(doc! { "_id": "no number", "writer": "w", "a": 0, "b": 0, "counter": 0i64 }).await?;
        accounts.insert_one(fits(5)).await?;
        pair.settle().await?;
        let ids = async |pair: &TwoWay| {
            let rows = pair.members[0].database.connect().await?.rows("SELECT id, a FROM account ORDER BY id").await?;
            let line = |row: Vec<Option<String>>| row.into_iter().flatten().collect::<Vec<_>>().join(" ");
            anyhow::Ok(rows.into_iter().map(line).collect::<Vec<_>>())
        };
        ensure!(ids(&pair).await? == ["1 0", "2 0", "3 0", "5 1"], "{:?}", ids(&pair).await?);
        let unfit: Vec<_> =
            pair.conflicts().await?.into_iter().filter(|conflict| conflict["kind"] == "constraint").collect();
        ensure!(unfit.len() == 5 && unfit.iter().all(|one| one["open"] == true), "{unfit:#?}");

        // One is mended, one is overwritten by the other member, one is deleted.
        accounts.replace_one(doc! { "_id": 1i64 }, fits(1)).await?;
        pair.members[0].database.execute("UPDATE account SET b = 9 WHERE id = 2").await?;
        accounts.delete_one(doc! { "_id": 3i64 }).await?;
        accounts.delete_one(doc! { "_id": 4i64 }).await?;
        accounts.delete_one(doc! { "_id": "no number" }).await?;
        pair.equal().await?;
        ensure!(ids(&pair).await? == ["1 1", "2 0", "5 1"], "{:?}", ids(&pair).await?);
        for conflict in &unfit {
            let id = conflict["id"].to_string();
            let refused = pair.worker.expect(1, &["conflicts", "decide", &id, "--loser"]).await?;
            ensure!(refused.contains("has no place"), "{refused}");
            pair.worker.expect(0, &["conflicts", "decide", &id, "--winner"]).await?;
        }
        let listed = pair.worker.expect(0, &["conflicts", "list"]).await?;
        let line = listed.lines().find(|line| line.contains("constraint")).context("the entries stay")?;
        ensure!(line.contains("has no place at others, closed by person"), "{line}");
        pair.finish().await?;
    }
    Ok(())
}

/// A foreign key's action that fired for what the worker writes would be hidden by the echo. One that fires for what an
/// application writes is a change like any other.
#[tokio::test]
async fn an_action_takes_no_fresh_child_with_it() -> anyhow::Result<()> {
    for kinds in [[Kind::Postgres, Kind::Mysql], [Kind::Mysql, Kind::Postgres]] {
        let tables = ["second", "account"].map(|table| (table.to_owned(), String::new()));
        let mut pair = TwoWay::with(&kinds, "actions", "seed = \"a\"\n", &tables).await?;
        for member in &pair.members {
            let key = "ALTER TABLE account ADD CONSTRAINT parent FOREIGN KEY (counter) REFERENCES second (id) ON DELETE CASCADE";
            member.database.execute(key).await?;
        }
        let a = &pair.members[0].database;
        a.execute("INSERT INTO second VALUES (1, '', 0, 0, 0), (2, '', 0, 0, 0)").await?;
        a.execute("INSERT INTO account VALUES (20, '', 0, 0, 2)").await?;
        pair.start().await?;
        pair.settle().await?;
        pair.worker.pause(true).await?;
        let [a, b] = [0, 1].map(|at| &pair.members[at].database);
        a.execute("DELETE FROM second WHERE id = 1").await?;
        b.execute("INSERT INTO account VALUES (10, 'fresh', 0, 0, 1)").await?;
        b.execute("DELETE FROM second WHERE id = 2").await?;
        pair.worker.pause(false).await?;
        pair.equal().await?;
        for member in &pair.members {
            let member = &member.database;
            ensure!(member.number("SELECT count(*) FROM account WHERE id = 10").await? == 1, "the fresh child stays");
            ensure!(member.number("SELECT count(*) FROM account WHERE id = 20").await? == 0, "the other one went");
            ensure!(member.number("SELECT count(*) FROM second").await? == 0, "the parents are gone");
        }
        pair.finish().await?;
    }
    Ok(())
}

/// Jobs at two members that undo each other's writes, as fast as the worker carries them, until the key stands still.
#[tokio::test]
async fn a_key_that_goes_back_and_forth_stands_still_until_a_person_decides() -> anyhow::Result<()> {
    let mut pair = TwoWay::new(&[Kind::Postgres, Kind::Mysql], "flips", "seed = \"a\"\n").await?;
    pair.members[0].database.execute("INSERT INTO account VALUES (1, '', 1, 0, 0), (2, '', 1, 0, 0)").await?;
    pair.start().await?;
    pair.settle().await?;
    let (stop, mut jobs) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for (member, from, to) in [(0, 1, 2), (1, 2, 1)] {
        let (mut connection, stop) = (pair.members[member].database.connect().await?, stop.clone());
        jobs.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let undo = format!("UPDATE account SET a = {to} WHERE id = 1 AND a = {from}");
                if let Err(error) = connection.execute(&undo).await {
                    ensure!(is_conflict(&error), "{error:#}");
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        });
    }
    let found = wait::until("the key to stand still", SOON, async || {
        let conflicts = pair.conflicts().await?;
        Ok(conflicts.into_iter().find(|conflict| conflict["kind"] == "flip_flop"))
    });
    let found = found.await?;
    ensure!(found["open"] == true && found["key"]["id"] == 1, "{found:#}");
    // Other keys go on, and after a kill it still stands still.
    pair.members[1].database.execute("UPDATE account SET a = 7 WHERE id = 2").await?;
    pair.settle().await?;
    pair.worker.kill().await?;
    pair.worker.start()?;
    pair.settle().await?;
    stop.store(true, Ordering::Relaxed);
    while let Some(job) = jobs.join_next().await {
        job??;
    }
    pair.members[0].database.execute("UPDATE account SET b = 5 WHERE id = 1").await?;
    pair.settle().await?;
    ensure!(
        pair.members[1].database.number("SELECT b FROM account WHERE id = 1").await? == 0,
        "nothing is taken of it"
    );
    pair.worker.expect(0, &["conflicts", "decide", &found["id"].to_string(), "--winner"]).await?;
    pair.equal().await?;
    pair.members[1].database.execute("UPDATE account SET b = 6 WHERE id = 1").await?;
    pair.settle().await?;
    ensure!(pair.members[0].database.number("SELECT b FROM account WHERE id = 1").await? == 6, "it goes on");
    let again = pair.conflicts().await?.iter().filter(|conflict| conflict["kind"] == "flip_flop").count();
    ensure!(again == 1, "{again} times");
    pair.finish().await
}
