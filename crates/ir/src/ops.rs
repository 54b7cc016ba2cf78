//! The op table: for each op how types are inferred, how it is run and how it is differentiated.
//!
//! To add an op, add an entry to the table of its family; importer, printer and passes need nothing.
use crate::{Array, Code, Error, Eval, Fact, Infer, Node, Result, Vjp};

mod activation;
mod arithmetic;
mod attention;
mod batch;
mod bits;
mod broadcast;
mod cast;
mod composed;
mod contrib;
mod generate;
mod index;
mod layout;
mod logic;
mod loss;
mod math;
mod matmul;
mod norm;
mod quantize;
mod rectifier;
mod reduce;
mod shape;
mod window;

pub use composed::Body;
pub(crate) use composed::vjp_body;
pub use generate::constant;
pub use matmul::{Axis, Equation};
pub use window::{Slide, kernel_shape, slides};

/// Runs an op: its results from its operands.
pub type EvalRule = fn(&Eval<'_>) -> Result<Vec<Array>>;

/// An op: its name and its meaning from one opset version on.
pub struct OpDef {
    /// Domain-qualified name.
    pub name: &'static str,
    /// The first opset version with this meaning; an entry serves all later versions up to the next entry's.
    pub since: i64,
    /// Types of the results from those of the operands, one fact for each result.
    pub infer: fn(&Infer<'_>) -> Result<Vec<Fact>>,
    /// Runs it; `None` if it can only be carried along.
    pub eval: Option<EvalRule>,
    /// Differentiates it.
    pub vjp: Vjp,
    /// The formula, in one line.
    pub doc: &'static str,
}

impl OpDef {
    /// How the op is written with others, if it is.
    pub fn body(&self) -> Option<Body> {
        if let Vjp::Body(body) = self.vjp { Some(body) } else { None }
    }
}

/// All ops, by family.
pub const FAMILIES: &[&[OpDef]] = &[
    activation::OPS,
    arithmetic::OPS,
    attention::OPS,
    batch::OPS,
    bits::OPS,
    cast::OPS,
    contrib::OPS,
    generate::OPS,
    index::OPS,
    logic::OPS,
    loss::OPS,
    math::OPS,
    matmul::OPS,
    norm::OPS,
    quantize::OPS,
    rectifier::OPS,
    reduce::OPS,
    shape::OPS,
    window::OPS,
];

/// Every entry of the table.
pub fn all() -> impl Iterator<Item = &'static OpDef> {
    FAMILIES.iter().copied().flatten()
}

/// The entry for `op` at the opset version of its domain.
pub fn lookup(op: &str, opset: i64) -> Option<&'static OpDef> {
    all().filter(|def| def.name == op && def.since <= opset).max_by_key(|def| def.since)
}

/// The refusal to run or differentiate an op that has neither an entry nor a function body.
pub fn unknown(node: &Node) -> Error {
    let candidates = crate::error::nearest(&node.op, all().map(|def| def.name)).join("`, `");
    Error::new(Code::UNKNOWN_OP, format!("`{}` is neither a known op nor a function of the model", node.op))
        .help(format!(
            "nearest known ops: `{candidates}`; it can be carried along, but not run or differentiated"
        ))
}
