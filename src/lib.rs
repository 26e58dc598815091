//! packhorse carries sensor readings and node states from a gateway's local MySQL to a central REST server.

pub mod capture;
pub mod codec;
pub mod domain;
pub mod outbox;
pub mod ports;
pub mod wire;
