//! Normalisation by statistics of batches, instances and groups, written with other ops; classes are on axis 1.
use super::{composed::composed, layout};
use crate::{Builder, Code, DType, Error, Node, OpDef, Result, Value};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    composed(
        "BatchNormalization",
        9,
        batch_norm,
        "y = (x - mean) / √(variance + epsilon) · scale + bias for each channel; given, or in training the batch's",
    ),
    composed(
        "GroupNormalization",
        18,
        |b, n| group_norm(b, n, true),
        "the same over groups of channels, scaled by group",
    ),
    composed(
        "GroupNormalization",
        21,
        |b, n| group_norm(b, n, false),
        "the same over groups of channels, scaled by channel",
    ),
    composed("InstanceNormalization", 6, instance_norm, "the same over all axes behind the channels"),
    composed("LpNormalization", 1, lp_norm, "y = x / (Σ |x|^p)^(1/p) along axis, 0 where that is 0"),
    composed("MeanVarianceNormalization", 9, mean_variance, "y = (x - mean) / √variance over axes"),
];

fn operand(node: &Node, i: usize) -> Result<Value> {
    node.input(i).ok_or_else(|| Error::new(Code::TYPES, format!("operand {i} is missing")))
}

fn epsilon(node: &Node) -> Result<f64> {
    Ok(node.float("epsilon")?.map_or(1e-5, f64::from))
}

/// `v` (channels) as it broadcasts to a tensor of rank `rank` whose axis 1 are the channels.
fn per_channel(b: &mut Builder<'_>, v: Value, rank: usize) -> Result<Value> {
    b.unsqueeze(v, &(1..rank as i64 - 1).collect::<Vec<_>>())
}

/// Mean and variance over `axes`, which stay.
fn moments(b: &mut Builder<'_>, x: Value, axes: &[i64]) -> Result<(Value, Value)> {
    let mean = b.reduce_mean(x, axes, true)?;
    let centred = b.sub(x, mean)?;
    let square = b.mul(centred, centred)?;
    Ok((mean, b.reduce_mean(square, axes, true)?))
}

/// `(x - mean) / √(variance + epsilon)`.
fn normal(b: &mut Builder<'_>, x: Value, mean: Value, variance: Value, epsilon: f64) -> Result<Value> {
    let centred = b.sub(x, mean)?;
    let shifted = b.offset(variance, epsilon)?;
    let deviation = b.op("deviation", "Sqrt", &[shifted])?;
    b.div(centred, deviation)
}

/// `x · scale + bias`, both by channel and in the type of `x`.
fn scaled(b: &mut Builder<'_>, node: &Node, x: Value) -> Result<Value> {
    let rank = b.shape(x)?.len();
    let mut of = |i: usize| -> Result<Value> {
        let wide = b.cast_like(operand(node, i)?, x)?;
        per_channel(b, wide, rank)
    };
    let (scale, bias) = (of(1)?, of(2)?);
    let product = b.mul(x, scale)?;
    b.add(product, bias)
}

fn batch_norm(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let (x, given) = (operand(node, 0)?, [operand(node, 3)?, operand(node, 4)?]);
    let rank = b.shape(x)?.len();
    let trains = node.int("training_mode")?.unwrap_or(0) != 0;
    if !trains && node.outputs.iter().skip(1).any(Option::is_some) {
        return Err(Error::new(Code::ATTRIBUTE, "statistics are a result in training only")
            .help("export the model for inference"));
    }
    let axes: Vec<i64> = (0..rank as i64).filter(|&axis| axis != 1).collect();
    let (mean, variance) = match trains {
        true => moments(b, x, &axes)?,
        false => {
            let mut of = |v: Value| -> Result<Value> {
                let wide = b.cast_like(v, x)?;
                per_channel(b, wide, rank)
            };
            (of(given[0])?, of(given[1])?)
        }
    };
    let normal = normal(b, x, mean, variance, epsilon(node)?)?;
    let mut results = vec![scaled(b, node, normal)?];
    if trains {
        let momentum = node.float("momentum")?.map_or(f64::from(0.9f32), f64::from);
        for (old, new) in given.into_iter().zip([mean, variance]) {
            let flat = b.squeeze(new, &axes)?;
            let new = b.cast_like(flat, old)?;
            let (kept, added) = (b.scale(old, momentum)?, b.scale(new, 1.0 - momentum)?);
            results.push(b.add(kept, added)?);
        }
    }
    Ok(results)
}

fn instance_norm(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = operand(node, 0)?;
    let axes: Vec<i64> = (2..b.shape(x)?.len() as i64).collect();
    let (mean, variance) = moments(b, x, &axes)?;
    let normal = normal(b, x, mean, variance, epsilon(node)?)?;
    Ok(vec![scaled(b, node, normal)?])
}

/// Statistics are kept in the type that `stash_type` names.
fn group_norm(b: &mut Builder<'_>, node: &Node, by_group: bool) -> Result<Vec<Value>> {
    let x = operand(node, 0)?;
    let missing = || Error::new(Code::ATTRIBUTE, "attribute `num_groups` is missing");
    let groups = b.ints("groups", &[0, node.int("num_groups")?.ok_or_else(missing)?, -1])?;
    let grouped = b.op("grouped", "Reshape", &[x, groups])?;
    let stash = crate::infer::dtype_attr(node, "stash_type")?.unwrap_or(DType::Float);
    let wide = b.cast(grouped, stash)?;
    let (mean, variance) = moments(b, wide, &[2])?;
    let mut normal = normal(b, wide, mean, variance, epsilon(node)?)?;
    if by_group {
        normal = b.cast_like(normal, x)?;
        let y = scaled(b, node, normal)?;
        return Ok(vec![b.reshape_like(y, x)?]);
    }
    let narrow = b.cast_like(normal, x)?;
    let apart = b.reshape_like(narrow, x)?;
    Ok(vec![scaled(b, node, apart)?])
}

fn lp_norm(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = operand(node, 0)?;
    let axis = layout::axis(node.int("axis")?.unwrap_or(-1), b.shape(x)?.len())? as i64;
    let op = match node.int("p")?.unwrap_or(2) {
        1 => "ReduceL1",
        2 => "ReduceL2",
        p => return Err(Error::new(Code::ATTRIBUTE, format!("attribute `p` is {p}, expected 1 or 2"))),
    };
    let size = b.reduce(op, x, &[axis], true)?;
    let (zero, one) = (b.scalar_like("zero", 0.0, x)?, b.scalar_like("one", 1.0, x)?);
    let is_zero = b.op("is_zero", "Equal", &[size, zero])?;
    let divisor = b.op("divisor", "Where", &[is_zero, one, size])?;
    Ok(vec![b.div(x, divisor)?])
}

/// ONNX adds 1e-9 to the deviation.
fn mean_variance(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let x = operand(node, 0)?;
    let axes = node.ints("axes")?.map_or(vec![0, 2, 3], <[i64]>::to_vec);
    let (mean, variance) = moments(b, x, &axes)?;
    let centred = b.sub(x, mean)?;
    let deviation = b.op("deviation", "Sqrt", &[variance])?;
    let divisor = b.offset(deviation, 1e-9)?;
    Ok(vec![b.div(centred, divisor)?])
}
