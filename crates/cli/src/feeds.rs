//! Random inputs for a model, for checks and measurements: sizes for its symbols, and values that it can take.
use crate::usage;
use graft_ir::{
    Code, DType, Dim, Error, Graph, Node, Result, Tensor, Value, affordable, error::nearest, random,
};
use std::collections::{BTreeMap, BTreeSet};

/// Sizes for the symbols of a model's inputs.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Sizes {
    /// Sizes for symbolic dimensions, such as `batch=8,seq=128`
    #[arg(long, value_name = "NAME=N,…", value_delimiter = ',')]
    pub(crate) sizes: Vec<String>,
}

impl Sizes {
    /// The sizes by name; an error for what is not `NAME=N`, and for what is no symbol of the inputs of `graph`.
    pub(crate) fn of(&self, graph: &Graph) -> Result<BTreeMap<&str, usize>> {
        let bad = |text: &str| usage(format!("--sizes {text}: expected NAME=N"));
        let sizes = self.sizes.iter().map(|text| size(text).ok_or_else(|| bad(text)));
        let sizes: BTreeMap<&str, usize> = sizes.collect::<Result<_>>()?;
        let shapes = graph.inputs.iter().filter_map(|&v| graph.shape(v));
        let symbols: BTreeSet<&str> = shapes.flatten().flat_map(Dim::symbols).collect();
        match sizes.keys().find(|name| !symbols.contains(*name)) {
            Some(name) => Err(unknown_symbol(name, &symbols)),
            None => Ok(sizes),
        }
    }
}

fn unknown_symbol(name: &str, symbols: &BTreeSet<&str>) -> Error {
    let near = nearest(name, symbols.iter().copied()).join("`, `");
    let help = match near.is_empty() {
        true => "the inputs' sizes are all fixed".into(),
        false => format!("nearest: `{near}`"),
    };
    usage(format!("--sizes {name}: no input has a size of that name")).help(help)
}

/// Reads `NAME=N`.
fn size(text: &str) -> Option<(&str, usize)> {
    let (name, size) = text.split_once('=')?;
    Some((name.trim(), size.trim().parse().ok()?))
}

/// What symbols are bound to where nobody says: the first, as a rule the batch, to 2, the next to 7, 9, …
fn default_size(nth: usize) -> usize {
    if nth == 0 { 2 } else { 5 + 2 * nth }
}

/// Random tensors for all inputs of `graph` that have no default.
///
/// Floats are uniform in (−1, 1). Integers that are used as indices into a weight stay below its size;
/// other integers are 0 or 1; masks (inputs with `mask` in their name) are ones with a random tail of zeros.
pub(crate) fn random_feeds(
    graph: &Graph,
    sizes: &BTreeMap<&str, usize>,
    seed: u64,
) -> Result<Vec<(String, Tensor)>> {
    let mut bound: BTreeMap<String, usize> = sizes.iter().map(|(k, v)| (k.to_string(), *v)).collect();
    let fed: Vec<Value> = graph.inputs.iter().copied().filter(|&v| !graph.is_param(v)).collect();
    let mut feeds = Vec::new();
    for (i, &v) in fed.iter().enumerate() {
        let name = graph.name(v).to_string();
        let unknown = || {
            Error::new(
                Code::FEED,
                format!("the type of input `{name}` is not declared, so it needs --inputs"),
            )
        };
        let ty = graph[v].ty.as_ref().ok_or_else(unknown)?;
        let shape = ty.shape.as_ref().ok_or_else(unknown)?;
        let dims: Vec<usize> = shape.iter().map(|d| size_of_dim(d, &mut bound)).collect();
        affordable(ty.dtype, &dims).map_err(|e| e.at(format!("input `{name}`")))?;
        let draw = Draw { seed, tensor: i as u64, dims: &dims };
        let tensor = draw.tensor(ty.dtype, &name, index_bound(graph, v)).ok_or_else(|| {
            Error::new(Code::FEED, format!("input `{name}` is {}, which needs --inputs", ty.dtype))
        })?;
        feeds.push((name, tensor));
    }
    Ok(feeds)
}

fn size_of_dim(dim: &Dim, bound: &mut BTreeMap<String, usize>) -> usize {
    for symbol in dim.symbols() {
        let next = default_size(bound.len());
        bound.entry(symbol.to_string()).or_insert(next);
    }
    dim.substitute(|s| bound.get(s).map(|&n| Dim::from(n))).as_size().unwrap_or(1)
}

/// One tensor's draws.
struct Draw<'a> {
    seed: u64,
    tensor: u64,
    dims: &'a [usize],
}

impl Draw<'_> {
    fn uniform(&self, i: usize) -> f64 {
        f64::from(random::uniform(self.seed, 0, self.tensor, i as u64))
    }
    fn tensor(&self, dtype: DType, name: &str, bound: Option<usize>) -> Option<Tensor> {
        let n: usize = self.dims.iter().product();
        let last = self.dims.last().copied().unwrap_or(1).max(1);
        let value = |i: usize| match bound {
            _ if dtype.is_float() => 2.0 * self.uniform(i) - 1.0,
            Some(bound) => (self.uniform(i) * bound as f64).floor(),
            // The first column stays 1, so that no row is masked as a whole.
            None if name.contains("mask") => {
                f64::from(u8::from((i % last) as f64 <= self.uniform(i / last) * 2.0 * last as f64))
            }
            None => f64::from(u8::from(self.uniform(i) < 0.5)),
        };
        Tensor::from_f64(dtype, self.dims, (0..n).map(value))
    }
}

/// Ops that hand indices on unchanged.
const TRANSPARENT: &[&str] = &["Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten"];

/// If `v` is used as indices along an axis of known size, that size (the smallest of several).
fn index_bound(graph: &Graph, v: Value) -> Option<usize> {
    let bound = |node: &Node| match node.op.as_str() {
        "Gather" if node.input(1) == Some(v) => {
            let axis = node.int("axis").ok()?.unwrap_or(0);
            let shape = graph.shape(node.input(0)?)?;
            let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
            shape.get(usize::try_from(axis).ok()?)?.as_size()
        }
        op if TRANSPARENT.contains(&op) && node.input(0) == Some(v) => index_bound(graph, node.output(0)?),
        _ => None,
    };
    graph.nodes.iter().filter_map(bound).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_ir::Type;

    #[test]
    fn indices_stay_below_the_table() {
        let mut g = Graph::default();
        let dims = [Dim::symbol("batch"), Dim::symbol("seq")];
        let ids = g.add_input("ids", Type::new(DType::Int64, dims.clone()));
        g.add_input("attention_mask", Type::new(DType::Int64, dims));
        let table = g.add_param("table", Tensor::f32(&[5, 2], &[0.0; 10]));
        let y = g.add_value("y", None);
        g.nodes.push(Node::new("Gather", &[table, ids], &[y]));
        let feeds = random_feeds(&g, &BTreeMap::from([("seq", 40)]), 1).unwrap();
        let ids = feeds[0].1.to_i64().unwrap();
        assert!(ids.iter().all(|i| (0..5).contains(i)) && ids.iter().any(|&i| i > 1));
        assert_eq!(feeds[1].1.dims()[1], 40);
        let mask = feeds[1].1.to_i64().unwrap();
        assert!(mask.chunks(40).all(|row| row[0] == 1 && row.windows(2).all(|w| w[0] >= w[1])));
    }
}
