//! Writes as commands: `bulkWrite` where the server has it, else one command per run of like writes of a collection.

use crate::client::Client;
use crate::error::{Error, ServerError};
use crate::sink::failure::sort;
use bson::raw::cstr;
use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, rawdoc};
use mongodb::ClientSession;

/// What a command may hold: a document of 16 MB alone, or several that stay well below it.
const COMMAND_BYTES: usize = 12 << 20;
const COMMAND_WRITES: usize = 20_000;

const DOING: &str = "writing a batch";

pub enum Do {
    /// The whole document, whether it is there or not.
    Replace(RawDocumentBuf),
    /// The whole document, which must not be there.
    Insert(RawDocumentBuf),
    /// A document that must be there.
    Update(RawDocumentBuf),
    Delete,
    /// All documents of the collection.
    Clear,
}

pub struct Operation {
    pub collection: String,
    pub filter: RawDocumentBuf,
    pub does: Do,
    /// The write that it is for.
    pub write: usize,
    /// A delete of a document that need not be there.
    pub fresh: bool,
    /// An insert of a document that need not be there before.
    pub new: bool,
}

impl Operation {
    fn size(&self) -> usize {
        let body = match &self.does {
            Do::Replace(document) | Do::Insert(document) | Do::Update(document) => document.as_bytes().len(),
            Do::Delete | Do::Clear => 0,
        };
        body + self.filter.as_bytes().len() + 64
    }

