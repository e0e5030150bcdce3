//! What every [`Store`], [`RetryQueue`], [`Ledger`] and [`ResolverStore`] must do.

use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::guard::Image;
use sync_worker_core::ledger::{
    Conflict, Contender, FLIP_FLOP, Ledger, Recorded, ResolverCheckpoint, ResolverStore, Settled, UNFIT, Wanted,
};
use sync_worker_core::name::{DatabaseName, PipelineName, TableName};
use sync_worker_core::position::{Checkpoint, Epoch};
use sync_worker_core::reader::KeyRange;
use sync_worker_core::record::{Offset, Partition};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::store::{CaptureId, ChunkState, Deferred, RetryQueue, Store, StoredCheckpoint, TargetId};
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};

/// A store under test. `reopened` must hand out the same data, as after a restart of the worker.
pub trait Fixture {
    type Store: Store + RetryQueue + Ledger + ResolverStore;

    fn store(&self) -> &Self::Store;

    fn reopened(self) -> impl Future<Output = Self>;
}

/// Runs the whole contract on a store that is empty.
pub async fn holds<F: Fixture>(fixture: F) -> F {
    let fixture = captures(fixture).await;
    let fixture = chunks(fixture).await;
    let fixture = retries(fixture).await;
    let fixture = fidelity(fixture).await;
    scopes(&fixture).await;
    let fixture = ledger(fixture).await;
    resolvers(fixture).await
}

async fn captures<F: Fixture>(fixture: F) -> F {
    let (crm, shop) = (capture("customers", "crm"), capture("customers", "shop"));
    let store = fixture.store();
    let installation = store.installation().await.unwrap();
    assert_eq!(store.installation().await.unwrap(), installation);
    assert_eq!(store.checkpoint(&crm).await.unwrap(), None);

    store.save_checkpoint(&crm, &checkpoint("0/10", 5)).await.unwrap();
    store.save_checkpoint(&shop, &checkpoint("000003:157", 6)).await.unwrap();
    store.save_checkpoint(&crm, &checkpoint("16/B374D848+3", u64::from(u32::MAX) * 7)).await.unwrap();

    let fixture = fixture.reopened().await;
    let store = fixture.store();
    assert_eq!(store.installation().await.unwrap(), installation);
    let expected = checkpoint("16/B374D848+3", u64::from(u32::MAX) * 7);
    assert_eq!(store.checkpoint(&crm).await.unwrap(), Some(expected));
    assert_eq!(store.checkpoint(&shop).await.unwrap(), Some(checkpoint("000003:157", 6)));
    assert_eq!(store.checkpoint(&capture("orders", "crm")).await.unwrap(), None);

    store.forget_capture(&crm).await.unwrap();
    assert_eq!(store.checkpoint(&crm).await.unwrap(), None);
    assert!(store.checkpoint(&shop).await.unwrap().is_some(), "another capture was forgotten, too");
    fixture
}

async fn chunks<F: Fixture>(fixture: F) -> F {
    let (crm, shop) = (capture("customers", "crm"), capture("customers", "shop"));
    let store = fixture.store();
    assert_eq!(store.chunks(&crm).await.unwrap(), vec![]);
    let planned = [chunk("customer", 1, false), chunk("customer", 0, false), chunk("address", 0, true)];
    store.save_chunks(&crm, &planned).await.unwrap();
    store.save_chunks(&crm, &[]).await.unwrap();
    let done = ChunkState { rows: 7, ..chunk("customer", 0, true) };
    store.save_chunks(&crm, std::slice::from_ref(&done)).await.unwrap();

    let fixture = fixture.reopened().await;
    let store = fixture.store();
    let expected = vec![chunk("address", 0, true), done, chunk("customer", 1, false)];
    assert_eq!(store.chunks(&crm).await.unwrap(), expected);
    assert_eq!(store.chunks(&shop).await.unwrap(), vec![]);
    store.save_chunks(&shop, &[chunk("customer", 0, true)]).await.unwrap();
    store.forget_chunks(&crm, &["customer".into(), "never".into()]).await.unwrap();

    let fixture = fixture.reopened().await;
    let store = fixture.store();
    assert_eq!(store.chunks(&crm).await.unwrap(), vec![chunk("address", 0, true)]);
    assert_eq!(store.chunks(&shop).await.unwrap().len(), 1, "those of another capture were forgotten, too");
    store.forget_capture(&crm).await.unwrap();
    assert_eq!(store.chunks(&crm).await.unwrap(), vec![]);
    fixture
}

