//! Finding and shaping documents: filters, expressions, projections, sorting, and aggregation stages.

pub mod condition;
pub mod expression;
pub mod filter;
pub mod group;
pub mod operators;
pub mod projection;
pub mod range;
pub mod sort;
pub mod stage;
