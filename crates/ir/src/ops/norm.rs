//! Normalisation: `Softmax`, `LogSoftmax`, `LayerNormalization`, `RMSNormalization`.
use super::{
    broadcast::{combine, same_type},
    composed::composed,
    layout,
    reduce::{log_sum_exp, rows},
};
use crate::{
    Array, Attr, Backward, Builder, Code, DType, Dim, Error, Eval, Fact, Infer, Node, OpDef, Result, Type,
    Value, Vjp,
};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    OpDef {
        name: "Softmax",
        since: 1,
        infer: infer_along_axis,
        eval: Some(|c| along_axis(c, flattened, |x, shift| (x - shift).exp())),
        vjp: Vjp::Rule(|ctx| softmax_vjp(ctx, flattened)),
        doc: "y = e^x / Σ e^x over `axis` and all later axes",
    },
    OpDef {
        name: "Softmax",
        since: 13,
        infer: infer_along_axis,
        eval: Some(|c| along_axis(c, single, |x, shift| (x - shift).exp())),
        vjp: Vjp::Rule(call_softmax_grad),
        doc: "y = e^x / Σ e^x over one axis",
    },
    OpDef {
        name: "LogSoftmax",
        since: 1,
        infer: infer_along_axis,
        eval: Some(|c| along_axis(c, flattened, |x, shift| x - shift)),
        vjp: Vjp::Rule(|ctx| log_softmax_vjp(ctx, flattened)),
        doc: "y = x - ln Σ e^x over `axis` and all later axes",
    },
    OpDef {
        name: "LogSoftmax",
        since: 13,
        infer: infer_along_axis,
        eval: Some(|c| along_axis(c, single, |x, shift| x - shift)),
        vjp: Vjp::Rule(|ctx| log_softmax_vjp(ctx, single)),
        doc: "y = x - ln Σ e^x over one axis",
    },
    OpDef {
        name: "LayerNormalization",
        // ONNX has it from 17 on; ONNX Runtime puts it into models of any opset.
        since: 1,
        infer: infer_layer_norm,
        eval: Some(layer_norm),
        vjp: Vjp::Rule(layer_norm_vjp),
        doc: "y = (x - mean) / √(variance + epsilon) · scale + bias, over `axis` and all later axes",
    },
    composed(
        "RMSNormalization",
        23,
        rms_norm,
        "y = x / √(mean of x² + epsilon) · scale, over `axis` and all later axes",
    ),
];

/// Which axes an op of a given rank normalises over.
type Axes = fn(&Node, usize) -> Result<Vec<usize>>;

/// As `Softmax` is from opset 13 on.
fn single(node: &Node, rank: usize) -> Result<Vec<usize>> {
    Ok(vec![layout::axis(node.int("axis")?.unwrap_or(-1), rank)?])
}

/// As `Softmax` was before opset 13: the operand is seen as a matrix whose columns begin at `axis`.
fn flattened(node: &Node, rank: usize) -> Result<Vec<usize>> {
    Ok((layout::axis(node.int("axis")?.unwrap_or(1), rank)?..rank).collect())
}

/// The axes that a norm covers: `axis` and all later ones.
pub(super) fn trailing(node: &Node, rank: usize) -> Result<Vec<usize>> {
    Ok((layout::axis(node.int("axis")?.unwrap_or(-1), rank)?..rank).collect())
}

fn infer_along_axis(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    if let Some(rank) = ctx.rank(0) {
        let axes: Axes = if ctx.opset < 13 { flattened } else { single };
        axes(ctx.node, rank)?;
    }
    same_type(ctx)
}

/// Each element by `f`, from itself and `ln Σ e^x` of its row, from which the largest element was subtracted first.
fn along_axis(c: &Eval<'_>, axes: Axes, f: fn(f64, f64) -> f64) -> Result<Vec<Array>> {
    let x = c.input(0)?;
    let mut y = vec![0.0; x.len()];
    for row in rows(x, &axes(c.node, x.dims.len())?)? {
        let elements: Vec<f64> = row.iter().map(|(_, x)| *x).collect();
        let shift = log_sum_exp(&elements);
        row.into_iter().for_each(|(i, x)| y[i] = f(x, shift));
    }
    Ok(vec![Array::float(x.dtype, x.dims.clone(), y)])
}

fn axes_of(ctx: &Backward<'_, '_>, axes: Axes) -> Result<Vec<i64>> {
    let rank = ctx.b.shape(ctx.input(0)?)?.len();
    Ok(axes(ctx.node, rank)?.into_iter().map(|a| a as i64).collect())
}

