//! What other rules would have made of the conflicts on record.
//!
//! Every entry is decided again as the resolver does it, by itself: what would have followed from another outcome is
//! not replayed.

use crate::pipeline::{Pipeline, Plan, Refusal, Resolution};
use crate::resolve::rules::{self, Facts, Winner, delete_decides, rank, ranks};
use std::collections::BTreeMap;
use sync_worker_core::error::Result;
use sync_worker_core::ledger::{BY_CHANGE, Conflict, Contender, FLIP_FLOP, Ledger, Recorded, Wanted};
use sync_worker_core::name::{DatabaseName, PipelineName, TableName};
use sync_worker_core::rules::{OnDelete, Strategy, TwoWayMember};

/// Entries that are read at once: they hold rows (invariant 9), and the store does nothing else meanwhile.
const PAGE: usize = 100;

/// What is asked in place of the configuration; the rest stays as configured.
#[derive(Clone, Debug, Default)]
pub struct Instead {
    /// For tables that are merged, in place of `contested`, that of groups included.
    pub strategy: Option<Strategy>,
    pub on_delete: Option<OnDelete>,
    /// Of members: the higher one wins a tie.
    pub priorities: BTreeMap<DatabaseName, i64>,
}

/// An outcome that is not the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Would {
    /// False where the winner is the same, and a person would be waited for.
    pub loser_wins: bool,
    /// What decides: a strategy's name, or the rule for deletes.
    pub by: &'static str,
    /// It waits for a person.
    pub open: bool,
}

/// What other rules make of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    Changed(Would),
    /// It depends on what is not on record.
    Unknown,
}

/// The rules of a pipeline with others in their place.
#[derive(Debug)]
pub struct OtherRules<'p> {
    instead: &'p Instead,
    tables: BTreeMap<&'p TableName, &'p Resolution>,
    /// The members as configured, first the one that wins a tie.
    configured: Vec<DatabaseName>,
    /// The same with the priorities that are asked.
    asked: Vec<DatabaseName>,
}

impl<'p> OtherRules<'p> {
    /// Refused where a priority is that of no member.
    pub fn new(plan: &'p Plan, instead: &'p Instead) -> Result<Self, Refusal> {
        let mut members: Vec<_> = plan.two_way.iter().flat_map(|two_way| two_way.members.clone()).collect();
        let configured = in_order(&members);
        for (name, priority) in &instead.priorities {
            let none = || Refusal::NoMember { pipeline: plan.name.clone(), member: name.clone() };
            let member = members.iter_mut().find(|member| member.name == *name).ok_or_else(none)?;
            member.priority = *priority;
        }
        let asked = in_order(&members);
        let tables = plan.tables.iter().map(|table| (&table.name, &table.resolution)).collect();
        Ok(Self { instead, tables, configured, asked })
    }

