//! The stream: what a source says of its changes arrives as it was, whatever the transaction looks like.

use std::time::Duration;
use sync_worker_tests::histogram::total;
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::scenario::Preparation;
use sync_worker_tests::seed::seed;
use sync_worker_tests::{each_direction, literal, wait};

each_direction![
    a_transaction_takes_effect_whole,
    a_large_transaction_is_applied_in_parts,
    rolled_back_work_never_arrives,
    a_truncate_and_what_comes_after_it,
    changed_keys_and_swapped_ones,
    large_values_that_stay_unchanged,
    unique_values_that_change_hands,
    parents_and_children,
    generated_and_identity_columns,
    a_column_is_added_while_the_stream_runs,
];

const LIMIT: Duration = Duration::from_secs(120);

async fn a_transaction_takes_effect_whole(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "whole").await?;
    let table = "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)";
    preparation.table("account", table, table).await?;
    let rows: Vec<String> = (0..50).map(|id| format!("({id}, 100)")).collect();
    preparation.source.execute(&format!("INSERT INTO account VALUES {}", rows.join(", "))).await?;
    let scenario = preparation.streaming().await?;

    let mut source = scenario.source.connect().await?;
    let writing = tokio::spawn(async move {
        for round in 0..400 {
            let (from, to) = (round % 50, (round * 7 + 3) % 50);
            let sql = format!(
                "BEGIN; UPDATE account SET balance = balance - 5 WHERE id = {from};
                 UPDATE account SET balance = balance + 5 WHERE id = {to}; COMMIT"
            );
            source.execute(&sql).await?;
        }
        anyhow::Ok(())
    });
    // Money is neither made nor lost, whenever one looks.
    let mut target = scenario.target.connect().await?;
    let mut looks = 0;
    while !writing.is_finished() {
        assert_eq!(target.number("SELECT sum(balance) FROM account").await?, 5_000, "{direction}");
        looks += 1;
    }
    writing.await??;
    assert!(looks > 20, "{looks} looks");
    scenario.finish().await
}

async fn a_large_transaction_is_applied_in_parts(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "large").await?;
    preparation.item(100).await?;
    preparation.pipeline("transaction_limit = { rows = 5000, size = \"64MiB\" }");
    if direction.from == Kind::Postgres {
        // Low enough that the server streams the transaction while it is still open.
        let name = &preparation.source.name;
        preparation.source.execute(&format!("ALTER DATABASE {name} SET logical_decoding_work_mem = '64kB'")).await?;
    }
    let scenario = preparation.streaming().await?;
    let mut source = scenario.source.connect().await?;
    let numbers: Vec<String> = (0..200).map(|n| format!("({n})")).collect();
    let all = format!("INSERT INTO numbers VALUES {}", numbers.join(", "));
    source.execute(&format!("CREATE TABLE numbers (n int PRIMARY KEY); {all}")).await?;
    // 40,000 rows come, some of them change or go again; what stands behind a savepoint does not come at all.
    source
        .execute(
            "BEGIN;
             INSERT INTO item (id, version, name, state) SELECT 1000 + a.n * 200 + b.n, 1, 'bulk', 0 FROM numbers a, numbers b;
             SAVEPOINT one;
             UPDATE item SET version = 2, state = 1 WHERE id >= 1000 AND id % 3 = 0;
             DELETE FROM item WHERE id > 40000;
             ROLLBACK TO SAVEPOINT one;
             UPDATE item SET version = 3 WHERE id % 5 = 0;
             SAVEPOINT two;
             DELETE FROM item WHERE id >= 1000 AND id % 11 = 0;
             RELEASE SAVEPOINT two;
             COMMIT",
        )
        .await?;
    scenario.equal().await?;
    let metrics = scenario.worker.metrics().await?;
    assert!(total(&metrics, "sync_worker_split_transactions_total", "") >= 1, "{metrics}");
    scenario.finish().await
}

