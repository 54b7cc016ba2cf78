//! Ends a graph in a scalar loss.
use crate::{Context, Options, Pass, io};
use graft_ir::{Attr, Builder, Code, DType, Dim, Error, Graph, Node, Result, Type, Value};

/// Options: `kind`: `cross-entropy`, `mse`, `bce` (on logits), `causal-lm` or `none` (the model's output is the loss);
/// `logits`: the output that is read, by default the head's, else the only floating-point one; `label` (`labels`): the
/// name of the new input.
///
/// Classes lie on the last axis. Labels are `int64`, one for each row of logits, -100 being ignored; for `mse` and
/// `bce` they are `float`, of the shape of the logits (without a last axis of size 1). `causal-lm` has no label:
/// logits at t predict `input_ids` at t+1, and the mean runs over the predicted tokens whose `attention_mask` is set
/// (all, where the model has no such input). The outputs are then `loss` and the logits; what only others needed is
/// swept.
pub const PASS: Pass = Pass { name: "loss", about: "ends the graph in a scalar loss", run: loss };

/// The label that counts for nothing, as PyTorch has it.
const IGNORED: i64 = -100;

/// The losses by name.
const KINDS: &[(&str, Kind)] = &[
    ("cross-entropy", cross_entropy),
    ("mse", mean_squared_error),
    ("bce", binary_cross_entropy),
    ("causal-lm", causal_lm),
    ("none", mean),
];

/// From logits and the name of the label, the scalar term of the data.
type Kind = fn(Value, &str, &mut Builder<'_>) -> Result<Value>;

fn loss(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&["kind", "logits", "label"])?;
    let kind = options.get_or("kind", "cross-entropy".to_string())?;
    let unknown = || {
        let known: Vec<&str> = KINDS.iter().map(|k| k.0).collect();
        let help = format!("known losses: `{}`", known.join("`, `"));
        Error::new(Code::LOSS, format!("there is no loss `{kind}`")).help(help)
    };
    let (_, data_term) = KINDS.iter().find(|k| k.0 == kind).ok_or_else(unknown)?;
    let logits = logits(graph, options.get("logits")?)?;
    (ctx.log)(&format!("loss: {kind} on `{}`", graph.name(logits)));
    let label = io::free_name(graph, &options.get_or("label", "labels".to_string())?);
    let name = io::free_name(graph, "loss");

    let mut out = graph.clone();
    let mut b = Builder::new(&mut out);
    b.scope("loss.");
    let wide =
        if b.graph.dtype(logits) == Some(DType::Double) { logits } else { b.cast(logits, DType::Float)? };
    let total = data_term(wide, &label, &mut b)?;
    b.graph[total].name = name;
    out.outputs = vec![total];
    if total != logits && kind != "none" {
        out.outputs.push(logits);
        io::set_role(&mut out, "logits", logits)?;
    }
    io::set_role(&mut out, "loss", total)?;
    out.sweep();
    Ok(out)
}

/// The output that the loss reads.
fn logits(graph: &Graph, name: Option<String>) -> Result<Value> {
    let is_float = |v: &Value| graph.dtype(*v).is_some_and(DType::is_float);
    let floats: Vec<Value> = graph.outputs.iter().copied().filter(is_float).collect();
    let list = || {
        let names: Vec<&str> = floats.iter().map(|&v| graph.name(v)).collect();
        format!("name one with `logits`; the floating-point outputs are `{}`", names.join("`, `"))
    };
    if let Some(name) = name {
        let missing =
            || Error::new(Code::LOSS, format!("there is no floating-point output `{name}`")).help(list());
        return floats.iter().copied().find(|&v| graph.name(v) == name).ok_or_else(missing);
    }
    if let Some(noted) = io::role(graph, "logits")?.filter(|v| floats.contains(v)) {
        return Ok(noted);
    }
    match floats[..] {
        [one] => Ok(one),
        _ => {
            let message = format!("the model has {} floating-point outputs, expected one", floats.len());
            Err(Error::new(Code::LOSS, message).help(list()))
        }
    }
}

/// Adds the input for labels.
fn label_input(name: &str, dtype: DType, shape: &[Dim], b: &mut Builder<'_>) -> Result<Value> {
    let label = b.graph.add_input(name, Type::new(dtype, shape.iter().cloned()));
    io::set_role(b.graph, "label", label)?;
    Ok(label)
}

fn cross_entropy(logits: Value, label: &str, b: &mut Builder<'_>) -> Result<Value> {
    let shape = b.shape(logits)?;
    let label = label_input(label, DType::Int64, shape.split_last().map_or(&[], |(_, rows)| rows), b)?;
    cross_entropy_with(logits, label, b)
}