async fn retries<F: Fixture>(fixture: F) -> F {
    let target = target("shop", 0);
    let queue = fixture.store();
    assert_eq!(queue.next_due(&target).await.unwrap(), None);
    queue.defer(vec![]).await.unwrap();
    let dead = Deferred { dead: true, due: 10, ..deferred(&target, 4, 40) };
    let (late, early) = (Deferred { due: 300, ..deferred(&target, 1, 30) }, deferred(&target, 2, 20));
    queue.defer(vec![late, dead, early]).await.unwrap();
    queue.defer(vec![deferred(&target, 3, 10)]).await.unwrap();

    let fixture = fixture.reopened().await;
    let queue = fixture.store();
    let offsets = |found: Vec<Deferred>| found.iter().map(|one| one.offset.0).collect::<Vec<_>>();
    assert_eq!(queue.next_due(&target).await.unwrap(), Some(10), "dead letters are never due");
    assert_eq!(offsets(queue.due(&target, 9, 100).await.unwrap()), [0u64; 0]);
    assert_eq!(offsets(queue.due(&target, 20, 100).await.unwrap()), [10, 20]);
    assert_eq!(offsets(queue.due(&target, i64::MAX, 2).await.unwrap()), [10, 20]);
    assert_eq!(offsets(queue.list(&target, false, usize::MAX).await.unwrap()), [10, 20, 30]);
    assert_eq!(offsets(queue.list(&target, false, 1).await.unwrap()), [10]);
    assert_eq!(offsets(queue.list(&target, true, usize::MAX).await.unwrap()), [40]);

    // A newer version takes the place of the one that waits, and its removal is not that of another version.
    let table = TableName::new("customer");
    queue.defer(vec![Deferred { attempts: 9, ..deferred(&target, 2, 50) }]).await.unwrap();
    assert_eq!(offsets(queue.list(&target, false, usize::MAX).await.unwrap()), [10, 30, 50]);
    let name = |number| (table.clone(), key(number));
    let version = |number, offset| (name(number), Offset(offset));
    assert_eq!(queue.remove(&target, &[version(2, 20)]).await.unwrap(), 0);
    let waiting = queue.get(&target, &[name(9), name(2)]).await.unwrap();
    let waiting: Vec<_> = waiting.iter().map(|one| (one.offset, one.attempts)).collect();
    assert_eq!(waiting, [(Offset(50), 9)]);
    assert_eq!(queue.remove(&target, &[version(2, 50)]).await.unwrap(), 1);
    assert_eq!(queue.remove(&target, &[version(2, 50)]).await.unwrap(), 0);
    assert_eq!(queue.remove(&target, &[]).await.unwrap(), 0);
    assert!(queue.get(&target, &[name(2)]).await.unwrap().is_empty());
    assert!(queue.get(&target, &[]).await.unwrap().is_empty());
    let several = queue.get(&target, &[name(4), name(1)]).await.unwrap();
    assert_eq!(offsets(several.clone()), [40, 30], "in the order that was asked");
    assert!(several[0].dead, "dead ones can be asked for by key");

    let fixture = fixture.reopened().await;
    let queue = fixture.store();
    assert_eq!(offsets(queue.list(&target, false, usize::MAX).await.unwrap()), [10, 30]);
    let versions = [(3, 10), (1, 30), (4, 40), (4, 41)].map(|(number, offset)| version(number, offset));
    assert_eq!(queue.remove(&target, &versions).await.unwrap(), 3);
    fixture
}

