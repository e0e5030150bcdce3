//! Parked keys: a row that a target refuses waits, everything else goes on, and the newest version wins in the end.

use std::time::Duration;
use sync_worker_engine::status::Task;
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::scenario::{Preparation, Scenario};
use sync_worker_tests::seed::seed;
use sync_worker_tests::{each_direction, ledger, literal};

each_direction![
    a_refused_row_is_written_after_the_cure,
    a_newer_version_replaces_a_refused_one,
    a_dropped_letter_leaves_the_row_until_its_next_change,
    a_truncate_frees_what_waits,
    a_changed_key_takes_its_parked_version_along,
    a_child_waits_for_its_parent,
    attempts_come_to_an_end,
    order_holds_through_parked_keys_and_a_kill,
];

const LIMIT: Duration = Duration::from_secs(120);

const REFUSE: &str = "ALTER TABLE item ADD CONSTRAINT refuse CHECK (state <> 9)";
const CURE: &str = "ALTER TABLE item DROP CONSTRAINT refuse";
const LETTERS: [&str; 4] = ["--pipeline", "mirror", "--database", "target"];

/// A target that takes no row with a state of 9.
async fn refusing(direction: Direction, lines: &str) -> anyhow::Result<Scenario> {
    let mut preparation = Preparation::new(direction, "parked").await?;
    preparation.item(100).await?;
    preparation.source.execute("UPDATE item SET state = 1").await?;
    preparation.target.execute(REFUSE).await?;
    preparation.pipeline(lines);
    preparation.streaming().await
}

async fn until_parked(scenario: &Scenario, keys: u64) -> anyhow::Result<()> {
    let is = |task: &sync_worker_engine::status::TaskStatus| task.task == Task::Apply && task.parked == keys;
    scenario.worker.until(&format!("{keys} parked keys"), LIMIT, |tasks| tasks.iter().any(is)).await.map(drop)
}

async fn letters(scenario: &Scenario, action: &str, which: &[&str]) -> anyhow::Result<String> {
    let arguments: Vec<&str> =
        ["dead-letters", action].into_iter().chain(LETTERS).chain(which.iter().copied()).collect();
    let output = scenario.worker.command(&arguments).await?;
    Ok(sync_worker_tests::worker::printed(&output))
}

async fn a_refused_row_is_written_after_the_cure(direction: Direction) -> anyhow::Result<()> {
    let scenario = refusing(direction, "").await?;
    let mut source = scenario.source.connect().await?;
    source
        .execute("BEGIN; UPDATE item SET state = 9 WHERE id = 50; UPDATE item SET state = 2 WHERE id <> 50; COMMIT")
        .await?;
    // Everything else arrives, what comes later, too.
    scenario.settle().await?;
    assert_eq!(scenario.target.number("SELECT count(*) FROM item WHERE state = 2").await?, 99);
    until_parked(&scenario, 1).await?;
    // A value that can't be taken is a dead letter at once. Listing says so by its exit code.
    let listed = scenario.worker.expect(1, &["dead-letters"]).await?;
    assert!(listed.contains("50") && listed.contains("refuse"), "{listed}");
    // Without the cure it is refused again.
    letters(&scenario, "retry", &["--all"]).await?;
    until_parked(&scenario, 1).await?;
    scenario.target.execute(CURE).await?;
    letters(&scenario, "retry", &["--all"]).await?;
    until_parked(&scenario, 0).await?;
    scenario.worker.expect(0, &["dead-letters"]).await?;
    scenario.finish().await
}

async fn a_newer_version_replaces_a_refused_one(direction: Direction) -> anyhow::Result<()> {
    let scenario = refusing(direction, "").await?;
    let mut source = scenario.source.connect().await?;
    // A new row and an old one are refused; what changes them next says nothing of the large value.
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed()?);
    let note = literal::text(direction.from, &literal::random_text(&mut rng, 200_000));
    source
        .execute(&format!(
            "INSERT INTO item (id, version, name, state, note) VALUES (500, 1, 'new', 9, {note});
             UPDATE item SET state = 9, note = {note} WHERE id = 51;
             UPDATE item SET state = 9, note = {note} WHERE id = 52"
        ))
        .await?;
    until_parked(&scenario, 3).await?;
    source.execute("UPDATE item SET version = 2 WHERE id IN (500, 51)").await?;
    scenario.settle().await?;
    until_parked(&scenario, 3).await?;
    source.execute("UPDATE item SET state = 3 WHERE id IN (500, 51); DELETE FROM item WHERE id = 52").await?;
    until_parked(&scenario, 0).await?;
    scenario.worker.expect(0, &["dead-letters"]).await?;
    scenario.finish().await
}

