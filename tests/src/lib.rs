//! Guards for the end-to-end tests.
