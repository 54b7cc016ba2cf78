//! Seeded values for a graph: what a value holds depends on its name and type alone, so that two graphs that share
//! names share values.
use graft_ir::{Array, DType, Dim, Graph, Type, Value, count, random};
use std::collections::BTreeMap;

/// Values by name.
pub type Values = BTreeMap<String, Array>;

/// The size that stands for a symbol: 2 to 5, by its name.
pub fn size(symbol: &str) -> i64 {
    2 + (hash(symbol) % 4) as i64
}

/// Names differ in their seeds (FNV-1a, 64 bits).
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// A value of type `ty`: floats in -1..1, integers and bools 0 or 1, or both from `range`.
///
/// # Errors
/// A sentence, if the type has no known rank or the elements have no numbers.
pub fn draw(name: &str, ty: &Type, range: Option<(f64, f64)>) -> Result<Array, String> {
    let cannot = |why: &str| format!("cannot draw `{name}` ({ty}): {why}");
    let shape = ty.shape.as_ref().ok_or_else(|| cannot("its rank is not known"))?;
    let sizes = shape.iter().map(|d| d.substitute(|s| Some(Dim::from(size(s)))).as_size());
    let dims: Vec<usize> = sizes.collect::<Option<_>>().ok_or_else(|| cannot("a size is negative"))?;
    let n = count(&dims).filter(|&n| n < 1 << 20).ok_or_else(|| cannot("it is too large for a test"))?;
    let seed = hash(name);
    let uniform = |i: usize| f64::from(random::uniform(seed, 1, 0, i as u64));
    if ty.dtype.is_float() {
        let (low, high) = range.unwrap_or((-1.0, 1.0));
        return Ok(Array::float(ty.dtype, dims, (0..n).map(|i| low + (high - low) * uniform(i)).collect()));
    }
    if !ty.dtype.is_int() && ty.dtype != DType::Bool {
        return Err(cannot("its elements are no numbers"));
    }
    let (low, high) = range.unwrap_or((0.0, 2.0));
    Ok(Array::int(ty.dtype, dims, (0..n).map(|i| (low + (high - low) * uniform(i)).floor() as i64).collect()))
}

/// A value for every input and every weight of `graph`. Weights with data keep it; the others, and inputs, are taken
/// from `known` or drawn. With `reweigh`, floating-point weights that `known` does not have are drawn even if they
/// have data: a weight that starts as zero hides what is wrong behind it.
///
/// # Errors
/// A sentence, if a value cannot be drawn.
pub fn values(
    graph: &Graph,
    known: &Values,
    feeds: &BTreeMap<String, (f64, f64)>,
    reweigh: bool,
) -> Result<Values, String> {
    let mut values = Values::new();
    for &v in graph.params.iter().chain(&graph.inputs) {
        let data = &graph[v];
        let name = data.name.as_str();
        if values.contains_key(name) {
            continue;
        }
        let given =
            data.tensor.as_ref().map(|t| Array::from_tensor(t).map_err(|e| e.to_string())).transpose()?;
        let keep = given.filter(|a| !(reweigh && a.dtype.is_float() && !known.contains_key(name)));
        let array = match (keep, known.get(name)) {
            (Some(array), _) => array,
            (None, Some(array)) => array.clone(),
            (None, None) => {
                let ty = data.ty.as_ref().ok_or_else(|| format!("`{name}` has no type"))?;
                draw(name, ty, feeds.get(name).copied())?
            }
        };
        values.insert(name.into(), array);
    }
    Ok(values)
}

/// The inputs and weights of `graph` as one list of inputs: weights become overridable, so that an evaluation in f64
/// takes them as they are, unrounded.
pub fn opened(graph: &Graph) -> (Graph, Vec<Value>) {
    let mut open = graph.clone();
    let extra: Vec<Value> = graph.params.iter().copied().filter(|p| !graph.inputs.contains(p)).collect();
    open.inputs.extend(extra);
    let inputs = open.inputs.clone();
    (open, inputs)
}
