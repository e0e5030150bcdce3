//! `merge`: what each member adds to a counter is added, and columns that only one of them writes are as it wrote them.

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;
use sync_worker_tests::two_way::{Account, Accounts, Change, TwoWay};
use tokio::task::JoinSet;

// Documents among themselves have no columns that could be merged.
each_pair_with_a_table![counters_and_disjoint_columns_lose_nothing];
each_pair_with_a_table![
    a_group_of_columns_stays_as_one_write_made_it,
    a_person_decides_about_columns_and_the_rest_stays,
];

members! { counters_count_through_deletes_and_inserts:
    postgres_and_postgres of Postgres Postgres,
    postgres_and_mysql of Postgres Mysql,
    mysql_and_mysql of Mysql Mysql,
    postgres_and_mongodb of Postgres Mongodb,
    mysql_and_mongodb of Mysql Mongodb,
    all_three of Postgres Mysql Mongodb,
}

const MERGE: &str = "seed = \"a\"\nstrategy = \"merge\"\n";

/// Members that merge, with rows of 0 under these keys.
async fn merging(kinds: &[Kind], label: &str, ids: impl Iterator<Item = i64>) -> anyhow::Result<TwoWay> {
    merging_by(kinds, label, "delta = [\"counter\"]\n", ids).await
}

async fn merging_by(
    kinds: &[Kind],
    label: &str,
    rules: &str,
    ids: impl Iterator<Item = i64>,
) -> anyhow::Result<TwoWay> {
    let table = ("account".to_owned(), rules.to_owned());
    let mut group = TwoWay::with(kinds, label, MERGE, &[table]).await?;
    let rows: Vec<Account> = ids.map(|id| Account { id, ..Account::default() }).collect();
    group.members[0].accounts().await?.insert_all(&rows).await?;
    group.start().await?;
    group.settle().await?;
    Ok(group)
}

/// Through a kill.
async fn counters_and_disjoint_columns_lose_nothing(kinds: &[Kind]) -> anyhow::Result<()> {
    const KEYS: usize = 5;
    let mut pair = merging(kinds, "delta", 1..=5).await?;
    let mut writers = JoinSet::new();
    for (place, member) in pair.members.iter().enumerate() {
        let mut accounts = member.accounts().await?;
        writers.spawn(async move {
            let (mut last, mut sums) = ([0; KEYS], [0; KEYS]);
            for number in 1..=600_i32 {
                let key = number as usize * 7 % KEYS;
                // Up, down, and back through zero.
                let step = [3, -2, 1, -4, 2][number as usize % 5] * if place == 0 { 1 } else { -1 };
                let change = match place {
                    0 => Change { a: Some(number), ..Change::adding(step) },
                    _ => Change { b: Some(number), ..Change::adding(step) },
                };
                accounts.change(key as i64 + 1, &change).await?.context("a row is gone that nobody deletes")?;
                last[key] = i64::from(number);
                sums[key] += step;
            }
            anyhow::Ok((place, last, sums))
        });
    }
    pair.worker.kill().await?;
    pair.worker.start()?;
    let mut expected = vec![[0; 3]; KEYS];
    while let Some(done) = writers.join_next().await {
        let (place, last, sums) = done??;
        for (key, row) in expected.iter_mut().enumerate() {
            row[place] = last[key];
            row[2] += sums[key];
        }
    }
    pair.equal().await?;
    let rows = pair.members[0].accounts().await?.all().await?;
    let found: Vec<[i64; 3]> = rows.iter().map(|row| [row.a.into(), row.b.into(), row.counter]).collect();
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    pair.finish().await
}

