//! `sync-worker`: keeps tables of databases in sync from their own change logs.

mod config;

fn main() {}