    /// Operations that one command before `bulkWrite` may hold.
    fn kind(&self) -> (&str, Kind) {
        let kind = match self.does {
            Do::Replace(_) | Do::Update(_) => Kind::Update,
            Do::Insert(_) => Kind::Insert,
            Do::Delete | Do::Clear => Kind::Delete,
        };
        (&self.collection, kind)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Insert,
    Update,
    Delete,
}

/// What the server refused.
pub struct Refused {
    /// The operation's index; None where it is a command of several.
    pub at: Option<usize>,
    pub error: ServerError,
}

/// What came of operations that were all executed.
#[derive(Default)]
pub struct Outcome {
    /// Updates and deletes whose document was not there.
    pub missing: u64,
    /// Updates of documents that must be there and were not; only where each is looked at.
    pub lacking: Vec<usize>,
    /// Some document that must be there was not.
    pub lacks: bool,
}

/// Runs operations in order, until the first that is refused; at most so many to a command. `careful`: each is looked at.
pub async fn run(
    client: &Client,
    session: &mut ClientSession,
    mut operations: Vec<Operation>,
    careful: bool,
    most: usize,
) -> Result<Result<Outcome, Refused>, Error> {
    let mut outcome = Outcome::default();
    let mut begin = 0;
    // Commands of one server before 8.0 count what they met, not which: each must go by itself then.
    let most = if careful && !client.bulk_write { 1 } else { most };
    while begin < operations.len() {
        let end = end_of(&operations, begin, client.bulk_write, most);
        let part = &mut operations[begin..end];
        let ran = match client.bulk_write {
            true => bulk_write(client, session, part, careful).await,
            false => plain(client, session, part).await,
        };
        match ran {
            Ok(Ok(done)) => {
                outcome.missing += done.missing;
                outcome.lacks |= done.lacks;
                outcome.lacking.extend(done.lacking.iter().map(|at| begin + at));
            }
            Ok(Err(refused)) => return Ok(Err(Refused { at: refused.at.map(|at| begin + at), ..refused })),
            // The command as a whole, by the fault of what it holds.
            Err(Error::Server { source, .. }) if !source.transient && sort(&source).is_some() => {
                return Ok(Err(Refused { at: (end - begin == 1).then_some(begin), error: source }));
            }
            Err(error) => return Err(error),
        }
        begin = end;
    }
    Ok(Ok(outcome))
}

pub const TOO_LARGE: &str = "the document and its _id are larger than a command may be, 16 MB";

/// The server takes 16 KB for a command beside a document of 16 MB; the command that wraps the two takes a part of it.
pub fn is_too_large(filter: &RawDocumentBuf, document: &RawDocumentBuf) -> bool {
    filter.as_bytes().len() + document.as_bytes().len() > (16 << 20) + (12 << 10)
}

fn end_of(operations: &[Operation], begin: usize, mixed: bool, most: usize) -> usize {
    let (mut end, mut size) = (begin, 0);
    let most = most.min(COMMAND_WRITES);
    while let Some(operation) = operations.get(end) {
        let fits = size + operation.size() <= COMMAND_BYTES && end - begin < most;
        if end > begin && (!fits || !mixed && operation.kind() != operations[begin].kind()) {
            break;
        }
        size += operation.size();
        end += 1;
    }
    end
}

async fn bulk_write(
    client: &Client,
    session: &mut ClientSession,
    operations: &mut [Operation],
    careful: bool,
) -> Result<Result<Outcome, Refused>, Error> {
    let (mut spaces, mut ops): (Vec<String>, _) = (Vec::new(), RawArrayBuf::new());
    for operation in operations.iter_mut() {
        let known = spaces.iter().position(|name| *name == operation.collection);
        let place = known.unwrap_or_else(|| {
            spaces.push(operation.collection.clone());
            spaces.len() - 1
        });
        let place = i32::try_from(place).unwrap_or(0);
        let filter = std::mem::take(&mut operation.filter);
        ops.push(match &mut operation.does {
            Do::Replace(document) => {
                rawdoc! { "update": place, "filter": filter, "updateMods": std::mem::take(document), "multi": false, "upsert": true }
            }
            Do::Insert(document) => rawdoc! { "insert": place, "document": std::mem::take(document) },
            Do::Update(update) => {
                rawdoc! { "update": place, "filter": filter, "updateMods": std::mem::take(update), "multi": false, "upsert": false }
            }
            Do::Delete => rawdoc! { "delete": place, "filter": filter, "multi": false },
            Do::Clear => rawdoc! { "delete": place, "filter": filter, "multi": true },
        });
    }
    let mut info = RawArrayBuf::new();
    for name in spaces {
        info.push(rawdoc! { "ns": format!("{}.{name}", client.name) });
    }
    let command = rawdoc! {
        "bulkWrite": 1, "errorsOnly": !careful, "ordered": true, "ops": ops, "nsInfo": info,
        "cursor": { "batchSize": 100_000 },
    };
    let reply = client.admin_in(session, DOING, command).await?;
    let results = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let results = results.map_err(|_| Error::Protocol("an answer without its results"))?;
    let mut outcome = Outcome::default();
    for result in results.iter().filter_map(Bson::as_document) {
        let at = usize::try_from(number(result, "idx")).unwrap_or(0);
        if let Some(error) = refusal(result) {
            return Ok(Err(Refused { at: Some(at), error }));
        }
        let must = operations.get(at).is_some_and(|operation| matches!(operation.does, Do::Update(_)));
        if careful && must && number(result, "n") == 0 {
            outcome.lacking.push(at);
        }
    }
    if number(&reply, "nErrors") > 0 {
        return Err(Error::Protocol("a refusal without its reason"));
    }
    let count = |which: fn(&Operation) -> bool| operations.iter().filter(|one| which(one)).count() as u64;
    let updates = count(|one| matches!(one.does, Do::Replace(_) | Do::Update(_)));
    let (met, made) = (count_of(&reply, "nMatched"), count_of(&reply, "nUpserted"));
    outcome.lacks = met + made < updates;
    let expected = count(|one| matches!(one.does, Do::Replace(_)) && one.new);
    let deletes = count(|one| matches!(one.does, Do::Delete) && !one.fresh);
    let cleared = count(|one| matches!(one.does, Do::Clear)) > 0;
    outcome.missing = made.saturating_sub(expected);
    if !cleared {
        outcome.missing += deletes.saturating_sub(count_of(&reply, "nDeleted"));
    }
    Ok(Ok(outcome))
}

/// Operations of one kind on one collection.
async fn plain(
    client: &Client,
    session: &mut ClientSession,
    operations: &mut [Operation],
) -> Result<Result<Outcome, Refused>, Error> {
    let mut list = RawArrayBuf::new();
    for operation in operations.iter_mut() {
        let filter = std::mem::take(&mut operation.filter);
        list.push(match &mut operation.does {
            Do::Replace(document) => rawdoc! { "q": filter, "u": std::mem::take(document), "upsert": true },
            Do::Insert(document) => std::mem::take(document),
            Do::Update(update) => rawdoc! { "q": filter, "u": std::mem::take(update) },
            Do::Delete => rawdoc! { "q": filter, "limit": 1 },
            Do::Clear => rawdoc! { "q": filter, "limit": 0 },
        });
    }
    let Some(first) = operations.first() else { return Ok(Ok(Outcome::default())) };
    let mut command = RawDocumentBuf::new();
    let (name, items) = match first.kind().1 {
        Kind::Insert => (cstr!("insert"), cstr!("documents")),
        Kind::Update => (cstr!("update"), cstr!("updates")),
        Kind::Delete => (cstr!("delete"), cstr!("deletes")),
    };
    command.append(name, first.collection.as_str());
    command.append(items, list);
    command.append(cstr!("ordered"), true);
    let reply = client.run_in(session, DOING, command).await?;
    if let Ok(errors) = reply.get_array("writeErrors")
        && let Some(error) = errors.first().and_then(Bson::as_document)
    {
        let at = usize::try_from(number(error, "index")).unwrap_or(0);
        let error = refusal(error).ok_or(Error::Protocol("a refusal without its reason"))?;
        return Ok(Err(Refused { at: Some(at), error }));
    }
    let done = count_of(&reply, "n");
    let mut outcome = Outcome::default();
    if first.kind().1 == Kind::Update {
        let made = reply.get_array("upserted").map_or(0, |made| made.len() as u64);
        outcome.lacks = done < operations.len() as u64;
        // Known only of an operation by itself.
        outcome.lacking.extend(outcome.lacks.then_some(0));
        outcome.missing = made.saturating_sub(operations.iter().filter(|one| one.new).count() as u64);
    } else if matches!(first.does, Do::Delete) {
        let deletes = operations.iter().filter(|one| !one.fresh).count() as u64;
        outcome.missing = deletes.saturating_sub(done);
    }
    Ok(Ok(outcome))
}

fn refusal(result: &Document) -> Option<ServerError> {
    let code = i32::try_from(number(result, "code")).ok().filter(|code| *code != 0)?;
    Some(ServerError::new(code, "", result.get_str("errmsg").unwrap_or_default()))
}

fn number(document: &Document, name: &str) -> i64 {
    match document.get(name) {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        #[allow(clippy::cast_possible_truncation)] // counts, far below 2^53
        Some(Bson::Double(number)) => *number as i64,
        _ => 0,
    }
}

fn count_of(document: &Document, name: &str) -> u64 {
    u64::try_from(number(document, name)).unwrap_or(0)
}
