//! Sort orders.

use std::cmp::Ordering;

use bson::{RawBsonRef, RawDocument};

use crate::failure::Failure;
use crate::value::Shared;
use crate::value::order::compare;
use crate::value::path::{self, Path};
use crate::value::read::{Read, whole};

#[derive(Debug, Default)]
pub struct Sort(Vec<(Path, bool)>);

impl Sort {
    pub fn of(command: &RawDocument, name: &str) -> Result<Self, Failure> {
        command.document(name).map_or_else(|| Ok(Self::default()), Self::parse)
    }

    pub fn parse(sort: &RawDocument) -> Result<Self, Failure> {
        let mut fields = Vec::new();
        for element in sort.iter() {
            let (name, value) = element?;
            let direction = whole(value).ok_or_else(|| Failure::bad_value(format!("Illegal key in $sort: {name}")))?;
            fields.push((path::parse(name.as_str()), direction < 0));
        }
        Ok(Self(fields))
    }

    /// Whether walking the `_id` index gives this order, and then whether backwards.
    pub fn by_key(&self) -> Option<bool> {
        match self.0.first() {
            None => Some(false),
            Some((path, descending)) if path.len() == 1 && (path[0] == "_id" || path[0] == "$natural") => {
                Some(*descending)
            }
            Some(_) => None,
        }
    }

    /// Whether walking an index over these fields gives this order.
    pub fn is_by<'a>(&self, names: impl Iterator<Item = &'a str>) -> bool {
        let ascending = |(path, descending): &(Path, bool)| match &path[..] {
            [name] if !descending => Some(name.clone()),
            _ => None,
        };
        self.0.is_empty() || self.0.iter().map(ascending).eq(names.map(|name| Some(name.to_owned())))
    }

    pub fn sort(&self, documents: &mut [Shared]) {
        documents.sort_by(|one, two| self.compare(one, two));
    }

    pub fn compare(&self, one: &RawDocument, two: &RawDocument) -> Ordering {
        self.0.iter().fold(Ordering::Equal, |order, (path, descending)| {
            order.then_with(|| {
                let order = compare(
                    path::get(one, path).unwrap_or(RawBsonRef::Null),
                    path::get(two, path).unwrap_or(RawBsonRef::Null),
                );
                if *descending { order.reverse() } else { order }
            })
        })
    }
}
