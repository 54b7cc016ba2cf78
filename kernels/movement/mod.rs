//! Copies: strided to row-major, `Concat`, `Range`, `ConstantOfShape`. What only changes how memory is seen
//! (`Reshape`, `Transpose`, `Slice`, …) is planned as a view and needs no kernel.
mod cpu;

use crate::{Kernel, Operands, dtype};
use graft_ir::{DType, Node, Type};

pub use cpu::copy;
pub(crate) use cpu::identity;

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("Concat", concat_supports, cpu::concat).strided(Operands::All).flops(none),
    Kernel::new("ConstantOfShape", |_, _| true, cpu::constant_of_shape).flops(none),
    Kernel::new("Range", |_, t| t.len() == 3 && dtype(t, 0) == Some(DType::Int64), cpu::range).flops(none),
];

fn none(_: &Node, _: &[&[usize]], _: &[&[usize]]) -> u64 {
    0
}

fn concat_supports(_: &Node, types: &[Option<Type>]) -> bool {
    let sized = |d: DType| matches!(d.bits(), 8 | 16 | 32 | 64);
    (0..types.len()).all(|i| dtype(types, i).is_some_and(sized))
}
