//! A LoRA of one linear by itself: what formats that hold nothing else exchange, and what other adapters are cut down to.
use crate::{Adapter, Config, Targets};
use faer::{Mat, MatRef};
use graft_ir::{Array, Code, DType, Error, Result, Tensor};
use std::collections::BTreeMap;

/// A LoRA of one linear, as files hold it: it changes the weight (out, in) by `alpha/rank · b·a`.
#[derive(Clone, PartialEq, Debug)]
pub struct Lora {
    /// (rank, in).
    pub a: Tensor,
    /// (out, rank).
    pub b: Tensor,
    /// The numerator of the scale.
    pub alpha: f64,
}

/// How many ranks are kept of a change.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cut {
    /// So many.
    Rank(usize),
    /// As few as hold this share of the sum of the squared singular values.
    Share(f64),
}

/// The suffixes of PEFT's keys.
const KEYS: [&str; 2] = ["lora_A.weight", "lora_B.weight"];

impl Lora {
    /// The factors, whose sizes must agree.
    ///
    /// # Errors
    /// [`Code::ADAPTER`] where they are no (rank, in) and (out, rank) of numbers.
    pub fn new(a: Tensor, b: Tensor, alpha: f64) -> Result<Lora> {
        let is_number = a.dtype().is_float() && b.dtype().is_float();
        match (a.dims(), b.dims()) {
            ([rank, _], [_, width]) if rank == width && is_number => Ok(Lora { a, b, alpha }),
            (of_a, of_b) => {
                let message =
                    format!("{}{of_a:?} and {}{of_b:?} are no factors of a LoRA", a.dtype(), b.dtype());
                Err(Error::new(Code::ADAPTER, message).help("expected (rank, in) and (out, rank)"))
            }
        }
    }
    /// The rank.
    pub fn rank(&self) -> usize {
        self.a.dims()[0]
    }
    /// alpha / rank.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank() as f64
    }
    /// The change of the weight, (out, in).
    ///
    /// # Errors
    /// [`Code::ADAPTER`] for elements that are no numbers.
    pub fn change(&self) -> Result<Mat<f64>> {
        Ok(matrix(&self.b)? * matrix(&self.a)? * faer::Scale(self.scale()))
    }
    /// The LoRA that is nearest to a change (out, in) of a weight, and its distance from it as a share of the change's own
    /// size (Frobenius norms, after rounding to `dtype`). Its `b` is scaled by the singular values.
    ///
    /// # Errors
    /// [`Code::NON_FINITE`] for a change that is not finite.
    pub fn nearest(change: MatRef<'_, f64>, cut: Cut, dtype: DType) -> Result<(Lora, f64)> {
        let unknown = || Error::new(Code::NON_FINITE, "the change of a weight holds NaN or infinite values");
        if !change.is_all_finite() {
            return Err(unknown());
        }
        let svd = change.thin_svd().map_err(|_| unknown())?;
        let sigma: Vec<f64> = (0..svd.S().dim()).map(|i| svd.S()[i]).collect();
        let rank = cut.rank(&sigma);
        let (u, v) = (svd.U(), svd.V());
        let b = Mat::from_fn(change.nrows(), rank, |i, k| u[(i, k)] * sigma[k]);
        let a = Mat::from_fn(rank, change.ncols(), |k, j| v[(j, k)]);
        let lora = Lora::new(tensor(a.as_ref(), dtype)?, tensor(b.as_ref(), dtype)?, rank as f64)?;
        let (size, rest) = (change.norm_l2(), (change - lora.change()?).norm_l2());
        Ok((lora, if size == 0.0 { 0.0 } else { rest / size }))
    }
}

impl Cut {
    /// The rank for these singular values, the largest first; at least 1.
    fn rank(self, sigma: &[f64]) -> usize {
        let wanted = match self {
            Cut::Rank(rank) => rank,
            Cut::Share(share) => {
                let total: f64 = sigma.iter().map(|s| s * s).sum();
                let mut held = 0.0;
                let is_short = |s: &&f64| {
                    let short = held < share * total;
                    held += **s * **s;
                    short
                };
                sigma.iter().take_while(is_short).count()
            }
        };
        wanted.clamp(1, sigma.len().max(1))
    }
}

impl Adapter {
    /// LoRAs by module path as PEFT has them. Rank and alpha are those of most; each of the others stands in both patterns,
    /// as PEFT's scale needs the two.
    pub fn of_loras(loras: &BTreeMap<String, Lora>) -> Adapter {
        let shape = |lora: &Lora| (lora.rank(), lora.alpha.to_bits());
        let count = |lora: &Lora| loras.values().filter(|other| shape(other) == shape(lora)).count();
        let common = loras.values().max_by_key(|lora| count(lora));
        let (rank, alpha) = common.map_or((1, 1.0), |lora| (lora.rank(), lora.alpha));
        let mut config = Config::new("LORA", rank, Targets::List(loras.keys().cloned().collect()));
        config.alpha = Some(alpha);
        config.keys.extend(["use_dora", "use_rslora"].map(|key| (key.to_string(), false.into())));
        let mut tensors = BTreeMap::new();
        for (path, lora) in loras {
            if shape(lora) != (rank, alpha.to_bits()) {
                config.rank_pattern.insert(path.clone(), lora.rank());
                config.alpha_pattern.insert(path.clone(), lora.alpha);
            }
            let files = KEYS.into_iter().zip([&lora.a, &lora.b]);
            tensors.extend(files.map(|(suffix, tensor)| (format!("{path}.{suffix}"), tensor.clone())));
        }
        Adapter { config, tensors, warnings: Vec::new() }
    }
}

