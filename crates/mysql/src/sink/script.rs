//! A script: statements that travel together, several in a packet, and what each of them is expected to answer.

use crate::client::Client;
use crate::error::Error;
use crate::sink::target::Rendered;
use mysql_async::prelude::Queryable;
use std::ops::Range;
use sync_worker_core::name::TableName;

/// Larger statements gain nothing: parsing and the server's memory grow with them.
const STATEMENT_ROWS: u64 = 2_000;
const STATEMENT_BYTES: usize = 1 << 20;

/// A packet is sent when it has grown to this, so that the server works while little is held on both sides.
const PACKET_BYTES: usize = 4 << 20;

/// Room for what stands around the rows.
const OVERHEAD: usize = 4 << 10;

/// What a statement does, for the checks of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its counts say nothing.
    Control,
    /// Moves the marker: one row, or we have been superseded.
    Marker,
    /// `fresh` of its rows need not be there.
    Delete {
        fresh: u64,
    },
    /// Must find every row.
    Update,
    /// Inserts what it does not find, which for updates is counted as missing.
    Upsert {
        updates: bool,
    },
    Insert,
    /// A plain insert of rows that may be there; where one is, other statements take its place.
    InsertFirst,
    /// Inserts the rows that the update before it did not find.
    Fill {
        updates: bool,
    },
    /// All rows of a table.
    Clear,
}

#[derive(Clone, Debug)]
pub struct Statement {
    pub what: What,
    pub table: Option<TableName>,
    pub rows: u64,
}

#[derive(Default)]
struct Packet {
    sql: Vec<u8>,
    statements: Vec<Statement>,
}

/// A server's answer to one statement.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub affected: u64,
    /// Of a multi-row insert: the rows whose key was there.
    pub duplicates: u64,
    pub warnings: u16,
}

/// A statement with a list of rows: what stands before, around and after them.
pub struct List<'a> {
    pub table: &'a TableName,
    pub before: &'a [u8],
    pub row: (&'a [u8], &'a [u8]),
    pub after: &'a [u8],
}

/// Rows that did not go into a list, by their place among the items.
#[derive(Default)]
pub struct Leftover {
    pub partial: Vec<usize>,
    pub refused: Vec<(usize, String)>,
}

pub struct Script {
    packets: Vec<Packet>,
    row: Vec<u8>,
    /// The server's `max_allowed_packet`.
    largest: usize,
}

impl Script {
    pub fn new(largest: usize) -> Self {
        Self { packets: vec![Packet::default()], row: Vec::new(), largest }
    }

    fn last(&mut self) -> &mut Packet {
        if self.packets.is_empty() {
            self.packets.push(Packet::default());
        }
        let last = self.packets.len() - 1;
        &mut self.packets[last]
    }

    /// Room for a statement of `bytes` bytes in the last packet, or in a new one.
    fn make_room(&mut self, bytes: usize) {
        let limit = PACKET_BYTES.min(self.largest.saturating_sub(OVERHEAD));
        let held = self.last().sql.len();
        if held > 0 && held + bytes > limit {
            self.packets.push(Packet::default());
        }
    }

    /// Adds a statement as it stands.
    pub fn push(&mut self, what: What, table: Option<&TableName>, rows: u64, sql: &[u8]) {
        self.make_room(sql.len() + 1);
        let packet = self.last();
        packet.sql.extend_from_slice(sql);
        packet.sql.push(b';');
        packet.statements.push(Statement { what, table: table.cloned(), rows });
    }

    /// Whether a statement of this length can be sent at all.
    pub fn fits(&self, bytes: usize) -> bool {
        bytes + OVERHEAD <= self.largest
    }

    pub fn too_large(&self) -> String {
        format!("the row needs more than max_allowed_packet ({} bytes); raise it at the server", self.largest)
    }

    /// Adds a statement over many rows, split where it gets long. `what` is told the places of a statement's rows.
    pub fn list(
        &mut self,
        list: &List<'_>,
        count: usize,
        what: impl Fn(&[usize]) -> What,
        mut render: impl FnMut(usize, &mut Vec<u8>) -> Result<Rendered, Error>,
    ) -> Result<Leftover, Error> {
        let mut leftover = Leftover::default();
        let mut places: Vec<usize> = Vec::new();
        let mut begun = 0;
        let around = list.before.len() + list.row.0.len() + list.row.1.len() + list.after.len() + 2;
        for place in 0..count {
            let mut row = std::mem::take(&mut self.row);
            row.clear();
            match render(place, &mut row)? {
                Rendered::Done if !self.fits(row.len() + around) => leftover.refused.push((place, self.too_large())),
                Rendered::Done => {
                    if !places.is_empty() {
                        let held = self.last().sql.len();
                        let limit = PACKET_BYTES.min(self.largest.saturating_sub(OVERHEAD));
                        let full = places.len() as u64 >= STATEMENT_ROWS
                            || held - begun > STATEMENT_BYTES
                            || held + row.len() + around > limit;
                        if full {
                            self.end(list, what(&places), places.len() as u64);
                            places.clear();
                        }
                    }
                    if places.is_empty() {
                        self.make_room(row.len() + around);
                        let packet = self.last();
                        begun = packet.sql.len();
                        packet.sql.extend_from_slice(list.before);
                    } else {
                        self.last().sql.push(b',');
                    }
                    let packet = self.last();
                    packet.sql.extend_from_slice(list.row.0);
                    packet.sql.extend_from_slice(&row);
                    packet.sql.extend_from_slice(list.row.1);
                    places.push(place);
                }
                Rendered::Partial => leftover.partial.push(place),
                Rendered::Refused(reason) => leftover.refused.push((place, reason)),
            }
            self.row = row;
        }
        if !places.is_empty() {
            self.end(list, what(&places), places.len() as u64);
        }
        Ok(leftover)
    }

