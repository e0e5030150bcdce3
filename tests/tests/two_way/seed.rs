//! Seeds: one member's rows go to all others; or those that all have, and what differs is decided and on record.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use sync_worker_engine::status::Task;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;
use sync_worker_tests::settings::TableEntry;
use sync_worker_tests::two_way::{Account, Change, Mix, TwoWay};
use tokio::sync::watch;

members! { every_strategy_decides_what_differs:
    postgres_and_postgres of Postgres Postgres,
    postgres_and_mysql of Postgres Mysql,
    postgres_and_mongodb of Postgres Mongodb,
}

members! { the_time_in_a_column_decides:
    postgres_and_postgres of Postgres Postgres,
    postgres_and_mysql of Postgres Mysql,
}

members! { rows_that_change_for_their_member_alone_are_copied:
    postgres_and_mysql of Postgres Mysql,
    mysql_and_postgres of Mysql Postgres,
}

members! { the_seeds_rows_replace_others_on_record:
    postgres_and_postgres of Postgres Postgres,
    postgres_and_mysql of Postgres Mysql,
    mysql_and_mysql of Mysql Mysql,
    postgres_and_mongodb of Postgres Mongodb,
    mongodb_and_mysql of Mongodb Mysql,
}

members! { kills_and_writers_while_rows_are_merged: all_three of Postgres Mysql Mongodb }

members! { a_table_that_joins_is_merged_too: postgres_and_mysql of Postgres Mysql }

const LIMIT: Duration = Duration::from_secs(120);

const SEED: &str = "seed = \"merge\"\nsnapshot_chunk_rows = 100\n";

fn row(id: i64, writer: &str) -> Account {
    Account { id, writer: writer.to_owned(), a: 1, b: 1, counter: id }
}

/// Once the rows of all members are on the log, and all have come through.
async fn copied(group: &TwoWay) -> anyhow::Result<()> {
    let all = |task: &sync_worker_engine::status::TaskStatus| {
        task.task != Task::Capture || task.snapshot.as_ref().is_some_and(|snapshot| snapshot.done)
    };
    group.worker.until("the copy of all rows", LIMIT, |tasks| tasks.iter().all(all)).await.map(drop)
}

fn writer<'c>(conflict: &'c Value, side: &str) -> &'c str {
    conflict[side]["row"]["writer"].as_str().unwrap_or_default()
}

/// What was replaced is on record; rows that the seed lacks stay, and go nowhere until somebody writes to them.
async fn the_seeds_rows_replace_others_on_record(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "named", "seed = \"a\"\n").await?;
    let [mut at_a, mut at_b] = [pair.members[0].accounts().await?, pair.members[1].accounts().await?];
    at_a.insert_all(&[row(1, "a"), row(2, "a"), row(3, "both")]).await?;
    at_b.insert_all(&[row(2, "b"), row(3, "both"), row(4, "b")]).await?;
    pair.start().await?;
    let done =
        |task: &sync_worker_engine::status::TaskStatus| task.snapshot.as_ref().is_some_and(|snapshot| snapshot.done);
    pair.worker.until("the copy of all rows", LIMIT, |tasks| tasks.iter().any(done)).await?;
    pair.settle().await?;
    ensure!(at_a.all().await? == [row(1, "a"), row(2, "a"), row(3, "both")], "{:?}", at_a.all().await?);
    let at_b_now = at_b.all().await?;
    ensure!(at_b_now == [row(1, "a"), row(2, "a"), row(3, "both"), row(4, "b")], "{at_b_now:?}");
    let conflicts = pair.conflicts().await?;
    let [replaced] = &conflicts[..] else { anyhow::bail!("not one entry: {conflicts:#?}") };
    ensure!(replaced["kind"] == "drift" && replaced["key"]["id"] == 2, "{replaced:#}");
    ensure!((writer(replaced, "winner"), writer(replaced, "loser")) == ("a", "b"), "{replaced:#}");
    pair.worker.expect(1, &["verify"]).await?;
    at_b.change(4, &Change::by("b again")).await?;
    ensure!(pair.equal().await? == 4);
    // That a had no such row is told, too.
    let conflicts = pair.conflicts().await?;
    let [missed, _] = &conflicts[..] else { anyhow::bail!("not two entries: {conflicts:#?}") };
    ensure!(missed["kind"] == "drift" && missed["key"]["id"] == 4 && missed["loser"]["row"].is_null(), "{missed:#}");
    pair.finish().await
}

