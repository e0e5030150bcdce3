//! The set-based statements of one table: one per effect, over many rows each.

use crate::error::Error;
use crate::sink::script::{Leftover, List, Script, What};
use crate::sink::target::{Rendered, TargetColumn, TargetTable};
use std::collections::HashMap;
use sync_worker_core::collapse::{Effect, Version};
use sync_worker_core::name::TableName;
use sync_worker_core::row::{Key, Row};
use sync_worker_core::value::Damaged;

/// Uses of the statements that insert what an update misses, once one has missed a row: a table that is being copied
/// while it is written to misses many.
pub const FILL_USES: u32 = 64;

/// Uses of the statements that update what is there and insert the rest, once a snapshot row was there already.
pub const OVERLAP_USES: u32 = 64;

/// No foreign key is checked and none acts, in this one statement.
const UNCHECKED: &str = "/*+ SET_VAR(foreign_key_checks=OFF) */ ";

/// What an upsert calls its new row: the name must not be that of its table.
const NEW_ROW: &str = "sync_worker_row";

/// A version that was refused before anything was sent.
pub type Refusal<'a> = (&'a Version, String);

/// Writes the statements of one table into a script.
pub struct TableWriter<'a> {
    pub table: &'a TableName,
    pub target: &'a TargetTable,
    pub script: &'a mut Script,
    /// It is known which rows are there: nothing is written over others, or inserted in their place.
    pub guarded: bool,
    /// Foreign keys rest: inserts and updates are of rows whose parents may come after them, single deletes of rows that come back.
    pub unchecked: bool,
}

