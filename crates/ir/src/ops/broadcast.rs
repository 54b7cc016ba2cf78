//! Broadcasting as in NumPy: shapes are aligned at their last axes, and a size of 1 is repeated.
use crate::{Array, Code, DType, Data, Dim, Error, Eval, Fact, Infer, Result};

/// The shape that the operands `operands` of a node broadcast to, as its first result; `None` if a rank is unknown.
pub(super) fn broadcast_shape(
    ctx: &Infer<'_>,
    operands: impl IntoIterator<Item = usize>,
) -> Result<Option<Vec<Dim>>> {
    let shapes: Option<Vec<&[Dim]>> = operands.into_iter().map(|i| ctx.shape(i)).collect();
    shapes.map(|shapes| ctx.broadcast(&shapes)).transpose()
}

/// The element type that the operands `operands` must share; `None` if none is known.
pub(super) fn common_dtype(
    ctx: &Infer<'_>,
    operands: impl IntoIterator<Item = usize>,
) -> Result<Option<DType>> {
    let mut common = None;
    for dtype in operands.into_iter().filter_map(|i| ctx.dtype(i)) {
        if *common.get_or_insert(dtype) != dtype {
            return Err(ctx.mismatch("the operands must have one element type"));
        }
    }
    Ok(common)
}

/// The fact of a result of element type `dtype` whose operands `operands` broadcast.
pub(super) fn broadcast_fact(
    ctx: &Infer<'_>,
    operands: impl IntoIterator<Item = usize>,
    dtype: Option<DType>,
) -> Result<Fact> {
    let shape = broadcast_shape(ctx, operands)?;
    Ok(Fact { ty: dtype.map(|dtype| crate::Type { dtype, shape }), known: None })
}

/// Known elements of two operands, combined as they broadcast; `None` if any element is undecided.
pub(super) fn known_pairs(
    a: &[Dim],
    b: &[Dim],
    combine: impl Fn(&Dim, &Dim) -> Option<Dim>,
) -> Option<Vec<Dim>> {
    let n = match (a.len(), b.len()) {
        (1, n) | (n, 1) => n,
        (n, m) if n == m => n,
        _ => return None,
    };
    (0..n).map(|i| combine(&a[i % a.len()], &b[i % b.len()])).collect()
}

/// The sizes that concrete shapes broadcast to.
pub(super) fn broadcast_sizes<'a>(
    shapes: impl IntoIterator<Item = &'a [usize]> + Clone,
) -> Result<Vec<usize>> {
    let rank = shapes.clone().into_iter().map(<[usize]>::len).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        let offset = rank - shape.len();
        for (wide, &n) in result[offset..].iter_mut().zip(shape) {
            match (*wide, n) {
                (a, b) if a == b || b == 1 => {}
                (1, b) => *wide = b,
                (a, b) => {
                    let message = format!("sizes {a} and {b} do not broadcast (shape {shape:?})");
                    return Err(Error::new(Code::TYPES, message));
                }
            }
        }
    }
    Ok(result)
}

/// For each element of a result of shape `to`, in order, the position of the element of an operand of shape `from`
/// that it comes from.
pub(super) fn positions(from: &[usize], to: &[usize]) -> Vec<usize> {
    let offset = to.len() - from.len();
    let mut strides = vec![0; to.len()];
    let mut stride = 1;
    for (axis, &n) in from.iter().enumerate().rev() {
        strides[offset + axis] = if n == 1 { 0 } else { stride };
        stride *= n;
    }
    let position = |mut index: usize| {
        let mut position = 0;
        for (&size, &stride) in to.iter().zip(&strides).rev() {
            position += index % size * stride;
            index /= size;
        }
        position
    };
    (0..to.iter().product()).map(position).collect()
}

/// `a` repeated to the shape `to`, to which it broadcasts.
pub(super) fn expand(a: &Array, to: &[usize]) -> Array {
    let from = positions(&a.dims, to);
    let data = match &a.data {
        Data::Float(v) => Data::Float(from.iter().map(|&i| v[i]).collect()),
        Data::Int(v) => Data::Int(from.iter().map(|&i| v[i]).collect()),
    };
    Array { dtype: a.dtype, dims: to.to_vec(), data }
}

