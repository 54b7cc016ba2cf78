//! `Softmax`, `LogSoftmax` and their gradients.
mod cpu;
pub(crate) mod cuda;

use crate::{
    Device, Kernel,
    cuda::{Plan, Site},
    floats,
};

/// Launches that may overwrite the first operand.
const fn device(plan: fn(&Site<'_>) -> Option<Plan>) -> Device {
    Device::launches(plan).in_place(&[(0, 0)])
}

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("Softmax", |_, t| floats(t, 1), |c| cpu::softmax(c, false))
        .in_place(&[(0, 0)])
        .device(device(|s| cuda::softmax(s, false))),
    Kernel::new("LogSoftmax", |_, t| floats(t, 1), |c| cpu::softmax(c, true))
        .in_place(&[(0, 0)])
        .device(device(|s| cuda::softmax(s, true))),
    Kernel::new("graft.SoftmaxGrad", |_, t| floats(t, 2), cpu::softmax_grad)
        .in_place(&[(0, 0)])
        .device(device(cuda::softmax_grad)),
];
