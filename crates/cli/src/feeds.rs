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
    let fed: Vec<Value> = graph.inputs.iter().copied().filter(|&v| !graph.is_param(v)).collect();
    let mut bound = Bound::new(sizes, fed.iter().filter_map(|&v| graph.shape(v)));
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
        let dims = bound.sizes(shape);
        affordable(ty.dtype, &dims).map_err(|e| e.at(format!("input `{name}`")))?;
        let draw = Draw { seed, tensor: i as u64, dims: &dims };
        let tensor = draw.tensor(ty.dtype, &name, index_bound(graph, v)).ok_or_else(|| {
            Error::new(Code::FEED, format!("input `{name}` is {}, which needs --inputs", ty.dtype))
        })?;
        feeds.push((name, tensor));
    }
    Ok(feeds)
}

/// What symbols are bound to.
struct Bound {
    named: BTreeMap<String, usize>,
    /// By rank and axis of the first input that has a symbol there: an exporter that was not told that two sizes are
    /// equal names them apart, and the batch of the ids and that of their mask are one all the same.
    placed: BTreeMap<(usize, usize), usize>,
}

impl Bound {
    /// Symbols at the place of one that is given a size get that size too.
    fn new<'g>(given: &BTreeMap<&str, usize>, shapes: impl Iterator<Item = &'g [Dim]>) -> Bound {
        let mut bound = Bound { named: BTreeMap::new(), placed: BTreeMap::new() };
        bound.named.extend(given.iter().map(|(name, &size)| (name.to_string(), size)));
        for shape in shapes {
            for (axis, dim) in shape.iter().enumerate() {
                if let Some(&size) = symbol(dim).and_then(|name| given.get(name)) {
                    bound.placed.entry((shape.len(), axis)).or_insert(size);
                }
            }
        }
        bound
    }

    fn sizes(&mut self, shape: &[Dim]) -> Vec<usize> {
        shape.iter().enumerate().map(|(axis, dim)| self.size(dim, (shape.len(), axis))).collect()
    }

    fn size(&mut self, dim: &Dim, place: (usize, usize)) -> usize {
        if let Some(name) = symbol(dim) {
            let next = self.placed.get(&place).copied().unwrap_or(default_size(self.named.len()));
            let size = *self.named.entry(name.to_string()).or_insert(next);
            self.placed.entry(place).or_insert(size);
        }
        for symbol in dim.symbols() {
            let next = default_size(self.named.len());
            self.named.entry(symbol.to_string()).or_insert(next);
        }
        dim.substitute(|s| self.named.get(s).map(|&n| Dim::from(n))).as_size().unwrap_or(1)
    }
}

/// The symbol that `dim` is.
fn symbol(dim: &Dim) -> Option<&str> {
    dim.symbols().find(|name| *dim == Dim::symbol(name))
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

    #[test]
    fn symbols_at_one_place_have_one_size() {
        let mut g = Graph::default();
        let mut input = |name: &str, symbols: &[&str]| {
            g.add_input(name, Type::new(DType::Int64, symbols.iter().map(|s| Dim::symbol(s))));
        };
        input("ids", &["s1", "s2"]);
        input("mask", &["s3", "s4"]);
        input("extra", &["s5"]);
        let dims = |given: &[(&str, usize)]| {
            let feeds = random_feeds(&g, &given.iter().copied().collect(), 0).unwrap();
            feeds.iter().map(|(_, t)| t.dims().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(dims(&[]), [vec![2, 7], vec![2, 7], vec![13]]);
        assert_eq!(dims(&[("s3", 4)]), [vec![4, 9], vec![4, 9], vec![13]]);
        assert_eq!(dims(&[("s3", 4), ("s1", 3)])[..2], [[3, 9], [4, 9]]);
    }
}
