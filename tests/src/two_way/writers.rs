//! Writers at every member over the same few keys.

use super::accounts::key_of_documents;
use super::{SETTLE, TwoWay};
use crate::connection::Connection;
use crate::kind::Kind;
use crate::wait;
use ::mongodb::bson::{Document, doc};
use ::mongodb::{ClientSession, Collection};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

impl TwoWay {
    /// Writers at every member over the same few keys.
    pub fn writers(&self, seed: u64, mix: Mix) -> Writers {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for (place, member) in self.members.iter().enumerate() {
            let (url, name) = (member.database.url(), member.name);
            let (stop, writes) = (stop.clone(), writes.clone());
            let rng = StdRng::seed_from_u64(seed ^ (place as u64) << 32);
            tasks.spawn(async move { write(&url, name, mix, rng, &stop, &writes).await });
        }
        Writers { stop, writes, tasks }
    }
}

/// What writers do.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub keys: i64,
    /// Every row carries its writer's id; else columns have few values.
    pub told_apart: bool,
    pub deletes: bool,
    /// Up to four statements in each transaction, over one or several rows; where versions are not told apart, some of them
    /// change the row's key.
    pub transactions: bool,
    /// Statements a second, each writer.
    pub rate: u32,
}

pub struct Writers {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Writers {
    pub fn written(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Waits for so many writes in all.
    pub async fn until(&self, count: u64) -> anyhow::Result<()> {
        wait::until("the writers", SETTLE, async || Ok((self.written() >= count).then_some(()))).await
    }

    /// Ends them; fails where one has failed.
    pub async fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.written())
    }
}

