//! Products of matrices: `MatMul`, `Gemm`, `Einsum`.
use super::broadcast::{broadcast_sizes, expand};
use crate::{
    Array, Attr, Backward, Code, Data, Dim, Error, Eval, Fact, Infer, Node, OpDef, Result, Value, Vjp,
};

mod einsum;
mod gemm;

pub use einsum::{Axis, Equation};

/// The family's table.
pub(super) const OPS: &[OpDef] = &[
    OpDef {
        name: "Einsum",
        since: 12,
        infer: einsum::infer_einsum,
        eval: Some(einsum::eval_einsum),
        vjp: Vjp::Rule(einsum::vjp_einsum),
        doc: "y = the products of the operands' elements, summed over the labels that the result lacks",
    },
    OpDef {
        name: "Gemm",
        since: 7,
        infer: gemm::infer_gemm,
        eval: Some(gemm::eval_gemm),
        vjp: Vjp::Rule(gemm::vjp_gemm),
        doc: "y = alpha · a · b + beta · c, with a and b transposed as transA and transB say",
    },
    OpDef {
        name: "MatMul",
        since: 1,
        infer: infer_matmul,
        eval: Some(eval_matmul),
        vjp: Vjp::Rule(vjp_matmul),
        doc: "y[…,i,j] = Σₖ a[…,i,k] · b[…,k,j]",
    },
];

/// The sizes of both operands as stacks of matrices: a vector on the left is a row, one on the right a column.
fn as_matrices<T: Clone>(a: &[T], b: &[T], one: &T) -> Option<(Vec<T>, Vec<T>)> {
    let row = |v: &[T]| if let [k] = v { vec![one.clone(), k.clone()] } else { v.to_vec() };
    let column = |v: &[T]| if let [k] = v { vec![k.clone(), one.clone()] } else { v.to_vec() };
    (!a.is_empty() && !b.is_empty()).then(|| (row(a), column(b)))
}

/// `batch` and then the sizes of the product, without the axes that stood for a vector.
fn product_sizes<T: Clone>(batch: Vec<T>, a: &[T], b: &[T], vectors: (bool, bool)) -> Vec<T> {
    let rows = a.iter().rev().nth(1).filter(|_| !vectors.0);
    let columns = b.last().filter(|_| !vectors.1);
    batch.into_iter().chain(rows.cloned()).chain(columns.cloned()).collect()
}

fn infer_matmul(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    let dtype = super::broadcast::common_dtype(ctx, 0..2)?;
    let (Some(dtype), Some(a), Some(b)) = (dtype, ctx.shape(0), ctx.shape(1)) else {
        return Ok(vec![Fact::of_dtype(dtype)]);
    };
    let vectors = (a.len() == 1, b.len() == 1);
    let one = Dim::from(1i64);
    let (a, b) = as_matrices(a, b, &one).ok_or_else(|| ctx.mismatch("a scalar is no matrix"))?;
    let (inner_a, inner_b) = (&a[a.len() - 1], &b[b.len() - 2]);
    ctx.same(inner_a, inner_b, "the inner sizes")?;
    let batch = ctx.broadcast(&[&a[..a.len() - 2], &b[..b.len() - 2]])?;
    Ok(vec![Fact::new(dtype, product_sizes(batch, &a, &b, vectors))])
}

