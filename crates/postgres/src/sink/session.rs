//! A sink's connection, with what has been read and prepared on it.

use super::Attempt;
use super::failure::Failure;
use super::guard::Look;
use super::items::{Missing, Order, Plans};
use super::marker::{self, Ledger};
use super::pipeline::Pipeline;
use super::plan::Plan;
use super::target::Target;
use crate::catalog::Qualified;
use crate::client::{self, Client, Purpose, identifier, literal};
use crate::config::{Config, SessionReplicationRole};
use crate::error::Error;
use crate::own::{self, Owner};
use crate::recent::Recent;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;
use sync_worker_core::collapse::collapse;
use sync_worker_core::database::Scope;
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::schema::{Schema, SchemaId};
use sync_worker_core::sink::{Applied, Parking, Progress, Write, WriteBatch};

/// One plan per statement, made once and never by the size of a table: each row is looked up by its key, whether the
/// table is empty, has just been filled or has never been analyzed. The rows of a batch pass through memory, never through
/// temporary files: it is used as far as a batch is large.
const PLANNING: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off; \
                        SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; \
                        SET enable_memoize = off; SET max_parallel_workers_per_gather = 0; SET work_mem = '128MB'";

/// A plan made while a table had almost no rows may scan it: plans are made anew while the tables grow, each time that
/// as many rows again have been written.
const REPLAN_FIRST: u64 = 16;

/// After an update that found no row, this many batches are looked at before their commit, and after an insert that found
/// one, as many overwrite rows: where a target is not at the state that its changes start from, both come in runs. Two-way,
/// after a row that was not the one trusted to be there, the rows of as many are looked at.
pub const WATCHFUL: u32 = 32;

pub struct Session {
    pub client: Client,
    pipeline: String,
    two_way: bool,
    /// What the member's own stream has shown.
    pub recent: Arc<Recent>,
    names: HashMap<TableName, String>,
    pub plans: Plans,
    pub ranks: HashMap<SchemaId, usize>,
    /// Tables whose deletes come last where foreign keys are checked.
    pub last: HashSet<SchemaId>,
    pub order: Order,
    /// Prepared when the target is taken over.
    pub ledger: Option<Ledger>,
    pub watchful: u32,
    pub overwriting: u32,
    /// Two-way, until when no table is locked for rows that come anew.
    pub in_use: Option<Instant>,
    /// Row by row, an insert is an insert and an update finds its row; else either may be both.
    pub exact: bool,
    /// How rows are read before they are written over, two-way.
    pub looks: HashMap<SchemaId, Look>,
    written: u64,
    replan_at: u64,
}

impl Session {
    pub async fn open(config: &Config, scope: &Scope, owner: &Owner, recent: Arc<Recent>) -> Result<Self, Error> {
        let client = client::connect(config, Purpose::Sink).await?;
        let order = settings(&client, config.session_replication_role, owner).await?;
        for table in &scope.tables {
            Target::read(&client, &table.name).await?;
        }
        let names = scope.tables.iter().map(|at| (at.table.clone(), at.name.clone())).collect();
        Ok(Self {
            client,
            pipeline: owner.pipeline.clone(),
            two_way: scope.two_way,
            recent,
            names,
            plans: Plans::new(),
            ranks: HashMap::new(),
            last: HashSet::new(),
            order,
            ledger: None,
            watchful: 0,
            overwriting: 0,
            in_use: None,
            exact: false,
            looks: HashMap::new(),
            written: 0,
            replan_at: REPLAN_FIRST,
        })
    }

    pub async fn take_over(&mut self, owner: &Owner, log: &str) -> Result<Progress, Error> {
        own::create(&self.client).await?;
        let doing = "the takeover of sync_worker.progress";
        let progress = match marker::take_over(&mut self.client, owner, log).await {
            Ok(progress) => progress,
            Err(error) => {
                // The marker is locked: by a session whose worker is gone and whose connection has not noticed. Whoever
                // it is has lost the target to us.
                if error.code().is_some_and(|code| code.code() == "55P03") {
                    let sql = format!(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = {} \
                         AND datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()",
                        literal(&application_name(owner))
                    );
                    self.client.rows(doing, &sql).await?;
                }
                return Err(Error::driver(doing, &error));
            }
        };
        let ledger = Ledger::prepare(&self.client, owner).await;
        self.ledger = Some(ledger.map_err(|error| Error::driver(doing, &error))?);
        Ok(progress)
    }

