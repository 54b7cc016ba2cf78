//! A linear layer with a Bone adapter, and its gradient. `s` (tokens, rank) sums the columns of x whose numbers agree
//! modulo the rank, which is folding; its transpose repeats columns.
//!
//! `graft.Bone (x, w, d) => (y, s)`: `y = x·w + s·d`; `graft.BoneGrad (dy, x, w, d, s) => (dx, dd)`: `dd = sᵀ·dy`,
//! `dx = dy·wᵀ + repeat(dy·dᵀ)`. `graft.BoneMini` has few columns in d and repeats `s·d`; its gradient folds dy first.
mod cpu;
pub mod cuda;

use crate::{
    Device, Kernel, Operands,
    extended::{bytes, flops, n_rows, supports},
};

pub(crate) const KERNELS: &[Kernel] = &[
    forward("graft.Bone").device(Device::launches(cuda::forward)),
    forward("graft.BoneMini").device(Device::launches(cuda::mini_forward)),
    gradient("graft.BoneGrad")
        .device(Device::launches(cuda::gradient).single(Operands::None, Operands::Only(&[1]))),
    gradient("graft.BoneMiniGrad")
        .device(Device::launches(cuda::mini_gradient).single(Operands::None, Operands::Only(&[1]))),
];

const fn forward(name: &'static str) -> Kernel {
    Kernel::new(name, |_, t| supports(t, 3, &[0], &[1, 2]), cpu::bone)
        .strided(Operands::Only(&[1, 2]))
        .scratch(|_, operands, _| scratch(operands[0], operands[2]))
        .flops(|_, operands, _| flops(operands, &[1, 2]))
}

const fn gradient(name: &'static str) -> Kernel {
    Kernel::new(name, |_, t| supports(t, 5, &[0, 1], &[2, 3, 4]), cpu::bone_grad)
        .strided(Operands::Only(&[2, 3]))
        .scratch(|_, operands, _| scratch(operands[1], operands[3]))
        .flops(|node, operands, _| {
            let dx: &[usize] = if node.output(0).is_some() { &[2, 3] } else { &[] };
            flops(operands, dx) + flops(operands, &[3])
        })
}

/// Bytes of a matrix for each side of d: tokens × rank and tokens × columns of d.
fn scratch(x: &[usize], d: &[usize]) -> usize {
    bytes(n_rows(x) * d.iter().sum::<usize>())
}
