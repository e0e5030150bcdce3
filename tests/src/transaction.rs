//! The transactions of a load: what a writer knows of its rows, and the next thing that it does to them.

use crate::connection::Texts;
use crate::kind::Kind;
use crate::literal;
use crate::mongodb::{self, Write};
use crate::tables::HOT_ROWS;
use ::mongodb::bson::{Bson, DateTime, doc};
use rand::Rng;
use rand::rngs::StdRng;
use std::fmt::{self, Write as _};

/// How often things happen; one in so many.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Bytes of a large value, and rows to one that has it.
    pub large_bytes: usize,
    pub large: u32,
    /// Transactions to one that is rolled back.
    pub rollback: u32,
    /// Transactions to one with hundreds of rows.
    pub long: u32,
    /// Whether keys change.
    pub key_changes: bool,
}

impl Default for Mix {
    fn default() -> Self {
        Self { large_bytes: 100_000, large: 200, rollback: 12, long: 300, key_changes: true }
    }
}

/// Keys below this one are those that stood there before the load.
const OWN_KEYS: i64 = 1_000_000_000;

/// The rows of one writer.
#[derive(Clone, Debug)]
pub struct Rows {
    writer: u32,
    writers: u32,
    live: Vec<i64>,
    /// Deleted ones, to come again.
    dead: Vec<i64>,
    next: i64,
    /// Given out last; counts over all rows of this writer, so that each key's versions grow.
    version: i64,
}

impl Rows {
    pub fn new(writer: u32, writers: u32) -> Self {
        let next = OWN_KEYS * i64::from(writer + 1);
        Self { writer, writers, live: Vec::new(), dead: Vec::new(), next, version: 0 }
    }

    /// Asks for the keys that are there, with their versions.
    pub fn query(&self) -> String {
        let (low, high) = (OWN_KEYS * i64::from(self.writer + 1), OWN_KEYS * i64::from(self.writer + 2));
        let (writers, writer) = (self.writers, self.writer);
        format!(
            "SELECT id, version FROM item WHERE id > {HOT_ROWS} AND id < {OWN_KEYS} AND id % {writers} = {writer}
             OR id >= {low} AND id < {high} ORDER BY id"
        )
    }

    /// Whether [`Rows::query`] asks for a key.
    pub fn owns(&self, key: i64) -> bool {
        let own = OWN_KEYS * i64::from(self.writer + 1)..OWN_KEYS * i64::from(self.writer + 2);
        key < OWN_KEYS && key % i64::from(self.writers) == i64::from(self.writer) || own.contains(&key)
    }

    pub fn found(&mut self, rows: &[Texts]) -> anyhow::Result<()> {
        self.live.clear();
        for row in rows {
            let number = |at: usize| row.get(at).cloned().flatten().unwrap_or_default().parse::<i64>();
            let (key, version) = (number(0)?, number(1)?);
            self.live.push(key);
            self.version = self.version.max(version);
            if key >= OWN_KEYS {
                self.next = self.next.max(key + 1);
            }
        }
        let live: std::collections::HashSet<i64> = self.live.iter().copied().collect();
        self.dead.retain(|key| !live.contains(key));
        Ok(())
    }

    fn any(&self, rng: &mut StdRng) -> Option<usize> {
        (!self.live.is_empty()).then(|| rng.random_range(0..self.live.len()))
    }

    /// A key for a new row: half of the time one that was deleted.
    fn fresh(&mut self, rng: &mut StdRng) -> i64 {
        if !self.dead.is_empty() && rng.random_bool(0.5) {
            let at = rng.random_range(0..self.dead.len());
            return self.dead.swap_remove(at);
        }
        self.next += 1;
        self.next - 1
    }
}

/// One transaction as one text of statements.
#[derive(Debug)]
pub struct Transaction {
    pub sql: String,
    /// The same for MongoDB.
    pub writes: Vec<Write>,
    /// Rows that it changes for good.
    pub changes: u32,
    pub rolled_back: bool,
}

