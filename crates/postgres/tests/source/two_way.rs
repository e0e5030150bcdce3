//! Sink and source of one member: what the guard lets through, and how it comes back.

use crate::support::{Fixture, text};
use anyhow::{Result, anyhow};
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::database::Database;
use sync_worker_core::echo::Echo;
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::logical::key_only;
use sync_worker_core::position::Position;
use sync_worker_core::record::Offset;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::sink::{Applied, Marker, Sink, Write, WriteBatch};
use sync_worker_core::source::{Source, TransactionPart};
use sync_worker_core::value::{Cell, Value};
use sync_worker_testkit::writer::Lot;

const TABLE: &str =
    "CREATE TABLE t (id bigint PRIMARY KEY, v text, n numeric(9,2)); ALTER TABLE t REPLICA IDENTITY FULL";

struct Member {
    fixture: Fixture,
    source: Box<dyn Source>,
    sink: Box<dyn Sink>,
    schema: Arc<Schema>,
    marker: Marker,
}

impl Member {
    async fn new(sql: &str) -> Result<Self> {
        let mut fixture = Fixture::new(sql, &["t"]).await?;
        fixture.scope.two_way = true;
        let plain = |error: sync_worker_core::error::Error| anyhow!("{error:?}");
        let (source, _) = fixture.postgres.source(&fixture.scope, None).await.map_err(plain)?;
        let mut sink = fixture.postgres.sink(&fixture.scope).await.map_err(plain)?;
        let marker = sink.take_over("log").await.map_err(plain)?.marker;
        let schema =
            fixture.postgres.reader(&fixture.scope).await.map_err(plain)?.schema(&"t".into()).await.map_err(plain)?;
        Ok(Self { fixture, source, sink, schema, marker })
    }

    fn row(&self, id: i64, v: &str, n: &str) -> Row {
        let mut builder = RowBuilder::default();
        [Value::Int(id), Value::Text(v), Value::Decimal(n)]
            .iter()
            .for_each(|value| builder.push(Cell::Present(*value)));
        builder.finish()
    }

    fn image(&self, id: i64, v: &str, n: &str) -> Image {
        Image::of(Some(&self.row(id, v, n)))
    }

    /// A version of a key over images; None deletes it.
    fn write(&self, id: i64, row: Option<Row>, over: &[Image], offset: u64) -> Write {
        let schema = self.schema.clone();
        let key = schema.key_of(&self.row(id, "", "0")).unwrap();
        let change = match row {
            Some(row) => Change { schema, op: Op::Create, before: None, after: Some(row) },
            None => Change { op: Op::Delete, before: Some(key_only(&schema, &key).unwrap()), after: None, schema },
        };
        Write { change, offset: Offset(offset), parked: false, over: Some(over.to_vec()) }
    }

    async fn apply(&mut self, writes: Vec<Write>, offset: u64, retry: bool) -> Result<Applied> {
        let marker = Marker { offset: Some(Offset(offset)), writes: self.marker.writes + 1, ..self.marker.clone() };
        let batch = WriteBatch { expected: self.marker.clone(), marker, writes, unpark: Vec::new(), retry };
        let applied = self.sink.apply(&batch, &Lot::default()).await.map_err(|error| anyhow!("{error:?}"))?;
        self.marker = batch.marker;
        Ok(applied)
    }

    /// What the stream shows up to now.
    async fn parts(&mut self) -> Result<Vec<TransactionPart>> {
        let here: Position = self.fixture.here().await?;
        let mut parts = Vec::new();
        loop {
            let batch = self.source.next().await.map_err(|error| anyhow!("{error:?}"))?;
            parts.extend(batch.parts);
            if batch.reached >= here {
                return Ok(parts);
            }
        }
    }

    async fn rows(&self) -> Result<String> {
        self.fixture.database.value("SELECT coalesce(string_agg(id || v || n, ' ' ORDER BY id), '') FROM t").await
    }
}

/// Which keys, in short.
fn shown(echo: &Echo) -> String {
    let key = |key: &sync_worker_core::row::Key| match key.cells().next() {
        Some(Ok(Cell::Present(Value::Int(id)))) => id.to_string(),
        other => panic!("{other:?}"),
    };
    let parked =
        echo.parked.iter().map(|one| format!("{}@{} differs {}", key(&one.key), one.offset, one.seen.is_some()));
    let unparked = echo.unparked.iter().map(|one| format!("{} written {}", key(&one.key), one.written));
    format!(
        "{:?} [{}] [{}]",
        echo.offset.map(|offset| offset.0),
        parked.collect::<Vec<_>>().join(", "),
        unparked.collect::<Vec<_>>().join(", ")
    )
}