/// An update of a column that the others lack says nothing to them, and must not stand for the row either.
async fn rows_that_change_for_their_member_alone_are_copied(kinds: &[Kind]) -> anyhow::Result<()> {
    const ROWS: i64 = 5_000;
    let mut pair = TwoWay::new(kinds, "alone", "seed = \"a\"\nsnapshot_chunk_rows = 500\n").await?;
    let rows: Vec<_> = (1..=ROWS).map(|id| row(id, "seeded")).collect();
    pair.members[0].accounts().await?.insert_all(&rows).await?;
    let mut at_a = pair.members[0].database.connect().await?;
    at_a.execute("ALTER TABLE account ADD COLUMN own int").await?;
    let (copied, copying) = watch::channel(());
    let writer = tokio::spawn(async move {
        // Some rows of every chunk, and no more than the copy can follow.
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        for turn in (0..).take_while(|_| copying.has_changed().is_ok()) {
            pace.tick().await;
            at_a.execute(&format!("UPDATE account SET own = {turn} WHERE id % 100 = {turn} % 100")).await?;
        }
        anyhow::Ok(())
    });
    pair.start().await?;
    let done =
        |task: &sync_worker_engine::status::TaskStatus| task.snapshot.as_ref().is_some_and(|snapshot| snapshot.done);
    pair.worker.until("the copy of all rows", LIMIT, |tasks| tasks.iter().any(done)).await?;
    drop(copied);
    writer.await??;
    pair.settle().await?;
    let [a, b] = [pair.members[0].accounts().await?.all().await?, pair.members[1].accounts().await?.all().await?];
    ensure!(a == b, "{} rows and {}", a.len(), b.len());
    pair.members[0].database.execute("ALTER TABLE account DROP COLUMN own").await?;
    let conflicts = pair.conflicts().await?;
    ensure!(conflicts.is_empty(), "there was no conflict, and the ledger has {conflicts:#?}");
    pair.finish().await
}

/// Tables by strategy. Rows of one member alone, rows that are equal, rows that differ.
async fn every_strategy_decides_what_differs(kinds: &[Kind]) -> anyhow::Result<()> {
    let strategies = ["timestamp", "priority", "merge", "manual"];
    let tables = strategies.map(|strategy| (format!("t_{strategy}"), format!("strategy = {strategy:?}\n")));
    let mut pair = TwoWay::with(kinds, "seed", SEED, &tables).await?;
    for (place, member) in pair.members.iter().enumerate() {
        let mut accounts = member.accounts().await?;
        for (table, _) in &tables {
            let own = if place == 0 { row(1, "only a") } else { row(2, "only b") };
            accounts.of(table).insert_all(&[own, row(3, "both"), row(4, member.name)]).await?;
        }
    }
    pair.start().await?;
    copied(&pair).await?;
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    let mut accounts = pair.members[0].accounts().await?;
    for (strategy, (table, _)) in strategies.iter().zip(&tables) {
        let entries: Vec<_> = conflicts.iter().filter(|conflict| conflict["table"] == table.as_str()).collect();
        ensure!(entries.len() == 1, "{table}: {entries:#?}");
        let entry = entries[0];
        let (winner, loser) = (writer(entry, "winner"), writer(entry, "loser"));
        ensure!(entry["kind"] == "seed" && entry["key"]["id"] == 4, "{table}: {entry:#}");
        // A copied row has no time, so ties decide: b has the higher priority.
        let expected: &[&str] = if *strategy == "manual" { &["a", "b"] } else { &["b"] };
        ensure!(expected.contains(&winner) && loser != winner && ["a", "b"].contains(&loser), "{table}: {entry:#}");
        ensure!(entry["open"] == (*strategy == "manual"), "{table}: {entry:#}");
        let writers: Vec<_> = accounts.of(table).all().await?.into_iter().map(|row| row.writer).collect();
        ensure!(writers == ["only a", "only b", "both", winner], "{table}: {writers:?}");
    }
    ensure!(conflicts.len() == tables.len(), "{conflicts:#?}");
    // A person may decide otherwise.
    let open = conflicts.iter().find(|conflict| conflict["open"] == true).context("an open entry")?;
    let shown = pair.worker.expect(0, &["conflicts", "show", &open["id"].to_string()]).await?;
    ensure!(shown.contains(" seed: ") && !shown.contains("infinity"), "{shown}");
    pair.worker.expect(0, &["conflicts", "decide", &open["id"].to_string(), "--loser"]).await?;
    pair.equal().await?;
    let now = accounts.of("t_manual").read(4).await?.context("the row")?;
    ensure!(now.writer == writer(open, "loser"), "{now:?}");
    let log = pair.worker.log();
    for (table, _) in &tables {
        let told = |line: &&str| line.contains("the rows of all members are merged") && line.contains(table.as_str());
        let lines: Vec<_> = log.lines().filter(told).collect();
        ensure!(lines.len() == 2, "{table}: {lines:?}");
        ensure!(lines.iter().all(|line| line.contains("copied") && line.contains("differed")), "{lines:?}");
    }
    pair.finish().await
}

