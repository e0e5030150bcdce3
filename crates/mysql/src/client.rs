//! A connection for statements: catalog, checks and the sink. The change stream and the table reader use [`crate::wire`].

use crate::config::{Address, Config, Host, SslMode};
use crate::error::{Error, ServerError};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, OptsBuilder, SslOpts};
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long a host may take to let us in. A swallowed connection is noticed within twice this.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a statement may run before somebody looks whether the server is still at it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Strict, so that a value that does not fit is an error and never changed; but zero dates and days like February 31,
/// which a MySQL source may hold, are taken as they are, and 0 in an AUTO_INCREMENT column stays 0 (invariant 7).
pub const SQL_MODE: &str = "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,\
                            NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES";

/// Settings of every session of ours.
pub fn session_statement() -> String {
    format!(
        "SET NAMES utf8mb4, SESSION time_zone = '+00:00', sql_mode = '{SQL_MODE}', \
         transaction_isolation = 'READ-COMMITTED', wait_timeout = 28800, net_read_timeout = 60, \
         net_write_timeout = 3600, lock_wait_timeout = 10, innodb_lock_wait_timeout = 10, foreign_key_checks = 1, \
         unique_checks = 1, sql_auto_is_null = 0"
    )
}

/// One connection and what it takes to see whether it still lives.
pub struct Client {
    pub conn: Conn,
    pub liveness: Liveness,
    pub host: Host,
}

impl Client {
    /// Connects to the first host that lets us in; where there are several, to the first that takes writes.
    pub async fn connect(config: &Config) -> Result<Client, Error> {
        let address = config.address()?;
        let mut last = None;
        for host in &address.hosts {
            match Self::connect_to(&address, host).await {
                Ok(mut client) => {
                    if address.hosts.len() == 1 || client.takes_writes().await? {
                        return Ok(client);
                    }
                    last.get_or_insert_with(|| no_primary(&address));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| no_primary(&address)))
    }

    async fn connect_to(address: &Address, host: &Host) -> Result<Client, Error> {
        let mut conn = open(address, host).await?;
        let liveness = Liveness::new(address.clone(), host.clone(), conn.id());
        let doing = "the settings of a session";
        let settings = session_statement();
        liveness.watch(doing, conn.query_drop(settings)).await?;
        Ok(Client { conn, liveness, host: host.clone() })
    }

    async fn takes_writes(&mut self) -> Result<bool, Error> {
        let query = self.conn.query_first::<u8, _>("SELECT @@global.read_only");
        Ok(self.liveness.watch("a look at read_only", query).await? == Some(0))
    }

    /// Runs a statement without a result.
    pub async fn run(&mut self, doing: &'static str, statement: &str) -> Result<(), Error> {
        self.liveness.watch(doing, self.conn.query_drop(statement)).await
    }
}

fn no_primary(address: &Address) -> Error {
    let hosts: Vec<_> = address.hosts.iter().map(Host::to_string).collect();
    let problem = io::Error::other("every host is read-only");
    Error::Unreachable { host: hosts.join(","), source: problem }
}

/// Opens one connection, with TLS as the address asks for it.
async fn open(address: &Address, host: &Host) -> Result<Conn, Error> {
    let options = |tls: bool| -> Result<OptsBuilder, Error> {
        Ok(OptsBuilder::default()
            .ip_or_hostname(host.name.clone())
            .tcp_port(host.port)
            .user(Some(address.user.clone()))
            .pass(address.password.as_ref().map(|password| password.expose().to_owned()))
            .db_name(address.database.clone())
            .ssl_opts(if tls { Some(tls_options(address)?) } else { None })
            .prefer_socket(false)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(2)))
            .stmt_cache_size(256)
            // Without it an UPDATE that finds its row and changes nothing would look like one that finds none.
            .client_found_rows(true))
    };
    let tls = address.ssl_mode != SslMode::Disabled;
    match connect(options(tls)?, host).await {
        Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer))
            if address.ssl_mode == SslMode::Preferred =>
        {
            connect(options(false)?, host).await.map_err(|error| refused(host, error))
        }
        outcome => outcome.map_err(|error| refused(host, error)),
    }
}

async fn connect(options: OptsBuilder, host: &Host) -> Result<Conn, mysql_async::Error> {
    match timeout(CONNECT_TIMEOUT, Conn::new(options)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let silent = io::Error::new(io::ErrorKind::TimedOut, format!("{host} did not answer within 2 s"));
            Err(mysql_async::Error::Io(mysql_async::IoError::Io(silent)))
        }
    }
}

