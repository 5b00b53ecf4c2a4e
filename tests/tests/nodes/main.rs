//! A node of real parts in a network namespace: an agent, a server, and a collector that the agent pushes to.

mod collector;
mod rig;