/// A column of a time that applications have set decides before priorities do.
async fn the_time_in_a_column_decides(kinds: &[Kind]) -> anyhow::Result<()> {
    let table = [("account".to_owned(), "timestamp_column = \"changed\"\n".to_owned())];
    let mut pair = TwoWay::with(kinds, "seed_times", SEED, &table).await?;
    // For each key the time at a and at b, and whose row stays.
    let cases =
        [("'2024-01-02'", "'2024-01-01'", "a"), ("'2024-01-01'", "'2024-01-02'", "b"), ("NULL", "'2024-01-01'", "b")];
    let cases = cases.into_iter().chain([("'2024-01-01'", "NULL", "a"), ("'2024-01-01'", "'2024-01-01'", "b")]);
    let cases: Vec<_> = cases.collect();
    for (place, member) in pair.members.iter().enumerate() {
        let mut connection = member.database.connect().await?;
        let kind = if member.database.kind == Kind::Mysql { "DATETIME(6)" } else { "TIMESTAMP" };
        connection.execute(&format!("ALTER TABLE account ADD COLUMN changed {kind}")).await?;
        for (number, (at_a, at_b, _)) in cases.iter().enumerate() {
            let time = if place == 0 { at_a } else { at_b };
            let sql = format!("INSERT INTO account VALUES ({number}, '{}', 1, 1, 1, {time})", member.name);
            connection.execute(&sql).await?;
        }
    }
    pair.start().await?;
    copied(&pair).await?;
    pair.equal().await?;
    let rows = pair.members[0].accounts().await?.all().await?;
    let conflicts = pair.conflicts().await?;
    for (number, (at_a, at_b, expected)) in cases.iter().enumerate() {
        let found = rows.iter().find(|row| usize::try_from(row.id) == Ok(number)).context("a row")?;
        ensure!(found.writer == *expected, "{at_a} at a, {at_b} at b: {found:?}");
        let entries: Vec<_> = conflicts.iter().filter(|conflict| conflict["key"]["id"] == number).collect();
        let right = |entry: &&Value| entry["kind"] == "seed" && writer(entry, "winner") == *expected;
        ensure!(entries.len() == 1 && entries.iter().all(right), "{at_a} at a, {at_b} at b: {entries:#?}");
    }
    ensure!(conflicts.len() == cases.len(), "{conflicts:#?}");
    pair.finish().await
}

/// Keys below this are written to while the rows are copied.
const WRITTEN: i64 = 40;
const KEYS: i64 = 3_000;

/// Who has which row at the start, by members: of some keys one alone, of some all the same, of some each another one.
fn at_start(id: i64, member: &str) -> Option<Account> {
    let own = format!("{member}{id}");
    match id % 8 {
        0 | 1 => Some(row(id, "all")),
        2 => (member == "a").then(|| row(id, &own)),
        3 => (member == "b").then(|| row(id, &own)),
        4 => (member != "b").then(|| row(id, "two")),
        5 => Some(row(id, &own)),
        6 => Some(row(id, if member == "c" { &own } else { "two" })),
        _ => (member != "a").then(|| row(id, &own)),
    }
}

/// The row that has no time and comes from the member that wins ties.
fn stays(id: i64) -> Option<Account> {
    ["b", "a", "c"].iter().find_map(|member| at_start(id, member))
}

