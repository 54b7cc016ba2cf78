//! Attention and its gradient, by blocks of rows: of the scores no more than a block is ever held.
mod backward;
pub(crate) mod cuda;
mod forward;
mod operands;

use crate::{Device, Kernel, Operands, floats};
use graft_ir::{Node, Type};
use operands::Sizes;

pub(crate) const KERNELS: &[Kernel] = &[
    attention("graft.Attention"),
    gradient("graft.AttentionGrad"),
    attention("graft.GroupedAttention"),
    gradient("graft.GroupedAttentionGrad"),
];

const fn attention(name: &'static str) -> Kernel {
    Kernel::new(name, forward, forward::attention)
        .strided(Operands::All)
        .scratch(|_, operands, _| of(operands).map_or(0, |sizes| forward::scratch(&sizes)))
        .flops(|_, operands, _| of(operands).map_or(0, |s| s.products(s.size + s.width)))
        .device(
            Device::launches(cuda::attention)
                .strided(Operands::All)
                .single(Operands::None, Operands::Only(&[1])),
        )
}

const fn gradient(name: &'static str) -> Kernel {
    Kernel::new(name, backward, backward::attention_grad)
        .strided(Operands::Only(&[0, 1, 2, 3, 4]))
        .scratch(|_, operands, _| of(&operands[1..]).map_or(0, |sizes| backward::scratch(&sizes)))
        .flops(|_, operands, _| of(&operands[1..]).map_or(0, |s| s.products(3 * s.size + 2 * s.width)))
        .device(
            Device::launches(cuda::attention_grad)
                .strided(Operands::Only(&[0, 1, 2, 3, 4]))
                .single(Operands::Only(&[5]), Operands::None),
        )
}

/// The sizes, given those of q, k, v and bias from the first operand on.
fn of(operands: &[&[usize]]) -> Option<Sizes> {
    Sizes::new(operands.get(..4)?)
}

fn forward(node: &Node, types: &[Option<Type>]) -> bool {
    node.output(0).is_some() && types.len() == 4 && floats(types, 4) && fits(types)
}

/// The gradient of a mask, which nobody wants of a model, is left to the body.
fn backward(node: &Node, types: &[Option<Type>]) -> bool {
    node.output(3).is_none() && types.len() == 6 && floats(types, 6) && fits(&types[1..5])
}

fn fits(types: &[Option<Type>]) -> bool {
    let sizes: Option<Vec<_>> = types.iter().map(|ty| ty.as_ref()?.sizes()).collect();
    sizes.is_some_and(|sizes| Sizes::new(&sizes.iter().map(Vec::as_slice).collect::<Vec<_>>()).is_some())
}