#[tokio::test]
async fn only_expected_rows_are_written_over_and_what_is_written_is_an_echo() -> Result<()> {
    let mut member = Member::new(TABLE).await?;
    member.fixture.execute("INSERT INTO t VALUES (1, 'a', 1), (2, 'fresh', 2), (3, 'c', 3.00), (4, 'd', 4)").await?;
    let told: Vec<String> = member.parts().await?.iter().filter_map(|part| part.echo.as_ref()).map(shown).collect();
    assert_eq!(told, ["None [] []"], "the take-over comes back, and the application's rows are no echo");

    let writes = vec![
        member.write(1, Some(member.row(1, "b", "1")), &[Image::Absent, member.image(1, "a", "1")], 5),
        member.write(2, Some(member.row(2, "b", "2")), &[member.image(2, "a", "2")], 6),
        // As wanted already, whatever was expected, and however its number is spelled.
        member.write(3, Some(member.row(3, "c", "3")), &[Image::Absent], 7),
        member.write(4, None, &[member.image(4, "d", "4.0")], 8),
        member.write(5, Some(member.row(5, "e", "5")), &[Image::Absent], 9),
    ];
    let applied = member.apply(writes, 9, false).await?;
    assert_eq!((applied.rows, applied.refused.len()), (3, 0));
    assert_eq!(applied.differing, [(1, Seen::of(Some(member.row(2, "fresh", "2.00"))))]);
    assert_eq!(member.rows().await?, "1b1.00 2fresh2.00 3c3.00 5e5.00");
    let parts = member.parts().await?;
    let [part] = &parts[..] else { panic!("{parts:?}") };
    let echo = part.echo.as_ref().unwrap();
    assert_eq!(shown(echo), "Some(9) [2@6 differs true] []");
    assert_eq!(echo.parked[0].seen.as_ref(), Some(&applied.differing[0].1), "it says what was there");
    assert_eq!(
        part.changes.iter().map(|change| change.op.code()).collect::<String>().len(),
        3,
        "its rows are told apart"
    );

    // Over what was seen there; the parked row goes with it.
    let newer =
        Write { parked: true, ..member.write(2, Some(member.row(2, "g", "2")), &[member.image(2, "fresh", "2")], 12) };
    assert!(member.apply(vec![newer], 12, false).await?.differing.is_empty());
    let parts = member.parts().await?;
    assert_eq!(shown(parts[0].echo.as_ref().unwrap()), "Some(12) [] [2 written false]");
    assert_eq!(member.rows().await?, "1b1.00 2g2.00 3c3.00 5e5.00");
    Ok(())
}

#[tokio::test]
async fn a_retry_is_guarded_and_tells_that_it_has_written() -> Result<()> {
    let mut member = Member::new(&format!("{TABLE}; ALTER TABLE t ADD CHECK (v <> 'bad')")).await?;
    let refused = member.write(1, Some(member.row(1, "bad", "1")), &[Image::Absent], 3);
    let other = member.write(2, Some(member.row(2, "good", "1")), &[Image::Absent], 4);
    let applied = member.apply(vec![refused.clone(), other], 4, false).await?;
    assert_eq!(applied.refused.iter().map(|one| one.write).collect::<Vec<_>>(), [0]);
    assert_eq!(member.rows().await?, "2good1.00");
    let parts = member.parts().await?;
    assert_eq!(shown(parts.last().and_then(|part| part.echo.as_ref()).unwrap()), "Some(4) [1@3 differs false] []");

    // An application has written meanwhile: the retry is refused again, not written over it.
    member.fixture.execute("INSERT INTO t VALUES (1, 'fresh', 7)").await?;
    let again = Write { parked: true, ..refused };
    let applied = member.apply(vec![again.clone()], 4, true).await?;
    assert_eq!((applied.refused.len(), applied.differing.len()), (1, 0));
    assert_eq!(member.rows().await?, "1fresh7.00 2good1.00");
    member.fixture.execute("DELETE FROM t WHERE id = 1; ALTER TABLE t DROP CONSTRAINT t_v_check").await?;
    member.parts().await?;
    assert!(member.apply(vec![again], 4, true).await?.refused.is_empty());
    assert_eq!(member.rows().await?, "1bad1.00 2good1.00");
    let parts = member.parts().await?;
    assert_eq!(shown(parts[0].echo.as_ref().unwrap()), "Some(4) [] [1 written true]");
    assert!(member.sink.take_over("log").await.map_err(|error| anyhow!("{error:?}"))?.parked.is_empty());
    Ok(())
}

#[tokio::test]
async fn another_pipelines_transaction_is_a_change_like_any_other() -> Result<()> {
    let mut member = Member::new(TABLE).await?;
    member.parts().await?;
    member
        .fixture
        .execute(
            "BEGIN; INSERT INTO sync_worker.progress VALUES ('test', 'other', 'crm', 0, 5, 'log', 0, 1, 1); \
             INSERT INTO t VALUES (1, 'theirs', 1); COMMIT",
        )
        .await?;
    let parts = member.parts().await?;
    assert!(parts.iter().all(|part| part.echo.is_none()));
    let changes: Vec<String> = parts.iter().flat_map(|part| &part.changes).map(text).collect();
    assert_eq!(changes.len(), 1, "{changes:?}");
    Ok(())
}

#[tokio::test]
async fn without_full_images_it_takes_no_part() -> Result<()> {
    let mut fixture = Fixture::new("CREATE TABLE t (id bigint PRIMARY KEY, v text)", &["t"]).await?;
    fixture.scope.two_way = true;
    let error = fixture.open(None).await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("REPLICA IDENTITY FULL"), "{error}");
    let found = fixture.postgres.inspect(&fixture.scope, sync_worker_core::database::Role::Source).await;
    let found = found.map_err(|error| anyhow!("{error:?}"))?.findings;
    assert!(found.iter().any(|finding| finding.cure.contains("REPLICA IDENTITY FULL")), "{found:?}");
    Ok(())
}
