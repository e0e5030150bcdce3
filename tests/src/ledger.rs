//! The ledger: a trigger on both sides logs every write of a row, and what the target's wrote down is held against the
//! source's.
//!
//! Per key the writes at the target must be a strictly increasing part of the source's history, ending with its last. A
//! delete carries no version of its own, because several changes may have been written as one; it must stand where the
//! source has a delete.

use crate::connection::Connection;
use crate::database::Database;
use crate::kind::Kind;
use crate::mongodb;
use std::collections::BTreeMap;
use std::fmt;

/// Logs every write to `item` into `write_log` from now on, whoever writes.
pub async fn install(database: &Database) -> anyhow::Result<()> {
    let sql = match database.kind {
        Kind::Postgres => POSTGRES,
        Kind::Mysql => MYSQL,
        // It has no triggers: its own stream tells.
        Kind::Mongodb => return mongodb::note_time(&database.documents().await?).await,
    };
    database.execute(sql).await
}

const POSTGRES: &str = "
CREATE TABLE write_log (seq bigserial PRIMARY KEY, id bigint NOT NULL, version bigint NOT NULL, op char(1) NOT NULL);
CREATE FUNCTION write_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.write_log (id, version, op) VALUES (NEW.id, NEW.version, 'c');
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO public.write_log (id, version, op) VALUES (OLD.id, OLD.version, 'd');
    ELSE
        IF NEW.id <> OLD.id THEN
            INSERT INTO public.write_log (id, version, op) VALUES (OLD.id, OLD.version, 'd');
        END IF;
        INSERT INTO public.write_log (id, version, op) VALUES (NEW.id, NEW.version, 'u');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER write_log AFTER INSERT OR UPDATE OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION write_log();
ALTER TABLE item ENABLE ALWAYS TRIGGER write_log";

const MYSQL: &str = "
CREATE TABLE write_log (seq bigint PRIMARY KEY AUTO_INCREMENT, id bigint NOT NULL, version bigint NOT NULL, op char(1) NOT NULL);
CREATE TRIGGER write_log_insert AFTER INSERT ON item FOR EACH ROW
    INSERT INTO write_log (id, version, op) VALUES (NEW.id, NEW.version, 'c');
CREATE TRIGGER write_log_delete AFTER DELETE ON item FOR EACH ROW
    INSERT INTO write_log (id, version, op) VALUES (OLD.id, OLD.version, 'd');
CREATE TRIGGER write_log_update AFTER UPDATE ON item FOR EACH ROW
BEGIN
    IF NEW.id <> OLD.id THEN
        INSERT INTO write_log (id, version, op) VALUES (OLD.id, OLD.version, 'd');
    END IF;
    INSERT INTO write_log (id, version, op) VALUES (NEW.id, NEW.version, 'u');
END";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Written(i64),
    Deleted,
}

pub type History = BTreeMap<i64, Vec<Entry>>;

pub async fn read(database: &Database) -> anyhow::Result<History> {
    if database.kind == Kind::Mongodb {
        return mongodb::history(&database.documents().await?).await;
    }
    let mut connection: Connection = database.connect().await?;
    let mut history = History::new();
    for row in connection.rows("SELECT id, version, op FROM write_log ORDER BY seq").await? {
        let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let entry = match text(2).as_str() {
            "d" => Entry::Deleted,
            _ => Entry::Written(text(1).parse()?),
        };
        history.entry(text(0).parse()?).or_default().push(entry);
    }
    Ok(history)
}

