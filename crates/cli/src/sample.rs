//! Text from a causal language model: one token after another, drawn from the softmax of its logits.
use graft_exec::Session;
use graft_ir::{Code, Error, Result, Tensor, random};

/// The generator's tensor number for draws of tokens.
const TOKENS: u64 = 0xfff;

/// Continues sequences of tokens.
pub(crate) struct Sampler {
    /// Runs a model whose input `input_ids` is (batch, sequence), and whose only float output are logits
    /// (batch, sequence, vocabulary).
    pub(crate) session: Session,
    /// The longest sequence that the model takes.
    pub(crate) context: usize,
    /// What logits are divided by.
    pub(crate) temperature: f64,
    /// Only so many of the most likely tokens are drawn from.
    pub(crate) top_k: usize,
    /// The seed of the draws.
    pub(crate) seed: u64,
}

impl Sampler {
    /// `prompt`, which holds at least one token, and `count` tokens that continue it.
    pub(crate) fn continued(&mut self, prompt: &[i64], count: u64) -> Result<Vec<i64>> {
        let mut tokens = prompt.to_vec();
        for nth in 0..count {
            let logits = self.next_logits(&tokens)?;
            let u = random::uniform(self.seed, nth, TOKENS, 0);
            tokens.push(draw(&logits, self.temperature, self.top_k, f64::from(u)) as i64);
        }
        Ok(tokens)
    }

    /// The logits of the token behind the last one.
    fn next_logits(&mut self, tokens: &[i64]) -> Result<Vec<f64>> {
        let seen = &tokens[tokens.len().saturating_sub(self.context)..];
        // A causal model does not see what is put behind a token, and one length needs one plan.
        let mut window = seen.to_vec();
        window.resize(self.context, 0);
        let outputs = self.session.run(&[("input_ids", &Tensor::i64(&[1, self.context], &window))])?;
        let logits = outputs.iter().find(|(_, tensor)| tensor.dtype().is_float()).map(|(_, tensor)| tensor);
        let rows = logits.filter(|t| t.dims().len() == 3 && t.dims()[1] == self.context);
        let rows = rows.and_then(|t| Some((t.to_f64()?, t.dims()[2])));
        let (rows, vocabulary) =
            rows.ok_or_else(|| Error::new(Code::GRAPH, "the model has no logits for each of its tokens"))?;
        let last = seen.len().saturating_sub(1) * vocabulary;
        Ok(rows[last..last + vocabulary].to_vec())
    }
}

/// The token at the quantile `u` of the distribution softmax(logits / temperature) over the `top_k` most likely ones.
fn draw(logits: &[f64], temperature: f64, top_k: usize, u: f64) -> usize {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order.truncate(top_k.max(1));
    let weight = |&token: &usize| ((logits[token] - logits[order[0]]) / temperature).exp();
    let mut left = u * order.iter().map(weight).sum::<f64>();
    let reached = |token: &&usize| {
        left -= weight(token);
        left < 0.0
    };
    // Rounding may leave a remainder behind the last token.
    *order.iter().find(reached).unwrap_or(&order[order.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0, 2.0f64.ln(), f64::NEG_INFINITY, 5.0f64.ln()];
        // Weights 1, 2, 0, 5 in the order 3, 1, 0, 2.
        for (u, token) in [(0.01, 3), (0.62, 3), (0.63, 1), (0.87, 1), (0.88, 0), (0.999, 0)] {
            assert_eq!(draw(&logits, 1.0, 4, u), token, "{u}");
        }
        assert_eq!(draw(&logits, 1.0, 1, 0.999), 3, "only the most likely one");
        assert_eq!(draw(&logits, 1.0, 2, 0.72), 1, "5 : 2");
        assert_eq!(draw(&logits, 0.5, 2, 0.85), 3, "25 : 4");
    }
}