fn eval_matmul(ctx: &Eval<'_>) -> Result<Vec<Array>> {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    let vectors = (a.dims.len() == 1, b.dims.len() == 1);
    let unfit = || Error::new(Code::TYPES, format!("{:?} and {:?} do not multiply", a.dims, b.dims));
    let (m, n) = as_matrices(&a.dims, &b.dims, &1).ok_or_else(unfit)?;
    let ((lead_a, size_a), (lead_b, size_b)) = (m.split_at(m.len() - 2), n.split_at(n.len() - 2));
    if size_a[1] != size_b[0] {
        return Err(unfit());
    }
    let batch = broadcast_sizes([lead_a, lead_b])?;
    let full = |x: &Array, matrices: &[usize], size: &[usize]| {
        let x = Array { dims: matrices.to_vec(), ..x.clone() };
        expand(&x, &[&batch, size].concat())
    };
    super::layout::element_count(&[&batch[..], &[size_a[0], size_b[1]]].concat())?;
    let (x, y) = (full(a, &m, size_a), full(b, &n, size_b));
    let (n_matrices, sizes) = (batch.iter().product(), [size_a[0], size_a[1], size_b[1]]);
    let data = match (&x.data, &y.data) {
        (Data::Float(x), Data::Float(y)) => {
            Data::Float(products(x, y, n_matrices, sizes, |s, x, y| s + x * y))
        }
        (Data::Int(x), Data::Int(y)) => {
            Data::Int(products(x, y, n_matrices, sizes, |s: i64, x, y| s.wrapping_add(x.wrapping_mul(y))))
        }
        _ => return Err(unfit()),
    };
    Ok(vec![Array { dtype: a.dtype, dims: product_sizes(batch, &m, &n, vectors), data }])
}

/// The products of two stacks of `n` matrices each, of sizes (rows, inner) and (inner, columns).
fn products<T: Copy + Default>(
    a: &[T],
    b: &[T],
    n: usize,
    [rows, inner, columns]: [usize; 3],
    add: impl Fn(T, T, T) -> T,
) -> Vec<T> {
    let (size_a, size_b, size) = (rows * inner, inner * columns, rows * columns);
    let mut y = vec![T::default(); n * size];
    for m in 0..n {
        for (i, k) in (0..rows).flat_map(|i| (0..inner).map(move |k| (i, k))) {
            let x = a[m * size_a + i * inner + k];
            let row = &b[m * size_b + k * columns..][..columns];
            let sums = &mut y[m * size + i * columns..][..columns];
            sums.iter_mut().zip(row).for_each(|(sum, &w)| *sum = add(*sum, x, w));
        }
    }
    y
}

fn vjp_matmul(ctx: &mut Backward<'_, '_>) -> Result<Vec<Option<Value>>> {
    let (mut dy, a, b) = (ctx.dy()?, ctx.input(0)?, ctx.input(1)?);
    let (rank_a, rank_b) = (ctx.b.shape(a)?.len(), ctx.b.shape(b)?.len());
    // Vectors become matrices of one row or column, and so does the gradient; its new axes go again at the end.
    let row = if rank_a == 1 { ctx.b.unsqueeze(a, &[0])? } else { a };
    let column = if rank_b == 1 { ctx.b.unsqueeze(b, &[1])? } else { b };
    if rank_b == 1 {
        dy = ctx.b.unsqueeze(dy, &[-1])?;
    }
    if rank_a == 1 {
        dy = ctx.b.unsqueeze(dy, &[-2])?;
    }
    let mut gradients = vec![None, None];
    if ctx.needs(0) {
        let transposed = ctx.b.swap_last_two(column)?;
        let full = ctx.b.matmul(dy, transposed)?;
        let da = ctx.b.reduce_to(full, row)?;
        gradients[0] = Some(if rank_a == 1 { ctx.b.squeeze(da, &[0])? } else { da });
    }
    if ctx.needs(1) {
        let db = if rank_b <= 2 {
            // One matrix for the whole batch: the sum over the batch is the inner sum of one product.
            let (rows, dy) = (flattened(ctx, row)?, flattened(ctx, dy)?);
            let transposed = ctx.b.transpose(rows, &[1, 0])?;
            ctx.b.matmul(transposed, dy)?
        } else {
            let transposed = ctx.b.swap_last_two(row)?;
            let full = ctx.b.matmul(transposed, dy)?;
            ctx.b.reduce_to(full, column)?
        };
        gradients[1] = Some(if rank_b == 1 { ctx.b.squeeze(db, &[1])? } else { db });
    }
    Ok(gradients)
}

/// `x` as a matrix that keeps its last axis.
fn flattened(ctx: &mut Backward<'_, '_>, x: Value) -> Result<Value> {
    let rank = ctx.b.shape(x)?.len();
    if rank == 2 {
        return Ok(x);
    }
    ctx.b.push("rows", Node::new("Flatten", &[x], &[]).with("axis", Attr::Int(rank as i64 - 1)))
}
