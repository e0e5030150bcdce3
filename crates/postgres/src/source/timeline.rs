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
    pub end: Lsn,
}

impl Identity {
    pub async fn of(connection: &mut Connection) -> Result<Self, Error> {
        let rows = connection.query("a look at the server's identity", "IDENTIFY_SYSTEM").await?;
        let column = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(|text| text.as_deref());
        let (Some(system), Some(timeline), Some(end)) = (column(0), column(1), column(2)) else {
            return Err(Error::Protocol("an incomplete identity"));
        };
        let timeline = timeline.parse().map_err(|_| Error::Protocol("a strange timeline"))?;
        let end = end.parse().map_err(|_| Error::Protocol("a strange position"))?;
        Ok(Self { system: system.to_owned(), timeline, end })
    }

    pub fn epoch(&self) -> Epoch {
        Epoch(format!("{}/{}", self.system, self.timeline))
    }

    /// The timeline of an earlier server of the same cluster; None for another cluster, or the same timeline.
    pub fn earlier(&self, epoch: &Epoch) -> Option<u32> {
        let (system, timeline) = epoch.0.split_once('/')?;
        timeline.parse().ok().filter(|timeline| system == self.system && *timeline < self.timeline)
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
    let sql = format!("TIMELINE_HISTORY {}", identity.timeline);
    let rows = connection.query("a look at the timelines of a promoted server", &sql).await?;
    let history = rows.first().and_then(|row| row.get(1)).and_then(|text| text.as_deref());
    let left = left_at(history.unwrap_or_default(), timeline);
    let Some(left) = left else {
        let problem = format!("timeline {timeline} is none that PostgreSQL at {server} comes from");
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

/// Where a timeline was left, by the history of a later one: lines of its number, the place, and a reason.
fn left_at(history: &str, timeline: u32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let of: u32 = words.next()?.parse().ok()?;
        let place = words.next()?.parse().ok()?;
        (of == timeline).then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_tells_where_each_timeline_was_left() {
        let history = "# by hand\n\n1\t0/3000060\tno recovery target specified\n\n2\t0/5000148\tbefore 2026-11-29\n";
        assert_eq!(left_at(history, 1), Some(Lsn(0x300_0060)));
        assert_eq!(left_at(history, 2), Some(Lsn(0x500_0148)));
        assert_eq!(left_at(history, 3), None);
    }

    #[test]
    fn only_a_later_timeline_of_the_same_cluster_follows() {
        let identity = Identity { system: "7".to_owned(), timeline: 3, end: Lsn(0) };
        let earlier = |epoch: &str| identity.earlier(&Epoch(epoch.to_owned()));
        assert_eq!(earlier("7/2"), Some(2));
        assert_eq!([earlier("7/3"), earlier("7/4"), earlier("8/2"), earlier("7")], [None; 4]);
    }
}
