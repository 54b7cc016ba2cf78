//! One step of a plan: a kernel, a copy, or a node that the interpreter runs.
use crate::{
    constants::Constant,
    place::{Place, Storage},
};
use bytes::Bytes;
use graft_ir::{
    Array, Code, Error, Graph, Node, Precision, Result, Tensor, eval::eval_node, infer::node_label,
};
use graft_kernels::{Call, Kernel, Operand, Threads, View, ViewMut, borrow, copy};
use std::{ops::Range, sync::Arc};

/// How a step is done.
#[derive(Clone)]
pub(crate) enum Work {
    /// By a kernel of the host.
    Kernel(&'static Kernel),
    /// By copying the first operand, row-major, into the first result.
    Copy,
    /// By the reference interpreter: correct and slow.
    Eval,
    /// Element by element on the device, by this text; `chain` makes launches of it and its neighbours.
    Map(String),
    /// By launches on the device.
    Launches(Launches),
}

/// What a device launches for a step.
#[derive(Clone)]
pub(crate) struct Launches {
    pub(crate) plan: Arc<graft_kernels::cuda::Plan>,
    /// Pairs (operand, result): the result may overwrite the operand.
    pub(crate) pairs: Vec<(usize, usize)>,
    /// The row of the table that the plan comes from; none for several steps that became one.
    pub(crate) kernel: Option<&'static Kernel>,
    /// The product by itself whose epilogue element-wise steps became.
    pub(crate) product: Option<Arc<Step>>,
    /// The steps that it does together, each as it would be by itself; none where it is one.
    pub(crate) calls: Vec<Step>,
}

/// A step of a plan.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) work: Work,
    pub(crate) node: Node,
    pub(crate) opset: i64,
    pub(crate) inputs: Vec<Option<Place>>,
    /// Row-major, each in a buffer of its own.
    pub(crate) outputs: Vec<Option<Place>>,
    /// Pairs (operand, result) that share their memory.
    pub(crate) in_place: Vec<(usize, usize)>,
    /// A buffer for the kernel's own use, and its bytes.
    pub(crate) scratch: Option<(usize, usize)>,
}

/// The memory that steps work on.
pub(crate) struct Arena<'a> {
    pub(crate) memory: &'a mut [u8],
    /// Where each buffer lies.
    pub(crate) offsets: &'a [usize],
    pub(crate) constants: &'a [Arc<Constant>],
}

impl Arena<'_> {
    fn range(&self, place: &Place) -> Option<Range<usize>> {
        let base = self.offsets[place.buffer()?];
        let within = place.bytes();
        Some(base + within.start..base + within.end)
    }
    /// The bytes that a place spans.
    pub(crate) fn bytes(&self, place: &Place) -> &[u8] {
        match (place.storage, self.range(place)) {
            (Storage::Constant(c), _) => &self.constants[c].bytes()[place.bytes()],
            (_, range) => &self.memory[range.unwrap_or_default()],
        }
    }
    /// The bytes that a place in a buffer spans, to be written.
    pub(crate) fn bytes_mut(&mut self, place: &Place) -> &mut [u8] {
        let range = self.range(place).unwrap_or_default();
        &mut self.memory[range]
    }
    /// The elements at a place, row-major, as a tensor of their own.
    pub(crate) fn tensor(&self, place: &Place) -> Result<Tensor> {
        gathered(place, self.bytes(place))
    }
}

/// The elements at a place that spans `bytes`, row-major, as a tensor of their own.
pub(crate) fn gathered(place: &Place, bytes: &[u8]) -> Result<Tensor> {
    if place.is_row_major() {
        return Tensor::new(place.dtype, place.dims.clone(), Bytes::copy_from_slice(bytes));
    }
    let mut out = graft_kernels::Memory::zeroed(place.len() * place.element());
    let data = &mut out.bytes_mut()[..place.len() * place.element()];
    copy(&view(place, bytes), ViewMut { dtype: place.dtype, dims: &place.dims, data }, Threads::ONE)?;
    let data = Bytes::copy_from_slice(&out.bytes()[..place.len() * place.element()]);
    Tensor::new(place.dtype, place.dims.clone(), data)
}

fn view<'a>(place: &'a Place, data: &'a [u8]) -> View<'a> {
    View { dtype: place.dtype, dims: &place.dims, strides: &place.strides, data }
}

