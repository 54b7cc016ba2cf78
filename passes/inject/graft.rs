//! Rewrites one linear: its base node stays or is given other operands, and the adapter's nodes and weights are put
//! beside it.
use super::{
    Config, Method, Weight,
    draws::Draws,
    fit::Given,
    initial::initial,
    inputs::{Fed, Inputs},
    method::BASE,
    plan::Planned,
};
use crate::{
    inline, io, meta, ranks,
    target::{Linear, module},
};
use graft_ir::{
    Attr, Builder, Code, DType, Dim, Error, Function, Graph, Meta, Node, Precision, Result, Tensor, Value,
    affordable, eval::eval, library,
};
use serde_json::json;
use std::collections::HashMap;

/// Puts the adapters of one method into a graph.
pub(super) struct Grafter<'m> {
    method: &'m Method,
    seed: u64,
    given: Given,
    inputs: Inputs,
    /// The number of weights made so far: each draws its own random numbers.
    n_weights: u64,
    /// What each step draws; `None` where nothing is drawn, as in evaluation.
    draws: Option<Draws>,
    /// The weights made so far by module path and role: the uses of a module share them.
    made: HashMap<(String, &'static str), Value>,
}

impl<'m> Grafter<'m> {
    /// `given` are trained weights; `inputs` says which weights become inputs of the graph too; `training` puts what each
    /// step draws into the graph.
    pub(super) fn new(
        method: &'m Method,
        seed: u64,
        given: Given,
        inputs: Inputs,
        training: bool,
    ) -> Grafter<'m> {
        let draws = training.then(Draws::default);
        Grafter { method, seed, given, inputs, n_weights: 0, draws, made: HashMap::new() }
    }

    /// Appends `node`, which is the planned linear, with its adapter. The result keeps its name.
    ///
    /// Beside a half-precision model the adapter computes in `float`, as PEFT does: operands are cast up, and the
    /// result is rounded once.
    pub(super) fn graft(&mut self, node: Node, planned: &Planned<'_>, b: &mut Builder<'_>) -> Result<()> {
        let linear = planned.linear;
        let path = linear.path.as_str();
        let lacks = || Error::new(Code::GRAPH, format!("linear `{path}` lacks an operand or its result"));
        let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { return Err(lacks()) };
        b.scope(format!("{path}.{}_", self.method.name));
        let model = b.graph.dtype(x).or(b.graph.dtype(y)).unwrap_or(planned.linear.dtype);
        let own = if model == DType::Double { DType::Double } else { DType::Float };
        let share = if self.draws.is_some() { planned.config.dropout()? } else { 0.0 };
        let body = Body::of(planned, share > 0.0, own)?;
        let name = adapter_name(&node, linear, self.method.name);
        let bias = node.input(2);
        let keeps = body.keeps_base();
        // Without its bias, which is added behind the adapter.
        let base = Node { inputs: node.inputs.iter().copied().take(2).collect(), ..node };
        let mut operands = Vec::new();
        let kept = if keeps { Some(self.base(base.clone(), y, linear, b)?) } else { None };
        let x = self.cast(x, own, linear, b)?;
        operands.push(x);
        operands.extend(self.dropped(x, share, linear, b)?);
        let kept = kept.map(|v| self.cast(v, own, linear, b)).transpose()?;
        let w = if body.reads_weight() { self.view(&base, own, linear, b)? } else { x };
        operands.push(w);
        for (i, weight) in planned.parts.weights.iter().enumerate() {
            let config = (i == 0).then(|| self.inputs.config(planned));
            operands.push(self.weight(weight, planned, w, own, config.as_ref(), b)?);
        }
        operands.extend(kept);
        let result = if bias.is_some() { named_like(y, "y", b) } else { y };
        let sum = if model == own { result } else { named_like(result, "sum", b) };
        let mut call = Node::new(&body.function.name, &operands, &[sum]);
        call.name.clone_from(&name);
        call.meta = self.notes(linear, "");
        call.attrs = planned.parts.attrs.clone();
        let start = b.graph.nodes.len();
        body.require(b.graph)?;
        inline::expand(&body.function, &call, b)?;
        if !keeps {
            note_base(&mut b.graph.nodes[start..], &base);
        }
        if sum != result {
            let cast = cast_node(sum, result, model);
            b.append(Node { meta: self.notes(linear, "round"), ..cast })?;
        }
        if let Some(bias) = bias {
            let add = Node::new("Add", &[result, bias], &[y]);
            b.append(Node { name: format!("{name}/bias"), meta: self.notes(linear, meta::BIAS), ..add })?;
        }
        Ok(())
    }

    /// What the adapter reads besides `x` where a step of training leaves out a `share` of it.
    fn dropped(
        &mut self,
        x: Value,
        share: f64,
        linear: &Linear,
        b: &mut Builder<'_>,
    ) -> Result<Option<Value>> {
        let notes = self.notes(linear, meta::DROPPED);
        let draws = self.draws.as_mut().filter(|_| share > 0.0);
        draws.map(|draws| draws.dropped(x, share, notes, b)).transpose()
    }

    /// Appends the linear as it is, with a fresh result of the type of `y`.
    fn base(&self, mut node: Node, y: Value, linear: &Linear, b: &mut Builder<'_>) -> Result<Value> {
        let base = b.fresh(BASE);
        let base = b.graph.add_value(base, b.graph[y].ty.clone());
        node.meta.extend(self.notes(linear, meta::BASE));
        node.outputs = vec![Some(base)];
        b.append(node)?;
        Ok(base)
    }

    /// The weight of a linear as (in, out), with its `alpha`, in the type that the adapter computes in.
    fn view(&self, base: &Node, own: DType, linear: &Linear, b: &mut Builder<'_>) -> Result<Value> {
        let lacks = || Error::new(Code::GRAPH, format!("linear `{}` lacks its weight", linear.path));
        let mut w = self.cast(base.input(1).ok_or_else(lacks)?, own, linear, b)?;
        if base.int("transB")?.unwrap_or(0) != 0 {
            let transpose = Node::new("Transpose", &[w], &[]).with("perm", Attr::Ints(vec![1, 0]));
            w = b.push("w", Node { meta: self.notes(linear, meta::VIEW), ..transpose })?;
        }
        if let Some(alpha) = base.float("alpha")?.filter(|&alpha| alpha != 1.0) {
            let alpha = b.scalar_like("alpha", f64::from(alpha), w)?;
            let meta = self.notes(linear, meta::VIEW);
            b.graph.nodes.last_mut().into_iter().for_each(|node| node.meta.clone_from(&meta));
            w = b.push("w", Node { meta, ..Node::new("Mul", &[w, alpha], &[]) })?;
        }
        Ok(w)
    }

    /// Adds a weight: trained where given, otherwise at its initial value; `w` is that of the linear. An earlier use of
    /// the module may have brought it.
    fn weight(
        &mut self,
        weight: &Weight,
        planned: &Planned<'_>,
        w: Value,
        dtype: DType,
        config: Option<&Config>,
        b: &mut Builder<'_>,
    ) -> Result<Value> {
        let linear = planned.linear;
        let (path, mut notes) = (&linear.path, self.notes(linear, weight.role));
        let key = (path.clone(), weight.role);
        if let Some(&made) = self.made.get(&key) {
            return Ok(made);
        }
        let bad = || {
            let message = format!("weight `{}` of `{path}` is no tensor of numbers", weight.role);
            Error::new(Code::ADAPTER_FIT, message)
        };
        affordable(DType::Double, &weight.dims)
            .map_err(|e| e.at(format!("weight `{}` of `{path}`", weight.role)))?;
        let values = match self.given.get(&key) {
            Some(tensor) => tensor.to_f64().ok_or_else(bad)?,
            None => match initial(&weight.init, &weight.dims, self.seed, self.n_weights) {
                Some(values) => values,
                None => column_norms(b.graph, w, path)?,
            },
        };
        // A later use comes here for what it draws itself, which must not move the numbers of the weights behind.
        self.n_weights += u64::from(linear.nth_use == 0);
        if let Some(draws) = self.draws.as_mut().filter(|_| weight.is_drawn) {
            return draws.uniform(&weight.dims, dtype, notes, b);
        }
        if !weight.rank_axes.is_empty() && ranks::holds(self.method, &planned.config)? {
            let axes: Vec<String> = weight.rank_axes.iter().map(usize::to_string).collect();
            notes.insert(meta::RANKED.into(), axes.join(","));
        }
        let fed = self.inputs.fed(planned, weight.role);
        let (dims, values) = self.inputs.stored(weight, fed.as_ref(), values, self.given.contains_key(&key));
        let tensor = Tensor::from_f64(dtype, &dims, values).ok_or_else(bad)?;
        let v = self.param(weight, linear, tensor, notes, b)?;
        fed.iter().for_each(|fed| feed(fed, path, v, b));
        if let Some(config) = config {
            b.graph[v].meta.insert(meta::CONFIG.into(), config_json(config, self.method));
        }
        self.made.insert(key, v);
        Ok(v)
    }

    /// Adds a weight's param, with what training must know of it.
    fn param(
        &self,
        weight: &Weight,
        linear: &Linear,
        tensor: Tensor,
        notes: Meta,
        b: &mut Builder<'_>,
    ) -> Result<Value> {
        let name = b.fresh(weight.role);
        let v = b.graph.add_param(name, tensor);
        let meta = &mut b.graph[v].meta;
        meta.extend(notes);
        let mut note = |key: &str, value: String| drop(meta.insert(key.into(), value));
        if let Some(training) = weight.training {
            note(meta::TRAINABLE, "true".into());
            if training.lr != 1.0 {
                note(meta::LR, training.lr.to_string());
            }
            if !training.decays {
                note(meta::DECAY, "false".into());
            }
        }
        if weight.is_drawn {
            note(meta::DRAWN, "uniform".into());
        }
        if weight.role == ranks::MASK {
            b.graph.inputs.push(v);
            io::set_role(b.graph, &ranks::mask_role(&linear.path), v)?;
        }
        Ok(v)
    }

    fn cast(&self, v: Value, dtype: DType, linear: &Linear, b: &mut Builder<'_>) -> Result<Value> {
        if b.graph.dtype(v).is_none_or(|d| d == dtype) {
            return Ok(v);
        }
        let up = named_like(v, "wide", b);
        b.append(Node { meta: self.notes(linear, meta::WIDEN), ..cast_node(v, up, dtype) })?;
        Ok(up)
    }

    fn notes(&self, linear: &Linear, role: &str) -> Meta {
        let nth_use = linear.nth_use.to_string();
        let notes = [
            (meta::METHOD, self.method.name),
            (meta::TARGET, &linear.path),
            (meta::ROLE, role),
            (meta::VERSION, meta::CURRENT),
        ];
        let later = (linear.nth_use > 0).then_some((meta::USE, nth_use.as_str()));
        notes.into_iter().chain(later).map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }
}

