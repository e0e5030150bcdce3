//! Writers at every member over the same few keys.

use super::accounts::key_of_documents;
use super::{SETTLE, TwoWay};
use crate::connection::Connection;
use crate::kind::Kind;
use crate::wait;
use ::mongodb::bson::{Document, doc};
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
        pace.tick().await;
        number += 1;
        let id = rng.random_range(1..=mix.keys);
        let writer = if mix.told_apart { format!("{name}{number}") } else { String::new() };
        let (a, b) = (rng.random_range(0..3), rng.random_range(0..3));
        let step = rng.random_range(-3..=3);
        if let Connection::Mongodb(documents) = &connection {
            match write_document(documents, (key, id), &writer, [a, b, step], mix.deletes, &mut rng).await {
                Ok(()) => drop(writes.fetch_add(1, Ordering::Relaxed)),
                Err(error) if is_conflict(&error) || is_refused(&error) => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        let insert = match connection.kind() {
            Kind::Postgres | Kind::Mongodb => "INSERT INTO account VALUES",
            Kind::Mysql => "INSERT IGNORE INTO account VALUES",
        };
        let otherwise = if connection.kind() == Kind::Postgres { " ON CONFLICT DO NOTHING" } else { "" };
        let sql = match rng.random_range(0..10) {
            0 | 1 => format!("{insert} ({id}, '{writer}', {a}, {b}, {step}){otherwise}"),
            2 if mix.deletes => format!("DELETE FROM account WHERE id = {id}"),
            3 | 4 => format!("UPDATE account SET writer = '{writer}', a = {a} WHERE id = {id}"),
            5 | 6 => format!("UPDATE account SET writer = '{writer}', b = {b} WHERE id = {id}"),
            _ => format!(
                "UPDATE account SET writer = '{writer}', a = {a}, b = {b}, counter = counter + {step} WHERE id = {id}"
            ),
        };
        // The worker may be in the way of a moment: that is an application's business to repeat.
        match connection.execute(&sql).await {
            Ok(()) => drop(writes.fetch_add(1, Ordering::Relaxed)),
            Err(error) if is_conflict(&error) || is_refused(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The same mix as of the statements.
async fn write_document(
    documents: &::mongodb::Database,
    (key, id): (&str, i64),
    writer: &str,
    [a, b, step]: [i32; 3],
    deletes: bool,
    rng: &mut StdRng,
) -> anyhow::Result<()> {
    let accounts = documents.collection::<Document>("account");
    let filter = doc! { key: id };
    let change = match rng.random_range(0..10) {
        0 | 1 => {
            let row = doc! { key: id, "writer": writer, "a": a, "b": b, "counter": i64::from(step) };
            return match accounts.insert_one(row).await {
                // It is there already.
                Err(error) if error.to_string().contains("11000") => Ok(()),
                done => Ok(done.map(drop)?),
            };
        }
        2 if deletes => return Ok(accounts.delete_one(filter).await.map(drop)?),
        3 | 4 => doc! { "$set": { "writer": writer, "a": a } },
        5 | 6 => doc! { "$set": { "writer": writer, "b": b } },
        _ => doc! { "$set": { "writer": writer, "a": a, "b": b }, "$inc": { "counter": i64::from(step) } },
    };
    Ok(accounts.update_one(filter, change).await.map(drop)?)
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

/// By a trigger of the convergence test.
fn is_refused(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("refused")
}
