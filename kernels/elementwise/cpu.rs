//! Element-wise work on the CPU: runs of the innermost loop, vectorised where operands are adjacent or constant in it.
use crate::{
    Call, Operand, View, ViewMut,
    math::{self, vectorised},
    movement,
    strides::{Walk, broadcast},
    threads::PIECE,
};
use bytemuck::Pod;
use graft_ir::{Code, DType, Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// `out = f(a)` on `float`.
pub(super) fn map(call: &mut Call<'_>, f: impl Fn(f32) -> f32 + Copy + Sync + Send) -> Result<()> {
    if call.in_place(0) {
        let out = call.output(0)?.elements::<f32>();
        call.threads.pieces(out, PIECE, |_, piece| {
            vectorised(
                #[inline(always)]
                || {
                    for y in piece.iter_mut() {
                        *y = f(*y);
                    }
                },
            );
        });
        return Ok(());
    }
    unary(call, f)
}

/// `out = f(a)` for any two types.
pub(super) fn unary<T: Pod + Sync, U: Pod + Send>(
    call: &mut Call<'_>,
    f: impl Fn(T) -> U + Copy + Sync + Send,
) -> Result<()> {
    let (x, out) = (call.input(0)?, call.output(0)?);
    let walk = Walk::new(out.dims, [&broadcast(&x, out.dims)]);
    let (xs, [step]) = (x.elements::<T>(), walk.inner());
    call.threads.pieces(out.elements::<U>(), PIECE, |start, piece| {
        vectorised(
            #[inline(always)]
            || {
                walk.runs(
                    start,
                    piece.len(),
                    #[inline(always)]
                    |from, len, [i]| {
                        let out = &mut piece[from..from + len];
                        if step == 1 {
                            map_run(out, &xs[i..i + len], f);
                        } else {
                            out.iter_mut().enumerate().for_each(|(j, y)| *y = f(xs[i + j * step]));
                        }
                    },
                );
            },
        );
    });
    Ok(())
}

/// `out = f(a, b)` for operands of one type.
pub(super) fn binary<T: Pod + Sync, U: Pod + Send>(
    call: &mut Call<'_>,
    f: impl Fn(T, T) -> U + Copy + Sync + Send,
) -> Result<()> {
    let (a, b, out) = (call.input(0)?, call.input(1)?, call.output(0)?);
    let walk = Walk::new(out.dims, [&broadcast(&a, out.dims), &broadcast(&b, out.dims)]);
    let (xs, ys, steps) = (a.elements::<T>(), b.elements::<T>(), walk.inner());
    call.threads.pieces(out.elements::<U>(), PIECE, |start, piece| {
        vectorised(
            #[inline(always)]
            || {
                walk.runs(
                    start,
                    piece.len(),
                    #[inline(always)]
                    |from, len, [i, j]| {
                        let out = &mut piece[from..from + len];
                        match steps {
                            [1, 1] => zip_run(out, &xs[i..i + len], &ys[j..j + len], f),
                            [1, 0] => map_run(out, &xs[i..i + len], |x| f(x, ys[j])),
                            [0, 1] => map_run(out, &ys[j..j + len], |y| f(xs[i], y)),
                            [s, t] => {
                                let each = out.iter_mut().enumerate();
                                each.for_each(|(k, z)| *z = f(xs[i + k * s], ys[j + k * t]));
                            }
                        }
                    },
                );
            },
        );
    });
    Ok(())
}

/// `out = f(x)` along a run. A plain loop in a function that is always inlined: closures of iterators may be compiled
/// by themselves, and then not for the widest vectors.
#[inline(always)]
fn map_run<T: Copy, U>(out: &mut [U], xs: &[T], f: impl Fn(T) -> U) {
    for (y, &x) in out.iter_mut().zip(xs) {
        *y = f(x);
    }
}

/// `out = f(out, y)` along a run, as [`map_run`].
#[inline(always)]
fn update_run<T: Copy>(out: &mut [T], ys: &[T], f: impl Fn(T, T) -> T) {
    for (z, &y) in out.iter_mut().zip(ys) {
        *z = f(*z, y);
    }
}

/// `out = f(x, y)` along a run, as [`map_run`].
#[inline(always)]
fn zip_run<T: Copy, U>(out: &mut [U], xs: &[T], ys: &[T], f: impl Fn(T, T) -> U) {
    for ((z, &x), &y) in out.iter_mut().zip(xs).zip(ys) {
        *z = f(x, y);
    }
}

/// `out = f(out, b)`: the first operand lies where the result goes.
fn update<T: Pod + Sync + Send>(
    call: &mut Call<'_>,
    other: View<'_>,
    f: impl Fn(T, T) -> T + Copy + Sync + Send,
) -> Result<()> {
    let out = call.output(0)?;
    let walk = Walk::new(out.dims, [&broadcast(&other, out.dims)]);
    let (ys, [step]) = (other.elements::<T>(), walk.inner());
    call.threads.pieces(out.elements::<T>(), PIECE, |start, piece| {
        vectorised(
            #[inline(always)]
            || {
                walk.runs(
                    start,
                    piece.len(),
                    #[inline(always)]
                    |from, len, [j]| {
                        let out = &mut piece[from..from + len];
                        match step {
                            1 => update_run(out, &ys[j..j + len], f),
                            0 => {
                                let y = ys[j];
                                for z in out {
                                    *z = f(*z, y);
                                }
                            }
                            s => out.iter_mut().enumerate().for_each(|(k, z)| *z = f(*z, ys[j + k * s])),
                        }
                    },
                );
            },
        );
    });
    Ok(())
}

/// `out = f(a, b)` where either operand may lie where the result goes.
fn combine<T: Pod + Sync + Send>(
    call: &mut Call<'_>,
    f: impl Fn(T, T) -> T + Copy + Sync + Send,
) -> Result<()> {
    match (call.in_place(0), call.in_place(1)) {
        (false, false) => binary(call, f),
        (true, _) => {
            let b = call.input(1)?;
            update(call, b, f)
        }
        (false, true) => {
            let a = call.input(0)?;
            update(call, a, move |y, x| f(x, y))
        }
    }
}

/// `out = f(a, b)` on `float`.
pub(super) fn zip(call: &mut Call<'_>, f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send) -> Result<()> {
    combine(call, f)
}

/// Powers: small whole exponents, which normalisations use, by multiplication.
pub(super) fn pow(call: &mut Call<'_>) -> Result<()> {
    let exponent = call.get(1).filter(|b| b.len() == 1).map(|b| b.elements::<f32>()[0]);
    match exponent {
        Some(2.0) => zip(call, |x, _| x * x),
        Some(3.0) => zip(call, |x, _| (f64::from(x) * f64::from(x) * f64::from(x)) as f32),
        _ => zip(call, math::pow),
    }
}

/// The arithmetic that exists for integers too.
#[derive(Clone, Copy)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Min,
    Max,
}

