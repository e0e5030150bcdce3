//! What a test runs on: a stand-in of its own, or the replica set of `SYNC_WORKER_TEST_MONGODB`.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use bson::{Document, Timestamp, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Collection, Database};
use sync_worker_mongodb_stand_in::{Options, StandIn};
use tokio::sync::{Mutex, MutexGuard};

/// The real replica set to run on, if one is given. What `servers run` starts where there is no `mongod` is a stand-in that other
/// tests use beside this one.
pub fn real() -> Option<String> {
    let is_stand_in = std::env::var("SYNC_WORKER_TEST_MONGODB_IS").is_ok_and(|what| what == "stand-in");
    std::env::var("SYNC_WORKER_TEST_MONGODB").ok().filter(|_| !is_stand_in)
}
const DEADLINE: Duration = Duration::from_secs(60);

/// A real replica set is shared by all tests of the process, and some of them disturb it.
static REAL: Mutex<()> = Mutex::const_new(());

pub type Rows = Collection<Document>;

pub struct Deployment {
    pub client: Client,
    pub stand_in: Option<StandIn>,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Deployment {
    pub async fn start() -> Result<Self> {
        match real() {
            Some(url) => {
                let alone = REAL.lock().await;
                Ok(Self { client: connect(&url).await?, stand_in: None, _alone: Some(alone) })
            }
            None => Self::of(Options::default()).await,
        }
    }

    async fn of(options: Options) -> Result<Self> {
        let stand_in = StandIn::start(options).await?;
        Ok(Self { client: connect(&stand_in.url()).await?, stand_in: Some(stand_in), _alone: None })
    }

    /// For a check that needs the stand-in's own commands or options; `None` (and a line) on a real replica set.
    pub async fn stand_in(what: &str, options: Options) -> Result<Option<Self>> {
        if real().is_some() {
            println!("skipped on a real replica set: {what}");
            return Ok(None);
        }
        Self::of(options).await.map(Some)
    }

    /// An empty database.
    pub async fn database(&self, name: &str) -> Result<Database> {
        let database = self.client.database(&format!("stand_in_{name}"));
        database.drop().await?;
        Ok(database)
    }

    pub async fn admin(&self, command: Document) -> Result<Document> {
        let name = command.keys().next().cloned().unwrap_or_default();
        self.client.database("admin").run_command(command).await.with_context(|| format!("the command {name}"))
    }

    /// The cluster time right after everything so far.
    pub async fn now(&self) -> Result<Timestamp> {
        let last = self.admin(doc! {"ping": 1}).await?.get_timestamp("operationTime")?;
        Ok(Timestamp { time: last.time, increment: last.increment + 1 })
    }
}

pub async fn connect(url: &str) -> Result<Client> {
    let mut options = ClientOptions::parse(url).await?;
    options.server_selection_timeout = Some(Duration::from_secs(10));
    Ok(Client::with_options(options)?)
}

/// A check with a deadline.
pub async fn within<T>(check: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(DEADLINE, check).await.context("the check did not come to its end in time")?
}

pub fn code(error: &mongodb::error::Error) -> Option<i32> {
    use mongodb::error::{ErrorKind, WriteFailure};
    match &*error.kind {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        ErrorKind::InsertMany(errors) => errors.write_errors.as_ref()?.first().map(|error| error.code),
        ErrorKind::BulkWrite(errors) => errors.write_errors.values().next().map(|error| error.code),
        _ => None,
    }
}

/// The code of the error that something had to end with.
pub fn refused<T>(result: mongodb::error::Result<T>) -> Result<i32> {
    match result {
        Ok(_) => anyhow::bail!("it was not refused"),
        Err(error) => code(&error).with_context(|| format!("an error without a code: {error}")),
    }
}

/// A command sent without the driver, which would not let a session's numbers be chosen.
pub async fn raw_command(url: &str, database: &str, command: &Document) -> Result<Document> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = url.trim_start_matches("mongodb://").split('/').next().context("a url without a host")?;
    let mut command = command.clone();
    command.insert("$db", database);
    let body = command.to_vec()?;
    let mut message = Vec::new();
    for number in [21 + body.len() as i32, 1, 0, 2013, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&body);
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(&message).await?;
    let length = stream.read_u32_le().await? as usize;
    let mut reply = vec![0; length - 4];
    stream.read_exact(&mut reply).await?;
    Ok(Document::from_reader(&reply[17..])?)
}
