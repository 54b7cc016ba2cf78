//! From nodes to steps: what is a view, what is a constant, what a kernel does and what is left to the interpreter.
mod launch;

use crate::{
    arena::Buffer,
    constants::{Constant, Constants},
    device,
    place::{Place, Storage},
    plan::Request,
    specialize::{Concrete, types},
    step::{Arena, Step, Work},
    views::{Seen, see},
};
use graft_ir::{Attr, Code, DType, Error, Graph, Node, Result, Type, Value, infer::node_label};
use graft_kernels::{self as kernels, Memory, Operands, Threads, cuda::Target};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Why a graph cannot be lowered.
pub(crate) enum Stop {
    /// A shape depends on data.
    Dynamic(String),
    /// Something is wrong.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Error(e)
    }
}

/// The element types and sizes of a step's results; `None` for those that nobody wants.
type Results = Vec<Option<(DType, Vec<usize>)>>;

/// A constant of the plan, and its key among those of the session.
struct Named {
    key: String,
    /// Whether other plans may use it.
    stable: bool,
    constant: Arc<Constant>,
}

pub(crate) struct Lowering<'a> {
    concrete: &'a Concrete,
    shared: &'a mut Constants,
    threads: Threads,
    target: Option<Target>,
    /// How floats are stored, where the device may choose.
    format: DType,
    notice: &'a mut dyn FnMut(String),
    places: HashMap<Value, Place>,
    buffers: Vec<Buffer>,
    constants: Vec<Named>,
    keys: HashMap<String, usize>,
    /// Row-major copies, by what they are copies of and their element type.
    copies: HashMap<(Place, DType), Place>,
    steps: Vec<Step>,
    /// The node that defines each value.
    producers: HashMap<Value, usize>,
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(
        concrete: &'a Concrete,
        shared: &'a mut Constants,
        request: &Request<'_>,
        notice: &'a mut dyn FnMut(String),
    ) -> Lowering<'a> {
        let nodes = concrete.graph.nodes.iter().enumerate();
        let producers = nodes.flat_map(|(i, n)| n.defines().map(move |v| (v, i))).collect();
        Lowering {
            concrete,
            shared,
            threads: request.threads,
            target: request.target,
            format: request.format,
            notice,
            places: HashMap::new(),
            buffers: Vec::new(),
            constants: Vec::new(),
            keys: HashMap::new(),
            copies: HashMap::new(),
            steps: Vec::new(),
            producers,
        }
    }
    fn graph(&self) -> &'a Graph {
        &self.concrete.graph
    }
    /// Gives every input a buffer; those of `states` keep theirs from run to run.
    pub(crate) fn feed(&mut self, states: &[Value]) -> Result<Vec<Place>> {
        let graph = self.graph();
        let mut feeds = Vec::with_capacity(graph.inputs.len());
        for &v in &graph.inputs {
            let size = self.size_of(graph[v].ty.as_ref(), graph.name(v)).map_err(|stop| match stop {
                Stop::Error(e) => e,
                Stop::Dynamic(reason) => Error::new(Code::DYNAMIC, reason),
            })?;
            let place = self.fresh(size.0, size.1);
            let buffer = self.buffers.last_mut().expect("just made");
            (buffer.first, buffer.is_state) = (0, states.contains(&v));
            self.places.insert(v, place.clone());
            feeds.push(place);
        }
        Ok(feeds)
    }
    /// Lowers all that the outputs need, and says where they lie: never in the memory of a state.
    pub(crate) fn lower_all(&mut self) -> Result<Vec<Place>, Stop> {
        let graph = self.graph();
        let needed = self.needed();
        for i in (0..graph.nodes.len()).filter(|&i| needed[i]) {
            self.lower(i)?;
        }
        let mut outputs = Vec::with_capacity(graph.outputs.len());
        for &v in &graph.outputs {
            let place = self.value(v)?;
            let in_state = place.buffer().is_some_and(|b| self.buffers[b].is_state);
            let dtype = graph.dtype(v).unwrap_or(place.dtype);
            let is_other = in_state || dtype != place.dtype;
            outputs.push(if is_other { self.copied(&place, dtype)? } else { place });
        }
        Ok(outputs)
    }
    /// The steps, the buffers and the constants; those that other plans may use are kept for them.
    pub(crate) fn finish(self, outputs: &[Place]) -> (Vec<Step>, Vec<Buffer>, Vec<Arc<Constant>>) {
        let constant = |p: &Place| if let Storage::Constant(c) = p.storage { Some(c) } else { None };
        let read = self.steps.iter().flat_map(|s| s.inputs.iter().flatten());
        let used: HashSet<usize> = read.chain(outputs).filter_map(constant).collect();
        let mut constants = Vec::with_capacity(self.constants.len());
        for (i, Named { key, stable, constant }) in self.constants.into_iter().enumerate() {
            // What only led to other constants is let go.
            let kept =
                if used.contains(&i) { constant } else { Arc::new(Constant::Owned(Memory::default())) };
            if stable && used.contains(&i) {
                self.shared.insert(key, kept.clone());
            }
            constants.push(kept);
        }
        (self.steps, self.buffers, constants)
    }
    /// The nodes that outputs depend on, but for those that are constant: they are lowered when they are read.
    fn needed(&self) -> Vec<bool> {
        let graph = self.graph();
        let mut live: HashSet<Value> = graph.outputs.iter().copied().collect();
        let mut needed = vec![false; graph.nodes.len()];
        for (i, node) in graph.nodes.iter().enumerate().rev() {
            let wanted = |v: &Value| {
                live.contains(v) && graph[*v].tensor.is_none() && !self.concrete.stable.contains(v)
            };
            if node.defines().any(|v| wanted(&v)) {
                needed[i] = true;
                live.extend(node.reads());
            }
        }
        needed
    }
    /// Where a value lies; a constant is computed when it is first read.
    fn value(&mut self, v: Value) -> Result<Place, Stop> {
        if let Some(place) = self.places.get(&v) {
            return Ok(place.clone());
        }
        let graph = self.graph();
        let (data, stable) = (&graph[v], self.concrete.stable.contains(&v));
        let known = stable.then(|| self.shared.get(&data.name)).flatten();
        let place = match (&data.tensor, known, self.producers.get(&v)) {
            (Some(tensor), known, _) => {
                let constant = known.map_or_else(|| Constant::of_tensor(tensor).map(Arc::new), Ok);
                let constant = constant.map_err(|e| e.at(format!("`{}`", data.name)))?;
                self.constant(&data.name, stable, tensor.dtype(), tensor.dims().to_vec(), constant)
            }
            (None, Some(known), _) => {
                let (dtype, dims) = self.size_of(data.ty.as_ref(), &data.name)?;
                self.constant(&data.name, true, dtype, dims, known)
            }
            (None, None, Some(&producer)) if stable => {
                self.lower(producer)?;
                return self.places.get(&v).cloned().ok_or_else(|| undefined(&data.name));
            }
            _ if graph.is_param(v) => {
                let message = format!("the data of weight `{}` is elided", data.name);
                return Err(Error::new(Code::VALUE, message).into());
            }
            _ => return Err(undefined(&data.name)),
        };
        self.places.insert(v, place.clone());
        Ok(place)
    }
    fn constant(
        &mut self,
        key: &str,
        stable: bool,
        dtype: DType,
        dims: Vec<usize>,
        constant: Arc<Constant>,
    ) -> Place {
        let at = *self.keys.entry(key.into()).or_insert(self.constants.len());
        if at == self.constants.len() {
            self.constants.push(Named { key: key.into(), stable, constant });
        }
        Place::whole(Storage::Constant(at), dtype, dims)
    }
    /// Element type and sizes, which must be numbers by now.
    fn size_of(&self, ty: Option<&Type>, name: &str) -> Result<(DType, Vec<usize>), Stop> {
        let found = ty.and_then(|ty| Some((ty.dtype, ty.sizes()?)));
        let (dtype, dims) =
            found.ok_or_else(|| Stop::Dynamic(format!("the shape of `{name}` depends on data")))?;
        if dtype.bits() == 0 || !dtype.bits().is_multiple_of(8) {
            let message = format!("tensors of {dtype} cannot be computed with");
            return Err(Error::new(Code::NO_EVAL, message).at(format!("`{name}`")).into());
        }
        Ok((dtype, dims))
    }
    /// A buffer of its own for a tensor.
    fn fresh(&mut self, dtype: DType, dims: Vec<usize>) -> Place {
        let buffer = self.buffer(dims.iter().product::<usize>() * dtype.bits() / 8);
        Place::whole(Storage::Buffer(buffer), dtype, dims)
    }
    fn buffer(&mut self, bytes: usize) -> usize {
        self.buffers.push(Buffer { bytes, first: usize::MAX, last: 0, is_state: false, within: None });
        self.buffers.len() - 1
    }
    /// Lowers one node.
    fn lower(&mut self, i: usize) -> Result<(), Stop> {
        let graph = self.graph();
        let node = &graph.nodes[i];
        let place = || format!("node `{}` ({})", node_label(graph, node), node.op);
        self.lower_node(node).map_err(|stop| match stop {
            // A constant that is lowered on the way has named its own node.
            Stop::Error(e) if e.at.is_empty() => Stop::Error(e.at(place())),
            Stop::Dynamic(reason) if !reason.contains(": ") => {
                Stop::Dynamic(format!("{}: {reason}", place()))
            }
            stop => stop,
        })
    }
    fn lower_node(&mut self, node: &'a Node) -> Result<(), Stop> {
        if let Some(captured) = node.captures.first() {
            // The interpreter is handed operands only.
            let message =
                format!("its subgraph reads `{}` of the enclosing graph", self.graph().name(*captured));
            return Err(Error::new(Code::NO_EVAL, message).into());
        }
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for v in &node.inputs {
            inputs.push(v.map(|v| self.value(v)).transpose()?);
        }
        if let Some(Some(x)) = inputs.first().cloned()
            && self.lower_view(node, x)?
        {
            return Ok(());
        }
        let stable = node.defines().all(|v| self.concrete.stable.contains(&v));
        let opset = self.graph().opset(node.domain_and_name().0).unwrap_or(1);
        if let Some(target) = self.target.filter(|_| !stable)
            && let Some((step, results)) = self.launched(node, opset, &inputs, target)?
        {
            return self.schedule(step, results);
        }
        // The host knows of no other format than the graph's.
        for (place, v) in inputs.iter_mut().zip(&node.inputs) {
            let dtype = v.and_then(|v| self.graph().dtype(v));
            if let (Some(place), Some(dtype)) = (place, dtype)
                && place.dtype != dtype
            {
                *place = self.copied(place, dtype)?;
            }
        }
        let types = types(self.graph(), node);
        let work = kernels::lookup(node, &types).map_or(Work::Eval, Work::Kernel);
        if let Work::Kernel(kernel) = &work {
            self.straighten(&mut inputs, kernel.strided)?;
        }
        if !stable && (self.target.is_some() || matches!(work, Work::Eval)) {
            let operands: Vec<String> = types.iter().flatten().map(|t| t.dtype.to_string()).collect();
            let message = format!("`{}` on ({}) has no kernel here", node.op, operands.join(", "));
            let how = match work {
                Work::Eval => "by the reference interpreter",
                _ => "on the host",
            };
            (self.notice)(format!("{message} and runs, slowly, {how}"));
        }
        let step = Step { work, opset, inputs, ..Step::of(node) };
        if stable {
            return self.compute(step);
        }
        let graph = self.graph();
        let whole =
            |v: &Option<Value>| v.map(|v| self.size_of(graph[v].ty.as_ref(), graph.name(v))).transpose();
        let results = node.outputs.iter().map(whole).collect::<Result<_, Stop>>()?;
        self.schedule(step, results)
    }
    /// Makes operands row-major but for those that may be `strided`.
    fn straighten(&mut self, inputs: &mut [Option<Place>], strided: Operands) -> Result<(), Stop> {
        for (i, place) in inputs.iter_mut().enumerate() {
            if let Some(p) = place.as_mut().filter(|p| !strided.contains(i) && !p.is_row_major()) {
                *p = self.copied(p, p.dtype)?;
            }
        }
        Ok(())
    }
    /// Sees the results as views of the first operand, if that is what the op does.
    fn lower_view(&mut self, node: &Node, x: Place) -> Result<bool, Stop> {
        let seen = match see(self.graph(), node, &x)? {
            Seen::OnceRowMajor => {
                let copy = self.copied(&x, x.dtype)?;
                see(self.graph(), node, &copy)?
            }
            seen => seen,
        };
        let Seen::As(places) = seen else { return Ok(false) };
        for (v, place) in node.outputs.iter().zip(places) {
            v.map(|v| self.places.insert(v, place));
        }
        Ok(true)
    }
    /// A row-major copy of what lies at `place`, with elements of another type if `dtype` is one.
    fn copied(&mut self, place: &Place, dtype: DType) -> Result<Place, Stop> {
        if let Some(copy) = self.copies.get(&(place.clone(), dtype)) {
            return Ok(copy.clone());
        }
        let copy = match place.storage {
            Storage::Buffer(_) => {
                let to = self.fresh(dtype, place.dims.clone());
                self.steps.push(Step { work: self.copying(), ..Step::copy(place.clone(), to.clone()) });
                to
            }
            Storage::Constant(c) => {
                let Named { key, stable, .. } = &self.constants[c];
                let key = format!("{key}@{}:{:?}:{:?}:{dtype}", place.offset, place.dims, place.strides);
                let (stable, shared) = (*stable, self.shared.get(&key));
                let constant = match shared.filter(|_| stable) {
                    Some(constant) => constant,
                    None => {
                        let made = self.run_now(&conversion(place, dtype))?;
                        made.into_iter().next().ok_or_else(|| undefined(&key))?
                    }
                };
                self.constant(&key, stable, dtype, place.dims.clone(), constant)
            }
        };
        self.copies.insert((place.clone(), dtype), copy.clone());
        Ok(copy)
    }
    /// How a strided tensor is made row-major.
    fn copying(&self) -> Work {
        self.target.map_or(Work::Copy, |_| Work::Map(device::COPY.into()))
    }
    /// Plans `step` with fresh buffers for its `results` and its scratch memory.
    fn schedule(&mut self, mut step: Step, results: Results) -> Result<(), Stop> {
        step.outputs = results.into_iter().map(|r| r.map(|(dtype, dims)| self.fresh(dtype, dims))).collect();
        let scratch = step.scratch_bytes();
        step.scratch = (scratch > 0).then(|| (self.buffer(scratch), scratch));
        for (v, place) in step.node.outputs.iter().zip(&step.outputs) {
            v.zip(place.clone()).map(|(v, place)| self.places.insert(v, place));
        }
        self.steps.push(step);
        Ok(())
    }
    /// Does `step`, whose operands are constants, at once: its results are constants too.
    fn compute(&mut self, mut step: Step) -> Result<(), Stop> {
        let graph = self.graph();
        for v in &step.node.outputs {
            let n = step.outputs.iter().flatten().count();
            let size = v.map(|v| self.size_of(graph[v].ty.as_ref(), graph.name(v))).transpose()?;
            step.outputs.push(size.map(|(dtype, dims)| Place::whole(Storage::Buffer(n), dtype, dims)));
        }
        let made = self.run_now(&step)?;
        let wanted = step.node.outputs.iter().zip(&step.outputs).filter_map(|(v, p)| (*v).zip(p.as_ref()));
        for ((v, place), constant) in wanted.zip(made) {
            let place = self.constant(graph.name(v), true, place.dtype, place.dims.clone(), constant);
            self.places.insert(v, place);
        }
        Ok(())
    }
    /// Runs a step on constants; its results lie in buffers 0, 1, ….
    fn run_now(&self, step: &Step) -> Result<Vec<Arc<Constant>>, Stop> {
        let results: Vec<&Place> = step.outputs.iter().flatten().collect();
        let sizes: Vec<usize> = results.iter().map(|p| p.bytes().len()).collect();
        let scratch = step.scratch_bytes();
        let mut offsets = vec![0];
        for size in &sizes {
            offsets.push(offsets[offsets.len() - 1] + size.next_multiple_of(kernels::ALIGN));
        }
        let mut memory = Memory::zeroed(offsets[sizes.len()] + scratch);
        let constants: Vec<Arc<Constant>> = self.constants.iter().map(|c| c.constant.clone()).collect();
        let scratch = (scratch > 0).then_some((sizes.len(), scratch));
        let step = Step { scratch, ..step.clone() };
        let mut arena = Arena { memory: memory.bytes_mut(), offsets: &offsets, constants: &constants };
        step.run(self.graph(), &mut arena, self.threads)?;
        if let ([size], true) = (&sizes[..], step.scratch.is_none()) {
            debug_assert!(memory.len() >= *size);
            return Ok(vec![Arc::new(Constant::Owned(memory))]);
        }
        let part = |(from, size): (&usize, &usize)| {
            Arc::new(Constant::Owned(Memory::copy_of(&memory.bytes()[*from..from + size])))
        };
        Ok(offsets.iter().zip(&sizes).map(part).collect())
    }
}

/// The step that makes a constant row-major, or one of another element type.
fn conversion(place: &Place, dtype: DType) -> Step {
    let to = Place::whole(Storage::Buffer(0), dtype, place.dims.clone());
    if dtype == place.dtype {
        return Step::copy(place.clone(), to);
    }
    let mut node = Node::new("Cast", &[], &[]);
    node.attrs.insert("to".into(), Attr::Int(dtype as i64));
    let types = [Some(Type::new(place.dtype, place.dims.iter().copied()))];
    let work = kernels::lookup(&node, &types).map_or(Work::Eval, Work::Kernel);
    Step { work, inputs: vec![Some(place.clone())], outputs: vec![Some(to)], ..Step::of(&node) }
}

fn undefined(name: &str) -> Stop {
    Error::new(Code::GRAPH, format!("nothing defines `{name}`")).into()
}
