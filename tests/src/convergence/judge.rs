//! What became of each version: held, replaced by one that saw it, or on record as a loser; and whether anything was overwritten
//! by a version that neither saw it nor beat it.

use super::Report;
use crate::two_way::{Replaced, leads_to, plain};
use crate::worker::Worker;
use anyhow::Context;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use sync_worker_engine::envelope::instant;
use tokio::task::JoinSet;

/// What the log says of the writers' versions, read as it grows: the worker lets go of its beginning.
pub struct Log {
    seen: Arc<Mutex<Versions>>,
    _following: JoinSet<()>,
}

/// A version is named by its writer id, a delete by where and when it was committed.
#[derive(Default)]
struct Versions {
    /// With the member whose stream showed it.
    written: BTreeSet<(String, String)>,
    /// Each with the one that a local write was made over.
    over: BTreeSet<(String, String)>,
    /// Each with the one that the same member wrote of the same key before.
    after: Vec<(String, String)>,
    /// What each member has written last of a key.
    last: BTreeMap<(String, i64), String>,
    /// Made where there was no row, with its offset.
    inserted: Vec<(u64, i64, String)>,
    /// Of each key, by offset.
    deletes: BTreeMap<i64, BTreeMap<u64, String>>,
    /// Of each key, the records as lines, to see how a problem came about.
    lines: BTreeMap<i64, Vec<String>>,
    next: u64,
}

/// The end of a run, as the members and the ledger have it.
pub struct End<'a> {
    pub held: BTreeSet<String>,
    pub conflicts: &'a [Value],
    pub replaced: Vec<Replaced>,
}

