//! Snapshots: what is there is copied, in chunks, while others write, over kills, whatever the key is.

use anyhow::ensure;
use std::time::Duration;
use sync_worker_engine::status::{SnapshotStatus, Task};
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::scenario::Preparation;
use sync_worker_tests::seed::seed;
use sync_worker_tests::{each_direction, each_of_nine_directions};

const LIMIT: Duration = Duration::from_secs(120);

each_of_nine_directions![a_snapshot_then_the_stream, a_snapshot_while_others_write, a_snapshot_goes_on_after_a_kill];

each_direction![a_composite_key, a_text_key, several_tables_with_other_names];

async fn a_snapshot_then_the_stream(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "snapshot").await?;
    preparation.item(5_000).await?;
    let scenario = preparation.streaming().await?;
    scenario.equal().await?;
    // What a stand-in for MongoDB takes.
    let rate = direction.has_documents().then_some(3_000);
    let load = LoadSettings { rate, writers: 2, ..LoadSettings::new(seed()?) };
    let load = Load::start(&scenario.source.url(), &load)?;
    scenario.until_changes(&load, 2_000).await?;
    load.stop().await?;
    scenario.finish().await
}

/// Children first, and rows of one table that refer to later ones.
#[tokio::test]
async fn rows_that_refer_to_what_is_copied_after_them() -> anyhow::Result<()> {
    for from in [Kind::Postgres, Kind::Mysql] {
        let mut preparation = Preparation::new(Direction { from, to: Kind::Mysql }, "referring").await?;
        let boss = "CREATE TABLE boss (id int PRIMARY KEY, above int, FOREIGN KEY (above) REFERENCES boss (id))";
        let dept = "CREATE TABLE dept (id int PRIMARY KEY, boss int NOT NULL, FOREIGN KEY (boss) REFERENCES boss (id))";
        // A child can't be made before its parent, and is copied before it.
        for database in [&preparation.source, &preparation.target] {
            database.execute(boss).await?;
        }
        preparation.table("dept", dept, dept).await?;
        preparation.add("boss");
        for id in (1..=300).rev() {
            let above = if id == 300 { "NULL".to_owned() } else { (id + 1).to_string() };
            preparation.source.execute(&format!("INSERT INTO boss VALUES ({id}, {above})")).await?;
        }
        preparation.source.execute("INSERT INTO dept SELECT id, id FROM boss").await?;
        preparation.pipeline("snapshot_chunk_rows = 50\nsnapshot_parallel = 1");
        let scenario = preparation.streaming().await?;
        scenario.source.execute("UPDATE dept SET boss = 1 WHERE id > 150").await?;
        scenario.source.execute("UPDATE boss SET above = NULL WHERE id = 7").await?;
        scenario.equal().await?;
        scenario.worker.expect(0, &["dead-letters"]).await?;
        scenario.finish().await?;
    }
    Ok(())
}

