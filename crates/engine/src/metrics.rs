//! Every metric's name, once. Labels are names from the configuration; never values (invariant 11).

use crate::status::TaskStatus;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

pub const CAPTURED_CHANGES: &str = "sync_worker_captured_changes_total";
pub const DUPLICATES: &str = "sync_worker_duplicate_records_total";
pub const SNAPSHOT_ROWS: &str = "sync_worker_snapshot_rows_total";
pub const APPLIED_CHANGES: &str = "sync_worker_applied_changes_total";
pub const APPLIED_TRANSACTIONS: &str = "sync_worker_applied_transactions_total";
pub const APPLIED_BATCHES: &str = "sync_worker_applied_batches_total";
pub const ROW_BY_ROW_BATCHES: &str = "sync_worker_row_by_row_batches_total";
pub const SPLIT_TRANSACTIONS: &str = "sync_worker_split_transactions_total";
pub const MISSING_ROWS: &str = "sync_worker_missing_rows_total";
pub const PARKED_KEYS: &str = "sync_worker_parked_keys";
pub const RETRIES: &str = "sync_worker_retries_total";
pub const APPLY_LAG: &str = "sync_worker_apply_lag_seconds";
pub const BUS_RECORDS_BEHIND: &str = "sync_worker_bus_records_behind";
pub const ECHOED_ROWS: &str = "sync_worker_echoed_rows_total";
pub const CONFLICTS: &str = "sync_worker_conflicts_total";
pub const DIFFERING_ROWS: &str = "sync_worker_differing_rows_total";
pub const PAUSED_TABLES: &str = "sync_worker_paused_tables";
pub const CLOCKS_APART: &str = "sync_worker_clocks_apart_seconds";
pub const CLOCKS_OFF: &str = "sync_worker_clocks_off";
pub const KEYS_UNDER_WAY: &str = "sync_worker_keys_under_way";
pub const TASK_STATE: &str = "sync_worker_task_state";
pub const ERRORS: &str = "sync_worker_errors_total";

/// Lag from a hundred microseconds to an hour, four buckets to a decade.
fn lag_buckets() -> Vec<f64> {
    (0..31).map(|step| 1e-4 * 10f64.powf(f64::from(step) / 4.0)).collect()
}

#[derive(Clone)]
pub struct Metrics {
    pub registry: Registry,
    captured: IntCounterVec,
    duplicates: IntCounterVec,
    snapshot_rows: IntCounterVec,
    echoed: IntCounterVec,
    conflicts: IntCounterVec,
    differing: IntCounterVec,
    under_way: IntGaugeVec,
    paused: IntGaugeVec,
    clocks_apart: GaugeVec,
    clocks_off: IntGaugeVec,
    applied: IntCounterVec,
    transactions: IntCounterVec,
    batches: IntCounterVec,
    row_by_row: IntCounterVec,
    split: IntCounterVec,
    missing: IntCounterVec,
    parked: IntGaugeVec,
    retries: IntCounterVec,
    lag: HistogramVec,
    behind: IntGaugeVec,
    state: IntGaugeVec,
    errors: IntCounterVec,
}

/// What a capture counts.
#[derive(Clone)]
pub struct CaptureMetrics {
    pub captured: IntCounter,
    pub duplicates: IntCounter,
    pub snapshot_rows: IntCounter,
    pub echoed: IntCounter,
}

/// What is told of the clocks of a pipeline's members.
#[derive(Clone)]
pub struct ClockMetrics {
    /// Seconds.
    pub apart: Gauge,
    /// 1 while what goes by commit times goes by priority.
    pub off: IntGauge,
}

/// What an applier counts.
#[derive(Clone)]
pub struct ApplyMetrics {
    pub applied: IntCounter,
    pub transactions: IntCounter,
    pub batches: IntCounter,
    pub row_by_row: IntCounter,
    pub split: IntCounter,
    pub missing: IntCounter,
    pub duplicates: IntCounter,
    pub parked: IntGauge,
    pub lag: Histogram,
    pub behind: IntGauge,
    pub differing: IntCounter,
    pub under_way: IntGauge,
    pub paused: IntGauge,
    conflicts: IntCounterVec,
    retries: IntCounterVec,
    labels: [String; 2],
}

