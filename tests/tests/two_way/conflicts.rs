//! Conflicts made on purpose: who wins, what is on record, what a person decides, what a member refuses.

use anyhow::{Context, bail, ensure};
use mongodb::bson::doc;
use std::time::Duration;
use sync_worker_tests::database::Database;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::two_way::{Account, Accounts, Change, TwoWay};

each_pair_of_any![
    every_kind_of_conflict_is_decided_by_every_strategy,
    what_a_member_refuses_waits_and_a_newer_version_replaces_it,
];

// A person gives a row as columns, which documents among themselves have not.
each_pair_with_a_table![a_person_decides_what_waits];

const LIMIT: Duration = Duration::from_secs(120);

const STRATEGIES: [&str; 5] = ["timestamp", "first_write", "priority", "reject", "manual"];
const ON_DELETE: [&str; 3] = ["by_strategy", "delete_wins", "update_wins"];

/// What the two members do about a key before either sees the other's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Insert,
    Update,
    Delete,
}

impl Act {
    async fn at(self, accounts: &mut Accounts, id: i64, writer: &str) -> anyhow::Result<()> {
        let done = match self {
            Act::Insert => {
                let row = Account { id, writer: writer.to_owned(), a: 1, b: 1, counter: 1 };
                accounts.insert(&row).await?
            }
            Act::Update => accounts.change(id, &Change::by(writer)).await?.is_some(),
            Act::Delete => accounts.delete(id).await?.is_some(),
        };
        ensure!(done, "{self:?} of key {id} by {writer} did nothing");
        Ok(())
    }
}

/// The first member's act and the second's, and what the conflict may be called: whichever comes first on the log is held.
const CONFLICTS: [(Act, Act, &[&str]); 5] = [
    (Act::Insert, Act::Insert, &["insert_exists"]),
    (Act::Update, Act::Update, &["update_origin_differs"]),
    (Act::Update, Act::Delete, &["update_deleted", "delete_origin_differs"]),
    (Act::Delete, Act::Update, &["update_deleted", "delete_origin_differs"]),
    (Act::Delete, Act::Delete, &["delete_missing"]),
];

/// The truth table: strategies and rules for deletes as tables, kinds of conflicts and who comes first as keys.
async fn every_kind_of_conflict_is_decided_by_every_strategy(kinds: &[Kind]) -> anyhow::Result<()> {
    let rules: Vec<_> =
        STRATEGIES.iter().flat_map(|strategy| ON_DELETE.map(|on_delete| (*strategy, on_delete))).collect();
    let name = |(strategy, on_delete): &(&str, &str)| format!("t_{strategy}_{on_delete}");
    let lines = |(strategy, on_delete): &(&str, &str)| format!("strategy = {strategy:?}\non_delete = {on_delete:?}\n");
    let tables: Vec<_> = rules.iter().map(|rule| (name(rule), lines(rule))).collect();
    let mut pair = TwoWay::with(kinds, "truth", "seed = \"a\"\n", &tables).await?;
    // Key, who is first, and the two acts.
    let mut cases = Vec::new();
    for (number, (first, second, called)) in CONFLICTS.iter().enumerate() {
        for leader in [0, 1] {
            cases.push((i64::try_from(number * 2 + leader + 1)?, leader, *first, *second, *called));
        }
    }
    let mut at_first = pair.members[0].accounts().await?;
    for (table, _) in &tables {
        for (id, _, first, ..) in &cases {
            if *first != Act::Insert {
                Act::Insert.at(at_first.of(table), *id, "seeded").await?;
            }
        }
    }
    pair.start().await?;
    pair.settle().await?;
    pair.worker.pause(true).await?;
    // All that come first, at both members, before all that come second.
    for is_first in [true, false] {
        for (place, member) in pair.members.iter().enumerate() {
            let mut accounts = member.accounts().await?;
            for (table, _) in &tables {
                for (id, leader, first, second, _) in &cases {
                    if (*leader == place) == is_first {
                        let act = if is_first { first } else { second };
                        act.at(accounts.of(table), *id, member.name).await?;
                    }
                }
            }
        }
    }
    pair.worker.pause(false).await?;
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    for (rule, (table, _)) in rules.iter().zip(&tables) {
        let rows = at_first.of(table).all().await?;
        for (id, leader, first, second, called) in &cases {
            let found = rows.iter().find(|row| row.id == *id).map(|row| row.writer.clone());
            let members = [NAMES[*leader], NAMES[1 - leader]];
            let after = [(*first, members[0]), (*second, members[1])].map(|(act, member)| match act {
                Act::Insert | Act::Update => Some(member.to_owned()),
                Act::Delete => None,
            });
            let expected = outcome(*rule, &after, members);
            let what = format!("{table} key {id}: {first:?} at {} and {second:?} at {}", members[0], members[1]);
            match expected {
                Some(expected) => ensure!(found == expected, "{what}: {found:?} instead of {expected:?}"),
                None => ensure!(after.contains(&found), "{what}: {found:?} is neither's"),
            }
            let entries: Vec<_> = conflicts
                .iter()
                .filter(|conflict| conflict["table"] == table.as_str() && conflict["key"]["id"] == *id)
                .collect();
            ensure!(entries.len() == 1, "{what}: {entries:#?}");
            let kind = entries[0]["kind"].as_str().unwrap_or_default();
            ensure!(called.contains(&kind), "{what}: it is called {kind}");
            let by_delete = after[0].is_none() != after[1].is_none() && rule.1 != "by_strategy";
            let open = rule.0 == "manual" && !by_delete;
            ensure!(entries[0]["open"] == open, "{what}: {:#?}", entries[0]);
        }
    }
    pair.finish().await
}