impl<'a> TableWriter<'a> {
    fn hint(&self) -> &'static str {
        if self.unchecked { UNCHECKED } else { "" }
    }

    /// One DELETE by keys.
    pub fn deletes<'v>(&mut self, versions: &[&'v Version]) -> Result<Vec<Refusal<'v>>, Error> {
        if self.target.folding.is_some() {
            return self.exact_deletes(versions);
        }
        let mut before = format!("DELETE {} FROM {} WHERE ", self.target.index_hint, self.target.quoted).into_bytes();
        self.target.write_key_columns(&mut before);
        before.extend_from_slice(b" IN (");
        let row: (&[u8], &[u8]) = if self.target.key.len() > 1 { (b"(", b")") } else { (b"", b"") };
        let list = List { table: self.table, before: &before, row, after: b")" };
        let fresh = |places: &[usize]| What::Delete {
            fresh: places.iter().filter(|&&place| versions[place].fresh).count() as u64,
        };
        let target = self.target;
        let leftover = self
            .script
            .list(&list, versions.len(), fresh, |place, out| target.render_key(out, &versions[place].key))?;
        Ok(refusals(versions, leftover))
    }

    /// Deletes where a key also finds rows of other keys.
    fn exact_deletes<'v>(&mut self, versions: &[&'v Version]) -> Result<Vec<Refusal<'v>>, Error> {
        let target = self.target;
        let fresh = |version: &Version| u64::from(version.fresh);
        if target.joinable() {
            let mut after = b") AS n(".to_vec();
            let names: Vec<&str> = target.key_columns().map(|(_, column)| column.quoted.as_str()).collect();
            after.extend_from_slice(names.join(",").as_bytes());
            let table = format!(") STRAIGHT_JOIN {} AS t FORCE INDEX ({}) ON ", target.quoted, target.key_index);
            after.extend_from_slice(table.as_bytes());
            target.write_key_join(&mut after);
            let before = b"DELETE t FROM (VALUES ";
            let list = List { table: self.table, before, row: (b"ROW(", b")"), after: &after };
            let what = |places: &[usize]| What::Delete { fresh: places.iter().map(|&at| fresh(versions[at])).sum() };
            let render = |place: usize, out: &mut Vec<u8>| target.render_key(out, &versions[place].key);
            let leftover = self.script.list(&list, versions.len(), what, render)?;
            return Ok(refusals(versions, leftover));
        }
        self.deletes_one_by_one(versions)
    }

    pub fn deletes_one_by_one<'v>(&mut self, versions: &[&'v Version]) -> Result<Vec<Refusal<'v>>, Error> {
        let mut leftover = Leftover::default();
        for (place, version) in versions.iter().enumerate() {
            let mut sql = Vec::new();
            match delete_of_row(self.target, &version.key, self.unchecked, &mut sql)? {
                Rendered::Refused(reason) => leftover.refused.push((place, reason)),
                Rendered::Done | Rendered::Partial => {
                    let what = What::Delete { fresh: u64::from(version.fresh) };
                    self.script.push(what, Some(self.table), 1, &sql);
                }
            }
        }
        Ok(refusals(versions, leftover))
    }

    /// Inserts. In a table where nothing but the key can be hit they overwrite what is there.
    pub fn inserts<'v>(&mut self, versions: &[&'v Version]) -> Result<Vec<Refusal<'v>>, Error> {
        let simple = self.target.simple && !self.guarded;
        self.by_columns(versions, |writer, versions, present| match simple {
            true => writer.upsert(versions, present, false),
            false => writer.insert(versions, present, What::Insert),
        })
    }

    /// Rows of which nothing is known: `r`. Mostly none of them is there.
    pub fn upserts<'v>(&mut self, versions: &[&'v Version]) -> Result<Vec<Refusal<'v>>, Error> {
        let (simple, overlap) = (self.target.simple, self.target.overlap > 0);
        self.by_columns(versions, |writer, versions, present| match present {
            _ if simple => writer.upsert(versions, present, false),
            None if !overlap => writer.insert(versions, present, What::InsertFirst),
            None | Some(_) => writer.update_or_fill(versions, present, false),
        })
    }

    /// Rows that are there. Where full images may be inserted as well, a missing row is, and counted.
    pub fn updates<'v>(&mut self, versions: &[&'v Version]) -> Result<Vec<Refusal<'v>>, Error> {
        let fill = self.target.fill > 0 && !self.guarded;
        let simple = self.target.simple && !self.guarded;
        self.by_columns(versions, |writer, versions, present| match present {
            // Over one row an upsert does not tell whether the row was there.
            None if simple && versions.len() > 1 => writer.upsert(versions, present, true),
            None if fill => writer.update_or_fill(versions, present, true),
            None | Some(_) => writer.update(versions, present, What::Update),
        })
    }

    /// Hands out first the full images, then those with the same columns left out.
    fn by_columns<'v>(
        &mut self,
        versions: &[&'v Version],
        mut write: impl FnMut(&mut Self, &[&'v Version], Option<&[bool]>) -> Result<Leftover, Error>,
    ) -> Result<Vec<Refusal<'v>>, Error> {
        if versions.is_empty() {
            return Ok(Vec::new());
        }
        let mut leftover = write(self, versions, None)?;
        let mut groups: HashMap<Vec<bool>, Vec<&'v Version>> = HashMap::new();
        for place in std::mem::take(&mut leftover.partial) {
            let version = versions[place];
            let present =
                self.target.present(row_of(version)?)?.ok_or(Damaged("a full image was taken for partial"))?;
            groups.entry(present).or_default().push(version);
        }
        let mut refused = refusals(versions, leftover);
        for (present, versions) in groups {
            let leftover = write(self, &versions, Some(&present))?;
            refused.extend(refusals(&versions, leftover));
        }
        Ok(refused)
    }

    fn insert(&mut self, versions: &[&Version], present: Option<&[bool]>, what: What) -> Result<Leftover, Error> {
        let before = self.insert_head(present);
        let list = List { table: self.table, before: &before, row: (b"(", b")"), after: b"" };
        self.rows(&list, versions, present, false, what)
    }

    /// DESIGN section 7: only where no other unique index could be hit.
    fn upsert(&mut self, versions: &[&Version], present: Option<&[bool]>, updates: bool) -> Result<Leftover, Error> {
        let before = self.insert_head(present);
        let mut after = format!(" AS {NEW_ROW} ON DUPLICATE KEY UPDATE ").into_bytes();
        self.write_list(&mut after, present, true, |out, column| {
            out.extend_from_slice(format!("{0}={NEW_ROW}.{0}", column.quoted).as_bytes());
        });
        let list = List { table: self.table, before: &before, row: (b"(", b")"), after: &after };
        self.rows(&list, versions, present, false, What::Upsert { updates })
    }

    fn update(&mut self, versions: &[&Version], present: Option<&[bool]>, what: What) -> Result<Leftover, Error> {
        if versions.len() == 1 || !self.target.joinable() {
            return self.single_updates(versions, present, what);
        }
        let mut after = b") AS n(".to_vec();
        self.write_list(&mut after, present, false, |out, column| out.extend_from_slice(column.quoted.as_bytes()));
        after.extend_from_slice(b") STRAIGHT_JOIN ");
        after.extend_from_slice(self.target.quoted.as_bytes());
        after.extend_from_slice(b" AS t ON ");
        self.target.write_key_join(&mut after);
        after.extend_from_slice(b" SET ");
        self.write_list(&mut after, present, true, |out, column| {
            out.extend_from_slice(b"t.");
            out.extend_from_slice(column.quoted.as_bytes());
            out.extend_from_slice(b"=n.");
            out.extend_from_slice(column.quoted.as_bytes());
        });
        let before = format!("UPDATE {}(VALUES ", self.hint()).into_bytes();
        let list = List { table: self.table, before: &before, row: (b"ROW(", b")"), after: &after };
        self.rows(&list, versions, present, true, what)
    }

    /// Two statements over the same rows: update those that are there, insert the others.
    fn update_or_fill(
        &mut self,
        versions: &[&Version],
        present: Option<&[bool]>,
        updates: bool,
    ) -> Result<Leftover, Error> {
        if !self.target.joinable() {
            // Where a row is missing, it is written by itself.
            return self.single_updates(versions, present, What::Update);
        }
        let leftover = self.update(versions, present, What::Control)?;
        let mut before = self.insert_head(present);
        before.truncate(before.len() - b" VALUES ".len());
        before.extend_from_slice(b" SELECT ");
        self.write_list(&mut before, present, false, |out, column| {
            out.extend_from_slice(b"n.");
            out.extend_from_slice(column.quoted.as_bytes());
        });
        before.extend_from_slice(b" FROM (VALUES ");
        let mut after = b") AS n(".to_vec();
        self.write_list(&mut after, present, false, |out, column| out.extend_from_slice(column.quoted.as_bytes()));
        after.extend_from_slice(b") LEFT JOIN ");
        after.extend_from_slice(self.target.quoted.as_bytes());
        after.extend_from_slice(b" AS t FORCE INDEX (");
        after.extend_from_slice(self.target.key_index.as_bytes());
        after.extend_from_slice(b") ON ");
        self.target.write_key_join(&mut after);
        after.extend_from_slice(b" WHERE t.");
        if let Some((_, column)) = self.target.key_columns().next() {
            after.extend_from_slice(column.quoted.as_bytes());
        }
        after.extend_from_slice(b" IS NULL");
        let list = List { table: self.table, before: &before, row: (b"ROW(", b")"), after: &after };
        self.rows(&list, versions, present, true, What::Fill { updates })?;
        Ok(leftover)
    }

    fn single_updates(
        &mut self,
        versions: &[&Version],
        present: Option<&[bool]>,
        what: What,
    ) -> Result<Leftover, Error> {
        let mut leftover = Leftover::default();
        for (place, version) in versions.iter().enumerate() {
            let mut sql = Vec::new();
            if present.is_none() && self.target.present(row_of(version)?)?.is_some() {
                leftover.partial.push(place);
                continue;
            }
            match update_of_row(self.target, row_of(version)?, &version.key, self.unchecked, &mut sql)? {
                Rendered::Done if self.script.fits(sql.len()) => {
                    self.script.push(what, Some(self.table), 1, &sql);
                }
                Rendered::Done => leftover.refused.push((place, self.script.too_large())),
                Rendered::Partial => leftover.partial.push(place),
                Rendered::Refused(reason) => leftover.refused.push((place, reason)),
            }
        }
        Ok(leftover)
    }

    fn rows(
        &mut self,
        list: &List<'_>,
        versions: &[&Version],
        present: Option<&[bool]>,
        derived: bool,
        what: What,
    ) -> Result<Leftover, Error> {
        let target = self.target;
        self.script.list(
            list,
            versions.len(),
            |_| what,
            |place, out| target.render(out, row_of(versions[place])?, present, derived),
        )
    }

    fn insert_head(&self, present: Option<&[bool]>) -> Vec<u8> {
        let mut out = format!("INSERT {}INTO {} (", self.hint(), self.target.quoted).into_bytes();
        self.write_list(&mut out, present, false, |out, column| out.extend_from_slice(column.quoted.as_bytes()));
        out.extend_from_slice(b") VALUES ");
        out
    }

    /// Writes something for each column that is present. `assigned`: key columns are left out unless there are no
    /// others; an assignment needs one.
    fn write_list(
        &self,
        out: &mut Vec<u8>,
        present: Option<&[bool]>,
        assigned: bool,
        mut write: impl FnMut(&mut Vec<u8>, &TargetColumn),
    ) {
        let written = |at: usize| present.is_none_or(|present| present.get(at).copied().unwrap_or(false));
        let is_key = |at: usize| self.target.key.contains(&at);
        let columns = || (0..self.target.columns.len()).filter(|&at| written(at) && self.target.column(at).is_some());
        let only_keys = columns().all(is_key);
        let mut first = true;
        for at in columns().filter(|&at| !assigned || only_keys || !is_key(at)) {
            let Some(column) = self.target.column(at) else { continue };
            if !first {
                out.push(b',');
            }
            first = false;
            write(out, column);
        }
    }
}

