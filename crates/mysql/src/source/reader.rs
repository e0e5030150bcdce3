//! Who reads a server's log, as the server is to know it.

use crate::config::Config;
use crate::error::Error;
use crate::gtid::GtidSet;
use crate::wire::Wire;
use sync_worker_core::database::Scope;
use sync_worker_core::name::{DatabaseName, PipelineName};

/// A flag of a request: the stream ends where the log ends.
const NON_BLOCK: u8 = 1;

/// In a file of the log, behind its magic number.
const FIRST_EVENT: u64 = 4;

/// How far a stream goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    AndFollow,
    /// The stream ends where the log ends.
    UpToNow,
}

/// A server knows a replica by its UUID, and lets go of an older stream of the same one. So the identity is the same
/// after a crash, when the old stream may still stand, and differs between all that read at the same time: members of a
/// pipeline may lie on one server, and share a user.
#[derive(Clone)]
pub struct Reader {
    pub config: Config,
    pub pipeline: PipelineName,
    identity: u64,
}

impl Reader {
    pub fn new(config: &Config, scope: &Scope, database: &DatabaseName) -> Self {
        let name = format!("{}/{}/{database}", scope.installation, scope.pipeline);
        Self { config: config.clone(), pipeline: scope.pipeline.clone(), identity: fingerprint(name.as_bytes()) }
    }

    /// Asks for the stream of all that is not in `taken`.
    pub async fn request(&self, wire: &mut Wire, taken: &GtidSet, dump: Dump) -> Result<(), Error> {
        const BINLOG_DUMP_GTID: u8 = 0x1E;
        self.introduce(wire, dump).await?;
        let set = taken.encode();
        let flags = if dump == Dump::UpToNow { NON_BLOCK } else { 0 };
        let mut command = vec![BINLOG_DUMP_GTID, flags, 0];
        command.extend_from_slice(&self.server_id(dump).to_le_bytes());
        command.extend_from_slice(&0u32.to_le_bytes()); // no file name
        command.extend_from_slice(&FIRST_EVENT.to_le_bytes());
        command.extend_from_slice(&u32::try_from(set.len()).unwrap_or(u32::MAX).to_le_bytes());
        command.extend_from_slice(&set);
        wire.start(&command).await
    }

    /// Asks for what stands in a file, and in those after it, up to now.
    pub async fn request_file(&self, wire: &mut Wire, file: &str) -> Result<(), Error> {
        const BINLOG_DUMP: u8 = 0x12;
        self.introduce(wire, Dump::UpToNow).await?;
        let mut command = vec![BINLOG_DUMP];
        command.extend_from_slice(&u32::try_from(FIRST_EVENT).unwrap_or_default().to_le_bytes());
        command.extend_from_slice(&[NON_BLOCK, 0]);
        command.extend_from_slice(&self.server_id(Dump::UpToNow).to_le_bytes());
        command.extend_from_slice(file.as_bytes());
        wire.start(&command).await
    }

    /// Says who reads. A reader that waits for something else for a while, as for a look back or for room on the bus, is not
    /// to be taken for gone.
    async fn introduce(&self, wire: &mut Wire, dump: Dump) -> Result<(), Error> {
        const HEARTBEAT_NANOSECONDS: u64 = 1_000_000_000;
        const PATIENCE_SECONDS: u32 = 3600;
        let uuid = self.uuid(dump);
        let settings = format!(
            "SET @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum, \
             @master_heartbeat_period = {HEARTBEAT_NANOSECONDS}, @source_heartbeat_period = {HEARTBEAT_NANOSECONDS}, \
             @slave_uuid = '{uuid}', @replica_uuid = '{uuid}', net_write_timeout = {PATIENCE_SECONDS}"
        );
        wire.execute(&settings).await
    }

    /// A look into the log leaves the stream that is being followed alone.
    fn identity(&self, dump: Dump) -> u64 {
        self.identity ^ u64::from(dump == Dump::UpToNow)
    }

    fn uuid(&self, dump: Dump) -> String {
        let digits = format!("{:016x}", self.identity(dump));
        format!("{}-{}-4000-8000-{}0000", &digits[..8], &digits[8..12], &digits[8..])
    }

    fn server_id(&self, dump: Dump) -> u32 {
        let configured = self.config.server_id.filter(|_| dump == Dump::AndFollow);
        configured.unwrap_or((self.identity(dump) & 0x3FFF_FFFF) as u32 | 0x4000_0000)
    }
}

/// FNV-1a: an identity that stays the same for the same names.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn reader(pipeline: &str, database: &str) -> Reader {
        let config = Config { url: "mysql://u@h/d".into(), password: None, server_id: None };
        let scope = Scope {
            installation: "i".into(),
            pipeline: pipeline.into(),
            tables: Vec::new(),
            two_way: true,
            spill: "/nowhere".into(),
        };
        Reader::new(&config, &scope, &database.into())
    }

    #[test]
    fn whatever_reads_a_log_at_the_same_time_has_an_identity_of_its_own() {
        let readers = [reader("one", "a"), reader("one", "b"), reader("two", "b")];
        let all = readers.iter().flat_map(|reader| [(reader, Dump::AndFollow), (reader, Dump::UpToNow)]);
        let all: Vec<_> = all.map(|(reader, dump)| (reader.uuid(dump), reader.server_id(dump))).collect();
        let (uuids, ids): (HashSet<_>, HashSet<_>) = all.into_iter().unzip();
        assert_eq!((uuids.len(), ids.len()), (6, 6));
        assert!(uuids.iter().all(|uuid| uuid.len() == 36), "{uuids:?}");
    }

    #[test]
    fn after_a_crash_it_is_known_as_before() {
        assert_eq!(reader("one", "a").uuid(Dump::AndFollow), reader("one", "a").uuid(Dump::AndFollow));
    }
}
