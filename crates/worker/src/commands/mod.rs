//! What each word of the command line does.

pub mod check;
pub mod conflicts;
pub mod dead_letters;
pub mod resume;
pub mod run;
pub mod schema;
pub mod status;
pub mod tail;
pub mod verify;

use crate::config::Configuration;
use crate::wiring;
use sync_worker_core::database::Scope;
use sync_worker_core::name::{DatabaseName, InstallationId};
use sync_worker_engine::pipeline::Plan;
use sync_worker_store::SqliteStore;

/// What a pipeline wants of a member, for commands that run beside a worker and do not hold its state.
pub fn scope_of(config: &Configuration, plan: &Plan, database: &DatabaseName) -> Scope {
    let known = SqliteStore::installation_of(&config.state).ok().flatten();
    let installation = known.unwrap_or_else(|| InstallationId::new("none"));
    plan.scope(database, &installation, wiring::spill(config))
}