fn call_softmax_grad(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let axis = ctx.node.int("axis")?.unwrap_or(-1);
    let call = Node::new("graft.SoftmaxGrad", &[ctx.dy()?, ctx.output(0)?], &[]);
    Ok(vec![Some(ctx.b.call("dx", call.with("axis", Attr::Int(axis)), 1)?[0])])
}

/// `dx = y · (dy - Σ dy·y)`.
fn softmax_vjp(ctx: &mut Backward<'_, '_>, axes: Axes) -> Result<Vec<Option<Value>>> {
    let (dy, y, axes) = (ctx.dy()?, ctx.output(0)?, axes_of(ctx, axes)?);
    let weighted = ctx.b.mul(dy, y)?;
    let total = ctx.b.reduce_sum(weighted, &axes, true)?;
    let rest = ctx.b.sub(dy, total)?;
    Ok(vec![Some(ctx.b.mul(y, rest)?)])
}

/// `dx = dy - e^y · Σ dy`.
fn log_softmax_vjp(ctx: &mut Backward<'_, '_>, axes: Axes) -> Result<Vec<Option<Value>>> {
    let (dy, y, axes) = (ctx.dy()?, ctx.output(0)?, axes_of(ctx, axes)?);
    let total = ctx.b.reduce_sum(dy, &axes, true)?;
    let share = ctx.b.op("share", "Exp", &[y])?;
    let spread = ctx.b.mul(share, total)?;
    Ok(vec![Some(ctx.b.sub(dy, spread)?)])
}

fn epsilon(node: &Node) -> Result<f64> {
    Ok(f64::from(node.float("epsilon")?.unwrap_or(1e-5)))
}

/// The type in which the statistics are kept.
pub(super) fn stash_type(node: &Node) -> Result<DType> {
    let number = node.int("stash_type")?.unwrap_or(1);
    Ok(i32::try_from(number).ok().and_then(DType::from_onnx).unwrap_or(DType::Float))
}

fn infer_layer_norm(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let y = Fact { ty: ctx.ty(0).cloned(), known: None };
    let statistic = match ctx.shape(0) {
        Some(dims) => {
            fits(ctx, dims)?;
            let first = dims.len() - trailing(ctx.node, dims.len())?.len();
            let kept =
                dims.iter().enumerate().map(|(i, d)| if i < first { d.clone() } else { Dim::from(1i64) });
            Some(kept.collect())
        }
        None => None,
    };
    let ty = Type { dtype: stash_type(ctx.node)?, shape: statistic };
    let statistic = Fact { ty: Some(ty), known: None };
    Ok(vec![y, statistic.clone(), statistic])
}

/// An error if scale or bias provably does not broadcast to the operand.
fn fits(ctx: &Infer<'_>, dims: &[Dim]) -> Result<()> {
    for i in 1..ctx.node.inputs.len() {
        let Some(shape) = ctx.shape(i) else { continue };
        let wide = ctx.broadcast(&[dims, shape])?;
        if wide.len() != dims.len() || wide.iter().zip(dims).any(|(a, b)| a.never_equals(b)) {
            return Err(ctx.mismatch("scale and bias must broadcast to the operand"));
        }
    }
    Ok(())
}

/// `normal · scale + bias`.
fn scaled(c: &Eval<'_>, normal: &Array) -> Result<Array> {
    let times = combine(normal, c.input(1)?, |a, b| a * b, |a, _| Ok(a))?;
    match c.get(2) {
        Some(bias) => combine(&times, bias, |a, b| a + b, |a, _| Ok(a)),
        None => Ok(times),
    }
}

fn layer_norm(c: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, epsilon) = (c.input(0)?, epsilon(c.node)?);
    let axes = trailing(c.node, x.dims.len())?;
    let (mut normal, mut means, mut inverses) = (vec![0.0; x.len()], Vec::new(), Vec::new());
    for row in rows(x, &axes)? {
        let n = row.len() as f64;
        let mean = row.iter().map(|(_, x)| x).sum::<f64>() / n;
        let variance = row.iter().map(|(_, x)| (x - mean).powi(2)).sum::<f64>() / n;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        row.into_iter().for_each(|(i, x)| normal[i] = (x - mean) * inverse);
        means.push(mean);
        inverses.push(inverse);
    }
    let first = x.dims.len() - axes.len();
    let kept: Vec<usize> = x.dims.iter().enumerate().map(|(i, &n)| if i < first { n } else { 1 }).collect();
    let y = scaled(c, &Array::float(x.dtype, x.dims.clone(), normal))?;
    let statistic = |v| Ok(Array::float(stash_type(c.node)?, kept.clone(), v));
    Ok(vec![y, statistic(means)?, statistic(inverses)?])
}

