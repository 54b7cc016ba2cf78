//! Ops that move no data: their results are the operand's memory, seen otherwise.
use crate::place::Place;
use graft_ir::{Code, Error, Graph, Node, Result, Type, Value, infer::dtype_attr};
use graft_kernels::axis;

/// How a node's results can be had.
pub(crate) enum Seen {
    /// As views of its first operand, one for each result.
    As(Vec<Place>),
    /// As views, once the first operand is row-major.
    OnceRowMajor,
    /// Not as views.
    Not,
}

/// Sees the results of `node`, whose first operand lies at `x`, as views of it.
pub(crate) fn see(graph: &Graph, node: &Node, x: &Place) -> Result<Seen> {
    let one = |place: Option<Place>| place.map_or(Seen::Not, |p| Seen::As(vec![p]));
    Ok(match node.op.as_str() {
        "Identity" | "graft.Detach" => one(Some(x.clone())),
        "Dropout" if inference_only(graph, node) => one(Some(x.clone())),
        "Cast" => one((dtype_attr(node, "to")? == Some(x.dtype)).then(|| x.clone())),
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
            let dims = node.output(0).and_then(|v| sizes(graph, v));
            match dims {
                Some(dims) if dims.iter().product::<usize>() == x.len() => {
                    x.reshaped(&dims).map_or(Seen::OnceRowMajor, |p| Seen::As(vec![p]))
                }
                _ => Seen::Not,
            }
        }
        "Transpose" => one(Some(transposed(node, x)?)),
        "Expand" => one(node.output(0).and_then(|v| sizes(graph, v)).and_then(|dims| expanded(x, &dims))),
        "Slice" => one(sliced(graph, node, x)?),
        "Split" => split(graph, node, x)?.map_or(Seen::Not, Seen::As),
        "Gather" => one(selected(graph, node, x)?),
        _ => Seen::Not,
    })
}

fn sizes(graph: &Graph, v: Value) -> Option<Vec<usize>> {
    graph[v].ty.as_ref().and_then(Type::sizes)
}

/// The elements of an integer operand that is known beforehand.
fn ints(graph: &Graph, node: &Node, operand: usize) -> Option<Vec<i64>> {
    graph[node.input(operand)?].tensor.as_ref()?.to_i64()
}

/// A Dropout that keeps everything, and whose mask nobody wants.
fn inference_only(graph: &Graph, node: &Node) -> bool {
    let training = node.input(2).is_some() && ints(graph, node, 2) != Some(vec![0]);
    !training && node.output(1).is_none()
}

fn transposed(node: &Node, x: &Place) -> Result<Place> {
    let rank = x.dims.len();
    let order: Vec<usize> = match node.ints("perm")? {
        Some(perm) => perm.iter().map(|&p| axis(p, rank)).collect::<Result<_>>()?,
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank {
        return Err(Error::new(Code::VALUE, format!("`perm` {order:?} does not fit rank {rank}")));
    }
    let pick = |of: &[usize]| order.iter().map(|&i| of[i]).collect();
    Ok(Place { dims: pick(&x.dims), strides: pick(&x.strides), ..x.clone() })
}

fn expanded(x: &Place, dims: &[usize]) -> Option<Place> {
    let missing = dims.len().checked_sub(x.dims.len())?;
    let mut strides = vec![0; dims.len()];
    for (i, (&d, &s)) in x.dims.iter().zip(&x.strides).enumerate() {
        match (d, dims[missing + i]) {
            (1, _) => {}
            (d, wanted) if d == wanted => strides[missing + i] = s,
            _ => return None,
        }
    }
    Some(Place { dims: dims.to_vec(), strides, ..x.clone() })
}

/// A slice with known bounds and forward steps.
fn sliced(graph: &Graph, node: &Node, x: &Place) -> Result<Option<Place>> {
    let list = |operand: usize, attr: &str| -> Result<Option<Vec<i64>>> {
        Ok(ints(graph, node, operand).or(node.ints(attr)?.map(<[i64]>::to_vec)))
    };
    let (Some(starts), Some(dims)) = (list(1, "starts")?, node.output(0).and_then(|v| sizes(graph, v)))
    else {
        return Ok(None);
    };
    let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    let unknown = |operand: usize| node.input(operand).is_some() && ints(graph, node, operand).is_none();
    if steps.iter().any(|&s| s < 1) || unknown(3) || unknown(4) || dims.len() != x.dims.len() {
        return Ok(None);
    }
    let mut place = Place { dims, ..x.clone() };
    for ((start, at), step) in starts.into_iter().zip(axes).zip(steps) {
        let at = axis(at, x.dims.len())?;
        let size = x.dims[at] as i64;
        let from = if start < 0 { start.saturating_add(size) } else { start }.clamp(0, size);
        place.offset += from as usize * x.strides[at];
        place.strides[at] = x.strides[at] * step as usize;
    }
    // The first element of an empty slice would lie outside.
    if place.len() == 0 {
        place.offset = x.offset;
    }
    Ok(Some(place))
}

fn split(graph: &Graph, node: &Node, x: &Place) -> Result<Option<Vec<Place>>> {
    let at = axis(node.int("axis")?.unwrap_or(0), x.dims.len())?;
    let mut from = 0;
    let mut parts = Vec::new();
    for output in &node.outputs {
        let Some(dims) = output.and_then(|v| sizes(graph, v)) else { return Ok(None) };
        let width = dims[at];
        let offset = x.offset + if dims.contains(&0) { 0 } else { from * x.strides[at] };
        parts.push(Place { dims, offset, ..x.clone() });
        from += width;
    }
    Ok((from == x.dims[at]).then_some(parts))
}

/// `Gather` with one index that is known: the axis at that index.
fn selected(graph: &Graph, node: &Node, x: &Place) -> Result<Option<Place>> {
    let scalar = node.input(1).and_then(|v| sizes(graph, v)).is_some_and(|s| s.is_empty());
    let (true, Some(&[index])) = (scalar, ints(graph, node, 1).as_deref()) else { return Ok(None) };
    let at = axis(node.int("axis")?.unwrap_or(0), x.dims.len())?;
    let size = x.dims[at] as i64;
    let i = if index < 0 { index + size } else { index };
    if !(0..size).contains(&i) {
        return Err(Error::new(Code::VALUE, format!("index {index} is outside of an axis of size {size}")));
    }
    let mut place = x.clone();
    place.offset += i as usize * x.strides[at];
    place.dims.remove(at);
    place.strides.remove(at);
    if place.len() == 0 {
        place.offset = x.offset;
    }
    Ok(Some(place))
}
