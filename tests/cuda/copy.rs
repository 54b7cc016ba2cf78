//! Copies of strided and repeated tensors against the CPU's.
use crate::program::toolchain;
use graft_emulate::{Emulator, Job, Sanitizer};
use graft_ir::{DType, Node};
use graft_kernels::{
    Memory, Threads, View, ViewMut, copy,
    cuda::{Shape, Site, Target},
    extent, movement, row_major,
};

/// Sizes and strides of the operand, and the sizes that it is repeated to: transposed, with gaps, of rank 8, a scalar, more than
/// a block's elements.
const CASES: &[(&[usize], &[usize], &[usize])] = &[
    (&[3, 2], &[1, 3], &[4, 3, 2]),
    (&[5, 7, 3], &[50, 1, 8], &[5, 7, 3]),
    (&[2, 1, 2, 3, 1, 2, 2, 3], &[1, 1, 2, 4, 1, 12, 50, 100], &[2, 2, 2, 3, 2, 2, 2, 3]),
    (&[], &[], &[3, 1, 5]),
    (&[40, 65], &[1, 40], &[40, 65]),
    (&[1300], &[1], &[2, 1300]),
];

#[test]
fn copies_are_those_of_the_cpu() {
    let Some(toolchain) = toolchain(Sanitizer::None, &[]) else { return };
    let mut emulator = Emulator::start(toolchain).unwrap_or_else(|e| panic!("{e}"));
    for dtype in [DType::Bool, DType::Bfloat16, DType::Float, DType::Int64] {
        for &(dims, strides, to) in CASES {
            let size = dtype.bits() / 8;
            let mut from = Memory::zeroed(extent(dims, strides) * size);
            from.bytes_mut().iter_mut().enumerate().for_each(|(i, b)| *b = (i * 37 + i / 256) as u8);
            let (len, whole) = (to.iter().product::<usize>() * size, row_major(to));
            let mut expected = Memory::zeroed(len);
            let view = View { dtype, dims, strides, data: from.bytes() };
            let result = ViewMut { dtype, dims: to, data: &mut expected.bytes_mut()[..len] };
            copy(&view, result, Threads::ONE).expect("whole bytes");
            let node = Node::new("Identity", &[], &[]);
            let inputs = vec![Some(Shape { dtype, dims, strides, known: None })];
            let outputs = vec![Some(Shape { dtype, dims: to, strides: &whole, known: None })];
            let site = Site::new((&node, 18), inputs, outputs, Target::default());
            let plan = movement::cuda::plan(&site).expect("a copy is served");
            let operands = vec![from.bytes()[..extent(dims, strides) * size].to_vec()];
            let job = Job { plan, operands, results: vec![len], in_place: Vec::new() };
            let outcome = emulator.run(&job, 2, 1).unwrap_or_else(|e| panic!("{dims:?}: {e}"));
            assert!(outcome.results[0] == expected.bytes()[..len], "{dtype} {dims:?} {strides:?} {to:?}");
        }
    }
}