    fn end(&mut self, list: &List<'_>, what: What, rows: u64) {
        let packet = self.last();
        packet.sql.extend_from_slice(list.after);
        packet.sql.push(b';');
        packet.statements.push(Statement { what, table: Some(list.table.clone()), rows });
    }

    /// Runs the statements in order until one fails. The answers of those before it are given in either case, with the
    /// statement that failed.
    pub async fn run(self, client: &mut Client, doing: &'static str) -> Outcome {
        let mut outcome = Outcome { answers: Vec::new(), failed: None };
        for Packet { sql, statements } in self.packets {
            if statements.is_empty() {
                continue;
            }
            let from = outcome.answers.len();
            let result = run_packet(client, doing, &sql, statements.len()).await;
            let (answers, error) = result;
            let answered = answers.len();
            outcome.answers.extend(statements.iter().cloned().zip(answers));
            debug_assert_eq!(from + answered, outcome.answers.len());
            if let Some(error) = error {
                outcome.failed = Some((statements.into_iter().nth(answered), error));
                break;
            }
        }
        outcome
    }
}

pub struct Outcome {
    pub answers: Vec<(Statement, Answer)>,
    pub failed: Option<(Option<Statement>, Error)>,
}

/// Sends one packet and reads the answers of its statements.
async fn run_packet(
    client: &mut Client,
    doing: &'static str,
    sql: &[u8],
    count: usize,
) -> (Vec<Answer>, Option<Error>) {
    let Client { conn, liveness, .. } = client;
    let mut answers = Vec::with_capacity(count);
    let outcome = {
        let answers = &mut answers;
        let work = async move {
            let mut result = conn.query_iter(sql).await?;
            loop {
                // The driver hands out the error of a later statement when its result is asked for.
                if result.columns().is_none() {
                    return result.drop_result().await;
                }
                answers.push(Answer {
                    affected: result.affected_rows(),
                    duplicates: duplicates(&result.info()),
                    warnings: result.warnings(),
                });
                if result.is_empty() {
                    break;
                }
                result.next().await?;
            }
            result.drop_result().await
        };
        liveness.watch(doing, work).await
    };
    match outcome {
        Ok(()) if answers.len() == count => (answers, None),
        Ok(()) => (answers, Some(Error::Protocol("another number of answers than of statements"))),
        Err(error) => (answers, Some(error)),
    }
}

/// Reads `Records: 3  Duplicates: 1  Warnings: 0`.
fn duplicates(info: &str) -> u64 {
    let Some((_, rest)) = info.split_once("Duplicates: ") else { return 0 };
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest[Range { start: 0, end: digits }].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_duplicates_is_read() {
        assert_eq!(duplicates("Records: 300  Duplicates: 12  Warnings: 0"), 12);
        assert_eq!(duplicates(""), 0);
    }

    #[test]
    fn a_long_list_is_split_and_a_huge_row_refused() {
        let table = TableName::new("t");
        let list = List { table: &table, before: b"INSERT INTO t VALUES ", row: (b"(", b")"), after: b"" };
        let mut script = Script::new(64 << 10);
        let leftover = script
            .list(
                &list,
                100,
                |places| What::Delete { fresh: places.len() as u64 },
                |place, out| {
                    out.resize(if place == 50 { 70 << 10 } else { 2 << 10 }, b'1');
                    Ok(Rendered::Done)
                },
            )
            .unwrap();
        assert_eq!(leftover.refused.len(), 1);
        assert!(script.packets.iter().all(|packet| packet.sql.len() < 64 << 10));
        let rows = script.packets.iter().flat_map(|packet| &packet.statements);
        let (rows, fresh) = rows.fold((0, 0), |(rows, fresh), statement| match statement.what {
            What::Delete { fresh: more } => (rows + statement.rows, fresh + more),
            other => panic!("{other:?}"),
        });
        assert_eq!((rows, fresh), (99, 99));
    }
}
