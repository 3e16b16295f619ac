//! The daemon: Docker's HTTP API in front of `engine`, and the program that serves it.
//!
//! A request's way: [`connection`] (one task a client) to [`router`], to a row of the table in
//! [`routes`], to a handler of 5 to 20 lines that calls a service of the engine, and back as an
//! [`answer`]. Start reading there; [`daemon`] is the program around it.

mod address;
mod answer;
mod connection;
pub mod daemon;
mod hijack;
mod json;
mod listen;
mod origin;
mod query;
mod reframe;
mod request;
mod router;
pub mod routes;
mod serve;
mod tls;
mod upload;
mod version;
mod websocket;