impl ApplyMetrics {
    /// The status with the metric, so that they are set in one order.
    pub fn is_behind(&self, status: &mut TaskStatus, records: u64) {
        status.behind = records;
        self.behind.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// One for each entry of the ledger. `winner`: a member, `merged`, or nothing for a person.
    pub fn conflict(&self, kind: &str, strategy: &str, winner: &str) {
        self.conflicts.with_label_values(&[&self.labels[0], kind, strategy, winner]).inc();
    }

    /// `outcome`: written, refused, superseded, dead.
    pub fn retried(&self, outcome: &str) {
        self.retries.with_label_values(&[&self.labels[0], &self.labels[1], outcome]).inc();
    }
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let clocks_apart = Opts::new(CLOCKS_APART, "How far the clocks of two members are apart, at the most.");
        let clocks_apart = GaugeVec::new(clocks_apart, &["pipeline"])?;
        registry.register(Box::new(clocks_apart.clone()))?;
        let of_database = ["pipeline", "database"];
        let lag = HistogramVec::new(
            HistogramOpts::new(APPLY_LAG, "From the commit at the source, by its clock, to the commit at the target.")
                .buckets(lag_buckets()),
            &of_database,
        )?;
        registry.register(Box::new(lag.clone()))?;
        let outcome = ["pipeline", "database", "outcome"];
        let task = ["pipeline", "database", "task", "state"];
        let conflict = ["pipeline", "kind", "strategy", "winner"];
        let class = ["pipeline", "database", "task", "class"];
        Ok(Self {
            captured: counter(CAPTURED_CHANGES, "Row changes published on the bus.", &of_database)?,
            duplicates: counter(DUPLICATES, "Records dropped because they had been taken before.", &of_database)?,
            echoed: counter(ECHOED_ROWS, "Rows of our own transactions, dropped by a capture.", &of_database)?,
            conflicts: counter(CONFLICTS, "Entries of the conflict ledger.", &conflict)?,
            differing: counter(
                DIFFERING_ROWS,
                "Rows left alone because they were none that is expected.",
                &of_database,
            )?,
            under_way: gauge(KEYS_UNDER_WAY, "Keys of which a version is under way to some member.", &of_database)?,
            paused: gauge(PAUSED_TABLES, "Tables of which nothing is taken until a person says so.", &of_database)?,
            clocks_apart,
            clocks_off: gauge(CLOCKS_OFF, "1 while priorities decide in place of commit times.", &["pipeline"])?,
            snapshot_rows: counter(SNAPSHOT_ROWS, "Snapshot rows published on the bus.", &of_database)?,
            applied: counter(APPLIED_CHANGES, "Changes taken over by a target.", &of_database)?,
            transactions: counter(APPLIED_TRANSACTIONS, "Source transactions taken over by a target.", &of_database)?,
            batches: counter(APPLIED_BATCHES, "Transactions committed to a target.", &of_database)?,
            row_by_row: counter(ROW_BY_ROW_BATCHES, "Batches that had to be written row by row.", &of_database)?,
            split: counter(SPLIT_TRANSACTIONS, "Source transactions above the limit, applied in parts.", &of_database)?,
            missing: counter(MISSING_ROWS, "Updates and deletes whose row was not at the target.", &of_database)?,
            parked: gauge(PARKED_KEYS, "Keys whose newest version a target has not taken.", &of_database)?,
            retries: counter(RETRIES, "Attempts at parked versions.", &outcome)?,
            lag,
            behind: gauge(BUS_RECORDS_BEHIND, "Durable bus records not yet applied.", &of_database)?,
            state: gauge(TASK_STATE, "1 for the state that a task is in.", &task)?,
            errors: counter(ERRORS, "Errors by class.", &class)?,
            registry,
        })
    }

    pub fn capture(&self, pipeline: &str, database: &str) -> CaptureMetrics {
        let labels = [pipeline, database];
        CaptureMetrics {
            captured: self.captured.with_label_values(&labels),
            duplicates: self.duplicates.with_label_values(&labels),
            snapshot_rows: self.snapshot_rows.with_label_values(&labels),
            echoed: self.echoed.with_label_values(&labels),
        }
    }

    pub fn clocks(&self, pipeline: &str) -> ClockMetrics {
        ClockMetrics {
            apart: self.clocks_apart.with_label_values(&[pipeline]),
            off: self.clocks_off.with_label_values(&[pipeline]),
        }
    }

    pub fn apply(&self, pipeline: &str, database: &str) -> ApplyMetrics {
        let labels = [pipeline, database];
        ApplyMetrics {
            applied: self.applied.with_label_values(&labels),
            transactions: self.transactions.with_label_values(&labels),
            batches: self.batches.with_label_values(&labels),
            row_by_row: self.row_by_row.with_label_values(&labels),
            split: self.split.with_label_values(&labels),
            missing: self.missing.with_label_values(&labels),
            duplicates: self.duplicates.with_label_values(&labels),
            parked: self.parked.with_label_values(&labels),
            lag: self.lag.with_label_values(&labels),
            behind: self.behind.with_label_values(&labels),
            differing: self.differing.with_label_values(&labels),
            under_way: self.under_way.with_label_values(&labels),
            paused: self.paused.with_label_values(&labels),
            conflicts: self.conflicts.clone(),
            retries: self.retries.clone(),
            labels: labels.map(str::to_owned),
        }
    }

    pub fn error(&self, pipeline: &str, database: &str, task: &str, class: &str) {
        self.errors.with_label_values(&[pipeline, database, task, class]).inc();
    }

    pub fn state(&self, pipeline: &str, database: &str, task: &str, state: &str, is: bool) {
        self.state.with_label_values(&[pipeline, database, task, state]).set(i64::from(is));
    }
}
