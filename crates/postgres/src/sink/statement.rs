//! The text of the set-based statements. Each takes one array per column and treats all its rows alike.

use super::encode::Element;
use super::failure::MISSING;
use super::plan::{Plan, PlanColumn};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Fails on a key that is there.
    Insert,
    /// Inserts, or overwrites the row with the same key; another unique index is never resolved by overwriting.
    Upsert,
    /// Fails unless every row was there, so that nothing has to be looked at before the commit.
    UpdateAll,
    /// Answers with the places (from 1) of the rows that were there, in one array.
    UpdateFound,
    Delete,
    /// Fails unless every row was there as it is given in all columns, behind those that are set.
    UpdateOver,
    /// Fails unless every row was there as it is given.
    DeleteOver,
    /// An update that changes the key; the old keys come after the columns.
    UpdateKeyAll,
    /// The same, answering with the number of rows that were there.
    UpdateKey,
}

/// Which of a plan's columns a statement is about; None for all of them.
pub type Mask = Option<Box<[bool]>>;

/// Reads and locks rows by key: the place of each key (from 1), and the plan's columns as the server prints them.
pub fn look(plan: &Plan) -> String {
    let text = Text { plan, columns: plan.key.clone() };
    let printed = |column: &PlanColumn| match is_printed_alone(column.element) {
        true => format!("t.{}::pg_catalog.text", column.sql_name),
        false => format!("ROW(t.{})::pg_catalog.text", column.sql_name),
    };
    let columns = plan.columns.iter().map(printed).collect::<Vec<_>>().join(", ");
    format!(
        "SELECT u.n, {columns} FROM {} JOIN {} AS t ON {} FOR UPDATE OF t",
        text.source(&[], true),
        plan.target.sql_only,
        text.key_matches('c')
    )
}

/// Whether a cast to text prints a value as it stands in the log. Others are printed so inside of a record only: a cast
/// makes `true` of `t`, and drops the blanks of a character(n).
pub fn is_printed_alone(element: Element) -> bool {
    match element {
        Element::Bool | Element::Bpchar | Element::Cast => false,
        Element::Int2
        | Element::Int4
        | Element::Int8
        | Element::Float4
        | Element::Float8
        | Element::Numeric
        | Element::Text
        | Element::Varchar
        | Element::Bytea
        | Element::Date
        | Element::Time
        | Element::Timestamp
        | Element::TimestampTz
        | Element::Uuid
        | Element::Json
        | Element::Jsonb => true,
    }
}

struct Text<'a> {
    plan: &'a Plan,
    /// Indexes into the plan's columns, in the order of the arrays.
    columns: Vec<usize>,
}

pub fn text(plan: &Plan, kind: Kind, mask: &Mask) -> String {
    let columns = match kind {
        Kind::Delete => plan.key.clone(),
        Kind::DeleteOver => Vec::new(),
        _ => plan.included(mask).collect(),
    };
    let text = Text { plan, columns };
    match kind {
        Kind::Insert => text.insert(),
        Kind::Upsert if plan.key_infers => text.upsert(),
        Kind::Upsert => text.update_or_insert(),
        Kind::UpdateAll => text.all(&text.update("1", &text.source(&[], false), &text.key_matches('c'), false)),
        Kind::UpdateFound => {
            let update = text.update("u.n", &text.source(&[], true), &text.key_matches('c'), false);
            format!("WITH w AS ({update}) SELECT array_agg(n) FROM w")
        }
        Kind::Delete => text.delete(&text.source(&[], false), &text.key_matches('c')),
        Kind::UpdateOver => {
            let (source, there) = (text.source(&text.all_columns(), false), text.is_there());
            text.all(&text.update("1", &source, &there, false))
        }
        Kind::DeleteOver => {
            let delete = text.delete(&text.source(&text.all_columns(), false), &text.is_there());
            text.all(&format!("{delete} RETURNING 1"))
        }
        Kind::UpdateKeyAll => text.all(&text.update("1", &text.source(&plan.key, false), &text.key_matches('o'), true)),
        Kind::UpdateKey => {
            let update = text.update("1", &text.source(&plan.key, false), &text.key_matches('o'), true);
            format!("WITH w AS ({update}) SELECT array_agg(1::int8) FROM w")
        }
    }
}

