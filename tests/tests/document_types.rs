//! Every type at its edges between MongoDB and the relational databases: by snapshot, by insert and by update alike.

#[path = "document_types/columns.rs"]
mod columns;
#[path = "document_types/fields.rs"]
mod fields;

use columns::columns;
use fields::{held, refused};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};
use std::time::Duration;
use sync_worker_engine::status::{Task, TaskStatus};
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::scenario::{Preparation, Scenario, make};

const LIMIT: Duration = Duration::from_secs(120);

/// Where the rows of each way begin: copied, inserted, and updated where there was NULL.
const WAYS: [i64; 3] = [0, 1_000, 2_000];

fn to_documents(from: Kind) -> Direction {
    Direction { from, to: Kind::Mongodb }
}

fn from_documents(to: Kind) -> Direction {
    Direction { from: Kind::Mongodb, to }
}

async fn until_parked(scenario: &Scenario, keys: u64) -> anyhow::Result<()> {
    let is = |task: &TaskStatus| task.task == Task::Apply && task.parked == keys;
    scenario.worker.until(&format!("{keys} parked keys"), LIMIT, |tasks| tasks.iter().any(is)).await.map(drop)
}

/// A row for each value: the number of its column and the value.
async fn columns_become_fields(from: Kind) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(to_documents(from), "fields").await?;
    let columns = columns(from);
    let list: Vec<String> = columns.iter().enumerate().map(|(at, (kind, _))| format!("c{at} {kind} NULL")).collect();
    let prelude = from.pick("CREATE TYPE mood AS ENUM ('sad', 'ok'); ", "");
    let create = format!("{prelude}CREATE TABLE typed (id int PRIMARY KEY, {})", list.join(", "));
    make(&preparation.source, "typed", &create).await?;
    make(&preparation.target, "typed", "").await?;
    preparation.mapped("typed", "");
    let values: Vec<(usize, &str, Bson)> = columns
        .iter()
        .enumerate()
        .flat_map(|(at, (_, values))| values.iter().map(move |(literal, field)| (at, *literal, field.clone())))
        .collect();
    let zone = from.pick("SET TimeZone = 'UTC'", "SET time_zone = '+00:00'");
    let statements = |way: i64, update: bool| {
        let one = |(row, (at, literal, _)): (usize, &(usize, &str, Bson))| {
            let id = way + i64::try_from(row).unwrap_or_default();
            match update {
                true => format!("UPDATE typed SET c{at} = {literal} WHERE id = {id}"),
                false => format!("INSERT INTO typed (id, c{at}) VALUES ({id}, {literal})"),
            }
        };
        let all: Vec<String> = values.iter().enumerate().map(one).collect();
        format!("{zone}; {}", all.join("; "))
    };
    let bare = |way: i64| {
        let ids: Vec<String> = (way..).take(values.len()).map(|id| format!("({id})")).collect();
        format!("INSERT INTO typed (id) VALUES {}", ids.join(", "))
    };
    preparation.source.execute(&statements(WAYS[0], false)).await?;
    preparation.source.execute(&bare(WAYS[2])).await?;
    let scenario = preparation.streaming().await?;
    scenario.source.execute(&statements(WAYS[1], false)).await?;
    scenario.source.execute(&statements(WAYS[2], true)).await?;
    scenario.settle().await?;
    let typed = scenario.target.documents().await?.collection::<Document>("typed");
    for way in WAYS {
        for (row, (at, literal, field)) in (way..).zip(&values) {
            let found = typed.find_one(doc! { "_id": row }).await?.unwrap_or_default();
            let (kind, name) = (columns[*at].0, format!("c{at}"));
            let place = format!("{from} {kind} {literal}, row {row}");
            assert_eq!(found.len(), columns.len() + 1, "{place}: {found:?}");
            // As text: NaN is not equal to itself.
            assert_eq!(format!("{:?}", found.get(&name)), format!("{:?}", Some(field)), "{place}");
            let others = found.iter().filter(|(other, _)| *other != &name && *other != "_id");
            assert!(others.into_iter().all(|(_, value)| *value == Bson::Null), "{place}: {found:?}");
        }
    }
    scenario.worker.expect(0, &["verify"]).await?;
    scenario.finish().await
}

#[tokio::test]
async fn postgres_columns_become_fields() -> anyhow::Result<()> {
    columns_become_fields(Kind::Postgres).await
}

#[tokio::test]
async fn mysql_columns_become_fields() -> anyhow::Result<()> {
    columns_become_fields(Kind::Mysql).await
}

