//! How a stand-in is started.

use std::path::PathBuf;

#[derive(Debug, Clone)]
pub struct Options {
    /// Port of the first member, the others follow; 0 lets the system choose.
    pub port: u16,
    pub members: usize,
    pub replica_set: String,
    /// Where the journal is kept; without it everything is lost at the end.
    pub folder: Option<PathBuf>,
    /// Names and passwords in the database `admin`; without any, nobody has to log in.
    pub users: Vec<(String, String)>,
    pub tls: Option<Tls>,
    /// How many entries the oplog keeps; 0 keeps all.
    pub oplog: usize,
    /// 25 shows itself as 8.0, 21 as 7.0.
    pub wire_version: i32,
}

#[derive(Debug, Clone)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            members: 1,
            replica_set: "rs0".to_owned(),
            folder: None,
            users: Vec::new(),
            tls: None,
            oplog: 1_000_000,
            wire_version: 25,
        }
    }
}

impl Options {
    pub fn server_version(&self) -> [i32; 4] {
        if self.wire_version >= 25 { [8, 0, 0, 0] } else { [7, 0, 0, 0] }
    }
}
