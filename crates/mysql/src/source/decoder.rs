//! From events to transactions: where each begins and ends, what it changes, and how far the log has been taken.

mod effect;

use super::event::{self, Begin, Header};
use super::own::Ours;
use super::prepared::{Held, Prepared};
use super::rows::{RowDecoder, is_whole, leaves_out, partial};
use super::statement::Statement;
use super::table_map;
use super::tables::{Asked, Rows, Tables};
use crate::catalog::QualifiedName;
use crate::codec::Invalid;
use crate::error::Error;
use crate::gtid::{Gtid, GtidSet, Origin};
use std::sync::Arc;
use sync_worker_core::change::Change;
use sync_worker_core::echo::Echo;
use sync_worker_core::position::{Checkpoint, Epoch, MysqlPosition, Position};
use sync_worker_core::source::{SourceBatch, TransactionPart};

/// A batch holds about this many bytes of changes.
const BATCH_BYTES: usize = 1 << 20;

/// What an event asks of the caller before the next one.
pub enum Step {
    Done,
    /// Look this table up, tell [`Tables::learn`], and give the same event again.
    Catalog(QualifiedName),
    /// Find out this table's definition where the stream stands, tell [`Tables::settle`], and give the same event again.
    Defaults(QualifiedName),
    /// Unpack the event's body, give its events to [`Decoder::inner`].
    Payload,
    /// Give these events to [`Decoder::inner`], then call [`Decoder::decided`].
    Decided(Held),
    /// The same for those of the transaction with this name, which was prepared before the stream began.
    Undecided {
        name: String,
        decision: Gtid,
    },
}

struct Transaction {
    gtid: Gtid,
    commit_time: i64,
    position: MysqlPosition,
    /// Changes that went out in parts already.
    sent: u64,
    /// A part went out already.
    told: bool,
    changes: Vec<Change>,
    /// It is ours: what its marker and parked rows tell that has not gone out.
    echo: Option<Echo>,
    size: usize,
    /// `BEGIN` was seen: it ends with a commit, else with its only statement.
    begun: bool,
    /// The name under which its events are held.
    held: Option<Arc<str>>,
}

impl Transaction {
    fn has_news(&self) -> bool {
        let told = |echo: &Echo| !echo.parked.is_empty() || !echo.unparked.is_empty();
        !self.changes.is_empty() || self.echo.as_ref().is_some_and(told)
    }
}

pub struct Decoder {
    pub tables: Tables,
    epoch: Epoch,
    checksum: bool,
    file: u64,
    /// Where the last event of the file ended.
    end: u64,
    /// What has been taken whole: transactions that are prepared only are not in it.
    taken: GtidSet,
    current: Option<Transaction>,
    done: Vec<TransactionPart>,
    done_size: usize,
    /// Everything that ends at or below it has been returned, or is in `done`.
    reached: MysqlPosition,
    /// `reached` of the last batch.
    told: MysqlPosition,
    prepared: Prepared,
    rows: RowDecoder,
    /// Two-way: whose marker and parked rows are ours.
    ours: Option<Ours>,
    /// Room for their changes.
    own: Vec<Change>,
    origin: Option<(Origin, String)>,
}

/// The position of everything that ends at this place of a file.
pub fn boundary(file: u64, end: u64) -> MysqlPosition {
    MysqlPosition { file, offset: end.saturating_sub(1), ordinal: u64::MAX }
}

/// Its checksum has been looked at.
fn without_checksum<'a>(event: &'a [u8], body: &[u8]) -> &'a [u8] {
    &event[..event::HEADER + body.len()]
}

fn cut(invalid: Invalid) -> Error {
    Error::Protocol(invalid.0)
}

impl Decoder {
    pub fn new(tables: Tables, epoch: Epoch, start: MysqlPosition, taken: GtidSet, prepared: Prepared) -> Self {
        Self {
            tables,
            epoch,
            checksum: true,
            file: start.file,
            end: start.offset,
            taken,
            current: None,
            done: Vec::new(),
            done_size: 0,
            reached: start,
            told: start,
            prepared,
            rows: RowDecoder::default(),
            ours: None,
            own: Vec::new(),
            origin: None,
        }
    }

