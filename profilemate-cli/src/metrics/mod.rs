//! Metrics of servers: what is told, how rows become numbers, and how these are exposed.

pub mod declare;
pub mod exposition;
pub mod otlp;
pub mod registry;
pub mod rows;
mod spans;
