//! The resolver against its specification: both get the same records, taken from the model's own schedules, and must send
//! the same versions over the same images to the same members, hold the same state and put the same on record.

use anyhow::{Context, ensure};
use bytes::BytesMut;
use serde_json::Value as Json;
use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use sync_worker_core::guard::{Expected, Image};
use sync_worker_core::position::{Lsn, Position, PostgresPosition};
use sync_worker_core::record::{Body, Offset, Record};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::value::{Cell, Value};
use sync_worker_engine::resolve::checkpoint::take_entry;
use sync_worker_engine::resolve::key::RowKey;
use sync_worker_engine::resolve::rules::{Columns, Group, OnDelete, Rules, Strategy};
use sync_worker_engine::resolve::seed::Waiting;
use sync_worker_engine::resolve::version::{Event, Expectation, Member, Origin, Version, VersionId};
use sync_worker_engine::resolve::{Branch, Decision, Echo, Limits, Outcome, Parked, Reason, Resolver};
use sync_worker_engine::sequence::{Sequence, Verdict};

/// Schedules, unless SYNC_WORKER_SCHEDULES says how many.
const SCHEDULES: u64 = 1_000;

/// Each branch of the resolver is taken at least once in so many schedules.
const SCHEDULES_PER_HIT: u64 = 100;

/// Schedules within which each mutant must be told from the resolver.
const SCHEDULES_PER_MUTANT: u64 = 400;

/// Memory for one key under way and not for two, in bytes.
const ONE_KEY: usize = 800;

/// The columns of the model's rows: writer, a, b, counter.
const DELTA: [bool; 4] = [false, false, false, true];

#[test]
fn the_resolver_and_the_model_agree_on_every_record() -> anyhow::Result<()> {
    let first = sync_worker_tests::seed::seed()? % 1_000_000;
    let count = match std::env::var("SYNC_WORKER_SCHEDULES") {
        Ok(count) => count.parse().context("SYNC_WORKER_SCHEDULES is a number")?,
        Err(_) => SCHEDULES,
    };
    let folder = tempfile::tempdir()?;
    let (mut hits, mut spilled) = (HashMap::new(), 0);
    // Two processes of the model: it takes longer than what is tested.
    let halves = [(first, count / 2), (first + count / 2, count - count / 2)];
    let mut traces: Vec<_> =
        halves.iter().map(|(first, count)| Trace::start(*first, *count, &[])).collect::<Result<_, _>>()?;
    let mut schedules = 0;
    while let Some(trace) = traces.first_mut() {
        let Some(schedule) = trace.next()? else {
            traces.remove(0).end()?;
            continue;
        };
        // Every other resolver has room for one key at the most, the rest goes to disk.
        let spill = (schedules % 2 == 0).then(|| (folder.path(), schedules as usize / 2 % 2 * ONE_KEY));
        let replayed = replay(&schedule, spill, &mut hits);
        spilled += *replayed.as_ref().unwrap_or(&0);
        if let Err(difference) = replayed {
            let seed = schedule["seed"].as_u64().context("a schedule has a seed")?;
            let mut again = Trace::start(seed, 1, &["--full"])?;
            let full = again.next()?.context("the schedule once more")?;
            let full = replay(&full, spill, &mut HashMap::new()).err().unwrap_or(difference);
            anyhow::bail!("schedule {seed}: {full}");
        }
        schedules += 1;
    }
    ensure!(schedules == count, "{schedules} schedules came");
    ensure!(spilled > count, "{spilled} keys were put aside");
    // The rarest is taken some 17 times in a thousand schedules: of so few only that it is taken can be asked of every seed.
    let often = if count >= 10 * SCHEDULES { count / SCHEDULES_PER_HIT } else { 1 };
    for branch in Branch::ALL {
        let hits = hits.get(&branch).copied().unwrap_or(0);
        // The model's counters have no range to leave, and it pauses nothing; the resolver's own tests do.
        let wanted = if matches!(branch, Branch::Overflow | Branch::Unseen) { 0 } else { often };
        println!("{branch:?} was taken {hits} times");
        ensure!(hits >= wanted, "{branch:?} was taken {hits} times");
    }
    Ok(())
}