/// Elements of two operands, paired as they broadcast.
pub(super) enum Pairs {
    /// Of floating-point operands.
    Float(Vec<(f64, f64)>),
    /// Of integers, widened so that every integer type fits.
    Int(Vec<(i128, i128)>),
}

/// Pairs the elements of two operands of one kind, and gives the shape of the result.
pub(super) fn pairs(a: &Array, b: &Array) -> Result<(Vec<usize>, Pairs)> {
    let dims = broadcast_sizes([&a.dims[..], &b.dims[..]])?;
    let (x, y) = (expand(a, &dims), expand(b, &dims));
    let paired = match (&x.data, &y.data) {
        (Data::Float(x), Data::Float(y)) => Pairs::Float(x.iter().copied().zip(y.iter().copied()).collect()),
        (Data::Int(_), Data::Int(_)) => Pairs::Int(wide(&x)?.into_iter().zip(wide(&y)?).collect()),
        _ => {
            let message = format!("operands of {} and {} do not go together", a.dtype, b.dtype);
            return Err(Error::new(Code::TYPES, message));
        }
    };
    Ok((dims, paired))
}

/// The elements of an integer array as numbers that hold every integer type, `uint64` included.
pub(super) fn wide(a: &Array) -> Result<Vec<i128>> {
    let unsigned = a.dtype == DType::Uint64;
    let widen = |&x: &i64| if unsigned { i128::from(x as u64) } else { i128::from(x) };
    Ok(a.ints()?.iter().map(widen).collect())
}

/// A result of one element type with its operands, by a formula for floats and one for integers.
pub(super) fn combine(
    a: &Array,
    b: &Array,
    float: impl Fn(f64, f64) -> f64,
    int: impl Fn(i128, i128) -> Result<i128>,
) -> Result<Array> {
    let (dims, pairs) = pairs(a, b)?;
    Ok(match pairs {
        Pairs::Float(v) => Array::float(a.dtype, dims, v.into_iter().map(|(x, y)| float(x, y)).collect()),
        Pairs::Int(v) => {
            let wrapped = v.into_iter().map(|(x, y)| Ok(int(x, y)? as i64)).collect::<Result<_>>()?;
            Array::int(a.dtype, dims, wrapped)
        }
    })
}

/// A boolean result of two operands of one element type.
pub(super) fn compare(
    c: &Eval<'_>,
    float: fn(f64, f64) -> bool,
    int: fn(i128, i128) -> bool,
) -> Result<Vec<Array>> {
    let (dims, pairs) = pairs(c.input(0)?, c.input(1)?)?;
    let truth: Vec<i64> = match pairs {
        Pairs::Float(v) => v.into_iter().map(|(x, y)| float(x, y).into()).collect(),
        Pairs::Int(v) => v.into_iter().map(|(x, y)| int(x, y).into()).collect(),
    };
    Ok(vec![Array::int(DType::Bool, dims, truth)])
}

/// A result of the type of the first operand, each element by itself, for floating-point operands.
pub(super) fn map(c: &Eval<'_>, f: impl Fn(f64) -> f64) -> Result<Vec<Array>> {
    let x = c.input(0)?;
    Ok(vec![Array::float(x.dtype, x.dims.clone(), x.floats()?.iter().map(|&x| f(x)).collect())])
}

/// The first result has the type of the first operand.
pub(super) fn same_type(ctx: &Infer<'_>) -> Result<Vec<Fact>> {
    Ok(vec![Fact { ty: ctx.ty(0).cloned(), known: None }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_the_right_elements() {
        assert_eq!(positions(&[3], &[2, 3]), [0, 1, 2, 0, 1, 2]);
        assert_eq!(positions(&[2, 1], &[2, 3]), [0, 0, 0, 1, 1, 1]);
        assert_eq!(positions(&[], &[2]), [0, 0]);
        assert_eq!(positions(&[1], &[0]), [0usize; 0]);
        assert_eq!(broadcast_sizes([&[1][..], &[4, 0][..]]).unwrap(), [4, 0]);
        assert!(broadcast_sizes([&[2][..], &[3][..]]).is_err());
    }
}
