//! What rows are called among all members.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::LazyLock;
use sync_worker_core::name::TableName;
use sync_worker_core::row::Key;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Random, for keys come from outside.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0u8));

/// A row of a logical table, whichever member it is at. Hashed once, since every change passes through several maps by it.
#[derive(Clone)]
pub struct RowKey {
    pub table: TableName,
    pub key: Key,
    hash: u64,
}

impl RowKey {
    pub fn new(table: TableName, key: Key) -> Self {
        let seed = xxh3_64_with_seed(table.as_str().as_bytes(), *SEED);
        let hash = xxh3_64_with_seed(key.as_bytes(), seed);
        Self { table, key, hash }
    }

    /// The same in memory of its own: one that outlives its row must not hold it.
    pub fn detached(&self) -> Self {
        Self { key: self.key.detached(), ..self.clone() }
    }

    /// Another one in every process.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.key == other.key && self.table == other.table
    }
}

impl Eq for RowKey {}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.table, &self.key).cmp(&(&other.table, &other.key))
    }
}

impl Hash for RowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.table, self.key)
    }
}

pub type RowMap<V> = HashMap<RowKey, V, BuildHasherDefault<Hashed>>;

/// Takes the hash that a row has already.
#[derive(Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
