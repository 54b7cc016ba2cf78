//! A linear layer with a HydraLoRA adapter, and its gradient: several heads `b` (heads, rank, out) share one `a`, and a
//! router weighs them for each token.
//!
//! `graft.Hydra (x, w, a, b, router, scale) => (y, h, p)`: `h = x·a`, `p = softmax(x·router)`,
//! `y = x·w + scale·(z·b)` with `z = p ⊗ h` and `b` seen as (heads·rank, out).
//! `graft.HydraGrad (dy, x, w, a, b, router, scale, h, p) => (dx, da, db, drouter)`: with `dz = scale·(dy·bᵀ)`,
//! `dh = Σₕ pₕ·dzₕ`, `dpₕ = dzₕ·h`, `dl = p∘(dp − Σ p∘dp)`: `db = scale·(zᵀ·dy)`, `[da | drouter] = xᵀ·[dh | dl]`,
//! `dx = dy·wᵀ + [dh | dl]·[a | router]ᵀ`.
mod cpu;
pub mod cuda;

use crate::{
    Device, Kernel, Operands,
    extended::{bytes, flops, n_rows, supports},
};
use graft_ir::Type;

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("graft.Hydra", |_, t| supports(t, 6, &[0], &[1, 2, 4]) && heads(t, 3), cpu::hydra)
        .strided(Operands::Only(&[1, 2, 4]))
        .scratch(|_, operands, _| scratch(operands[0], operands[3], 1))
        .flops(|_, operands, _| flops(operands, &[1, 2, 3, 4]))
        .device(Device::launches(cuda::forward).single(Operands::Only(&[5]), Operands::Only(&[2]))),
    Kernel::new(
        "graft.HydraGrad",
        |_, t| supports(t, 9, &[0, 1], &[2, 3, 5]) && heads(t, 4),
        cpu::hydra_grad,
    )
    .strided(Operands::Only(&[2, 3, 5]))
    .scratch(|_, operands, _| scratch(operands[1], operands[4], 2))
    .flops(|node, operands, _| {
        let dx: &[usize] = if node.output(0).is_some() { &[2, 3, 5] } else { &[] };
        flops(operands, dx) + flops(operands, &[3, 4, 4, 5])
    })
    .device(Device::launches(cuda::gradient).single(Operands::Only(&[6, 8]), Operands::Only(&[1, 2, 3]))),
];

fn heads(types: &[Option<Type>], b: usize) -> bool {
    types[b].as_ref().and_then(|t| t.shape.as_ref()).is_some_and(|shape| shape.len() == 3)
}

/// Bytes of the projection or its gradient, of `z` or its gradient, and of `joints` matrices like `[a | router]`.
fn scratch(x: &[usize], b: &[usize], joints: usize) -> usize {
    let [heads, rank, _] = b else { return 0 };
    let width = rank + heads;
    bytes(n_rows(x) * (width + heads * rank) + joints * x.last().copied().unwrap_or(0) * width)
}
