//! ProfileMate eBPF object.