fn typed(columns: impl IntoIterator<Item = &'static str>) -> String {
    let list: Vec<String> = columns.into_iter().enumerate().map(|(at, kind)| format!("c{at} {kind} NULL")).collect();
    format!("CREATE TABLE typed (id int PRIMARY KEY, {})", list.join(", "))
}

async fn fields_become_columns(to: Kind) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(from_documents(to), "columns").await?;
    let values = held(to);
    make(&preparation.source, "typed", "").await?;
    make(&preparation.target, "typed", &typed(values.iter().map(|(kind, _, _)| *kind))).await?;
    preparation.mapped("typed", "");
    let rows = preparation.source.documents().await?.collection::<Document>("typed");
    let document = |way: i64, at: usize, field: &Bson| {
        doc! { "_id": way + i64::try_from(at).unwrap_or_default(), format!("c{at}"): field.clone() }
    };
    for (at, (_, field, _)) in values.iter().enumerate() {
        rows.insert_one(document(WAYS[0], at, field)).await?;
        // A field that is not there is NULL.
        rows.insert_one(doc! { "_id": WAYS[2] + i64::try_from(at)? }).await?;
    }
    let scenario = preparation.streaming().await?;
    for (at, (_, field, _)) in values.iter().enumerate() {
        rows.insert_one(document(WAYS[1], at, field)).await?;
        let set = doc! { "$set": { format!("c{at}"): field.clone() } };
        rows.update_one(doc! { "_id": WAYS[2] + i64::try_from(at)? }, set).await?;
    }
    scenario.settle().await?;
    let mut target = scenario.target.connect().await?;
    target.execute(to.pick("SET TimeZone = 'UTC'", "SET time_zone = '+00:00'")).await?;
    for way in WAYS {
        for (at, (kind, field, shown)) in values.iter().enumerate() {
            let id = way + i64::try_from(at)?;
            let column = match to {
                Kind::Mysql if kind.starts_with("varbinary") || kind.starts_with("binary") => {
                    format!("LOWER(HEX(c{at}))")
                }
                Kind::Mysql if kind.starts_with("bit") => format!("BIN(c{at})"),
                Kind::Mysql => format!("CAST(c{at} AS char)"),
                Kind::Postgres | Kind::Mongodb => format!("c{at}::text"),
            };
            let found = target.value(&format!("SELECT {column} FROM typed WHERE id = {id}")).await?;
            assert_eq!(found.as_deref(), *shown, "{field:?} as {kind} in {to}, row {id}");
        }
    }
    scenario.worker.expect(0, &["verify"]).await?;
    scenario.finish().await
}

#[tokio::test]
async fn fields_become_columns_of_postgres() -> anyhow::Result<()> {
    fields_become_columns(Kind::Postgres).await
}

#[tokio::test]
async fn fields_become_columns_of_mysql() -> anyhow::Result<()> {
    fields_become_columns(Kind::Mysql).await
}