/// A resolver that were broken like a mutant of the model would not agree with the model, nor does this one with the mutant.
#[test]
fn every_mutant_of_the_models_resolver_is_told_from_the_resolver() -> anyhow::Result<()> {
    let mutants = [
        "no-dedup",
        "echo-ignored",
        "echo-early",
        "loser-kept",
        "parked-forgotten",
        "drift-ignored",
        "aba",
        "snapshot-wins",
        "stale-decision",
        "delta-equal",
        "column-silent",
        "group-split",
        "seed-eager",
        "seed-dropped",
        "seed-silent",
        "seed-again",
        "seed-beats",
        "seed-event-silent",
        "seed-columns",
        "seed-absent",
        "seed-kept",
    ];
    for mutant in mutants {
        let mut trace = Trace::start(0, SCHEDULES_PER_MUTANT, &["--mutant", mutant])?;
        loop {
            let schedule = trace.next()?.with_context(|| format!("{mutant} went unnoticed"))?;
            if replay(&schedule, None, &mut HashMap::new()).is_err() {
                break;
            }
        }
        trace.stop()?;
    }
    Ok(())
}

/// A running `trace.py`.
struct Trace {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Trace {
    fn start(first: u64, count: u64, options: &[&str]) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/trace.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(first.to_string()).arg(count.to_string()).args(options);
        let mut child = command.stdout(Stdio::piped()).spawn().context("python3 runs the model")?;
        let lines = BufReader::new(child.stdout.take().context("the model's output")?);
        Ok(Self { child, lines })
    }

    fn next(&mut self) -> anyhow::Result<Option<Json>> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<()> {
        ensure!(self.child.wait()?.success(), "the model failed");
        Ok(())
    }
}

/// Gives a schedule's records to the resolver and compares after each. `spill`: a folder, and the memory that the resolver has for
/// keys under way. Returns how many keys were on disk, summed up over the records.
fn replay(schedule: &Json, spill: Option<(&Path, usize)>, hits: &mut HashMap<Branch, u64>) -> anyhow::Result<u64> {
    let members = schedule["members"].as_array().context("members")?.len();
    let rules = HashMap::from([("t".into(), Arc::new(rules_of(&schedule["rules"], members)?))]);
    let limits = Limits { images: usize::MAX, disputed: usize::MAX };
    let mut resolver = Resolver::new(members, rules, limits);
    if let Some((folder, limit)) = spill {
        resolver.spill_to(folder.to_owned(), limit);
    }
    resolver.merge_seeds(schedule["rules"]["merged_seeds"].as_bool().context("merged_seeds")?);
    let mut spilled = 0;
    let mut sequence = Sequence::default();
    let mut names = Names::default();
    let steps = schedule["steps"].as_array().context("steps")?;
    for (offset, step) in steps.iter().enumerate() {
        let number = offset as u64;
        let at = Offset(number);
        let (origin, position, kind) = (step[0].as_i64(), step[1].as_u64(), step[2].as_str());
        let (origin, position) = (origin.context("an origin")?, position.context("a position")?);
        let mut out = Outcome::default();
        if sequence.check(&record(origin, position))? == Verdict::Take {
            let payload = &step[3];
            match kind.context("a kind")? {
                "marker" => resolver.echo(at, &echo(member(origin)?, payload)?, &mut out),
                "event" => {
                    let event = names.event(at, Origin::Member(member(origin)?), payload, false)?;
                    resolver.event(at, &event, &mut out);
                }
                "read" => {
                    let event = names.event(at, Origin::Member(member(origin)?), payload, true)?;
                    resolver.read(at, &event.version, &mut out);
                }
                "seeded" => {
                    resolver.seeded(&"t".into());
                    for waiting in resolver.waiting() {
                        resolver.end_waiting(at, &waiting, &mut out);
                    }
                }
                _ => {
                    let event = names.event(at, Origin::Person, payload, false)?;
                    let decision = Decision { version: event.version, seen: event.before_image };
                    resolver.decision(at, &decision, &mut out);
                }
            }
        }
        spilled += resolver.entries().spilled() as u64;
        let state = number.is_multiple_of(8) || offset + 1 == steps.len();
        let mut under_way = BytesMut::new();
        if state {
            resolver.encode_entries(&mut under_way)?;
        }
        ensure!(resolver.failure().is_none(), "what was put aside could not be read back");
        let told = names.told(&resolver, &out, state.then_some(&under_way[..]))?;
        match step[4].as_str() {
            Some(expected) => ensure!(told == expected, "record {offset}\n-- model\n{expected}\n-- resolver\n{told}"),
            None => ensure!(
                step[4].as_u64() == Some(u64::from(crc32fast::hash(told.as_bytes()))),
                "record {offset} differs"
            ),
        }
    }
    for branch in Branch::ALL {
        *hits.entry(branch).or_default() += resolver.hits(branch);
    }
    Ok(spilled)
}

