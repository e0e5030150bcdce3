//! Pipelines beside each other, with members in common.

use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sync_worker_tests::kind::Kind;
use sync_worker_tests::seed::seed;
use sync_worker_tests::settings::TableEntry;
use sync_worker_tests::two_way::{Account, Change, Shared, TwoWay};
use sync_worker_tests::worker::Worker;
use tokio::task::JoinSet;

// Databases of one server have its log in common.
members! { a_table_beside_two_pipelines:
    on_one_postgres of Postgres Postgres Postgres,
    on_one_mysql of Mysql Mysql Mysql,
    on_one_mongodb of Mongodb Mongodb Mongodb,
    round_postgres of Mysql Postgres Mongodb,
    round_mongodb of Postgres Mongodb Mysql,
}

const KEYS: i64 = 8;
const WRITES: usize = 150;

/// One pipeline of a and b, another of b and c. A table of one is nothing to the other. A table of both is passed on:
/// what one of them writes to b is a change like any other to the other.
async fn a_table_beside_two_pipelines(kinds: &[Kind]) -> anyhow::Result<()> {
    let seed = seed()?;
    let share = |name, members: [usize; 2], own: &str, fence| Shared {
        name,
        members: members.to_vec(),
        tables: [own, "of_both"].map(|table| (table.to_owned(), String::new())).to_vec(),
        fence,
        lines: "seed = \"none\"\n".to_owned(),
    };
    let (one, two) = (share("one", [0, 1], "of_one", "fence_one"), share("two", [1, 2], "of_two", "fence_two"));
    let mut group = TwoWay::shared(kinds, "beside", vec![one, two]).await?;
    group.start().await?;
    let mut applications = JoinSet::new();
    for (place, member) in group.members.iter().enumerate() {
        let tables: &'static [&'static str] = match place {
            0 => &["of_one", "of_both"],
            1 => &["of_one", "of_both", "of_two"],
            _ => &["of_both", "of_two"],
        };
        let (mut accounts, name) = (member.accounts().await?, member.name);
        let mut rng = StdRng::seed_from_u64(seed ^ (place as u64) << 32);
        applications.spawn(async move {
            for number in 0..WRITES {
                let writer = format!("{name}{number}");
                let id = rng.random_range(1..=KEYS);
                accounts.of(tables[rng.random_range(0..tables.len())]);
                if accounts.change(id, &Change::by(&writer)).await?.is_none() {
                    accounts.insert(&Account { id, writer, ..Account::default() }).await?;
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = applications.join_next().await {
        done??;
    }
    // A way of two steps, and one that goes back where the second pipeline decides against the first.
    for _ in 0..3 {
        group.settle().await?;
    }
    let rows = group.equal().await?;
    ensure!(rows > 0, "nobody has written anything");
    let of_first = group.members[0].accounts().await?.of("of_both").all().await?;
    let of_last = group.members[2].accounts().await?.of("of_both").all().await?;
    ensure!(of_first == of_last, "a has {of_first:?}, and c has {of_last:?}");

    // A third one would lead back.
    let mut settings = group.settings.clone();
    let closing = settings.two_way("three", &["c", "a"]);
    closing.extra.push_str("seed = \"none\"\n");
    closing.tables.push(TableEntry::new("of_both"));
    let mut refused = Worker::new(&settings)?;
    refused.quiet();
    let told = refused.expect(2, &["check"]).await?;
    let line = told.lines().find(|line| line.contains("leads back")).context("no word about the loop")?;
    ensure!(line.contains("in one pipeline with members"), "{line}");
    group.finish().await
}
