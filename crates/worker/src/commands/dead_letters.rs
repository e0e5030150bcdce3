//! `sync-worker dead-letters`: rows that a target has refused for good, and what a person decides about them.

use crate::client::Client;
use crate::outcome::Outcome;
use sync_worker_api::wire::{Count, LetterList, Letters};

/// Ends with problems when there are any.
pub async fn list(client: &Client, which: Letters, json: bool) -> anyhow::Result<Outcome> {
    let list: LetterList = client.get("/sync/dead-letters", &which).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&list)?);
    } else if list.letters.is_empty() {
        println!("none");
    } else {
        for letter in &list.letters {
            let state = if letter.dead { "dead" } else { "waits" };
            let (key, reason) = (&letter.key, &letter.reason);
            println!("offset {} {} {} {key} {state} after {} attempts: {reason}", letter.offset, letter.table, letter.op, letter.attempts);
        }
    }
    Ok(if list.letters.is_empty() { Outcome::Done } else { Outcome::Problems })
}

pub async fn retry(client: &Client, which: Letters) -> anyhow::Result<Outcome> {
    let done: Count = client.post("/sync/dead-letters/retry", &which).await?;
    println!("{} tried again; `sync-worker dead-letters list` shows what was refused once more", done.count);
    Ok(Outcome::Done)
}

pub async fn give_up(client: &Client, which: Letters) -> anyhow::Result<Outcome> {
    let done: Count = client.post("/sync/dead-letters/drop", &which).await?;
    println!("{} given up", done.count);
    Ok(Outcome::Done)
}
