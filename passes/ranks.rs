//! Adapters whose ranks come and go: which of them count, and since when, are inputs of a training graph.
use crate::{inject::Method, io, meta};
use graft_ir::{Attr, Builder, Code, DType, Error, Graph, Node, Result, Tensor, Type, Value};

/// The weight of methods whose function must know which ranks count (rank; 0 or 1): an input that training feeds.
pub(crate) const MASK: &str = "rank_mask";

/// The role of the input (rank; float, 0 or 1) that tells which ranks of an adapter count.
pub fn mask_role(target: &str) -> String {
    format!("{MASK}.{target}")
}

/// The role of the input (rank; int64) that tells after which step each rank of an adapter began to count.
pub fn born_role(target: &str) -> String {
    format!("born.{target}")
}

/// The role of the output that a method's schedule decides on.
pub fn stats_role(target: &str) -> String {
    format!("stats.{target}")
}

/// The weight of the adapter on `target` that plays `role`.
pub fn weight(graph: &Graph, target: &str, role: &str) -> Option<Value> {
    let note = |v: Value, key: &str| graph[v].meta.get(key).map(String::as_str);
    let is_it = |v: &Value| note(*v, meta::TARGET) == Some(target) && note(*v, meta::ROLE) == Some(role);
    graph.params.iter().chain(&graph.inputs).copied().find(is_it)
}

/// The weights of the adapter on `target`, with the parts that they play.
pub(crate) fn weights(graph: &Graph, target: &str) -> Vec<(String, Value)> {
    let role = |v: Value| {
        let note = |key: &str| graph[v].meta.get(key);
        Some((note(meta::ROLE).filter(|_| note(meta::TARGET).is_some_and(|t| t == target))?.clone(), v))
    };
    let mut all: Vec<(String, Value)> =
        graph.params.iter().chain(&graph.inputs).filter_map(|&v| role(v)).collect();
    all.dedup_by_key(|(_, v)| *v);
    all
}

/// The axes of a weight that count ranks, where ranks of it may not count.
pub(crate) fn axes(graph: &Graph, weight: Value) -> Option<Vec<usize>> {
    graph[weight].meta.get(meta::RANKED)?.split(',').map(|axis| axis.parse().ok()).collect()
}

/// The ranks of the adapter on `target`, those that do not count included.
pub fn width(graph: &Graph, target: &str) -> Option<usize> {
    // In every method with a penalty on ranks, `b` has them first.
    graph.shape(weight(graph, target, "b")?)?.first()?.as_size()
}

/// Which ranks of the adapter on `target` count: an input where that changes, else all.
pub(crate) fn mask(target: &str, b: &mut Builder<'_>) -> Result<Value> {
    let unknown = || Error::new(Code::TYPES, format!("the rank of the adapter on `{target}` is not known"));
    let rank = width(b.graph, target).ok_or_else(unknown)?;
    let changes = weight(b.graph, target, "b").is_some_and(|v| b.graph[v].meta.contains_key(meta::RANKED));
    match changes {
        true => vector_input(&mask_role(target), DType::Float, rank, b.graph),
        false => b.constant(MASK, Tensor::f32(&[rank], &vec![1.0; rank])),
    }
}

/// The input of `n` elements that plays `role`: the one that is there, or a new one.
fn vector_input(role: &str, dtype: DType, n: usize, graph: &mut Graph) -> Result<Value> {
    if let Some(v) = io::role(graph, role)? {
        return Ok(v);
    }
    let name = io::free_name(graph, role);
    let v = graph.add_input(name, Type::new(dtype, [n]));
    io::set_role(graph, role, v)?;
    Ok(v)
}

/// What the optimiser has to know of a weight whose ranks may not count.
pub(crate) struct Ranked {
    /// 0 or 1, broadcast to the weight.
    pub(crate) mask: Value,
    axes: Vec<usize>,
    dims: Vec<usize>,
    target: String,
}

impl Ranked {
    /// `None` for a weight all of which counts.
    pub(crate) fn new(weight: Value, b: &mut Builder<'_>) -> Result<Option<Ranked>> {
        let Some(axes) = axes(b.graph, weight) else { return Ok(None) };
        let target = b.graph[weight].meta.get(meta::TARGET).cloned().unwrap_or_default();
        let dims = b.graph[weight].ty.as_ref().and_then(Type::sizes).unwrap_or_default();
        let flat = mask(&target, b)?;
        let masks =
            axes.iter().map(|&axis| along(flat, axis, dims.len(), b)).collect::<Result<Vec<Value>>>()?;
        let mut masks = masks.into_iter();
        let none = || Error::new(Code::GRAPH, format!("note `{}` is empty", meta::RANKED));
        let first = masks.next().ok_or_else(none)?;
        let mask = masks.try_fold(first, |all, next| b.mul(all, next))?;
        Ok(Some(Ranked { mask, axes, dims, target }))
    }

    /// For each element of the weight, the steps that it has been trained with this one: those since the youngest of
    /// its ranks began to count.
    pub(crate) fn age(&self, step: Value, b: &mut Builder<'_>) -> Result<Value> {
        let rank = self.dims[self.axes[0]];
        let born = vector_input(&born_role(&self.target), DType::Int64, rank, b.graph)?;
        let ages = b.op("age", "Sub", &[step, born])?;
        let ages = self.axes.iter().map(|&axis| along(ages, axis, self.dims.len(), b));
        let ages = ages.collect::<Result<Vec<Value>>>()?;
        let youngest = if let [one] = ages[..] { one } else { b.op("age", "Min", &ages)? };
        let sizes: Vec<i64> = self.dims.iter().map(|&n| n as i64).collect();
        let sizes = b.ints("sizes", &sizes)?;
        b.op("age", "Expand", &[youngest, sizes])
    }

    /// `next` where the rank counts, else `now`.
    pub(crate) fn hold(&self, now: Value, next: Value, to: Value, b: &mut Builder<'_>) -> Result<()> {
        let counts = b.push("counts", Node::new("Cast", &[self.mask], &[]).with("to", Attr::Int(9)))?;
        b.append(Node::new("Where", &[counts, next, now], &[to]))
    }
}

/// A vector as a tensor of `rank` axes, all but `axis` of size 1.
fn along(v: Value, axis: usize, rank: usize, b: &mut Builder<'_>) -> Result<Value> {
    let mut shape = vec![1; rank];
    shape[axis] = -1;
    let shape = b.ints("shape", &shape)?;
    b.op("along", "Reshape", &[v, shape])
}

/// Whether the schedule of the method on `target` keeps ranks that do not count as they are.
pub fn holds(method: &Method, config: &crate::inject::Config) -> Result<bool> {
    Ok((method.schedule)(config)?.is_some_and(|schedule| schedule.holds))
}