/// What is wrong at the target; all zero is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes at the source, and at the target, where several of a key may be one.
    pub source_writes: u64,
    pub target_writes: u64,
    /// Keys whose last write has not arrived.
    pub lost: u64,
    /// Writes that had been there before.
    pub repeated: u64,
    /// Writes older than one that was there.
    pub out_of_order: u64,
    /// Writes that the source never made.
    pub invented: u64,
    /// The first findings, by key.
    pub told: Vec<String>,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.lost + self.repeated + self.out_of_order + self.invented == 0
    }

    fn tell(&mut self, key: i64, what: &str, source: &[Entry], target: &[Entry]) {
        if self.told.len() < 10 {
            let last = |entries: &[Entry]| format!("{:?}", &entries[entries.len().saturating_sub(6)..]);
            self.told.push(format!("key {key} {what}: source ..{}, target ..{}", last(source), last(target)));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { source_writes, target_writes, lost, repeated, out_of_order, invented, told } = self;
        write!(
            f,
            "{source_writes} changes ({target_writes} writes at the target), {lost} lost, {repeated} repeated, {out_of_order} out of order, {invented} invented"
        )?;
        told.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

pub fn judge(source: &History, target: &History) -> Verdict {
    let mut verdict = Verdict::default();
    for (&key, made) in source {
        verdict.source_writes += made.len() as u64;
        let arrived = target.get(&key).map_or(&[][..], Vec::as_slice);
        verdict.target_writes += arrived.len() as u64;
        judge_key(key, made, arrived, &mut verdict);
    }
    for (&key, arrived) in target.iter().filter(|(key, _)| !source.contains_key(key)) {
        verdict.target_writes += arrived.len() as u64;
        verdict.invented += arrived.len() as u64;
        verdict.tell(key, "is unknown at the source", &[], arrived);
    }
    verdict
}

fn judge_key(key: i64, made: &[Entry], arrived: &[Entry], verdict: &mut Verdict) {
    // The place in the source's history after what has arrived last.
    let mut next = 0;
    for entry in arrived {
        let is_same = |other: &Entry| other == entry;
        match made[next..].iter().position(is_same) {
            Some(ahead) => next += ahead + 1,
            None if next > 0 && made[next - 1] == *entry => {
                verdict.repeated += 1;
                verdict.tell(key, "was written twice", made, arrived);
            }
            None if made[..next].iter().any(is_same) => {
                verdict.out_of_order += 1;
                verdict.tell(key, "was written out of order", made, arrived);
            }
            None => {
                verdict.invented += 1;
                verdict.tell(key, "was written as it never was", made, arrived);
            }
        }
    }
    let last = made.last();
    // A row that came and went may never have been written at all.
    let unseen = arrived.is_empty() && last == Some(&Entry::Deleted);
    if !unseen && arrived.last() != last {
        verdict.lost += 1;
        verdict.tell(key, "lacks its last write", made, arrived);
    }
}

#[cfg(test)]
mod tests {
    use super::Entry::{Deleted, Written};
    use super::*;

    fn verdict(made: &[Entry], arrived: &[Entry]) -> (u64, u64, u64, u64) {
        let mut verdict = Verdict::default();
        judge_key(1, made, arrived, &mut verdict);
        (verdict.lost, verdict.repeated, verdict.out_of_order, verdict.invented)
    }

    #[test]
    fn a_part_of_the_history_that_ends_with_its_last_write_is_right() {
        let made = [Written(1), Written(2), Deleted, Written(4), Deleted, Written(6)];
        for arrived in [&made[..], &[Written(6)], &[Written(2), Deleted, Written(6)], &[Written(4), Written(6)]] {
            assert_eq!(verdict(&made, arrived), (0, 0, 0, 0), "{arrived:?}");
        }
        assert_eq!(verdict(&[Written(1), Deleted], &[]), (0, 0, 0, 0));
    }

    #[test]
    fn whatever_else_is_found() {
        let made = [Written(1), Written(2), Deleted, Written(4)];
        assert_eq!(verdict(&made, &[Written(1), Written(2)]), (1, 0, 0, 0));
        assert_eq!(verdict(&made, &[Written(1), Written(1), Written(4)]), (0, 1, 0, 0));
        assert_eq!(verdict(&made, &[Written(2), Written(1), Written(4)]), (0, 0, 1, 0));
        assert_eq!(verdict(&made, &[Written(3), Written(4)]), (0, 0, 0, 1));
        assert_eq!(verdict(&made, &[Written(4), Deleted]), (1, 0, 1, 0));
        assert_eq!(verdict(&[Written(1)], &[Written(1), Deleted, Written(1)]), (0, 1, 0, 1));
        assert_eq!(verdict(&made, &[]), (1, 0, 0, 0));
    }
}
