//! Ops that slide a window over the axes behind batch and channels: `Conv`, and pooling without positions.
mod conv;
mod pool;
mod runs;

use crate::{Call, Kernel, floats};
use graft_ir::{Node, Result, Type, ops::kernel_shape};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("AveragePool", pools, pool::average).flops(pool_flops),
    Kernel::new("Conv", convolves, conv::conv).scratch(conv::scratch).flops(|_, operands, results| {
        let maps = operands[1].first().copied().unwrap_or(1).max(1);
        let terms = operands[1].iter().product::<usize>() / maps;
        2 * (terms * results[0].iter().product::<usize>()) as u64
    }),
    Kernel::new("MaxPool", pools, pool::max).flops(pool_flops),
];

/// One comparison or addition for each element of each window.
fn pool_flops(node: &Node, _: &[&[usize]], results: &[&[usize]]) -> u64 {
    let window: usize = kernel_shape(node).ok().flatten().map_or(1, |k| k.iter().product());
    results.first().map_or(0, |dims| (window * dims.iter().product::<usize>()) as u64)
}

/// `float` operands, the first with axes to slide over.
fn slides(types: &[Option<Type>]) -> bool {
    let rank = types.first().and_then(|t| t.as_ref()?.shape.as_ref()).map(Vec::len);
    floats(types, types.len()) && rank.is_some_and(|rank| rank > 2)
}

/// The positions of the largest elements are left to the interpreter.
fn pools(node: &Node, types: &[Option<Type>]) -> bool {
    slides(types) && node.output(1).is_none()
}

fn convolves(_: &Node, types: &[Option<Type>]) -> bool {
    types.len() >= 2 && slides(types)
}

/// The window that attribute `kernel_shape` gives, or `otherwise`.
fn window(call: &Call<'_>, otherwise: &[usize]) -> Result<Vec<usize>> {
    Ok(kernel_shape(call.node)?.unwrap_or_else(|| otherwise.to_vec()))
}
