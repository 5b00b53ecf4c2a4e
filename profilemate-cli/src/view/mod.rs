//! What a person looks at while a session runs.

pub mod top;
