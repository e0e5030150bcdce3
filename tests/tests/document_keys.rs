//! Documents whose key is fields of their own: `document = { key = ... }`, to and from each kind of table.

use anyhow::{Context, ensure};
use mongodb::Collection;
use mongodb::bson::{Bson, Document, doc};
use std::time::Duration;
use sync_worker_engine::status::Task;
use sync_worker_tests::compare;
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::mongodb::key_by;
use sync_worker_tests::scenario::{Preparation, Scenario};

const LIMIT: Duration = Duration::from_secs(120);

const SINGLE: &str = "CREATE TABLE part (sku varchar(40) PRIMARY KEY, n bigint, name varchar(80))";
const COMPOSITE: &str =
    "CREATE TABLE part (sku varchar(40), region bigint, n bigint, name varchar(80), PRIMARY KEY (region, sku))";

/// The key's fields as the table has it, and its statement.
fn table(composite: bool, kind: Kind) -> (&'static [&'static str], String) {
    let (fields, table): (&[&str], _) = if composite { (&["region", "sku"], COMPOSITE) } else { (&["sku"], SINGLE) };
    let collation = kind.pick("", "COLLATE utf8mb4_0900_bin");
    (fields, table.replace("varchar(40)", &format!("varchar(40) {collation}")))
}

async fn preparation(from: Kind, to: Kind, composite: bool) -> anyhow::Result<(Preparation, Collection<Document>)> {
    let mut preparation = Preparation::new(Direction { from, to }, "keyed").await?;
    let (source, target) = (&preparation.source, &preparation.target);
    let (documents, rows) = if from == Kind::Mongodb { (source, target) } else { (target, source) };
    let (fields, statement) = table(composite, rows.kind);
    rows.execute(&statement).await?;
    let documents = documents.documents().await?;
    let images = doc! { "enabled": true };
    documents.run_command(doc! { "create": "part", "changeStreamPreAndPostImages": images }).await?;
    key_by(&documents, "part", fields).await?;
    preparation.mapped("part", &format!("key = {fields:?}"));
    preparation.pipeline(
        "snapshot_chunk_rows = 300\nretry = { attempts = 100, first_delay = \"200ms\", max_delay = \"200ms\" }",
    );
    Ok((preparation, documents.collection("part")))
}

/// Whole, row by row, by the tests' own compare.
async fn equal(scenario: &Scenario) -> anyhow::Result<usize> {
    scenario.settle().await?;
    compare::equal(&scenario.source, &scenario.target, "part").await
}

async fn until_parked(scenario: &Scenario, count: u64) -> anyhow::Result<()> {
    let what = format!("{count} parked rows");
    let is_apply = |task: &&sync_worker_engine::status::TaskStatus| task.task == Task::Apply;
    let parked = |tasks: &[sync_worker_engine::status::TaskStatus]| tasks.iter().find(is_apply).map(|task| task.parked);
    scenario.worker.until(&what, LIMIT, |tasks| parked(tasks) == Some(count)).await.map(drop)
}

fn part(number: i64, more: Document) -> Document {
    let mut row = doc! { "sku": format!("s{number}"), "region": number % 3, "n": number, "name": "first" };
    row.extend(more);
    row
}

async fn from_documents(to: Kind, composite: bool) -> anyhow::Result<()> {
    let (preparation, rows) = preparation(Kind::Mongodb, to, composite).await?;
    let own = |number: i64| {
        let mut row = part(number, doc! {});
        if !composite {
            row.remove("region");
        }
        row
    };
    rows.insert_many((0..2_000).map(own)).await?;
    let mut scenario = preparation.streaming().await?;
    ensure!(equal(&scenario).await? == 2_000);
    for round in 0..3 {
        let at = |place: i64| doc! { "sku": format!("s{}", round * 100 + place) };
        rows.insert_one(own(5_000 + round)).await?;
        rows.update_many(doc! { "n": { "$lt": 50 } }, doc! { "$inc": { "n": 1_i64 }, "$set": { "name": "later" } })
            .await?;
        rows.delete_one(at(1)).await?;
        // Keys change: to a new one, and hand in hand in one transaction.
        rows.update_one(at(2), doc! { "$set": { "sku": format!("moved{round}") } }).await?;
        let mut session = rows.client().start_session().await?;
        session.start_transaction().await?;
        for (from, to) in [(at(3), doc! { "sku": "between" }), (at(4), at(3)), (doc! { "sku": "between" }, at(4))] {
            rows.update_one(from, doc! { "$set": to }).session(&mut session).await?;
        }
        session.commit_transaction().await?;
        if round == 1 {
            scenario.worker.kill().await?;
            rows.update_one(at(5), doc! { "$set": { "sku": "while it was away" } }).await?;
            rows.delete_one(at(6)).await?;
            scenario.worker.start()?;
        }
        equal(&scenario).await?;
    }
    scenario.worker.expect(0, &["verify"]).await?;
    let change = "UPDATE part SET n = 77 WHERE sku = 's900'; DELETE FROM part WHERE sku = 's901'";
    scenario.target.execute(change).await?;
    scenario.target.execute(&extra(composite)).await?;
    let found = scenario.worker.expect(1, &["verify", "--patience", "0"]).await?;
    ensure!(found.contains("3 keys differ"), "{found}");
    scenario.worker.expect(0, &["verify", "mirror", "--repair", "--patience", "5"]).await?;
    equal(&scenario).await?;
    scenario.finish().await
}

