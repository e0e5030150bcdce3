//! Reading change streams in tests.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bson::Document;
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::{ChangeStreamEvent, ResumeToken};
use serde::de::DeserializeOwned;

pub type Event = ChangeStreamEvent<Document>;
pub type Stream = ChangeStream<Event>;

const DEADLINE: Duration = Duration::from_secs(15);

/// The next events; fewer if the stream ends.
pub async fn take<T: DeserializeOwned>(stream: &mut ChangeStream<T>, count: usize) -> Result<Vec<T>> {
    let (mut events, end) = (Vec::new(), Instant::now() + DEADLINE);
    while events.len() < count {
        ensure!(Instant::now() < end, "only {} of {count} events came", events.len());
        match stream.next_if_any().await? {
            Some(event) => events.push(event),
            None if !stream.is_alive() => break,
            None => {}
        }
    }
    Ok(events)
}

/// The error that a stream ends with, and how many events came before it.
pub async fn until_error(stream: &mut Stream) -> Result<(usize, mongodb::error::Error)> {
    let (mut count, end) = (0, Instant::now() + DEADLINE);
    loop {
        ensure!(Instant::now() < end, "no error came");
        match stream.next_if_any().await {
            Ok(event) => count += usize::from(event.is_some()),
            Err(error) => return Ok((count, error)),
        }
    }
}

pub fn operations(events: &[Event]) -> String {
    let names = events.iter().map(|event| format!("{:?}", event.operation_type).to_lowercase());
    names.collect::<Vec<_>>().join(",")
}

pub fn text(token: &ResumeToken) -> String {
    let document = bson::serialize_to_document(token).unwrap_or_default();
    document.get_str("_data").unwrap_or_default().to_owned()
}

pub fn tokens_ascend(events: &[Event]) -> bool {
    events.windows(2).all(|pair| text(&pair[0].id) < text(&pair[1].id))
}
