//! Two-way pipelines on real servers.

use anyhow::ensure;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;
use sync_worker_tests::two_way::{Member, Mix, TwoWay};

/// One test for each pair of kinds.
macro_rules! each_pair {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use super::Kind;

            #[tokio::test]
            async fn postgres_and_postgres() -> anyhow::Result<()> {
                super::$test(&[Kind::Postgres, Kind::Postgres]).await
            }

            #[tokio::test]
            async fn postgres_and_mysql() -> anyhow::Result<()> {
                super::$test(&[Kind::Postgres, Kind::Mysql]).await
            }

            #[tokio::test]
            async fn mysql_and_mysql() -> anyhow::Result<()> {
                super::$test(&[Kind::Mysql, Kind::Mysql]).await
            }
        }
    )+};
}

each_pair![
    rows_travel_both_ways_and_come_to_rest,
    concurrent_writers_converge,
    a_kill_loses_and_repeats_nothing,
    every_kind_of_conflict_is_decided_by_every_strategy,
    counters_and_disjoint_columns_lose_nothing,
    a_person_decides_what_waits,
    what_a_member_refuses_waits_and_a_newer_version_replaces_it,
];

/// Without conflicts: what one member writes the other has, seeded rows too, and then nobody writes any more.
async fn rows_travel_both_ways_and_come_to_rest(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "both", "seed = \"a\"\n").await?;
    pair.members[0]
        .database
        .execute("INSERT INTO account VALUES (1, 'seeded', 0, 0, 0), (2, 'seeded', 0, 0, 0)")
        .await?;
    pair.start().await?;
    pair.settle().await?;
    let [a, b] = &pair.members[..] else { anyhow::bail!("two members") };
    a.database.execute("INSERT INTO account VALUES (10, 'a', 1, 1, 1)").await?;
    b.database.execute("INSERT INTO account VALUES (20, 'b', 1, 1, 1)").await?;
    b.database.execute("UPDATE account SET writer = 'b' WHERE id = 1").await?;
    pair.settle().await?;
    let [a, b] = &pair.members[..] else { anyhow::bail!("two members") };
    a.database.execute("UPDATE account SET a = 7 WHERE id = 20").await?;
    a.database.execute("UPDATE account SET id = 11 WHERE id = 10").await?;
    b.database.execute("DELETE FROM account WHERE id = 2").await?;
    pair.equal().await?;
    let [a, _] = &pair.members[..] else { anyhow::bail!("two members") };
    let ids = a.database.connect().await?.rows("SELECT id, writer, a FROM account ORDER BY id").await?;
    let ids: Vec<String> = ids.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
    ensure!(ids == ["1 b 0", "11 a 1", "20 b 7"], "{ids:?}");
    let conflicts = pair.conflicts().await?;
    ensure!(conflicts.is_empty(), "there was no conflict, and the ledger has {conflicts:#?}");
    // What came to rest stays there: a marker that moved for an echo would move for ever.
    let before = pair.written().await?;
    pair.at_rest().await?;
    ensure!(pair.written().await? == before, "somebody was written to: {before:?}, {:?}", pair.written().await?);
    pair.finish().await
}

async fn concurrent_writers_converge(kinds: &[Kind]) -> anyhow::Result<()> {
    let seed = seed()?;
    for told_apart in [true, false] {
        let mut pair = TwoWay::new(kinds, "conflict", "seed = \"none\"\n").await?;
        pair.start().await?;
        let writers = pair.writers(seed, Mix { keys: 8, told_apart, deletes: true, rate: 200 });
        writers.until(2_000).await?;
        let written = writers.stop().await?;
        pair.equal().await?;
        let conflicts = pair.conflicts().await?;
        println!("{written} writes, {} conflicts", conflicts.len());
        ensure!(!conflicts.is_empty(), "no conflict in {written} writes");
        none_drifted(&pair, &conflicts).await?;
        pair.finish().await?;
    }
    Ok(())
}

