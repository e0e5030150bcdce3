//! What the conflict ledger and the log say, with documents as rows.

use super::TwoWay;
use crate::mongodb::number;
use ::mongodb::bson::Document;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::time::Duration;

/// Entries that the worker lists at once.
const LISTED: usize = 10_000;

impl TwoWay {
    /// The conflict ledger of the first pipeline, the newest entry first.
    pub async fn conflicts(&self) -> anyhow::Result<Vec<Value>> {
        let (address, pipeline) = (self.worker.address(), self.first()?.name);
        let (mut conflicts, mut before) = (Vec::new(), String::new());
        loop {
            let url = format!("http://{address}/sync/conflicts?pipeline={pipeline}&limit={LISTED}{before}");
            let listed = reqwest::get(url).await?.error_for_status()?.bytes().await?;
            let mut listed: Value = serde_json::from_slice(&listed)?;
            let mut page: Vec<Value> = serde_json::from_value(listed["conflicts"].take())?;
            let Some(last) = page.last() else { return Ok(conflicts) };
            before = format!("&before={}", last["id"]);
            page.iter_mut().for_each(plain_conflict);
            conflicts.extend(page);
        }
    }

    /// Nobody writes behind capture's back: fails over the first row that is called drifted. What follows may come of
    /// it.
    pub async fn none_drifted(&self, conflicts: &[Value]) -> anyhow::Result<()> {
        let Some(drifted) = conflicts.iter().rfind(|conflict| conflict["kind"] == "drift") else { return Ok(()) };
        let (key, offset) = (&drifted["key"]["id"], drifted["offset"].as_u64().unwrap_or(0));
        bail!("called drifted: {drifted:#}\n{}", self.history(key, offset).await?)
    }

    /// What the log holds of a key of `account`, and the echoes between, as lines: to see how something came about.
    pub async fn history(&self, id: &Value, up_to: u64) -> anyhow::Result<String> {
        let url = format!("http://{}/sync/tail?pipeline={}&from=0", self.worker.address(), self.first()?.name);
        let mut response = reqwest::get(url).await?.error_for_status()?;
        let (mut text, mut lines) = (Vec::new(), String::new());
        while let Ok(Some(chunk)) =
            tokio::time::timeout(Duration::from_secs(1), response.chunk()).await.unwrap_or(Ok(None))
        {
            text.extend_from_slice(&chunk);
        }
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut record: Value = serde_json::from_slice(line)?;
            plain(&mut record);
            let at = record["offset"].as_u64().context("an offset")?;
            let of_key = ["before", "after"].iter().any(|image| record[image]["id"] == *id);
            if at <= up_to && at + 150 > up_to && (of_key || !record["marker"].is_null()) {
                let row = |image: &str| match &record[image] {
                    Value::Null => "nothing".to_owned(),
                    row => format!("{} {} {} {}", row["writer"], row["a"], row["b"], row["counter"]),
                };
                let line = match record["marker"].is_null() {
                    true => format!("{} {} -> {}", record["source"]["name"], row("before"), row("after")),
                    false => record["marker"].to_string(),
                };
                lines.push_str(&format!("{at}: {line}\n"));
            }
        }
        Ok(lines)
    }
}

/// A record of `account` as the log prints it, with documents as rows.
pub fn plain(record: &mut Value) {
    for image in ["before", "after"] {
        if let Some(row) = record.get_mut(image) {
            plain_row(row);
        }
    }
}

/// The same for an entry of the ledger, where the members have documents only.
fn plain_conflict(conflict: &mut Value) {
    for side in ["winner", "loser"] {
        if let Some(row) = conflict.get_mut(side).and_then(|version| version.get_mut("row")) {
            plain_row(row);
        }
    }
    if let Some(key) = conflict["key"].as_object_mut()
        && let Some(id) = key.remove("_id")
    {
        key.insert("id".to_owned(), id);
    }
}

fn plain_row(row: &mut Value) {
    let hex = row.as_object().and_then(|row| row.values().filter_map(Value::as_str).next_back());
    let Some(found) = hex.and_then(document).filter(|found| found.contains_key("_id")) else { return };
    let of = |field: &str| number(found.get(field));
    let writer = found.get_str("writer").ok();
    *row = json!({ "id": of("_id"), "writer": writer, "a": of("a"), "b": of("b"), "counter": of("counter") });
}

/// A document that is printed as hexadecimal digits.
fn document(hex: &str) -> Option<Document> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let bytes: Vec<u8> = digits?.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Document::from_reader(&bytes[..]).ok()
}
