//! Copies: strided to row-major, `Concat`, `Range`, `ConstantOfShape`, `Pad`, `Trilu`. What only changes how memory is seen
//! (`Reshape`, `Transpose`, `Slice`, …) is planned as a view and needs no kernel.
mod cpu;
pub mod cuda;
mod pad;
mod trilu;

use crate::{Device, Kernel, Operands, dtype};
use graft_ir::{Attr, DType, Node, Type};

pub use cpu::copy;
pub(crate) use cpu::identity;

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("Concat", concat_supports, cpu::concat)
        .strided(Operands::All)
        .flops(none)
        .device(Device::launches(cuda::concat).strided(Operands::All)),
    Kernel::new("ConstantOfShape", |_, _| true, cpu::constant_of_shape)
        .flops(none)
        .device(Device::launches(cuda::constant)),
    Kernel::new("Pad", pad_supports, pad::pad).flops(none).device(Device::launches(cuda::pad)),
    Kernel::new("Range", |_, t| t.len() == 3 && dtype(t, 0) == Some(DType::Int64), cpu::range)
        .flops(none)
        .device(Device::launches(cuda::range)),
    Kernel::new("Trilu", |_, t| sized(t, 0), trilu::trilu).flops(none).device(Device::launches(cuda::trilu)),
];

fn none(_: &Node, _: &[&[usize]], _: &[&[usize]]) -> u64 {
    0
}

fn concat_supports(_: &Node, types: &[Option<Type>]) -> bool {
    (0..types.len()).all(|i| sized(types, i))
}

fn sized(types: &[Option<Type>], i: usize) -> bool {
    dtype(types, i).is_some_and(|d| matches!(d.bits(), 8 | 16 | 32 | 64))
}

/// Padding with a constant, whose bits the operand or the attribute gives.
fn pad_supports(node: &Node, types: &[Option<Type>]) -> bool {
    let is_constant = match node.attrs.get("mode") {
        None => true,
        Some(Attr::Str(mode)) => mode == "constant",
        Some(_) => false,
    };
    let has_bits = match node.input(2) {
        Some(_) => dtype(types, 2) == dtype(types, 0),
        None => !node.attrs.contains_key("value") || dtype(types, 0) == Some(DType::Float),
    };
    let int64 = |i: usize| node.input(i).is_none() || dtype(types, i) == Some(DType::Int64);
    is_constant && has_bits && sized(types, 0) && int64(1) && int64(3)
}
