//! A short run of `make log-crash-test`.

use sync_worker_tests::log_crash::{self, Outcome};
use sync_worker_tests::seed::seed;

#[test]
fn the_log_and_its_store_survive_crashes_and_name_damage() {
    let seed = seed().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let report = log_crash::run(300, seed, 2, folder.path()).unwrap();
    println!("{report}");
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.images(), 300);
    assert!(
        report.count(Outcome::Recovered) > 0 && report.count(Outcome::Refused) > 0 && report.count(Outcome::Gap) > 0
    );
}
