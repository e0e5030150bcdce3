//! A standby that was promoted: it goes on with the log of the server before it, on a timeline of its own.
//!
//! Up to where that one branches off, both logs are the same. What was published from before that place is in the new log, at
//! the same positions; what comes after has higher ones. So a position can be taken over as long as nothing was published from
//! behind the place.

use crate::config::Config;
use crate::error::Error;
use crate::source::assembly;
use crate::source::open::{connect, gap, resume};
use crate::source::transport::Connection;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::position::{Checkpoint, Epoch, Lsn, Position};

/// A server's identity, and where its log ends.
pub struct Identity {
    system: String,
    timeline: u32,
    /// The timelines that it comes from, the oldest first, and where each was left. Standbys that are promoted without each other's
    /// knowledge number theirs alike: where a timeline begins tells them apart.
    history: Vec<(u32, Lsn)>,
    pub end: Lsn,
}

/// An epoch taken apart. Older builds wrote none that says where its timeline begins, and the first timeline has no such place.
struct Parts<'a> {
    system: &'a str,
    timeline: u32,
    begins: Option<Lsn>,
}

impl<'a> Parts<'a> {
    fn of(epoch: &'a Epoch) -> Option<Self> {
        let (system, timeline) = epoch.0.split_once('/')?;
        let (timeline, begins) = match timeline.split_once('@') {
            Some((timeline, begins)) => (timeline, Some(begins.parse().ok()?)),
            None => (timeline, None),
        };
        Some(Self { system, timeline: timeline.parse().ok()?, begins })
    }

    /// Whether its timeline may have begun there.
    fn may_begin_at(&self, place: Option<Lsn>) -> bool {
        self.begins.is_none() || place.is_none() || self.begins == place
    }
}

impl Identity {
    pub async fn of(connection: &mut Connection) -> Result<Self, Error> {
        let rows = connection.query("a look at the server's identity", "IDENTIFY_SYSTEM").await?;
        let column = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(|text| text.as_deref());
        let (Some(system), Some(timeline), Some(end)) = (column(0), column(1), column(2)) else {
            return Err(Error::Protocol("an incomplete identity"));
        };
        let (system, timeline) = (system.to_owned(), timeline.parse());
        let timeline: u32 = timeline.map_err(|_| Error::Protocol("a strange timeline"))?;
        let end = end.parse().map_err(|_| Error::Protocol("a strange position"))?;
        let mut history = Vec::new();
        if timeline > 1 {
            let sql = format!("TIMELINE_HISTORY {timeline}");
            match connection.query("a look at the timelines of the server", &sql).await {
                Ok(rows) => {
                    let text = rows.first().and_then(|row| row.get(1)).and_then(|text| text.as_deref());
                    history = history_in(text.unwrap_or_default());
                }
                // A copy that was made by hand may lack the file.
                Err(Error::Server { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { system, timeline, history, end })
    }

    pub fn epoch(&self) -> Epoch {
        let begins = self.history.last().map_or_else(String::new, |(_, place)| format!("@{place}"));
        Epoch(format!("{}/{}{begins}", self.system, self.timeline))
    }

    /// Whether an epoch is this server's.
    pub fn is_of(&self, epoch: &Epoch) -> bool {
        let begins = self.history.last().map(|(_, place)| *place);
        Parts::of(epoch).is_some_and(|parts| {
            parts.system == self.system && parts.timeline == self.timeline && parts.may_begin_at(begins)
        })
    }

    /// The timeline of an earlier server of the same cluster; None for another cluster, or the same timeline.
    pub fn earlier(&self, epoch: &Epoch) -> Option<u32> {
        let parts = Parts::of(epoch).filter(|parts| parts.system == self.system)?;
        (parts.timeline < self.timeline).then_some(parts.timeline)
    }

    /// Where the timeline of an epoch was left for one that this server comes from; None where it is none of those.
    fn left_at(&self, epoch: &Epoch) -> Option<Lsn> {
        let parts = Parts::of(epoch)?;
        let at = self.history.iter().position(|(timeline, _)| *timeline == parts.timeline)?;
        let begins = at.checked_sub(1).and_then(|before| self.history.get(before)).map(|(_, place)| *place);
        parts.may_begin_at(begins).then(|| self.history[at].1)
    }
}

pub async fn follow(
    config: &Config,
    database: &DatabaseName,
    checkpoint: &Checkpoint,
    published: Position,
) -> Result<Checkpoint, Error> {
    let (client, mut connection) = connect(config).await?;
    let server = client.server.clone();
    let identity = Identity::of(&mut connection).await?;
    let Some(timeline) = identity.earlier(&checkpoint.epoch) else { return Ok(checkpoint.clone()) };
    let Some(left) = identity.left_at(&checkpoint.epoch) else {
        let problem = format!("the timeline of {} is none that PostgreSQL at {server} comes from", checkpoint.epoch);
        return Err(gap(database, &problem));
    };
    let Position::Postgres(last) = published else { return Err(Error::Protocol("a position of another kind")) };
    if last.commit >= left {
        let problem = format!(
            "PostgreSQL at {server} has taken over at {left} of timeline {timeline}, and lacks what was read from the server before it up to {}",
            last.commit
        );
        return Err(gap(database, &problem));
    }
    let start = resume(checkpoint)?.min(left);
    tracing::info!(%database, %server, timeline = identity.timeline, %left, %start, "a promoted server is followed");
    Ok(assembly::checkpoint(&identity.epoch(), start))
}

/// The lines of a history file: a timeline's number, where it was left, and a reason.
fn history_in(text: &str) -> Vec<(u32, Lsn)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let history = "# by hand\n\n1\t0/3000060\tno recovery target specified\n\n2\t0/5000148\tbefore 2026-11-29\n";
        Identity { system: "7".to_owned(), timeline: 3, history: history_in(history), end: Lsn(0) }
    }

    #[test]
    fn a_history_tells_where_each_timeline_was_left() {
        let left = |epoch: &str| identity().left_at(&Epoch(epoch.to_owned()));
        assert_eq!([left("7/1"), left("7/2"), left("7/3")], [Some(Lsn(0x300_0060)), Some(Lsn(0x500_0148)), None]);
        // Another standby of the first server had been promoted to a second timeline, too.
        assert_eq!([left("7/2@0/3000060"), left("7/2@0/3000061")], [Some(Lsn(0x500_0148)), None]);
    }

    #[test]
    fn only_a_later_timeline_of_the_same_cluster_follows() {
        let earlier = |epoch: &str| identity().earlier(&Epoch(epoch.to_owned()));
        assert_eq!([earlier("7/2"), earlier("7/2@0/3000060")], [Some(2); 2]);
        assert_eq!([earlier("7/3"), earlier("7/4"), earlier("8/2"), earlier("7")], [None; 4]);
    }

    #[test]
    fn a_timeline_of_the_same_number_that_begins_elsewhere_is_another_one() {
        let is_of = |epoch: &str| identity().is_of(&Epoch(epoch.to_owned()));
        assert_eq!(identity().epoch(), Epoch("7/3@0/5000148".to_owned()));
        assert!(is_of("7/3@0/5000148") && is_of("7/3"));
        assert!(!is_of("7/3@0/5000149") && !is_of("7/2") && !is_of("8/3@0/5000148"));
    }
}
