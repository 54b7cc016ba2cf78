//! Losses on class labels: `SoftmaxCrossEntropyLoss`, `NegativeLogLikelihoodLoss`.
use super::reduce::{log_sum_exp, rows};
use crate::{
    Array, Attr, Backward, Code, DType, Dim, Error, Eval, Fact, Infer, Node, OpDef, Result, Tensor, Type,
    Value, Vjp,
};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    OpDef {
        name: "SoftmaxCrossEntropyLoss",
        since: 12,
        infer: infer_loss,
        eval: Some(cross_entropy),
        vjp: Vjp::Rule(cross_entropy_vjp),
        doc: "y = -w[label] · ln softmax(x)[label], classes on axis 1; the mean is weighted by w[label]",
    },
    OpDef {
        name: "NegativeLogLikelihoodLoss",
        since: 12,
        infer: infer_loss,
        eval: Some(|c| {
            let x = c.input(0)?;
            Ok(vec![likelihood(c, x)?])
        }),
        vjp: Vjp::Missing,
        doc: "y = -w[label] · x[label], classes on axis 1; the mean is weighted by w[label]",
    },
];

/// How the losses of the labels become one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reduction {
    None,
    Sum,
    Mean,
}

fn reduction(node: &Node) -> Result<Reduction> {
    match node.str("reduction")?.unwrap_or("mean") {
        "none" => Ok(Reduction::None),
        "sum" => Ok(Reduction::Sum),
        "mean" => Ok(Reduction::Mean),
        other => {
            let message = format!("attribute `reduction` is `{other}`, expected `none`, `sum` or `mean`");
            Err(Error::new(Code::ATTRIBUTE, message))
        }
    }
}

fn infer_loss(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let (scores, labels) = (ctx.shape(0), ctx.shape(1));
    if let (Some(scores), Some(labels)) = (scores, labels) {
        let without_classes: Vec<&Dim> = scores.iter().take(1).chain(scores.iter().skip(2)).collect();
        let differ = |(a, b): (&&Dim, &Dim)| a.never_equals(b);
        if scores.len() < 2
            || without_classes.len() != labels.len()
            || without_classes.iter().zip(labels).any(differ)
        {
            let message = "scores must be (N, C, …) and labels (N, …) with the same sizes";
            return Err(ctx.mismatch(message));
        }
    }
    let shape = match reduction(ctx.node)? {
        Reduction::None => labels.map(<[Dim]>::to_vec),
        _ => Some(Vec::new()),
    };
    let loss = Fact { ty: ctx.dtype(0).map(|dtype| Type { dtype, shape }), known: None };
    Ok(vec![loss, Fact { ty: ctx.ty(0).cloned(), known: None }])
}

fn cross_entropy(c: &Eval<'_>) -> Result<Vec<Array>> {
    let x = c.input(0)?;
    let mut log_prob = vec![0.0; x.len()];
    for row in rows(x, &[1])? {
        let elements: Vec<f64> = row.iter().map(|(_, x)| *x).collect();
        let shift = log_sum_exp(&elements);
        row.into_iter().for_each(|(i, x)| log_prob[i] = x - shift);
    }
    let log_prob = Array::float(x.dtype, x.dims.clone(), log_prob);
    Ok(vec![likelihood(c, &log_prob)?, log_prob])
}

/// `-w[label] · x[label]` for each label, reduced.
fn likelihood(c: &Eval<'_>, x: &Array) -> Result<Array> {
    let (labels, weights, ignored) = (c.input(1)?, c.get(2), c.node.int("ignore_index")?);
    let (mut losses, mut total) = (Vec::new(), 0.0);
    let by_label = rows(x, &[1])?;
    if by_label.len() != labels.len() {
        let message = format!("scores {:?} do not fit labels {:?}", x.dims, labels.dims);
        return Err(Error::new(Code::TYPES, message));
    }
    for (row, &label) in by_label.iter().zip(labels.ints()?) {
        if Some(label) == ignored {
            losses.push(0.0);
            continue;
        }
        let class = usize::try_from(label).ok().filter(|&class| class < row.len());
        let outside = || Error::new(Code::VALUE, format!("label {label} is none of {} classes", row.len()));
        let class = class.ok_or_else(outside)?;
        let weight = match weights {
            Some(w) => *w.floats()?.get(class).ok_or_else(outside)?,
            None => 1.0,
        };
        losses.push(-weight * row[class].1);
        total += weight;
    }
    let sum: f64 = losses.iter().sum();
    Ok(match reduction(c.node)? {
        Reduction::None => Array::float(x.dtype, labels.dims.clone(), losses),
        Reduction::Sum => Array::float(x.dtype, Vec::new(), vec![sum]),
        Reduction::Mean => Array::float(x.dtype, Vec::new(), vec![sum / total]),
    })
}

/// `dx = (softmax(x) - one_hot(label)) · share`, with the share that the label's loss has in the result.
fn cross_entropy_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    if ctx.needs(2) {
        return Err(Error::new(Code::NO_GRADIENT, "the class weights of a loss have no gradient"));
    }
    let (dy, x, labels) = (ctx.dy()?, ctx.input(0)?, ctx.input(1)?);
    let plain = ctx.node.input(2).is_none();
    if let (true, Reduction::Mean) = (plain, reduction(ctx.node)?) {
        let mut call = Node::new("graft.CrossEntropyGrad", &[dy, x, labels], &[]);
        call.attrs.extend(ctx.node.attrs.get("ignore_index").map(|a| ("ignore_index".into(), a.clone())));
        return Ok(vec![Some(ctx.b.call("dx", call, 1)?[0])]);
    }
    let share = shares(ctx, dy, x, labels)?;
    let call = Node::new("graft.CrossEntropyRows", &[share, x, labels], &[]);
    Ok(vec![Some(ctx.b.call("dx", call, 1)?[0])])
}

/// The gradient of the result by each label's `-ln softmax(x)[label]`, 0 where the label is ignored.
fn shares(ctx: &mut Backward<'_, '_>, dy: Value, x: Value, labels: Value) -> Result<Value> {
    let labels = ctx.b.cast(labels, DType::Int64)?;
    let ignored = match ctx.node.int("ignore_index")? {
        Some(index) => {
            let index = ctx.b.constant("ignore_index", Tensor::i64(&[], &[index]))?;
            Some((ctx.b.op("ignored", "Equal", &[labels, index])?, index))
        }
        None => None,
    };
    let zero = ctx.b.scalar_like("zero", 0.0, x)?;
    let mut weight = match ctx.node.input(2) {
        Some(weights) => {
            // An ignored label may be no class at all.
            let class = match ignored {
                Some((ignored, index)) => {
                    let first = ctx.b.scalar_like("first", 0.0, index)?;
                    ctx.b.op("class", "Where", &[ignored, first, labels])?
                }
                None => labels,
            };
            ctx.b.push("weight", Node::new("Gather", &[weights, class], &[]).with("axis", Attr::Int(0)))?
        }
        None => {
            let one = ctx.b.scalar_like("one", 1.0, x)?;
            ctx.b.expand_like(one, labels)?
        }
    };
    if let Some((ignored, _)) = ignored {
        weight = ctx.b.op("weight", "Where", &[ignored, zero, weight])?;
    }
    let share = ctx.b.mul(weight, dy)?;
    if reduction(ctx.node)? != Reduction::Mean {
        return Ok(share);
    }
    let axes: Vec<i64> = (0..ctx.b.shape(labels)?.len() as i64).collect();
    let total = ctx.b.reduce_sum(weight, &axes, false)?;
    ctx.b.div(share, total)
}
