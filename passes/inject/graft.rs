//! Rewrites one linear: the base stays, the adapter's nodes and weights are put beside it.
use super::{Config, Init, Kind, Method, Weight, fit::Given, plan::Planned};
use crate::{inline, meta};
use graft_ir::{Builder, Code, DType, Error, Function, Meta, Node, Result, Tensor, Value, random};
use serde_json::json;

/// Random tensors are told apart by a number below this within one step of the generator.
const TENSORS_PER_STEP: u64 = 1 << 12;

/// Puts the adapters of one method into a graph.
pub(super) struct Grafter<'m> {
    method: &'m Method,
    functions: Vec<Function>,
    seed: u64,
    given: Given,
    overridable: bool,
    /// The number of weights made so far: each draws its own random numbers.
    n_weights: u64,
}

impl<'m> Grafter<'m> {
    /// `given` are trained weights; where `overridable`, weights become inputs of the graph too.
    pub(super) fn new(method: &'m Method, seed: u64, given: Given, overridable: bool) -> Result<Grafter<'m>> {
        Ok(Grafter { method, functions: method.parsed()?, seed, given, overridable, n_weights: 0 })
    }

    /// Appends `node`, which is the planned linear, with its adapter. The result keeps its name.
    pub(super) fn graft(&mut self, node: Node, planned: &Planned<'_>, b: &mut Builder<'_>) -> Result<()> {
        let path = &planned.linear.path;
        let lacks = || Error::new(Code::GRAPH, format!("linear `{path}` lacks an operand or its result"));
        let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { return Err(lacks()) };
        b.scope(format!("{path}.{}_", self.method.name));
        let notes = |role: &str| self.notes(path, role);
        let node_name = adapter_name(&node.name, path, self.method.name);

        let bias = node.input(2);
        let mut base_node = node;
        base_node.inputs.truncate(2);
        base_node.meta.extend(notes(meta::BASE));
        let base = b.fresh("base");
        let base = b.graph.add_value(base, b.graph[y].ty.clone());
        base_node.outputs = vec![Some(base)];
        b.append(base_node)?;

        let result = if bias.is_some() { named_like(y, "y", b) } else { y };
        let call = Node { name: node_name.clone(), meta: notes(""), ..Node::default() };
        self.adapter(call, [x, base, result], planned, b)?;
        if let Some(bias) = bias {
            let add = Node::new("Add", &[result, bias], &[y]);
            b.append(Node { name: format!("{node_name}/bias"), meta: self.notes(path, meta::BIAS), ..add })?;
        }
        Ok(())
    }

    /// Appends weights and nodes that make `result` of `x` and the base linear's result.
    ///
    /// Beside a half-precision model the adapter computes in `float`, as PEFT does: operands are cast up, and the sum
    /// is rounded once.
    fn adapter(
        &mut self,
        mut call: Node,
        [x, base, result]: [Value; 3],
        planned: &Planned<'_>,
        b: &mut Builder<'_>,
    ) -> Result<()> {
        let path = &planned.linear.path;
        let model = b.graph.dtype(x).or(b.graph.dtype(base)).unwrap_or(planned.linear.dtype);
        let own = if model == DType::Double { DType::Double } else { DType::Float };
        let body = self.body(&planned.config)?;
        let mut operands = vec![self.cast(x, own, path, b)?, self.cast(base, own, path, b)?];
        for (i, weight) in planned.weights.iter().enumerate() {
            let config = (i == 0).then_some(&planned.config);
            operands.push(self.weight(weight, path, own, config, b)?);
        }
        let sum = if model == own { result } else { named_like(result, "sum", b) };
        call.op.clone_from(&body.name);
        call.inputs = operands.into_iter().map(Some).collect();
        call.outputs = vec![Some(sum)];
        inline::expand(&body, &call, b)?;
        if sum != result {
            let cast = cast_node(sum, result, model);
            b.append(Node { meta: self.notes(path, "round"), ..cast })?;
        }
        Ok(())
    }

    /// The method's function without its base linear, whose result is an input in place of `w`; each node notes the
    /// name of its result as its role.
    fn body(&self, config: &Config) -> Result<Function> {
        let name = (self.method.function)(config);
        let missing = || Error::new(Code::METHOD, format!("method `{}` lacks `{name}`", self.method.name));
        let mut function = self.functions.iter().find(|f| f.name == name).ok_or_else(missing)?.clone();
        let body = &mut function.body;
        let is_base =
            |n: &Node| n.op == "MatMul" && n.inputs[..] == [Some(body.inputs[0]), Some(body.inputs[1])];
        let base = body.nodes.iter().position(is_base).filter(|_| self.method.kind == Kind::Additive);
        let base = base.ok_or_else(|| {
            Error::new(Code::METHOD, format!("`{name}` is not a base linear and what is added to it"))
        })?;
        if let Some(result) = body.nodes.remove(base).output(0) {
            body.inputs[1] = result;
        }
        for i in 0..body.nodes.len() {
            let role = body.nodes[i].output(0).map(|v| body.name(v).to_string());
            body.nodes[i].meta.insert(meta::ROLE.into(), role.unwrap_or_default());
        }
        Ok(function)
    }

    /// Adds a weight: trained where given, otherwise at its initial value.
    fn weight(
        &mut self,
        weight: &Weight,
        path: &str,
        dtype: DType,
        config: Option<&Config>,
        b: &mut Builder<'_>,
    ) -> Result<Value> {
        let values = match self.given.get(&(path.to_string(), weight.role)) {
            Some(tensor) => tensor.to_f64(),
            None => Some(initial(weight, self.seed, self.n_weights)),
        };
        self.n_weights += 1;
        let tensor = values.and_then(|v| Tensor::from_f64(dtype, &weight.dims, v));
        let bad = || {
            Error::new(
                Code::ADAPTER_FIT,
                format!("weight `{}` of `{path}` is no tensor of numbers", weight.role),
            )
        };
        let name = b.fresh(weight.role);
        let v = b.graph.add_param(name, tensor.ok_or_else(bad)?);
        let notes = &mut b.graph[v].meta;
        notes.extend(self.notes(path, weight.role));
        if weight.is_trainable {
            notes.insert(meta::TRAINABLE.into(), "true".into());
        }
        if let Some(config) = config {
            notes.insert(meta::CONFIG.into(), config_json(config));
        }
        if self.overridable {
            b.graph.inputs.push(v);
        }
        Ok(v)
    }

    fn cast(&self, v: Value, dtype: DType, path: &str, b: &mut Builder<'_>) -> Result<Value> {
        if b.graph.dtype(v).is_none_or(|d| d == dtype) {
            return Ok(v);
        }
        let up = named_like(v, "wide", b);
        b.append(Node { meta: self.notes(path, "widen"), ..cast_node(v, up, dtype) })?;
        Ok(up)
    }

    fn notes(&self, path: &str, role: &str) -> Meta {
        let notes = [
            (meta::METHOD, self.method.name),
            (meta::TARGET, path),
            (meta::ROLE, role),
            (meta::VERSION, meta::CURRENT),
        ];
        notes.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }
}

/// The initial value of a weight. The `index`-th weight of a graph draws the numbers of that tensor.
pub(crate) fn initial(weight: &Weight, seed: u64, index: u64) -> Vec<f64> {
    let n: usize = weight.dims.iter().product();
    match weight.init {
        Init::Constant(c) => vec![c; n],
        Init::KaimingUniform { fan_in } => {
            let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
            let (step, tensor) = (index / TENSORS_PER_STEP, index % TENSORS_PER_STEP);
            let draw = |i| f64::from(random::uniform(seed, step, tensor, i as u64));
            (0..n).map(|i| (2.0 * draw(i) - 1.0) * bound).collect()
        }
    }
}

/// The settings as JSON, in the order: rank, alpha, the method's own.
fn config_json(config: &Config) -> String {
    let mut object = json!({"rank": config.rank, "alpha": config.alpha});
    for (key, value) in &config.settings {
        object[key] = json!(value);
    }
    object.to_string()
}

/// A fresh value of the same type as `v`.
fn named_like(v: Value, hint: &str, b: &mut Builder<'_>) -> Value {
    let name = b.fresh(hint);
    b.graph.add_value(name, b.graph[v].ty.clone())
}

fn cast_node(from: Value, to: Value, dtype: DType) -> Node {
    Node::new("Cast", &[from], &[to]).with("to", graft_ir::Attr::Int(dtype as i64))
}

/// How the adapter's nodes are called: in the scope of the base node, if its name has one.
fn adapter_name(base: &str, path: &str, method: &str) -> String {
    match base.rsplit_once('/') {
        Some((scope, _)) => format!("{scope}/{method}"),
        None => format!("{path}/{method}"),
    }
}