/// Every field comes back as it was, of every operation.
async fn fidelity<F: Fixture>(fixture: F) -> F {
    let target = target("shop", 3);
    let partial = row(&[Cell::Present(Value::Int(7)), Cell::Unchanged]);
    let full = row(&[Cell::Present(Value::Int(7)), Cell::Present(Value::Text("\0'ž"))]);
    let cases = [
        (Op::Create, None, Some(full.clone()), ErrorClass::Dependency),
        (Op::Read, None, Some(full.clone()), ErrorClass::Poison),
        (Op::Update, Some(full.clone()), Some(partial), ErrorClass::Dependency),
        (Op::Delete, Some(full), None, ErrorClass::Poison),
    ];
    let images = vec![Image::Absent, Image::Row([7; 16]), Image::Absent, Image::Row([0; 16])];
    let over = [None, Some(Vec::new()), Some(vec![Image::Absent]), Some(images)];
    for (number, ((op, before, after, class), over)) in (0i64..).zip(cases.into_iter().zip(over.clone())) {
        let change = Change { schema: schema(), op, before, after };
        let reason = "violates \"customer_email_key\"".to_owned();
        let version = Deferred { change, class, reason, over, attempts: 3, due: -1, ..deferred(&target, number, 8) };
        fixture.store().defer(vec![version]).await.unwrap();
    }
    let before = fixture.store().list(&target, false, usize::MAX).await.unwrap();
    let fixture = fixture.reopened().await;
    let after = fixture.store().list(&target, false, usize::MAX).await.unwrap();
    assert_eq!(after.len(), 4);
    for (one, other) in before.iter().zip(&after) {
        assert_eq!(one.target, other.target);
        assert_eq!(one.key, other.key);
        assert!(*one.change.schema == *schema() && one.change.schema == other.change.schema);
        assert_eq!(one.change.op, other.change.op);
        assert_eq!(one.change.before, other.change.before);
        assert_eq!(one.change.after, other.change.after);
        assert_eq!(one.over, other.over);
        assert_eq!((one.class, &one.reason, one.attempts), (other.class, &other.reason, other.attempts));
        assert_eq!((one.offset, one.due, one.dead), (other.offset, other.due, other.dead));
    }
    let ops: Vec<Op> = after.iter().map(|one| one.change.op).collect();
    assert_eq!(ops.len(), 4);
    for one in after {
        let number = (0..4).find(|number| one.key == key(*number)).unwrap();
        assert_eq!(one.over, over[usize::try_from(number).unwrap()], "what it may be written over");
        let version = ((one.change.table().clone(), one.key.clone()), one.offset);
        fixture.store().remove(&target, &[version]).await.unwrap();
    }
    fixture
}

/// One key at two tables, partitions, targets and pipelines is four keys.
async fn scopes<F: Fixture>(fixture: &F) {
    let queue = fixture.store();
    let elsewhere = TargetId { pipeline: PipelineName::new("orders"), ..target("shop", 0) };
    let targets = [target("shop", 0), target("shop", 1), target("crm", 0), elsewhere];
    for (offset, target) in (1u64..).zip(&targets) {
        queue.defer(vec![deferred(target, 1, offset)]).await.unwrap();
    }
    for (offset, target) in (1u64..).zip(&targets) {
        let found = queue.list(target, false, usize::MAX).await.unwrap();
        assert_eq!(found.iter().map(|one| one.offset.0).collect::<Vec<_>>(), [offset]);
        assert_eq!(found[0].target, *target);
    }
    for (offset, target) in (1u64..).zip(&targets) {
        assert!(queue.get(target, &[(TableName::new("address"), key(1))]).await.unwrap().is_empty());
        let version = ((TableName::new("customer"), key(1)), Offset(offset));
        assert_eq!(queue.remove(target, &[version]).await.unwrap(), 1);
    }
}

