//! Change streams: a position in the oplog, the events made of its entries, and the tokens that name them.

pub mod cursor;
pub mod event;
pub mod options;
mod split;
pub mod token;