const NAMES: [&str; 2] = ["a", "b"];

/// What the row must be in the end, by its writer; None where it depends on which comes first on the log.
fn outcome(
    (strategy, on_delete): (&str, &str),
    after: &[Option<String>; 2],
    members: [&str; 2],
) -> Option<Option<String>> {
    let [first, second] = after;
    if first.is_none() != second.is_none() {
        match on_delete {
            "delete_wins" => return Some(None),
            "update_wins" => return Some(first.clone().or(second.clone())),
            _ => {}
        }
    }
    match strategy {
        "timestamp" => Some(second.clone()),
        "first_write" => Some(first.clone()),
        // b has the higher one.
        "priority" => Some(if members[0] == "b" { first.clone() } else { second.clone() }),
        _ => None,
    }
}

/// What `manual` leaves open a person decides: every member gets the choice, once, and not over a newer row unless that is
/// what is asked for.
async fn a_person_decides_what_waits(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "decide", "seed = \"a\"\nstrategy = \"manual\"\n").await?;
    let mut at_a = pair.members[0].accounts().await?;
    let mut at_b = pair.members[1].accounts().await?;
    at_a.insert_all(&[1, 2, 3, 4].map(|id| Account { id, ..Account::default() })).await?;
    pair.start().await?;
    pair.settle().await?;
    pair.worker.pause(true).await?;
    for id in 1..=4 {
        at_a.change(id, &Change::by("a")).await?.context("the seeded row")?;
        at_b.change(id, &Change::by("b")).await?.context("the copied row")?;
    }
    pair.worker.pause(false).await?;
    pair.equal().await?;
    let open = pair.conflicts().await?;
    ensure!(open.len() == 4 && open.iter().all(|conflict| conflict["open"] == true), "{open:#?}");
    // It ends with 1 while somebody has to decide.
    let listed = pair.worker.expect(1, &["conflicts", "list", "--open", "--json"]).await?;
    ensure!(listed.matches("\"open\": true").count() == 4, "{listed}");
    let of = |id: i64| {
        let found = open.iter().find(|conflict| conflict["key"]["id"] == id).context("an entry for each key")?;
        anyhow::Ok((found["id"].to_string(), found["loser"]["row"]["writer"].as_str().unwrap_or_default()))
    };
    let ((first, loser), (second, _), (third, third_loser), (fourth, _)) = (of(1)?, of(2)?, of(3)?, of(4)?);
    pair.worker.expect(0, &["conflicts", "decide", &first, "--loser"]).await?;
    pair.worker.expect(0, &["conflicts", "decide", &second, "--row", r#"{"writer": "somebody", "a": 5}"#]).await?;
    // Somebody has written since: the person has seen another row.
    for id in 3..=4 {
        at_b.change(id, &Change::by("newer")).await?;
    }
    pair.settle().await?;
    let refused = pair.worker.expect(1, &["conflicts", "decide", &third, "--loser"]).await?;
    ensure!(refused.contains("has changed since"), "{refused}");
    let shown = pair.worker.expect(0, &["conflicts", "show", &third, "--json"]).await?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    ensure!(shown["conflict"]["now"]["row"]["writer"] == "newer", "{shown:#}");
    pair.equal().await?;
    let rows: Vec<String> = at_a.all().await?.iter().map(|row| format!("{} {}", row.writer, row.a)).collect();
    let expected = [&format!("{loser} 0"), "somebody 5", "newer 0", "newer 0"];
    ensure!(rows == expected, "{rows:?}");
    let left = pair.conflicts().await?;
    let keys_of_open = |left: &[serde_json::Value]| {
        let open = left.iter().filter(|conflict| conflict["open"] == true);
        let mut keys: Vec<_> = open.filter_map(|one| one["key"]["id"].as_i64()).collect();
        keys.sort_unstable();
        keys
    };
    ensure!(keys_of_open(&left) == [3, 4], "{:?} are open", keys_of_open(&left));
    let image = shown["conflict"]["now"]["image"].as_str().context("the row's image")?;
    // Another row than the one that stands there is none that the person has seen.
    let refused = pair.worker.expect(1, &["conflicts", "decide", &third, "--loser", "--now", "none"]).await?;
    ensure!(refused.contains("has changed since"), "{refused}");
    pair.worker.expect(0, &["conflicts", "decide", &third, "--loser", "--now", image]).await?;
    pair.worker.expect(0, &["conflicts", "decide", &fourth, "--keep"]).await?;
    pair.equal().await?;
    let rows: Vec<String> = at_b.all().await?.into_iter().map(|row| row.writer).collect();
    ensure!(rows == [loser, "somebody", third_loser, "newer"], "{rows:?}");
    let left = pair.conflicts().await?;
    ensure!(keys_of_open(&left).is_empty(), "{:?} are open", keys_of_open(&left));
    pair.finish().await
}

/// A rule that one member has alone.
async fn takes_small_counters(database: &Database) -> anyhow::Result<()> {
    if database.kind == Kind::Mongodb {
        let rule = doc! { "collMod": "account", "validator": { "counter": { "$lt": 100 } } };
        database.documents().await?.run_command(rule).await?;
        return Ok(());
    }
    database.execute("ALTER TABLE account ADD CONSTRAINT few CHECK (counter < 100)").await
}

async fn what_a_member_refuses_waits_and_a_newer_version_replaces_it(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "refused", "seed = \"a\"\n").await?;
    takes_small_counters(&pair.members[1].database).await?;
    let mut at_a = pair.members[0].accounts().await?;
    let mut at_b = pair.members[1].accounts().await?;
    at_a.insert_all(&[1, 2].map(|id| Account { id, ..Account::default() })).await?;
    pair.start().await?;
    pair.settle().await?;
    at_a.change(1, &Change::adding(500)).await?;
    at_a.change(2, &Change { a: Some(1), ..Change::default() }).await?;
    pair.worker
        .until("the refused row to be parked", LIMIT, |tasks| {
            tasks.iter().any(|task| task.database == "b" && task.parked == 1)
        })
        .await?;
    let row = at_b.read(1).await?.context("the copied row")?;
    ensure!(row.counter == 0, "it was refused, and there is {row:?}");
    let refusal = async |pair: &mut TwoWay, id: i64| {
        let found = pair.conflicts().await?.into_iter().filter(|one| one["key"]["id"] == id);
        let [one] = &found.collect::<Vec<_>>()[..] else { bail!("one entry for key {id}") };
        ensure!(one["kind"] == "constraint" && one["at"] == "b" && one["column"].is_null(), "{one}");
        Ok(one.clone())
    };
    let open = refusal(&mut pair, 1).await?;
    ensure!(open["open"] == true && open["winner"]["row"]["counter"] == 500, "{open}");
    let said = pair.worker.expect(1, &["conflicts", "decide", &open["id"].to_string(), "--loser"]).await?;
    ensure!(said.contains("b refuses the row"), "{said}");
    at_a.change(1, &Change::adding(-495)).await?;
    pair.equal().await?;
    pair.worker.until("nothing to be parked", LIMIT, |tasks| tasks.iter().all(|task| task.parked == 0)).await?;
    let closed = refusal(&mut pair, 1).await?;
    ensure!(closed["open"] == false && closed["decided_by"] == "worker", "{closed}");
    // One that is given up leaves the member different, and that is on record.
    at_a.change(2, &Change::adding(700)).await?;
    pair.worker
        .until("the next one to be parked", LIMIT, |tasks| {
            tasks.iter().any(|task| task.database == "b" && task.parked == 1)
        })
        .await?;
    ensure!(refusal(&mut pair, 2).await?["open"] == true, "nobody has decided");
    pair.worker.expect(0, &["dead-letters", "drop", "--pipeline", "shared", "--database", "b", "--all"]).await?;
    let closed = refusal(&mut pair, 2).await?;
    ensure!(closed["open"] == false && closed["decided_by"] == "person", "{closed}");
    at_a.change(2, &Change::adding(-700)).await?;
    pair.equal().await?;
    pair.finish().await
}

