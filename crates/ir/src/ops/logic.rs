//! Comparison, logic and selection.
use super::broadcast::{
    broadcast_fact, broadcast_sizes, common_dtype, compare, expand, known_pairs, same_type,
};
use crate::{Array, Backward, DType, Data, Dim, Eval, EvalRule, Fact, Infer, OpDef, Result, Value, Vjp};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    relation("Equal", 7, |c| compare(c, |a, b| a == b, |a, b| a == b), "y = a equals b"),
    relation("Greater", 7, |c| compare(c, |a, b| a > b, |a, b| a > b), "y = a > b"),
    relation("GreaterOrEqual", 12, |c| compare(c, |a, b| a >= b, |a, b| a >= b), "y = a ≥ b"),
    relation("Less", 7, |c| compare(c, |a, b| a < b, |a, b| a < b), "y = a < b"),
    relation("LessOrEqual", 12, |c| compare(c, |a, b| a <= b, |a, b| a <= b), "y = a ≤ b"),
    connective("And", |c| compare(c, |_, _| false, |a, b| a & b != 0), "y = a and b"),
    connective("Or", |c| compare(c, |_, _| false, |a, b| a | b != 0), "y = a or b"),
    connective("Xor", |c| compare(c, |_, _| false, |a, b| a != b), "y = either a or b"),
    OpDef {
        name: "Not",
        since: 1,
        infer: |ctx| {
            let known = ctx.known(0).and_then(|k| k.iter().map(negation).collect());
            Ok(vec![same_type(ctx)?.remove(0).with_known(known)])
        },
        eval: Some(|c| {
            let x = c.input(0)?;
            let data = x.ints()?.iter().map(|&x| i64::from(x == 0)).collect();
            Ok(vec![Array::int(DType::Bool, x.dims.clone(), data)])
        }),
        vjp: Vjp::Zero,
        doc: "y = not x",
    },
    predicate("IsNaN", 9, |c| test(c, |_, x| x.is_nan()), "y = x is NaN"),
    predicate(
        "IsInf",
        10,
        |c| {
            let wanted = |name| Ok(c.node.int(name)?.unwrap_or(1) != 0);
            let (negative, positive): (bool, bool) = (wanted("detect_negative")?, wanted("detect_positive")?);
            test(c, move |_, x| x.is_infinite() && if x < 0.0 { negative } else { positive })
        },
        "y = x is infinite, of the signs asked for",
    ),
    OpDef {
        name: "Where",
        since: 9,
        infer: infer_where,
        eval: Some(select),
        vjp: Vjp::Rule(where_vjp),
        doc: "y = a where the condition holds, else b",
    },
];

const fn relation(name: &'static str, since: i64, eval: EvalRule, doc: &'static str) -> OpDef {
    OpDef { name, since, infer: infer_relation, eval: Some(eval), vjp: Vjp::Zero, doc }
}

const fn connective(name: &'static str, eval: EvalRule, doc: &'static str) -> OpDef {
    OpDef { name, since: 7, infer: infer_relation, eval: Some(eval), vjp: Vjp::Zero, doc }
}

const fn predicate(name: &'static str, since: i64, eval: EvalRule, doc: &'static str) -> OpDef {
    OpDef { name, since, infer: infer_predicate, eval: Some(eval), vjp: Vjp::Zero, doc }
}

