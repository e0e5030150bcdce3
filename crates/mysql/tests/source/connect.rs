//! Logging in, and noticing that nobody is there any more.

use crate::fixture::Fixture;
use anyhow::{Result, anyhow};
use std::time::{Duration, Instant};
use sync_worker_core::database::Database;
use sync_worker_core::error::{Classified, ErrorClass};
use sync_worker_core::secret::Secret;
use sync_worker_mysql::client::Client;
use sync_worker_mysql::wire::Wire;
use sync_worker_mysql::{Config, Mysql};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const T: &str = "CREATE TABLE t (id INT PRIMARY KEY, v INT)";

/// Passes bytes on until told to swallow them, those of new connections too.
struct Proxy {
    url: String,
    swallow: watch::Sender<bool>,
}

impl Proxy {
    async fn start(url: &str) -> Result<Self> {
        let address = Config { url: url.to_owned(), password: None, server_id: None }.address()?;
        let server = (address.hosts[0].name.clone(), address.hosts[0].port);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let database = address.database.unwrap_or_default();
        let url = format!("mysql://{}@{}/{database}?ssl-mode=disabled", address.user, listener.local_addr()?);
        let (swallow, swallowed) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server.clone()).await else { continue };
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                tokio::spawn(pass(client_in, server_out, swallowed.clone()));
                tokio::spawn(pass(server_in, client_out, swallowed.clone()));
            }
        });
        Ok(Self { url, swallow })
    }
}

async fn pass(
    from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    swallowed: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while from.readable().await.is_ok() {
        match from.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(_) if *swallowed.borrow() => {}
            Ok(length) if to.write_all(&buffer[..length]).await.is_err() => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
}

#[tokio::test]
async fn a_swallowed_stream_is_given_up_within_five_seconds() -> Result<()> {
    let Some(mut fixture) = Fixture::new(&[T], &["t"]).await? else { return Ok(()) };
    let proxy = Proxy::start(&fixture.database.url).await?;
    fixture.mysql = Mysql::new("shop".into(), Config { url: proxy.url.clone(), password: None, server_id: None })?;
    let mut stream = fixture.open(None).await?;
    fixture.run(&["INSERT INTO t VALUES (1, 1)"]).await?;
    stream.until(1).await?;
    proxy.swallow.send_replace(true);
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = stream.source.next().await {
            break error;
        }
    };
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    let reconnecting = Instant::now();
    let error = fixture.open(Some(&stream.checkpoint)).await.err().expect("a swallowed connection");
    assert!(reconnecting.elapsed() < Duration::from_secs(8), "{error}");
    proxy.swallow.send_replace(false);
    fixture.run(&["INSERT INTO t VALUES (2, 1)"]).await?;
    let mut again = fixture.open(Some(&stream.checkpoint)).await?;
    again.until(1).await
}

#[tokio::test]
async fn a_swallowed_statement_is_given_up_and_a_slow_one_is_not() -> Result<()> {
    let Some(fixture) = Fixture::new(&[T], &["t"]).await? else { return Ok(()) };
    let proxy = Proxy::start(&fixture.database.url).await?;
    let config = Config { url: proxy.url.clone(), password: None, server_id: None };
    let mut client = Client::connect(&config).await?;
    let mut wire = Wire::connect(&config).await?;
    let begun = Instant::now();
    let (slow, raw) = tokio::join!(client.run("a long statement", "DO SLEEP(6.5)"), wire.execute("DO SLEEP(6.5)"));
    slow?;
    raw?;
    assert!(begun.elapsed() > Duration::from_secs(6));
    proxy.swallow.send_replace(true);
    let begun = Instant::now();
    let (lost, raw) = tokio::join!(client.run("a statement", "DO 1"), wire.execute("DO 1"));
    for error in [lost.expect_err("no answer"), raw.expect_err("no answer")] {
        assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test]
async fn passwords_are_taken_with_and_without_tls() -> Result<()> {
    let Some(fixture) = Fixture::new(&[T], &["t"]).await? else { return Ok(()) };
    let user = format!("u{}", &fixture.database.name[fixture.database.name.len() - 20..]).replace('_', "x");
    let create = format!("CREATE USER {user} IDENTIFIED WITH caching_sha2_password BY 'se cret'");
    let grant = format!("GRANT SELECT ON {}.* TO {user}", fixture.database.name);
    fixture.run(&[&create, &grant]).await?;
    let base = fixture.database.url.replace("root@", &format!("{user}@"));
    let config = |mode: &str, password: &str| Config {
        url: format!("{base}?ssl-mode={mode}"),
        password: Some(Secret::new(password.to_owned())),
        server_id: None,
    };
    let outcome = async {
        // The first login has to show the whole password, by the server's key; later ones a proof.
        for mode in ["disabled", "disabled", "required"] {
            let mut wire = Wire::connect(&config(mode, "se cret")).await?;
            assert!(wire.query_value("SELECT CURRENT_USER()").await?.starts_with(&user));
        }
        fixture.run(&["FLUSH PRIVILEGES"]).await?;
        Wire::connect(&config("required", "se cret")).await?;
        Client::connect(&config("required", "se cret")).await?;
        for error in [
            Wire::connect(&config("required", "wrong")).await.err(),
            Wire::connect(&config("disabled", "wrong")).await.err(),
            Client::connect(&config("required", "wrong")).await.err(),
        ] {
            let error = error.ok_or_else(|| anyhow!("a wrong password was taken"))?;
            assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
            let text = sync_worker_core::error::Error::from(error).to_string();
            assert!(text.contains("1045") && !text.contains("wrong"), "{text}");
        }
        // Nobody vouches for the server's own certificate.
        let error = Wire::connect(&config("verify_ca", "se cret")).await.err().ok_or_else(|| anyhow!("trusted"))?;
        assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
        // Without the privilege there is no stream, and the error says so.
        let database = Mysql::new("shop".into(), config("preferred", "se cret"))?;
        let error =
            database.source(&fixture.scope, None).await.err().ok_or_else(|| anyhow!("no privilege was needed"))?;
        assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
        assert!(error.to_string().contains("REPLICATION"), "{error}");
        Ok(())
    };
    let outcome: Result<()> = outcome.await;
    fixture.run(&[&format!("DROP USER {user}")]).await?;
    outcome
}

#[tokio::test]
async fn nobody_at_home_is_transient_and_a_missing_database_is_fatal() -> Result<()> {
    let Some(fixture) = Fixture::new(&[T], &["t"]).await? else { return Ok(()) };
    let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let config = Config { url: format!("mysql://root@{closed}/x"), password: None, server_id: None };
    let error = Client::connect(&config).await.err().ok_or_else(|| anyhow!("connected to nothing"))?;
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    let url = fixture.database.url.replace(&fixture.database.name, "no_such_database");
    let config = Config { url, password: None, server_id: None };
    for error in [Client::connect(&config).await.err(), Wire::connect(&config).await.err()] {
        let error = error.ok_or_else(|| anyhow!("connected to a missing database"))?;
        assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn of_several_hosts_the_one_that_answers_is_used() -> Result<()> {
    let Some(fixture) = Fixture::new(&[T], &["t"]).await? else { return Ok(()) };
    let closed = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let url = fixture.database.url.replace("root@", &format!("root@{closed},"));
    let config = Config { url, password: None, server_id: None };
    Client::connect(&config).await?;
    Wire::connect(&config).await?;
    Ok(())
}
