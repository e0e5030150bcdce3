//! The running stand-in: members that listen, connections that speak the wire protocol, and the state they share.

pub mod authentication;
pub mod connection;
pub mod connections;
pub mod election;
pub mod member;
pub mod scram;
pub mod shared;
pub mod tls;
pub mod wire;