/// With scale and bias of just the last axis a call of the library's gradient, else the same formula in place.
fn layer_norm_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, x, scale) = (ctx.dy()?, ctx.input(0)?, ctx.input(1)?);
    let axes = axes_of(ctx, trailing)?;
    let (mean, inverse) = statistics(ctx)?;
    let given = ctx.node.inputs.len();
    if is_plain(ctx, &axes)? {
        // Of the bias only the shape is read, which without one nobody asks for.
        let bias = ctx.node.input(2).unwrap_or(scale);
        let call = Node::new("graft.LayerNormGrad", &[dy, x, scale, bias, mean, inverse], &[]);
        let wanted: Vec<bool> = (0..3).map(|i| i < given && ctx.needs(i)).collect();
        return ctx.b.call_for("d", call, &wanted);
    }
    let centred = ctx.b.sub(x, mean)?;
    let normal = ctx.b.mul(centred, inverse)?;
    ctx.each(|ctx, i, operand| match i {
        0 => {
            let g = ctx.b.mul(dy, scale)?;
            let level = ctx.b.reduce_mean(g, &axes, true)?;
            let rest = ctx.b.sub(g, level)?;
            spread_inward(ctx, rest, g, normal, inverse, &axes)
        }
        1 => {
            let product = ctx.b.mul(dy, normal)?;
            ctx.b.reduce_to(product, operand)
        }
        _ => ctx.b.reduce_to(dy, operand),
    })
}

/// Whether the norm is over the last axis and scale and bias provably have just that size.
fn is_plain(ctx: &Backward<'_, '_>, axes: &[i64]) -> Result<bool> {
    let width = ctx.b.shape(ctx.input(0)?)?.pop();
    let covers = |v: &Value| matches!(ctx.b.graph.shape(*v), Some([size]) if Some(size) == width.as_ref());
    Ok(axes.len() == 1 && ctx.node.inputs.iter().skip(1).flatten().all(covers))
}

/// `inverse · (rest - normal · mean of g·normal)`: what a change of the deviation sends back.
fn spread_inward(
    ctx: &mut Backward<'_, '_>,
    rest: Value,
    g: Value,
    normal: Value,
    inverse: Value,
    axes: &[i64],
) -> Result<Value> {
    let product = ctx.b.mul(g, normal)?;
    let slope = ctx.b.reduce_mean(product, axes, true)?;
    let along = ctx.b.mul(normal, slope)?;
    let across = ctx.b.sub(rest, along)?;
    ctx.b.mul(across, inverse)
}

/// Mean and inverse deviation in the operand's type: as the node gives them, or computed once more.
fn statistics(ctx: &mut Backward<'_, '_>) -> Result<(Value, Value)> {
    let (mean, inverse) = match (ctx.node.output(1), ctx.node.output(2)) {
        (Some(mean), Some(inverse)) => (mean, inverse),
        _ => {
            let again = Node { outputs: Vec::new(), origin: None, ..ctx.node.clone() };
            let results = ctx.b.push_n("saved", again, 3)?;
            (results[1], results[2])
        }
    };
    let x = ctx.input(0)?;
    Ok((ctx.b.cast_like(mean, x)?, ctx.b.cast_like(inverse, x)?))
}

/// The statistics are kept in `stash_type`; the result has the type of the scale.
fn rms_norm(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let missing = |i: usize| Error::new(Code::TYPES, format!("operand {i} is missing"));
    let (x, scale) = (node.input(0).ok_or_else(|| missing(0))?, node.input(1).ok_or_else(|| missing(1))?);
    let rank = b.shape(x)?.len();
    // Counted from the end, as those who write a norm out do.
    let axes: Vec<i64> = trailing(node, rank)?.into_iter().map(|a| a as i64 - rank as i64).collect();
    let wide = b.cast(x, stash_type(node)?)?;
    let square = b.mul(wide, wide)?;
    let mean = b.reduce_mean(square, &axes, true)?;
    let shifted = b.offset(mean, epsilon(node)?)?;
    let root = b.op("root", "Sqrt", &[shifted])?;
    let inverse = b.op("inverse", "Reciprocal", &[root])?;
    let normal = b.mul(wide, inverse)?;
    let narrow = b.cast_like(normal, scale)?;
    Ok(vec![b.mul(narrow, scale)?])
}
