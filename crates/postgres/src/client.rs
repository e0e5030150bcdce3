//! Ordinary connections to a PostgreSQL server, always to the primary and always under the same session settings.

use crate::config::{Address, Config, Server, SslMode};
use crate::error::{Error, causes};
use crate::tls;
use crate::watch::Watch;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::fmt::Write;
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{NoTls, SimpleQueryMessage, SimpleQueryRow, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What a connection is for: its name in `pg_stat_activity` and its time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Short looks at catalogs and settings.
    Control,
    /// Reads of whole tables.
    Reader,
    Sink,
    /// The replication connection.
    Stream,
}

impl Purpose {
    pub fn application_name(self) -> &'static str {
        match self {
            Purpose::Control => "sync-worker control",
            Purpose::Reader => "sync-worker reader",
            Purpose::Sink => "sync-worker sink",
            Purpose::Stream => "sync-worker stream",
        }
    }
}

/// When data sent by us is not acknowledged for so long, the connection is dead: a host that vanished, a network that
/// swallows packets. A server that is too busy to read counts as well, so it must not be shorter than a lock's wait.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_RETRIES: u32 = 3;

/// The settings that decide how values are printed and read stand here and nowhere else, so that snapshot, stream and
/// sink mean the same text. An empty search path makes every name explicit, as native replication does.
const VALUE_SETTINGS: &[(&str, &str)] = &[
    ("DateStyle", "ISO,YMD"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("quote_all_identifiers", "off"),
    ("xmloption", "content"),
    ("search_path", ""),
];

/// The `options` of a connection's startup message.
pub fn options(purpose: Purpose) -> String {
    let mut text = String::new();
    let mut set = |name: &str, value: &str| {
        let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
        // Writing into a string can't fail.
        write!(text, " -c {name}={value}").unwrap_or_default();
    };
    VALUE_SETTINGS.iter().for_each(|(name, value)| set(name, value));
    set("client_min_messages", "error");
    // The server notices a vanished client as fast as the client a vanished server, and gives up its locks.
    set("tcp_keepalives_idle", "2");
    set("tcp_keepalives_interval", "1");
    set("tcp_keepalives_count", "3");
    match purpose {
        Purpose::Stream => {
            // A consumer that is slower than the stream closes its window for as long as it likes, and this would count
            // that as silence. The walsender hears our status instead.
            set("tcp_user_timeout", "0");
            set("wal_sender_timeout", "15s");
            set("statement_timeout", "0");
            set("lock_timeout", "0");
            return text;
        }
        Purpose::Control => set("statement_timeout", "60s"),
        Purpose::Reader | Purpose::Sink => set("statement_timeout", "0"),
    }
    match purpose {
        // Their messages must reach the log at once; no standby has to have them.
        Purpose::Control | Purpose::Reader => set("synchronous_commit", "local"),
        Purpose::Sink | Purpose::Stream => {}
    }
    set("tcp_user_timeout", "15s");
    set("lock_timeout", "10s");
    // A large batch on a slow network keeps the server waiting between its parts.
    set("idle_in_transaction_session_timeout", if purpose == Purpose::Sink { "10min" } else { "10s" });
    set("idle_session_timeout", "0");
    set("client_connection_check_interval", "2s");
    // A policy that hides rows would make a copy silently incomplete: the server refuses instead.
    set("row_security", "off");
    set("default_transaction_isolation", "read committed");
    set("default_transaction_read_only", "off");
    set("default_transaction_deferrable", "off");
    set("jit", "off");
    text
}

/// A connection. Dropping it closes it at once, whatever is under way.
pub struct Session {
    client: tokio_postgres::Client,
    task: AbortHandle,
}

impl Deref for Session {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection to the primary.
pub struct Client {
    inner: Session,
    watch: Watch,
    pub server: Server,
    /// As in `server_version_num`: 170011.
    pub version: u32,
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

impl Client {
    /// Bounds waits by what the server is doing, see [`Watch::over`].
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Runs statements by the simple protocol: no preparation, values as text.
    pub async fn rows(&self, doing: &str, sql: &str) -> Result<Vec<SimpleQueryRow>, Error> {
        let answer = self.watch.over(self.inner.simple_query(sql)).await?;
        let messages = answer.map_err(|error| Error::driver(doing, &error))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }

    /// The first column of the first row.
    pub async fn value(&self, doing: &str, sql: &str) -> Result<Option<String>, Error> {
        Ok(self.rows(doing, sql).await?.first().and_then(|row| row.get(0)).map(str::to_owned))
    }
}

/// Connects to the primary among the configured servers.
pub async fn connect(config: &Config, purpose: Purpose) -> Result<Client, Error> {
    let address = Arc::new(config.address()?);
    let mut attempts: FuturesUnordered<_> =
        address.servers.iter().map(|server| connect_to(&address, server, purpose)).collect();
    let mut standbys = Vec::new();
    let mut failed: Option<Error> = None;
    while let Some(outcome) = attempts.next().await {
        match outcome {
            Ok(Reached::Primary(client)) => return Ok(*client),
            Ok(Reached::Standby(server)) => standbys.push(server.to_string()),
            // A refusal says more than a host that is down.
            Err(error) => match (&failed, &error) {
                (Some(Error::Denied { .. } | Error::Tls { .. }), _) => {}
                _ => failed = Some(error),
            },
        }
    }
    match failed {
        Some(error) if standbys.is_empty() => Err(error),
        _ => Err(Error::Standby { servers: standbys.join(", ") }),
    }
}

enum Reached {
    Primary(Box<Client>),
    Standby(Server),
}

async fn connect_to(address: &Arc<Address>, server: &Server, purpose: Purpose) -> Result<Reached, Error> {
    let reaching = async {
        let inner = open(address, server, purpose).await?;
        let sql = "SELECT pg_is_in_recovery(), current_setting('server_version_num'), pg_backend_pid()";
        let answer = inner.simple_query(sql).await;
        Ok((inner, answer.map_err(|error| Error::driver("a look at the server", &error))?))
    };
    let (inner, answer) = tokio::time::timeout(address.connect_timeout, reaching).await.unwrap_or_else(|_| {
        let problem = format!("no answer within {} ms", address.connect_timeout.as_millis());
        Err(Error::Unreachable { server: server.to_string(), problem })
    })?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or(Error::Protocol("an empty answer"))?;
    if row.get(0) == Some("t") {
        return Ok(Reached::Standby(server.clone()));
    }
    let number = |column: usize| row.get(column).and_then(|text| text.parse().ok());
    let (Some(version), Some(process)) = (number(1), number(2)) else {
        return Err(Error::Protocol("a strange version"));
    };
    let watch = Watch::new(address.clone(), server.clone(), process);
    Ok(Reached::Primary(Box::new(Client { inner, watch, server: server.clone(), version })))
}

/// A connection to one server, whatever its role, with nothing around it.
pub async fn open(address: &Address, server: &Server, purpose: Purpose) -> Result<Session, Error> {
    match tls::client_config(address)? {
        None => start(address, server, purpose, NoTls).await,
        Some(config) => start(address, server, purpose, MakeRustlsConnect::new((*config).clone())).await,
    }
}

async fn start<T>(address: &Address, server: &Server, purpose: Purpose, tls: T) -> Result<Session, Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let mut config = tokio_postgres::Config::new();
    config.user(&address.user).dbname(&address.database).port(server.port);
    match &server.host {
        Host::Tcp(name) => config.host(name),
        #[cfg(unix)]
        Host::Unix(path) => config.host_path(path),
    };
    if let Some(password) = &address.password {
        config.password(password.expose());
    }
    config
        .application_name(purpose.application_name())
        .options(options(purpose))
        .ssl_mode(match address.sslmode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        })
        .connect_timeout(address.connect_timeout)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES);
    let (client, mut connection) = config.connect(tls).await.map_err(|error| refused(server, &error))?;
    let task = tokio::spawn(async move {
        // Notices are left out: they may quote values. An error reaches whoever waits for an answer.
        while let Some(Ok(_)) = poll_fn(|context| connection.poll_message(context)).await {}
    });
    Ok(Session { client, task: task.abort_handle() })
}

fn refused(server: &Server, error: &tokio_postgres::Error) -> Error {
    let server = server.to_string();
    if let Some(refused) = error.as_db_error() {
        return Error::Denied { server, source: Box::new(refused.into()) };
    }
    let problem = causes(error);
    if problem.starts_with("invalid configuration") {
        let cure = "set password = { env = \"...\" } or { file = \"...\" }";
        return Error::Config(format!("PostgreSQL at {server}: {problem}; {cure}"));
    }
    if tls::is_certificate_error(error) || problem.contains("server does not support TLS") {
        return Error::Tls { server, problem };
    }
    Error::Unreachable { server, problem }
}

/// A value as a string literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_keep_their_blanks() {
        let options = options(Purpose::Sink);
        assert!(options.contains(" -c default_transaction_isolation=read\\ committed"), "{options}");
        assert!(options.contains(" -c search_path= "), "{options}");
    }

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
