//! packhorse carries sensor readings and node states from a gateway's local MySQL to a central REST server.

pub mod capture;
pub mod cli;
pub mod codec;
pub mod config;
pub mod catalog;
pub mod domain;
pub mod outbox;
pub mod mysql;
pub mod ports;
pub mod receiver;
pub mod rest;
pub mod wire;