fn row_of(version: &Version) -> Result<&Row, Error> {
    Ok(version.row.as_ref().ok_or(Damaged("a version without a row"))?)
}

fn refusals<'v>(versions: &[&'v Version], leftover: Leftover) -> Vec<Refusal<'v>> {
    leftover.refused.into_iter().map(|(place, reason)| (versions[place], reason)).collect()
}

/// Splits the versions of a table by what is to be done: deletes, updates, upserts, inserts. A replaced row is in the
/// first and in the last; where a delete would act on other rows it is written over instead. `anew`: so is an updated one.
pub fn by_effect(versions: &[Version], takes_along: bool, anew: bool) -> [Vec<&Version>; 4] {
    let mut sorted: [Vec<&Version>; 4] = Default::default();
    for version in versions {
        match version.effect {
            Effect::Delete => sorted[0].push(version),
            Effect::Update if !anew => sorted[1].push(version),
            Effect::Upsert => sorted[2].push(version),
            Effect::Insert => sorted[3].push(version),
            Effect::Replace if takes_along => sorted[2].push(version),
            Effect::Replace | Effect::Update => {
                sorted[0].push(version);
                sorted[3].push(version);
            }
        }
    }
    sorted
}

fn hint(unchecked: bool) -> &'static [u8] {
    if unchecked { UNCHECKED.as_bytes() } else { b"" }
}