/// A row that is changed behind capture's back is on record, and corrected by the next version of its key.
#[tokio::test]
async fn a_drifted_row_is_recorded_and_corrected() -> anyhow::Result<()> {
    for kinds in [[Kind::Postgres, Kind::Mysql], [Kind::Mysql, Kind::Mysql]] {
        let mut pair = TwoWay::new(&kinds, "drift", "seed = \"a\"\n").await?;
        pair.members[0].database.execute("INSERT INTO account VALUES (1, '', 0, 0, 0), (2, '', 0, 0, 0)").await?;
        pair.start().await?;
        pair.settle().await?;
        let mut hidden = pair.members[1].database.connect().await?;
        hidden.execute("SET SESSION sql_log_bin = 0").await?;
        hidden.execute("UPDATE account SET a = 77 WHERE id = 1").await?;
        hidden.execute("DELETE FROM account WHERE id = 2").await?;
        pair.members[0].database.execute("UPDATE account SET b = 1 WHERE id IN (1, 2)").await?;
        pair.equal().await?;
        let mut conflicts = pair.conflicts().await?;
        conflicts.sort_by_key(|conflict| conflict["key"]["id"].as_i64());
        let of_b = |conflict: &&serde_json::Value| {
            conflict["kind"] == "drift" && conflict["loser"]["by"] == "b" && conflict["open"] == false
        };
        let lost: Vec<_> = conflicts.iter().filter(of_b).map(|conflict| &conflict["loser"]["row"]).collect();
        ensure!(lost.len() == 2 && lost[0]["a"] == 77 && lost[1].is_null(), "{conflicts:#?}");
        ensure!(pair.members[1].database.number("SELECT a FROM account WHERE id = 1").await? == 0, "it is corrected");
        // What stood there is not lost: a person may take it.
        pair.worker.expect(0, &["conflicts", "decide", &conflicts[0]["id"].to_string(), "--loser"]).await?;
        pair.equal().await?;
        for member in &pair.members {
            ensure!(member.database.number("SELECT a FROM account WHERE id = 1").await? == 77, "{}", member.name);
        }
        pair.finish().await?;
    }
    Ok(())
}