/// The first refusal would be the last, so none may be refused.
#[tokio::test]
async fn rows_that_are_written_before_what_they_refer_to_is_copied() -> anyhow::Result<()> {
    const PARENTS: usize = 20_000;
    for from in [Kind::Postgres, Kind::Mysql] {
        let mut preparation = Preparation::new(Direction { from, to: Kind::Mysql }, "early").await?;
        let parent = "CREATE TABLE parent (id int PRIMARY KEY, above int, FOREIGN KEY (above) REFERENCES parent (id))";
        let child = "CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL, note varchar(20), \
                     FOREIGN KEY (parent) REFERENCES parent (id))";
        // Copied after its children.
        for database in [&preparation.source, &preparation.target] {
            database.execute(parent).await?;
        }
        preparation.table("child", child, child).await?;
        preparation.add("parent");
        for from in (0..PARENTS).step_by(1_000) {
            let rows: Vec<String> = (from + 1..=from + 1_000).map(|id| format!("({id}, NULL)")).collect();
            preparation.source.execute(&format!("INSERT INTO parent VALUES {}", rows.join(", "))).await?;
        }
        let settings =
            "snapshot_chunk_rows = 20\nsnapshot_parallel = 1\nretry = { attempts = 1, first_delay = \"20ms\" }";
        preparation.pipeline(settings);
        let mut scenario = preparation.scenario()?;
        let mut application = scenario.source.connect().await?;
        scenario.worker.start()?;
        let begun = scenario.worker.until("the snapshot", LIMIT, |tasks| {
            tasks.iter().any(|task| task.snapshot.as_ref().is_some_and(|copy| !copy.done && copy.rows > 0))
        });
        begun.await?;
        // The last parents are copied last.
        for id in 1..=50 {
            let last = PARENTS - id;
            let rows = format!(
                "INSERT INTO child VALUES ({id}, {last}, 'first'); UPDATE child SET note = 'second' WHERE id = {id};
                 UPDATE child SET parent = {last} - 100 WHERE id = {id} AND id % 2 = 0;
                 INSERT INTO parent VALUES ({}, {last}); DELETE FROM child WHERE id = {id} AND id % 5 = 0;
                 UPDATE child SET id = id + 1000 WHERE id = {id} AND id % 7 = 0",
                PARENTS + id
            );
            application.execute(&rows).await?;
        }
        let tasks = scenario.worker.status().await?;
        let is_copying = |copy: &SnapshotStatus| !copy.done && copy.rows + 200 < PARENTS as u64;
        ensure!(tasks.iter().any(|task| task.snapshot.as_ref().is_some_and(is_copying)), "the copy was through");
        scenario.worker.until_streaming(LIMIT).await?;
        scenario.equal().await?;
        scenario.worker.expect(0, &["dead-letters"]).await?;
        scenario.finish().await?;
    }
    Ok(())
}

async fn a_snapshot_while_others_write(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "busy").await?;
    preparation.item(10_000).await?;
    preparation.pipeline("snapshot_chunk_rows = 500\nsnapshot_parallel = 3");
    let load = LoadSettings { rate: Some(1_500), rows: 3_000, ..LoadSettings::new(seed()?) };
    let load = Load::start(&preparation.source.url(), &load)?;
    // Changes are under way before, during and after the copy.
    let scenario = preparation.streaming().await?;
    scenario.until_changes(&load, 500).await?;
    load.stop().await?;
    scenario.finish().await
}

async fn a_snapshot_goes_on_after_a_kill(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "resume").await?;
    preparation.item(30_000).await?;
    preparation.pipeline("snapshot_chunk_rows = 100\nsnapshot_parallel = 1");
    let mut scenario = preparation.scenario()?;
    let (mut copied, mut kills) = (0, 0);
    // Each life copies some of it, until one finishes.
    loop {
        scenario.worker.start()?;
        let tasks = scenario.worker.until("some more of the snapshot", LIMIT, |tasks| {
            tasks.iter().filter_map(|task| task.snapshot.as_ref()).any(|copy| copy.done || copy.rows > copied + 3_000)
        });
        let tasks = tasks.await?;
        let capture = tasks.iter().find(|task| task.task == Task::Capture);
        let Some(snapshot) = capture.and_then(|task| task.snapshot.as_ref()) else { continue };
        assert!(snapshot.rows >= copied, "{} rows were copied, of which {} are known", copied, snapshot.rows);
        if snapshot.done {
            break;
        }
        copied = snapshot.rows;
        scenario.worker.kill().await?;
        kills += 1;
        // A stray write in between, in a part that is copied and in one that is not.
        for id in [10, 29_990] {
            scenario.source.bump(id).await?;
        }
    }
    assert!(kills >= 2, "the copy was through after {kills} kills");
    scenario.finish().await
}