    pub async fn apply(&mut self, batch: &WriteBatch, parking: &dyn Parking) -> Result<Applied> {
        if self.two_way {
            return self.guarded(batch, parking).await;
        }
        self.plan(&batch.writes).await?;
        let steps = collapse(&batch.writes, 0..batch.writes.len(), &HashMap::new()).map_err(Error::Damaged)?;
        if steps.len() > 1 && !self.coming_back(&batch.writes).map_err(Error::Damaged)?.is_empty() {
            return self.row_by_row(batch, parking).await;
        }
        let mut missing = if self.watchful > 0 { Missing::Told } else { Missing::Fails };
        let mut replanned = false;
        let applied = loop {
            let failure = match self.set_based(batch, &steps, missing, parking).await {
                Ok(applied) => break applied,
                Err(Attempt::Stop(error)) => return Err(error),
                Err(Attempt::RowByRow | Attempt::Look | Attempt::Altered(_)) => {
                    break self.row_by_row(batch, parking).await?;
                }
                Err(Attempt::Failed(failure)) => failure,
            };
            if failure.missing && missing == Missing::Fails {
                missing = Missing::Told;
                self.watchful = WATCHFUL;
            } else if self.overwriting == 0 && self.is_of_key(&failure) {
                self.overwriting = WATCHFUL + 1;
            } else if failure.is_stale() && !replanned {
                replanned = true;
                self.plans.clear();
                self.plan(&batch.writes).await?;
            } else if failure.is_of_row() {
                break self.row_by_row(batch, parking).await?;
            } else {
                return Err(self.error(failure, "the write of a batch").into());
            }
        };
        self.watchful = if applied.missing > 0 { WATCHFUL } else { self.watchful.saturating_sub(1) };
        self.overwriting = self.overwriting.saturating_sub(1);
        self.written += applied.rows;
        Ok(applied)
    }

    /// A row with the key of an insert was there.
    pub fn is_of_key(&self, failure: &Failure) -> bool {
        failure.unique_index().is_some_and(|name| self.plans.values().any(|plan| plan.is_key_index(name)))
    }

    pub fn error(&self, failure: Failure, doing: &str) -> Error {
        failure.into_error(doing, &self.pipeline)
    }

    /// Whether the plans of the prepared statements have become old.
    pub fn replans(&mut self) -> bool {
        let due = self.written >= self.replan_at;
        if due {
            self.replan_at = self.written.saturating_mul(2);
        }
        due
    }

    /// Plans every schema that the writes use. One that is new has the target's catalog read again.
    pub async fn plan(&mut self, writes: &[Write]) -> Result<(), Error> {
        let mut known = None;
        let mut added = false;
        for write in writes {
            let schema = &write.change.schema;
            if known == Some(schema.id) {
                continue;
            }
            known = Some(schema.id);
            if !self.plans.contains_key(&schema.id) {
                let plan = self.plan_of(schema).await?;
                self.plans.insert(schema.id, plan);
                added = true;
            }
        }
        if added {
            self.ranks = ranks(&self.plans);
            self.last = acting(&self.plans);
        }
        Ok(())
    }

    async fn plan_of(&self, schema: &Schema) -> Result<Plan, Error> {
        let Some(name) = self.names.get(&schema.table) else {
            return Err(Error::Fatal(format!("table {} is not one of pipeline {}", schema.table, self.pipeline)));
        };
        // First: what is altered while the catalog is read makes a plan that is told as old.
        let columns: Vec<String> = schema.columns.iter().map(|column| identifier(&column.name)).collect();
        let shape = format!("SELECT {} FROM {} WHERE false", columns.join(", "), Qualified::parse(name).quoted());
        let shape = self.client.prepare(&shape).await;
        let target = Target::read(&self.client, name).await?;
        Plan::new(Arc::new(target), schema, shape.map_err(|error| Error::driver("a look at a table", &error)))
    }