/// A matrix as it is computed with.
///
/// # Errors
/// [`Code::ADAPTER`] for what is no matrix of numbers.
pub fn matrix(tensor: &Tensor) -> Result<Mat<f64>> {
    let bad = || {
        Error::new(Code::ADAPTER, format!("{}{:?} is no matrix of numbers", tensor.dtype(), tensor.dims()))
    };
    let (&[rows, columns], Some(values)) = (tensor.dims(), tensor.to_f64()) else { return Err(bad()) };
    Ok(Mat::from_fn(rows, columns, |i, j| values[i * columns + j]))
}

/// The transpose of an array (rows, columns), as a matrix: what is (in, out) in a graph is (out, in) in files.
///
/// # Errors
/// [`Code::TYPES`] for what is no matrix of floating-point numbers.
pub fn transposed(array: &Array) -> Result<Mat<f64>> {
    let &[rows, columns] = &array.dims[..] else {
        return Err(Error::new(Code::TYPES, format!("expected a matrix, found {:?}", array.dims)));
    };
    let values = array.floats()?;
    Ok(Mat::from_fn(columns, rows, |i, j| values[j * columns + i]))
}

/// A matrix, rounded to an element type.
pub(crate) fn tensor(matrix: MatRef<'_, f64>, dtype: DType) -> Result<Tensor> {
    let dims = [matrix.nrows(), matrix.ncols()];
    let values = (0..dims[0]).flat_map(|i| (0..dims[1]).map(move |j| matrix[(i, j)]));
    let bad = || Error::new(Code::ADAPTER, format!("a matrix cannot be stored as {dtype}"));
    Tensor::from_f64(dtype, &dims, values).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (out, in) of rank 2, with singular values 3 and 1.
    fn change() -> Mat<f64> {
        let (u, v) = ([[0.6, 0.8], [-0.8, 0.6], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]);
        Mat::from_fn(3, 2, |i, j| 3.0 * u[i][0] * v[j][0] + u[i][1] * v[j][1])
    }

    #[test]
    fn the_nearest_lora_leaves_out_the_least_singular_values() {
        let of = |cut| Lora::nearest(change().as_ref(), cut, DType::Double).unwrap();
        for (cut, rank, error) in [
            (Cut::Rank(1), 1, 0.1f64.sqrt()),
            (Cut::Rank(2), 2, 0.0),
            (Cut::Rank(9), 2, 0.0),
            (Cut::Share(0.89), 1, 0.1f64.sqrt()),
            (Cut::Share(0.91), 2, 0.0),
        ] {
            let (lora, found) = of(cut);
            assert_eq!((lora.rank(), lora.scale()), (rank, 1.0), "{cut:?}");
            assert!((found - error).abs() < 1e-12, "{cut:?}: {found}");
        }
        let (none, error) = Lora::nearest(Mat::zeros(3, 2).as_ref(), Cut::Share(0.99), DType::Float).unwrap();
        assert_eq!((none.rank(), error), (1, 0.0));
        let broken = Mat::from_fn(2, 2, |_, _| f64::NAN);
        let error = Lora::nearest(broken.as_ref(), Cut::Rank(1), DType::Float).unwrap_err();
        assert_eq!(error.code, Code::NON_FINITE);
    }

    #[test]
    fn mixed_loras_stand_in_both_patterns() {
        let lora = |rank: usize, alpha| {
            let of = |dims: &[usize]| Tensor::f32(dims, &vec![0.5; dims.iter().product()]);
            Lora::new(of(&[rank, 3]), of(&[2, rank]), alpha).unwrap()
        };
        let loras = [("a", lora(4, 8.0)), ("b", lora(4, 8.0)), ("c", lora(2, 8.0)), ("d", lora(4, 1.0))];
        let adapter = Adapter::of_loras(&loras.map(|(path, lora)| (path.to_string(), lora)).into());
        assert_eq!((adapter.config.rank, adapter.config.alpha), (4, Some(8.0)));
        assert_eq!(adapter.config.rank_pattern, [("c".into(), 2), ("d".into(), 4)].into());
        assert_eq!(adapter.config.alpha_pattern, [("c".into(), 8.0), ("d".into(), 1.0)].into());
        assert_eq!(adapter.tensors["c.lora_B.weight"].dims(), [2, 2]);
    }

    #[test]
    fn factors_must_agree() {
        let of = |dims: &[usize]| Tensor::f32(dims, &vec![0.5; dims.iter().product()]);
        assert!(Lora::new(of(&[2, 3]), of(&[4, 2]), 1.0).is_ok());
        for (a, b) in
            [(of(&[2, 3]), of(&[2, 4])), (of(&[6]), of(&[4, 2])), (Tensor::i64(&[1, 1], &[1]), of(&[1, 1]))]
        {
            assert_eq!(Lora::new(a, b, 1.0).unwrap_err().code, Code::ADAPTER);
        }
    }
}