impl Text<'_> {
    /// `unnest(...) AS u(...)`; `old` adds arrays of what these columns were before, `numbered` a column `n`.
    fn source(&self, old: &[usize], numbered: bool) -> String {
        let mut arrays = Vec::new();
        let mut names = Vec::new();
        for (columns, prefix) in [(&self.columns[..], 'c'), (old, 'o')] {
            for &at in columns {
                arrays.push(self.plan.columns[at].element.array_type());
                names.push(format!("{prefix}{at}"));
            }
        }
        let mut text = "unnest(".to_owned();
        for (at, array) in arrays.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            text.push_str(&format!("{comma}${}::pg_catalog.{array}", at + 1));
        }
        text.push(')');
        if numbered {
            text.push_str(" WITH ORDINALITY");
            names.push("n".to_owned());
        }
        format!("{text} AS u({})", names.join(", "))
    }

    /// A column of the source as a value of the target's column.
    fn value(&self, at: usize, prefix: char) -> String {
        match &self.plan.columns[at].cast {
            Some(cast) => format!("u.{prefix}{at}::{cast}"),
            None => format!("u.{prefix}{at}"),
        }
    }

    fn all_columns(&self) -> Vec<usize> {
        (0..self.plan.columns.len()).collect()
    }

    /// `prefix` tells the columns of the source that are looked at.
    fn key_matches(&self, prefix: char) -> String {
        let name = |at: usize| &self.plan.columns[at].sql_name;
        let terms = self.plan.key.iter().map(|&at| format!("t.{} = {}", name(at), self.value(at, prefix)));
        terms.collect::<Vec<_>>().join(" AND ")
    }

    /// Byte by byte: what only means the same is no row to rely on. But the blanks at the end of a character(n) mean nothing,
    /// and a value of the log has none. Whoever changes the row first, the server looks once more at what is there then.
    fn is_there(&self) -> String {
        let of = |value: String, at: &usize| match self.plan.columns[*at].element {
            Element::Bpchar => format!("{value}::pg_catalog.text"),
            _ => value,
        };
        let all = self.all_columns();
        let there = all.iter().map(|at| of(format!("t.{}", self.plan.columns[*at].sql_name), at));
        let old = all.iter().map(|at| of(self.value(*at, 'o'), at));
        let (there, old) = (there.collect::<Vec<_>>().join(", "), old.collect::<Vec<_>>().join(", "));
        // Two row constructors would be compared column by column, by operators that such types need not have.
        let [there, old] = [there, old].map(|columns| format!("ROW({columns})::pg_catalog.record"));
        format!("{} AND {there} OPERATOR(pg_catalog.*=) {old}", self.key_matches('o'))
    }

    fn names(&self) -> String {
        self.columns.iter().map(|&at| self.plan.columns[at].sql_name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn values(&self) -> String {
        self.columns.iter().map(|&at| self.value(at, 'c')).collect::<Vec<_>>().join(", ")
    }

    /// An identity column that is always generated takes explicit values only so.
    fn overriding(&self) -> &'static str {
        if self.plan.target.has_identity { " OVERRIDING SYSTEM VALUE" } else { "" }
    }

    fn insert(&self) -> String {
        let (table, names, values) = (&self.plan.target.sql_name, self.names(), self.values());
        let (overriding, source) = (self.overriding(), self.source(&[], false));
        format!("INSERT INTO {table} AS t ({names}){overriding} SELECT {values} FROM {source}")
    }

    fn upsert(&self) -> String {
        let key = self.plan.key.iter().map(|&at| self.plan.columns[at].sql_name.as_str()).collect::<Vec<_>>();
        let set = self.settable(false).map(|at| {
            let name = &self.plan.columns[at].sql_name;
            format!("{name} = EXCLUDED.{name}")
        });
        let set = set.collect::<Vec<_>>().join(", ");
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
        format!("{} ON CONFLICT ({}) DO {action}", self.insert(), key.join(", "))
    }

    /// For a key whose index can't be named in ON CONFLICT, a deferrable one.
    fn update_or_insert(&self) -> String {
        let there = self.plan.key.iter().map(|&at| format!("w.c{at} = {}", self.value(at, 'c')));
        let there = there.collect::<Vec<_>>().join(" AND ");
        let keys = self.plan.key.iter().map(|&at| format!("t.{} AS c{at}", self.plan.columns[at].sql_name));
        let keys = keys.collect::<Vec<_>>().join(", ");
        let update = match self.settable(false).next() {
            Some(_) => self.update(&keys, &self.source(&[], false), &self.key_matches('c'), false),
            None => format!(
                "SELECT {keys} FROM {} AS t, {} WHERE {}",
                self.plan.target.sql_only,
                self.source(&[], false),
                self.key_matches('c')
            ),
        };
        format!("WITH w AS ({update}) {} WHERE NOT EXISTS (SELECT 1 FROM w WHERE {there})", self.insert())
    }

    /// Columns that an update sets. A key that is always generated stays as it is.
    fn settable(&self, with_key: bool) -> impl Iterator<Item = usize> {
        let in_key = |at: &usize| self.plan.key.contains(at);
        self.columns.iter().copied().filter(move |at| with_key || !in_key(at))
    }

    fn delete(&self, source: &str, matches: &str) -> String {
        format!("DELETE FROM {} AS t USING {source} WHERE {matches}", self.plan.target.sql_only)
    }

    fn update(&self, returning: &str, source: &str, matches: &str, with_key: bool) -> String {
        let set = self.settable(with_key).map(|at| {
            let name = &self.plan.columns[at].sql_name;
            format!("{name} = {}", self.value(at, 'c'))
        });
        let set = set.collect::<Vec<_>>().join(", ");
        let table = &self.plan.target.sql_only;
        format!("UPDATE {table} AS t SET {set} FROM {source} WHERE {matches} RETURNING {returning}")
    }

    /// Fails the statement unless it met as many rows as it was given. The cast fails at run time only, and its text
    /// comes back in the message.
    fn all(&self, update: &str) -> String {
        let check = format!("('{MISSING} ' || count(*))::pg_catalog.int4");
        format!("WITH w AS ({update}) SELECT CASE WHEN count(*) = cardinality($1) THEN 0 ELSE {check} END FROM w")
    }
}