impl Transaction {
    /// Plans the next transaction and follows in `rows` what it will have done.
    pub fn plan(kind: Kind, rng: &mut StdRng, rows: &mut Rows, mix: &Mix, keep: usize) -> Self {
        let mut planner =
            Planner { kind, rng, rows, mix, keep, sql: "BEGIN;".to_owned(), writes: Vec::new(), changes: 0 };
        let before = planner.rows.clone();
        planner.some_changes();
        if planner.rng.random_ratio(1, 8) {
            planner.savepoint();
        }
        let rolled_back = planner.rng.random_ratio(1, planner.mix.rollback);
        planner.sql.push_str(if rolled_back { "ROLLBACK" } else { "COMMIT" });
        let (sql, writes, changes) = (planner.sql, planner.writes, planner.changes);
        if rolled_back {
            // Versions are not given out again.
            *rows = Rows { version: rows.version, ..before };
        }
        Self { sql, writes, changes: if rolled_back { 0 } else { changes }, rolled_back }
    }
}

struct Planner<'a> {
    kind: Kind,
    rng: &'a mut StdRng,
    rows: &'a mut Rows,
    mix: &'a Mix,
    keep: usize,
    sql: String,
    writes: Vec<Write>,
    changes: u32,
}

/// A value as a literal, and as a field.
struct Both {
    sql: String,
    field: Bson,
}

impl fmt::Display for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sql)
    }
}