async fn rolled_back_work_never_arrives(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "rollback").await?;
    preparation.item(100).await?;
    let scenario = preparation.streaming().await?;
    let mut source = scenario.source.connect().await?;
    source
        .execute(
            "BEGIN; DELETE FROM item; INSERT INTO item (id, version, name, state) VALUES (500, 1, 'no', 0); ROLLBACK",
        )
        .await?;
    source
        .execute(
            "BEGIN; INSERT INTO item (id, version, name, state) VALUES (501, 1, 'yes', 0);
             SAVEPOINT s; UPDATE item SET name = 'no'; ROLLBACK TO SAVEPOINT s;
             SAVEPOINT s; UPDATE item SET version = 5 WHERE id = 7; RELEASE SAVEPOINT s; COMMIT",
        )
        .await?;
    scenario.equal().await?;
    assert_eq!(scenario.target.number("SELECT count(*) FROM item WHERE name = 'no'").await?, 0);
    assert_eq!(scenario.target.number("SELECT count(*) FROM item").await?, 101);
    scenario.finish().await
}

async fn a_truncate_and_what_comes_after_it(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "truncate").await?;
    preparation.item(500).await?;
    let scenario = preparation.streaming().await?;
    let mut source = scenario.source.connect().await?;
    let row =
        |id: i32, name: &str| format!("INSERT INTO item (id, version, name, state) VALUES ({id}, 1, '{name}', 0);");
    source.execute(&format!("{} TRUNCATE TABLE item; {}", row(1000, "before"), row(1, "after"))).await?;
    source.execute(&row(1001, "after")).await?;
    scenario.equal().await?;
    assert_eq!(scenario.target.number("SELECT count(*) FROM item WHERE name = 'after'").await?, 2);
    source.execute("TRUNCATE TABLE item").await?;
    scenario.equal().await?;
    assert_eq!(scenario.target.number("SELECT count(*) FROM item").await?, 0);
    scenario.finish().await
}

async fn changed_keys_and_swapped_ones(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "keys").await?;
    preparation.item(50).await?;
    let scenario = preparation.streaming().await?;
    let mut source = scenario.source.connect().await?;
    let change = |old: i32, new: i32| format!("UPDATE item SET id = {new}, version = version + 1 WHERE id = {old};");
    // Two rows swap their keys over a third one; a chain of keys moves up by one; a key is left and taken again.
    source.execute(&format!("BEGIN; {} {} {} COMMIT", change(1, 900), change(2, 1), change(900, 2))).await?;
    let chain: String = (10..20).rev().map(|id| change(id, id + 1)).collect();
    source.execute(&format!("DELETE FROM item WHERE id = 20; BEGIN; {chain} COMMIT")).await?;
    source
        .execute(&format!(
            "{} INSERT INTO item (id, version, name, state) VALUES (30, 1, 'new', 0); {} DELETE FROM item WHERE id = 31",
            change(30, 300),
            change(300, 301)
        ))
        .await?;
    scenario.finish().await
}

async fn large_values_that_stay_unchanged(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "toast").await?;
    preparation.item(20).await?;
    let scenario = preparation.streaming().await?;
    let kind = direction.from;
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed()?);
    let (small, large) = (literal::random_text(&mut rng, 60_000), literal::random_text(&mut rng, 5_000_000));
    let (small, large) = (literal::text(kind, &small), literal::text(kind, &large));
    let bytes: Vec<u8> = (0..3_000_000).map(|_| rand::Rng::random(&mut rng)).collect();
    let mut source = scenario.source.connect().await?;
    source
        .execute(&format!("UPDATE item SET note = {small} WHERE id <= 5; UPDATE item SET note = {large} WHERE id = 6"))
        .await?;
    source.execute(&format!("UPDATE item SET data = {} WHERE id = 7", literal::bytes(kind, &bytes))).await?;
    // Other columns change, several times in one batch, then the key.
    for version in 1..5 {
        source.execute(&format!("UPDATE item SET version = {version}, name = 'n{version}' WHERE id <= 7")).await?;
    }
    source.execute("UPDATE item SET id = 100 WHERE id = 6; UPDATE item SET version = 9 WHERE id = 100").await?;
    source.execute("UPDATE item SET note = NULL WHERE id = 1; UPDATE item SET state = 3 WHERE id = 1").await?;
    scenario.finish().await
}

