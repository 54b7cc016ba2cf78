//! How many heads a HydraLoRA is given by the text that it learns from: the texts as TF-IDF vectors, k-means for one
//! cluster, two, …, and the elbow of the sums of squared errors. <https://arxiv.org/abs/2404.19245>, appendix B
//!
//! The k-means is written out: linfa's and smartcore's bring whole libraries of linear algebra on dense matrices, and
//! ask for a generator of their own, where sparse rows and ours are a page.
use crate::{config::Config, data, observer::Observer};
use graft_ir::{Code, Error, Result, random};
use graft_passes::Options;
use std::collections::{BTreeMap, BTreeSet};

/// The setting, and its value that leaves the number to the text.
const SETTING: (&str, &str) = ("experts", "auto");

/// So many clusters are tried at most.
const MOST: usize = 8;
/// Only so many words are looked at, those of the most texts.
const WORDS: usize = 2000;
/// Each number of clusters is tried from so many beginnings, of which the best counts.
const STARTS: u64 = 4;
/// k-means ends here, if it has not settled before.
const ROUNDS: usize = 50;
/// The tensor of the random generator that the beginnings are drawn from; those behind it are the order of the rows'.
const TENSOR: u64 = 4092;

/// A text: the numbers of its words and their weights, of length 1 unless it has no words.
type Row = Vec<(usize, f64)>;

/// A number of clusters, and how it was found.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Choice {
    /// The number at the elbow.
    pub(crate) clusters: usize,
    /// The sum of squared errors of one cluster, two, ….
    pub(crate) errors: Vec<f64>,
}

/// The options of the pass `inject` with a number in place of `experts=auto`. It is said to `observer`, with the curve that
/// it was read from, and depends on nothing but the training text and the seed.
///
/// # Errors
/// [`Code::USAGE`] where the training data is not text; those of reading it.
pub fn settled(options: Options, config: &Config, observer: &mut dyn Observer) -> Result<Options> {
    let (key, auto) = SETTING;
    if options.all(key).last().is_none_or(|value| value != auto) {
        return Ok(options);
    }
    if config.tokenizer.is_none() {
        let message =
            format!("`{key}={auto}` counts the kinds of text to learn from, and the data is not text");
        return Err(
            Error::new(Code::USAGE, message).help(format!("give a tokenizer, or a number: `{key}=3`"))
        );
    }
    let texts = data::sentences(&config.data, &config.text)?;
    let Choice { clusters, errors } =
        choose(&texts.iter().map(String::as_str).collect::<Vec<_>>(), config.seed);
    let curve: Vec<String> = errors.iter().enumerate().map(|(i, e)| format!("{}: {e:.1}", i + 1)).collect();
    observer.note(&format!(
        "{key}: {clusters}, where the squared errors of k-means over {} texts bend: {}",
        texts.len(),
        curve.join(", ")
    ));
    Ok(options.without(key).with(key, clusters))
}

/// The number of clusters that the texts fall into.
pub(crate) fn choose(texts: &[&str], seed: u64) -> Choice {
    let rows = tf_idf(texts);
    let most = MOST.min(rows.len());
    let best = |k: usize| {
        let starts = (0..STARTS).map(|start| k_means(&rows, k, seed, start * MOST as u64 + k as u64));
        starts.min_by(f64::total_cmp).unwrap_or(0.0)
    };
    let errors: Vec<f64> = (1..=most).map(best).collect();
    Choice { clusters: elbow(&errors), errors }
}

/// Term frequency times the smoothed inverse document frequency `ln((1 + n)/(1 + df)) + 1`, each row of length 1.
fn tf_idf(texts: &[&str]) -> Vec<Row> {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
        words.map(str::to_lowercase).collect()
    };
    let texts: Vec<Vec<String>> = texts.iter().map(|text| words(text)).collect();
    let mut frequency: BTreeMap<&str, usize> = BTreeMap::new();
    for text in &texts {
        let once: BTreeSet<&str> = text.iter().map(String::as_str).collect();
        once.into_iter().for_each(|word| *frequency.entry(word).or_default() += 1);
    }
    let mut common: Vec<(&str, usize)> = frequency.into_iter().collect();
    // Stable, so that equally frequent words stay in alphabetical order.
    common.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    common.truncate(WORDS);
    let idf = |n: usize| ((1 + texts.len()) as f64 / (1 + n) as f64).ln() + 1.0;
    let known: BTreeMap<&str, (usize, f64)> =
        common.iter().enumerate().map(|(i, &(word, n))| (word, (i, idf(n)))).collect();
    let row = |text: &Vec<String>| {
        let mut row: BTreeMap<usize, f64> = BTreeMap::new();
        let found = text.iter().filter_map(|word| known.get(word.as_str()));
        found.for_each(|(i, idf)| *row.entry(*i).or_default() += idf);
        let length = row.values().map(|v| v * v).sum::<f64>().sqrt();
        row.into_iter().map(|(i, v)| (i, v / length)).collect()
    };
    texts.iter().map(row).collect()
}

