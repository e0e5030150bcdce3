//! kill -9 of the worker at random moments under load: nothing lost, repeated or out of order. `make kill-test` runs more
//! cycles of the same.

use sync_worker_tests::kind::Direction;
use sync_worker_tests::seed::seed;
use sync_worker_tests::{each_of_nine_directions, kill};

const CYCLES: u32 = 10;

each_of_nine_directions![killed_ten_times];

async fn killed_ten_times(direction: Direction) -> anyhow::Result<()> {
    let report = kill::run(direction, CYCLES, seed()?, |_| {}).await?;
    println!("{}: {}, {}", report.direction, report.verdict, report.faults);
    assert!(report.is_good(), "{report:#?}");
    assert!(report.verdict.source_writes > 100, "hardly any load: {:?}", report.load);
    Ok(())
}