/// A method's function as it is put into a graph.
struct Body {
    /// Each node notes the name of its result as its role. If the linear stays as it is, its result is the last input.
    function: Function,
    keeps_base: bool,
    /// The linear's weight.
    w: Value,
}

impl Body {
    /// The body of the planned adapter, that with dropout or the other.
    fn of(planned: &Planned<'_>, is_dropped: bool, own: DType) -> Result<Body> {
        let variant = planned.variant;
        if is_dropped { Body::new(&variant.dropped()?, own) } else { Body::new(variant.forward()?, own) }
    }
    /// For an adapter that computes in `own`: constants are of that type.
    fn new(function: &Function, own: DType) -> Result<Body> {
        let mut function = function.clone();
        let body = &mut function.body;
        let no_base = || Error::new(Code::METHOD, format!("`{}` has no product `{BASE}`", function.name));
        let is_base = |n: &Node| n.op == "MatMul" && n.output(0).is_some_and(|v| body.name(v) == BASE);
        let base = body.nodes.iter().position(is_base).ok_or_else(no_base)?;
        let w = body.inputs.iter().copied().find(|&v| body.name(v) == "w").ok_or_else(no_base)?;
        let keeps_base = body.nodes[base].inputs[..] == [Some(body.inputs[0]), Some(w)];
        if keeps_base {
            let result = body.nodes.remove(base).output(0);
            body.inputs.extend(result);
        }
        for i in 0..body.nodes.len() {
            let role = body.nodes[i].output(0).map(|v| body.name(v).to_string());
            body.nodes[i].meta.insert(meta::ROLE.into(), role.unwrap_or_default());
            if own == DType::Double {
                widen_constant(&mut body.nodes[i]);
            }
        }
        Ok(Body { function, keeps_base, w })
    }
    /// Whether the node of the linear stays as it is.
    fn keeps_base(&self) -> bool {
        self.keeps_base
    }
    /// Whether anything but the linear reads its weight: then the method is not just added to it.
    fn reads_weight(&self) -> bool {
        let body = &self.function.body;
        body.nodes.iter().flat_map(Node::reads).any(|v| v == self.w)
    }
    /// Brings the library functions that the body calls.
    fn require(&self, graph: &mut Graph) -> Result<()> {
        let calls = self.function.body.nodes.iter().filter(|n| n.op.starts_with("graft."));
        calls.map(|n| n.op.as_str()).try_for_each(|op| library::require(graph, op))
    }
}