/// `a op b`; integers wrap, and a NaN in either operand of a minimum or maximum is the result.
pub(super) fn arithmetic(call: &mut Call<'_>, op: Arithmetic) -> Result<()> {
    macro_rules! floats {
        ($t:ty) => {
            match op {
                Arithmetic::Add => combine(call, |a: $t, b: $t| a + b),
                Arithmetic::Sub => combine(call, |a: $t, b: $t| a - b),
                Arithmetic::Mul => combine(call, |a: $t, b: $t| a * b),
                Arithmetic::Min => combine(call, |a: $t, b: $t| if a < b || a.is_nan() { a } else { b }),
                Arithmetic::Max => combine(call, |a: $t, b: $t| if a > b || a.is_nan() { a } else { b }),
            }
        };
    }
    macro_rules! integers {
        ($t:ty) => {
            match op {
                Arithmetic::Add => combine(call, <$t>::wrapping_add),
                Arithmetic::Sub => combine(call, <$t>::wrapping_sub),
                Arithmetic::Mul => combine(call, <$t>::wrapping_mul),
                Arithmetic::Min => combine(call, <$t as Ord>::min),
                Arithmetic::Max => combine(call, <$t as Ord>::max),
            }
        };
    }
    match result_type(call)? {
        DType::Float => floats!(f32),
        DType::Double => floats!(f64),
        DType::Int64 => integers!(i64),
        DType::Int32 => integers!(i32),
        other => Err(unserved(other)),
    }
}

/// `a op b op c …` over any number of operands, from left to right.
pub(super) fn variadic(call: &mut Call<'_>, op: Arithmetic) -> Result<()> {
    if call.inputs.len() == 2 {
        return arithmetic(call, op);
    }
    let (node, opset, threads) = (call.node, call.opset, call.threads);
    let ViewMut { dtype, dims, data } = call.output(0)?;
    if let Some(first) = call.get(0) {
        movement::copy(&first, ViewMut { dtype, dims, data: &mut *data }, threads)?;
    }
    for &operand in call.inputs.iter().skip(1) {
        let out = ViewMut { dtype, dims, data: &mut *data };
        let (inputs, outputs) = (vec![Operand::InPlace(0), operand], vec![Some(out)]);
        arithmetic(&mut Call { node, opset, inputs, outputs, scratch: &mut [], threads }, op)?;
    }
    Ok(())
}

