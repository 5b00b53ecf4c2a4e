//! A fleet on one machine, of real parts: a demo server is traced once, and what was recorded is played again by each
//! of many nodes, through the agent's own aggregation, numbers and HTTP server, for a real Prometheus to scrape.
//!
//! What is not real: the engines' work is that of the demo, all nodes share a clock and a process, and the network is
//! loopback.

pub mod crowd;
pub mod node;
pub mod recording;
pub mod scraper;
pub mod shape;