async fn a_composite_key(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "composite").await?;
    // The key's order is not that of the columns.
    let table = "CREATE TABLE part (place int NOT NULL, name varchar(20) NOT NULL, day date NOT NULL, stock int,
        PRIMARY KEY (day, place))";
    preparation.table("part", table, table).await?;
    let row = |place: i32| format!("({place}, 'part {place}', '2026-01-{:02}', {place})", place % 28 + 1);
    let rows: Vec<String> = (0..1_000).map(row).collect();
    preparation.source.execute(&format!("INSERT INTO part VALUES {}", rows.join(", "))).await?;
    preparation.pipeline("snapshot_chunk_rows = 70");
    let scenario = preparation.streaming().await?;
    scenario
        .source
        .execute(
            "UPDATE part SET stock = stock + 1 WHERE place < 300; DELETE FROM part WHERE place % 7 = 0;
             UPDATE part SET place = place + 5000 WHERE place BETWEEN 400 AND 420;
             INSERT INTO part VALUES (7, 'again', '2026-01-08', NULL)",
        )
        .await?;
    scenario.finish().await
}

async fn a_text_key(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "text").await?;
    let table = |kind: Kind| match kind {
        Kind::Postgres => "CREATE TABLE word (word varchar(40) PRIMARY KEY, count int NOT NULL)",
        Kind::Mongodb => "",
        Kind::Mysql => {
            "CREATE TABLE word (word varchar(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin PRIMARY KEY, count int NOT NULL)"
        }
    };
    preparation.table("word", table(direction.from), table(direction.to)).await?;
    // Keys that a language's order, or none, puts elsewhere than their bytes do.
    let words = [
        "a", "A", "abc", "ABC", "Abc", "ä", "z", "Z", "é", "e", "É", "漢", "🐎", "_", "-", "a b", "a-b", "10", "9",
        "it''s",
    ];
    let mut rows = Vec::new();
    for (at, word) in words.iter().enumerate() {
        rows.extend((0..20).map(|number| format!("('{word} {number}', {at})")));
    }
    preparation.source.execute(&format!("INSERT INTO word VALUES {}", rows.join(", "))).await?;
    preparation.pipeline("snapshot_chunk_rows = 33");
    let scenario = preparation.streaming().await?;
    scenario.equal().await?;
    scenario
        .source
        .execute(
            "UPDATE word SET count = count + 100 WHERE word LIKE '%1'; DELETE FROM word WHERE word LIKE 'A%7';
             UPDATE word SET word = 'moved' WHERE word = 'z 3'; INSERT INTO word VALUES ('ABC', 1), ('abc', 2)",
        )
        .await?;
    scenario.finish().await
}

async fn several_tables_with_other_names(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "names").await?;
    let there = |kind: Kind, name: &str| kind.quote(name);
    for number in 0..3 {
        let (here, other) = (format!("Here {number}"), format!("there-{number}"));
        let columns = "(id int PRIMARY KEY, \"Select\" int, note varchar(20))";
        let columns = |kind: Kind| columns.replace("\"Select\"", &kind.quote("Select"));
        let create = |kind: Kind, name: &str| format!("CREATE TABLE {} {}", there(kind, name), columns(kind));
        preparation.source.execute(&create(direction.from, &here)).await?;
        preparation.target.execute(&create(direction.to, &other)).await?;
        let insert = format!("INSERT INTO {} VALUES (1, {number}, 'a'), (2, NULL, 'b')", there(direction.from, &here));
        preparation.source.execute(&insert).await?;
        preparation.renamed(&format!("t{number}"), &here, &other);
    }
    let scenario = preparation.streaming().await?;
    for number in 0..3 {
        let here = there(direction.from, &format!("Here {number}"));
        let select = direction.from.quote("Select");
        scenario
            .source
            .execute(&format!("UPDATE {here} SET {select} = 7 WHERE id = 2; INSERT INTO {here} VALUES (3, 3, NULL)"))
            .await?;
    }
    scenario.finish().await
}
