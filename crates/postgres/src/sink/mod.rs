//! Writing to a PostgreSQL database.

mod encode;
