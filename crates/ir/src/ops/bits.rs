//! Integers as rows of bits: `BitShift`, `BitwiseAnd`, ….
use super::broadcast::{broadcast_fact, combine, common_dtype, same_type};
use crate::{Array, Code, DType, Data, Error, EvalRule, Fact, Infer, OpDef, Result, Vjp};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    binary(
        "BitShift",
        11,
        |c| {
            let leftwards = match c.node.str("direction")? {
                Some("LEFT") => true,
                Some("RIGHT") => false,
                other => {
                    let message = format!("attribute `direction` is {other:?}, expected `LEFT` or `RIGHT`");
                    return Err(Error::new(Code::ATTRIBUTE, message));
                }
            };
            let bits = c.input(0)?.dtype.bits() as i128;
            bitwise(c, move |a, n| match (leftwards, n) {
                (_, n) if n >= bits => 0,
                (true, n) => a << n,
                (false, n) => a >> n,
            })
        },
        "y = a · 2^b or ⌊a / 2^b⌋, 0 where b reaches the width of the type",
    ),
    binary("BitwiseAnd", 18, |c| bitwise(c, |a, b| a & b), "y = a and b, bit by bit"),
    binary("BitwiseOr", 18, |c| bitwise(c, |a, b| a | b), "y = a or b, bit by bit"),
    binary("BitwiseXor", 18, |c| bitwise(c, |a, b| a ^ b), "y = either a or b, bit by bit"),
    OpDef {
        name: "BitwiseNot",
        since: 18,
        infer: same_type,
        eval: Some(|c| {
            let x = c.input(0)?;
            let data = Data::Int(x.ints()?.iter().map(|x| !x).collect());
            Ok(vec![Array { data, ..x.clone() }])
        }),
        vjp: Vjp::Zero,
        doc: "y = not x, bit by bit",
    },
];

const fn binary(name: &'static str, since: i64, eval: EvalRule, doc: &'static str) -> OpDef {
    OpDef { name, since, infer: infer_bits, eval: Some(eval), vjp: Vjp::Zero, doc }
}

fn infer_bits(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let dtype = common_dtype(ctx, 0..2)?;
    if dtype.is_some_and(|d: DType| !d.is_int()) {
        return Err(ctx.mismatch(format!("`{}` needs operands of an integer type", ctx.node.op)));
    }
    Ok(vec![broadcast_fact(ctx, 0..2, dtype)?])
}

fn bitwise(c: &crate::Eval<'_>, f: impl Fn(i128, i128) -> i128) -> Result<Vec<Array>> {
    let (a, b) = (c.input(0)?, c.input(1)?);
    if a.dtype.is_float() || b.dtype.is_float() {
        return Err(Error::new(Code::TYPES, format!("{} and {} are not both integers", a.dtype, b.dtype)));
    }
    Ok(vec![combine(a, b, |a, _| a, |a, b| Ok(f(a, b)))?])
}