fn infer_relation(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let operands = common_dtype(ctx, 0..2)?;
    if matches!(&*ctx.node.op, "And" | "Or" | "Xor") && operands.is_some_and(|d| d != DType::Bool) {
        return Err(ctx.mismatch(format!("`{}` needs operands of bool", ctx.node.op)));
    }
    let decide = |a: &Dim, b: &Dim| {
        let above = |a: &Dim, b: &Dim| (a.clone() - b.clone() - Dim::from(1i64)).is_non_negative();
        let not_below = |a: &Dim, b: &Dim| (a.clone() - b.clone()).is_non_negative();
        // Whether it certainly holds, and whether it certainly does not.
        let (yes, no) = match &*ctx.node.op {
            "Equal" => (a == b, a.never_equals(b)),
            "Greater" => (above(a, b), not_below(b, a)),
            "GreaterOrEqual" => (not_below(a, b), above(b, a)),
            "Less" => (above(b, a), not_below(a, b)),
            "LessOrEqual" => (not_below(b, a), above(a, b)),
            "And" => return connect(a, b, |a, b| a && b),
            "Or" => return connect(a, b, |a, b| a || b),
            _ => return connect(a, b, |a, b| a != b),
        };
        (yes || no).then(|| Dim::from(i64::from(yes)))
    };
    let known = ctx.known(0).zip(ctx.known(1)).and_then(|(a, b)| known_pairs(&a, &b, decide));
    Ok(vec![broadcast_fact(ctx, 0..2, Some(DType::Bool))?.with_known(known)])
}

fn connect(a: &Dim, b: &Dim, f: fn(bool, bool) -> bool) -> Option<Dim> {
    Some(Dim::from(i64::from(f(a.as_const()? != 0, b.as_const()? != 0))))
}

fn negation(d: &Dim) -> Option<Dim> {
    Some(Dim::from(i64::from(d.as_const()? == 0)))
}

fn infer_predicate(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    broadcast_fact(ctx, 0..1, Some(DType::Bool)).map(|fact| vec![fact])
}

fn test(c: &Eval<'_>, f: impl Fn(usize, f64) -> bool) -> Result<Vec<Array>> {
    let x = c.input(0)?;
    let truth = x.floats()?.iter().enumerate().map(|(i, &x)| f(i, x).into()).collect();
    Ok(vec![Array::int(DType::Bool, x.dims.clone(), truth)])
}

fn infer_where(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    if ctx.dtype(0).is_some_and(|d| d != DType::Bool) {
        return Err(ctx.mismatch("the condition of `Where` must be bool"));
    }
    let known = || {
        // Each branch with 0 where the other is chosen.
        let (condition, a, b) = (ctx.known(0)?, ctx.known(1)?, ctx.known(2)?);
        let chosen = |wanted: bool, dims: &[Dim]| {
            known_pairs(&condition, dims, |c, d| {
                Some(if (c.as_const()? != 0) == wanted { d.clone() } else { Dim::default() })
            })
        };
        known_pairs(&chosen(true, &a)?, &chosen(false, &b)?, |a, b| Some(a.clone() + b.clone()))
    };
    Ok(vec![broadcast_fact(ctx, 0..3, common_dtype(ctx, 1..3)?)?.with_known(known())])
}

fn select(c: &Eval<'_>) -> Result<Vec<Array>> {
    let (condition, a, b) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let dims = broadcast_sizes([&condition.dims[..], &a.dims[..], &b.dims[..]])?;
    let (condition, a, b) = (expand(condition, &dims), expand(a, &dims), expand(b, &dims));
    let truth = condition.ints()?;
    let data = match &a.data {
        Data::Float(v) => Data::Float(pick(truth, v, b.floats()?)),
        Data::Int(v) => Data::Int(pick(truth, v, b.ints()?)),
    };
    Ok(vec![Array { dtype: a.dtype, dims, data }])
}

fn pick<T: Copy>(truth: &[i64], a: &[T], b: &[T]) -> Vec<T> {
    truth.iter().zip(a.iter().zip(b)).map(|(&c, (&a, &b))| if c != 0 { a } else { b }).collect()
}

fn where_vjp(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (dy, condition) = (ctx.dy()?, ctx.input(0)?);
    let zero = ctx.b.scalar_like("zero", 0.0, dy)?;
    ctx.each(|ctx, i, x| {
        let (a, b) = if i == 1 { (dy, zero) } else { (zero, dy) };
        let kept = ctx.b.op("kept", "Where", &[condition, a, b])?;
        ctx.b.reduce_to(kept, x)
    })
}
