//! Keys that the members take for the same and write differently.

use anyhow::{Context, ensure};
use mongodb::bson::{Decimal128, Document, doc};
use serde_json::Value;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::two_way::TwoWay;

members! { a_number_is_one_key_however_it_is_written:
    postgres_and_postgres of Postgres Postgres,
    postgres_and_mysql of Postgres Mysql,
}

/// `1`, `1.0` and `1.0000000000`: whatever both members do to such a row at the same time is one conflict, on record, and both
/// end with the same row.
async fn a_number_is_one_key_however_it_is_written(kinds: &[Kind]) -> anyhow::Result<()> {
    let table = [("account".to_owned(), "lossy = [\"id\"]\n".to_owned())];
    let mut pair = TwoWay::with(kinds, "spelled", "seed = \"none\"\n", &table).await?;
    for member in &pair.members {
        let decimal = match member.database.kind {
            Kind::Mysql => "ALTER TABLE account MODIFY id decimal(30, 10) NOT NULL",
            _ => "ALTER TABLE account ALTER COLUMN id TYPE numeric",
        };
        member.database.execute(decimal).await?;
    }
    pair.start().await?;
    let writes: [fn(i64, &str, &str) -> String; 3] = [
        |id, point, name| {
            format!("INSERT INTO account (id, writer, a, b, counter) VALUES ({id}{point}, '{name}', 0, 0, 0)")
        },
        |id, point, name| format!("UPDATE account SET writer = 'changed by {name}' WHERE id = {id}{point}"),
        |id, _, name| match (name, id % 2) {
            ("b", 0) => format!("DELETE FROM account WHERE id = {id}"),
            _ => format!("UPDATE account SET writer = 'last of {name}' WHERE id = {id}"),
        },
    ];
    for write in writes {
        let (at_a, at_b) = (pair.members[0].database.connect().await?, pair.members[1].database.connect().await?);
        let all = async |mut connection: sync_worker_tests::connection::Connection, point: &str, name: &str| {
            for id in 1..=10 {
                connection.execute(&write(id, point, name)).await?;
            }
            anyhow::Ok(())
        };
        // Neither member has seen the other's rows, so all of them are conflicts.
        pair.worker.pause(true).await?;
        futures::try_join!(all(at_a, "", "a"), all(at_b, ".0", "b"))?;
        pair.worker.pause(false).await?;
        pair.equal().await?;
        pair.worker.expect(0, &["verify"]).await?;
    }
    let conflicts = pair.conflicts().await?;
    pair.none_drifted(&conflicts).await?;
    let keys: Vec<&Value> = conflicts.iter().map(|conflict| &conflict["key"]["id"]).collect();
    ensure!(!keys.is_empty() && keys.iter().all(|key| !key.to_string().contains('.')), "{keys:?}");
    pair.finish().await
}

/// The server finds `1.50` by `1.5`, and so do we.
#[tokio::test]
async fn a_decimal_is_one_key_of_documents() -> anyhow::Result<()> {
    let table = [("account".to_owned(), "lossy = [\"id\"]\n".to_owned())];
    let mut pair = TwoWay::with(&[Kind::Postgres, Kind::Mongodb], "decimal", "seed = \"none\"\n", &table).await?;
    pair.members[0].database.execute("ALTER TABLE account ALTER COLUMN id TYPE numeric").await?;
    pair.start().await?;
    let documents = pair.members[1].database.documents().await?.collection::<Document>("account");
    let id = |text: &str| -> anyhow::Result<_> { Ok(doc! { "_id": text.parse::<Decimal128>()? }) };
    let mut theirs = id("1.50")?;
    theirs.extend(doc! { "writer": "b", "a": 0, "b": 0, "counter": 0_i64 });
    documents.insert_one(theirs).await?;
    pair.members[0].database.execute("INSERT INTO account VALUES (2.50, 'a', 0, 0, 0)").await?;
    pair.settle().await?;
    pair.members[0].database.execute("UPDATE account SET writer = 'a again' WHERE id = 1.5").await?;
    documents.update_one(id("2.500")?, doc! { "$set": { "writer": "b again" } }).await?;
    pair.settle().await?;
    pair.worker.expect(0, &["verify"]).await?;
    let writer = async |text| {
        anyhow::Ok(documents.find_one(id(text)?).await?.context("a document")?.get_str("writer")?.to_owned())
    };
    ensure!((writer("1.5").await?, writer("2.5").await?) == ("a again".to_owned(), "b again".to_owned()));
    let rows = "SELECT count(*) FROM account WHERE (id, writer) IN ((1.5, 'a again'), (2.5, 'b again'))";
    ensure!(pair.members[0].database.number(rows).await? == 2);
    ensure!(documents.count_documents(doc! {}).await? == 2 && pair.conflicts().await?.is_empty());
    documents.delete_one(id("2.5")?).await?;
    pair.members[0].database.execute("DELETE FROM account WHERE id = 1.5").await?;
    pair.settle().await?;
    ensure!(documents.count_documents(doc! {}).await? == 0);
    pair.finish().await
}

/// Where there is no one form to bring them to.
#[tokio::test]
async fn keys_that_are_not_told_apart_are_refused() -> anyhow::Result<()> {
    let pair = TwoWay::new(&[Kind::Postgres, Kind::Postgres], "untold", "seed = \"none\"\n").await?;
    for member in &pair.members {
        let interval = "ALTER TABLE account ALTER COLUMN id TYPE interval USING make_interval(secs => id)";
        member.database.execute(&format!("CREATE DOMAIN span AS interval; {interval}")).await?;
        member.database.execute("ALTER TABLE account ALTER COLUMN id TYPE span").await?;
    }
    let found = pair.worker.expect(1, &["check"]).await?;
    let problem = "its key column id has values of type interval, of which equal ones can be written differently";
    ensure!(found.matches(problem).count() == 2, "{found}");
    Ok(())
}