    /// Whether events carry a checksum, until a file says so itself.
    pub fn set_checksum(&mut self, checksum: bool) {
        self.checksum = checksum;
    }

    /// The pipeline is two-way: our own transactions are told from others, and every image must be whole.
    pub fn set_two_way(&mut self, ours: Ours) {
        self.tables.show_own();
        self.ours = Some(ours);
    }

    /// Takes an event as it came. Its body, without checksum, goes with [`Step::Payload`].
    pub fn event<'a>(&mut self, bytes: &'a [u8]) -> Result<(Step, &'a [u8]), Error> {
        let mut rest = bytes;
        let header = Header::read(&mut rest).map_err(cut)?;
        if usize::try_from(header.size) != Ok(bytes.len()) {
            return Err(Error::Protocol("an event is cut"));
        }
        if header.kind == event::FORMAT_DESCRIPTION {
            self.checksum = event::checksum(rest).map_err(cut)?;
        }
        if self.checksum {
            let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(Error::Protocol("an event is cut"))?;
            if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
                return Err(Error::Protocol("an event's checksum is wrong"));
            }
            rest = &rest[..rest.len().saturating_sub(4)];
        }
        if header.end != 0 {
            self.advance(header.end);
        }
        let step = self.take(header, bytes, rest)?;
        if let Step::Done = step
            && self.current.is_none()
        {
            self.reached = self.reached.max(boundary(self.file, self.end));
        }
        Ok((step, rest))
    }

    /// Takes an event out of a compressed or prepared transaction.
    pub fn inner(&mut self, bytes: &[u8]) -> Result<Step, Error> {
        let mut rest = bytes;
        let header = Header::read(&mut rest).map_err(cut)?;
        self.take(header, bytes, rest)
    }

    /// Offsets in events have 32 bits only; files may be larger.
    fn advance(&mut self, end: u32) {
        let high = self.end & !0xFFFF_FFFF;
        let mut full = high | u64::from(end);
        if full < self.end && self.end - full > 1 << 31 {
            full += 1 << 32;
        }
        // An event that is given twice has not moved.
        self.end = self.end.max(full);
    }

    fn take(&mut self, header: Header, bytes: &[u8], body: &[u8]) -> Result<Step, Error> {
        match header.kind {
            event::TABLE_MAP => {
                if let Some(name) = self.held() {
                    let ours = self.tables.is_ours(body)?;
                    self.prepared.map(&name, without_checksum(bytes, body), ours)?;
                    return Ok(Step::Done);
                }
                return Ok(match self.tables.map(body)? {
                    Asked::Nothing => Step::Done,
                    Asked::Catalog(name) => Step::Catalog(name),
                });
            }
            event::WRITE_ROWS
            | event::UPDATE_ROWS
            | event::DELETE_ROWS
            | event::PARTIAL_UPDATE_ROWS
            | event::WRITE_ROWS_V1
            | event::UPDATE_ROWS_V1
            | event::DELETE_ROWS_V1 => match self.held() {
                Some(name) => self.prepared.rows(&name, without_checksum(bytes, body))?,
                None => return self.rows(header.kind, body),
            },
            event::GTID => self.begin(header, event::gtid(body).map_err(cut)?)?,
            event::GTID_TAGGED => self.begin(header, event::gtid_tagged(body).map_err(cut)?)?,
            event::QUERY => {
                let query = event::query(body).map_err(cut)?;
                return self.statement(Statement::parse(query.statement), query.database);
            }
            event::XID => self.finish()?,
            event::XA_PREPARE => return self.prepare(event::one_phase(body).map_err(cut)?),
            event::TRANSACTION_PAYLOAD => return Ok(Step::Payload),
            event::ROTATE => {
                let (file, position) = event::rotate(body).map_err(cut)?;
                (self.file, self.end) = (file, position);
                if self.current.is_none() {
                    self.reached = self.reached.max(boundary(file, position));
                }
            }
            event::ANONYMOUS_GTID => {
                return Err(Error::Fatal("a transaction in the log has no GTID; SET GLOBAL gtid_mode = ON".to_owned()));
            }
            event::INCIDENT => {
                let text = "the server logged an incident: changes are missing from its log; remove the pipeline's state and take a new snapshot";
                return Err(Error::Gap(text.to_owned()));
            }
            event::EXECUTE_LOAD_QUERY => {
                let query = event::load_query(body).map_err(cut)?;
                return self.statement(Statement::parse(query.statement), query.database);
            }
            event::FORMAT_DESCRIPTION
            | event::STOP
            | event::HEARTBEAT
            | event::HEARTBEAT_V2
            | event::PREVIOUS_GTIDS
            | event::ROWS_QUERY
            | event::IGNORABLE
            | event::INTVAR
            | event::RAND
            | event::USER_VAR
            | event::BEGIN_LOAD_QUERY
            | event::APPEND_BLOCK
            | event::DELETE_FILE
            | event::TRANSACTION_CONTEXT
            | event::VIEW_CHANGE => {}
            _ if header.flags & event::IGNORABLE_FLAG != 0 => {}
            _ => return Err(Error::Protocol("an event of an unknown kind")),
        }
        Ok(Step::Done)
    }

    fn begin(&mut self, header: Header, begin: Begin) -> Result<(), Error> {
        if self.current.is_some() {
            return Err(Error::Protocol("a transaction begins inside another"));
        }
        let offset = self.end.saturating_sub(u64::from(header.size));
        let commit_time = match begin.commit_time {
            0 => i64::from(header.timestamp) * 1_000_000,
            time => time,
        };
        self.current = Some(Transaction {
            gtid: begin.gtid,
            commit_time,
            position: MysqlPosition { file: self.file, offset, ordinal: 0 },
            sent: 0,
            told: false,
            changes: Vec::new(),
            echo: None,
            size: 0,
            begun: false,
            held: None,
        });
        Ok(())
    }

    /// The name of the transaction under way, if its events are put aside until it is decided.
    fn held(&self) -> Option<Arc<str>> {
        self.current.as_ref().and_then(|current| current.held.clone())
    }

    fn rows(&mut self, kind: u8, mut body: &[u8]) -> Result<Step, Error> {
        let number = table_map::table_id(&mut body).map_err(cut)?;
        let plan = match self.tables.rows(number)? {
            Rows::Pipeline(plan) => plan,
            Rows::Own(table, plan) => {
                let current = self.current.as_mut().ok_or(Error::Protocol("rows outside a transaction"))?;
                self.own.clear();
                self.rows.changes(kind, body, plan, &mut self.own)?;
                let known = current.echo.is_some();
                for change in &self.own {
                    if let Some(ours) = &self.ours {
                        current.size += ours.take(table, change, &mut current.echo)?;
                    }
                }
                if !known && current.echo.is_some() && current.told {
                    let text = "a transaction moves the marker of this pipeline after other changes, which no worker does; remove the pipeline's state and take a new snapshot";
                    return Err(Error::Gap(text.to_owned()));
                }
                return Ok(Step::Done);
            }
            Rows::Others => return Ok(Step::Done),
        };
        if self.ours.is_some() && !is_whole(kind, body, plan) {
            return Err(partial(&plan.schema.table));
        }
        if !plan.settled
            && leaves_out(kind, body, plan)
            && let Some(name) = self.tables.place(&plan.schema.table)
        {
            return Ok(Step::Defaults(name.clone()));
        }
        let current = self.current.as_mut().ok_or(Error::Protocol("rows outside a transaction"))?;
        current.size += self.rows.changes(kind, body, plan, &mut current.changes)?;
        Ok(Step::Done)
    }

    /// A prepared transaction waits; one that is committed in one phase is decided at once.
    fn prepare(&mut self, one_phase: bool) -> Result<Step, Error> {
        let name = self.current.as_mut().and_then(|current| current.held.take());
        if one_phase && let Some(held) = name.as_ref().and_then(|name| self.prepared.take(name)) {
            return Ok(Step::Decided(held));
        }
        // The GTID of one that matters stays out of what has been taken: the server sends it again after a restart. Of
        // another that nobody ever decides, it would stand in the way of a restart as soon as its file is purged.
        let current = self.current.take();
        if let (Some(current), Some(name)) = (current, name)
            && !self.prepared.is_wanted(&name)
        {
            self.taken.add(current.gtid);
        }
        self.reached = self.reached.max(boundary(self.file, self.end));
        Ok(Step::Done)
    }

    /// All events of the decided transaction that was prepared as `prepared` have been given.
    pub fn decided(&mut self, prepared: Gtid) -> Result<(), Error> {
        self.taken.add(prepared);
        self.finish()
    }

    /// What has been taken whole.
    pub fn taken(&self) -> &GtidSet {
        &self.taken
    }

    /// The transaction under way has this GTID.
    pub fn is_inside(&self, gtid: Gtid) -> bool {
        self.current.as_ref().is_some_and(|current| current.gtid == gtid)
    }

    /// The number of the log's file that it stands in.
    pub fn file(&self) -> u64 {
        self.file
    }

    /// What is prepared and not decided.
    pub fn into_prepared(self) -> Prepared {
        self.prepared
    }

    fn finish(&mut self) -> Result<(), Error> {
        let current = self.current.take().ok_or(Error::Protocol("the end of no transaction"))?;
        self.taken.add(current.gtid);
        self.reached = self.reached.max(boundary(self.file, self.end));
        if current.told || current.echo.is_some() || !current.changes.is_empty() {
            self.done_size += current.size;
            let part = self.part(current, true);
            self.done.push(part);
        }
        Ok(())
    }

    fn part(&mut self, transaction: Transaction, complete: bool) -> TransactionPart {
        let Transaction { gtid, commit_time, position, sent, changes, echo, .. } = transaction;
        let origin = match &mut self.origin {
            Some((origin, text)) if *origin == gtid.origin => text,
            other => &mut other.insert((gtid.origin, format!("{}:", gtid.origin))).1,
        };
        let mut id = String::with_capacity(origin.len() + 20);
        id.push_str(origin);
        id.push_str(itoa::Buffer::new().format(gtid.number));
        let first = Position::Mysql(MysqlPosition { ordinal: sent, ..position });
        TransactionPart { id: Arc::from(id), commit_time, first, changes, complete, echo }
    }

    /// There is as much as one batch may hold.
    pub fn is_full(&self) -> bool {
        self.done_size + self.current.as_ref().map_or(0, |current| current.size) >= BATCH_BYTES
    }

    /// There is something that the engine does not know.
    pub fn has_news(&self) -> bool {
        !self.done.is_empty() || self.reached > self.told
    }

    /// What there is. The transaction under way goes with it only where the batch would be too large else.
    pub fn batch(&mut self) -> SourceBatch {
        let mut parts = std::mem::take(&mut self.done);
        let full = self.is_full();
        self.done_size = 0;
        if let Some(mut current) = self.current.take() {
            if full && current.has_news() {
                let rest = Transaction {
                    sent: current.sent + current.changes.len() as u64,
                    told: true,
                    changes: Vec::new(),
                    echo: current.echo.as_ref().map(|echo| Echo { offset: echo.offset, ..Echo::default() }),
                    size: 0,
                    held: current.held.take(),
                    ..current
                };
                parts.push(self.part(current, false));
                self.current = Some(rest);
            } else {
                self.current = Some(current);
            }
        }
        self.told = self.reached;
        let position = Position::Mysql(self.reached);
        let inside = self.current.as_ref().is_some_and(|current| current.told);
        let checkpoint =
            (!inside).then(|| Checkpoint { epoch: self.epoch.clone(), position, resume: self.taken.to_string() });
        SourceBatch { parts, checkpoint, reached: position }
    }
}