fn extra(composite: bool) -> String {
    let columns = if composite { "sku, region" } else { "sku" };
    format!("INSERT INTO part ({columns}) VALUES ('extra'{})", if composite { ", 1" } else { "" })
}

async fn to_documents(from: Kind, composite: bool) -> anyhow::Result<()> {
    let (preparation, rows) = preparation(from, Kind::Mongodb, composite).await?;
    let numbers = from.pick(
        "SELECT n FROM generate_series(0, 999) n",
        "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 999) SELECT n FROM numbers",
    );
    let (region, value) = if composite { ("region, ", "n % 3, ") } else { ("", "") };
    let sku = from.pick("'s' || n", "CONCAT('s', n)");
    let fill =
        format!("INSERT INTO part (sku, {region}n, name) SELECT {sku}, {value}n, 'first' FROM ({numbers}) numbers");
    preparation.source.execute(&fill).await?;
    // What is there keeps its `_id`, and numbers of another type are the same key.
    let mut there = part(7, doc! { "region": 1.0, "name": "theirs" });
    there.insert("_id", "own");
    rows.insert_one(&there).await?;
    let mut scenario = preparation.streaming().await?;
    ensure!(equal(&scenario).await? == 1_000);
    let kept = async || rows.find_one(doc! { "_id": "own" }).await;
    ensure!(kept().await?.is_some_and(|row| row.get_str("name").is_ok_and(|name| name == "first")));
    let made = rows.find_one(doc! { "sku": "s8" }).await?.context("s8")?;
    for round in 0..3 {
        let name = |number: i64| format!("s{}", round * 100 + number);
        let source = &scenario.source;
        source.execute(&format!("UPDATE part SET n = n + 1, name = 'round {round}' WHERE n < 50")).await?;
        source.execute(&format!("DELETE FROM part WHERE sku = '{}'", name(11))).await?;
        source.execute(&format!("UPDATE part SET sku = 'moved{round}' WHERE sku = '{}'", name(12))).await?;
        let change = |from: &str, to: &str| format!("UPDATE part SET sku = '{to}' WHERE sku = '{from}'");
        let (one, other) = (name(13), name(14));
        let hands = [change(&one, "between"), change(&other, &one), change("between", &other)].join("; ");
        source.execute(&format!("BEGIN; {hands}; COMMIT")).await?;
        if round == 1 {
            scenario.worker.kill().await?;
            scenario.source.execute("DELETE FROM part WHERE sku = 's300'").await?;
            scenario.worker.start()?;
        }
        equal(&scenario).await?;
    }
    let still = rows.find_one(doc! { "sku": "s8" }).await?.context("s8")?;
    ensure!(still.get("_id") == made.get("_id") && matches!(still.get("_id"), Some(Bson::ObjectId(_))));
    ensure!(kept().await?.is_some(), "an _id has changed");
    scenario.worker.expect(0, &["verify"]).await?;
    rows.update_one(doc! { "sku": "s900" }, doc! { "$set": { "n": 77 } }).await?;
    rows.delete_one(doc! { "sku": "s901" }).await?;
    rows.insert_one(part(7_777, doc! {})).await?;
    let found = scenario.worker.expect(1, &["verify", "--patience", "0"]).await?;
    ensure!(found.contains("3 keys differ"), "{found}");
    scenario.worker.expect(0, &["verify", "mirror", "--repair", "--patience", "5"]).await?;
    equal(&scenario).await?;
    scenario.finish().await
}