/// Each member writes one column of the group, the other one or both, while the other does, through a kill: what is left was
/// written by somebody as it is, what lost is on record by the group's rule, and the counter beside it is exact.
async fn a_group_of_columns_stays_as_one_write_made_it(kinds: &[Kind]) -> anyhow::Result<()> {
    const KEYS: i64 = 4;
    let rules = "delta = [\"counter\"]\ngroups = [{ columns = [\"a\", \"b\"], contested = \"first_write\" }]\n";
    let mut pair = merging_by(kinds, "group", rules, 1..=KEYS).await?;
    let mut writers = JoinSet::new();
    for (place, member) in (0..).zip(&pair.members) {
        let mut accounts = member.accounts().await?;
        writers.spawn(async move {
            let mut written = BTreeSet::new();
            for number in 1..=400_i32 {
                let value = Some(number * 2 + place);
                let change = match number % 3 {
                    0 => Change { a: value, ..Change::adding(1) },
                    1 => Change { b: value, ..Change::adding(1) },
                    _ => Change { a: value, b: value, ..Change::adding(1) },
                };
                let id = i64::from(number) % KEYS + 1;
                let was = accounts.change(id, &change).await?.context("a row is gone that nobody deletes")?;
                written.insert((id, change.a.unwrap_or(was.a), change.b.unwrap_or(was.b)));
            }
            anyhow::Ok(written)
        });
    }
    pair.worker.kill().await?;
    pair.worker.start()?;
    let mut written = BTreeSet::new();
    while let Some(done) = writers.join_next().await {
        written.append(&mut done??);
    }
    pair.equal().await?;
    for Account { id, a, b, counter, .. } in pair.members[0].accounts().await?.all().await? {
        ensure!(written.contains(&(id, a, b)), "nobody wrote {a} and {b} together at key {id}");
        ensure!(counter == 2 * 400 / KEYS, "key {id} counts {counter}");
    }
    let conflicts = pair.conflicts().await?;
    ensure!(!conflicts.is_empty(), "no two writes met");
    for conflict in &conflicts {
        let column = conflict["column"].as_str().context("a column was contested")?;
        ensure!(["a", "b"].contains(&column) && conflict["strategy"] == "first_write", "{conflict}");
    }
    pair.finish().await
}