fn member(place: i64) -> anyhow::Result<Member> {
    Ok(Member(u8::try_from(place)?))
}

fn strategy_of(name: &Json) -> anyhow::Result<Strategy> {
    let found = Strategy::ALL.into_iter().find(|strategy| Some(strategy.as_str()) == name.as_str());
    found.with_context(|| format!("strategy {name}"))
}

/// `[columns, strategy]`.
fn group_of(group: &Json) -> anyhow::Result<Group> {
    let columns = group[0].as_array().context("columns")?.iter();
    let columns = columns.map(|column| Ok(usize::try_from(column.as_u64().context("a column")?)?));
    Ok(Group { columns: columns.collect::<anyhow::Result<_>>()?, strategy: strategy_of(&group[1])? })
}

fn rules_of(rules: &Json, members: usize) -> anyhow::Result<Rules> {
    let strategy = strategy_of(&rules["strategy"])?;
    let on_delete = match rules["on_delete"].as_str() {
        Some("by_strategy") => OnDelete::ByStrategy,
        Some("delete_wins") => OnDelete::DeleteWins,
        Some("update_wins") => OnDelete::UpdateWins,
        other => anyhow::bail!("on_delete {other:?}"),
    };
    let groups = rules["groups"].as_array().context("groups")?.iter().map(group_of).collect::<Result<_, _>>()?;
    let merge = rules["merge"].as_bool().context("merge")?.then(|| Columns { delta: DELTA.to_vec(), groups });
    Ok(Rules { strategy, on_delete, merge, ranks: (0..u8::try_from(members)?).map(Member).collect() })
}

/// A record for the check of positions, which does not look at the body.
fn record(origin: i64, position: u64) -> Record {
    let at = |position| Position::Postgres(PostgresPosition { commit: Lsn(position), ordinal: 0 });
    Record {
        origin: origin.to_string().as_str().into(),
        position: at(position),
        previous: position.checked_sub(1).map(at),
        transaction: None,
        last: true,
        commit_time: 0,
        body: Body::Commit,
    }
}

fn row_key(key: u64) -> anyhow::Result<RowKey> {
    let mut builder = RowBuilder::default();
    builder.push(Cell::Present(Value::Int(i64::try_from(key)?)));
    Ok(RowKey::new("t".into(), Key::from_bytes(builder.finish().as_bytes().clone())))
}

