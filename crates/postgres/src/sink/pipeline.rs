//! Several statements in one round trip.

use super::encode::Array;
use super::failure::Failure;
use crate::client::Client;
use futures::TryStreamExt;
use futures::future::{MaybeDone, maybe_done};
use postgres_types::ToSql;
use std::future::Future;
use std::pin::Pin;
use tokio_postgres::{Error, Row, Statement};

/// What a statement answered.
#[derive(Debug)]
pub enum Reply {
    Done,
    Count(u64),
    Rows(Vec<Row>),
}

pub type Parameter = Box<dyn ToSql + Sync + Send>;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send + 'a>>;

/// Statements under way. Each is on its way to the server when its `send` returns; the server runs them in that order.
pub struct Pipeline<'a> {
    client: &'a Client,
    answers: Vec<MaybeDone<Answer<'a>>>,
    /// The driver did not send something: what follows would take effect without it, so no commit may follow.
    pub broken: bool,
}

impl<'a> Pipeline<'a> {
    pub fn new(client: &'a Client) -> Self {
        Self { client, answers: Vec::new(), broken: false }
    }

    /// How many statements have been sent.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Sends statements without parameters.
    pub async fn send(&mut self, sql: &'a str) {
        let client = self.client;
        self.start(Box::pin(async move { client.batch_execute(sql).await.map(|()| Reply::Done) })).await;
    }

    /// Sends a statement that answers with a number of rows.
    pub async fn execute(&mut self, statement: &'a Statement, arrays: &'a [Array]) {
        let client = self.client;
        self.start(Box::pin(async move { client.execute_raw(statement, arrays).await.map(Reply::Count) })).await;
    }

    /// Sends a statement with parameters of its own.
    pub async fn execute_with(&mut self, statement: &Statement, parameters: Vec<Parameter>) {
        let (client, statement) = (self.client, statement.clone());
        self.start(Box::pin(async move { client.execute_raw(&statement, parameters).await.map(Reply::Count) })).await;
    }

    /// Sends a statement that answers with rows.
    pub async fn query(&mut self, statement: &'a Statement, arrays: &'a [Array]) {
        let client = self.client;
        let answer = async move {
            let rows = client.query_raw(statement, arrays).await?;
            rows.try_collect().await.map(Reply::Rows)
        };
        self.start(Box::pin(answer)).await;
    }

    /// The driver sends a request when its future is polled for the first time.
    async fn start(&mut self, answer: Answer<'a>) {
        let mut answer = maybe_done(answer);
        if futures::poll!(Pin::new(&mut answer)).is_ready()
            && let MaybeDone::Done(Err(error)) = &answer
        {
            self.broken |= error.as_db_error().is_none();
        }
        self.answers.push(answer);
    }

    /// Waits for all answers, in order. Where the server has stopped working on them, those that are missing are failures
    /// of the connection.
    pub async fn finish(self) -> Vec<Result<Reply, Failure>> {
        let sent = self.answers.len();
        let mut replies = Vec::with_capacity(sent);
        let answers = async {
            for mut answer in self.answers {
                Pin::new(&mut answer).await;
                let reply = Pin::new(&mut answer).take_output();
                replies.push(match reply {
                    Some(reply) => reply.map_err(|error| Failure::of(&error)),
                    None => Ok(Reply::Done),
                });
            }
        };
        if let Err(silent) = self.client.watch().over(answers).await {
            let problem = silent.to_string();
            replies.resize_with(sent, || Err(Failure::of_connection(problem.clone())));
        }
        replies
    }
}

/// The first failure that is not merely the echo of an earlier one, with its place.
pub fn first_failure(replies: &mut Vec<Result<Reply, Failure>>) -> Option<(usize, Failure)> {
    let at = replies.iter().position(|reply| reply.as_ref().is_err_and(|failure| !failure.is_echo()))?;
    match replies.swap_remove(at) {
        Err(failure) => Some((at, failure)),
        Ok(_) => None,
    }
}