/// Columns that wait for a person are decided one after the other; what was counted meanwhile is not lost.
async fn a_person_decides_about_columns_and_the_rest_stays(kinds: &[Kind]) -> anyhow::Result<()> {
    let rules = "delta = [\"counter\"]\ncontested = \"manual\"\n\
                 groups = [{ columns = [\"a\", \"b\"], contested = \"manual\" }]\n";
    let mut pair = merging_by(kinds, "choice", rules, 1..=2).await?;
    let [mut at_a, mut at_b] = [pair.members[0].accounts().await?, pair.members[1].accounts().await?];
    pair.worker.pause(true).await?;
    for id in 1..=2 {
        let by = |writer: &str, value| Change { a: Some(value), b: Some(value), ..Change::by(writer) };
        at_a.change(id, &Change { add: 10, ..by("a", 1) }).await?.context("the seeded row")?;
        at_b.change(id, &Change { add: 100, ..by("b", 2) }).await?.context("the copied row")?;
    }
    pair.worker.pause(false).await?;
    pair.equal().await?;
    let entry = async |pair: &mut TwoWay, id: i64, column: &str| {
        let found = pair.conflicts().await?;
        let found = found.into_iter().find(|one| one["key"]["id"] == id && one["column"] == column);
        found.with_context(|| format!("no entry about column {column} of key {id}"))
    };
    let of_a = entry(&mut pair, 1, "a").await?;
    let loser = of_a["loser"]["row"]["a"].as_i64().context("the loser's a")?;
    let writer = entry(&mut pair, 1, "writer").await?;
    ensure!(of_a["open"] == true && writer["open"] == true, "{of_a} {writer}");
    pair.worker.expect(0, &["conflicts", "decide", &of_a["id"].to_string(), "--loser"]).await?;
    pair.equal().await?;
    // Of the first key the group, of the second one column by an edited row.
    let row = async |accounts: &mut Accounts, id: i64| {
        let found = accounts.all().await?.into_iter().find(|row| row.id == id);
        found.with_context(|| format!("key {id} is gone"))
    };
    let found = row(&mut at_b, 1).await?;
    ensure!((found.a, found.b, found.counter) == (loser as i32, loser as i32, 110), "{found:?}");
    ensure!(writer["winner"]["row"]["writer"] == found.writer, "{found:?} instead of {writer}");
    ensure!(entry(&mut pair, 1, "b").await?["open"] == false, "the group is decided");
    pair.worker.expect(0, &["conflicts", "decide", &writer["id"].to_string(), "--loser"]).await?;
    let second = entry(&mut pair, 2, "writer").await?["id"].to_string();
    pair.worker.expect(0, &["conflicts", "decide", &second, "--row", r#"{"writer": "somebody"}"#]).await?;
    pair.equal().await?;
    let found = row(&mut at_a, 1).await?;
    ensure!(writer["loser"]["row"]["writer"] == found.writer && found.counter == 110, "{found:?} instead of {writer}");
    ensure!(row(&mut at_a, 2).await?.writer == "somebody", "the edited row");
    let open = pair.conflicts().await?.into_iter().filter(|one| one["open"] == true);
    let mut open: Vec<_> = open.map(|one| (one["key"]["id"].clone(), one["column"].clone())).collect();
    open.sort_by_key(|(_, column)| column.to_string());
    ensure!(open == [(2.into(), "a".into()), (2.into(), "b".into())], "{open:?} are open");
    // Somebody counts on: over the row as it is now the group is still a choice, and the rest stays.
    at_a.change(2, &Change::adding(5)).await?;
    pair.settle().await?;
    let group = entry(&mut pair, 2, "a").await?;
    let (id, lost) = (group["id"].to_string(), group["loser"]["row"]["a"].as_i64().context("the loser's a")? as i32);
    pair.worker.expect(1, &["conflicts", "decide", &id, "--loser"]).await?;
    let shown = pair.worker.expect(0, &["conflicts", "show", &id, "--json"]).await?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let image = shown["conflict"]["now"]["image"].as_str().context("the row's image")?;
    pair.worker.expect(0, &["conflicts", "decide", &id, "--loser", "--now", image]).await?;
    pair.equal().await?;
    let found = row(&mut at_b, 2).await?;
    ensure!((found.a, found.b, found.counter, &found.writer[..]) == (lost, lost, 115, "somebody"), "{found:?}");
    ensure!(pair.conflicts().await?.iter().all(|one| one["open"] == false), "all is decided");
    pair.finish().await
}

/// Keys that everybody counts up and down and nobody deletes.
const COUNTED: RangeInclusive<i64> = 1..=4;

/// Keys that everybody adds to, and that one member deletes and inserts again.
const MORTAL: RangeInclusive<i64> = 101..=140;

/// How often is added to a mortal key, by all members together.
const ADDITIONS: u32 = 30;

/// Between two writes of a member to mortal keys, so that the worker writes in between.
const PACE: Duration = Duration::from_millis(5);

/// What a member's application has done.
#[derive(Default)]
struct Done {
    sums: BTreeMap<i64, i64>,
    /// Additions to mortal keys, each by its key and its number.
    added: BTreeSet<(i64, u32)>,
    /// Those that a delete has seen.
    deleted: BTreeSet<(i64, u32)>,
}

/// The numbers of the additions that a counter is made of: each is a power of four of its own, so that one which is
/// there twice shows.
fn made_of(counter: i64) -> anyhow::Result<Vec<u32>> {
    let numbers: Vec<u32> = (0..ADDITIONS).filter(|&number| (counter >> (2 * number)) & 1 == 1).collect();
    let sum: i64 = numbers.iter().map(|&number| 1_i64 << (2 * number)).sum();
    ensure!(sum == counter, "{counter:#x} is no sum of additions that were each made once");
    Ok(numbers)
}

async fn count(mut accounts: Accounts, place: usize, members: usize, mut rng: StdRng) -> anyhow::Result<Done> {
    let (mut done, mut lives) = (Done::default(), 0);
    let mut pace = tokio::time::interval(PACE);
    for number in (u32::try_from(place)?..ADDITIONS).step_by(members) {
        for id in MORTAL {
            pace.tick().await;
            let (counted, step) = (rng.random_range(COUNTED), if rng.random() { 1 } else { -1 });
            accounts.change(counted, &Change::adding(step)).await?.context("a row is gone that nobody deletes")?;
            *done.sums.entry(counted).or_default() += step;
            if place == 0 && rng.random_range(0..3) == 0 {
                match accounts.delete(id).await? {
                    Some(row) => done.deleted.extend(made_of(row.counter)?.into_iter().map(|number| (id, number))),
                    None => {
                        // Rows of two lives look different, whatever was added to them.
                        lives += 1;
                        accounts.insert(&Account { id, a: lives, ..Account::default() }).await?;
                    }
                }
            } else if accounts.change(id, &Change::adding(1 << (2 * number))).await?.is_some() {
                done.added.insert((id, number));
            }
        }
    }
    Ok(done)
}

/// Where keys are only counted the sum is exact. Of the others each addition is a part of the sum in the end, or was
/// seen by a delete, or is a part of a row that has lost; and none is there twice.
async fn counters_count_through_deletes_and_inserts(kinds: &[Kind]) -> anyhow::Result<()> {
    let seed = seed()?;
    let mut group = merging(kinds, "mortal", COUNTED.chain(MORTAL)).await?;
    let mut applications = JoinSet::new();
    for (place, member) in group.members.iter().enumerate() {
        let rng = StdRng::seed_from_u64(seed ^ (place as u64) << 32);
        applications.spawn(count(member.accounts().await?, place, kinds.len(), rng));
    }
    group.worker.kill().await?;
    group.worker.start()?;
    let mut all = Done::default();
    while let Some(done) = applications.join_next().await {
        let Done { sums, added, deleted } = done??;
        sums.into_iter().for_each(|(id, sum)| *all.sums.entry(id).or_default() += sum);
        all.added.extend(added);
        all.deleted.extend(deleted);
    }
    group.equal().await?;
    let conflicts = group.conflicts().await?;
    group.none_drifted(&conflicts).await?;
    let mut lost = BTreeSet::new();
    for conflict in conflicts.iter().filter(|conflict| conflict["column"].is_null()) {
        let row = (conflict["key"]["id"].as_i64(), conflict["loser"]["row"]["counter"].as_i64());
        if let (Some(id), Some(counter)) = row
            && MORTAL.contains(&id)
        {
            lost.extend(made_of(counter)?.into_iter().map(|number| (id, number)));
        }
    }
    let mut held = BTreeSet::new();
    for Account { id, counter, .. } in group.members[0].accounts().await?.all().await? {
        if MORTAL.contains(&id) {
            held.extend(made_of(counter)?.into_iter().map(|number| (id, number)));
        } else {
            let sum = all.sums.get(&id).copied().unwrap_or_default();
            ensure!(counter == sum, "key {id} counts {counter} instead of {sum}");
        }
    }
    let Done { added, deleted, .. } = &all;
    println!(
        "{} additions: {} held, {} seen by deletes, {} in rows that lost",
        added.len(),
        held.len(),
        deleted.len(),
        lost.len()
    );
    ensure!(held.is_subset(added), "what is held was never added: {:?}", held.difference(added));
    let traced = |one: &(i64, u32)| held.contains(one) || deleted.contains(one) || lost.contains(one);
    let vanished: Vec<_> = added.iter().filter(|one| !traced(one)).collect();
    ensure!(vanished.is_empty(), "additions have vanished without a trace, by key and number: {vanished:?}");
    group.finish().await
}
