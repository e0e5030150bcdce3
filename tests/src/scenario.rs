//! What an end-to-end test stands on: a database at each end, tables in both, a worker between them.

use crate::compare;
use crate::connection::Connection;
use crate::database::Database;
use crate::kind::{Direction, Kind};
use crate::load::Load;
use crate::mongodb;
use crate::settings::{Settings, TableEntry};
use crate::tables::{self, EMPTY_FENCE, FENCE, ITEM};
use crate::wait;
use crate::worker::Worker;
use ::mongodb::bson::{Document, doc};
use anyhow::ensure;
use std::time::Duration;

/// What a fence may take to come through, backlog and all.
const SETTLE: Duration = Duration::from_secs(120);

pub struct Scenario {
    // Dropped first: a worker holds connections and a slot.
    pub worker: Worker,
    pub source: Database,
    pub target: Database,
    /// What each is called at the source and at the target.
    pub tables: Vec<(String, String)>,
    pub settings: Settings,
}

/// Collects what a scenario needs before its worker is made.
pub struct Preparation {
    pub source: Database,
    pub target: Database,
    pub tables: Vec<(String, String)>,
    pub settings: Settings,
}

impl Preparation {
    /// Two databases on the shared servers, with a fence.
    pub async fn new(direction: Direction, label: &str) -> anyhow::Result<Self> {
        let source = Database::create(direction.from, label).await?;
        let target = Database::create(direction.to, label).await?;
        Self::between(source, target).await
    }

    pub async fn between(source: Database, target: Database) -> anyhow::Result<Self> {
        let mut settings = Settings::default();
        settings.database("source", source.kind, &source.url());
        settings.database("target", target.kind, &target.url());
        settings.pipeline("mirror", "source", &["target"]).tables.push(TableEntry::new("fence"));
        make_fence(&source, &target).await?;
        Ok(Self { source, target, tables: vec![("fence".to_owned(), "fence".to_owned())], settings })
    }

    pub fn direction(&self) -> Direction {
        Direction { from: self.source.kind, to: self.target.kind }
    }

    /// Makes a table on both sides and takes it into the pipeline.
    pub async fn table(&mut self, name: &str, at_source: &str, at_target: &str) -> anyhow::Result<()> {
        make(&self.source, name, at_source).await?;
        make(&self.target, name, at_target).await?;
        self.add(name);
        Ok(())
    }

    /// Takes a table that is there into the pipeline.
    pub fn add(&mut self, name: &str) {
        self.tables.push((name.to_owned(), name.to_owned()));
        self.settings.pipelines[0].tables.push(TableEntry::new(name));
    }

    /// Takes a table that is there into the pipeline, which a test compares by itself. `document`: the inside of the
    /// setting of that name.
    pub fn mapped(&mut self, name: &str, document: &str) {
        let entry = TableEntry { document: document.to_owned(), ..TableEntry::new(name) };
        self.settings.pipelines[0].tables.push(entry);
    }

    /// The same, for a table that the two call differently.
    pub fn renamed(&mut self, name: &str, here: &str, there: &str) {
        self.tables.push((here.to_owned(), there.to_owned()));
        let at = vec![("source".to_owned(), here.to_owned()), ("target".to_owned(), there.to_owned())];
        self.settings.pipelines[0].tables.push(TableEntry { at, ..TableEntry::new(name) });
    }

    /// The table of the loads, with rows in the source.
    pub async fn item(&mut self, rows: i64) -> anyhow::Result<()> {
        let digits = if self.direction().has_documents() { 3 } else { 6 };
        let (here, there) = (tables::item_with(self.source.kind, digits), tables::item_with(self.target.kind, digits));
        self.table(ITEM, &here, &there).await?;
        fill(&self.source, rows).await
    }

    /// Lines for the pipeline's section.
    pub fn pipeline(&mut self, lines: &str) {
        self.settings.pipelines[0].extra.push_str(lines);
        self.settings.pipelines[0].extra.push('\n');
    }

