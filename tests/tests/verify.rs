//! Looking at what is there: `verify`, its repair, `schema`, `check`, `tail`.

use std::time::Duration;
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::scenario::Preparation;
use sync_worker_tests::seed::seed;
use sync_worker_tests::worker::Worker;
use sync_worker_tests::{each_direction, each_of_nine_directions, tables};

each_of_nine_directions![verify_takes_nothing_in_flight_for_a_difference];

each_direction![verify_finds_what_differs_and_repairs_it, schema_prints_what_a_target_lacks];

const LIMIT: Duration = Duration::from_secs(120);

async fn verify_finds_what_differs_and_repairs_it(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "verify").await?;
    preparation.item(12_000).await?;
    let scenario = preparation.streaming().await?;
    let equal = scenario.worker.expect(0, &["verify"]).await?;
    assert!(equal.contains("12000 rows"), "{equal}");
    let before = scenario.target.catalog().await?;
    scenario
        .target
        .execute(
            "UPDATE item SET name = 'tampered' WHERE id = 4321; DELETE FROM item WHERE id IN (1, 12000);
             INSERT INTO item (id, version, name, state) VALUES (999999, 1, 'extra', 1)",
        )
        .await?;
    // Nothing is under way, so the differences stay.
    let found = scenario.worker.expect(1, &["verify", "mirror", "--patience", "1"]).await?;
    for part in ["4 keys differ", "4321", "12000", "999999"] {
        assert!(found.contains(part), "{part} is not in {found}");
    }
    let json = scenario.worker.command(&["verify", "--json", "--patience", "1"]).await?;
    let report: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    let item = report.as_array().and_then(|tables| tables.iter().find(|table| table["table"] == "item"));
    assert_eq!(item.map(|table| table["differing"].as_array().map_or(0, Vec::len)), Some(4), "{report}");
    scenario.worker.expect(0, &["verify", "--repair", "--patience", "2"]).await?;
    assert_eq!(scenario.target.catalog().await?, before);
    scenario.finish().await
}

async fn verify_takes_nothing_in_flight_for_a_difference(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "flight").await?;
    preparation.item(2_000).await?;
    let scenario = preparation.streaming().await?;
    let load = Load::start(&scenario.source.url(), &LoadSettings { rate: Some(1_000), ..LoadSettings::new(seed()?) })?;
    scenario.until_changes(&load, 500).await?;
    for _ in 0..3 {
        scenario.worker.expect(0, &["verify"]).await?;
    }
    load.stop().await?;
    scenario.finish().await
}

async fn schema_prints_what_a_target_lacks(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "schema").await?;
    preparation.source.execute(&tables::item(direction.from)).await?;
    preparation.source.execute(&tables::fill(direction.from, 200)).await?;
    preparation.add("item");
    let mut scenario = preparation.scenario()?;
    let statement = scenario.worker.expect(1, &["schema"]).await?;
    scenario.target.execute(&statement).await?;
    scenario.worker.expect(0, &["schema"]).await?;
    scenario.worker.start()?;
    scenario.worker.until_streaming(LIMIT).await?;
    scenario.equal().await?;
    // A column more at the source.
    let add = "ALTER TABLE item ADD COLUMN colour varchar(20) NOT NULL DEFAULT 'blue'";
    scenario.source.execute(add).await?;
    let statement = scenario.worker.expect(1, &["schema"]).await?;
    assert!(statement.contains("colour") && !statement.contains("version"), "{statement}");
    assert!(statement.contains("`sync-worker verify mirror --repair`"), "{statement}");
    scenario.target.execute(&statement).await?;
    // The rows that are there have the source's default once they are copied again.
    scenario.worker.expect(0, &["verify", "mirror", "--repair", "--patience", "5"]).await?;
    scenario.source.execute("UPDATE item SET colour = 'red' WHERE id = 3").await?;
    scenario.finish().await
}

