//! ONNX's messages, as generated from the official `proto/onnx.proto` (the test `generated` compares).
#![allow(missing_docs, reason = "the official file documents them")]
#![allow(unreachable_pub, reason = "the generator knows only `pub`")]
include!("generated/onnx.rs");
