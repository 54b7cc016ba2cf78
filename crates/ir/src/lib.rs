//! What a graph is and what it means: values and nodes, symbolic shapes, the op table, ONNX text, the verifier and
//! the reference interpreter. Does no I/O and holds no `unsafe`.
#![forbid(unsafe_code)]

mod array;
mod attr;
mod build;
pub mod compare;
pub mod cost;
mod dim;
mod dtype;
pub mod error;
pub mod eval;
pub mod flow;
mod graph;
pub mod infer;
pub mod library;
pub mod ops;
pub mod opset;
pub mod random;
mod spell;
mod tensor;
pub mod text;
mod verify;
mod vjp;

pub use array::{Array, Data, Precision};
pub use attr::{Attr, Attrs, Function};
pub use build::Builder;
pub use dim::{Dim, product};
pub use dtype::DType;
pub use error::{Code, Error, Kind, Result};
pub use eval::Eval;
pub use flow::{Flow, Uses};
pub use graph::{Graph, Meta, Node, Type, Value, ValueData};
pub use infer::{Fact, Infer};
pub use ops::{EvalRule, OpDef};
pub use tensor::{Tensor, affordable, count};
pub use text::{parse, parse_functions};
pub use verify::{check, verify};
pub use vjp::{Backward, Rule, Vjp};
