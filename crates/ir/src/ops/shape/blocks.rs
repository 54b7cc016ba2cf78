//! Blocks of channels as blocks of places, and back; written with other ops.
use crate::{Builder, Code, Error, Node, Result, Value};

/// The operand, its sizes (as tensors of one element) and the size of a block.
fn operand(b: &mut Builder<'_>, node: &Node) -> Result<(Value, [Value; 4], i64)> {
    let x = node.input(0).ok_or_else(|| Error::new(Code::TYPES, "operand 0 is missing"))?;
    let rank = b.shape(x)?.len();
    if rank != 4 {
        return Err(Error::new(
            Code::TYPES,
            format!("expected batch, channels and two axes, found rank {rank}"),
        ));
    }
    let missing = || Error::new(Code::ATTRIBUTE, "attribute `blocksize` is missing or not positive");
    let size = node.int("blocksize")?.filter(|&n| n > 0).ok_or_else(missing)?;
    Ok((x, [b.size_of(x, 0)?, b.size_of(x, 1)?, b.size_of(x, 2)?, b.size_of(x, 3)?], size))
}

/// `x` in the shape that `parts` make up; -1 is what is left.
fn reshaped(b: &mut Builder<'_>, x: Value, parts: &[Value]) -> Result<Value> {
    let sizes = b.concat("sizes", parts, 0)?;
    b.op("reshaped", "Reshape", &[x, sizes])
}

/// (n, c·s², h, w) to (n, c, h·s, w·s).
pub(super) fn depth_to_space(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let (x, [n, _, h, w], size) = operand(b, node)?;
    let (s, rest) = (b.ints("block", &[size])?, b.ints("rest", &[-1])?);
    let (parts, perm) = match node.str("mode")?.unwrap_or("DCR") {
        "CRD" => ([n, rest, s, s, h, w], [0, 1, 4, 2, 5, 3]),
        _ => ([n, s, s, rest, h, w], [0, 3, 4, 1, 5, 2]),
    };
    let apart = reshaped(b, x, &parts)?;
    let moved = b.transpose(apart, &perm)?;
    let (high, wide) = (b.mul(h, s)?, b.mul(w, s)?);
    Ok(vec![reshaped(b, moved, &[n, rest, high, wide])?])
}

/// (n, c, h·s, w·s) to (n, c·s², h, w).
pub(super) fn space_to_depth(b: &mut Builder<'_>, node: &Node) -> Result<Vec<Value>> {
    let (x, [n, c, h, w], size) = operand(b, node)?;
    let (s, rest) = (b.ints("block", &[size])?, b.ints("rest", &[-1])?);
    let (low, narrow) = (b.div(h, s)?, b.div(w, s)?);
    let apart = reshaped(b, x, &[n, c, low, s, narrow, s])?;
    let moved = b.transpose(apart, &[0, 3, 5, 1, 2, 4])?;
    Ok(vec![reshaped(b, moved, &[n, rest, low, narrow])?])
}
