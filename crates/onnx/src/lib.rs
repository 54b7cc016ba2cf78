//! ONNX files in and out, without loss.

mod write;

pub use write::{atomic_write, atomic_write_with};