    /// Makes sure in the transaction that has begun that the tables are as they were planned for, and stay so until its end: the
    /// server refuses to run a prepared query whose columns have other types now, and this one reads nothing. By what was known of
    /// a column that has been narrowed since, the server would round without a word; by one that has been widened, rows that
    /// fit would be refused.
    pub async fn send_shapes<'a>(&'a self, pipeline: &mut Pipeline<'a>, writes: &[Write]) {
        let mut sent: Vec<SchemaId> = Vec::new();
        for write in writes {
            let id = write.change.schema.id;
            if sent.last() != Some(&id)
                && !sent.contains(&id)
                && let Some(plan) = self.plans.get(&id)
            {
                sent.push(id);
                pipeline.query(&plan.shape, &[]).await;
            }
        }
    }
}

fn application_name(owner: &Owner) -> String {
    let installation: String = owner.installation.chars().take(8).collect();
    let name = format!("sync-worker sink {} {} {installation}", owner.pipeline, owner.database);
    // What is longer is cut by the server, on the way in; cut here it can be looked for.
    let mut end = name.len().min(63);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    // Other characters are shown as question marks by older servers.
    name[..end]
        .chars()
        .map(|character| if character.is_ascii_graphic() || character == ' ' { character } else { '?' })
        .collect()
}

/// Settings of the session. Returns the order of statements that they ask for.
async fn settings(client: &Client, role: SessionReplicationRole, owner: &Owner) -> Result<Order, Error> {
    let doing = "the settings of the sink's session";
    let sql = format!("{PLANNING}; SET application_name = {}", literal(&application_name(owner)));
    client.batch_execute(&sql).await.map_err(|error| Error::driver(doing, &error))?;
    if role == SessionReplicationRole::Origin {
        return Ok(Order::ForeignKeys);
    }
    let Err(error) = client.batch_execute("SET session_replication_role = replica").await else {
        return Ok(Order::Unique);
    };
    let error = Error::driver(doing, &error);
    match (role, error.code()) {
        (SessionReplicationRole::Auto, Some("42501")) => Ok(Order::ForeignKeys),
        (_, Some("42501")) => Err(Error::Fatal(
            "the target's user may not set session_replication_role; GRANT SET ON PARAMETER session_replication_role TO it \
             (PostgreSQL 15 and later), or use session_replication_role = \"origin\""
                .to_owned(),
        )),
        _ => Err(error),
    }
}

/// Tables whose deletes act on rows that refer to theirs, and their parents: those of the children come first.
fn acting(plans: &Plans) -> HashSet<SchemaId> {
    let mut oids: HashSet<u32> =
        plans.values().filter(|plan| plan.target.deletes_act).map(|plan| plan.target.table.oid).collect();
    loop {
        let before = oids.len();
        for plan in plans.values().filter(|plan| oids.contains(&plan.target.table.oid)).collect::<Vec<_>>() {
            oids.extend(plan.target.table.foreign_keys.iter().map(|key| key.parent_oid));
        }
        if oids.len() == before {
            break;
        }
    }
    plans.iter().filter(|(_, plan)| oids.contains(&plan.target.table.oid)).map(|(id, _)| *id).collect()
}

/// How deep each table stands below those that it refers to. In a cycle somebody is first.
fn ranks(plans: &Plans) -> HashMap<SchemaId, usize> {
    let by_oid: HashMap<u32, &Plan> = plans.values().map(|plan| (plan.target.table.oid, plan)).collect();
    /// None while a table's own parents are looked at.
    fn depth(oid: u32, by_oid: &HashMap<u32, &Plan>, known: &mut HashMap<u32, Option<usize>>) -> usize {
        let Some(plan) = by_oid.get(&oid) else { return 0 };
        if let Some(known) = known.get(&oid) {
            return known.unwrap_or(0);
        }
        known.insert(oid, None);
        let parents = plan.target.table.foreign_keys.iter().filter(|key| key.parent_oid != oid);
        let depth = parents.map(|key| 1 + depth(key.parent_oid, by_oid, known)).max().unwrap_or(0);
        known.insert(oid, Some(depth));
        depth
    }
    let mut known = HashMap::new();
    plans.iter().map(|(id, plan)| (*id, depth(plan.target.table.oid, &by_oid, &mut known))).collect()
}
