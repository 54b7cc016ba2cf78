//! Puts a trainable classifier on an output: `logits = pool(x)·weight + bias`.
use crate::{
    Context, Options, Pass,
    inject::{Init, initial},
    io, meta,
};
use graft_ir::{Builder, Code, DType, Error, Graph, Node, Result, Tensor, Value, affordable};

/// Options: `kind=classify`; `classes` (2); `pool`: `mean` over positions (those whose `attention_mask` is set, where
/// the model has that input), `cls` (the first position) or `none`; `from`: the output that is read.
///
/// By default the only floating-point output of rank 3 is mean-pooled; where there is none, the only one of rank 2 is
/// read as it is. The weights are `head.weight` (in, classes), uniform in ±1/√in, and `head.bias` (classes), zero.
pub const PASS: Pass = Pass { name: "head", about: "puts a trainable classifier on an output", run: head };

/// The tensor of the random generator that `head.weight` draws: the last, as adapters count from the first.
const TENSOR: u64 = (1 << 12) - 1;

/// Keeps the mean over no position at all finite, as sentence-transformers has it.
const MIN_POSITIONS: f64 = 1e-9;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pool {
    Mean,
    Cls,
    None,
}

impl Pool {
    const ALL: [Pool; 3] = [Pool::Mean, Pool::Cls, Pool::None];

    fn name(self) -> &'static str {
        match self {
            Pool::Mean => "mean",
            Pool::Cls => "cls",
            Pool::None => "none",
        }
    }
    fn parse(text: &str) -> Result<Pool> {
        let unknown = || {
            let known = Pool::ALL.map(Pool::name).join("`, `");
            Error::new(Code::PASS, format!("there is no pooling `{text}`")).help(format!("known: `{known}`"))
        };
        Pool::ALL.into_iter().find(|p| p.name() == text).ok_or_else(unknown)
    }
}

fn head(graph: &Graph, options: &Options, ctx: &mut Context<'_>) -> Result<Graph> {
    options.expect_only(&["kind", "classes", "pool", "from"])?;
    let kind = options.get_or("kind", "classify".to_string())?;
    if kind != "classify" {
        let message = format!("there is no head of kind `{kind}`");
        return Err(Error::new(Code::PASS, message).help("known kinds: `classify`"));
    }
    let classes: usize = options.get_or("classes", 2)?;
    if classes == 0 {
        return Err(Error::new(Code::PASS, "a head needs at least one class"));
    }
    let (from, pool) = source(graph, options)?;
    let d_in = graph.shape(from).and_then(|s| s.last()?.as_size());
    let unknown = || {
        let message = format!("the last dimension of `{}` is not known", graph.name(from));
        Error::new(Code::LOSS, message).help("name another output with `from`")
    };
    let d_in = d_in.ok_or_else(unknown)?;
    (ctx.log)(&format!(
        "head: {classes} classes on output `{}` ({d_in} features, pool={})",
        graph.name(from),
        pool.name()
    ));
    let mut out = graph.clone();
    let logits_name = io::free_name(graph, "logits");
    let [weight, bias] = weights(&mut out, d_in, classes, ctx.seed)?;
    let mut b = Builder::new(&mut out);
    b.scope("head.");
    let x = pooled(from, pool, &mut b)?;
    let x = b.cast(x, DType::Float)?;
    let product = b.matmul(x, weight)?;
    let logits = b.graph.add_value(logits_name, None);
    b.append(Node::new("Add", &[product, bias], &[logits]))?;
    out.outputs.push(logits);
    io::set_role(&mut out, "logits", logits)?;
    Ok(out)
}