async fn write(
    url: &str,
    name: &str,
    mix: Mix,
    mut rng: StdRng,
    stop: &AtomicBool,
    writes: &AtomicU64,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(url).await?;
    let key = key_of_documents(&connection, "account").await?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / mix.rate);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let count = if mix.transactions { rng.random_range(1..=4) } else { 1 };
        let mut statements = Vec::with_capacity(count);
        for _ in 0..count {
            pace.tick().await;
            number += 1;
            let writer = if mix.told_apart { format!("{name}{number}") } else { String::new() };
            statements.push(Statement::any(&mix, writer, &mut rng));
        }
        let done = match &mut connection {
            Connection::Mongodb(documents) => on_documents(documents, key, &statements).await,
            connection => on_rows(connection, &statements).await,
        };
        match done {
            Ok(()) => drop(writes.fetch_add(count as u64, Ordering::Relaxed)),
            // The worker may be in the way of a moment: that is an application's business to repeat.
            Err(error) if is_conflict(&error) || is_refused(&error) || is_duplicate(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The driver's actions have no type in common.
macro_rules! within {
    ($action:expr, $session:expr) => {
        match $session.as_deref_mut() {
            Some(session) => $action.session(session).await?,
            None => $action.await?,
        }
    };
}

struct Statement {
    id: i64,
    writer: String,
    a: i32,
    b: i32,
    step: i64,
    what: What,
}

enum What {
    /// Unless the key is taken.
    Insert,
    Delete,
    SetA,
    SetB,
    /// Both columns, and the counter goes on.
    SetAll,
    /// The row gets another key.
    Move(i64),
}

impl Statement {
    fn any(mix: &Mix, writer: String, rng: &mut StdRng) -> Self {
        let id = rng.random_range(1..=mix.keys);
        let (a, b, step) = (rng.random_range(0..3), rng.random_range(0..3), rng.random_range(-3..=3));
        let what = match rng.random_range(0..10) {
            0 | 1 => What::Insert,
            2 if mix.deletes => What::Delete,
            3 | 4 => What::SetA,
            5 | 6 => What::SetB,
            // What became of a version is told by its key.
            7 if mix.transactions && !mix.told_apart => What::Move(rng.random_range(1..=mix.keys)),
            _ => What::SetAll,
        };
        Self { id, writer, a, b, step, what }
    }

    fn sql(&self, kind: Kind) -> String {
        let Self { id, writer, a, b, step, what } = self;
        let update = |set: &str| format!("UPDATE account SET writer = '{writer}', {set} WHERE id = {id}");
        match what {
            What::Insert => {
                let values = format!("INTO account VALUES ({id}, '{writer}', {a}, {b}, {step})");
                match kind {
                    Kind::Postgres | Kind::Mongodb => format!("INSERT {values} ON CONFLICT DO NOTHING"),
                    Kind::Mysql => format!("INSERT IGNORE {values}"),
                }
            }
            What::Delete => format!("DELETE FROM account WHERE id = {id}"),
            What::SetA => update(&format!("a = {a}")),
            What::SetB => update(&format!("b = {b}")),
            What::SetAll => update(&format!("a = {a}, b = {b}, counter = counter + {step}")),
            What::Move(to) => update(&format!("id = {to}")),
        }
    }

    async fn on_documents(
        &self,
        accounts: &Collection<Document>,
        key: &str,
        mut session: Option<&mut ClientSession>,
    ) -> anyhow::Result<()> {
        let Self { id, writer, a, b, step, what } = self;
        let filter = doc! { key: id };
        let change = match what {
            What::Insert => {
                let found = accounts.find_one(filter);
                if within!(found, session).is_none() {
                    let row = doc! { key: id, "writer": writer, "a": a, "b": b, "counter": step };
                    within!(accounts.insert_one(row), session);
                }
                return Ok(());
            }
            What::Delete => {
                within!(accounts.delete_one(filter), session);
                return Ok(());
            }
            What::Move(to) => {
                let found = accounts.find_one_and_delete(filter);
                if let Some(mut row) = within!(found, session) {
                    row.remove("_id");
                    row.insert(key, to);
                    within!(accounts.insert_one(row), session);
                }
                return Ok(());
            }
            What::SetA => doc! { "$set": { "writer": writer, "a": a } },
            What::SetB => doc! { "$set": { "writer": writer, "b": b } },
            What::SetAll => doc! { "$set": { "writer": writer, "a": a, "b": b }, "$inc": { "counter": step } },
        };
        within!(accounts.update_one(filter, change), session);
        Ok(())
    }
}

/// All of them or none.
async fn on_rows(connection: &mut Connection, statements: &[Statement]) -> anyhow::Result<()> {
    let kind = connection.kind();
    if let [statement] = statements {
        return connection.execute(&statement.sql(kind)).await;
    }
    let all = async |connection: &mut Connection| {
        connection.execute("BEGIN").await?;
        for statement in statements {
            connection.execute(&statement.sql(kind)).await?;
        }
        connection.execute("COMMIT").await
    };
    let done = all(connection).await;
    if done.is_err() {
        connection.execute("ROLLBACK").await?;
    }
    done
}

/// All of them or none.
async fn on_documents(documents: &::mongodb::Database, key: &str, statements: &[Statement]) -> anyhow::Result<()> {
    let accounts = documents.collection::<Document>("account");
    if let [statement] = statements {
        return statement.on_documents(&accounts, key, None).await;
    }
    let mut session = documents.client().start_session().await?;
    session.start_transaction().await?;
    for statement in statements {
        if let Err(error) = statement.on_documents(&accounts, key, Some(&mut session)).await {
            // A failed statement has ended it at the server.
            session.abort_transaction().await.ok();
            return Err(error);
        }
    }
    Ok(session.commit_transaction().await?)
}

/// A deadlock or a serialization failure.
pub fn is_conflict(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_ascii_lowercase();
    text.contains("deadlock")
        || text.contains("writeconflict")
        || text.contains("write conflict")
        || text.contains("could not serialize")
        || text.contains("lock wait timeout")
}

/// The worker has brought a row under a key that a row was to get.
fn is_duplicate(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_ascii_lowercase();
    text.contains("duplicate") || text.contains("11000")
}

/// By a trigger of the convergence test.
fn is_refused(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("refused")
}
