//! What the last configuration record says, and what has come to rest on it.

use super::flips::Flips;
use super::key::RowKey;
use super::rules::{Columns, Group, Rules, ranks};
use super::version::Member;
use super::{Limits, Resolver};
use crate::failure::EngineError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use sync_worker_core::logical::Normalizer;
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::record::Offset;
use sync_worker_core::rules::{ColumnGroup, Merge, TableRules, TwoWay};
use sync_worker_core::schema::{Schema, SchemaId};

/// Since when nothing of a table is taken, and why. It goes on at a person's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paused {
    pub offset: Offset,
    pub reason: String,
}

/// What a configuration record has brought.
pub struct Configured {
    pub rules: Arc<TwoWay>,
    pub resolver: Resolver,
    pub paused: BTreeMap<TableName, Paused>,
    /// Where tables went on that had been paused.
    pub resumed: BTreeMap<TableName, Offset>,
    pub flips: Flips,
    /// Keys that go back and forth: nothing is taken of them until a person decides.
    pub stopped: BTreeSet<RowKey>,
    /// The applier's own member.
    pub own: Option<Member>,
    pub normalizers: HashMap<SchemaId, Arc<Normalizer>>,
}

impl Configured {
    pub fn new(rules: Arc<TwoWay>, target: &DatabaseName) -> Self {
        let resolver = Resolver::new(rules.members.len(), resolver_rules(&rules), Limits::default());
        Self::with(rules, target, resolver)
    }

    pub fn with(rules: Arc<TwoWay>, target: &DatabaseName, resolver: Resolver) -> Self {
        let own = member(&rules, target);
        Self {
            rules,
            resolver,
            paused: BTreeMap::new(),
            resumed: BTreeMap::new(),
            flips: Flips::default(),
            stopped: BTreeSet::new(),
            own,
            normalizers: HashMap::new(),
        }
    }

    pub fn table(&self, name: &TableName) -> Option<&TableRules> {
        self.rules.tables.iter().find(|table| table.schema.table == *name)
    }

    /// Whether changes of the key were left out since this version was sent. A key that went on again has been decided about,
    /// or is left to those who write it.
    pub fn is_blind(&self, key: &RowKey, sent: Offset) -> bool {
        self.paused.contains_key(&key.table)
            || self.stopped.contains(key)
            || self.resumed.get(&key.table).is_some_and(|resumed| sent < *resumed)
    }

    pub fn name(&self, member: Member) -> DatabaseName {
        let found = self.rules.members.get(usize::from(member.0));
        found.map_or_else(|| DatabaseName::new(""), |member| member.name.clone())
    }
}

fn member(rules: &TwoWay, name: &DatabaseName) -> Option<Member> {
    let place = rules.members.iter().position(|member| member.name == *name)?;
    u8::try_from(place).ok().map(Member)
}

/// The rules as the resolver takes them.
pub fn resolver_rules(two_way: &TwoWay) -> HashMap<TableName, Arc<Rules>> {
    let ranks = ranks(&two_way.members);
    let rules = |table: &TableRules| {
        let merge = table.merge.as_ref().map(|merge| columns(&table.schema, merge));
        let rules = Rules { strategy: table.strategy, on_delete: table.on_delete, merge, ranks: ranks.clone() };
        (table.schema.table.clone(), Arc::new(rules))
    };
    two_way.tables.iter().map(rules).collect()
}

fn columns(schema: &Schema, merge: &Merge) -> Columns {
    let group = |group: &ColumnGroup| {
        let columns = group.columns.iter().filter_map(|name| schema.column(name)).collect();
        Group { columns, strategy: group.strategy }
    };
    let delta = schema.columns.iter().map(|column| merge.delta.contains(&column.name)).collect();
    Columns { delta, groups: merge.groups.iter().map(group).collect() }
}

pub fn known(rules: &TwoWay, origin: &DatabaseName) -> Result<Member, EngineError> {
    member(rules, origin)
        .ok_or_else(|| EngineError::Configuration(format!("{origin} is on the log, but no member of the pipeline")))
}
