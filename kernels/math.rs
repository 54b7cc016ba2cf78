//! Elementary functions of `f32`, computed in `f64` without branches: they vectorise, and are correctly rounded but for
//! rare ties.

/// Runs `work` compiled for the widest vectors of this machine.
///
/// The compiler never contracts or reorders floating-point operations, so every machine computes the same bits.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// `e^x` for `x` in about ±700, to 1e-12: `2^n · e^r` with |r| ≤ ln 2 / 2 and the Taylor polynomial of degree 10.
#[inline(always)]
fn exp64(x: f64) -> f64 {
    // Adding 1.5 · 2^52 rounds to an integer and leaves it in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let r = x - (shifted - ROUND) * std::f64::consts::LN_2;
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    polynomial(&EXP, r) * scale
}

/// Coefficients of the Taylor polynomial of `e^x`: 1/0!, 1/1!, ….
const EXP: [f64; 11] = [
    1.0,
    1.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
];

/// `x` within `low..=high`; NaN stays NaN.
#[inline(always)]
fn clamp(x: f64, low: f64, high: f64) -> f64 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// `e^x`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    exp64(clamp(f64::from(x), -150.0, 150.0)) as f32
}

/// `e^x` in `f32` alone, to two units in the last place and 0 where that would be no normal number: for sums of many
/// exponentials, where it costs a third of [`exp`].
#[inline(always)]
pub(crate) fn quick_exp(x: f32) -> f32 {
    // 1.5 · 2^23, and ln 2 in two parts, of which products of the first with small integers are exact.
    const ROUND: f32 = 12_582_912.0;
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let y = QUICK_EXP.iter().rev().fold(0.0, |p, &c| p * r + c) * scale;
    let y = if x < -87.0 { 0.0 } else { y };
    if x > 88.0 { f32::INFINITY } else { y }
}

/// 1/0!, 1/1!, … 1/7!.
const QUICK_EXP: [f32; 8] =
    [1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + exp64(clamp(-f64::from(x), -150.0, 150.0)))) as f32
}

/// `x · 1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    let x = f64::from(x);
    // Far below zero the gate is 0 to the last bit of any product.
    let gate = if x < -700.0 { 0.0 } else { 1.0 / (1.0 + exp64(clamp(-x, -700.0, 700.0))) };
    (x * gate) as f32
}

#[inline(always)]
fn tanh64(x: f64) -> f64 {
    let e = exp64(clamp(2.0 * x, -60.0, 60.0));
    let far = (e - 1.0) / (e + 1.0);
    // Near zero the difference cancels; the series is exact to 3e-12 there.
    let near = x * (1.0 - x * x * (1.0 / 3.0 - x * x * (2.0 / 15.0)));
    if x.abs() < 0.02 { near } else { far }
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    tanh64(f64::from(x)) as f32
}

/// Coefficients in t = (z - 2) / (z + 2) of `erfc(z) · e^(z²) · (1 + 2z)` for 0.4 ≤ z ≤ 6.2 (a Chebyshev fit; error 1.2e-11).
const ERFC: [f64; 12] = [
    1.276_978_381_558_068_9,
    -0.092_763_826_367_824_53,
    -0.166_030_398_969_520_74,
    0.164_051_264_235_033_17,
    -0.054_219_950_359_682_31,
    -0.008_033_676_521_067_713,
    0.008_721_992_812_640_553,
    0.001_268_117_443_759_873_3,
    -0.001_453_135_749_306_392_5,
    -0.000_438_899_834_600_169_9,
    0.000_198_198_718_762_373,
    0.000_114_107_040_496_253_08,
];

/// Coefficients in x² of `erf(x) / x` for |x| ≤ 0.5 (a Chebyshev fit; error 2e-13).
const ERF: [f64; 7] = [
    1.128_379_167_095_381_6,
    -0.376_126_388_982_172_27,
    0.112_837_913_644_223_59,
    -0.026_866_099_613_933_99,
    0.005_223_192_204_459_037,
    -0.000_850_356_072_041_646_3,
    0.000_107_770_435_151_115_04,
];

