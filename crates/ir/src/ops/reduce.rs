//! Reductions over axes: `ReduceSum`, `ReduceMax`, `ReduceL2`, …
use super::{
    broadcast::{positions, wide},
    composed::composed,
    layout,
};
use crate::{
    Array, Attr, Backward, Builder, DType, Data, Dim, Eval, EvalRule, Fact, Infer, Node, OpDef, Result, Type,
    Value, Vjp, product,
};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    reduction(
        "ReduceSum",
        |c| reduce(c, |v| v.iter().sum(), |v, _| v.iter().fold(0, |a, b| a.wrapping_add(*b))),
        Vjp::Rule(|ctx| spread(ctx, |_, dy, _| Ok(dy))),
        "y = Σ x",
    ),
    reduction("ReduceMean", |c| reduce(c, mean, integer_mean), Vjp::Rule(mean_vjp), "y = Σ x / n"),
    reduction(
        "ReduceMax",
        |c| reduce(c, greatest, |v, dtype| v.iter().copied().max().unwrap_or(range(dtype).0)),
        Vjp::Rule(extremum_vjp),
        "y = max x; of nothing the lowest number of the type",
    ),
    reduction(
        "ReduceMin",
        |c| reduce(c, least, |v, dtype| v.iter().copied().min().unwrap_or(range(dtype).1)),
        Vjp::Rule(extremum_vjp),
        "y = min x; of nothing the highest number of the type",
    ),
    reduction(
        "ReduceProd",
        |c| reduce(c, |v| v.iter().product(), |v, _| v.iter().fold(1, |a, b| a.wrapping_mul(*b))),
        Vjp::Missing,
        "y = Π x",
    ),
    reduction(
        "ReduceSumSquare",
        |c| reduce(c, square_sum, |v, _| integer_square_sum(v)),
        Vjp::Rule(|ctx| {
            spread(ctx, |ctx, dy, _| {
                let (x, twice) = (ctx.input(0)?, ctx.b.scale(dy, 2.0)?);
                ctx.b.mul(twice, x)
            })
        }),
        "y = Σ x²",
    ),
    reduction(
        "ReduceL1",
        |c| reduce(c, |v| v.iter().map(|x| x.abs()).sum(), |v, _| v.iter().fold(0, |a, b| a + b.abs())),
        Vjp::Rule(|ctx| {
            spread(ctx, |ctx, dy, _| {
                let x = ctx.input(0)?;
                let sign = ctx.b.op("sign", "Sign", &[x])?;
                ctx.b.mul(dy, sign)
            })
        }),
        "y = Σ |x|",
    ),
    reduction(
        "ReduceL2",
        |c| reduce(c, |v| square_sum(v).sqrt(), |v, _| (integer_square_sum(v) as f64).sqrt() as i128),
        Vjp::Rule(norm_vjp),
        "y = √Σ x²",
    ),
    composed("ReduceLogSum", 1, log_sum, "y = ln Σ x"),
    reduction(
        "ReduceLogSumExp",
        |c| {
            reduce(c, log_sum_exp, |v, _| {
                log_sum_exp(&v.iter().map(|&x| x as f64).collect::<Vec<_>>()) as i128
            })
        },
        Vjp::Rule(log_sum_exp_vjp),
        "y = ln Σ e^x",
    ),
];

const fn reduction(name: &'static str, eval: EvalRule, vjp: Vjp, doc: &'static str) -> OpDef {
    OpDef { name, since: 1, infer: infer_reduction, eval: Some(eval), vjp, doc }
}

/// Whether reduced axes stay, with size 1.
fn keepdims(node: &Node) -> Result<bool> {
    Ok(node.int("keepdims")?.unwrap_or(1) != 0)
}