async fn ledger<F: Fixture>(fixture: F) -> F {
    let pipeline = PipelineName::new("customers");
    let ids = |found: &[Recorded]| found.iter().map(|one| one.id).collect::<Vec<_>>();
    let all = Wanted { limit: usize::MAX, ..Wanted::default() };
    let store = fixture.store();
    assert!(store.conflicts(&pipeline, &all).await.unwrap().is_empty());
    assert_eq!(store.record(vec![]).await.unwrap().len(), 0);
    let given = [
        conflict(1, 10),
        Conflict {
            open: false,
            loser: None,
            incumbent_won: None,
            at: Some(DatabaseName::new("shop")),
            ..conflict(1, 11)
        },
        Conflict {
            column: Some("\"name\"".to_owned()),
            incumbent_won: Some(false),
            stands: Some(image(1, "merged")),
            ..conflict(1, 10)
        },
        Conflict { winner: Contender { by: None, merged: true, commit_time: -1, row: None }, ..conflict(2, 12) },
        Conflict { table: TableName::new("address"), open: false, ..conflict(2, 12) },
        Conflict { kind: "drift".to_owned(), partition: Partition(3), open: false, ..conflict(2, 12) },
    ];
    assert_eq!(store.record(given[..2].to_vec()).await.unwrap().len(), 2);
    // What is there already stays as it is.
    let again = Conflict { strategy: "manual".to_owned(), incumbent_won: None, ..conflict(1, 10) };
    let new = store.record([&[again][..], &given[1..]].concat()).await.unwrap();
    let named = |conflicts: &[Conflict]| {
        conflicts
            .iter()
            .map(|one| (one.offset, one.table.clone(), one.column.clone(), one.kind.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(named(&new), named(&given[2..]));
    assert_eq!(store.record(given.to_vec()).await.unwrap().len(), 0);
    let elsewhere = Conflict { pipeline: PipelineName::new("orders"), ..conflict(1, 10) };
    assert_eq!(
        store.record(vec![elsewhere.clone(), elsewhere]).await.unwrap().len(),
        1,
        "twice in one call counts once"
    );

    let fixture = fixture.reopened().await;
    let store = fixture.store();
    let found = store.conflicts(&pipeline, &all).await.unwrap();
    assert_eq!(found.len(), given.len());
    assert!(found.windows(2).all(|pair| pair[0].id > pair[1].id), "the newest comes first");
    for (one, given) in found.iter().rev().zip(&given) {
        assert_eq!(one.decided, None);
        same(&one.conflict, given);
    }
    let newest = ids(&found);
    let listed = |wanted: Wanted| {
        let pipeline = &pipeline;
        async move { ids(&store.conflicts(pipeline, &wanted).await.unwrap()) }
    };
    assert_eq!(listed(Wanted { limit: 2, ..all.clone() }).await, newest[..2]);
    assert_eq!(listed(Wanted { limit: 2, before: Some(newest[1]), ..all.clone() }).await, newest[2..4]);
    assert_eq!(listed(Wanted { open_only: true, ..all.clone() }).await, [newest[2], newest[3], newest[5]]);
    let address = Some(TableName::new("address"));
    assert_eq!(listed(Wanted { table: address.clone(), ..all.clone() }).await, [newest[1]]);
    assert_eq!(listed(Wanted { table: address, open_only: true, ..all.clone() }).await, [0i64; 0]);
    same(&store.conflict(&pipeline, newest[0]).await.unwrap().unwrap().conflict, &given[5]);
    assert!(store.conflict(&pipeline, newest[0] + 100).await.unwrap().is_none());
    assert!(store.conflict(&PipelineName::new("orders"), newest[0]).await.unwrap().is_none(), "of another pipeline");

    // All open ones of the key, and no other's.
    let table = TableName::new("customer");
    let close = async |store: &F::Store, settled: Settled, by: &str, time| {
        store.close(&pipeline, &table, &settled, by, time).await.unwrap()
    };
    assert_eq!(close(store, Settled::Key(key(1)), "a person", 77).await, 2);
    assert_eq!(close(store, Settled::Key(key(1)), "another", 78).await, 0);
    let fixture = fixture.reopened().await;
    let store = fixture.store();
    let open = store.conflicts(&pipeline, &Wanted { open_only: true, ..all.clone() }).await.unwrap();
    assert_eq!(ids(&open), [newest[2]]);
    let closed = store.conflict(&pipeline, newest[5]).await.unwrap().unwrap();
    assert_eq!((closed.conflict.open, closed.decided), (false, Some(("a person".to_owned(), 77))));
    assert_eq!(store.conflict(&pipeline, newest[4]).await.unwrap().unwrap().decided, None, "it was not open");
    // Rows without a place, and keys that go back and forth, are settled by themselves.
    let kinds = [(UNFIT, 1, 20), (FLIP_FLOP, 2, 21), ("update_deleted", 1, 22)];
    let column = |kind| Some("\"name\"".to_owned()).filter(|_| kind == UNFIT);
    let kinds = kinds.map(|(kind, number, at)| Conflict {
        kind: kind.to_owned(),
        column: column(kind),
        ..conflict(number, at)
    });
    let shop = DatabaseName::new("shop");
    let refused = Conflict { kind: UNFIT.to_owned(), at: Some(shop.clone()), ..conflict(1, 20) };
    let by_both = [Conflict { at: Some(DatabaseName::new("crm")), ..refused.clone() }, refused];
    assert_eq!(store.record([&kinds[..], &by_both].concat()).await.unwrap().len(), 5);
    assert_eq!(close(store, Settled::FlipFlops, "a person", 79).await, 1);
    assert_eq!(close(store, Settled::Key(key(1)), "a person", 79).await, 1);
    assert_eq!(close(store, Settled::Unfit(key(2)), "a person", 79).await, 0);
    assert_eq!(close(store, Settled::Unfit(key(1)), "a person", 79).await, 1);
    for at in [DatabaseName::new("crm"), shop] {
        let of_one = Settled::Refused { keys: vec![key(2), key(1)], at };
        assert_eq!(close(store, of_one, "worker", 79).await, 1);
    }
    let open = store.conflicts(&pipeline, &Wanted { open_only: true, ..all.clone() }).await.unwrap();
    assert_eq!(ids(&open), [newest[2]]);
    // By itself, whatever else is open about its key.
    let alone = [conflict(5, 40), Conflict { kind: FLIP_FLOP.to_owned(), ..conflict(5, 41) }];
    assert_eq!(store.record(alone.to_vec()).await.unwrap().len(), 2);
    let of_key = store.conflicts(&pipeline, &Wanted { limit: 2, ..all.clone() }).await.unwrap();
    for closed in [1, 0] {
        assert_eq!(close(store, Settled::Entry(of_key[1].id), "a person", 79).await, closed);
    }
    assert_eq!(close(store, Settled::Key(key(5)), "a person", 79).await, 1, "the other one");
    // Of a merged row, one column by itself; the other one stands over what came of that.
    let of_column = |column: &str| Conflict {
        column: Some(column.to_owned()),
        stands: Some(image(3, "merged")),
        ..conflict(3, 23)
    };
    let decided = Conflict { open: false, ..of_column("c") };
    let older = |column| Conflict { offset: Offset(21), stands: Some(image(3, "older")), ..of_column(column) };
    let merged = [older("a"), older("b"), of_column("a"), of_column("b"), decided, conflict(3, 22)];
    assert_eq!(store.record(merged.to_vec()).await.unwrap().len(), 6);
    let settled = Settled::Columns {
        key: key(3),
        columns: vec!["a".to_owned()],
        before: image(3, "merged"),
        stands: image(3, "decided"),
    };
    assert_eq!(close(store, settled, "a person", 80).await, 3, "with those about the whole row and about an older one");
    let open = store.conflicts(&pipeline, &Wanted { open_only: true, ..all.clone() }).await.unwrap();
    let left = open.iter().map(|one| (one.conflict.column.as_deref(), one.conflict.stands.clone()));
    let (stands, older) = (|| Some(image(3, "decided")), Some(image(3, "older")));
    assert_eq!(
        left.take(2).collect::<Vec<_>>(),
        [(Some("b"), stands()), (Some("b"), older)],
        "of another row it stays"
    );
    let found = store.conflicts(&pipeline, &all).await.unwrap();
    let decided = found.iter().find(|one| one.conflict.column.as_deref() == Some("c")).unwrap();
    assert_eq!((&decided.conflict.stands, &decided.decided), (&stands(), &None));
    assert_eq!(close(store, Settled::Key(key(3)), "a person", 81).await, 2);
    let elsewhere = store.conflicts(&PipelineName::new("orders"), &all).await.unwrap();
    assert!(elsewhere[0].conflict.open, "a conflict of another pipeline was closed, too");
    // A closed one is not recorded again either.
    assert_eq!(store.record(given.to_vec()).await.unwrap().len(), 0);
    fixture
}

fn same(one: &Conflict, other: &Conflict) {
    let place = |of: &Conflict| (of.pipeline.clone(), of.partition, of.offset, of.table.clone(), of.key.clone());
    assert_eq!(place(one), place(other));
    let how = |of: &Conflict| (of.column.clone(), of.kind.clone(), of.strategy.clone(), of.at.clone());
    assert_eq!(how(one), how(other));
    assert_eq!((&one.winner, &one.loser, one.incumbent_won), (&other.winner, &other.loser, other.incumbent_won));
    assert_eq!((one.time, one.open, &one.stands), (other.time, other.open, &other.stands));
    assert!(*one.schema == *other.schema);
}

async fn resolvers<F: Fixture>(fixture: F) -> F {
    let (shop, crm) = (target("shop", 0), target("crm", 0));
    let store = fixture.store();
    assert_eq!(store.resolver_checkpoints(&shop).await.unwrap(), vec![]);
    let of = |offset, state: &'static str| ResolverCheckpoint {
        offset: Offset(offset),
        rests_on: (offset > 5).then(|| Offset(offset - 5)),
        log: "01890a5d".to_owned(),
        state: Bytes::from_static(state.as_bytes()),
    };
    store.save_resolver_checkpoint(&shop, &of(5, ""), &[]).await.unwrap();
    store.save_resolver_checkpoint(&crm, &of(6, "crm"), &[]).await.unwrap();
    store.save_resolver_checkpoint(&shop, &of(30, "c"), &[Offset(5), Offset(99)]).await.unwrap();
    store.save_resolver_checkpoint(&shop, &of(20, "b"), &[Offset(5), Offset(30)]).await.unwrap();

    let fixture = fixture.reopened().await;
    let store = fixture.store();
    assert_eq!(store.resolver_checkpoints(&shop).await.unwrap(), [of(5, ""), of(20, "b"), of(30, "c")]);
    store.save_resolver_checkpoint(&shop, &of(30, "anew"), &[Offset(20)]).await.unwrap();
    assert_eq!(store.resolver_checkpoints(&shop).await.unwrap(), [of(20, "b"), of(30, "anew")]);
    store.save_resolver_checkpoint(&shop, &of(40, "d"), &[]).await.unwrap();

    let fixture = fixture.reopened().await;
    let store = fixture.store();
    assert_eq!(store.resolver_checkpoints(&shop).await.unwrap(), [of(40, "d")]);
    assert_eq!(store.resolver_checkpoints(&crm).await.unwrap(), [of(6, "crm")], "another target's is gone, too");
    fixture
}

fn capture(pipeline: &str, database: &str) -> CaptureId {
    CaptureId { pipeline: PipelineName::new(pipeline), database: DatabaseName::new(database) }
}

fn target(database: &str, partition: u32) -> TargetId {
    TargetId {
        pipeline: PipelineName::new("customers"),
        database: DatabaseName::new(database),
        partition: Partition(partition),
    }
}

fn checkpoint(position: &str, next: u64) -> StoredCheckpoint {
    let resume = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:8,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:1".to_owned();
    let epoch = Epoch("7301234567890123456/1".to_owned());
    let checkpoint = Checkpoint { epoch, position: position.parse().unwrap(), resume };
    StoredCheckpoint { checkpoint, log: "01890a5d".to_owned(), next: Offset(next) }
}

fn chunk(table: &str, number: u64, done: bool) -> ChunkState {
    let range = KeyRange { after: (number > 0).then(|| key(number.cast_signed())), up_to: None };
    ChunkState { table: TableName::new(table), number, range, done, rows: 0 }
}

/// A version of a key that is due at its offset.
fn deferred(target: &TargetId, number: i64, offset: u64) -> Deferred {
    let after = Some(row(&[Cell::Present(Value::Int(number)), Cell::Present(Value::Text("name"))]));
    Deferred {
        target: target.clone(),
        key: key(number),
        change: Change { schema: schema(), op: Op::Update, before: None, after },
        over: None,
        offset: Offset(offset),
        class: ErrorClass::Dependency,
        reason: "refused".to_owned(),
        attempts: 1,
        due: offset.cast_signed(),
        dead: false,
    }
}

/// An open conflict about a key.
fn conflict(number: i64, offset: u64) -> Conflict {
    let image = |text| image(number, text);
    let contender = |by: &str, commit_time, text| Contender {
        by: Some(DatabaseName::new(by)),
        merged: false,
        commit_time,
        row: Some(image(text)),
    };
    Conflict {
        pipeline: PipelineName::new("customers"),
        partition: Partition(0),
        offset: Offset(offset),
        table: TableName::new("customer"),
        key: key(number),
        column: None,
        kind: "update_origin_differs".to_owned(),
        strategy: "timestamp".to_owned(),
        winner: contender("crm", 200, "won"),
        loser: Some(contender("shop", 100, "lost")),
        incumbent_won: Some(true),
        stands: None,
        at: None,
        schema: schema(),
        time: 300,
        open: true,
    }
}

fn image(number: i64, name: &str) -> Row {
    row(&[Cell::Present(Value::Int(number)), Cell::Present(Value::Text(name))])
}

fn schema() -> Arc<Schema> {
    let column = |name: &str, kind, type_name: &str, nullable| Column {
        name: name.to_owned(),
        kind,
        type_name: type_name.to_owned(),
        nullable,
        generated: false,
    };
    let text = ColumnType::Text { limit: TextLimit::Characters(20), padded: true };
    let columns = vec![
        column("id", ColumnType::Int { bits: 64, unsigned: true }, "bigint unsigned", false),
        column("\"name\"", text, "char(20)", true),
    ];
    Arc::new(Schema::new(TableName::new("customer"), Engine::Mysql, columns, vec![0]))
}

fn key(number: i64) -> Key {
    Key::from_bytes(row(&[Cell::Present(Value::Int(number))]).as_bytes().clone())
}

fn row(cells: &[Cell<'_>]) -> Row {
    let mut builder = RowBuilder::default();
    cells.iter().for_each(|cell| builder.push(*cell));
    builder.finish()
}
