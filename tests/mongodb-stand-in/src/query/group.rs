//! `$group` with the accumulators that counts and checks use.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{Bson, Document, RawDocument, RawDocumentBuf};

use super::expression::Expression;
use super::operators::key;
use crate::failure::Failure;
use crate::update::arithmetic;
use crate::value::Shared;
use crate::value::order::{Key, rank};

#[derive(Debug)]
pub struct Group {
    by: Expression,
    fields: Vec<(String, Accumulator, Expression)>,
}

#[derive(Debug, Clone, Copy)]
enum Accumulator {
    Sum,
    Min,
    Max,
    First,
    Last,
    Push,
    AddToSet,
}

impl Group {
    pub fn parse(stage: &RawDocument) -> Result<Self, Failure> {
        let (mut by, mut fields) = (None, Vec::new());
        for element in stage.iter() {
            let (name, value) = element?;
            if name.as_str() == "_id" {
                by = Some(Expression::parse(value)?);
                continue;
            }
            let accumulator = value.as_document().and_then(|document| document.iter().next());
            let (operator, argument) = accumulator
                .ok_or_else(|| Failure::new(40234, format!("The field '{name}' must be an accumulator object")))??;
            let operator = match operator.as_str() {
                "$sum" | "$count" => Accumulator::Sum,
                "$min" => Accumulator::Min,
                "$max" => Accumulator::Max,
                "$first" => Accumulator::First,
                "$last" => Accumulator::Last,
                "$push" => Accumulator::Push,
                "$addToSet" => Accumulator::AddToSet,
                other => return Err(Failure::new(15952, format!("unknown group operator '{other}'"))),
            };
            let argument = match argument.as_document() {
                Some(empty) if empty.is_empty() => Expression::Literal(Bson::Int32(1)), // $count: {}
                _ => Expression::parse(argument)?,
            };
            fields.push((name.as_str().to_owned(), operator, argument));
        }
        let by = by.ok_or_else(|| Failure::new(15955, "a group specification must include an _id"))?;
        Ok(Self { by, fields })
    }

    pub fn apply(&self, documents: &[Shared]) -> Result<Vec<Shared>, Failure> {
        let mut groups: BTreeMap<Key, Document> = BTreeMap::new();
        // Counting, the most frequent use, looks at no document.
        let looks = !self.by.is_constant() || self.fields.iter().any(|(_, _, argument)| !argument.is_constant());
        for document in documents {
            let document = if looks { Document::try_from(document.as_ref())? } else { Document::new() };
            let by = self.by.evaluate(&document)?.unwrap_or(Bson::Null);
            let group = groups.entry(key(&by)?).or_insert_with(|| bson::doc! {"_id": by});
            for (name, accumulator, argument) in &self.fields {
                let value = argument.evaluate(&document)?;
                if let Some(new) = accumulator.take(group.get(name), value)? {
                    group.insert(name.clone(), new);
                }
            }
        }
        groups.values().map(|group| Ok(Arc::new(RawDocumentBuf::try_from(group)?))).collect()
    }
}

impl Accumulator {
    fn take(self, so_far: Option<&Bson>, value: Option<Bson>) -> Result<Option<Bson>, Failure> {
        let smaller = |one: &Bson, two: &Bson| -> Result<bool, Failure> { Ok(key(one)? < key(two)?) };
        Ok(match (self, so_far, value) {
            (Self::Sum, so_far, value) => {
                let sum = so_far.cloned().unwrap_or(Bson::Int32(0));
                match value {
                    Some(value) if rank(key(&value)?.value()) == 2 => Some(arithmetic::add(&sum, &value)?),
                    _ => Some(sum),
                }
            }
            (Self::Min, Some(least), Some(value)) => smaller(&value, least)?.then_some(value),
            (Self::Max, Some(most), Some(value)) => smaller(most, &value)?.then_some(value),
            (Self::First, Some(_), _) => None,
            (Self::Push | Self::AddToSet, so_far, value) => {
                let mut values = so_far.and_then(Bson::as_array).cloned().unwrap_or_default();
                if let Some(value) = value {
                    let known = matches!(self, Self::AddToSet) && values.contains(&value);
                    if !known {
                        values.push(value);
                    }
                }
                Some(Bson::Array(values))
            }
            (_, _, value) => value,
        })
    }
}