    pub fn scenario(self) -> anyhow::Result<Scenario> {
        let Preparation { source, target, tables, settings } = self;
        Ok(Scenario { worker: Worker::new(&settings)?, source, target, tables, settings })
    }

    /// Starts the worker and waits until the snapshot is through and at the target.
    pub async fn streaming(self) -> anyhow::Result<Scenario> {
        let mut scenario = self.scenario()?;
        scenario.worker.start()?;
        scenario.worker.until_streaming(SETTLE).await?;
        scenario.settle().await?;
        Ok(scenario)
    }
}

impl Scenario {
    /// Waits until the target has everything that the source has committed before the call.
    pub async fn settle(&self) -> anyhow::Result<()> {
        fence(&self.source, &self.target, SETTLE).await
    }

    /// Waits until a load has made so many changes more.
    pub async fn until_changes(&self, load: &Load, more: u64) -> anyhow::Result<()> {
        let begin = load.report().changes;
        wait::until("the load's changes", SETTLE, async || Ok((load.report().changes >= begin + more).then_some(())))
            .await
    }

    /// Everything is at the target, and every row of every table is equal.
    pub async fn equal(&self) -> anyhow::Result<()> {
        self.settle().await?;
        for (here, there) in &self.tables {
            compare::renamed_equal(&self.source, here, &self.target, there).await?;
        }
        Ok(())
    }

    /// The end of a test: equal in full, a clean end by SIGTERM, and nothing in the log that must not stand there.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        self.equal().await?;
        let status = self.worker.terminate().await?;
        ensure!(status.success(), "the worker ended with {status} after SIGTERM");
        self.worker.quiet();
        Ok(())
    }
}

/// One row at the source that tells how far a target has come.
pub async fn make_fence(source: &Database, target: &Database) -> anyhow::Result<()> {
    match source.kind {
        Kind::Postgres | Kind::Mysql => source.execute(FENCE).await?,
        Kind::Mongodb => {
            let row = doc! { "_id": 1, "mark": 0i64 };
            source.documents().await?.collection::<Document>("fence").insert_one(row).await?;
        }
    }
    make(target, "fence", EMPTY_FENCE).await
}

/// Rows 1 to `rows` of the loads' table.
pub async fn fill(database: &Database, rows: i64) -> anyhow::Result<()> {
    match database.kind {
        Kind::Postgres | Kind::Mysql => database.execute(&tables::fill(database.kind, rows)).await,
        Kind::Mongodb => mongodb::fill(&database.documents().await?, rows).await,
    }
}

/// Makes a table by a statement, or a collection by its name.
pub async fn make(database: &Database, name: &str, statement: &str) -> anyhow::Result<()> {
    match database.kind {
        Kind::Postgres | Kind::Mysql => database.execute(statement).await,
        Kind::Mongodb => Ok(database.documents().await?.create_collection(name).await?),
    }
}

/// Writes a new mark at the source and waits until the target shows it.
pub async fn fence(source: &Database, target: &Database, limit: Duration) -> anyhow::Result<()> {
    let mark = match source.connect().await? {
        Connection::Mongodb(database) => mongodb::raise_fence(&database).await?,
        mut connection => {
            connection.execute("UPDATE fence SET mark = mark + 1 WHERE id = 1").await?;
            connection.number("SELECT mark FROM fence WHERE id = 1").await?
        }
    };
    let mut there = None;
    wait::until("the target to show what was committed last", limit, async || {
        let mut open = match there.take() {
            Some(open) => open,
            None => target.connect().await?,
        };
        let seen = match &mut open {
            Connection::Mongodb(database) => mongodb::fence(database).await?.map(|mark| mark.to_string()),
            open => open.value("SELECT mark FROM fence WHERE id = 1").await?,
        };
        // A connection that failed is not used again.
        there = Some(open);
        Ok((seen == Some(mark.to_string())).then_some(()))
    })
    .await
}
