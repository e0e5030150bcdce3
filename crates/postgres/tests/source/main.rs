//! The source and the reader against a real server.

mod contract;
mod faults;
mod large;
mod positions;
mod preflight;
mod reader;
mod stream;
mod support;
mod two_way;
mod types;
