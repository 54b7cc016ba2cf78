//! A session: a graph, its state, and the plans made for the sizes that it was fed.
use crate::{
    Device, Options, Profile,
    arena::arrange_state,
    backend::Backend,
    constants::Constants,
    cuda::Cuda,
    feed,
    host::Host,
    plan::{Planned, Request, plan},
};
use graft_ir::{
    Array, Code, DType, Error, Graph, Precision, Result, Tensor, Type, Value, error::nearest, eval::eval,
};
use graft_kernels::{Threads, cuda::Measurements};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::HashSet;

/// Plans kept; the least recently used one goes when another is needed.
const MAX_PLANS: usize = 8;

/// Runs one graph.
///
/// A run that fails may have replaced part of the state.
pub struct Session {
    graph: Graph,
    aliases: Vec<(Value, Value)>,
    /// Whether each of `graph.inputs` is state.
    is_state: Vec<bool>,
    states: Vec<State>,
    /// Where it runs; its memory holds the state, and behind it the arena of the largest plan so far.
    backend: Box<dyn Backend>,
    constants: Constants,
    /// The most recently used first.
    plans: Vec<(Vec<Vec<usize>>, Planned)>,
    threads: Threads,
    format: DType,
    /// None where the calling thread does all the work.
    pool: Option<ThreadPool>,
    notices: Vec<String>,
    profile: Option<Profile>,
}

/// An input whose value lives on from run to run.
struct State {
    input: Value,
    dtype: DType,
    dims: Vec<usize>,
    /// Its first byte in the session's memory.
    offset: usize,
    is_set: bool,
}

impl State {
    fn range(&self) -> std::ops::Range<usize> {
        let bytes = self.dims.iter().product::<usize>() * self.dtype.bits() / 8;
        self.offset..self.offset + bytes
    }
}

/// The memory that a session needs, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Footprint {
    /// The model's weights, which may lie in a mapped file.
    pub weights: usize,
    /// Copies of weights and constants in a layout of our own.
    pub packed: usize,
    /// The state.
    pub state: usize,
    /// Everything between inputs and outputs, for the largest plan so far.
    pub activations: usize,
}

impl Footprint {
    /// All of it.
    pub fn total(&self) -> usize {
        self.weights + self.packed + self.state + self.activations
    }
}