impl Log {
    pub fn follow(worker: &Worker) -> Self {
        let (seen, address) = (Arc::new(Mutex::new(Versions::default())), worker.address());
        let mut following = JoinSet::new();
        let versions = seen.clone();
        following.spawn(async move {
            loop {
                // The worker is down now and then.
                if read(&address, &versions).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Self { seen, _following: following }
    }

    pub fn judge(&self, end: &End<'_>, report: &mut Report) {
        let versions = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if versions.written.is_empty() {
            report.problems.push("nothing was seen of the log".to_owned());
        }
        versions.judge_written(end, report);
        versions.judge_replaced(end, report);
    }
}

fn name_of_delete(id: i64, by: &str, commit_time: &str) -> String {
    format!("the delete of {id} by {by} at {commit_time}")
}

/// A version that took part in a conflict.
fn contender(conflict: &Value, side: &str) -> Option<String> {
    let version = conflict.get(side).filter(|version| !version.is_null())?;
    match version["row"]["writer"].as_str() {
        Some(writer) => Some(writer.to_owned()),
        None => {
            let (id, by) = (conflict["key"]["id"].as_i64()?, version["by"].as_str()?);
            Some(name_of_delete(id, by, version["commit_time"].as_str()?))
        }
    }
}

impl Versions {
    /// Every write has left a trace, and none of ours has come back as a change.
    fn judge_written(&self, end: &End<'_>, report: &mut Report) {
        let losers: BTreeSet<String> =
            end.conflicts.iter().filter_map(|conflict| contender(conflict, "loser")).collect();
        let replaced: BTreeSet<&str> = self.over.iter().map(|(_, over)| over.as_str()).collect();
        for (origin, version) in &self.written {
            if !version.starts_with(origin.as_str()) && !version.starts_with("last") {
                report.problems.push(format!("{version} has come back as a change of {origin}"));
            }
            if !end.held.contains(version) && !losers.contains(version) && !replaced.contains(&**version) {
                report.problems.push(format!("{version} has vanished without a trace"));
            }
        }
    }

    /// Whatever was replaced anywhere was seen or beaten by what replaced it, be it by way of others.
    fn judge_replaced(&self, end: &End<'_>, report: &mut Report) {
        let contenders: Vec<(String, String)> = end
            .conflicts
            .iter()
            .filter_map(|conflict| Some((contender(conflict, "winner")?, contender(conflict, "loser")?)))
            .collect();
        let mut older: HashMap<&str, Vec<&str>> = HashMap::new();
        // A member's write comes after all that it wrote before, also where a version that had lost to that one was written
        // there after all: with images that differ only a row that is absent can be met twice.
        for (version, over) in self.over.iter().chain(&contenders).chain(&self.after) {
            older.entry(version).or_default().push(over);
        }
        let none = BTreeMap::new();
        let deletes = |id: &i64| self.deletes.get(id).unwrap_or(&none);
        for (offset, id, version) in &self.inserted {
            // Which of the deletes before it has made the room can't be told.
            older.entry(version).or_default().extend(deletes(id).range(..offset).map(|(_, delete)| delete.as_str()));
        }
        for Replaced { member, id, old, new } in &end.replaced {
            let Some(old) = old else { continue };
            report.replaced += 1;
            let fair = match new {
                Some(new) => leads_to(&older, new, old),
                None => deletes(id).values().any(|delete| leads_to(&older, delete, old)),
            };
            if !fair {
                let new = new.as_deref().unwrap_or("a delete");
                report.problems.push(format!("at {member}, {old} of key {id} was overwritten by {new}"));
                self.tell(*id, end);
            }
        }
    }
}

impl Versions {
    /// Prints all that is known of a key.
    fn tell(&self, id: i64, end: &End<'_>) {
        println!("--- key {id}: the log");
        self.lines.get(&id).into_iter().flatten().for_each(|line| println!("{line}"));
        println!("--- the ledger, the oldest entry first");
        for conflict in end.conflicts.iter().rev().filter(|conflict| conflict["key"]["id"] == id) {
            let [winner, loser] = ["winner", "loser"].map(|side| contender(conflict, side).unwrap_or_default());
            println!("{}: {} {winner} before {loser}", conflict["offset"], conflict["kind"]);
        }
        println!("--- what was replaced, member by member");
        for Replaced { member, old, new, .. } in end.replaced.iter().filter(|replaced| replaced.id == id) {
            println!("{member}: {old:?} -> {new:?}");
        }
    }
}

/// Reads the log until the worker goes away.
async fn read(address: &str, versions: &Mutex<Versions>) -> anyhow::Result<()> {
    let next = versions.lock().unwrap_or_else(PoisonError::into_inner).next;
    let url = format!("http://{address}/sync/tail?pipeline=shared&from={next}");
    let mut response = reqwest::get(url).await?.error_for_status()?;
    let mut rest = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let mut record: Value = serde_json::from_slice(&line)?;
            plain(&mut record);
            let mut versions = versions.lock().unwrap_or_else(PoisonError::into_inner);
            versions.next = record["offset"].as_u64().context("an offset")? + 1;
            if record["source"]["table"] == "account" {
                versions.take(&record);
            }
        }
    }
    anyhow::bail!("the worker has closed its log")
}

impl Versions {
    fn take(&mut self, record: &Value) {
        let part = |image: &str, column: &str| record[image][column].clone();
        let writer = |image: &str| part(image, "writer").as_str().map(str::to_owned);
        let origin = record["source"]["name"].as_str().unwrap_or_default().to_owned();
        let offset = record["offset"].as_u64().unwrap_or_default();
        let id = ["after", "before"].iter().find_map(|image| part(image, "id").as_i64()).unwrap_or_default();
        let (before, after) = (writer("before"), writer("after"));
        // A row that was read at one member has been written by any of them.
        let read = record["source"]["snapshot"] == true;
        let how = if read { " read" } else { "" };
        self.lines.entry(id).or_default().push(format!("{offset}: {origin}{how} {before:?} -> {after:?}"));
        if read {
            return;
        }
        // What capture publishes once more after a kill is nothing new.
        let (version, new) = match (before, after) {
            (before, Some(after)) => {
                match before {
                    Some(before) => drop(self.over.insert((after.clone(), before))),
                    None => self.inserted.push((offset, id, after.clone())),
                }
                let new = self.written.insert((origin.clone(), after.clone()));
                (after, new)
            }
            (Some(before), None) => {
                let committed = instant(record["source"]["ts_us"].as_i64().unwrap_or_default());
                let delete = name_of_delete(id, &origin, &committed);
                self.deletes.entry(id).or_default().insert(offset, delete.clone());
                let new = self.over.insert((delete.clone(), before));
                (delete, new)
            }
            (None, None) => return,
        };
        if new && let Some(last) = self.last.insert((origin, id), version.clone()) {
            self.after.push((version, last));
        }
    }
}
