//! One member of the replica set: it listens on its own port and shares the state with the others.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::connection::serve;
use super::shared::Server;

pub async fn listen(server: Arc<Server>, member: usize, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::task::yield_now().await;
                continue;
            }
        };
        if server.with(|state| state.election.is_stopped(member)) {
            continue;
        }
        let id = server.connection_id();
        let task = tokio::spawn(greet(server.clone(), id, member, stream, tls.clone()));
        server.connections.add(id, member, task.abort_handle());
    }
}

async fn greet(server: Arc<Server>, id: i64, member: usize, stream: TcpStream, tls: Option<TlsAcceptor>) {
    let outcome = async {
        stream.set_nodelay(true)?;
        match tls {
            Some(tls) => serve(server, id, member, tls.accept(stream).await?).await,
            None => serve(server, id, member, stream).await,
        }
    };
    if let Err(error) = outcome.await {
        tracing::debug!(%error, "a connection ended");
    }
}
