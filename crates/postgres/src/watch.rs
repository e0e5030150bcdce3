//! Noticing a connection that swallows everything: acknowledged by somebody on the way, answered by nobody.
//!
//! A long wait alone means nothing, a statement may take its time. So a second connection asks the server whether the
//! first one's session is still at work.

use crate::client::{self, Purpose};
use crate::config::{Address, Server};
use crate::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer may take before the server is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often in a row the server must not confirm that it works: once may be the moment between its answer and ours.
const STRIKES: u32 = 2;

/// Watches over what is asked of one session.
#[derive(Clone)]
pub struct Watch {
    address: Arc<Address>,
    server: Server,
    /// The session's process at the server.
    process: u32,
}

impl Watch {
    pub fn new(address: Arc<Address>, server: Server, process: u32) -> Self {
        Self { address, server, process }
    }

    /// Waits for what is asked of the session. When the server has stopped working on it, or can't be reached by another
    /// connection, the future is dropped and the connection must not be used again.
    pub async fn over<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        let start = Instant::now();
        let mut future = std::pin::pin!(future);
        let mut strikes = 0;
        loop {
            tokio::select! {
                biased;
                answer = &mut future => return Ok(answer),
                () = tokio::time::sleep(PATIENCE) => {}
            }
            // The answer may come while the server is asked.
            let at_work = tokio::select! {
                biased;
                answer = &mut future => return Ok(answer),
                at_work = self.is_at_work() => at_work,
            };
            strikes = if at_work { 0 } else { strikes + 1 };
            if strikes >= STRIKES {
                let seconds = start.elapsed().as_secs();
                return Err(Error::Silent { server: self.server.to_string(), seconds });
            }
        }
    }

    async fn is_at_work(&self) -> bool {
        let sql = format!(
            "SELECT FROM pg_stat_activity WHERE pid = {} AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'",
            self.process
        );
        let asking = async {
            let other = client::open(&self.address, &self.server, Purpose::Control).await?;
            other.simple_query(&sql).await.map_err(|error| Error::driver("a look at a session", &error))
        };
        match tokio::time::timeout(self.address.connect_timeout, asking).await {
            Ok(Ok(answer)) => {
                answer.iter().any(|message| matches!(message, tokio_postgres::SimpleQueryMessage::Row(_)))
            }
            // Too many connections, for instance: the server is there, and that is all that can be said.
            Ok(Err(Error::Denied { .. } | Error::Server { .. })) => true,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}
