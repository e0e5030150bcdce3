//! The change stream and the table reader against a real server.

mod connect;
mod contract;
mod fixture;
mod inspect;
mod resume;
mod shapes;
mod stream;
mod two_way;
mod values;
