//! Reductions over any axes, and running sums along one.
mod cpu;
pub(crate) mod cuda;
mod scan;

use crate::{
    Device, Kernel, Operands, Run,
    cuda::{Plan, Site},
    dtype, floats, indices,
};
use cpu::Reduction;
use graft_ir::{DType, Node, Type};

const fn reduction(name: &'static str, run: Run, plan: fn(&Site<'_>) -> Option<Plan>) -> Kernel {
    Kernel::new(name, |_, t| floats(t, 1), run)
        .strided(Operands::Only(&[0]))
        .flops(|_, operands, _| operands[0].iter().product::<usize>() as u64)
        .device(Device::launches(plan).strided(Operands::Only(&[0])).single(Operands::None, Operands::All))
}

fn sums(_: &Node, types: &[Option<Type>]) -> bool {
    let added = matches!(dtype(types, 0), Some(DType::Float | DType::Int32 | DType::Int64));
    types.len() == 2 && added && indices(types, 1)
}

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("CumSum", sums, scan::cumsum).device(Device::launches(cuda::cumsum)),
    reduction("ReduceL2", |c| cpu::reduce(c, Reduction::L2), |s| cuda::reduce(s, Reduction::L2)),
    reduction("ReduceMax", |c| cpu::reduce(c, Reduction::Max), |s| cuda::reduce(s, Reduction::Max)),
    reduction("ReduceMean", |c| cpu::reduce(c, Reduction::Mean), |s| cuda::reduce(s, Reduction::Mean)),
    reduction("ReduceMin", |c| cpu::reduce(c, Reduction::Min), |s| cuda::reduce(s, Reduction::Min)),
    reduction("ReduceSum", |c| cpu::reduce(c, Reduction::Sum), |s| cuda::reduce(s, Reduction::Sum)),
    reduction(
        "ReduceSumSquare",
        |c| cpu::reduce(c, Reduction::SumSquare),
        |s| cuda::reduce(s, Reduction::SumSquare),
    ),
    reduction("graft.ReduceTo", cpu::reduce_to, cuda::reduce_to),
];
