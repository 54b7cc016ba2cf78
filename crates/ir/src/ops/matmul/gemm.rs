//! `Gemm`: a product of two matrices, scaled, with something added.
use super::products;
use crate::ops::broadcast::{broadcast_sizes, common_dtype, expand};
use crate::ops::layout;
use crate::{Array, Attr, Backward, Code, Error, Eval, Fact, Infer, Node, Result, Value};

/// The attributes of a `Gemm`.
struct Settings {
    trans_a: bool,
    trans_b: bool,
    alpha: f32,
    beta: f32,
}

impl Settings {
    fn of(node: &Node) -> Result<Settings> {
        Ok(Settings {
            trans_a: node.int("transA")?.unwrap_or(0) != 0,
            trans_b: node.int("transB")?.unwrap_or(0) != 0,
            alpha: node.float("alpha")?.unwrap_or(1.0),
            beta: node.float("beta")?.unwrap_or(1.0),
        })
    }
}

pub(super) fn infer_gemm(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let settings = Settings::of(ctx.node)?;
    let operands = if ctx.node.input(2).is_some() { 0..3 } else { 0..2 };
    let dtype = common_dtype(ctx, operands)?;
    let (Some(dtype), Some(a), Some(b)) = (dtype, ctx.shape(0), ctx.shape(1)) else {
        return Ok(vec![Fact::of_dtype(dtype)]);
    };
    let ([a0, a1], [b0, b1]) = (a, b) else {
        return Err(ctx.mismatch(format!("expected two matrices, found ranks {} and {}", a.len(), b.len())));
    };
    let (rows, inner) = if settings.trans_a { (a1, a0) } else { (a0, a1) };
    let (other, columns) = if settings.trans_b { (b1, b0) } else { (b0, b1) };
    ctx.same(inner, other, "the inner sizes")?;
    let dims = vec![rows.clone(), columns.clone()];
    if let Some(c) = ctx.shape(2) {
        let both = ctx.broadcast(&[&dims, c])?;
        if both.len() != 2 || both.iter().zip(&dims).any(|(wide, d)| wide.never_equals(d)) {
            return Err(ctx.mismatch(format!("operand 2 does not broadcast to {rows} by {columns}")));
        }
    }
    Ok(vec![Fact::new(dtype, dims)])
}

pub(super) fn eval_gemm(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let settings = Settings::of(ctx.node)?;
    let (a, b) = (oriented(ctx.input(0)?, settings.trans_a)?, oriented(ctx.input(1)?, settings.trans_b)?);
    let (rows, columns) = (a.dims[0], b.dims[1]);
    if a.dims[1] != b.dims[0] {
        let message = format!("inner sizes {} and {} differ", a.dims[1], b.dims[0]);
        return Err(Error::new(Code::TYPES, message));
    }
    let dims = vec![rows, columns];
    layout::element_count(&dims)?;
    let mut y = products(a.floats()?, b.floats()?, 1, [rows, a.dims[1], columns], |s, x, y| s + x * y);
    y.iter_mut().for_each(|y| *y *= f64::from(settings.alpha));
    if let Some(c) = ctx.get(2) {
        if broadcast_sizes([&dims[..], &c.dims[..]])? != dims {
            let message = format!("{:?} does not broadcast to {dims:?}", c.dims);
            return Err(Error::new(Code::TYPES, message));
        }
        let c = expand(c, &dims);
        y.iter_mut().zip(c.floats()?).for_each(|(y, c)| *y += f64::from(settings.beta) * c);
    }
    Ok(vec![Array::float(a.dtype, dims, y)])
}

fn oriented(x: &Array, transposed: bool) -> Result<Array> {
    let &[rows, columns] = &x.dims[..] else {
        return Err(Error::new(Code::TYPES, format!("expected a matrix, found sizes {:?}", x.dims)));
    };
    if transposed {
        layout::select(x, vec![columns, rows], |p| Ok(p[1] * columns + p[0]))
    } else {
        Ok(x.clone())
    }
}

/// `da = alpha · dy · bᵀ`, `db = alpha · aᵀ · dy`, each read transposed where the operand was.
pub(super) fn vjp_gemm(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let Settings { trans_a, trans_b, alpha, beta } = Settings::of(ctx.node)?;
    let (dy, a, b) = (ctx.dy()?, ctx.input(0)?, ctx.input(1)?);
    let mut product = |hint: &str, x: Value, y: Value, trans_x: bool, trans_y: bool| {
        let mut node = Node::new("Gemm", &[x, y], &[]);
        for (name, on) in [("transA", trans_x), ("transB", trans_y)] {
            if on {
                node = node.with(name, Attr::Int(1));
            }
        }
        if alpha != 1.0 {
            node = node.with("alpha", Attr::Float(alpha));
        }
        ctx.b.push(hint, node)
    };
    let needs = |i: usize| ctx.needs.get(i).copied().unwrap_or(false);
    let da = match (needs(0), trans_a) {
        (false, _) => None,
        (true, false) => Some(product("da", dy, b, false, !trans_b)?),
        (true, true) => Some(product("da", b, dy, trans_b, true)?),
    };
    let db = match (needs(1), trans_b) {
        (false, _) => None,
        (true, false) => Some(product("db", a, dy, !trans_a, false)?),
        (true, true) => Some(product("db", dy, a, true, trans_a)?),
    };
    let dc = match ctx.node.input(2).filter(|_| needs(2)) {
        Some(c) => {
            let sum = ctx.b.reduce_to(dy, c)?;
            Some(if beta == 1.0 { sum } else { ctx.b.scale(sum, f64::from(beta))? })
        }
        None => None,
    };
    Ok(vec![da, db, dc])
}
