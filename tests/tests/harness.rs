//! The harness itself on real servers: a load does what it says, and what is wrong is found.

use std::time::Duration;
use sync_worker_tests::compare;
use sync_worker_tests::database::Database;
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::ledger::{self, Entry};
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::seed::seed;
use sync_worker_tests::{tables, wait};

async fn database_with_items(kind: Kind, rows: i64) -> anyhow::Result<Database> {
    let database = Database::create(kind, "harness").await?;
    database.execute(&tables::item(kind)).await?;
    database.execute(&tables::fill(kind, rows)).await?;
    Ok(database)
}

#[tokio::test]
async fn a_load_changes_rows_in_every_way_and_its_history_is_whole() -> anyhow::Result<()> {
    let seed = seed()?;
    for kind in [Kind::Postgres, Kind::Mysql] {
        let database = database_with_items(kind, 500).await?;
        ledger::install(&database).await?;
        let load = Load::start(&database.url(), &LoadSettings { rate: None, ..LoadSettings::new(seed) })?;
        wait::until("3,000 changes and a rollback", Duration::from_secs(60), async || {
            let report = load.report();
            Ok((report.changes >= 3_000 && report.rolled_back > 0).then_some(()))
        })
        .await?;
        let report = load.stop().await?;
        assert_eq!(report.interrupted, 0, "{kind}: {report:?}");
        let history = ledger::read(&database).await?;
        // A changed key is two entries.
        let entries: usize = history.values().map(Vec::len).sum();
        assert!(entries as u64 >= report.changes, "{kind}: {entries} entries of {report:?}");
        assert!(history.values().any(|entries| entries.windows(2).any(|two| two[0] == Entry::Deleted)), "{kind}");
        let verdict = ledger::judge(&history, &history);
        assert!(verdict.is_good(), "{kind}: {verdict}");
        for (key, entries) in &history {
            let versions = entries.iter().filter_map(|entry| match entry {
                Entry::Written(version) => Some(*version),
                Entry::Deleted => None,
            });
            assert!(versions.is_sorted_by(|one, next| one < next), "{kind}: key {key}: {entries:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_compare_finds_a_row_that_differs_is_missing_or_is_extra() -> anyhow::Result<()> {
    for direction in Direction::ALL {
        let (source, target) =
            (database_with_items(direction.from, 50).await?, database_with_items(direction.to, 50).await?);
        assert_eq!(compare::equal(&source, &target, "item").await?, 50);
        target.execute("UPDATE item SET name = 'other' WHERE id = 3; DELETE FROM item WHERE id = 4").await?;
        source.execute("DELETE FROM item WHERE id = 5").await?;
        let found = compare::equal(&source, &target, "item").await.map_err(|error| error.to_string());
        let told = found.expect_err("three rows differ");
        for part in ["3 of 49", "name is other, not name 3", "[\"4\"] is missing", "[\"5\"] is at the target alone"] {
            assert!(told.contains(part), "{direction}: {told}");
        }
    }
    Ok(())
}
