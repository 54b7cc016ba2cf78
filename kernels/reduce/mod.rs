//! Reductions over any axes.
mod cpu;

use crate::{Kernel, Operands, Run, floats};

const fn reduction(name: &'static str, run: Run) -> Kernel {
    Kernel::new(name, |_, t| floats(t, 1), run)
        .strided(Operands::Only(&[0]))
        .flops(|_, operands, _| operands[0].iter().product::<usize>() as u64)
}

pub(crate) const KERNELS: &[Kernel] = &[
    reduction("ReduceL2", |c| cpu::reduce(c, cpu::Reduction::L2)),
    reduction("ReduceMax", |c| cpu::reduce(c, cpu::Reduction::Max)),
    reduction("ReduceMean", |c| cpu::reduce(c, cpu::Reduction::Mean)),
    reduction("ReduceMin", |c| cpu::reduce(c, cpu::Reduction::Min)),
    reduction("ReduceSum", |c| cpu::reduce(c, cpu::Reduction::Sum)),
    reduction("ReduceSumSquare", |c| cpu::reduce(c, cpu::Reduction::SumSquare)),
    reduction("graft.ReduceTo", cpu::reduce_to),
];