/// A column that applications set with each write decides in place of the commits' clocks.
#[tokio::test]
async fn the_column_that_says_when_a_row_was_changed_decides() -> anyhow::Result<()> {
    let table = ("account".to_owned(), "timestamp_column = \"changed\"\n".to_owned());
    let mut pair = TwoWay::with(&[Kind::Postgres, Kind::Mysql], "changed", "seed = \"a\"\n", &[table]).await?;
    for (member, kind) in pair.members.iter().zip(["timestamp(6)", "datetime(6)"]) {
        member.database.execute(&format!("ALTER TABLE account ADD COLUMN changed {kind}")).await?;
    }
    let rows = "INSERT INTO account (id, writer, a, b, counter) VALUES (1, '', 0, 0, 0), (2, '', 0, 0, 0)";
    pair.members[0].database.execute(rows).await?;
    pair.start().await?;
    pair.settle().await?;
    pair.worker.pause(true).await?;
    let [a, b] = [0, 1].map(|at| &pair.members[at].database);
    a.execute("UPDATE account SET writer = 'later', changed = '2030-01-01 00:00:00' WHERE id = 1").await?;
    b.execute("UPDATE account SET writer = 'earlier', changed = '2020-01-01 00:00:00' WHERE id = 1").await?;
    // A row without the time, and a delete, have that of their commit.
    a.execute("UPDATE account SET writer = 'future', changed = '2999-01-01 00:00:00' WHERE id = 2").await?;
    b.execute("DELETE FROM account WHERE id = 2").await?;
    pair.worker.pause(false).await?;
    pair.equal().await?;
    let rows = pair.members[1].database.connect().await?.rows("SELECT writer FROM account ORDER BY id").await?;
    let writers: Vec<String> = rows.into_iter().flatten().flatten().collect();
    ensure!(writers == ["later", "future"], "{writers:?}");
    let conflicts = pair.conflicts().await?;
    let times: Vec<&str> = conflicts.iter().filter_map(|conflict| conflict["winner"]["commit_time"].as_str()).collect();
    ensure!(conflicts.len() == 2 && times.iter().any(|time| time.starts_with("2030-01-01")), "{conflicts:#?}");
    pair.finish().await
}