/// What one of them lacks is the other's.
#[tokio::test]
async fn a_table_of_two_pipelines_is_compared_and_not_repaired() -> anyhow::Result<()> {
    let mut preparation = Preparation::new(Direction { from: Kind::Postgres, to: Kind::Mysql }, "both").await?;
    preparation.item(3).await?;
    let other = sync_worker_tests::database::Database::create(Kind::Postgres, "both").await?;
    other.execute(&tables::item(Kind::Postgres)).await?;
    let mut settings = preparation.settings.clone();
    settings.database("other", Kind::Postgres, &other.url());
    let mut second = settings.pipelines[0].clone();
    (second.name, second.from) = ("second".to_owned(), "other".to_owned());
    second.tables.retain(|table| table.name == "item");
    settings.pipelines.push(second);
    let mut scenario = preparation.streaming().await?;
    scenario.worker.terminate().await?;
    scenario.worker.configure(&settings)?;
    scenario.worker.start()?;
    scenario.worker.until_streaming(LIMIT).await?;
    let told = scenario.worker.expect(1, &["verify", "second", "--repair"]).await?;
    assert!(["second and mirror", "item", "target"].iter().all(|part| told.contains(part)), "{told}");
    scenario.worker.expect(1, &["verify", "second", "--patience", "0"]).await?;
    scenario.finish().await
}

/// More bytes of keys than one request holds.
#[tokio::test]
async fn rows_with_large_keys_are_repaired() -> anyhow::Result<()> {
    let mut preparation = Preparation::new(Direction { from: Kind::Postgres, to: Kind::Mysql }, "large").await?;
    let here = "CREATE TABLE large (id varchar(700) PRIMARY KEY)";
    let there = "CREATE TABLE large (id varchar(700) COLLATE utf8mb4_0900_bin PRIMARY KEY)";
    preparation.table("large", here, there).await?;
    preparation
        .source
        .execute("INSERT INTO large SELECT lpad(number::text, 700, 'x') FROM generate_series(1, 2500) number")
        .await?;
    let scenario = preparation.streaming().await?;
    scenario.target.execute("DELETE FROM large").await?;
    scenario.worker.expect(0, &["verify", "--repair", "--patience", "2"]).await?;
    scenario.finish().await
}

#[tokio::test]
async fn check_finds_nothing_where_all_is_well_and_changes_nothing() -> anyhow::Result<()> {
    for direction in Direction::ALL {
        let mut preparation = Preparation::new(direction, "check").await?;
        preparation.item(10).await?;
        let before = (preparation.source.catalog().await?, preparation.target.catalog().await?);
        let mut worker = Worker::new(&preparation.settings)?;
        worker.quiet();
        worker.expect(0, &["check"]).await?;
        assert_eq!((preparation.source.catalog().await?, preparation.target.catalog().await?), before, "{direction}");
        assert!(!worker.folder().join("state").exists(), "{direction}: check left a state folder");
    }
    Ok(())
}

#[tokio::test]
async fn tail_prints_changes_as_debezium_envelopes() -> anyhow::Result<()> {
    for kind in [Kind::Postgres, Kind::Mysql] {
        let mut preparation = Preparation::new(Direction { from: kind, to: Kind::Postgres }, "tail").await?;
        let table = "CREATE TABLE note (id int PRIMARY KEY, text varchar(20))";
        preparation.table("note", table, table).await?;
        let scenario = preparation.streaming().await?;
        let url = format!("http://{}/sync/tail?pipeline=mirror&from=0", scenario.worker.address());
        let mut lines = reqwest::get(url).await?.error_for_status()?;
        scenario
            .source
            .execute("INSERT INTO note VALUES (1, 'a'); UPDATE note SET text = 'b' WHERE id = 1; DELETE FROM note WHERE id = 1")
            .await?;
        let (mut text, mut ops) = (Vec::new(), String::new());
        while !ops.ends_with("cud") {
            let chunk = tokio::time::timeout(LIMIT, lines.chunk()).await??;
            text.extend_from_slice(&chunk.unwrap_or_default());
            ops.clear();
            for line in String::from_utf8_lossy(&text).lines() {
                // The last line may still be coming.
                let Ok(envelope) = serde_json::from_str::<serde_json::Value>(line) else { continue };
                if envelope["source"]["table"] == "note" {
                    ops.push_str(envelope["op"].as_str().unwrap_or("?"));
                }
            }
        }
        drop(lines);
        scenario.finish().await?;
    }
    Ok(())
}