impl Session {
    /// A session for `graph`, whose outputs named second in `aliases` replace, after each run, the inputs named first.
    ///
    /// Such an input is state: its shape must be fixed, it starts as the param of the same name if there is one, else as
    /// [`Session::set_state`] says, and it cannot be fed.
    ///
    /// # Errors
    /// `DEVICE` for a device that this build does not have; `GRAPH` for aliases that do not fit the graph.
    pub fn new(graph: &Graph, aliases: &[(String, String)], options: &Options) -> Result<Session> {
        options.check()?;
        let backend: Box<dyn Backend> = match options.device {
            Device::Cpu => Box::new(Host::default()),
            Device::Cuda => Box::new(Cuda::open()?),
        };
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = Threads::new(options.threads.unwrap_or_else(available));
        let build = || ThreadPoolBuilder::new().num_threads(threads.count()).build();
        let pool = (threads != Threads::ONE).then(build).transpose();
        let pool = pool.map_err(|e| Error::new(Code::DEVICE, format!("cannot start threads: {e}")))?;
        let aliases = resolve_aliases(graph, aliases)?;
        let inputs = graph.inputs.iter();
        let is_state: Vec<bool> = inputs.map(|v| aliases.iter().any(|(i, _)| i == v)).collect();
        let mut session = Session {
            graph: graph.clone(),
            states: states(graph, &is_state)?,
            aliases,
            is_state,
            backend,
            constants: Constants::default(),
            plans: Vec::new(),
            threads,
            format: options.format.dtype(),
            pool,
            notices: Vec::new(),
            profile: options.profile.then(Profile::default),
        };
        session.backend.grow(session.states.last().map_or(0, |s| s.range().end), 0)?;
        for i in 0..session.states.len() {
            if let Some(tensor) = &graph[session.states[i].input].tensor {
                session.write_state(i, tensor)?;
            }
        }
        Ok(session)
    }
    /// Runs the graph on named inputs, and returns its outputs in order, but for those that are state.
    ///
    /// # Errors
    /// `FEED` for inputs that are missing, unknown, or of another type or shape than declared; whatever a node reports.
    pub fn run(&mut self, feeds: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>> {
        let tensors = feed::resolve(&self.graph, feeds, &self.is_state)?;
        if let Some(state) = self.states.iter().find(|s| !s.is_set) {
            return Err(Error::new(
                Code::FEED,
                format!("state `{}` is not set", self.graph.name(state.input)),
            ));
        }
        let sizes = self.sizes(&tensors)?;
        self.prepare(&sizes)?;
        match self.plans.first() {
            Some((_, Planned::Plan(_))) => self.run_plan(&tensors),
            _ => self.interpret(tensors),
        }
    }
    /// Runs the graph once and measures its large products on this device, with each tile and with the library of products
    /// where that is found; where it is not, a notice says so.
    ///
    /// # Errors
    /// As [`Session::run`]; `DEVICE` on a device that has no tiles to choose from.
    pub fn tune(&mut self, feeds: &[(&str, &Tensor)]) -> Result<Measurements> {
        self.run(feeds)?;
        match self.plans.first() {
            Some((_, Planned::Plan(plan))) => {
                let (found, notes) = self.backend.tune(plan)?;
                notes.into_iter().for_each(|note| self.notices.push(note));
                Ok(found)
            }
            _ => Err(Error::new(Code::DYNAMIC, "what depends on data is not launched, and has no tiles")),
        }
    }
    /// Replaces the value of a state input.
    ///
    /// # Errors
    /// `FEED` if there is no such state or the tensor does not fit it.
    pub fn set_state(&mut self, input: &str, tensor: &Tensor) -> Result<()> {
        let i = self.find_state(input)?;
        self.write_state(i, tensor)
    }
    /// The value of a state input.
    ///
    /// # Errors
    /// `FEED` if there is no such state or it was never set.
    pub fn state(&self, input: &str) -> Result<Tensor> {
        let state = &self.states[self.find_state(input)?];
        if !state.is_set {
            return Err(Error::new(Code::FEED, format!("state `{input}` is not set")));
        }
        Tensor::new(state.dtype, state.dims.clone(), self.backend.read(state.range())?.into())
    }
    /// The names of the state inputs, in the graph's order.
    pub fn states(&self) -> impl Iterator<Item = &str> {
        self.states.iter().map(|s| self.graph.name(s.input))
    }
    /// What runs slowly, and why, each said once.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }
    /// What was measured so far, if the options asked for it.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }
    /// What it runs on, for people: `cpu`, or `cuda` with the device's name.
    pub fn device(&self) -> String {
        self.backend.name()
    }
    /// Whether it runs on a device that is only imitated: results count, times do not.
    pub fn is_emulated(&self) -> bool {
        self.backend.is_emulated()
    }
    /// The threads in use.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }
    /// The memory in use now: that of the largest plan so far.
    pub fn footprint(&self) -> Footprint {
        let sizes =
            self.graph.params.iter().filter_map(|&p| Some(self.graph[p].tensor.as_ref()?.data().len()));
        let state = self.states.last().map_or(0, |s| s.range().end);
        let activations = self.backend.len().saturating_sub(state);
        Footprint { weights: sizes.sum(), packed: self.constants.own_bytes(), state, activations }
    }
    /// The memory that runs on inputs of these sizes need, found by planning for them; nothing is run.
    ///
    /// # Errors
    /// As [`Session::run`] for sizes that do not fit what is declared.
    pub fn footprint_for(&mut self, sizes: &[(&str, &[usize])]) -> Result<Footprint> {
        let given =
            |v: &Value| sizes.iter().find(|(name, _)| *name == self.graph.name(*v)).map(|(_, s)| s.to_vec());
        let fixed = |v: &Value| self.graph[*v].ty.as_ref().and_then(Type::sizes);
        let missing =
            |v: &Value| Error::new(Code::FEED, format!("the sizes of `{}` are missing", self.graph.name(*v)));
        let inputs = self.graph.inputs.iter();
        let sizes: Vec<Vec<usize>> =
            inputs.map(|v| given(v).or_else(|| fixed(v)).ok_or_else(|| missing(v))).collect::<Result<_>>()?;
        self.prepare(&sizes)?;
        Ok(self.footprint())
    }
    /// The sizes of all inputs.
    fn sizes(&self, tensors: &[Option<Tensor>]) -> Result<Vec<Vec<usize>>> {
        let mut states = self.states.iter();
        let size = |t: &Option<Tensor>| match t {
            Some(tensor) => Ok(tensor.dims().to_vec()),
            None => states
                .next()
                .map(|s| s.dims.clone())
                .ok_or_else(|| Error::new(Code::FEED, "an input is missing")),
        };
        tensors.iter().map(size).collect()
    }
    /// Makes the plan for these sizes the first one, and the memory large enough for it.
    fn prepare(&mut self, sizes: &[Vec<usize>]) -> Result<()> {
        if let Some(at) = self.plans.iter().position(|(key, _)| key == sizes) {
            self.plans[..=at].rotate_right(1);
            return Ok(());
        }
        let mut notices = Vec::new();
        let (threads, target, format) = (self.threads, self.backend.target(), self.format);
        let request = Request { graph: &self.graph, aliases: &self.aliases, sizes, threads, target, format };
        let (constants, pool) = (&mut self.constants, &self.pool);
        let mut planned = on(pool.as_ref(), || plan(&request, constants, &mut |text| notices.push(text)))?;
        match &mut planned {
            Planned::Dynamic(reason) => {
                notices =
                    vec![format!("{reason}: the whole graph runs, slowly, by the reference interpreter")];
            }
            Planned::Plan(plan) => {
                if plan.arena > self.backend.len() {
                    let state = self.states.last().map_or(0, |s| s.range().end);
                    self.backend.grow(plan.arena, state)?;
                }
                notices.extend(self.backend.prepare(plan)?);
            }
        }
        for notice in notices {
            if !self.notices.contains(&notice) {
                self.notices.push(notice);
            }
        }
        self.plans.truncate(MAX_PLANS - 1);
        self.plans.insert(0, (sizes.to_vec(), planned));
        Ok(())
    }
    /// Runs the first plan.
    fn run_plan(&mut self, tensors: &[Option<Tensor>]) -> Result<Vec<(String, Tensor)>> {
        let Some((_, Planned::Plan(plan))) = self.plans.first_mut() else { return Ok(Vec::new()) };
        for (place, tensor) in plan.feeds.iter().zip(tensors) {
            if let (Some(tensor), Some(range)) = (tensor, plan.range(place)) {
                self.backend.write(range.start, tensor.data())?;
            }
        }
        let (backend, threads, profile) = (&mut self.backend, self.threads, self.profile.as_mut());
        on(self.pool.as_ref(), || backend.run(plan, threads, profile))?;
        let mut results = Vec::new();
        for (&v, place) in plan.graph.outputs.iter().zip(&plan.outputs) {
            if !self.aliases.iter().any(|&(_, o)| o == v) {
                results.push((plan.graph.name(v).into(), self.backend.tensor(plan, place)?));
            }
        }
        Ok(results)
    }
    /// Runs the graph by the reference interpreter.
    fn interpret(&mut self, tensors: Vec<Option<Tensor>>) -> Result<Vec<(String, Tensor)>> {
        let mut arrays = Vec::with_capacity(tensors.len());
        for (tensor, &v) in tensors.iter().zip(&self.graph.inputs) {
            let state = || self.state(self.graph.name(v));
            let tensor = tensor.clone().map_or_else(state, Ok)?;
            arrays.push(Some(Array::from_tensor(&tensor)?));
        }
        let results = eval(&self.graph, &arrays, Precision::Native)?;
        let results = results.iter().map(Array::to_tensor).collect::<Result<Vec<_>>>()?;
        let mut returned = Vec::new();
        for (v, tensor) in self.graph.outputs.clone().into_iter().zip(results) {
            let inputs: Vec<Value> = self.aliases.iter().filter(|a| a.1 == v).map(|a| a.0).collect();
            if inputs.is_empty() {
                returned.push((self.graph.name(v).into(), tensor));
                continue;
            }
            for i in 0..self.states.len() {
                if inputs.contains(&self.states[i].input) {
                    self.write_state(i, &tensor)?;
                }
            }
        }
        Ok(returned)
    }
    fn find_state(&self, input: &str) -> Result<usize> {
        let unknown = || {
            let nearest = nearest(input, self.states()).join("`, `");
            Error::new(Code::FEED, format!("there is no state `{input}`"))
                .help(format!("nearest: `{nearest}`"))
        };
        self.states().position(|name| name == input).ok_or_else(unknown)
    }
    fn write_state(&mut self, i: usize, tensor: &Tensor) -> Result<()> {
        let state = &mut self.states[i];
        if (tensor.dtype(), tensor.dims()) != (state.dtype, &state.dims[..]) {
            let name = self.graph.name(state.input);
            let (dtype, dims) = (tensor.dtype(), tensor.dims());
            let message = format!("state `{name}` is {}{:?}, found {dtype}{dims:?}", state.dtype, state.dims);
            return Err(Error::new(Code::FEED, message));
        }
        self.backend.write(state.range().start, tensor.data())?;
        state.is_set = true;
        Ok(())
    }
}

/// Calls `work` in the pool, if there is one.
fn on<R: Send>(pool: Option<&ThreadPool>, work: impl FnOnce() -> R + Send) -> R {
    match pool {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

/// The values that aliases name.
fn resolve_aliases(graph: &Graph, aliases: &[(String, String)]) -> Result<Vec<(Value, Value)>> {
    let mut taken = HashSet::new();
    let find = |values: &[Value], name: &str, what: &str| {
        let found = values.iter().copied().find(|&v| graph.name(v) == name);
        found.ok_or_else(|| Error::new(Code::GRAPH, format!("the alias `{name}` is no {what} of the graph")))
    };
    let mut resolved = Vec::with_capacity(aliases.len());
    for (input, output) in aliases {
        let pair = (find(&graph.inputs, input, "input")?, find(&graph.outputs, output, "output")?);
        if !taken.insert(pair.0) {
            return Err(Error::new(Code::GRAPH, format!("the input `{input}` has two aliases")));
        }
        resolved.push(pair);
    }
    Ok(resolved)
}

/// The state inputs with their places, in the graph's order.
fn states(graph: &Graph, is_state: &[bool]) -> Result<Vec<State>> {
    let mut states = Vec::new();
    for (&v, _) in graph.inputs.iter().zip(is_state).filter(|(_, state)| **state) {
        let found = graph[v].ty.as_ref().and_then(|ty| Some((ty.dtype, ty.sizes()?)));
        let open = || Error::new(Code::GRAPH, format!("the state `{}` has no fixed shape", graph.name(v)));
        let (dtype, dims) = found.ok_or_else(open)?;
        states.push(State { input: v, dtype, dims, offset: 0, is_set: false });
    }
    let (offsets, _) = arrange_state(states.iter().map(|s| s.range().len()));
    states.iter_mut().zip(offsets).for_each(|(s, at)| s.offset = at);
    Ok(states)
}