#[inline(always)]
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |p, &c| p * x + c)
}

#[inline(always)]
fn erf64(x: f64) -> f64 {
    let z = clamp(x.abs(), 0.4, 6.2);
    erf_given(x, exp64(-z * z))
}

/// `erf(x)`, given `e^(-x²)`.
#[inline(always)]
fn erf_given(x: f64, bell: f64) -> f64 {
    let z = clamp(x.abs(), 0.4, 6.2);
    let tail = polynomial(&ERFC, (z - 2.0) / (z + 2.0)) / (1.0 + 2.0 * z) * bell;
    let near = x * polynomial(&ERF, x * x);
    if x.abs() < 0.5 { near } else { (1.0 - tail).copysign(x) + 0.0 * x }
}

/// The error function.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = f64::from(x);
    erf64(clamp(x, -10.0, 10.0)) as f32
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;

/// `x · Φ(x)` with the normal distribution's Φ.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    let phi = 0.5 * (1.0 + erf64(clamp(x * std::f64::consts::FRAC_1_SQRT_2, -10.0, 10.0)));
    (x * phi) as f32
}

/// `dy · (Φ(x) + x · φ(x))`.
#[inline(always)]
pub(crate) fn gelu_grad(dy: f32, x: f32) -> f32 {
    let x = clamp(f64::from(x), -14.0, 14.0);
    let z = x * std::f64::consts::FRAC_1_SQRT_2;
    let bell = exp64(-z * z);
    let (phi, density) = (0.5 * (1.0 + erf_given(z, bell)), 0.5 * SQRT_2_OVER_PI * bell);
    (f64::from(dy) * (phi + x * density)) as f32
}

/// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    let x = f64::from(x);
    (0.5 * x * (1.0 + tanh64(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)))) as f32
}

/// `dy` times the derivative of [`gelu_tanh`].
#[inline(always)]
pub(crate) fn gelu_tanh_grad(dy: f32, x: f32) -> f32 {
    let x = clamp(f64::from(x), -1e3, 1e3);
    let t = tanh64(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x));
    let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * x * x);
    (f64::from(dy) * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)) as f32
}

/// `base ^ exponent`.
#[inline(always)]
pub(crate) fn pow(base: f32, exponent: f32) -> f32 {
    f64::from(base).powf(f64::from(exponent)) as f32
}

/// The sum of `xs` in `f64`, in an order that depends on its length only.
#[inline(always)]
pub(crate) fn sum(xs: &[f32]) -> f64 {
    sum_of(xs, |x| x)
}

/// The sum of `f(x)` over `xs` in `f64`: sixteen partial sums, so that it vectorises.
#[inline(always)]
pub(crate) fn sum_of(xs: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut partial = [0.0f64; 16];
    let chunks = xs.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (p, &x) in partial.iter_mut().zip(chunk) {
            *p += f(f64::from(x));
        }
    }
    for (p, &x) in partial.iter_mut().zip(rest) {
        *p += f(f64::from(x));
    }
    total(partial)
}

/// The sum of `f(x, y)` over pairs, as [`sum_of`].
#[inline(always)]
pub(crate) fn sum_of2(xs: &[f32], ys: &[f32], f: impl Fn(f64, f64) -> f64) -> f64 {
    let mut partial = [0.0f64; 16];
    let (cx, cy) = (xs.chunks_exact(16), ys.chunks_exact(16));
    let rest = cx.remainder().iter().zip(cy.remainder());
    for (x, y) in cx.zip(cy) {
        for i in 0..16 {
            partial[i] += f(f64::from(x[i]), f64::from(y[i]));
        }
    }
    for (p, (&x, &y)) in partial.iter_mut().zip(rest) {
        *p += f(f64::from(x), f64::from(y));
    }
    total(partial)
}