/// Neither lost nor in the way: what has no key that a row can have waits, and becomes a row when it gets one.
async fn documents_without_a_fit_key(to: Kind) -> anyhow::Result<()> {
    let (preparation, rows) = preparation(Kind::Mongodb, to, false).await?;
    rows.insert_many([
        doc! { "_id": 1, "sku": "a", "n": 1_i64, "name": "x" },
        doc! { "_id": 2, "n": 2_i64, "name": "without" },
        doc! { "_id": 3, "sku": ["b", "c"], "n": 3_i64, "name": "many" },
        doc! { "_id": 4, "sku": { "x": 1 }, "n": 4_i64, "name": "object" },
    ])
    .await?;
    let mut scenario = preparation.streaming().await?;
    until_parked(&scenario, 3).await?;
    rows.insert_one(doc! { "_id": 5, "sku": ["d"], "n": 5_i64 }).await?;
    scenario.settle().await?;
    until_parked(&scenario, 4).await?;
    let letters = scenario.worker.expect(1, &["verify", "--patience", "0"]).await?;
    ensure!(letters.contains("4 keys differ"), "{letters}");
    scenario.worker.kill().await?;
    scenario.worker.start()?;
    // From a key that no row can have to one that it can, and back.
    for (id, sku) in [(2, "two"), (3, "three")] {
        rows.update_one(doc! { "_id": id }, doc! { "$set": { "sku": sku } }).await?;
    }
    rows.delete_one(doc! { "_id": 4 }).await?;
    scenario.settle().await?;
    until_parked(&scenario, 1).await?;
    ensure!(scenario.target.number("SELECT count(*) FROM part WHERE sku IN ('two', 'three')").await? == 2);
    rows.update_one(doc! { "_id": 1 }, doc! { "$set": { "sku": ["a"] } }).await?;
    scenario.settle().await?;
    until_parked(&scenario, 2).await?;
    ensure!(scenario.target.number("SELECT count(*) FROM part WHERE sku = 'a'").await? == 0, "its row has gone");
    rows.update_one(doc! { "_id": 1 }, doc! { "$set": { "sku": "a" } }).await?;
    rows.update_one(doc! { "_id": 5 }, doc! { "$set": { "sku": "d", "name": "d" } }).await?;
    scenario.settle().await?;
    until_parked(&scenario, 0).await?;
    ensure!(equal(&scenario).await? == 4);
    scenario.worker.expect(0, &["verify"]).await?;
    scenario.finish().await
}

/// What it needs is told by its name, with the statement, before anything is read or written.
async fn what_a_key_of_fields_lacks(from: Kind, to: Kind) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(Direction { from, to }, "lacking").await?;
    let rows = if from == Kind::Mongodb { &preparation.target } else { &preparation.source };
    rows.execute(&table(false, rows.kind).1).await?;
    let documents = if from == Kind::Mongodb { &preparation.source } else { &preparation.target };
    documents.documents().await?.create_collection("part").await?;
    preparation.mapped("part", "key = [\"sku\", \"region\"]");
    let scenario = preparation.scenario()?;
    let found = scenario.worker.expect(1, &["check"]).await?;
    ensure!(found.contains("document.key names 2 fields, and its key is (sku)"), "{found}");
    let create = "db.getCollection(\"part\").createIndex({ \"sku\": 1, \"region\": 1 }, { unique: true });";
    ensure!(found.contains(create), "{found}");
    ensure!(found.contains("collMod") == (from == Kind::Mongodb), "{found}");
    Ok(())
}

macro_rules! tests {
    ($($name:ident: $call:expr;)+) => {$(
        #[tokio::test]
        async fn $name() -> anyhow::Result<()> {
            $call.await
        }
    )+};
}

tests! {
    a_field_of_documents_is_the_key_of_postgres: from_documents(Kind::Postgres, false);
    a_field_of_documents_is_the_key_of_mysql: from_documents(Kind::Mysql, false);
    fields_of_documents_are_the_key_of_postgres: from_documents(Kind::Postgres, true);
    fields_of_documents_are_the_key_of_mysql: from_documents(Kind::Mysql, true);
    the_key_of_postgres_is_a_field_of_documents: to_documents(Kind::Postgres, false);
    the_key_of_mysql_is_a_field_of_documents: to_documents(Kind::Mysql, false);
    the_key_of_postgres_is_fields_of_documents: to_documents(Kind::Postgres, true);
    the_key_of_mysql_is_fields_of_documents: to_documents(Kind::Mysql, true);
    documents_without_a_fit_key_wait_for_one_at_postgres: documents_without_a_fit_key(Kind::Postgres);
    documents_without_a_fit_key_wait_for_one_at_mysql: documents_without_a_fit_key(Kind::Mysql);
    what_a_key_of_fields_lacks_at_a_source_is_told: what_a_key_of_fields_lacks(Kind::Mongodb, Kind::Postgres);
    what_a_key_of_fields_lacks_at_a_target_is_told: what_a_key_of_fields_lacks(Kind::Mysql, Kind::Mongodb);
}
