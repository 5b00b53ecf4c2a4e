//! What is there: the processes of the target and the interpreters in them. Nothing in this room writes.

pub mod python;
