//! Several LoRAs of one linear as one, each with a weight: PEFT's `add_weighted_adapter`. `COMBINATIONS` lists the ways.
use crate::lora::{Cut, Lora, matrix, tensor};
use faer::{Mat, concat};
use graft_ir::{Code, DType, Error, Result, random};

/// A way to make one LoRA of several.
pub struct Combination {
    /// As the command line has it.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// How it is done.
    pub of: Of,
}

/// Makes one LoRA of several of one linear, each with a weight; the number tells its draws from those of other linears.
pub type Combine = fn(&[(Lora, f64)], &Options, u64) -> Result<Lora>;

/// A factor of a LoRA, and its weight.
type Factor = (Mat<f64>, f64);

/// What a combination is made of.
#[derive(Clone, Copy)]
pub enum Of {
    /// The factors of LoRAs.
    Factors(Combine),
    /// The sum of the changes that adapters of any method make to the weight, cut down to a rank.
    Changes,
}

/// What combinations depend on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Options {
    /// The rank of `svd`'s result; `None` for the largest of the adapters' ranks.
    pub rank: Option<usize>,
    /// The share of the elements that `ties` and `dare` keep, in (0, 1].
    pub density: f64,
    /// The seed of the elements that `dare` keeps.
    pub seed: u64,
}

/// Every combination.
pub const COMBINATIONS: &[Combination] = &[
    Combination {
        name: "linear",
        about: "the weighted sums of the factors, each by the root of its weight",
        of: Of::Factors(linear),
    },
    Combination {
        name: "cat",
        about: "the factors behind each other: the exact sum, of the sum of the ranks",
        of: Of::Factors(cat),
    },
    Combination { name: "svd", about: "the exact sum, cut down to a rank", of: Of::Changes },
    Combination {
        name: "ties",
        about: "of each factor the largest elements, where their sign is that of most",
        of: Of::Factors(ties),
    },
    Combination {
        name: "dare",
        about: "of each factor random elements, scaled up for those left out, as with linear",
        of: Of::Factors(dare),
    },
];

/// The LoRA of weighted changes (out, in) that `svd` makes, and its distance from their sum as [`Lora::nearest`] has it.
///
/// # Errors
/// As [`Lora::nearest`]'s.
pub fn cut_down(changes: &[(Mat<f64>, f64)], rank: usize) -> Result<(Lora, f64)> {
    let Some((first, _)) = changes.first() else { return Err(nothing()) };
    let mut sum = Mat::<f64>::zeros(first.nrows(), first.ncols());
    for (change, weight) in changes {
        sum += change * faer::Scale(*weight);
    }
    Lora::nearest(sum.as_ref(), Cut::Rank(rank), DType::Float)
}

fn nothing() -> Error {
    Error::new(Code::MERGE, "there is nothing to combine")
}

/// `a`s scaled by weight and scale, `b`s as they are.
fn cat(loras: &[(Lora, f64)], _: &Options, _: u64) -> Result<Lora> {
    let Some(((first, weight), rest)) = loras.split_first() else { return Err(nothing()) };
    let factor = |lora: &Lora, weight: f64| Ok(matrix(&lora.a)? * faer::Scale(weight * lora.scale()));
    let (mut a, mut b) = (factor(first, *weight)?, matrix(&first.b)?);
    for (lora, weight) in rest {
        let (more_a, more_b) = (factor(lora, *weight)?, matrix(&lora.b)?);
        a = concat![[a], [more_a]];
        b = concat![[b, more_b]];
    }
    finished(&a, &b)
}

/// The weighted sums of factors, after `prune` (element, its number, the number of its factor) has changed them.
fn summed(loras: &[(Lora, f64)], prune: &dyn Fn(&Mat<f64>, u64) -> Mat<f64>) -> Result<Lora> {
    let [of_a, of_b] = weighted_factors(loras)?;
    let sum = |factors: &[Factor], number: u64| {
        let parts =
            factors.iter().enumerate().map(|(i, (m, w))| prune(m, number + 2 * i as u64) * faer::Scale(*w));
        parts.reduce(|sum, part| sum + part).ok_or_else(nothing)
    };
    finished(&sum(&of_a, 0)?, &sum(&of_b, 1)?)
}

fn linear(loras: &[(Lora, f64)], _: &Options, _: u64) -> Result<Lora> {
    summed(loras, &|factor, _| factor.clone())
}