fn refused(host: &Host, error: mysql_async::Error) -> Error {
    use mysql_async::{Error as E, IoError};
    let host = host.to_string();
    match error {
        E::Io(IoError::Io(source)) => Error::Unreachable { host, source },
        E::Io(IoError::Tls(error)) => Error::Tls { host, problem: error.to_string() },
        E::Driver(DriverError::NoClientSslFlagFromServer) => {
            Error::Tls { host, problem: "the server has no TLS; use ssl-mode=disabled or give it a key".to_owned() }
        }
        E::Server(error) => Error::Denied { host, source: ServerError::new(error.code, error.state, error.message) },
        E::Driver(_) | E::Other(_) | E::Url(_) => {
            Error::Unreachable { host, source: io::Error::other("the handshake failed") }
        }
    }
}

fn tls_options(address: &Address) -> Result<SslOpts, Error> {
    let verified = matches!(address.ssl_mode, SslMode::VerifyCa | SslMode::VerifyIdentity);
    let options = SslOpts::default().with_disable_built_in_roots(true);
    if !verified {
        // The verifier wants at least one root, although it accepts every certificate.
        return Ok(options
            .with_disable_built_in_roots(false)
            .with_danger_accept_invalid_certs(true)
            .with_danger_skip_domain_validation(true));
    }
    let roots = match &address.ssl_ca {
        Some(path) => {
            let pem = std::fs::read(path)
                .map_err(|error| Error::Config(format!("url: ssl-ca {} can't be read: {error}", path.display())))?;
            vec![pem.into()]
        }
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            found.into_iter().map(|certificate| certificate.to_vec().into()).collect()
        }
    };
    Ok(options.with_root_certs(roots).with_danger_skip_domain_validation(address.ssl_mode == SslMode::VerifyCa))
}

/// Tells a slow statement from a connection that has been swallowed.
pub struct Liveness {
    address: Address,
    host: Host,
    id: u32,
}

impl Liveness {
    pub(crate) fn new(address: Address, host: Host, id: u32) -> Self {
        Self { address, host, id }
    }

    /// Waits for a statement. When it takes long, asks the server over another connection whether it is still working
    /// on it; where it is not, or does not answer, the connection is given up and must be dropped.
    pub async fn watch<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, mysql_async::Error>>,
    ) -> Result<T, Error> {
        self.wait(async { work.await.map_err(|error| Error::driver(doing, error)) }).await
    }

    /// The same for work over a raw connection.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut work = std::pin::pin!(work);
        let begun = Instant::now();
        let (mut patience, mut idle) = (PATIENCE, 0);
        loop {
            if let Ok(outcome) = timeout(patience, &mut work).await {
                return outcome;
            }
            let asked = Instant::now();
            let answer = tokio::select! {
                outcome = &mut work => return outcome,
                answer = self.works() => answer,
            };
            let works = match answer {
                Ok(works) => works,
                // The question may be lost where the statement is not: it says no more than an idle server.
                Err(Error::Unreachable { .. } | Error::Lost { .. } | Error::Silent { .. }) => false,
                Err(error) => return Err(error),
            };
            // The reply may have been on its way while we asked: a server that is done must have been so twice.
            idle = if works { 0 } else { idle + 1 };
            if idle == 2 {
                return Err(Error::Silent { host: self.host.to_string(), seconds: begun.elapsed().as_secs() });
            }
            // A question that nobody answered has taken its time already.
            patience = if works { PATIENCE } else { PATIENCE.saturating_sub(asked.elapsed()) };
        }
    }

    /// Whether the server still runs a statement of the connection. Where it refuses the question, it is there, and that is
    /// all that can be said.
    async fn works(&self) -> Result<bool, Error> {
        let mut probe = match open(&self.address, &self.host).await {
            Err(Error::Denied { .. }) => return Ok(true),
            opened => opened?,
        };
        // The view in information_schema fails where any session's statement is no valid text, as a batch of ours may be.
        match timeout(CONNECT_TIMEOUT, probe.query::<mysql_async::Row, _>("SHOW PROCESSLIST")).await {
            Ok(Ok(sessions)) => {
                let command = |row: &mysql_async::Row| {
                    let id = row.get_opt::<u64, _>(0)?.ok()?;
                    let command = row.get_opt::<Vec<u8>, _>(4)?.ok()?;
                    (id == u64::from(self.id)).then_some(command)
                };
                Ok(sessions.iter().find_map(command).is_some_and(|command| command != b"Sleep"))
            }
            Ok(Err(mysql_async::Error::Server(_))) => Ok(true),
            Ok(Err(error)) => Err(Error::driver("a look at a slow statement", error)),
            Err(_) => Err(Error::Silent { host: self.host.to_string(), seconds: CONNECT_TIMEOUT.as_secs() }),
        }
    }
}