/// The mean of `-log softmax(logits)[label]` over the labels that are not ignored; classes on the last axis.
fn cross_entropy_with(logits: Value, label: Value, b: &mut Builder<'_>) -> Result<Value> {
    if b.opset() < 12 {
        let message = format!("cross-entropy needs opset 12, the model has {}", b.opset());
        return Err(Error::new(Code::OPSET, message).help("`graft opt -p 'upgrade{opset=12}'` raises it"));
    }
    let rank = b.shape(logits)?.len();
    if rank < 2 {
        let message = format!("`{}` has rank {rank}, expected (…, classes)", b.graph.name(logits));
        return Err(Error::new(Code::LOSS, message));
    }
    let (mut logits, mut label) = (logits, label);
    if rank > 2 {
        let flatten = Node::new("Flatten", &[logits], &[]).with("axis", Attr::Int(rank as i64 - 1));
        logits = b.push("rows", flatten)?;
        let shape = b.ints("shape", &[-1])?;
        label = b.reshape(label, shape)?;
    }
    let node = Node::new("SoftmaxCrossEntropyLoss", &[logits, label], &[])
        .with("ignore_index", Attr::Int(IGNORED))
        .with("reduction", Attr::Str("mean".into()));
    b.push("cross_entropy", node)
}

/// Logits and labels of the same shape; a last axis of size 1 is dropped from the logits.
fn paired(logits: Value, label: &str, b: &mut Builder<'_>) -> Result<(Value, Value)> {
    let mut shape = b.shape(logits)?;
    let dtype = b.graph.dtype(logits).unwrap_or(DType::Float);
    let mut x = logits;
    if shape.len() > 1 && shape.last() == Some(&Dim::from(1i64)) {
        shape.pop();
        x = b.squeeze(logits, &[shape.len() as i64])?;
    }
    Ok((x, label_input(label, dtype, &shape, b)?))
}

/// The mean of all elements.
fn mean(x: Value, _: &str, b: &mut Builder<'_>) -> Result<Value> {
    b.push("mean", Node::new("ReduceMean", &[x], &[]).with("keepdims", Attr::Int(0)))
}

fn mean_squared_error(logits: Value, label: &str, b: &mut Builder<'_>) -> Result<Value> {
    let (x, label) = paired(logits, label, b)?;
    let difference = b.sub(x, label)?;
    let square = b.mul(difference, difference)?;
    mean(square, "", b)
}

/// The mean of `max(x, 0) - x·label + log(1 + exp(-|x|))`, which overflows for no logit x.
fn binary_cross_entropy(logits: Value, label: &str, b: &mut Builder<'_>) -> Result<Value> {
    let (x, label) = paired(logits, label, b)?;
    let positive = b.op("positive", "Relu", &[x])?;
    let product = b.mul(x, label)?;
    let hinge = b.sub(positive, product)?;
    let size = b.op("size", "Abs", &[x])?;
    let negative = b.neg(size)?;
    let exp = b.op("exp", "Exp", &[negative])?;
    let above_one = b.offset(exp, 1.0)?;
    let log = b.op("log", "Log", &[above_one])?;
    let terms = b.add(hinge, log)?;
    mean(terms, "", b)
}

/// Labels are the tokens moved by one place; where there is no next token, or the mask is 0, nothing is predicted.
fn causal_lm(logits: Value, _: &str, b: &mut Builder<'_>) -> Result<Value> {
    let input =
        |b: &Builder<'_>, name: &str| b.graph.inputs.iter().copied().find(|&v| b.graph.name(v) == name);
    let missing = || Error::new(Code::LOSS, "`causal-lm` needs an input `input_ids`, which the model lacks");
    let ids = input(b, "input_ids").ok_or_else(missing)?;
    let ignored = b.scalar_like("ignored", IGNORED as f64, ids)?;
    let mut next = positions(ids, 1, i64::MAX, b)?;
    if let Some(mask) = input(b, "attention_mask") {
        let mask = positions(mask, 1, i64::MAX, b)?;
        let mask = b.cast(mask, DType::Bool)?;
        next = b.op("next", "Where", &[mask, next, ignored])?;
    }
    let first = positions(ids, 0, 1, b)?;
    let last = b.expand_like(ignored, first)?;
    let label = b.push("label", Node::new("Concat", &[next, last], &[]).with("axis", Attr::Int(1)))?;
    cross_entropy_with(logits, label, b)
}

/// `x[:, start:end]`.
fn positions(x: Value, start: i64, end: i64, b: &mut Builder<'_>) -> Result<Value> {
    let bounds = [b.ints("start", &[start])?, b.ints("end", &[end])?, b.ints("axis", &[1])?];
    b.op("positions", "Slice", &[x, bounds[0], bounds[1], bounds[2]])
}