async fn a_dropped_letter_leaves_the_row_until_its_next_change(direction: Direction) -> anyhow::Result<()> {
    let scenario = refusing(direction, "").await?;
    let mut source = scenario.source.connect().await?;
    source.execute("UPDATE item SET state = 9, name = 'refused' WHERE id IN (50, 51)").await?;
    until_parked(&scenario, 2).await?;
    letters(&scenario, "drop", &["--all"]).await?;
    until_parked(&scenario, 0).await?;
    assert_eq!(scenario.target.number("SELECT count(*) FROM item WHERE name = 'refused'").await?, 0);
    // A retry finds nothing, and `verify` does.
    letters(&scenario, "retry", &["--all"]).await?;
    source.execute("UPDATE item SET state = 4 WHERE id IN (50, 51)").await?;
    scenario.finish().await
}

async fn a_truncate_frees_what_waits(direction: Direction) -> anyhow::Result<()> {
    let scenario = refusing(direction, "retry = { first_delay = \"20ms\", max_delay = \"50ms\" }").await?;
    let mut source = scenario.source.connect().await?;
    source.execute("UPDATE item SET state = 9 WHERE id IN (50, 51)").await?;
    until_parked(&scenario, 2).await?;
    source.execute("TRUNCATE TABLE item; INSERT INTO item (id, version, name, state) VALUES (50, 1, 'new', 1)").await?;
    until_parked(&scenario, 0).await?;
    scenario.target.execute(CURE).await?;
    letters(&scenario, "retry", &["--all"]).await?;
    scenario.worker.expect(0, &["dead-letters"]).await?;
    scenario.finish().await
}

async fn a_changed_key_takes_its_parked_version_along(direction: Direction) -> anyhow::Result<()> {
    let scenario = refusing(direction, "").await?;
    let mut source = scenario.source.connect().await?;
    // Refused, then under another key; refused by the change of the key itself, the old key taken anew or not.
    source
        .execute(
            "UPDATE item SET state = 9 WHERE id = 50; UPDATE item SET id = 500 WHERE id = 50;
             UPDATE item SET id = 510, state = 9 WHERE id = 51;
             INSERT INTO item (id, version, name, state) VALUES (51, 1, 'anew', 2);
             UPDATE item SET id = 520, state = 9 WHERE id = 52; DELETE FROM item WHERE id = 520;
             UPDATE item SET id = 530, state = 9 WHERE id = 53; UPDATE item SET id = 531 WHERE id = 530",
        )
        .await?;
    scenario.settle().await?;
    until_parked(&scenario, 3).await?;
    source.execute("UPDATE item SET version = 8 WHERE id IN (500, 510, 531, 51)").await?;
    source.execute("UPDATE item SET state = 1 WHERE id = 500").await?;
    scenario.settle().await?;
    until_parked(&scenario, 2).await?;
    scenario.target.execute(CURE).await?;
    letters(&scenario, "retry", &["--all"]).await?;
    until_parked(&scenario, 0).await?;
    scenario.finish().await
}

/// A table whose rows need one in another table, which is not in the pipeline.
async fn orphans(direction: Direction, retry: &str) -> anyhow::Result<Scenario> {
    let mut preparation = Preparation::new(direction, "orphans").await?;
    if direction.to == Kind::Postgres {
        // As `replica` the server does not check foreign keys.
        preparation.settings.databases[1].extra.push_str("session_replication_role = \"origin\"\n");
    }
    preparation.target.execute("CREATE TABLE parent (id int PRIMARY KEY)").await?;
    let child = "CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL)";
    preparation.table("child", child, child).await?;
    preparation.target.execute("ALTER TABLE child ADD FOREIGN KEY (parent) REFERENCES parent (id)").await?;
    preparation.pipeline(retry);
    preparation.streaming().await
}

async fn a_child_waits_for_its_parent(direction: Direction) -> anyhow::Result<()> {
    let scenario =
        orphans(direction, "retry = { attempts = 1000, first_delay = \"50ms\", max_delay = \"200ms\" }").await?;
    scenario
        .source
        .execute("INSERT INTO child VALUES (1, 1), (2, 2); UPDATE child SET parent = 3 WHERE id = 2")
        .await?;
    scenario.settle().await?;
    until_parked(&scenario, 2).await?;
    scenario.target.execute("INSERT INTO parent VALUES (1), (3)").await?;
    until_parked(&scenario, 0).await?;
    scenario.finish().await
}

async fn attempts_come_to_an_end(direction: Direction) -> anyhow::Result<()> {
    let scenario = orphans(direction, "retry = { attempts = 3, first_delay = \"20ms\", max_delay = \"20ms\" }").await?;
    scenario.source.execute("INSERT INTO child VALUES (1, 1)").await?;
    sync_worker_tests::wait::until("a dead letter", LIMIT, async || {
        let listed = letters(&scenario, "list", &[]).await?;
        Ok(listed.contains("after 3 attempts").then_some(()))
    })
    .await?;
    scenario.target.execute("INSERT INTO parent VALUES (1)").await?;
    letters(&scenario, "retry", &["--all"]).await?;
    until_parked(&scenario, 0).await?;
    scenario.finish().await
}