impl Planner<'_> {
    fn some_changes(&mut self) {
        // The only rows that writers share come first and one at a time, so that there are no deadlocks.
        if self.rng.random_ratio(1, 10) {
            let id = self.rng.random_range(1..=HOT_ROWS);
            self.writes.push(Write::Bump(id));
            self.add(&format!("UPDATE item SET version = version + 1 WHERE id = {id}"), 1);
        }
        let statements = if self.rng.random_ratio(1, self.mix.long) { 300 } else { self.rng.random_range(1..=6) };
        for _ in 0..statements {
            self.change();
        }
    }

    /// Changes that come to nothing inside a transaction that goes on.
    fn savepoint(&mut self) {
        let (before, changes, writes) = (self.rows.clone(), self.changes, self.writes.len());
        self.sql.push_str("SAVEPOINT s;");
        self.change();
        self.change();
        if self.rng.random_bool(0.5) {
            self.sql.push_str("ROLLBACK TO SAVEPOINT s;");
            *self.rows = Rows { version: self.rows.version, ..before };
            self.changes = changes;
            self.writes.truncate(writes);
        } else {
            self.sql.push_str("RELEASE SAVEPOINT s;");
        }
        self.change();
    }

    fn change(&mut self) {
        let live = self.rows.live.len();
        let (grow, shrink) = (live < self.keep / 2, live > self.keep * 2);
        match self.rng.random_range(0..100) {
            _ if live == 0 => self.insert(),
            0..25 if !shrink => self.insert(),
            25..45 if !grow => self.delete(),
            45..50 if self.mix.key_changes => self.change_key(),
            50..60 => self.update_several(),
            _ if grow => self.insert(),
            _ => self.update(),
        }
    }

    fn insert(&mut self) {
        let count = if self.rng.random_ratio(1, 6) { self.rng.random_range(2..=10) } else { 1 };
        let mut values = Vec::new();
        for _ in 0..count {
            let id = self.rows.fresh(self.rng);
            self.rows.live.push(id);
            let version = self.version();
            let (name, amount, state, seen) = (self.name(), self.amount(), self.state(), self.seen());
            let (note, data) = (self.note(), self.data());
            values.push(format!("({id}, {version}, {name}, {amount}, {state}, {seen}, {note}, {data})"));
            self.writes.push(Write::Insert(doc! {
                "_id": id, "version": version, "name": name.field, "amount": amount.field, "state": state,
                "seen": seen.field, "note": note.field, "data": data.field,
            }));
        }
        let columns = "id, version, name, amount, state, seen, note, data";
        self.add(&format!("INSERT INTO item ({columns}) VALUES {}", values.join(", ")), count);
    }

    fn update(&mut self) {
        let Some(at) = self.rows.any(self.rng) else { return };
        let (id, version) = (self.rows.live[at], self.version());
        let mut sql = format!("UPDATE item SET version = {version}");
        // What is not named stays as it is, a large value that is stored out of line, too.
        let set = match self.rng.random_range(0..5) {
            0 => {
                let (name, state) = (self.name(), self.state());
                vec![("name", name), ("state", Both { sql: state.to_string(), field: state.into() })]
            }
            1 => vec![("amount", self.amount())],
            2 => vec![("note", self.note())],
            3 => vec![("seen", self.seen()), ("data", self.data())],
            _ => Vec::new(),
        };
        let mut fields = doc! { "version": version };
        for (column, value) in set {
            write!(sql, ", {column} = {value}").unwrap_or_default();
            fields.insert(column, value.field);
        }
        self.writes.push(Write::Set { ids: vec![id], fields });
        write!(sql, " WHERE id = {id}").unwrap_or_default();
        self.add(&sql, 1);
    }

    fn update_several(&mut self) {
        let version = self.version();
        let mut ids: Vec<i64> = (0..5).filter_map(|_| self.rows.any(self.rng).map(|at| self.rows.live[at])).collect();
        ids.sort_unstable();
        ids.dedup();
        let list: Vec<String> = ids.iter().map(i64::to_string).collect();
        let state = self.state();
        let sql = format!("UPDATE item SET version = {version}, state = {state} WHERE id IN ({})", list.join(", "));
        self.writes.push(Write::Set { ids: ids.clone(), fields: doc! { "version": version, "state": state } });
        self.add(&sql, u32::try_from(ids.len()).unwrap_or(0));
    }

    fn delete(&mut self) {
        let Some(at) = self.rows.any(self.rng) else { return };
        let id = self.rows.live.swap_remove(at);
        self.rows.dead.push(id);
        self.writes.push(Write::Delete(id));
        self.add(&format!("DELETE FROM item WHERE id = {id}"), 1);
    }

    fn change_key(&mut self) {
        let Some(at) = self.rows.any(self.rng) else { return };
        let (id, new, version) = (self.rows.live[at], self.rows.fresh(self.rng), self.version());
        self.rows.live[at] = new;
        self.rows.dead.push(id);
        self.writes.push(Write::Move { from: id, to: new, fields: doc! { "version": version } });
        self.add(&format!("UPDATE item SET id = {new}, version = {version} WHERE id = {id}"), 1);
    }

    fn add(&mut self, statement: &str, changes: u32) {
        self.sql.push_str(statement);
        self.sql.push(';');
        self.changes += changes;
    }

    fn version(&mut self) -> i64 {
        self.rows.version += 1;
        self.rows.version
    }

    fn name(&mut self) -> Both {
        let awkward = literal::AWKWARD[self.rng.random_range(0..literal::AWKWARD.len())];
        let text = format!("{awkward}{}", self.rng.random_range(0..100));
        Both { sql: literal::text(self.kind, &text), field: text.into() }
    }

    fn amount(&mut self) -> Both {
        if self.rng.random_ratio(1, 10) {
            return null();
        }
        let (whole, part) = (self.rng.random_range(-9_999_999..9_999_999), self.rng.random_range(0..100));
        let sql = format!("{whole}.{part:02}");
        let field = sql.parse().map_or(Bson::Null, Bson::Decimal128);
        Both { sql, field }
    }

    fn state(&mut self) -> i32 {
        self.rng.random_range(0..10)
    }

    fn seen(&mut self) -> Both {
        let (day, second) = (self.rng.random_range(1..=28i64), self.rng.random_range(0..60i64));
        let micros = self.rng.random_range(0..1_000_000i64);
        let sql = format!("'2026-02-{day:02} 12:34:{second:02}.{micros:06}'");
        // 2026-02-01
        let seconds = 1_769_904_000 + (day - 1) * 86_400 + 12 * 3600 + 34 * 60 + second;
        Both { sql, field: DateTime::from_millis(seconds * 1_000 + micros / 1_000).into() }
    }

    fn note(&mut self) -> Both {
        if self.rng.random_ratio(1, 5) {
            return null();
        }
        let large = self.rng.random_ratio(1, self.mix.large);
        let length = if large { self.mix.large_bytes } else { self.rng.random_range(0..120) };
        let text = literal::random_text(self.rng, length);
        Both { sql: literal::text(self.kind, &text), field: text.into() }
    }

    fn data(&mut self) -> Both {
        let bytes: Vec<u8> = (0..self.rng.random_range(0..24)).map(|_| self.rng.random()).collect();
        Both { sql: literal::bytes(self.kind, &bytes), field: mongodb::binary(bytes) }
    }
}

fn null() -> Both {
    Both { sql: "NULL".to_owned(), field: Bson::Null }
}
