//! The binary `graft`.
fn main() {}
