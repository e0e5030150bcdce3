//! The invariants of the engine, each by name, over in-memory stand-ins for databases, bus and store.

mod bounds;
mod confirm;
mod effect;
mod gap;
mod isolation;
mod once;
mod order;
mod random;
mod support;
mod windows;
