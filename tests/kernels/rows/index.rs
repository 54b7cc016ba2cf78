//! Reading along an axis by index, and the gradient of it.
use super::Row;
use crate::{
    case::{Bound, Case},
    draw::Draw,
};
use graft_ir::{Array, Attr, DType};

pub(super) const ROWS: &[Row] = &[
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("GatherND", gather_nd),
    ("ScatterND", scatter_nd),
    ("graft.GatherGrad", gather_grad),
];

const SIZED: &[DType] =
    &[DType::Bool, DType::Uint8, DType::Float16, DType::Float, DType::Int32, DType::Int64, DType::Double];

/// Data of at least one axis, one of them, and its size.
fn data(d: &mut Draw) -> (Vec<usize>, i64, usize) {
    let rank = 1 + d.below(3);
    let dims = d.sizes(rank);
    let axis = d.axis(rank);
    let at = axis.rem_euclid(rank as i64) as usize;
    let size = dims[at];
    (dims, axis, size)
}

/// Indices into an axis of `size`, from the front and from the end; none into an empty axis.
fn indices(d: &mut Draw, dims: &[usize], size: usize) -> Array {
    let dtype = d.pick(&[DType::Int32, DType::Int64]);
    let mut dims = dims.to_vec();
    if size == 0 {
        dims.iter_mut().for_each(|n| *n = 0);
        dims.extend(dims.is_empty().then_some(0));
    }
    let size = size as i64;
    d.ints(dtype, &dims, -size, (size - 1).max(-size))
}

/// How many indices keep the result small.
fn few(d: &mut Draw, dims: &[usize], size: usize) -> Vec<usize> {
    let block = dims.iter().product::<usize>() / size.max(1);
    let mut list = d.shape(2);
    while list.iter().product::<usize>() * block > 40_000 {
        list.iter_mut().for_each(|n| *n = n.div_ceil(2));
    }
    list
}

fn gather(d: &mut Draw) -> Case {
    let (dims, axis, size) = data(d);
    let (dtype, list) = (d.pick(SIZED), few(d, &dims, size));
    let (data, index) = (d.elements(dtype, &dims), indices(d, &list, size));
    Case::new(Bound::Exact, [data, index]).int("axis", axis)
}

fn gather_elements(d: &mut Draw) -> Case {
    let (dims, axis, size) = data(d);
    let at = axis.rem_euclid(dims.len() as i64) as usize;
    let mut list: Vec<usize> = dims.iter().map(|&n| if d.flip() { n } else { d.below(n + 1) }).collect();
    list[at] = if size == 0 { 0 } else { d.size().min(3 * size) };
    let (dtype, low) = (d.pick(SIZED), -(size as i64));
    let index = d.ints(DType::Int64, &list, low, (size as i64 - 1).max(low));
    Case::new(Bound::Exact, [d.elements(dtype, &dims), index]).int("axis", axis)
}

fn gather_grad(d: &mut Draw) -> Case {
    let (dims, axis, size) = data(d);
    let at = axis.rem_euclid(dims.len() as i64) as usize;
    let list = few(d, &dims, size);
    let index = indices(d, &list, size);
    let sizes = dims[..at].iter().chain(&index.dims).chain(&dims[at + 1..]).copied();
    let dy = d.floats(&sizes.collect::<Vec<_>>(), -1.0, 1.0);
    let shape = d.list(&dims.iter().map(|&n| n as i64).collect::<Vec<_>>());
    // An element may get a term from each index.
    let bound = Bound::Terms(index.len() as f64 + 1.0);
    Case::new(bound, [dy, index, shape]).int("axis", at as i64).int("to", DType::Float as i64)
}

/// Positions of `depth` indices behind `lead`, each within the axes `dims`.
fn places(d: &mut Draw, lead: &[usize], dims: &[usize]) -> Array {
    let n: usize = lead.iter().product();
    let columns: Vec<Array> =
        dims.iter().map(|&size| d.ints(DType::Int64, &[n], -(size as i64), size as i64 - 1)).collect();
    let at = |i: usize| columns[i % dims.len()].ints().expect("indices are integers")[i / dims.len()];
    let data = (0..n * dims.len()).map(at).collect();
    Array::int(DType::Int64, [lead, &[dims.len()]].concat(), data)
}

/// Data without empty axes, so that there is something to name.
fn blocks(d: &mut Draw) -> Vec<usize> {
    let rank = 1 + d.below(3);
    d.sizes(rank).into_iter().map(|n| n.clamp(1, 30)).collect()
}

fn gather_nd(d: &mut Draw) -> Case {
    let (dims, dtype) = (blocks(d), d.pick(SIZED));
    let batch = d.below(dims.len());
    let depth = 1 + d.below(dims.len() - batch);
    let n = d.size().min(9);
    let lead = [&dims[..batch], &[n]].concat();
    let index = places(d, &lead, &dims[batch..batch + depth]);
    Case::new(Bound::Exact, [d.elements(dtype, &dims), index]).int("batch_dims", batch as i64)
}

fn scatter_nd(d: &mut Draw) -> Case {
    let dims = blocks(d);
    let (depth, n, adds) = (1 + d.below(dims.len()), d.size().min(9), d.flip());
    let index = places(d, &[n], &dims[..depth]);
    let sizes = [&[n], &dims[depth..]].concat();
    if adds {
        let (data, updates) = (d.floats(&dims, -2.0, 2.0), d.floats(&sizes, -2.0, 2.0));
        let case = Case::new(Bound::Terms(n as f64 + 1.0), [data, index, updates]);
        return case.attr("reduction", Attr::Str("add".into()));
    }
    let dtype = d.pick(SIZED);
    Case::new(Bound::Exact, [d.elements(dtype, &dims), index, d.elements(dtype, &sizes)])
}