async fn kills_and_writers_while_rows_are_merged(kinds: &[Kind]) -> anyhow::Result<()> {
    let seed = seed()?;
    let mut group = TwoWay::new(kinds, "seed_killed", SEED).await?;
    for member in &group.members {
        let rows: Vec<_> = (1..=KEYS).filter_map(|id| at_start(id, member.name)).collect();
        member.accounts().await?.insert_all(&rows).await?;
    }
    let mix = Mix { keys: WRITTEN - 1, told_apart: true, deletes: true, transactions: false, rate: 50 };
    let writers = group.writers(seed, mix);
    group.worker.start()?;
    for least in [200, 2_000] {
        let read = |tasks: &[sync_worker_engine::status::TaskStatus]| {
            let rows = tasks.iter().filter_map(|task| Some(task.snapshot.as_ref()?.rows));
            rows.sum::<u64>() >= least
        };
        group.worker.until("some rows to be copied", LIMIT, read).await?;
        group.worker.kill().await?;
        group.worker.start()?;
    }
    group.worker.until_streaming(LIMIT).await?;
    copied(&group).await?;
    writers.stop().await?;
    group.equal().await?;
    let conflicts = group.conflicts().await?;
    group.none_drifted(&conflicts).await?;
    let mut entries: BTreeMap<i64, Vec<&Value>> = BTreeMap::new();
    for conflict in &conflicts {
        entries.entry(conflict["key"]["id"].as_i64().context("a key")?).or_default().push(conflict);
    }
    let rows = group.members[0].accounts().await?.all().await?;
    let rows: BTreeMap<i64, Account> = rows.into_iter().map(|row| (row.id, row)).collect();
    for id in WRITTEN..=KEYS {
        let expected = stays(id);
        ensure!(rows.get(&id) == expected.as_ref(), "key {id}: {:?} instead of {expected:?}", rows.get(&id));
        let kept = expected.context("a row that stays")?.writer;
        let begun = ["a", "b", "c"].iter().filter_map(|member| at_start(id, member)).map(|row| row.writer);
        let lost: BTreeSet<String> = begun.filter(|writer| *writer != kept).collect();
        let found = entries.remove(&id).unwrap_or_default();
        ensure!(found.iter().all(|entry| entry["kind"] == "seed"), "key {id}: {found:#?}");
        let losers: BTreeSet<String> = found.iter().map(|entry| writer(entry, "loser").to_owned()).collect();
        ensure!(losers == lost, "key {id}: {losers:?} are on record instead of {lost:?}");
    }
    group.finish().await
}

async fn a_table_that_joins_is_merged_too(kinds: &[Kind]) -> anyhow::Result<()> {
    let tables = ["account", "late"].map(|table| (table.to_owned(), String::new()));
    let mut pair = TwoWay::with(kinds, "seed_joins", SEED, &tables).await?;
    let mut settings = pair.settings.clone();
    settings.pipelines[0].tables.retain(|table| table.name != "late");
    pair.worker.configure(&settings)?;
    for table in ["account", "late"] {
        for member in &pair.members {
            let mut accounts = member.accounts().await?;
            accounts.of(table).insert_all(&[row(1, "both"), row(2, member.name)]).await?;
        }
    }
    pair.start().await?;
    copied(&pair).await?;
    pair.settle().await?;
    ensure!(pair.conflicts().await?.len() == 1, "only the first table is merged");
    pair.worker.terminate().await?;
    settings.pipelines[0].tables.push(TableEntry::new("late"));
    pair.worker.configure(&settings)?;
    pair.start().await?;
    copied(&pair).await?;
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    let tables: BTreeSet<_> = conflicts.iter().filter_map(|conflict| conflict["table"].as_str()).collect();
    ensure!(conflicts.len() == 2 && tables.len() == 2, "{conflicts:#?}");
    ensure!(conflicts.iter().all(|conflict| conflict["kind"] == "seed"), "{conflicts:#?}");
    // It leaves, and what is written meanwhile is merged when it comes back.
    pair.worker.terminate().await?;
    let with = settings.clone();
    settings.pipelines[0].tables.retain(|table| table.name != "late");
    pair.worker.configure(&settings)?;
    pair.start().await?;
    for (member, id) in [(0, 3), (1, 4)] {
        let member = &pair.members[member];
        member.accounts().await?.of("late").insert_all(&[row(id, member.name), row(5, member.name)]).await?;
    }
    pair.at_rest().await?;
    pair.worker.terminate().await?;
    pair.worker.configure(&with)?;
    pair.start().await?;
    copied(&pair).await?;
    ensure!(pair.equal().await? == 5);
    ensure!(pair.conflicts().await?.len() == 3);
    pair.finish().await
}
