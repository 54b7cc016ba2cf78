//! `Softmax`, `LogSoftmax` and their gradients.
mod cpu;

use crate::{Kernel, floats};

pub(crate) const KERNELS: &[Kernel] = &[
    Kernel::new("Softmax", |_, t| floats(t, 1), |c| cpu::softmax(c, false)).in_place(&[(0, 0)]),
    Kernel::new("LogSoftmax", |_, t| floats(t, 1), |c| cpu::softmax(c, true)).in_place(&[(0, 0)]),
    Kernel::new("graft.SoftmaxGrad", |_, t| floats(t, 2), cpu::softmax_grad).in_place(&[(0, 0)]),
];
