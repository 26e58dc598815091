//! packhorse carries sensor readings and node states from a gateway's local MySQL to a central REST server.

pub mod catalog;
pub mod domain;
pub mod ports;
pub mod rest;
pub mod wire;
