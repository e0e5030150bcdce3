//! Members whose documents have the key in a field, and an `_id` of their own.

use anyhow::{Context, ensure};
use mongodb::bson::{Document, doc};
use std::collections::BTreeMap;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;
use sync_worker_tests::two_way::{Account, Change, Mix, TwoWay};

members! { documents_found_by_a_field_converge:
    postgres_and_mongodb of Postgres Mongodb,
    mysql_and_mongodb of Mysql Mongodb,
    all_three of Postgres Mysql Mongodb,
}

members! { changed_keys_of_fields_travel_both_ways:
    postgres_and_mongodb of Postgres Mongodb,
    mysql_and_mongodb of Mysql Mongodb,
}

fn keyed() -> [(String, String); 1] {
    [("account".to_owned(), "document = { key = \"id\" }\n".to_owned())]
}

/// Writers at all members over few keys, through a kill.
async fn documents_found_by_a_field_converge(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::with(kinds, "keyed", "seed = \"none\"\n", &keyed()).await?;
    pair.start().await?;
    let writers =
        pair.writers(seed()?, Mix { keys: 8, told_apart: true, deletes: true, transactions: false, rate: 200 });
    writers.until(700).await?;
    pair.worker.kill().await?;
    writers.until(900).await?;
    pair.worker.start()?;
    writers.until(1_600).await?;
    writers.stop().await?;
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    ensure!(!conflicts.is_empty(), "no conflict");
    pair.none_drifted(&conflicts).await?;
    pair.finish().await
}

async fn changed_keys_of_fields_travel_both_ways(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::with(kinds, "rekeyed", "seed = \"b\"\n", &keyed()).await?;
    let documents = pair.members[1].database.documents().await?.collection::<Document>("account");
    let mut at_b = pair.members[1].accounts().await?;
    for id in 1..=4 {
        at_b.insert(&Account { id, writer: format!("seeded {id}"), ..Account::default() }).await?;
    }
    pair.start().await?;
    pair.settle().await?;
    let ids = async || -> anyhow::Result<BTreeMap<i64, _>> {
        let mut found = BTreeMap::new();
        for id in 1..=40 {
            if let Some(row) = documents.find_one(doc! { "id": id }).await? {
                found.insert(id, row.get_object_id("_id")?);
            }
        }
        Ok(found)
    };
    let before = ids().await?;
    ensure!(before.len() == 4);
    let mut at_a = pair.members[0].accounts().await?;
    ensure!(at_a.read(1).await?.context("the row of 1")?.writer == "seeded 1");
    // A change of another column leaves the `_id` alone, at both sides.
    at_a.change(1, &Change::by("a")).await?;
    at_b.change(2, &Change::by("b")).await?;
    pair.settle().await?;
    ensure!(ids().await? == before, "an _id has changed");
    // A key that changes is a delete and an insert, at both sides.
    pair.members[0].database.execute("UPDATE account SET id = 30 WHERE id = 3").await?;
    documents.update_one(doc! { "id": 4 }, doc! { "$set": { "id": 40 } }).await?;
    pair.settle().await?;
    let after = ids().await?;
    ensure!(after.keys().eq(&[1, 2, 30, 40]) && after[&40] == before[&4], "{after:?}");
    ensure!(at_a.read(40).await?.context("the row of 40")?.writer == "seeded 4" && at_a.read(4).await?.is_none());
    at_b.delete(30).await?;
    at_a.delete(40).await?;
    pair.settle().await?;
    ensure!(ids().await?.keys().eq(&[1, 2]) && at_a.all().await?.len() == 2);
    ensure!(pair.conflicts().await?.is_empty(), "{:#?}", pair.conflicts().await?);
    pair.finish().await
}