/// A body is written for `float`; in a model of `double` its constants are that too.
fn widen_constant(node: &mut Node) {
    if let Some(&Attr::Float(value)) = node.attrs.get("value_float") {
        let wide = Tensor::from_f64(DType::Double, &[], [f64::from(value)]);
        node.attrs = wide.map(|t| ("value".to_string(), Attr::Tensor(t))).into_iter().collect();
    }
}

/// Notes on the rewritten linear, among `nodes`, what it was; it keeps its name.
fn note_base(nodes: &mut [Node], original: &Node) {
    let is_base = |n: &&mut Node| n.meta.get(meta::ROLE).is_some_and(|role| role == meta::BASE);
    let Some(node) = nodes.iter_mut().find(is_base) else { return };
    let number = |attr: &Attr| match attr {
        Attr::Int(n) => Some(json!(n)),
        Attr::Float(x) => Some(json!(x)),
        _ => None,
    };
    let attrs: serde_json::Map<_, _> =
        original.attrs.iter().filter_map(|(key, attr)| Some((key.clone(), number(attr)?))).collect();
    node.meta.insert(meta::ORIGINAL.into(), json!({"op": original.op, "attrs": attrs}).to_string());
    node.name.clone_from(&original.name);
}

/// The Euclidean norm of each column of `w`, a matrix that depends on nothing but weights.
fn column_norms(graph: &Graph, w: Value, path: &str) -> Result<Vec<f64>> {
    let mut expression = Graph { inputs: Vec::new(), outputs: vec![w], ..graph.clone() };
    expression.sweep();
    let place = |e: Error| e.at(format!("the norms of the weight of `{path}`"));
    let w = eval(&expression, &[], Precision::Exact).map_err(place)?.remove(0);
    let columns = w.dims.last().copied().unwrap_or(0);
    let mut squares = vec![0.0; columns];
    for row in w.floats()?.chunks_exact(columns.max(1)) {
        squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
    }
    Ok(squares.into_iter().map(f64::sqrt).collect())
}

