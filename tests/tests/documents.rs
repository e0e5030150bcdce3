//! The five directions that begin or end at MongoDB: snapshot, stream, kills, comparison.

use std::time::Duration;
use sync_worker_engine::status::Task;
use sync_worker_tests::each_direction_of_documents;
use sync_worker_tests::kill;
use sync_worker_tests::kind::Direction;
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::scenario::Preparation;
use sync_worker_tests::seed::seed;

const LIMIT: Duration = Duration::from_secs(60);
const CYCLES: u32 = 10;

each_direction_of_documents![
    a_snapshot_then_the_stream,
    a_snapshot_while_others_write,
    a_snapshot_goes_on_after_a_kill,
    killed_ten_times,
    verify_takes_nothing_in_flight_for_a_difference,
];

async fn a_snapshot_then_the_stream(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "snapshot").await?;
    preparation.item(5_000).await?;
    let scenario = preparation.streaming().await?;
    scenario.equal().await?;
    let load = LoadSettings { rate: Some(3_000), writers: 2, ..LoadSettings::new(seed()?) };
    let load = Load::start(&scenario.source.url(), &load)?;
    scenario.until_changes(&load, 2_000).await?;
    load.stop().await?;
    scenario.finish().await
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
    preparation.pipeline("snapshot_chunk_rows = 500\nsnapshot_parallel = 1");
    let mut scenario = preparation.scenario()?;
    let (mut copied, mut kills) = (0, 0);
    loop {
        scenario.worker.start()?;
        let tasks = scenario.worker.until("some more of the snapshot", LIMIT, |tasks| {
            tasks.iter().filter_map(|task| task.snapshot.as_ref()).any(|copy| copy.done || copy.rows > copied + 3_000)
        });
        let tasks = tasks.await?;
        let capture = tasks.iter().find(|task| task.task == Task::Capture);
        let Some(snapshot) = capture.and_then(|task| task.snapshot.as_ref()) else { continue };
        assert!(snapshot.rows >= copied, "{copied} rows were copied, of which {} are known", snapshot.rows);
        if snapshot.done {
            break;
        }
        copied = snapshot.rows;
        scenario.worker.kill().await?;
        kills += 1;
    }
    assert!(kills >= 2, "the copy was through after {kills} kills");
    scenario.finish().await
}

async fn killed_ten_times(direction: Direction) -> anyhow::Result<()> {
    let report = kill::run(direction, CYCLES, seed()?, |_| {}).await?;
    println!("{}: {}", report.direction, report.verdict);
    assert!(report.is_good(), "{report:#?}");
    assert!(report.verdict.source_writes > 1_000, "hardly any load: {:?}", report.load);
    Ok(())
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