/// What a column can't hold concerns its row alone, is told by its type, and goes when the document is mended.
async fn values_that_do_not_fit_are_refused(to: Kind) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(from_documents(to), "refused").await?;
    let values = refused(to);
    make(&preparation.source, "typed", "").await?;
    make(&preparation.target, "typed", &typed(values.iter().map(|(kind, _)| *kind))).await?;
    preparation.mapped("typed", "");
    let rows = preparation.source.documents().await?.collection::<Document>("typed");
    let half = values.len() / 2;
    let insert = async |at: usize, field: &Bson| {
        rows.insert_one(doc! { "_id": i64::try_from(at)?, format!("c{at}"): field.clone() }).await?;
        anyhow::Ok(())
    };
    for (at, (_, field)) in values.iter().enumerate().take(half) {
        insert(at, field).await?;
    }
    let scenario = preparation.streaming().await?;
    for (at, (_, field)) in values.iter().enumerate().skip(half) {
        insert(at, field).await?;
    }
    scenario.settle().await?;
    let left = scenario.target.connect().await?.rows("SELECT id FROM typed").await?;
    let taken = |row: &Vec<Option<String>>| {
        let at: usize = row.first()?.as_deref()?.parse().ok()?;
        values.get(at).map(|(kind, field)| format!("{field:?} as {kind}"))
    };
    assert_eq!(left.iter().filter_map(taken).collect::<Vec<_>>(), Vec::<String>::new(), "in {to}");
    until_parked(&scenario, values.len() as u64).await?;
    scenario.worker.expect(1, &["verify", "--patience", "0"]).await?;
    rows.update_many(doc! {}, vec![doc! { "$replaceWith": { "_id": "$_id" } }]).await?;
    scenario.settle().await?;
    until_parked(&scenario, 0).await?;
    scenario.worker.expect(0, &["verify"]).await?;
    scenario.finish().await
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_by_postgres() -> anyhow::Result<()> {
    values_that_do_not_fit_are_refused(Kind::Postgres).await
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_by_mysql() -> anyhow::Result<()> {
    values_that_do_not_fit_are_refused(Kind::Mysql).await
}

/// Keys of several types in one collection, more of them than a comparison reads at a time.
async fn ids_of_many_types_become_one_text_key(to: Kind) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(from_documents(to), "ids").await?;
    make(&preparation.source, "named", "").await?;
    let name = to.pick("text", "varchar(255) character set utf8mb4 collate utf8mb4_0900_bin");
    make(&preparation.target, "named", &format!("CREATE TABLE named (name {name} PRIMARY KEY, n int)")).await?;
    preparation.mapped("named", "");
    let rows = preparation.source.documents().await?.collection::<Document>("named");
    let mut documents: Vec<Document> = (0..2_500).map(|n| doc! { "_id": ObjectId::new(), "n": n }).collect();
    documents.extend((0..100).map(|n| doc! { "_id": format!("name {n}"), "n": n }));
    let uuid = |n: u8| Binary { subtype: BinarySubtype::Uuid, bytes: vec![n; 16] };
    documents.extend((0..100).map(|n| doc! { "_id": uuid(n), "n": i32::from(n) }));
    rows.insert_many(&documents).await?;
    let scenario = preparation.streaming().await?;
    let equal = scenario.worker.expect(0, &["verify"]).await?;
    assert!(equal.contains("2700 rows"), "{equal}");
    rows.update_many(doc! { "n": { "$lt": 50 } }, doc! { "$inc": { "n": 1_000_000 } }).await?;
    rows.delete_many(doc! { "n": { "$gt": 2_400, "$lt": 2_500 } }).await?;
    scenario.settle().await?;
    scenario.worker.expect(0, &["verify"]).await?;
    // What no key can hold is a difference, and a repair does not mend it.
    rows.insert_many([doc! { "_id": { "a": 1 }, "n": 1 }, doc! { "_id": 1.5, "n": 2 }]).await?;
    until_parked(&scenario, 2).await?;
    let found = scenario.worker.expect(1, &["verify", "--patience", "0"]).await?;
    assert!(found.contains("2 keys differ"), "{found}");
    // A row that was tampered with is found and repaired, whatever its key was in the collection.
    scenario.target.execute("UPDATE named SET n = -1 WHERE n = 1500; DELETE FROM named WHERE n = 1501").await?;
    rows.delete_many(
        doc! { "n": { "$in": [1, 2] }, "_id": { "$not": { "$type": ["objectId", "string", "binData"] } } },
    )
    .await?;
    scenario.settle().await?;
    until_parked(&scenario, 0).await?;
    scenario.worker.expect(0, &["verify", "--repair", "--patience", "2"]).await?;
    scenario.worker.expect(0, &["verify"]).await?;
    scenario.finish().await
}

#[tokio::test]
async fn ids_of_many_types_become_one_text_key_of_postgres() -> anyhow::Result<()> {
    ids_of_many_types_become_one_text_key(Kind::Postgres).await
}

#[tokio::test]
async fn ids_of_many_types_become_one_text_key_of_mysql() -> anyhow::Result<()> {
    ids_of_many_types_become_one_text_key(Kind::Mysql).await
}

/// A parked key that is no document of the key's columns is the same after a restart.
#[tokio::test]
async fn a_parked_key_that_does_not_fit_outlives_a_restart() -> anyhow::Result<()> {
    let mut preparation = Preparation::new(from_documents(Kind::Postgres), "misfit").await?;
    make(&preparation.source, "pair", "").await?;
    let create = "CREATE TABLE pair (a int, b text, n int, PRIMARY KEY (a, b))";
    make(&preparation.target, "pair", create).await?;
    preparation.mapped("pair", "");
    let rows = preparation.source.documents().await?.collection::<Document>("pair");
    rows.insert_many([doc! { "_id": { "a": 1, "b": "x" }, "n": 1 }, doc! { "_id": { "b": "x", "a": 1 }, "n": 2 }])
        .await?;
    let mut scenario = preparation.streaming().await?;
    rows.insert_one(doc! { "_id": 7, "n": 3 }).await?;
    scenario.settle().await?;
    until_parked(&scenario, 2).await?;
    scenario.worker.kill().await?;
    scenario.worker.start()?;
    scenario.settle().await?;
    until_parked(&scenario, 2).await?;
    assert_eq!(scenario.target.number("SELECT count(*) FROM sync_worker.parked").await?, 2);
    let found = scenario.worker.expect(1, &["verify", "--patience", "0"]).await?;
    assert!(found.contains("2 keys differ"), "{found}");
    rows.delete_many(doc! { "n": { "$gt": 1 } }).await?;
    scenario.settle().await?;
    until_parked(&scenario, 0).await?;
    assert_eq!(scenario.target.number("SELECT count(*) FROM sync_worker.parked").await?, 0);
    scenario.worker.expect(0, &["verify"]).await?;
    scenario.finish().await
}