/// The axes that are reduced, where `given` are named: all or none of them where that list is empty or left out.
fn reduced_axes(node: &Node, given: Option<&[i64]>, rank: usize) -> Result<Vec<usize>> {
    match given {
        Some(axes) if !axes.is_empty() => layout::axes(axes, rank),
        _ if node.int("noop_with_empty_axes")?.unwrap_or(0) != 0 => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}

fn infer_reduction(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let fact = Fact::of_dtype(ctx.dtype(0));
    let (Some(dims), Some(ty)) = (ctx.shape(0), &fact.ty) else { return Ok(vec![fact]) };
    let (keepdims, given) = (keepdims(ctx.node)?, ctx.ints_at(1, "axes")?);
    if given.is_none() && ctx.node.input(1).is_some() {
        // The axes are computed: their number may be known all the same.
        let n = ctx.shape(1).and_then(|s| s.first()?.as_size()).filter(|&n| n > 0);
        let rank = if keepdims { Some(dims.len()) } else { n.and_then(|n| dims.len().checked_sub(n)) };
        let shape = rank.map(|rank| (0..rank).map(|axis| ctx.unknown(0, axis)).collect());
        return Ok(vec![Fact { ty: Some(Type { dtype: ty.dtype, shape }), known: None }]);
    }
    let axes = reduced_axes(ctx.node, given.as_deref(), dims.len())?;
    let known = ctx.known(0).filter(|_| axes.len() == dims.len()).and_then(|k| known_reduction(ctx, &k));
    let kept = |(axis, d): (usize, &Dim)| match axes.contains(&axis) {
        true => keepdims.then(|| Dim::from(1i64)),
        false => Some(d.clone()),
    };
    let shape = dims.iter().enumerate().filter_map(kept).collect();
    Ok(vec![Fact::new(ty.dtype, shape).with_known(known)])
}

/// All of a small integer tensor reduced to one number.
fn known_reduction(ctx: &Infer<'_>, elements: &[Dim]) -> Option<Vec<Dim>> {
    let step: fn(&Dim, &Dim) -> Dim = match &*ctx.node.op {
        "ReduceSum" => |a, b| a.clone() + b.clone(),
        "ReduceProd" => |a, b| a.clone() * b.clone(),
        "ReduceMax" => Dim::max,
        "ReduceMin" => Dim::min,
        _ => return None,
    };
    let (first, rest) = elements.split_first()?;
    Some(vec![rest.iter().fold(first.clone(), |a, b| step(&a, b))])
}

/// What an array is reduced over.
struct Groups {
    /// The result's shape with the reduced axes kept.
    kept: Vec<usize>,
    /// The result's shape.
    dims: Vec<usize>,
    /// For each element of the array the element of the result that it goes into.
    slots: Vec<usize>,
}

impl Groups {
    fn new(x: &Array, axes: &[usize], keepdims: bool) -> Groups {
        let size = |(axis, &n): (usize, &usize)| if axes.contains(&axis) { 1 } else { n };
        let kept: Vec<usize> = x.dims.iter().enumerate().map(size).collect();
        let rest = (0..x.dims.len()).filter(|axis| keepdims || !axes.contains(axis));
        Groups { dims: rest.map(|axis| kept[axis]).collect(), slots: positions(&kept, &x.dims), kept }
    }
    /// The elements that go into each element of the result.
    fn collect<T: Copy>(&self, elements: &[T]) -> Vec<Vec<T>> {
        let mut groups = vec![Vec::new(); self.kept.iter().product()];
        for (&slot, &x) in self.slots.iter().zip(elements) {
            groups[slot].push(x);
        }
        groups
    }
}

fn reduce(
    c: &Eval<'_>,
    float: impl Fn(&[f64]) -> f64,
    int: impl Fn(&[i128], DType) -> i128,
) -> Result<Vec<Array>> {
    let x = c.input(0)?;
    let given = c.ints_at(1, "axes")?;
    let axes = reduced_axes(c.node, given.as_deref(), x.dims.len())?;
    let groups = Groups::new(x, &axes, keepdims(c.node)?);
    let data = match &x.data {
        Data::Float(v) => Data::Float(groups.collect(v).iter().map(|v| float(v)).collect()),
        Data::Int(_) => {
            let whole = groups.collect(&wide(x)?).into_iter().map(|v| int(&v, x.dtype) as i64);
            Data::Int(whole.collect())
        }
    };
    Ok(vec![Array { dtype: x.dtype, dims: groups.dims, data }])
}

/// Values of an array that share all but the axes `axes`, with the positions of the elements in that order.
pub(super) fn rows(x: &Array, axes: &[usize]) -> Result<Vec<Vec<(usize, f64)>>> {
    let elements: Vec<(usize, f64)> = x.floats()?.iter().copied().enumerate().collect();
    Ok(Groups::new(x, axes, true).collect(&elements))
}

fn mean(v: &[f64]) -> f64 {
    v.iter().sum::<f64>() / v.len() as f64
}

fn integer_mean(v: &[i128], _: DType) -> i128 {
    v.iter().sum::<i128>().checked_div(v.len() as i128).unwrap_or(0)
}

fn square_sum(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum()
}

fn integer_square_sum(v: &[i128]) -> i128 {
    v.iter().fold(0i128, |sum, x| sum.wrapping_add(x.wrapping_mul(*x)))
}

/// NaN, if any is.
fn greatest(v: &[f64]) -> f64 {
    v.iter().fold(f64::NEG_INFINITY, |a, &b| if a.is_nan() || a > b { a } else { b })
}

/// NaN, if any is.
fn least(v: &[f64]) -> f64 {
    v.iter().fold(f64::INFINITY, |a, &b| if a.is_nan() || a < b { a } else { b })
}

/// The lowest and highest number of an integer type.
fn range(dtype: DType) -> (i128, i128) {
    let bits = if dtype == DType::Bool { 1 } else { dtype.bits() };
    match dtype {
        DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64 => {
            (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        }
        _ => (0, (1 << bits) - 1),
    }
}

pub(super) fn log_sum_exp(v: &[f64]) -> f64 {
    let largest = greatest(v);
    // Without a finite largest element there is nothing to subtract.
    if largest.is_infinite() {
        return largest;
    }
    largest + v.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
}

/// The reduced axes; `None` if they are computed by the graph.
fn static_axes(ctx: &Backward<'_, '_>) -> Result<Option<Vec<i64>>> {
    let given = ctx.ints_at(1, "axes")?;
    if given.is_none() && ctx.node.input(1).is_some() {
        return Ok(None);
    }
    let rank = ctx.b.shape(ctx.input(0)?)?.len();
    let axes = reduced_axes(ctx.node, given.as_deref(), rank)?;
    Ok(Some(axes.into_iter().map(|a| a as i64).collect()))
}

/// `y` or its gradient, without the reduced axes, as it is with them: broadcasting to the operand.
fn with_axes(ctx: &mut Backward<'_, '_>, y: Value) -> Result<Value> {
    if keepdims(ctx.node)? {
        return Ok(y);
    }
    match static_axes(ctx)? {
        Some(axes) => ctx.b.unsqueeze(y, &axes),
        None => ctx.b.op("unsqueeze", "Unsqueeze", &[y, ctx.input(1)?]),
    }
}

/// The sum of `x` over the axes that the node reduces, which stay.
fn sum_alike(ctx: &mut Backward<'_, '_>, x: Value) -> Result<Value> {
    if let Some(axes) = static_axes(ctx)? {
        return ctx.b.reduce_sum(x, &axes, true);
    }
    let mut sum = Node::new("ReduceSum", &[x, ctx.input(1)?], &[]);
    sum.attrs = ctx.node.attrs.clone();
    sum.attrs.insert("keepdims".into(), Attr::Int(1));
    ctx.b.push("sum", sum)
}

/// `dx`, as `write` makes it from `dy` and `y`, both broadcasting to the operand.
fn spread(
    ctx: &mut Backward<'_, '_>,
    write: fn(&mut Backward<'_, '_>, Value, Value) -> Result<Value>,
) -> Result<Vec<Option<Value>>> {
    let (dy, y, x) = (ctx.dy()?, ctx.output(0)?, ctx.input(0)?);
    let (dy, y) = (with_axes(ctx, dy)?, with_axes(ctx, y)?);
    let dx = write(ctx, dy, y)?;
    Ok(vec![Some(ctx.b.expand_like(dx, x)?)])
}

/// `dx = dy / n`, with the number `n` of elements of one mean.
fn mean_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    spread(ctx, |ctx, dy, y| {
        let (x, result) = (ctx.input(0)?, ctx.output(0)?);
        let sizes = (ctx.b.graph.shape(x), ctx.b.graph.shape(result));
        let count = |dims: Option<&[Dim]>| dims.map(product);
        if let (Some(all), Some(means)) = (count(sizes.0), count(sizes.1))
            && let Some(n) = all.div_exact(&means).and_then(|n| n.as_const()).filter(|&n| n > 0)
        {
            return ctx.b.scale(dy, 1.0 / n as f64);
        }
        let (all, means) = (ctx.b.op("size", "Size", &[x])?, ctx.b.op("size", "Size", &[y])?);
        // Without any mean there is no element whose gradient the division could spoil.
        let one = ctx.b.scalar_like("one", 1.0, means)?;
        let means = ctx.b.op("means", "Max", &[means, one])?;
        let n = ctx.b.div(all, means)?;
        let n = ctx.b.cast_like(n, dy)?;
        ctx.b.div(dy, n)
    })
}

/// The sum as a node of its own, whose axes may be spelled differently.
fn log_sum(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let mut sum = Node { op: "ReduceSum".into(), outputs: Vec::new(), name: String::new(), ..node.clone() };
    if b.opset() >= 13
        && let Some(Attr::Ints(axes)) = sum.attrs.remove("axes")
    {
        sum.inputs.push(Some(b.ints("axes", &axes)?));
    }
    let sum = b.push("sum", sum)?;
    Ok(vec![b.op("log", "Log", &[sum])?])
}

/// The gradient is shared evenly by the elements that attain the extremum.
fn extremum_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    spread(ctx, |ctx, dy, y| {
        let x = ctx.input(0)?;
        let attained = ctx.b.op("attained", "Equal", &[x, y])?;
        let ones = ctx.b.cast_like(attained, x)?;
        let count = sum_alike(ctx, ones)?;
        let share = ctx.b.div(dy, count)?;
        ctx.b.keep_where(attained, share)
    })
}

/// `dx = dy · x / y`, 0 where `y` is 0.
fn norm_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    spread(ctx, |ctx, dy, y| {
        let x = ctx.input(0)?;
        let zero = ctx.b.scalar_like("zero", 0.0, y)?;
        let one = ctx.b.scalar_like("one", 1.0, y)?;
        let at_zero = ctx.b.op("at_zero", "Equal", &[y, zero])?;
        let safe = ctx.b.op("safe", "Where", &[at_zero, one, y])?;
        let slope = ctx.b.div(dy, safe)?;
        ctx.b.mul(slope, x)
    })
}

/// `dx = dy · e^(x - y)`.
fn log_sum_exp_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    spread(ctx, |ctx, dy, y| {
        let x = ctx.input(0)?;
        let below = ctx.b.sub(x, y)?;
        let share = ctx.b.op("share", "Exp", &[below])?;
        ctx.b.mul(dy, share)
    })
}