async fn unique_values_that_change_hands(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "unique").await?;
    let table = "CREATE TABLE seat (id int PRIMARY KEY, place int NULL, UNIQUE (place))";
    preparation.table("seat", table, table).await?;
    preparation.source.execute("INSERT INTO seat VALUES (1, 1), (2, 2), (3, 3), (4, NULL), (5, 5)").await?;
    let scenario = preparation.streaming().await?;
    let mut source = scenario.source.connect().await?;
    for _ in 0..20 {
        // A swap over NULL, and a place that goes from a deleted row to a new one, in one transaction each.
        source
            .execute(
                "BEGIN; UPDATE seat SET place = NULL WHERE id = 1; UPDATE seat SET place = 1 WHERE id = 2;
                 UPDATE seat SET place = 2 WHERE id = 1; COMMIT;
                 BEGIN; UPDATE seat SET place = NULL WHERE id = 2; UPDATE seat SET place = 1 WHERE id = 1;
                 UPDATE seat SET place = 2 WHERE id = 2; COMMIT;
                 BEGIN; DELETE FROM seat WHERE id = 5; INSERT INTO seat VALUES (6, 5); COMMIT;
                 BEGIN; DELETE FROM seat WHERE id = 6; INSERT INTO seat VALUES (5, 5); COMMIT",
            )
            .await?;
    }
    scenario.finish().await
}

async fn parents_and_children(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "family").await?;
    let parent = "CREATE TABLE parent (id int PRIMARY KEY, name varchar(20))";
    let child = "CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL, name varchar(20),
        FOREIGN KEY (parent) REFERENCES parent (id))";
    // The child comes first in the configuration.
    preparation.source.execute(parent).await?;
    preparation.target.execute(parent).await?;
    preparation.table("child", child, child).await?;
    preparation.add("parent");
    preparation.source.execute("INSERT INTO parent VALUES (1, 'a'); INSERT INTO child VALUES (1, 1, 'b')").await?;
    let scenario = preparation.streaming().await?;
    let mut source = scenario.source.connect().await?;
    for round in 2..40 {
        source
            .execute(&format!(
                "BEGIN; INSERT INTO parent VALUES ({round}, 'p'); INSERT INTO child VALUES ({round}, {round}, 'c'); COMMIT;
                 BEGIN; UPDATE child SET parent = {round} WHERE id = 1; COMMIT;
                 BEGIN; DELETE FROM child WHERE id = {0}; UPDATE child SET parent = {round} WHERE parent = {0};
                 DELETE FROM parent WHERE id = {0}; COMMIT",
                round - 1
            ))
            .await?;
        if round == 2 {
            source.execute("INSERT INTO child VALUES (1, 2, 'again')").await?;
        }
    }
    scenario.finish().await
}

async fn generated_and_identity_columns(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "generated").await?;
    let table = |kind: Kind| {
        kind.pick(
            "CREATE TABLE line (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount int NOT NULL,
                twice int GENERATED ALWAYS AS (amount * 2) STORED)",
            "CREATE TABLE line (id bigint AUTO_INCREMENT PRIMARY KEY, amount int NOT NULL,
                twice int GENERATED ALWAYS AS (amount * 2) STORED)",
        )
    };
    preparation.table("line", table(direction.from), table(direction.to)).await?;
    preparation.source.execute("INSERT INTO line (amount) VALUES (1), (2), (3)").await?;
    let scenario = preparation.streaming().await?;
    scenario
        .source
        .execute("INSERT INTO line (amount) VALUES (4), (5); UPDATE line SET amount = 20 WHERE amount = 2; DELETE FROM line WHERE amount = 3")
        .await?;
    scenario.finish().await
}

async fn a_column_is_added_while_the_stream_runs(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "column").await?;
    preparation.item(100).await?;
    let scenario = preparation.streaming().await?;
    let load = LoadSettings { rate: Some(500), writers: 2, ..LoadSettings::new(seed()?) };
    let load = Load::start(&scenario.source.url(), &load)?;
    scenario.until_changes(&load, 200).await?;
    // First where it is written to.
    let add = "ALTER TABLE item ADD COLUMN colour varchar(20) NULL";
    scenario.target.execute(add).await?;
    scenario.source.execute(add).await?;
    scenario.until_changes(&load, 200).await?;
    scenario.source.execute("UPDATE item SET colour = 'red' WHERE id = 1").await?;
    load.stop().await?;
    let mut target = scenario.target.connect().await?;
    wait::until("the new column's value", LIMIT, async || {
        let colour = target.value("SELECT colour FROM item WHERE id = 1").await?;
        Ok((colour.as_deref() == Some("red")).then_some(()))
    })
    .await?;
    drop(target);
    scenario.finish().await
}