impl Step {
    /// A step of `node` that is yet to be filled in.
    pub(crate) fn of(node: &Node) -> Step {
        let node = node.clone();
        let (inputs, outputs, in_place) = (Vec::new(), Vec::new(), Vec::new());
        Step { work: Work::Eval, node, opset: 1, inputs, outputs, in_place, scratch: None }
    }
    /// A copy into row-major memory.
    pub(crate) fn copy(from: Place, to: Place) -> Step {
        let node = Node { op: "copy".into(), ..Node::default() };
        Step { work: Work::Copy, inputs: vec![Some(from)], outputs: vec![Some(to)], ..Step::of(&node) }
    }
    /// The steps that it does together, or itself.
    pub(crate) fn calls(&self) -> &[Step] {
        match &self.work {
            Work::Launches(launches) if !launches.calls.is_empty() => &launches.calls,
            _ => std::slice::from_ref(self),
        }
    }
    /// Pairs (operand, result) where the result may overwrite the operand.
    pub(crate) fn pairs(&self) -> &[(usize, usize)] {
        match &self.work {
            Work::Kernel(kernel) => kernel.in_place,
            Work::Launches(launches) => &launches.pairs,
            _ => &[],
        }
    }
    /// Bytes of scratch memory that the kernel asks for.
    pub(crate) fn scratch_bytes(&self) -> usize {
        match &self.work {
            Work::Kernel(kernel) => (kernel.scratch)(&self.node, &sizes(&self.inputs), &sizes(&self.outputs)),
            Work::Launches(launches) => launches.plan.workspace,
            _ => 0,
        }
    }
    /// Whether the device does it.
    pub(crate) fn is_launched(&self) -> bool {
        matches!(self.work, Work::Launches(_))
    }
    /// Does the step on the host; `graph` holds the functions that the interpreter may need.
    pub(crate) fn run(&self, graph: &Graph, arena: &mut Arena<'_>, threads: Threads) -> Result<()> {
        let done = match &self.work {
            Work::Eval => return self.interpret(graph, arena),
            Work::Map(_) | Work::Launches(_) => Err(Error::new(Code::DEVICE, "the host launches nothing")),
            Work::Kernel(kernel) => (kernel.run)(&mut self.call(arena, threads)),
            Work::Copy => {
                let mut call = self.call(arena, threads);
                call.input(0).and_then(|from| copy(&from, call.output(0)?, threads))
            }
        };
        done.map_err(|e| e.at(format!("node `{}` ({})", node_label(graph, &self.node), self.node.op)))
    }
    /// Borrows what the step reads and writes from the arena.
    fn call<'a>(&'a self, arena: &'a mut Arena<'_>, threads: Threads) -> Call<'a> {
        let shared = |i: usize| self.in_place.iter().find(|pair| pair.0 == i).map(|pair| pair.1);
        let reading: Vec<(usize, &Place)> =
            self.inputs.iter().enumerate().filter_map(|(i, p)| Some((i, p.as_ref()?))).collect();
        let in_arena = reading.iter().filter(|&&(i, p)| shared(i).is_none() && p.buffer().is_some());
        let reads: Vec<Range<usize>> = in_arena.map(|(_, p)| arena.range(p).unwrap_or_default()).collect();
        let mut writes: Vec<Range<usize>> =
            self.outputs.iter().flatten().map(|p| arena.range(p).unwrap_or_default()).collect();
        let scratch = self.scratch.map_or(0..0, |(b, n)| arena.offsets[b]..arena.offsets[b] + n);
        writes.push(scratch);
        let (reads, mut writes) = borrow(arena.memory, &reads, &writes);
        let (mut reads, constants) = (reads.into_iter(), arena.constants);
        let inputs = self.inputs.iter().enumerate().map(|(i, place)| match (place, shared(i)) {
            (None, _) => Operand::Absent,
            (Some(_), Some(result)) => Operand::InPlace(result),
            (Some(place), None) => Operand::View(match place.storage {
                Storage::Constant(c) => view(place, &constants[c].bytes()[place.bytes()]),
                Storage::Buffer(_) => view(place, reads.next().unwrap_or_default()),
            }),
        });
        let inputs = inputs.collect();
        let scratch = writes.pop().unwrap_or_default();
        let mut writes = writes.into_iter();
        let mut output = |place: &'a Place| ViewMut {
            dtype: place.dtype,
            dims: &place.dims,
            data: writes.next().unwrap_or_default(),
        };
        let outputs = self.outputs.iter().map(|p| p.as_ref().map(&mut output)).collect();
        Call { node: &self.node, opset: self.opset, inputs, outputs, scratch, threads }
    }
    fn interpret(&self, graph: &Graph, arena: &mut Arena<'_>) -> Result<()> {
        let read = |place: &Option<Place>| -> Result<Option<Array>> {
            place.as_ref().map(|p| Array::from_tensor(&arena.tensor(p)?)).transpose()
        };
        let arrays: Vec<Option<Array>> = self.inputs.iter().map(read).collect::<Result<_>>()?;
        let operands: Vec<Option<&Array>> = arrays.iter().map(Option::as_ref).collect();
        let results = eval_node(graph, &self.node, &operands, Precision::Native)?;
        for (place, array) in self.outputs.iter().zip(results) {
            let Some(place) = place else { continue };
            let tensor = array.to_tensor()?;
            if (tensor.dtype(), tensor.dims()) != (place.dtype, &place.dims[..]) {
                let message = format!(
                    "inferred {}{:?}, but the result is {}{:?}",
                    place.dtype,
                    place.dims,
                    tensor.dtype(),
                    tensor.dims()
                );
                let label = node_label(graph, &self.node);
                return Err(Error::new(Code::TYPES, message).at(format!("node `{label}` ({})", self.node.op)));
            }
            arena.bytes_mut(place).copy_from_slice(tensor.data());
        }
        Ok(())
    }
    /// Floating-point operations, where a kernel counts them.
    pub(crate) fn flops(&self) -> u64 {
        match &self.work {
            Work::Kernel(kernel) => (kernel.flops)(&self.node, &sizes(&self.inputs), &sizes(&self.outputs)),
            Work::Launches(launches) => launches.plan.traffic().flops,
            _ => 0,
        }
    }
    /// Bytes that it reads and writes, each operand and result once.
    pub(crate) fn traffic(&self) -> u64 {
        let places = self.inputs.iter().chain(&self.outputs).flatten();
        places.map(|p| p.bytes().len() as u64).sum()
    }
}

/// The sizes of places, empty for those left out: what a kernel's counts are given.
fn sizes(places: &[Option<Place>]) -> Vec<&[usize]> {
    places.iter().map(|p| p.as_ref().map_or(&[][..], |p| &p.dims)).collect()
}
