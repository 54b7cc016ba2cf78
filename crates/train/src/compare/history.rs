//! What a run has written about itself, read back from its folder.
use crate::{
    METRICS_FILE,
    metrics::{Evaluation, StepMetrics},
    routing::{Domains, Routing},
};
use graft_ir::{Code, Error, Result};
use serde::Deserialize;
use std::{collections::BTreeMap, fs, path::Path};

/// The rank of each adapted linear, by module path.
pub type Ranks = BTreeMap<String, usize>;

/// A run, step by step.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct History {
    /// Every step.
    pub steps: Vec<StepMetrics>,
    /// Every evaluation.
    pub evaluations: Vec<Evaluation>,
    /// The ranks after steps in which they were looked at, where the method adapts them.
    pub ranks: Vec<(u64, Ranks)>,
    /// The mean routing at the end by the domain of the rows, where the method routes.
    pub routing: Domains,
}

/// What is told of ranks on a line of metrics.
#[derive(Deserialize)]
struct RankLine {
    step: u64,
    ranks: Ranks,
}

/// What is told of routing on a line of metrics.
#[derive(Deserialize)]
struct RoutingLine {
    domain: String,
    routing: Routing,
}

impl History {
    /// Reads `metrics.jsonl` in `folder`.
    ///
    /// # Errors
    /// [`Code::IO`] where it cannot be read, [`Code::STATE`] for a line that is no object with a step.
    pub fn read(folder: &Path) -> Result<History> {
        let path = folder.join(METRICS_FILE);
        let failed = |e| Error::new(Code::IO, format!("cannot read: {e}")).at(path.display().to_string());
        History::parse(&fs::read_to_string(&path).map_err(failed)?)
            .map_err(|e| e.at(path.display().to_string()))
    }

    /// A line may tell of a step, of an evaluation, of ranks, of routing, or of several of them.
    fn parse(text: &str) -> Result<History> {
        let mut history = History::default();
        for (i, line) in text.lines().enumerate() {
            let bad = || Error::new(Code::STATE, format!("line {} is no line of metrics", i + 1));
            let line: serde_json::Value = serde_json::from_str(line).map_err(|_| bad())?;
            let known = [
                StepMetrics::deserialize(&line).map(|m| history.steps.push(m)).is_ok(),
                Evaluation::deserialize(&line).map(|e| history.evaluations.push(e)).is_ok(),
                RankLine::deserialize(&line).map(|r| history.ranks.push((r.step, r.ranks))).is_ok(),
                RoutingLine::deserialize(&line).map(|r| history.routing.insert(r.domain, r.routing)).is_ok(),
            ];
            if !known.contains(&true) {
                return Err(bad());
            }
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let text = r#"{"step":1,"loss":1.5,"lr":0.1,"grad_norm":2.0,"tokens_per_s":10.0}
{"step":1,"ranks":{"enc.up":4,"enc.down":2}}
{"step":1,"eval_loss":0.5,"accuracy":0.75}
{"step":2,"loss":1.0,"lr":0.1,"grad_norm":2.0,"tokens_per_s":10.0,"ranks":{"enc.up":3,"enc.down":2}}
{"step":2,"domain":"all","routing":{"enc.up":[0.25,0.75]}}
"#;
        let history = History::parse(text).unwrap();
        assert_eq!(history.steps.iter().map(|m| m.loss).collect::<Vec<_>>(), [1.5, 1.0]);
        assert_eq!(history.evaluations, [Evaluation { step: 1, eval_loss: 0.5, accuracy: Some(0.75) }]);
        let ups: Vec<(u64, usize)> =
            history.ranks.iter().map(|(step, ranks)| (*step, ranks["enc.up"])).collect();
        assert_eq!(ups, [(1, 4), (2, 3)]);
        assert_eq!(history.routing["all"]["enc.up"], [0.25, 0.75]);
        for bad in ["{\"step\":1}", "{\"step\":1,\"lo"] {
            assert_eq!(History::parse(bad).unwrap_err().code, Code::STATE, "{bad}");
        }
    }
}
