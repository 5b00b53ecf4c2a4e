//! A small fleet of real parts: an agent on each node (a network namespace), Debian's Prometheus and VictoriaMetrics that
//! scrape them by TLS and token, a collector that they push to; and what becomes of it when parts of it die.

mod collector;
mod death;
mod finding;
mod rig;
mod vllm;