/// An element stays with the probability `density`, divided by it; `module` tells the draws of one linear from others'.
fn dare(loras: &[(Lora, f64)], options: &Options, module: u64) -> Result<Lora> {
    let density = options.density;
    summed(loras, &|factor, number| {
        let stream = random::Stream::new(options.seed, module, number);
        let columns = factor.ncols();
        Mat::from_fn(factor.nrows(), columns, |i, j| {
            let is_kept = f64::from(stream.uniform((i * columns + j) as u64)) < density;
            if is_kept { factor[(i, j)] / density } else { 0.0 }
        })
    })
}

/// The mean of the weighted elements whose sign is that of the sum of all, each factor cut down to its largest elements.
fn ties(loras: &[(Lora, f64)], options: &Options, _: u64) -> Result<Lora> {
    let elected = |factors: Vec<Factor>| {
        let kept: Vec<_> = factors.iter().map(|(m, w)| (largest(m, options.density), *w)).collect();
        let (first, _) = kept.first().ok_or_else(nothing)?;
        Ok(Mat::from_fn(first.nrows(), first.ncols(), |i, j| {
            let sum: f64 = kept.iter().map(|(m, _)| m[(i, j)]).sum();
            let agrees = |x: f64| x != 0.0 && (x > 0.0) == (sum >= 0.0);
            let those = || kept.iter().filter(|(m, _)| agrees(m[(i, j)]));
            those().map(|(m, w)| m[(i, j)] * w).sum::<f64>() / those().count().max(1) as f64
        }))
    };
    let [of_a, of_b] = weighted_factors(loras)?;
    finished(&elected(of_a)?, &elected(of_b)?)
}

/// The `a`s and the `b`s, each with the root of its weight and scale; the sign stands at `a`.
fn weighted_factors(loras: &[(Lora, f64)]) -> Result<[Vec<Factor>; 2]> {
    let rank = loras.first().ok_or_else(nothing)?.0.rank();
    if let Some((other, _)) = loras.iter().find(|(lora, _)| lora.rank() != rank) {
        let message =
            format!("the ranks differ ({rank} and {}), and this combination adds factors up", other.rank());
        return Err(Error::new(Code::MERGE, message)
            .help("`--combine cat` and `svd` take adapters of different ranks"));
    }
    let mut both = [Vec::new(), Vec::new()];
    for (lora, weight) in loras {
        let share = weight * lora.scale();
        both[0].push((matrix(&lora.a)?, share.abs().sqrt().copysign(share)));
        both[1].push((matrix(&lora.b)?, share.abs().sqrt()));
    }
    Ok(both)
}

/// The factor with only its largest elements, a share of `density` of them; of equal ones the first.
fn largest(factor: &Mat<f64>, density: f64) -> Mat<f64> {
    let (rows, columns) = (factor.nrows(), factor.ncols());
    let size = |&n: &usize| factor[(n / columns, n % columns)].abs();
    let mut order: Vec<usize> = (0..rows * columns).collect();
    order.sort_by(|x, y| size(y).total_cmp(&size(x)));
    order.truncate((density * order.len() as f64) as usize);
    let mut kept = Mat::zeros(rows, columns);
    for n in order {
        kept[(n / columns, n % columns)] = factor[(n / columns, n % columns)];
    }
    kept
}