async fn a_kill_loses_and_repeats_nothing(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "killed", "seed = \"none\"\n").await?;
    pair.start().await?;
    let writers = pair.writers(seed()?, Mix { keys: 20, told_apart: true, deletes: true, rate: 200 });
    for round in 1..=5 {
        writers.until(round * 300).await?;
        pair.worker.kill().await?;
        writers.until(round * 300 + 100).await?;
        pair.worker.start()?;
    }
    writers.stop().await?;
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    none_drifted(&pair, &conflicts).await?;
    pair.finish().await
}

/// Nobody writes behind capture's back here.
async fn none_drifted(pair: &TwoWay, conflicts: &[serde_json::Value]) -> anyhow::Result<()> {
    // The first of them: what follows may come of it.
    let Some(drifted) = conflicts.iter().rfind(|conflict| conflict["kind"] == "drift") else { return Ok(()) };
    let (key, offset) = (&drifted["key"]["id"], drifted["offset"].as_u64().unwrap_or(0));
    anyhow::bail!("called drifted: {drifted:#}\n{}", pair.history(key, offset).await?)
}

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
    fn statement(self, table: &str, id: i64, member: &str) -> String {
        match self {
            Act::Insert => format!("INSERT INTO {table} VALUES ({id}, '{member}', 1, 1, 1)"),
            Act::Update => format!("UPDATE {table} SET writer = '{member}' WHERE id = {id}"),
            Act::Delete => format!("DELETE FROM {table} WHERE id = {id}"),
        }
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
    for (table, _) in &tables {
        for (id, _, first, ..) in &cases {
            if *first != Act::Insert {
                pair.members[0].database.execute(&Act::Insert.statement(table, *id, "seeded")).await?;
            }
        }
    }
    pair.start().await?;
    pair.settle().await?;
    pair.worker.pause(true).await?;
    // All that come first, at both members, before all that come second.
    for is_first in [true, false] {
        for (place, Member { name, database }) in pair.members.iter().enumerate() {
            let mut connection = database.connect().await?;
            for (table, _) in &tables {
                for (id, leader, first, second, _) in &cases {
                    if (*leader == place) == is_first {
                        let act = if is_first { first } else { second };
                        connection.execute(&act.statement(table, *id, name)).await?;
                    }
                }
            }
        }
    }
    pair.worker.pause(false).await?;
    pair.equal().await?;
    let conflicts = pair.conflicts().await?;
    for (rule, (table, _)) in rules.iter().zip(&tables) {
        let rows = pair.members[0].database.connect().await?.rows(&format!("SELECT id, writer FROM {table}")).await?;
        for (id, leader, first, second, called) in &cases {
            let found = rows.iter().find(|row| row[0] == Some(id.to_string())).and_then(|row| row[1].clone());
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

/// `merge` with a counter: what each member adds is added, through a kill; columns that only one member writes are as it
/// wrote them last.
async fn counters_and_disjoint_columns_lose_nothing(kinds: &[Kind]) -> anyhow::Result<()> {
    let lines = "seed = \"a\"\nstrategy = \"merge\"\n";
    let table = ("account".to_owned(), "delta = [\"counter\"]\n".to_owned());
    let mut pair = TwoWay::with(kinds, "delta", lines, &[table]).await?;
    const KEYS: i64 = 5;
    for id in 1..=KEYS {
        pair.members[0].database.execute(&format!("INSERT INTO account VALUES ({id}, '', 0, 0, 0)")).await?;
    }
    pair.start().await?;
    pair.settle().await?;
    let mut writers = tokio::task::JoinSet::new();
    for (place, member) in pair.members.iter().enumerate() {
        let mut connection = member.database.connect().await?;
        let column = ["a", "b"][place];
        writers.spawn(async move {
            let mut last = vec![0; KEYS as usize];
            let mut sums = vec![0; KEYS as usize];
            for number in 1..=600_i64 {
                let id = number * 7 % KEYS;
                // Up, down, and back through zero.
                let step = [3, -2, 1, -4, 2][(number % 5) as usize] * if place == 0 { 1 } else { -1 };
                let sql =
                    format!("UPDATE account SET {column} = {number}, counter = counter + {step} WHERE id = {}", id + 1);
                while let Err(error) = connection.execute(&sql).await {
                    // A deadlock with the worker is repeated by whoever it hit.
                    ensure!(sync_worker_tests::two_way::is_conflict(&error), "{error:#}");
                }
                last[id as usize] = number;
                sums[id as usize] += step;
            }
            anyhow::Ok((place, last, sums))
        });
    }
    pair.worker.kill().await?;
    pair.worker.start()?;
    let mut expected = vec![[0; 3]; KEYS as usize];
    while let Some(done) = writers.join_next().await {
        let (place, last, sums) = done??;
        for (id, row) in expected.iter_mut().enumerate() {
            row[place] = last[id];
            row[2] += sums[id];
        }
    }
    pair.equal().await?;
    let rows = pair.members[0].database.connect().await?.rows("SELECT a, b, counter FROM account ORDER BY id").await?;
    let number = |text: Option<String>| text.unwrap_or_default().parse().unwrap_or(i64::MIN);
    let found: Vec<[i64; 3]> =
        rows.into_iter().filter_map(|row| row.into_iter().map(number).collect::<Vec<_>>().try_into().ok()).collect();
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    pair.finish().await
}

/// What `manual` leaves open a person decides: every member gets the choice, once, and not over a newer row.
async fn a_person_decides_what_waits(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "decide", "seed = \"a\"\nstrategy = \"manual\"\n").await?;
    pair.members[0]
        .database
        .execute("INSERT INTO account VALUES (1, '', 0, 0, 0), (2, '', 0, 0, 0), (3, '', 0, 0, 0)")
        .await?;
    pair.start().await?;
    pair.settle().await?;
    pair.worker.pause(true).await?;
    let [a, b] = [0, 1].map(|at| &pair.members[at]);
    for member in [a, b] {
        member.database.execute(&format!("UPDATE account SET writer = '{}'", member.name)).await?;
    }
    pair.worker.pause(false).await?;
    pair.equal().await?;
    let open = pair.conflicts().await?;
    ensure!(open.len() == 3 && open.iter().all(|conflict| conflict["open"] == true), "{open:#?}");
    let of = |id: i64| {
        let found = open.iter().find(|conflict| conflict["key"]["id"] == id);
        found.map(|conflict| (conflict["id"].to_string(), conflict["loser"]["row"]["writer"].to_string()))
    };
    let ((first, loser), (second, _), (third, _)) = (of(1).unwrap(), of(2).unwrap(), of(3).unwrap());
    pair.worker.expect(0, &["conflicts", "decide", &first, "--loser"]).await?;
    pair.worker.expect(0, &["conflicts", "decide", &second, "--row", r#"{"writer": "somebody", "a": 5}"#]).await?;
    // Somebody has written since: the person has seen another row.
    pair.members[1].database.execute("UPDATE account SET writer = 'newer' WHERE id = 3").await?;
    pair.settle().await?;
    let refused = pair.worker.expect(1, &["conflicts", "decide", &third, "--loser"]).await?;
    ensure!(refused.contains("has changed since"), "{refused}");
    pair.equal().await?;
    let rows = pair.members[0].database.connect().await?.rows("SELECT writer, a FROM account ORDER BY id").await?;
    let rows: Vec<String> =
        rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
    let loser = loser.trim_matches('"');
    ensure!(rows == [format!("{loser} 0"), "somebody 5".to_owned(), "newer 0".to_owned()], "{rows:?}");
    let left = pair.conflicts().await?;
    let open: Vec<_> =
        left.iter().filter(|conflict| conflict["open"] == true).map(|one| one["key"]["id"].clone()).collect();
    ensure!(open == [3], "{open:?} are open");
    pair.finish().await
}

/// A constraint that one member has alone.
async fn what_a_member_refuses_waits_and_a_newer_version_replaces_it(kinds: &[Kind]) -> anyhow::Result<()> {
    let mut pair = TwoWay::new(kinds, "refused", "seed = \"a\"\n").await?;
    pair.members[1].database.execute("ALTER TABLE account ADD CONSTRAINT few CHECK (counter < 100)").await?;
    pair.members[0].database.execute("INSERT INTO account VALUES (1, '', 0, 0, 0), (2, '', 0, 0, 0)").await?;
    pair.start().await?;
    pair.settle().await?;
    let [a, b] = [0, 1].map(|at| &pair.members[at]);
    a.database.execute("UPDATE account SET counter = 500 WHERE id = 1").await?;
    a.database.execute("UPDATE account SET a = 1 WHERE id = 2").await?;
    pair.worker
        .until("the refused row to be parked", std::time::Duration::from_secs(30), |tasks| {
            tasks.iter().any(|task| task.database == "b" && task.parked == 1)
        })
        .await?;
    ensure!(b.database.number("SELECT counter FROM account WHERE id = 1").await? == 0, "it was refused");
    a.database.execute("UPDATE account SET counter = 5 WHERE id = 1").await?;
    pair.equal().await?;
    pair.worker
        .until("nothing to be parked", std::time::Duration::from_secs(30), |tasks| {
            tasks.iter().all(|task| task.parked == 0)
        })
        .await?;
    ensure!(pair.conflicts().await?.is_empty(), "a refusal is no conflict of writes");
    pair.finish().await
}

/// A row that is changed behind capture's back is on record, and corrected by the next version of its key.
#[tokio::test]
async fn a_drifted_row_is_recorded_and_corrected() -> anyhow::Result<()> {
    for kinds in [[Kind::Postgres, Kind::Mysql], [Kind::Mysql, Kind::Mysql]] {
        let mut pair = TwoWay::new(&kinds, "drift", "seed = \"a\"\n").await?;
        pair.members[0].database.execute("INSERT INTO account VALUES (1, '', 0, 0, 0)").await?;
        pair.start().await?;
        pair.settle().await?;
        let mut hidden = pair.members[1].database.connect().await?;
        hidden.execute("SET SESSION sql_log_bin = 0").await?;
        hidden.execute("UPDATE account SET a = 77 WHERE id = 1").await?;
        pair.members[0].database.execute("UPDATE account SET b = 1 WHERE id = 1").await?;
        pair.equal().await?;
        let kinds: Vec<_> = pair.conflicts().await?.iter().map(|conflict| conflict["kind"].clone()).collect();
        ensure!(kinds == ["drift"], "{kinds:?}");
        ensure!(pair.members[1].database.number("SELECT a FROM account WHERE id = 1").await? == 0, "it is corrected");
        pair.finish().await?;
    }
    Ok(())
}

/// The sets of members with MongoDB: what is told by values alone, and the pair of kinds by kill.
mod with_documents {
    use super::Kind::{Mongodb, Mysql, Postgres};

    #[tokio::test]
    async fn concurrent_writers_converge_postgres_and_mongodb() -> anyhow::Result<()> {
        super::concurrent_writers_converge(&[Postgres, Mongodb]).await
    }

    #[tokio::test]
    async fn concurrent_writers_converge_mysql_and_mongodb() -> anyhow::Result<()> {
        super::concurrent_writers_converge(&[Mysql, Mongodb]).await
    }

    #[tokio::test]
    async fn concurrent_writers_converge_mongodb_and_mongodb() -> anyhow::Result<()> {
        super::concurrent_writers_converge(&[Mongodb, Mongodb]).await
    }

    #[tokio::test]
    async fn all_three_survive_kills() -> anyhow::Result<()> {
        super::a_kill_loses_and_repeats_nothing(&[Postgres, Mysql, Mongodb]).await
    }
}

/// `make convergence` has more of the same, for each pair and the triple.
mod convergence {
    use super::Kind::{Mongodb, Mysql, Postgres};
    use sync_worker_tests::convergence::{Settings, run};
    use sync_worker_tests::seed::seed;

    #[tokio::test]
    async fn every_write_is_accounted_for() -> anyhow::Result<()> {
        converges(true, false).await
    }

    #[tokio::test]
    async fn few_values_and_hidden_writes() -> anyhow::Result<()> {
        converges(false, true).await
    }

    async fn converges(told_apart: bool, hidden: bool) -> anyhow::Result<()> {
        let kinds = vec![Postgres, Mysql, Mongodb];
        let report = run(&Settings { kinds, seed: seed()?, writes: 4_000, told_apart, hidden }, |_| {}).await?;
        println!("{report}");
        anyhow::ensure!(report.problems.is_empty(), "{:#?}", report.problems);
        Ok(())
    }
}
