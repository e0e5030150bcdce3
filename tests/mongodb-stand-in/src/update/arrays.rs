//! Update operators on arrays.

use bson::{Bson, Document, RawBsonRef, RawDocument};

use crate::failure::Failure;
use crate::query::condition::Condition;
use crate::query::filter::Filter;
use crate::query::operators::key;
use crate::query::sort::Sort;
use crate::value::path::{self, Path};
use crate::value::read::{Read, whole};

#[derive(Debug)]
pub enum Edit {
    Push(Push),
    AddToSet(Vec<Bson>),
    Pop { first: bool },
    Pull(Pulled),
    PullAll(Vec<Bson>),
}

#[derive(Debug, Default)]
pub struct Push {
    values: Vec<Bson>,
    position: Option<i64>,
    slice: Option<i64>,
    sort: Option<Order>,
}

#[derive(Debug)]
enum Order {
    Values { descending: bool },
    Fields(Sort),
}

#[derive(Debug)]
pub enum Pulled {
    Values(Condition),
    Documents(Filter),
}

impl Edit {
    pub fn parse(name: &str, value: RawBsonRef<'_>) -> Result<Self, Failure> {
        Ok(match name {
            "$push" => Self::Push(Push::parse(value)?),
            "$addToSet" => Self::AddToSet(Push::parse(value)?.values),
            "$pop" => Self::Pop { first: whole(value).is_some_and(|end| end < 0) },
            "$pull" => Self::Pull(match value.as_document() {
                Some(query) if !starts_with_operator(query) => Pulled::Documents(Filter::parse(query)?),
                _ => Pulled::Values(Condition::parse(value)?),
            }),
            "$pullAll" => Self::PullAll(match Bson::try_from(value)? {
                Bson::Array(values) => values,
                _ => return Err(Failure::bad_value("$pullAll requires an array argument")),
            }),
            other => {
                return Err(Failure::unparsable(format!(
                    "Unknown modifier: {other}. Expected a valid update modifier or pipeline-style update specified as an array"
                )));
            }
        })
    }

    pub fn apply(&self, document: &mut Document, path: &Path) -> Result<(), Failure> {
        if path::get_in(document, path).is_none() {
            if !matches!(self, Self::Push(_) | Self::AddToSet(_)) {
                return Ok(());
            }
            path::set(document, path, Bson::Array(Vec::new()))?;
        }
        let Some(Bson::Array(values)) = path::get_mut(document, path) else {
            return Err(Failure::bad_value(format!("The field '{}' must be an array", path.join("."))));
        };
        match self {
            Self::Push(push) => push.apply(values)?,
            Self::AddToSet(new) => {
                for value in new {
                    if !contains(values, value)? {
                        values.push(value.clone());
                    }
                }
            }
            Self::Pop { first: true } if !values.is_empty() => drop(values.remove(0)),
            Self::Pop { .. } => drop(values.pop()),
            Self::Pull(pulled) => {
                let mut rest = Vec::with_capacity(values.len());
                for value in values.drain(..) {
                    if !pulled.takes(&value)? {
                        rest.push(value);
                    }
                }
                *values = rest;
            }
            Self::PullAll(unwanted) => {
                let mut rest = Vec::with_capacity(values.len());
                for value in values.drain(..) {
                    if !contains(unwanted, &value)? {
                        rest.push(value);
                    }
                }
                *values = rest;
            }
        }
        Ok(())
    }
}

impl Push {
    fn parse(value: RawBsonRef<'_>) -> Result<Self, Failure> {
        let Some(modifiers) = value.as_document().filter(|document| document.array("$each").is_some()) else {
            return Ok(Self { values: vec![Bson::try_from(value)?], ..Self::default() });
        };
        let mut push =
            Self { position: modifiers.number("$position"), slice: modifiers.number("$slice"), ..Self::default() };
        if let Some(each) = modifiers.array("$each") {
            push.values = each.try_into()?;
        }
        push.sort = match modifiers.value("$sort") {
            None => None,
            Some(RawBsonRef::Document(sort)) => Some(Order::Fields(Sort::parse(sort)?)),
            Some(direction) => {
                Some(Order::Values { descending: whole(direction).is_some_and(|direction| direction < 0) })
            }
        };
        Ok(push)
    }

    fn apply(&self, values: &mut Vec<Bson>) -> Result<(), Failure> {
        let length = values.len() as i64;
        let at = match self.position {
            None => length,
            Some(at) if at < 0 => (length + at).max(0),
            Some(at) => at.min(length),
        } as usize;
        values.splice(at..at, self.values.iter().cloned());
        match &self.sort {
            None => {}
            Some(Order::Values { descending }) => {
                let mut keyed =
                    values.drain(..).map(|value| Ok((key(&value)?, value))).collect::<Result<Vec<_>, Failure>>()?;
                keyed.sort_by(|(one, _), (two, _)| if *descending { two.cmp(one) } else { one.cmp(two) });
                values.extend(keyed.into_iter().map(|(_, value)| value));
            }
            Some(Order::Fields(sort)) => {
                let mut raw = Vec::with_capacity(values.len());
                for value in values.drain(..) {
                    let Bson::Document(document) = value else {
                        return Err(Failure::bad_value("$sort by fields needs documents"));
                    };
                    raw.push((bson::RawDocumentBuf::try_from(&document)?, document));
                }
                raw.sort_by(|(one, _), (two, _)| sort.compare(one, two));
                values.extend(raw.into_iter().map(|(_, document)| Bson::Document(document)));
            }
        }
        match self.slice {
            None => {}
            Some(count) if count < 0 => {
                drop(values.drain(..values.len().saturating_sub(count.unsigned_abs() as usize)))
            }
            Some(count) => values.truncate(count as usize),
        }
        Ok(())
    }
}

impl Pulled {
    fn takes(&self, value: &Bson) -> Result<bool, Failure> {
        let value = key(value)?;
        Ok(match (self, value.value()) {
            (Self::Values(condition), value) => condition.holds(&[Some(value)]),
            (Self::Documents(filter), RawBsonRef::Document(document)) => filter.matches(document),
            (Self::Documents(_), _) => false,
        })
    }
}

fn contains(values: &[Bson], wanted: &Bson) -> Result<bool, Failure> {
    let wanted = key(wanted)?;
    for value in values {
        if key(value)? == wanted {
            return Ok(true);
        }
    }
    Ok(false)
}

fn starts_with_operator(query: &RawDocument) -> bool {
    query.iter_elements().flatten().next().is_some_and(|first| first.key().as_str().starts_with('$'))
}