/// The settings as JSON, in the order: rank, alpha (if the method has one), the method's own.
fn config_json(config: &Config, method: &Method) -> String {
    let mut object = json!({"rank": config.rank});
    if method.alpha.is_some() {
        object["alpha"] = json!(config.alpha);
    }
    for (key, value) in &config.settings {
        object[key] = json!(value);
    }
    object.to_string()
}

/// Makes a param an input, by its name and of any size along its free axes.
fn feed(fed: &Fed, path: &str, v: Value, b: &mut Builder<'_>) {
    b.graph[v].name = io::free_name(b.graph, &fed.name);
    if let Some(dims) = b.graph[v].ty.as_mut().and_then(|ty| ty.shape.as_mut()) {
        fed.free.iter().for_each(|&axis| dims[axis] = Dim::symbol(&format!("{path}.rank")));
    }
    b.graph.inputs.push(v);
}

/// A fresh value of the same type as `v`.
fn named_like(v: Value, hint: &str, b: &mut Builder<'_>) -> Value {
    let name = b.fresh(hint);
    b.graph.add_value(name, b.graph[v].ty.clone())
}

fn cast_node(from: Value, to: Value, dtype: DType) -> Node {
    Node::new("Cast", &[from], &[to]).with("to", Attr::Int(dtype as i64))
}

/// How the adapter's nodes are called: in the scope of the base node if that is the linear's own, since ONNX Runtime
/// wants the names of nodes to differ.
fn adapter_name(base: &Node, linear: &Linear, method: &str) -> String {
    let scope = match base.name.rsplit_once('/') {
        Some((scope, _)) if module(base) == linear.path => scope,
        _ => linear.path.as_str(),
    };
    match linear.nth_use {
        0 => format!("{scope}/{method}"),
        nth => format!("{scope}/{method}_{nth}"),
    }
}
