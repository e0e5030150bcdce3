//! The crates depend on each other as the architecture says, and in no other way.

use std::collections::BTreeMap;
use std::process::Command;

/// What a crate may use among ours, apart from `testkit` in its tests. `*` is everything.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("sync-worker-core", &[]),
    ("sync-worker-engine", &["sync-worker-core"]),
    ("sync-worker-postgres", &["sync-worker-core"]),
    ("sync-worker-mysql", &["sync-worker-core"]),
    ("sync-worker-mongodb", &["sync-worker-core"]),
    ("sync-worker-bus", &["sync-worker-core"]),
    ("sync-worker-store", &["sync-worker-core"]),
    ("sync-worker-api", &["sync-worker-engine", "sync-worker-core"]),
    ("sync-worker", &["*"]),
    ("sync-worker-testkit", &["sync-worker-core"]),
    ("sync-worker-tests", &["*"]),
    ("sync-worker-mongodb-stand-in", &[]),
];

#[test]
fn crates_depend_on_each_other_as_designed() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path", manifest];
    let output = Command::new(cargo).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed = BTreeMap::from(ALLOWED);
    let packages = metadata["packages"].as_array().unwrap();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the architecture"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let for_tests = dependency["kind"].as_str() == Some("dev") && on == "sync-worker-testkit";
            let fits = allowed.contains(&"*") || allowed.contains(&on) || for_tests;
            if on.starts_with("sync-worker") && !fits {
                wrong.push(format!("{name} uses {on}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(packages.len(), ALLOWED.len(), "a crate of the architecture is missing");
}