/// The output to read, and how to pool it.
fn source(graph: &Graph, options: &Options) -> Result<(Value, Pool)> {
    let pool = options.get::<String>("pool")?.as_deref().map(Pool::parse).transpose()?;
    let rank = |v: Value| graph.shape(v).map(<[_]>::len);
    let is_float = |v: &Value| graph.dtype(*v).is_some_and(DType::is_float);
    let floats: Vec<Value> = graph.outputs.iter().copied().filter(is_float).collect();
    if let Some(name) = options.get::<String>("from")? {
        let found = floats.iter().copied().find(|&v| graph.name(v) == name);
        let from = found.ok_or_else(|| {
            ambiguous(graph, &floats, format!("there is no floating-point output `{name}`"))
        })?;
        let default = if rank(from) == Some(3) { Pool::Mean } else { Pool::None };
        return check(graph, from, pool.unwrap_or(default));
    }
    let of_rank = |n| floats.iter().copied().filter(|&v| rank(v) == Some(n)).collect::<Vec<Value>>();
    let candidates = match pool {
        Some(Pool::Mean | Pool::Cls) => of_rank(3),
        Some(Pool::None) => of_rank(2),
        None => Some(of_rank(3)).filter(|c| !c.is_empty()).unwrap_or_else(|| of_rank(2)),
    };
    match candidates[..] {
        [one] => {
            let default = if rank(one) == Some(3) { Pool::Mean } else { Pool::None };
            check(graph, one, pool.unwrap_or(default))
        }
        [] => Err(ambiguous(graph, &floats, "no output suits the head".into())),
        _ => Err(ambiguous(graph, &candidates, "more than one output suits the head".into())),
    }
}

fn check(graph: &Graph, from: Value, pool: Pool) -> Result<(Value, Pool)> {
    let rank = graph.shape(from).map(<[_]>::len);
    let fits = match pool {
        Pool::Mean | Pool::Cls => rank == Some(3),
        Pool::None => rank.is_some_and(|r| r >= 2),
    };
    let ty = graph[from].ty.as_ref().map_or("of unknown type".into(), ToString::to_string);
    let message = format!("output `{}` ({ty}) cannot be read with pool={}", graph.name(from), pool.name());
    if fits { Ok((from, pool)) } else { Err(Error::new(Code::LOSS, message)) }
}

fn ambiguous(graph: &Graph, candidates: &[Value], message: String) -> Error {
    let describe = |v: &Value| {
        let ty = graph[*v].ty.as_ref().map_or(String::new(), |ty| format!(" ({ty})"));
        format!("`{}`{ty}", graph.name(*v))
    };
    let list: Vec<String> = candidates.iter().map(describe).collect();
    Error::new(Code::LOSS, message).help(format!("choose one with `from`; candidates: {}", list.join(", ")))
}

/// Adds `head.weight` (in, classes) and `head.bias` (classes).
fn weights(graph: &mut Graph, d_in: usize, classes: usize, seed: u64) -> Result<[Value; 2]> {
    let mut weight = |role: &'static str, dims: Vec<usize>, init: Init| {
        affordable(DType::Double, &dims).map_err(|e| e.at(format!("`head.{role}`")))?;
        let name = io::free_name(graph, &format!("head.{role}"));
        let values = initial(&init, &dims, seed, TENSOR);
        let too_large = || Error::new(Code::PASS, format!("a head of {classes} classes is too large"));
        let tensor = values.and_then(|v| Tensor::from_f64(DType::Float, &dims, v)).ok_or_else(too_large)?;
        let v = graph.add_param(name, tensor);
        let notes = [
            (meta::TARGET, "head"),
            (meta::ROLE, role),
            (meta::VERSION, meta::CURRENT),
            (meta::TRAINABLE, "true"),
        ];
        graph[v].meta.extend(notes.map(|(k, v)| (k.to_string(), v.to_string())));
        Ok(v)
    };
    Ok([
        weight("weight", vec![d_in, classes], Init::KaimingUniform { fan_in: d_in })?,
        weight("bias", vec![classes], Init::Constant(0.0))?,
    ])
}

/// `x` (batch, positions, in) as (batch, in).
fn pooled(x: Value, pool: Pool, b: &mut Builder<'_>) -> Result<Value> {
    match pool {
        Pool::None => Ok(x),
        Pool::Cls => {
            let first = b.constant("first", Tensor::i64(&[], &[0]))?;
            let node = Node::new("Gather", &[x, first], &[]).with("axis", graft_ir::Attr::Int(1));
            b.push("cls", node)
        }
        Pool::Mean => {
            let is_mask = |v: &Value| b.graph.name(*v) == "attention_mask";
            let Some(mask) = b.graph.inputs.iter().copied().find(is_mask) else {
                return b.reduce_mean(x, &[1], false);
            };
            let mask = b.cast_like(mask, x)?;
            let column = b.unsqueeze(mask, &[2])?;
            let kept = b.mul(x, column)?;
            let sum = b.reduce_sum(kept, &[1], false)?;
            let count = b.reduce_sum(mask, &[1], true)?;
            let least = b.scalar_like("least", MIN_POSITIONS, count)?;
            let count = b.op("count", "Max", &[count, least])?;
            b.div(sum, count)
        }
    }
}