async fn order_holds_through_parked_keys_and_a_kill(direction: Direction) -> anyhow::Result<()> {
    let seed = seed()?;
    let mut scenario =
        refusing(direction, "retry = { attempts = 5, first_delay = \"50ms\", max_delay = \"1s\" }").await?;
    ledger::install(&scenario.source).await?;
    ledger::install(&scenario.target).await?;
    // One change of the state in ten is refused; a target that refuses rows writes row by row.
    let load = LoadSettings { rate: Some(300), rows: 50, ..LoadSettings::new(seed) };
    let load = Load::start(&scenario.source.url(), &load)?;
    for _ in 0..3 {
        scenario.until_changes(&load, 400).await?;
        letters(&scenario, "retry", &["--all"]).await?;
        scenario.worker.kill().await?;
        scenario.worker.start()?;
        scenario.worker.until_streaming(LIMIT).await?;
    }
    load.stop().await?;
    scenario.settle().await?;
    scenario.target.execute(CURE).await?;
    letters(&scenario, "retry", &["--all"]).await?;
    until_parked(&scenario, 0).await?;
    let verdict = ledger::judge(&ledger::read(&scenario.source).await?, &ledger::read(&scenario.target).await?);
    assert!(verdict.is_good(), "{direction}: {verdict}");
    scenario.finish().await
}

/// A row that can't be read as a row of any other engine's stops neither its capture nor other rows.
async fn has_no_form_elsewhere(direction: Direction, column: (&str, &str), values: [&str; 3]) -> anyhow::Result<()> {
    let [bad, other, good] = values;
    let mut preparation = Preparation::new(direction, "unreadable").await?;
    let table = |kind: &str| format!("CREATE TABLE reading (id int PRIMARY KEY, v {kind}, n int)");
    preparation.table("reading", &table(column.0), &table(column.1)).await?;
    let rows = format!("INSERT INTO reading VALUES (1, {good}, 1), (2, {bad}, 1), (3, {good}, 1)");
    preparation.source.execute(&rows).await?;
    let scenario = preparation.streaming().await?;
    let mut source = scenario.source.connect().await?;
    source.execute(&format!("INSERT INTO reading VALUES (4, {other}, 1), (5, {good}, 1)")).await?;
    source.execute("UPDATE reading SET n = 2").await?;
    scenario.settle().await?;
    until_parked(&scenario, 2).await?;
    assert_eq!(scenario.target.number("SELECT count(*) FROM reading WHERE n = 2").await?, 3);
    let listed = scenario.worker.expect(1, &["dead-letters"]).await?;
    assert!(listed.contains("{\"id\":2}") && listed.contains("{\"id\":4}") && listed.contains("column v"), "{listed}");
    source.execute(&format!("UPDATE reading SET v = {good} WHERE id IN (2, 4)")).await?;
    scenario.settle().await?;
    until_parked(&scenario, 0).await?;
    scenario.finish().await
}

/// Of a character set with one byte a character.
#[tokio::test]
async fn mysql_bytes_that_are_no_character() -> anyhow::Result<()> {
    let greek = "varchar(20) CHARACTER SET greek";
    for to in [Kind::Postgres, Kind::Mysql] {
        let direction = Direction { from: Kind::Mysql, to };
        let columns = (greek, to.pick("varchar(20)", greek));
        has_no_form_elsewhere(direction, columns, ["_greek X'61D262'", "_greek X'D2'", "_greek X'E1E23F'"]).await?;
    }
    Ok(())
}

/// The last thirty years of PostgreSQL's timestamps are beyond what microseconds from 1970 on can count.
#[tokio::test]
async fn postgres_timestamps_that_others_can_not_count() -> anyhow::Result<()> {
    let (late, last) = ("'294276-12-31 23:59:59.999999'", "'294247-01-10 04:00:54.775807'");
    let direction = Direction { from: Kind::Postgres, to: Kind::Mysql };
    let columns = ("timestamp", "datetime(6)");
    has_no_form_elsewhere(direction, columns, [late, last, "'2024-02-29 12:00:00.5'"]).await?;
    // PostgreSQL itself takes them.
    let direction = Direction { from: Kind::Postgres, to: Kind::Postgres };
    let mut preparation = Preparation::new(direction, "late").await?;
    let table = "CREATE TABLE reading (id int PRIMARY KEY, a timestamp, b timestamptz)";
    preparation.table("reading", table, table).await?;
    preparation.source.execute(&format!("INSERT INTO reading VALUES (1, {late}, {late}), (2, {last}, {last})")).await?;
    let scenario = preparation.streaming().await?;
    scenario.source.execute(&format!("INSERT INTO reading VALUES (3, {late}, {last}), (4, {last}, {late})")).await?;
    scenario.finish().await
}