/// The LoRA of these factors, of scale 1.
fn finished(a: &Mat<f64>, b: &Mat<f64>) -> Result<Lora> {
    Lora::new(tensor(a.as_ref(), DType::Float)?, tensor(b.as_ref(), DType::Float)?, a.nrows() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_ir::Tensor;

    const OPTIONS: Options = Options { rank: None, density: 1.0, seed: 3 };

    /// A LoRA of random elements.
    fn lora(tensor: u64, rank: usize, alpha: f64) -> Lora {
        let of = |tensor, dims: &[usize]| {
            let values =
                (0..dims.iter().product::<usize>()).map(|i| random::uniform(7, 0, tensor, i as u64) - 0.5);
            Tensor::f32(dims, &values.collect::<Vec<_>>())
        };
        Lora::new(of(2 * tensor, &[rank, 5]), of(2 * tensor + 1, &[6, rank]), alpha).unwrap()
    }

    fn combined(name: &str, loras: &[(Lora, f64)], options: Options) -> Lora {
        let how = COMBINATIONS.iter().find(|c| c.name == name).unwrap();
        let Of::Factors(combine) = how.of else { panic!("`{name}` is none of factors") };
        combine(loras, &options, 0).unwrap()
    }

    /// max|a − b|.
    fn distance(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
        (a - b).norm_max()
    }

    #[test]
    fn cat_is_the_sum_of_the_changes() {
        let parts = [(lora(0, 2, 3.0), 0.7), (lora(1, 3, 5.0), -0.3)];
        let sum = parts[0].0.change().unwrap() * faer::Scale(0.7)
            + parts[1].0.change().unwrap() * faer::Scale(-0.3);
        let cat = combined("cat", &parts, OPTIONS);
        assert_eq!((cat.rank(), cat.scale()), (5, 1.0));
        assert!(distance(&cat.change().unwrap(), &sum) < 1e-6);
        let changes = parts.map(|(lora, weight)| (lora.change().unwrap(), weight));
        let (whole, error) = cut_down(&changes, 5).unwrap();
        assert!(distance(&whole.change().unwrap(), &sum) < 1e-6 && error < 1e-6);
        let (half, error) = cut_down(&changes, 2).unwrap();
        let left = (half.change().unwrap() - &sum).norm_l2() / sum.norm_l2();
        assert!(half.rank() == 2 && (left - error).abs() < 1e-12 && (0.01..0.9).contains(&error), "{error}");
    }

    #[test]
    fn linear_adds_factors_up_with_the_sign_on_one_side() {
        let parts = [(lora(0, 2, 4.0), 0.5), (lora(1, 2, 1.0), -2.0)];
        let sum = |weights: [f64; 2], of: fn(&Lora) -> &Tensor| {
            let [a, b] = [0, 1].map(|i| matrix(of(&parts[i].0)).unwrap() * faer::Scale(weights[i]));
            a + b
        };
        let wanted = sum([1.0, 1.0], |l| &l.b) * sum([1.0, -1.0], |l| &l.a);
        assert!(distance(&combined("linear", &parts, OPTIONS).change().unwrap(), &wanted) < 1e-6);
        // One adapter alone is scaled.
        let one = combined("linear", &parts[1..], OPTIONS).change().unwrap();
        assert!(distance(&one, &(parts[1].0.change().unwrap() * faer::Scale(-2.0))) < 1e-6);
        assert_eq!(combined("dare", &parts, OPTIONS), combined("linear", &parts, OPTIONS));
    }

    #[test]
    fn ties_elect_signs_among_the_largest() {
        let row = |values: [f32; 4]| {
            Lora::new(Tensor::f32(&[1, 4], &values), Tensor::f32(&[1, 1], &[1.0]), 1.0).unwrap()
        };
        let parts = [(row([3.0, -2.0, 0.5, 0.1]), 1.0), (row([1.0, 4.0, -0.2, 5.0]), 4.0)];
        let ties = combined("ties", &parts, Options { density: 0.5, ..OPTIONS });
        // Kept: 3, −2 of the first, 4, 5 of the second, with the weights' roots 1 and 2.
        assert_eq!(ties.a.to_f32().unwrap(), [3.0, 8.0, 0.0, 10.0]);
        // Half of one element is none: nothing of `b` is kept.
        assert_eq!(ties.b.to_f32().unwrap(), [0.0]);
        let all = combined("ties", &parts, OPTIONS);
        assert_eq!(all.a.to_f32().unwrap(), [2.5, 8.0, 0.5, 5.05]);
        assert_eq!(all.b.to_f32().unwrap(), [1.5]);
    }

    #[test]
    fn dare_keeps_a_share_and_scales_it_up() {
        let of = |dims: &[usize]| Tensor::f32(dims, &vec![1.0; dims.iter().product()]);
        let parts = [(Lora::new(of(&[8, 500]), of(&[500, 8]), 8.0).unwrap(), 1.0)];
        let options = Options { density: 0.25, ..OPTIONS };
        let dare = combined("dare", &parts, options);
        for factor in [&dare.a, &dare.b] {
            let values = factor.to_f32().unwrap();
            assert!(values.iter().all(|&x| x == 0.0 || x == 4.0));
            let kept = values.iter().filter(|&&x| x != 0.0).count();
            assert!((900..1100).contains(&kept), "{kept} of 4000");
        }
        assert_eq!(combined("dare", &parts, options), dare);
        assert_ne!(combined("dare", &parts, Options { seed: 4, ..options }), dare);
        assert_ne!(dare.a.data(), dare.b.data());
    }

    #[test]
    fn ranks_must_agree_where_factors_are_added_up() {
        let parts = [(lora(0, 2, 3.0), 0.7), (lora(1, 3, 5.0), -0.3)];
        for how in COMBINATIONS.iter().filter(|how| how.name != "cat") {
            let Of::Factors(combine) = how.of else { continue };
            assert_eq!(combine(&parts, &OPTIONS, 0).unwrap_err().code, Code::MERGE, "{}", how.name);
        }
    }
}