/// `UPDATE t SET ... WHERE key` for one row. The new key is set too where it is another than `key`.
pub fn update_of_row(
    target: &TargetTable,
    row: &Row,
    key: &Key,
    unchecked: bool,
    out: &mut Vec<u8>,
) -> Result<Rendered, Error> {
    out.extend_from_slice(b"UPDATE ");
    out.extend_from_slice(hint(unchecked));
    out.extend_from_slice(target.quoted.as_bytes());
    out.extend_from_slice(b" SET ");
    if let Rendered::Refused(reason) = target.render_assignments(out, row)? {
        return Ok(Rendered::Refused(reason));
    }
    where_key(target, key, out)
}

pub fn delete_of_row(target: &TargetTable, key: &Key, unchecked: bool, out: &mut Vec<u8>) -> Result<Rendered, Error> {
    out.extend_from_slice(b"DELETE ");
    out.extend_from_slice(hint(unchecked));
    out.extend_from_slice(b"FROM ");
    out.extend_from_slice(target.quoted.as_bytes());
    where_key(target, key, out)
}

/// `INSERT` of one row, with the columns that it has.
pub fn insert_of_row(target: &TargetTable, row: &Row, unchecked: bool, out: &mut Vec<u8>) -> Result<Rendered, Error> {
    out.extend_from_slice(b"INSERT ");
    out.extend_from_slice(hint(unchecked));
    out.extend_from_slice(b"INTO ");
    out.extend_from_slice(target.quoted.as_bytes());
    out.extend_from_slice(b" SET ");
    target.render_assignments(out, row)
}

fn where_key(target: &TargetTable, key: &Key, out: &mut Vec<u8>) -> Result<Rendered, Error> {
    out.extend_from_slice(b" WHERE ");
    target.write_key_columns(out);
    out.extend_from_slice(b"=(");
    match target.render_key(out, key)? {
        Rendered::Done => {}
        refused => return Ok(refused),
    }
    out.push(b')');
    target.write_exact_key(out, key)
}