/// `a / b`; integers are rounded towards 0.
pub(super) fn divide(call: &mut Call<'_>) -> Result<()> {
    match result_type(call)? {
        DType::Float => combine(call, |a: f32, b: f32| a / b),
        DType::Double => combine(call, |a: f64, b: f64| a / b),
        DType::Int64 => whole(call, i64::wrapping_div),
        DType::Int32 => whole(call, i32::wrapping_div),
        other => Err(unserved(other)),
    }
}

/// What is left of `a / b`: with the sign of `b`, or of `a` where `fmod` is set.
pub(super) fn modulo(call: &mut Call<'_>) -> Result<()> {
    let truncated = call.node.int("fmod")?.unwrap_or(0) != 0;
    macro_rules! typed {
        ($t:ty) => {
            whole(call, move |a: $t, b: $t| {
                let rest = a.wrapping_rem(b);
                if !truncated && rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
            })
        };
    }
    match result_type(call)? {
        DType::Int64 => typed!(i64),
        DType::Int32 => typed!(i32),
        other => Err(unserved(other)),
    }
}

/// `f(a, b)` on integers, an error where some `b` is 0.
fn whole<T: Pod + Sync + Send + PartialEq + Default>(
    call: &mut Call<'_>,
    f: impl Fn(T, T) -> T + Copy + Sync + Send,
) -> Result<()> {
    let by_zero = AtomicBool::new(false);
    combine(call, |a: T, b: T| {
        if b == T::default() {
            by_zero.store(true, Ordering::Relaxed);
            return b;
        }
        f(a, b)
    })?;
    if by_zero.into_inner() { Err(Error::new(Code::VALUE, "integer division by 0")) } else { Ok(()) }
}

/// Comparisons, which ONNX defines for numbers of one type (and equality for bool).
#[derive(Clone, Copy)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// `a op b` as bool.
pub(super) fn compare(call: &mut Call<'_>, op: Comparison) -> Result<()> {
    macro_rules! typed {
        ($t:ty) => {
            match op {
                Comparison::Equal => binary(call, |a: $t, b: $t| u8::from(a == b)),
                Comparison::Less => binary(call, |a: $t, b: $t| u8::from(a < b)),
                Comparison::LessOrEqual => binary(call, |a: $t, b: $t| u8::from(a <= b)),
                Comparison::Greater => binary(call, |a: $t, b: $t| u8::from(a > b)),
                Comparison::GreaterOrEqual => binary(call, |a: $t, b: $t| u8::from(a >= b)),
            }
        };
    }
    match call.input(0)?.dtype {
        DType::Float => typed!(f32),
        DType::Double => typed!(f64),
        DType::Int64 => typed!(i64),
        DType::Int32 => typed!(i32),
        DType::Bool => typed!(u8),
        other => Err(unserved(other)),
    }
}

/// `a op b` on bools, which are bytes of 0 or 1.
pub(super) fn logic(call: &mut Call<'_>, f: impl Fn(u8, u8) -> u8 + Copy + Sync + Send) -> Result<()> {
    binary(call, f)
}

/// `not a`.
pub(super) fn not(call: &mut Call<'_>) -> Result<()> {
    unary(call, |x: u8| u8::from(x == 0))
}

/// `condition ? a : b`, by bytes of the elements.
pub(super) fn select(call: &mut Call<'_>) -> Result<()> {
    match call.input(1)?.dtype.bits() {
        8 => select_typed::<u8>(call),
        16 => select_typed::<u16>(call),
        32 => select_typed::<u32>(call),
        _ => select_typed::<u64>(call),
    }
}

fn select_typed<T: Pod + Sync + Send>(call: &mut Call<'_>) -> Result<()> {
    let (c, a, b, out) = (call.input(0)?, call.input(1)?, call.input(2)?, call.output(0)?);
    let strides = [c, a, b].map(|v| broadcast(&v, out.dims));
    let walk = Walk::new(out.dims, [&strides[0], &strides[1], &strides[2]]);
    let (cs, xs, ys, [r, s, t]) = (c.elements::<u8>(), a.elements::<T>(), b.elements::<T>(), walk.inner());
    call.threads.pieces(out.elements::<T>(), PIECE, |start, piece| {
        walk.runs(start, piece.len(), |from, len, [h, i, j]| {
            for (k, z) in piece[from..from + len].iter_mut().enumerate() {
                *z = if cs[h + k * r] != 0 { xs[i + k * s] } else { ys[j + k * t] };
            }
        });
    });
    Ok(())
}

fn result_type(call: &Call<'_>) -> Result<DType> {
    let ty = call.outputs.first().and_then(|o| o.as_ref()).map(|o| o.dtype);
    ty.ok_or_else(|| Error::new(Code::TYPES, "the result is not wanted by anyone"))
}

pub(super) fn unserved(dtype: DType) -> Error {
    Error::new(Code::TYPES, format!("no kernel for elements of {dtype}"))
}