/// The sum of `f(x, y, z)` over triples, as [`sum_of`].
#[inline(always)]
pub(crate) fn sum_of3(xs: &[f32], ys: &[f32], zs: &[f32], f: impl Fn(f64, f64, f64) -> f64) -> f64 {
    let mut partial = [0.0f64; 16];
    let wide = |x: f32| f64::from(x);
    let (cx, cy, cz) = (xs.chunks_exact(16), ys.chunks_exact(16), zs.chunks_exact(16));
    let rest = cx.remainder().iter().zip(cy.remainder()).zip(cz.remainder());
    for ((x, y), z) in cx.zip(cy).zip(cz) {
        for i in 0..16 {
            partial[i] += f(wide(x[i]), wide(y[i]), wide(z[i]));
        }
    }
    for (p, ((&x, &y), &z)) in partial.iter_mut().zip(rest) {
        *p += f(wide(x), wide(y), wide(z));
    }
    total(partial)
}

#[inline(always)]
fn total(partial: [f64; 16]) -> f64 {
    partial.iter().sum()
}

/// The largest element, NaN if there is one; -∞ of nothing.
#[inline(always)]
pub(crate) fn max(xs: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    let mut partial = [f32::NEG_INFINITY; 16];
    let chunks = xs.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (p, &x) in partial.iter_mut().zip(chunk) {
            *p = if *p > x || p.is_nan() { *p } else { x };
        }
    }
    rest.iter()
        .chain(&partial)
        .copied()
        .fold(f32::NEG_INFINITY, |a, b| if a.is_nan() { a } else { larger(a, b) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error of `f` against `exact` over a range, in units in the last place of the exact result.
    fn ulps(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, low: f32, high: f32) -> f64 {
        let n = 20_000;
        let error = |i: i32| {
            let x = low + (high - low) * i as f32 / n as f32;
            let (y, e) = (f64::from(f(x)), exact(f64::from(x)));
            let ulp = f64::from((e as f32).abs().next_up()) - f64::from((e as f32).abs());
            (y - e).abs() / ulp.max(f64::from(f32::MIN_POSITIVE))
        };
        (0..=n).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_accurate() {
        assert!(ulps(exp, f64::exp, -80.0, 80.0) < 0.51);
        assert!(ulps(exp, f64::exp, -1e-3, 1e-3) < 0.51);
        assert!(ulps(quick_exp, f64::exp, -86.9, 87.9) < 2.0);
        assert!(ulps(tanh, f64::tanh, -10.0, 10.0) < 0.51);
        assert!(ulps(tanh, f64::tanh, -0.03, 0.03) < 0.51);
        assert!(ulps(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -60.0, 20.0) < 0.51);
        // Values of erf from tables (Abramowitz and Stegun 7.1).
        for (x, y) in [
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert!((erf64(x) - y).abs() < 1e-10 && (erf64(-x) + y).abs() < 1e-10, "erf({x}) = {}", erf64(x));
        }
    }

    #[test]
    fn extremes_are_kept() {
        assert_eq!((exp(f32::INFINITY), exp(f32::NEG_INFINITY), exp(0.0)), (f32::INFINITY, 0.0, 1.0));
        assert_eq!(
            [f32::INFINITY, f32::NEG_INFINITY, 0.0, -100.0].map(quick_exp),
            [f32::INFINITY, 0.0, 1.0, 0.0]
        );
        assert_eq!((tanh(100.0), tanh(-100.0), erf(9.0), erf(-9.0)), (1.0, -1.0, 1.0, -1.0));
        assert_eq!((gelu(-50.0), gelu(50.0), sigmoid(-200.0)), (-0.0, 50.0, 0.0));
        for f in [exp, quick_exp, tanh, erf, sigmoid, gelu] {
            assert!(f(f32::NAN).is_nan());
        }
    }

    #[test]
    fn sums_and_maxima() {
        let xs: Vec<f32> = (0..37).map(|i| i as f32 - 5.0).collect();
        assert_eq!(sum(&xs), 481.0);
        assert_eq!(sum_of2(&xs, &xs, |a, b| a * b), xs.iter().map(|&x| f64::from(x * x)).sum());
        assert_eq!(max(&xs), 31.0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
        assert!(max(&[1.0, f32::NAN, 2.0]).is_nan());
    }
}
