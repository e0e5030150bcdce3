//! The running worker, as the other commands speak to it.

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::time::Duration;
use sync_worker_api::wire::Problem;

/// A worker that is there answers at once. How long what is asked of it takes, only it knows.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    pub fn new(address: SocketAddr) -> anyhow::Result<Self> {
        // A worker that listens everywhere is spoken to here.
        let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        // It is on this machine or beside it: a proxy for the rest of the world has no way there.
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
        let http = http.build().context("HTTP can't be spoken")?;
        Ok(Self { base: format!("http://{host}:{}", address.port()), http })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> anyhow::Result<T> {
        self.answer(self.http.get(self.url(path)).query(query)).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.answer(self.http.post(self.url(path)).json(body)).await
    }

    /// A response whose body comes bit by bit.
    pub async fn stream(&self, path: &str, query: &impl Serialize) -> anyhow::Result<reqwest::Response> {
        self.send(self.http.get(self.url(path)).query(query)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> anyhow::Result<T> {
        self.send(request).await?.json().await.context("the worker's answer can't be read")
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let base = &self.base;
        let response = request.send().await.map_err(|_| {
            anyhow::anyhow!(
                "no worker answers at {base}: start one with `sync-worker run`, or set http.listen to where it is"
            )
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        match response.json::<Problem>().await {
            Ok(problem) => bail!("{}", problem.error),
            Err(_) => bail!("the worker answered {status}"),
        }
    }
}