    /// None for an entry about which no rule was asked. One that a person has decided is taken as it
    /// was before.
    pub fn verdict(&self, recorded: &Recorded) -> Option<Verdict> {
        let conflict = &recorded.conflict;
        let (winner, loser) = (&conflict.winner, conflict.loser.as_ref()?);
        // A change stays where it meets a row that was copied, and goes over one that has drifted: no rule was asked.
        if conflict.kind == FLIP_FLOP || conflict.strategy == BY_CHANGE || conflict.at.is_some() {
            return None;
        }
        let resolution = self.tables.get(&conflict.table);
        let configured = |resolution: &&Resolution| match (&conflict.column, &resolution.merge) {
            (Some(column), Some(merge)) => merge.strategy_of(column, resolution.strategy),
            (None, _) | (_, None) => resolution.strategy,
        };
        let strategy = self.instead.strategy.or(resolution.map(configured));
        let on_delete = self.instead.on_delete.or(resolution.map(|resolution| resolution.on_delete));
        // A table that is no longer in the pipeline has only the rules that are asked.
        let Some((strategy, on_delete)) = strategy.zip(on_delete) else { return Some(Verdict::Unknown) };
        let orders: &[bool] = match incumbent_won(conflict) {
            Some(true) => &[true],
            Some(false) => &[false],
            None => &[true, false],
        };
        // A place in between changes nothing where these agree.
        let ((winner_best, winner_worst), (loser_best, loser_worst)) = (self.places(winner), self.places(loser));
        let places = [(winner_best, loser_worst), (winner_worst, loser_best)];
        let mut answers = Vec::with_capacity(orders.len() * places.len());
        for incumbent_won in orders {
            for (winner_at, loser_at) in places {
                let (winner, loser) = (facts(winner, winner_at), facts(loser, loser_at));
                answers.push(if *incumbent_won {
                    rules::winner(strategy, on_delete, winner, loser) == Winner::Event
                } else {
                    rules::winner(strategy, on_delete, loser, winner) == Winner::Held
                });
            }
        }
        let loser_wins = answers.contains(&true);
        if loser_wins && answers.contains(&false) {
            return Some(Verdict::Unknown);
        }
        let by_delete = delete_decides(on_delete, winner.row.is_none(), loser.row.is_none());
        let by = if by_delete { on_delete.as_str() } else { strategy.as_str() };
        let open = strategy == Strategy::Manual && !by_delete;
        // A person closes only what was open.
        let was_open = conflict.open || recorded.decided.is_some();
        let changed = loser_wins || (open && !was_open);
        Some(if changed { Verdict::Changed(Would { loser_wins, by, open }) } else { Verdict::Same })
    }

    /// The best and the worst place among the members that a contender may have. A merged row has that of the first of
    /// those whose versions are in it. The others are not on record, and by other priorities one of them may be first.
    fn places(&self, contender: &Contender) -> (usize, usize) {
        let worst = rank(&self.asked, contender.by.as_ref());
        if !contender.merged {
            return (worst, worst);
        }
        let behind = self.configured.iter().skip(rank(&self.configured, contender.by.as_ref()) + 1);
        let best = behind.map(|member| rank(&self.asked, Some(member))).fold(worst, usize::min);
        (best, worst)
    }
}

fn in_order(members: &[TwoWayMember]) -> Vec<DatabaseName> {
    let ranked = ranks(members).into_iter().filter_map(|member| members.get(usize::from(member.0)));
    ranked.map(|member| member.name.clone()).collect()
}

fn facts(contender: &Contender, rank: usize) -> Facts {
    Facts { deleted: contender.row.is_none(), commit_time: contender.commit_time, rank }
}

/// Entries from before it was recorded tell it where a strategy has decided that always keeps what is held.
fn incumbent_won(conflict: &Conflict) -> Option<bool> {
    let keeps = [Strategy::Reject, Strategy::Manual].iter().any(|strategy| strategy.as_str() == conflict.strategy);
    conflict.incumbent_won.or(keeps.then_some(true))
}

/// What other rules make of a ledger.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Entries with two versions.
    pub looked_at: u64,
    pub would_change: u64,
    /// Entries that do not say enough.
    pub unknown: u64,
    /// The newest of those that would change, up to a limit that the counts do not have.
    pub changed: Vec<(Recorded, Would)>,
}

/// Holds all entries of a pipeline, or of one of its tables, against other rules.
pub async fn replay(
    ledger: &dyn Ledger,
    pipeline: &PipelineName,
    table: Option<TableName>,
    other: &OtherRules<'_>,
    limit: usize,
) -> Result<Replayed> {
    let mut replayed = Replayed::default();
    let mut wanted = Wanted { open_only: false, table, before: None, limit: PAGE };
    loop {
        let page = ledger.conflicts(pipeline, &wanted).await?;
        let Some(oldest) = page.last() else { return Ok(replayed) };
        wanted.before = Some(oldest.id);
        for recorded in page {
            let Some(verdict) = other.verdict(&recorded) else { continue };
            replayed.looked_at += 1;
            match verdict {
                Verdict::Same => {}
                Verdict::Unknown => replayed.unknown += 1,
                Verdict::Changed(would) => {
                    replayed.would_change += 1;
                    if replayed.changed.len() < limit {
                        replayed.changed.push((recorded, would));
                    }
                }
            }
        }
    }
}

