//! Writing elements at given positions.
use super::gather::{element_offsets, position_offsets};
use crate::{Array, Attr, Backward, Code, Data, Error, Eval, Fact, Infer, Node, Result, Value};

/// How an update meets what is there.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Reduction {
    Replace,
    Add,
    Multiply,
    Max,
    Min,
}

impl Reduction {
    fn of(node: &Node) -> Result<Reduction> {
        Ok(match node.str("reduction")?.unwrap_or("none") {
            "none" => Reduction::Replace,
            "add" => Reduction::Add,
            "mul" => Reduction::Multiply,
            "max" => Reduction::Max,
            "min" => Reduction::Min,
            other => {
                let message =
                    format!("attribute `reduction` = `{other}`, expected none, add, mul, max or min");
                return Err(Error::new(Code::ATTRIBUTE, message));
            }
        })
    }
    fn floats(self, old: f64, new: f64) -> f64 {
        match self {
            Reduction::Replace => new,
            Reduction::Add => old + new,
            Reduction::Multiply => old * new,
            Reduction::Max => old.max(new),
            Reduction::Min => old.min(new),
        }
    }
    fn ints(self, old: i64, new: i64) -> i64 {
        match self {
            Reduction::Replace => new,
            Reduction::Add => old.wrapping_add(new),
            Reduction::Multiply => old.wrapping_mul(new),
            Reduction::Max => old.max(new),
            Reduction::Min => old.min(new),
        }
    }
}

pub(super) fn infer_scatter(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    Reduction::of(ctx.node)?;
    if let (Some(x), Some(updates)) = (ctx.dtype(0), ctx.dtype(2))
        && x != updates
    {
        return Err(ctx.mismatch(format!("updates of {updates} for a tensor of {x}")));
    }
    Ok(vec![Fact { ty: ctx.ty(0).cloned(), known: None }])
}

/// `x` with the elements of `updates`, in order, combined into it at `targets`.
fn scattered(x: &Array, targets: &[usize], updates: &Array, reduction: Reduction) -> Result<Array> {
    let mut y = x.clone();
    let (n, found) = (targets.len(), updates.len());
    match (&mut y.data, &updates.data) {
        (Data::Float(y), Data::Float(updates)) if n == found => {
            targets.iter().zip(updates).for_each(|(&t, &u)| y[t] = reduction.floats(y[t], u));
        }
        (Data::Int(y), Data::Int(updates)) if n == found => {
            targets.iter().zip(updates).for_each(|(&t, &u)| y[t] = reduction.ints(y[t], u));
        }
        _ => {
            let message = format!("{found} updates of {} for {n} elements of {}", updates.dtype, x.dtype);
            return Err(Error::new(Code::TYPES, message));
        }
    }
    Ok(y)
}

pub(super) fn eval_scatter_elements(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, indices, updates) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let targets = element_offsets(&x.dims, indices, ctx.node.int("axis")?.unwrap_or(0))?;
    Ok(vec![scattered(x, &targets, updates, Reduction::of(ctx.node)?)?])
}

pub(super) fn eval_scatter_nd(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (x, indices, updates) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let starts = position_offsets(&x.dims, indices, 0)?;
    let depth = indices.dims.last().copied().unwrap_or(0);
    // What a position names is contiguous: all axes behind it.
    let size: usize = x.dims[depth..].iter().product();
    let targets: Vec<usize> = starts.iter().flat_map(|&start| start..start + size).collect();
    Ok(vec![scattered(x, &targets, updates, Reduction::of(ctx.node)?)?])
}

/// What was written over has no gradient, what was added passes it on; `gather` reads at the same positions.
pub(super) fn vjp_scatter(ctx: &mut Backward<'_, '_>, gather: &str) -> Result<Vec<Option<Value>>> {
    let (dy, indices, updates) = (ctx.dy()?, ctx.input(1)?, ctx.input(2)?);
    let reduction = Reduction::of(ctx.node)?;
    if !matches!(reduction, Reduction::Replace | Reduction::Add) {
        let message = format!("`{}` has a gradient for the reductions none and add only", ctx.node.op);
        return Err(Error::new(Code::NO_GRADIENT, message));
    }
    let axis = ctx.node.int("axis")?.map(Attr::Int);
    let mut node = Node::new(gather, &[dy, indices], &[]);
    let mut over = Node::new(&ctx.node.op, &[dy, indices], &[]);
    if let Some(axis) = axis {
        node = node.with("axis", axis.clone());
        over = over.with("axis", axis);
    }
    let dx = match reduction {
        Reduction::Add => Some(dy),
        _ if ctx.needs(0) => {
            over.inputs.push(Some(ctx.b.zeros_like(updates)?));
            Some(ctx.b.push("kept", over)?)
        }
        _ => None,
    };
    let dupdates = if ctx.needs(2) { Some(ctx.b.push("gathered", node)?) } else { None };
    Ok(vec![dx, None, dupdates])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn repeated_targets_are_met_in_order() {
        let ints = |v: &[i64]| Array::int(DType::Int64, vec![v.len()], v.to_vec());
        let run = |r| scattered(&ints(&[5, 7, 9]), &[1, 1], &ints(&[2, 3]), r).unwrap();
        assert_eq!(run(Reduction::Replace), ints(&[5, 3, 9]));
        assert_eq!(run(Reduction::Add), ints(&[5, 12, 9]));
        assert_eq!(run(Reduction::Multiply), ints(&[5, 42, 9]));
        assert_eq!(run(Reduction::Min), ints(&[5, 2, 9]));
    }
}
