//! Activations, with the bias that stands before them.
use super::{operand, plus};
use crate::{Builder, Node, Result, Value};
use std::f64::consts::{FRAC_2_PI, SQRT_2};

/// y = x/2 · (1 + erf(x/√2)).
pub(super) fn gelu_alone(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = operand(node, 0)?;
    Ok(vec![gelu(b, x)?])
}

pub(super) fn bias_gelu(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let biased = b.add(operand(node, 0)?, operand(node, 1)?)?;
    Ok(vec![gelu(b, biased)?])
}

/// Written out as exporters do, so that it is found again and becomes the library's function.
fn gelu(b: &mut Builder<'_>, x: Value) -> Result<Value> {
    let root = b.scalar_like("root_two", SQRT_2, x)?;
    let scaled = b.div(x, root)?;
    let erf = b.op("erf", "Erf", &[scaled])?;
    let shifted = b.offset(erf, 1.0)?;
    let product = b.mul(x, shifted)?;
    b.scale(product, 0.5)
}

/// y = x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³))), of x + bias where there is one.
pub(super) fn fast_gelu(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = plus(b, operand(node, 0)?, node.input(1))?;
    let halved = b.scale(x, 0.5)?;
    let square = b.mul(x, x)?;
    let cube = b.mul(x, square)?;
    let bent = b.scale(cube, 0.044_715)?;
    let sum = b.add(x, bent)?;
    let scaled = b.scale(sum, FRAC_2_PI.sqrt())?;
    let tanh = b.op("tanh", "Tanh", &[scaled])?;
    let shifted = b.offset(tanh, 1.0)?;
    Ok(vec![b.mul(halved, shifted)?])
}

pub(super) fn quick_gelu(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let (x, alpha) = (operand(node, 0)?, node.float("alpha")?.map_or(1.702, f64::from));
    let scaled = b.scale(x, alpha)?;
    let gate = b.op("gate", "Sigmoid", &[scaled])?;
    Ok(vec![b.mul(x, gate)?])
}
