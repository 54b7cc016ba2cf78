//! Reductions over any axes, and running sums along one.
mod cpu;
mod scan;

use crate::{Kernel, Operands, Run, dtype, floats, indices};
use graft_ir::{DType, Node, Type};

const fn reduction(name: &'static str, run: Run) -> Kernel {
    Kernel::new(name, |_, t| floats(t, 1), run)
        .strided(Operands::Only(&[0]))
        .flops(|_, operands, _| operands[0].iter().product::<usize>() as u64)
}

fn sums(_: &Node, types: &[Option<Type>]) -> bool {
    let added = matches!(dtype(types, 0), Some(DType::Float | DType::Int32 | DType::Int64));
    types.len() == 2 && added && indices(types, 1)
}

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("CumSum", sums, scan::cumsum),
    reduction("ReduceL2", |c| cpu::reduce(c, cpu::Reduction::L2)),
    reduction("ReduceMax", |c| cpu::reduce(c, cpu::Reduction::Max)),
    reduction("ReduceMean", |c| cpu::reduce(c, cpu::Reduction::Mean)),
    reduction("ReduceMin", |c| cpu::reduce(c, cpu::Reduction::Min)),
    reduction("ReduceSum", |c| cpu::reduce(c, cpu::Reduction::Sum)),
    reduction("ReduceSumSquare", |c| cpu::reduce(c, cpu::Reduction::SumSquare)),
    reduction("graft.ReduceTo", cpu::reduce_to),
];