fn number_of(key: &RowKey) -> String {
    match key.key.cells().next() {
        Some(Ok(Cell::Present(Value::Int(number)))) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn echo(member: Member, payload: &Json) -> anyhow::Result<Echo> {
    let key = |item: &Json| row_key(item[0].as_u64().context("a key")?);
    let list = |index: usize| payload[index].as_array().context("a list of keys");
    let parked = list(1)?.iter().map(|item| {
        let reason = if item[2] == "differs" { Reason::Differs } else { Reason::Refused };
        Ok(Parked { key: key(item)?, sent: Offset(item[1].as_u64().context("an offset")?), reason, seen: None })
    });
    let unparked = list(2)?.iter().map(|item| Ok((key(item)?, item[1].as_bool().context("written")?)));
    Ok(Echo {
        member,
        offset: Offset(payload[0].as_u64().context("an offset")?),
        parked: parked.collect::<anyhow::Result<_>>()?,
        unparked: unparked.collect::<anyhow::Result<_>>()?,
    })
}

/// The model's words for images.
#[derive(Default)]
struct Names {
    images: HashMap<Image, String>,
}

impl Names {
    fn event(&mut self, at: Offset, origin: Origin, payload: &Json, read: bool) -> anyhow::Result<Event> {
        let (row, before) = (row_of(&payload[1])?, row_of(&payload[2])?);
        let version = Version {
            id: VersionId::Record(at),
            key: row_key(payload[0].as_u64().context("a key")?)?,
            origin,
            by: if let Origin::Member(member) = origin { Some(member) } else { None },
            commit_time: payload[3].as_i64().context("a commit time")?,
            image: self.note(row.as_ref())?,
            row,
            read,
        };
        let before_image = self.note(before.as_ref())?;
        Ok(Event { version: Arc::new(version), before, before_image })
    }

    fn note(&mut self, row: Option<&Row>) -> anyhow::Result<Image> {
        let image = Image::of(row);
        if let Some(row) = row {
            self.images.entry(image).or_insert(shown(row)?);
        }
        Ok(image)
    }

    fn over(&self, over: &[Expected]) -> anyhow::Result<String> {
        let shown = over.iter().map(|expected| match expected {
            Expected::Image(Image::Absent) => Ok("-".to_owned()),
            Expected::Image(image) => self.images.get(image).cloned().context("an image that nobody had"),
            Expected::Seen(sent) => Ok(format!("?{sent}")),
        });
        Ok(shown.collect::<anyhow::Result<BTreeSet<_>>>()?.into_iter().collect::<Vec<_>>().join(","))
    }

    /// `under_way`: the entries as they stand in a checkpoint, where the state is to be told, too.
    fn told(&mut self, resolver: &Resolver, out: &Outcome, under_way: Option<&[u8]>) -> anyhow::Result<String> {
        let mut lines = Vec::new();
        for send in &out.sends {
            self.note(send.version.row.as_ref())?;
        }
        for send in &out.sends {
            let key = number_of(&send.version.key);
            for (member, expectation) in &send.to {
                let over = match expectation {
                    Expectation::Keep => "KEEP".to_owned(),
                    Expectation::Over(over) => self.over(over)?,
                };
                lines.push(format!("send {key} {} {} {over}", id(send.version.id), member.0));
            }
        }
        if let Some(mut bytes) = under_way {
            while !bytes.is_empty() {
                let entry = take_entry(&mut bytes)?;
                let key = number_of(&entry.version.key);
                lines.push(format!("held {key} {}", id(entry.version.id)));
                for way in &entry.under_way {
                    let word = if way.unsure { "unsure" } else { "pending" };
                    lines.push(format!(
                        "{word} {key} {} {} {}",
                        way.member.0,
                        way.sent,
                        self.over(way.over.as_slice())?
                    ));
                }
            }
            for (member, key, sent) in resolver.parked() {
                lines.push(format!("parked {} {} {sent}", member.0, number_of(key)));
            }
            for Waiting { key, member, sent, .. } in resolver.waiting() {
                lines.push(format!("waiting {} {} {sent}", member.0, number_of(&key)));
            }
        }
        for conflict in &out.conflicts {
            let key = number_of(&conflict.winner.key);
            let loser = conflict.loser.as_ref().map_or_else(|| "-".to_owned(), |loser| id(loser.id));
            let column = conflict.column.map_or_else(|| "-".to_owned(), |column| column.to_string());
            lines.push(format!("ledger {key} {} {loser} {} {column}", id(conflict.winner.id), conflict.kind.as_str()));
        }
        lines.sort();
        Ok(lines.join("\n"))
    }
}

fn id(version: VersionId) -> String {
    match version {
        VersionId::Record(offset) => format!("r{offset}"),
        VersionId::Merged(offset) => format!("m{offset}"),
    }
}

/// A row of the model: writer, a, b, counter.
fn row_of(value: &Json) -> anyhow::Result<Option<Row>> {
    if value.is_null() {
        return Ok(None);
    }
    let mut builder = RowBuilder::default();
    for column in 0..3 {
        builder.push(Cell::Present(Value::Text(value[column].as_str().context("a text")?)));
    }
    builder.push(Cell::Present(Value::Int(value[3].as_i64().context("a counter")?)));
    Ok(Some(builder.finish()))
}

fn shown(row: &Row) -> anyhow::Result<String> {
    let cells = row.cells().map(|cell| match cell? {
        Cell::Present(Value::Text(text)) => Ok(text.to_owned()),
        Cell::Present(Value::Int(number)) => Ok(number.to_string()),
        other => anyhow::bail!("{other:?} in a row of the model"),
    });
    Ok(cells.collect::<anyhow::Result<Vec<_>>>()?.join("/"))
}