impl Pipeline {
    /// What other rules would have made of the ledger, or of a table's part of it. Lists `limit` changes, counts all.
    pub async fn what_if(
        &self,
        table: Option<TableName>,
        instead: &Instead,
        limit: usize,
    ) -> Result<Replayed, Refusal> {
        let other = OtherRules::new(&self.plan, instead)?;
        let replayed = replay(&*self.ledger, &self.plan.name, table, &other, limit).await;
        replayed.map_err(|error| Refusal::Failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::BatchLimits;
    use crate::pipeline::{Table, TwoWayPlan};
    use crate::retry::RetryPolicy;
    use crate::seeding::Seed;
    use crate::snapshot::SnapshotSettings;
    use sync_worker_core::document::mapping::DocumentMapping;
    use sync_worker_core::record::{Offset, Partition};
    use sync_worker_testkit::memory::{MemoryStore, key, row, schema};

    /// By the priorities of [`plan`].
    const RANKS: [&str; 3] = ["crm", "shop", "erp"];

    fn plan() -> Plan {
        let member = |name: &str, priority| TwoWayMember { name: name.into(), priority };
        let table = Table {
            name: "customer".into(),
            at: BTreeMap::new(),
            document: DocumentMapping::default(),
            resolution: Resolution::default(),
        };
        Plan {
            name: "customers".into(),
            from: "crm".into(),
            to: vec!["erp".into(), "shop".into()],
            two_way: Some(TwoWayPlan {
                members: vec![member("crm", 10), member("erp", 0), member("shop", 5)],
                seed: Seed::None,
                clock_limit: None,
            }),
            tables: vec![table],
            snapshot: SnapshotSettings::default(),
            limits: BatchLimits::default(),
            retry: RetryPolicy::default(),
        }
    }

    fn contender(by: &str, commit_time: i64, deleted: bool) -> Contender {
        let row = (!deleted).then(|| row(1, commit_time, Some("")));
        Contender { by: Some(by.into()), merged: false, commit_time, row }
    }

    fn entry(strategy: &str, winner: Contender, loser: Contender, incumbent_won: Option<bool>) -> Recorded {
        let conflict = Conflict {
            pipeline: "customers".into(),
            partition: Partition(0),
            offset: Offset(1),
            table: "customer".into(),
            key: key(1),
            column: None,
            kind: "update_origin_differs".to_owned(),
            strategy: strategy.to_owned(),
            winner,
            loser: Some(loser),
            incumbent_won,
            stands: None,
            at: None,
            schema: schema("customer"),
            time: 9,
            open: strategy == "manual",
        };
        Recorded { id: 1, conflict, decided: None }
    }

    fn by(strategy: Strategy) -> Instead {
        Instead { strategy: Some(strategy), ..Instead::default() }
    }

    fn verdict(recorded: &Recorded, instead: &Instead) -> Verdict {
        let plan = plan();
        OtherRules::new(&plan, instead).unwrap().verdict(recorded).unwrap()
    }

    /// Two versions that meet, the one that is held first: who made them, when, and which is a delete.
    fn meetings() -> Vec<[Contender; 2]> {
        let mut meetings = Vec::new();
        for (held, event) in [("crm", "shop"), ("shop", "crm")] {
            for (held_time, event_time) in [(1, 2), (2, 1), (1, 1)] {
                for (held_deleted, event_deleted) in [(false, false), (true, false), (false, true), (true, true)] {
                    let held = contender(held, held_time, held_deleted);
                    meetings.push([held, contender(event, event_time, event_deleted)]);
                }
            }
        }
        meetings
    }

    #[test]
    fn an_entry_is_decided_as_the_resolver_would_have() {
        let plan = plan();
        let ranked = |contender: &Contender| {
            let rank = RANKS.iter().position(|name| contender.by == Some(DatabaseName::new(name)));
            facts(contender, rank.unwrap())
        };
        let all = || Strategy::ALL.into_iter().flat_map(|one| OnDelete::ALL.map(|on_delete| (one, on_delete)));
        for [held, event] in meetings() {
            for (strategy, on_delete) in all() {
                let won = rules::winner(strategy, on_delete, ranked(&held), ranked(&event));
                let (winner, loser) = match won {
                    Winner::Held => (held.clone(), event.clone()),
                    Winner::Event => (event.clone(), held.clone()),
                };
                let by_delete = delete_decides(on_delete, held.row.is_none(), event.row.is_none());
                let decided_by = if by_delete { on_delete.as_str() } else { strategy.as_str() };
                let told = entry(decided_by, winner.clone(), loser.clone(), Some(won == Winner::Held));
                let untold = entry(decided_by, winner, loser, None);
                for (other, other_delete) in all() {
                    let instead = Instead { on_delete: Some(other_delete), ..by(other) };
                    let rules = OtherRules::new(&plan, &instead).unwrap();
                    let verdict = rules.verdict(&told).unwrap();
                    let would_win = rules::winner(other, other_delete, ranked(&held), ranked(&event));
                    let loser_wins = matches!(verdict, Verdict::Changed(would) if would.loser_wins);
                    assert_eq!(loser_wins, would_win != won, "{told:?} by {instead:?}");
                    if (strategy, on_delete) == (other, other_delete) {
                        assert_eq!(verdict, Verdict::Same, "{told:?}");
                    }
                    let guessed = rules.verdict(&untold).unwrap();
                    let fits = guessed == verdict || guessed == Verdict::Unknown;
                    assert!(fits, "{guessed:?} of {told:?} by {instead:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_on_record_is_told_only_where_it_makes_no_difference() {
        let (crm, shop) = (contender("crm", 1, false), contender("shop", 2, false));
        let old = entry("timestamp", shop.clone(), crm.clone(), None);
        assert_eq!(verdict(&old, &by(Strategy::Reject)), Verdict::Unknown);
        assert_eq!(verdict(&old, &by(Strategy::Manual)), Verdict::Unknown);
        assert_eq!(verdict(&old, &by(Strategy::Timestamp)), Verdict::Same);
        let would = Would { loser_wins: true, by: "priority", open: false };
        assert_eq!(verdict(&old, &by(Strategy::Priority)), Verdict::Changed(would));
        let kept = entry("reject", crm.clone(), shop.clone(), None);
        assert_eq!(verdict(&kept, &by(Strategy::Reject)), Verdict::Same);

        // Of shop and perhaps of erp.
        let merged = entry("priority", crm, Contender { merged: true, ..shop }, Some(true));
        let first = |member: &str, priority| Instead {
            priorities: BTreeMap::from([(member.into(), priority)]),
            ..by(Strategy::Priority)
        };
        assert_eq!(verdict(&merged, &by(Strategy::Priority)), Verdict::Same);
        assert_eq!(verdict(&merged, &first("shop", 20)), Verdict::Changed(would));
        assert_eq!(verdict(&merged, &first("shop", -1)), Verdict::Same);
        assert_eq!(verdict(&merged, &first("erp", 20)), Verdict::Unknown);
    }

    #[test]
    fn what_would_wait_for_a_person_is_a_change_unless_it_has_waited() {
        let manual = by(Strategy::Manual);
        let (crm, shop) = (contender("crm", 1, false), contender("shop", 2, false));
        let changed = |loser_wins| Verdict::Changed(Would { loser_wins, by: "manual", open: true });
        let held = entry("timestamp", shop.clone(), crm.clone(), Some(true));
        assert_eq!(verdict(&held, &manual), changed(false));
        let came = entry("timestamp", shop.clone(), crm.clone(), Some(false));
        assert_eq!(verdict(&came, &manual), changed(true));
        let mut closed = entry("manual", shop, crm, Some(true));
        assert_eq!(verdict(&closed, &manual), Verdict::Same);
        closed.conflict.open = false;
        closed.decided = Some(("person".to_owned(), 7));
        assert_eq!(verdict(&closed, &manual), Verdict::Same);
        // A rule for deletes leaves nothing to a person.
        let deleted = entry("timestamp", contender("shop", 2, true), contender("crm", 1, false), Some(true));
        let update_wins = Instead { on_delete: Some(OnDelete::UpdateWins), ..manual };
        let would = Would { loser_wins: true, by: "update_wins", open: false };
        assert_eq!(verdict(&deleted, &update_wins), Verdict::Changed(would));
    }

    #[test]
    fn a_copied_row_that_a_change_has_beaten_was_decided_by_no_rule() {
        use sync_worker_core::ledger::{NO_TIME, SEED};
        let (plan, priority) = (plan(), by(Strategy::Priority));
        let rules = OtherRules::new(&plan, &priority).unwrap();
        let copied = |strategy: &str, winner_time| {
            let mut found =
                entry(strategy, contender("shop", winner_time, false), contender("crm", NO_TIME, false), Some(false));
            found.conflict.kind = SEED.to_owned();
            rules.verdict(&found)
        };
        assert_eq!(copied(BY_CHANGE, 5), None);
        let would = Would { loser_wins: true, by: "priority", open: false };
        assert_eq!(copied("reject", NO_TIME), Some(Verdict::Changed(would)));
    }

    #[test]
    fn a_priority_of_nobody_is_refused() {
        let instead = Instead { priorities: BTreeMap::from([("web".into(), 1)]), ..Instead::default() };
        let refused = OtherRules::new(&plan(), &instead).map(drop).unwrap_err();
        assert_eq!(refused.to_string(), "pipeline customers has no member web");
    }

    #[tokio::test]
    async fn the_whole_ledger_is_read_and_the_newest_changes_are_listed() {
        let store = MemoryStore::default();
        let conflict = |offset: u64| {
            let (shop, crm) = (contender("shop", 2, false), contender("crm", 1, false));
            let Recorded { conflict, .. } = entry("timestamp", shop, crm, (offset != 3).then_some(true));
            Conflict { offset: Offset(offset), ..conflict }
        };
        let newest = 2 * PAGE as u64;
        let (at, kind) = (Some("crm".into()), "drift".to_owned());
        let drift = Conflict { at, incumbent_won: None, kind, ..conflict(newest + 1) };
        let elsewhere = Conflict { table: "address".into(), ..conflict(newest + 2) };
        let conflicts = (0..=newest).map(conflict).chain([drift, elsewhere]);
        store.record(conflicts.collect()).await.unwrap();
        let (plan, priority, reject) = (plan(), by(Strategy::Priority), by(Strategy::Reject));

        let rules = OtherRules::new(&plan, &priority).unwrap();
        let replayed = replay(&store, &plan.name, Some("customer".into()), &rules, 2).await.unwrap();
        assert_eq!((replayed.looked_at, replayed.would_change, replayed.unknown), (newest + 1, newest + 1, 0));
        let listed: Vec<_> = replayed.changed.iter().map(|(recorded, _)| recorded.conflict.offset.0).collect();
        assert_eq!(listed, [newest, newest - 1]);

        // One from before it was recorded who came first, and one of a table that is no longer in the pipeline.
        let rules = OtherRules::new(&plan, &reject).unwrap();
        let replayed = replay(&store, &plan.name, None, &rules, 2).await.unwrap();
        assert_eq!((replayed.looked_at, replayed.would_change, replayed.unknown), (newest + 2, 0, 2));
        assert!(replayed.changed.is_empty());
    }
}
