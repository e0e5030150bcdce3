//! `aggregate`: pipelines over a collection, and the opening of change streams.

use std::sync::Arc;

use bson::{RawArrayBuf, RawDocument};

use super::cursors::{self, Content};
use super::dispatch::{Context, Reply};
use crate::failure::{Failure, Stop};
use crate::query::filter::Filter;
use crate::query::range::Range;
use crate::query::stage::{self, Stage};
use crate::storage::namespace::Namespace;
use crate::storage::store::{Selection, View};
use crate::storage::transaction::Transaction;
use crate::stream::cursor::ChangeStream;
use crate::stream::options::Options;
use crate::value::read::{Read, documents};

pub fn aggregate(context: &mut Context<'_>, transaction: Option<&Transaction>) -> Reply {
    let request = context.request;
    let empty = RawArrayBuf::new();
    let pipeline: Vec<&RawDocument> = documents(request.array("pipeline").unwrap_or(&empty)).collect();
    let first = pipeline.first().copied();
    if let Some(stage) = first.and_then(|first| first.document("$changeStream")) {
        return watch(context, stage, &pipeline[1..]);
    }
    let namespace = match request.text("aggregate") {
        Some(_) => context.namespace()?,
        None => Namespace::new(context.database(), "$cmd.aggregate"),
    };
    let time = context.read_time(&namespace)?;
    if first.is_some_and(|first| first.value("$collStats").is_some()) {
        let (count, bytes) = context.state.store.collection(&namespace).map_or((0, 0), |collection| {
            (collection.rows.len(), collection.rows.now().map(|(_, row)| row.as_bytes().len()).sum())
        });
        let statistics = vec![Arc::new(stage::collection_statistics(namespace.as_str(), count, bytes))];
        return finish(context, &namespace, statistics, parse(&pipeline[1..])?);
    }
    let mut stages = parse(&pipeline)?;
    let selection = pushed_down(&mut stages);
    let found = context.state.store.find(&namespace, &selection, View::of(transaction, time));
    let shown = stages.iter().try_fold(found, |found, stage| stage.apply(found))?;
    cursors::open(context, namespace.to_string(), Content::Documents(shown.into()), time)
}

fn finish(
    context: &mut Context<'_>,
    namespace: &Namespace,
    start: Vec<crate::value::Shared>,
    stages: Vec<Stage>,
) -> Result<bson::RawDocumentBuf, Stop> {
    let shown = stages.iter().try_fold(start, |found, stage| stage.apply(found))?;
    cursors::open(context, namespace.to_string(), Content::Documents(shown.into()), None)
}

fn parse(stages: &[&RawDocument]) -> Result<Vec<Stage>, Failure> {
    stages.iter().map(|stage| Stage::parse(stage)).collect()
}

/// Takes from the front of a pipeline what the read itself can do: a filter, then the order of `_id`, then a limit.
fn pushed_down(stages: &mut Vec<Stage>) -> Selection {
    let mut selection = Selection::of(Filter::everything());
    if matches!(stages.first(), Some(Stage::Match(_)))
        && let Stage::Match(filter) = stages.remove(0)
    {
        selection = Selection { range: Range::of(&filter), filter, ..selection };
    }
    if matches!(stages.first(), Some(Stage::Sort(sort)) if sort.by_key().is_some())
        && let Stage::Sort(sort) = stages.remove(0)
    {
        selection.sort = sort;
    }
    if let Some(Stage::Limit(limit)) = stages.first()
        && *limit > 0
    {
        selection.limit = *limit;
        stages.remove(0);
    }
    selection
}

fn watch(context: &mut Context<'_>, stage: &RawDocument, rest: &[&RawDocument]) -> Reply {
    let database = context.database().to_owned();
    let collection = context.request.text("aggregate");
    let options = Options::parse(&database, collection, stage, rest)?;
    let stream = ChangeStream::open(&mut context.state.store, options)?;
    let namespace = match collection {
        Some(collection) => format!("{database}.{collection}"),
        None => format!("{database}.$cmd.aggregate"),
    };
    cursors::open(context, namespace, Content::Stream(Box::new(stream)), None)
}
