//! Applications that read back what they write, and whether one was shown a row that is older than its own.

use super::{Account, Accounts, Change, SETTLE, TwoWay};
use crate::wait;
use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Between two reads or writes of an application.
const PACE: Duration = Duration::from_millis(5);

/// One at each member, over the same keys, whose rows are there and stay.
pub struct Applications {
    stop: Arc<AtomicBool>,
    /// Writes of each.
    writes: Vec<Arc<AtomicU64>>,
    tasks: JoinSet<anyhow::Result<Traced>>,
}

/// What applications have written and read, by the writer ids that name versions.
#[derive(Debug, Default)]
pub struct Traced {
    /// Each version with the one that it was made over.
    over: Vec<(String, String)>,
    /// The last version that an application had written of a key, and another one that it was shown there after that.
    shown: BTreeSet<(String, String)>,
}

impl TwoWay {
    /// Gives the first member the rows that applications write to.
    pub async fn open_accounts(&self, keys: i64) -> anyhow::Result<()> {
        let mut accounts = self.members.first().context("members")?.accounts().await?;
        let row = |id| Account { id, writer: "opened".to_owned(), ..Account::default() };
        accounts.insert_all(&(1..=keys).map(row).collect::<Vec<_>>()).await
    }

    /// An application at each member.
    pub async fn applications(&self, seed: u64, keys: i64) -> anyhow::Result<Applications> {
        let (stop, mut tasks, mut writes) = (Arc::new(AtomicBool::new(false)), JoinSet::new(), Vec::new());
        for (place, member) in self.members.iter().enumerate() {
            let count = Arc::new(AtomicU64::new(0));
            let application = Application {
                accounts: member.accounts().await?,
                name: member.name,
                keys,
                rng: StdRng::seed_from_u64(seed ^ (place as u64) << 32),
                stop: stop.clone(),
                writes: count.clone(),
            };
            tasks.spawn(application.run());
            writes.push(count);
        }
        Ok(Applications { stop, writes, tasks })
    }
}

impl Applications {
    /// Waits until each has made so many writes more.
    pub async fn until_each(&self, more: u64) -> anyhow::Result<()> {
        let made = || self.writes.iter().map(|writes| writes.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = made();
        wait::until("the applications", SETTLE, async || {
            let done = made().iter().zip(&before).all(|(now, before)| *now >= before + more);
            Ok(done.then_some(()))
        })
        .await
    }

    /// Ends them; fails where one has failed.
    pub async fn stop(mut self) -> anyhow::Result<Traced> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Traced::default();
        while let Some(ended) = self.tasks.join_next().await {
            let Traced { over, shown } = ended??;
            all.over.extend(over);
            all.shown.extend(shown);
        }
        Ok(all)
    }
}

struct Application {
    accounts: Accounts,
    name: &'static str,
    keys: i64,
    rng: StdRng,
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
}

impl Application {
    async fn run(mut self) -> anyhow::Result<Traced> {
        let (mut traced, mut own) = (Traced::default(), BTreeMap::<i64, String>::new());
        let mut pace = tokio::time::interval(PACE);
        while !self.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            let id = self.rng.random_range(1..=self.keys);
            let writes = self.rng.random_range(0..3) == 0;
            let written = format!("{}{}", self.name, self.writes.load(Ordering::Relaxed));
            let found = match writes {
                true => self.accounts.change(id, &Change::by(&written)).await?,
                false => self.accounts.read(id).await?,
            };
            let found = found.context("a row is gone that nobody deletes")?.writer;
            if let Some(own) = own.get(&id).filter(|own| **own != found) {
                traced.shown.insert((own.clone(), found.clone()));
            }
            if writes {
                traced.over.push((written.clone(), found));
                own.insert(id, written);
                self.writes.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(traced)
    }
}

impl Traced {
    /// How often an application was shown another version than its own: that is what there is to judge.
    pub fn shown(&self) -> usize {
        self.shown.len()
    }

    /// Fails where an application was shown a version that neither saw its own last one nor has won over it, be it by
    /// way of others.
    pub fn judge(&self, conflicts: &[Value]) -> anyhow::Result<()> {
        let mut older: HashMap<&str, Vec<&str>> = HashMap::new();
        for (version, over) in &self.over {
            older.entry(version).or_default().push(over);
        }
        for conflict in conflicts {
            let writer = |side: &str| conflict[side]["row"]["writer"].as_str();
            if let (Some(winner), Some(loser)) = (writer("winner"), writer("loser")) {
                older.entry(winner).or_default().push(loser);
            }
        }
        for (own, shown) in &self.shown {
            ensure!(
                leads_to(&older, shown, own),
                "an application had written {own} and was shown {shown}, which is older"
            );
        }
        Ok(())
    }
}

/// Whether a version saw another one or won over it, be it by way of others. `older`: for each what it was made over or has beaten.
pub fn leads_to(older: &HashMap<&str, Vec<&str>>, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (HashSet::from([from]), vec![from]);
    while let Some(version) = next.pop() {
        if version == to {
            return true;
        }
        next.extend(older.get(version).into_iter().flatten().copied().filter(|version| seen.insert(*version)));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_older_row_is_told_from_one_that_has_won() {
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        // b1 has not seen a2 and has won over a3, which was made over that.
        let over = vec![pair("a1", "opened"), pair("a2", "a1"), pair("a3", "a2"), pair("b1", "a1")];
        let traced = |shown| Traced { over: over.clone(), shown: BTreeSet::from([pair("a2", shown)]) };
        let row = |writer: &str| json!({ "row": { "writer": writer } });
        let won = [json!({ "winner": row("b1"), "loser": row("a3") })];
        assert!(traced("a3").judge(&[]).is_ok());
        assert!(traced("a1").judge(&won).is_err());
        assert!(traced("opened").judge(&won).is_err());
        assert!(traced("b1").judge(&[]).is_err());
        assert!(traced("b1").judge(&won).is_ok());
    }
}
