//! What changed between two printed graphs, line by line.
use std::collections::HashMap;

/// Lines of `before` and `after`, each preceded by `-` or `+`; runs of equal lines are left out and shown as `  …`.
/// Empty if the texts are equal.
///
/// This is the patience algorithm: nearly every line of a printed graph defines a value and so stands there only
/// once, and the longest sequence of such lines that both texts have in the same order is what did not change.
pub fn lines(before: &str, after: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let mut out = String::new();
    let (mut i, mut j) = (0, 0);
    for (common_a, common_b) in common(&a, &b).into_iter().chain([(a.len(), b.len())]) {
        let changed = (i, j) != (common_a, common_b);
        for line in &a[i..common_a] {
            out += &format!("- {line}\n");
        }
        for line in &b[j..common_b] {
            out += &format!("+ {line}\n");
        }
        if changed && common_a < a.len() {
            out += "  …\n";
        }
        (i, j) = (common_a + 1, common_b + 1);
    }
    out
}

/// Pairs of positions of equal lines, increasing in both texts.
fn common(a: &[&str], b: &[&str]) -> Vec<(usize, usize)> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (rest_a, rest_b) = (&a[head..], &b[head..]);
    let tail = rest_a.iter().rev().zip(rest_b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (end_a, end_b) = (a.len() - tail, b.len() - tail);
    let middle = longest_increasing(&unique_pairs(&a[head..end_a], &b[head..end_b]));
    let middle = middle.into_iter().map(|(i, j)| (head + i, head + j));
    let tails = (0..tail).map(|k| (end_a + k, end_b + k));
    (0..head).map(|k| (k, k)).chain(middle).chain(tails).collect()
}

/// Positions of the lines that stand just once in each text, in the order of `a`.
fn unique_pairs(a: &[&str], b: &[&str]) -> Vec<(usize, usize)> {
    let (in_a, in_b) = (positions(a), positions(b));
    let unique = |at: &HashMap<&str, Option<usize>>, line: &str| at.get(line).copied().flatten();
    a.iter().filter_map(|line| Some((unique(&in_a, line)?, unique(&in_b, line)?))).collect()
}

/// Where each line stands; `None` for a line that stands there more than once.
fn positions<'a>(lines: &[&'a str]) -> HashMap<&'a str, Option<usize>> {
    let mut at = HashMap::new();
    for (i, line) in lines.iter().enumerate() {
        at.entry(*line).and_modify(|p| *p = None).or_insert(Some(i));
    }
    at
}

/// The longest subsequence of `pairs` (sorted by the first number) whose second numbers increase.
fn longest_increasing(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // `tops[k]`: the pair that ends the best sequence of length k + 1; `previous`: what comes before each pair.
    let mut tops: Vec<usize> = Vec::new();
    let mut previous: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (n, pair) in pairs.iter().enumerate() {
        let k = tops.partition_point(|&t| pairs[t].1 < pair.1);
        previous.push(k.checked_sub(1).map(|k| tops[k]));
        if k == tops.len() {
            tops.push(n);
        } else {
            tops[k] = n;
        }
    }
    let mut sequence: Vec<_> =
        std::iter::successors(tops.last().copied(), |&n| previous[n]).map(|n| pairs[n]).collect();
    sequence.reverse();
    sequence
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_what_changed() {
        let before = "g {\n  a = Relu (x)\n  b = Relu (a)\n  c = Add (a, b)\n}\n";
        let after = "g {\n  a = Relu (x)\n  c = F (a)\n  d = Neg (c)\n}\n";
        let expected = "-   b = Relu (a)\n-   c = Add (a, b)\n+   c = F (a)\n+   d = Neg (c)\n  …\n";
        assert_eq!(lines(before, after), expected);
        assert_eq!(lines(before, before), "");
    }

    proptest! {
        #[test]
        fn removals_and_additions_account_for_every_line(
            a in prop::collection::vec("[a-e]", 0..12),
            b in prop::collection::vec("[a-e]", 0..12),
        ) {
            let (a_lines, b_lines): (Vec<&str>, Vec<&str>) =
                (a.iter().map(String::as_str).collect(), b.iter().map(String::as_str).collect());
            let same = common(&a_lines, &b_lines);
            prop_assert!(same.iter().all(|&(i, j)| a[i] == b[j]));
            prop_assert!(same.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1));
            let diff = lines(&a.join("\n"), &b.join("\n"));
            prop_assert_eq!(diff.lines().filter(|l| l.starts_with('-')).count(), a.len() - same.len());
            prop_assert_eq!(diff.lines().filter(|l| l.starts_with('+')).count(), b.len() - same.len());
        }
    }
}