/// The sum of squared errors after k-means with `k` centres, the first of which are drawn as k-means++ has it.
fn k_means(rows: &[Row], k: usize, seed: u64, draw: u64) -> f64 {
    let width = rows.iter().flatten().map(|(i, _)| i + 1).max().unwrap_or(0);
    let mut centres = beginnings(rows, k, width, seed, draw);
    let mut nearest = vec![usize::MAX; rows.len()];
    for _ in 0..ROUNDS {
        let found: Vec<usize> = rows.iter().map(|row| closest(row, &centres).0).collect();
        if found == nearest {
            break;
        }
        nearest = found;
        for (c, centre) in centres.iter_mut().enumerate() {
            let members: Vec<&Row> =
                rows.iter().zip(&nearest).filter(|(_, n)| **n == c).map(|(r, _)| r).collect();
            // A centre that nobody is near stays where it is.
            if !members.is_empty() {
                *centre = Centre::mean(&members, width);
            }
        }
    }
    rows.iter().map(|row| closest(row, &centres).1).sum()
}

/// A point, and the square of its length.
struct Centre {
    at: Vec<f64>,
    square: f64,
}

impl Centre {
    fn mean(rows: &[&Row], width: usize) -> Centre {
        let mut at = vec![0.0; width];
        rows.iter().copied().flatten().for_each(|&(i, v)| at[i] += v / rows.len() as f64);
        let square = at.iter().map(|v| v * v).sum();
        Centre { at, square }
    }
    /// The squared distance `|x|² − 2·x·c + |c|²`; rounding may bring it below zero.
    fn distance(&self, row: &Row) -> f64 {
        let terms = row.iter().map(|&(i, v)| v * v - 2.0 * v * self.at[i]);
        (terms.sum::<f64>() + self.square).max(0.0)
    }
}

/// The number of the nearest centre, the first of equal ones, and the squared distance to it.
fn closest(row: &Row, centres: &[Centre]) -> (usize, f64) {
    let distances = centres.iter().map(|c| c.distance(row)).enumerate();
    distances.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0))
}

/// Rows, each drawn with a probability that grows with the square of its distance to those drawn before.
fn beginnings(rows: &[Row], k: usize, width: usize, seed: u64, draw: u64) -> Vec<Centre> {
    let mut centres: Vec<Centre> = Vec::new();
    for nth in 0..k {
        let weights: Vec<f64> =
            rows.iter().map(|row| if centres.is_empty() { 1.0 } else { closest(row, &centres).1 }).collect();
        let u = f64::from(random::uniform(seed, draw, TENSOR, nth as u64));
        let mut left = u * weights.iter().sum::<f64>();
        let reached = |w: &f64| {
            left -= w;
            left < 0.0
        };
        let drawn = weights.iter().position(reached).unwrap_or(0);
        centres.push(Centre::mean(&[&rows[drawn]], width));
    }
    centres
}

/// Where the curve bends most: the number whose error lies deepest below the line from the first to the last; 1 for a
/// curve that does not bend.
fn elbow(errors: &[f64]) -> usize {
    let (Some(first), Some(last)) = (errors.first(), errors.last()) else { return 1 };
    let slope = (last - first) / f64::max(errors.len() as f64 - 1.0, 1.0);
    let depth = |(i, e): (usize, &f64)| first + slope * i as f64 - e;
    let least = first.abs() * 1e-9;
    let depths = errors.iter().enumerate().map(depth).enumerate();
    let deepest = depths.fold((0, least), |best, (i, d)| if d > best.1 { (i, d) } else { best });
    deepest.0 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` texts about each of `topics`, which share no words.
    fn texts(topics: usize, n: usize) -> Vec<String> {
        let text = |i: usize| {
            let word = |nth: u64| {
                let which = random::bits(1, i as u64, 0, nth) % 6;
                format!("topic{}word{which}", i % topics)
            };
            (0..8).map(word).collect::<Vec<_>>().join(" ")
        };
        (0..topics * n).map(text).collect()
    }

    fn chosen(texts: &[String], seed: u64) -> Choice {
        choose(&texts.iter().map(String::as_str).collect::<Vec<_>>(), seed)
    }

    #[test]
    fn as_many_as_there_are_topics() {
        for topics in [2, 3, 5] {
            let choice = chosen(&texts(topics, 30), 0);
            assert_eq!(choice.clusters, topics, "{:?}", choice.errors);
            assert_eq!(choice.errors.len(), MOST);
            assert!(
                choice.errors.is_sorted_by(|a, b| a >= b),
                "more centres are nearer: {:?}",
                choice.errors
            );
        }
    }

    #[test]
    fn the_seed_decides() {
        let texts = texts(3, 20);
        assert_eq!(chosen(&texts, 5), chosen(&texts, 5));
        assert_ne!(chosen(&texts, 5).errors, chosen(&texts, 6).errors);
    }

    #[test]
    fn odd_texts_have_one_cluster() {
        let same = vec!["all the same".to_string(); 9];
        for texts in [vec![], vec![String::new(); 3], vec!["one".into()], same] {
            assert_eq!(chosen(&texts, 0).clusters, 1, "{texts:?}");
        }
    }

    #[test]
    fn vectors_are_those_of_the_formula() {
        let rows = tf_idf(&["b a a", "B c"]);
        // The words by frequency, then by name: b (in both), a, c.
        let rare = (3.0f64 / 2.0).ln() + 1.0;
        let length = (1.0 + 4.0 * rare * rare).sqrt();
        assert_eq!(rows[0], [(0, 1.0 / length), (1, 2.0 * rare / length)]);
        assert_eq!(elbow(&[10.0, 4.0, 3.0, 2.0]), 2);
        assert_eq!(elbow(&[10.0, 9.0, 8.0, 7.0]), 1);
    }
}