/// The key as fields beside `_id`, and microseconds as text.
async fn the_mapping_of_a_target_is_followed(from: Kind) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(to_documents(from), "mapped").await?;
    let time = from.pick("timestamptz", "datetime(6)");
    let create = format!("CREATE TABLE seen (a int, b {time}, c {time}, n int, PRIMARY KEY (a, b))");
    make(&preparation.source, "seen", &create).await?;
    make(&preparation.target, "seen", "").await?;
    preparation.mapped("seen", "keep_key_columns = true, times = \"text\"");
    let zone = from.pick("SET TimeZone = 'UTC'", "SET time_zone = '+00:00'");
    let row = |a: i32| format!("({a}, '2024-02-29 23:59:59.000001', '2024-01-01 00:00:00', 1)");
    preparation.source.execute(&format!("{zone}; INSERT INTO seen VALUES {}", row(1))).await?;
    let scenario = preparation.streaming().await?;
    scenario.source.execute(&format!("{zone}; INSERT INTO seen VALUES {}", row(2))).await?;
    scenario.source.execute("UPDATE seen SET n = 2").await?;
    scenario.settle().await?;
    let seen = scenario.target.documents().await?.collection::<Document>("seen");
    let z = from.pick("Z", "");
    for a in [1, 2] {
        let key = doc! { "a": a, "b": format!("2024-02-29T23:59:59.000001{z}") };
        let found = seen.find_one(doc! { "_id": key.clone() }).await?.unwrap_or_default();
        let mut expected = doc! { "_id": key.clone() };
        expected.extend(key);
        expected.extend(doc! { "c": format!("2024-01-01T00:00:00.000000{z}"), "n": 2 });
        assert_eq!(found, expected, "{from}");
    }
    scenario.worker.expect(0, &["verify"]).await?;
    scenario.source.execute("DELETE FROM seen WHERE a = 1").await?;
    scenario.settle().await?;
    assert_eq!(seen.count_documents(doc! {}).await?, 1);
    scenario.worker.expect(0, &["verify"]).await?;
    scenario.finish().await
}

#[tokio::test]
async fn the_mapping_of_a_target_of_postgres_is_followed() -> anyhow::Result<()> {
    the_mapping_of_a_target_is_followed(Kind::Postgres).await
}

#[tokio::test]
async fn the_mapping_of_a_target_of_mysql_is_followed() -> anyhow::Result<()> {
    the_mapping_of_a_target_is_followed(Kind::Mysql).await
}

/// The fields without a column: in a JSON column, and refused beforehand where the column is none.
#[tokio::test]
async fn other_fields_go_into_a_json_column() -> anyhow::Result<()> {
    let mut preparation = Preparation::new(from_documents(Kind::Postgres), "rest").await?;
    make(&preparation.source, "event", "").await?;
    make(&preparation.target, "event", "CREATE TABLE event (id int PRIMARY KEY, n int NOT NULL, rest text)").await?;
    preparation.mapped("event", "other_fields = \"column:rest\"");
    let rows = preparation.source.documents().await?.collection::<Document>("event");
    let mut scenario = preparation.scenario()?;
    let found = scenario.worker.expect(1, &["check"]).await?;
    for part in ["event column rest", "it is text, not JSON", "event column n", "becomes NULL"] {
        assert!(found.contains(part), "{part} is not in {found}");
    }
    scenario.target.execute("ALTER TABLE event ALTER rest TYPE jsonb USING NULL").await?;
    rows.insert_one(doc! { "_id": 1, "n": 1, "a": { "b": 1.5 }, "rest": "own" }).await?;
    scenario.worker.start()?;
    scenario.worker.until_streaming(LIMIT).await?;
    rows.insert_one(doc! { "_id": 2, "n": 1 }).await?;
    scenario.settle().await?;
    let mut target = scenario.target.connect().await?;
    let rest = target.rows("SELECT rest::text FROM event ORDER BY id").await?;
    let rest: Vec<Option<&str>> = rest.iter().map(|row| row[0].as_deref()).collect();
    assert_eq!(rest, [Some(r#"{"a": {"b": 1.5}, "rest": "own"}"#), Some("{}")]);
    scenario.worker.expect(0, &["verify"]).await?;
    scenario.finish().await
}
