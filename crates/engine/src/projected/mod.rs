//! Documents at one end and a relational table at the other: what stands between the two.
//!
//! A relational sink is given rows of fields in its own columns ([`sink`]); a comparison sees a collection as a table with
//! the columns of the other side ([`reader`]).

pub mod reader;
pub mod sink;
